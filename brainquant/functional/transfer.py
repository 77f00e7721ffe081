"""Copies from the host to the device without waiting."""

import torch


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copies a tensor to the device; the program does not wait for the copy.

    Arguments
    ---------
    tensor : torch.Tensor
        On the host, or on the device already.
    device : torch.device
        The target.

    Returns
    -------
    tensor : torch.Tensor

    Example
    -------
    >>> to_device(torch.tensor([3]), torch.device("cpu"))
    tensor([3])
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()  # otherwise the copy waits for all earlier work
    return tensor.to(device, non_blocking=True)
