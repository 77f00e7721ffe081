"""Activation checkpointing changes the memory of a training step and nothing else."""

import torch

WAVS_BL = 0.1 * torch.randn(2, 8000, generator=torch.Generator().manual_seed(0))
LENGTHS_B = torch.tensor([8000, 5000])


def outputs_and_gradients(encoder):
    """Of a training step with dropout; and how often each layer was computed."""
    torch.manual_seed(1)
    encoded = encoder(WAVS_BL, LENGTHS_B)
    loss = encoded.hidden_BTD.square().mean() + encoded.inputs_BTI.square().mean()
    parameters = [p for p in encoder.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return encoded.hidden_BTD, *(g for g in gradients if g is not None)


def saved_bytes(encoder):
    """Bytes of the activations that a training step keeps for its backward."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs_and_gradients(encoder)
    return sum(kept.values())
