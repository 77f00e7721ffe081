"""Hard choices with soft gradients.

Shape suffixes: N frames, C frames of a chunk, I input dim, G groups (codebooks), V codes of a
group, E = G * V, D dim of a code.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import full_precision

# Frames that are computed at once: 256 x 640 codes x 4 bytes are 0.7 MB.
CHUNK = 256


@torch.library.custom_op("brainquant::gumbel_rows", mutates_args=())
def gumbel_rows(
    x_NI: Tensor,
    weight_EI: Tensor,
    bias_E: Tensor,
    codebook_GVD: Tensor,
    noise_NE: Tensor | None,
    temperature: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Rows of codebooks: a hard choice in the forward, a softmax in the backward.

    It is the straight-through Gumbel softmax (Jang et al., https://arxiv.org/abs/1611.01144) in
    less memory: without one-hot vectors of (frames, codes) and their product with the codebook, of
    (frames, codes, dim). The forward gathers one row per frame and group. The backward computes
    the softmax of a few frames at a time, down to the gradient of the input.

    Arguments
    ---------
    x_NI : torch.Tensor
        Frames, shape (frames, input dim).
    weight_EI : torch.Tensor
        Weight of the linear layer that scores the codes, shape (groups * codes, input dim).
    bias_E : torch.Tensor
        Bias of that layer.
    codebook_GVD : torch.Tensor
        Codebooks, shape (groups, codes, dim), of the same dtype.
    noise_NE : torch.Tensor or None
        Exponential noise, shape (frames, groups * codes). None chooses without noise; then only
        the codebook gets a gradient from the rows.
    temperature : float
        Temperature of the softmax in the backward.

    Returns
    -------
    rows_NGD : torch.Tensor
        The chosen rows; NaN for a frame whose scores are not finite.
    chosen_NG : torch.Tensor
        The indices of these rows; -1 for such a frame.
    codes_NG : torch.Tensor
        The indices chosen without noise; -1 for such a frame.
    probs_GV : torch.Tensor
        Mean of the softmax without noise, differentiable; zeros without frames.
    scores_NE : torch.Tensor
        Kept for the backward.
    """
    G, V, _ = codebook_GVD.shape
    with full_precision(x_NI.device):
        scores_NE = F.linear(x_NI, weight_EI, bias_E)
    scores_NGV = scores_NE.view(-1, G, V)
    codes_NG = x_NI.new_empty(len(x_NI), G, dtype=torch.long)
    chosen_NG = codes_NG if noise_NE is None else torch.empty_like(codes_NG)
    finite_N11 = x_NI.new_empty(len(x_NI), 1, 1, dtype=torch.bool)
    probs_GV = codebook_GVD.new_zeros(G, V)
    for part in chunks(len(x_NI)):
        scores_CGV = scores_NGV[part]
        torch.argmax(scores_CGV, -1, out=codes_NG[part])
        probs_GV += torch.softmax(scores_CGV, -1).sum(0)
        # A finite sum means finite terms; finite terms with an infinite sum are useless too.
        finite_N11[part] = torch.isfinite(scores_CGV.sum((1, 2), keepdim=True))
        if noise_NE is not None:
            noisy_CGV = scores_CGV - noise_NE[part].log().view_as(scores_CGV)
            torch.argmax(noisy_CGV, -1, out=chosen_NG[part])
    rows_NGD = gather_rows(codebook_GVD, chosen_NG).masked_fill_(~finite_N11, torch.nan)
    invalid_N1 = ~finite_N11[..., 0]
    chosen_NG, codes_NG = (codes.masked_fill(invalid_N1, -1) for codes in (chosen_NG, codes_NG))
    return rows_NGD, chosen_NG, codes_NG, probs_GV / max(len(x_NI), 1), scores_NE


@gumbel_rows.register_fake
def _(x_NI, weight_EI, bias_E, codebook_GVD, noise_NE, temperature):
    N, (G, V, D) = x_NI.shape[0], codebook_GVD.shape
    codes_NG = x_NI.new_empty(N, G, dtype=torch.long)
    return (
        x_NI.new_empty(N, G, D),
        codes_NG,
        torch.empty_like(codes_NG),
        x_NI.new_empty(G, V),
        x_NI.new_empty(N, G * V),
    )


@torch.library.custom_op("brainquant::gumbel_rows_backward", mutates_args=())
def gumbel_rows_backward(
    grad_rows_NGD: Tensor,
    grad_probs_GV: Tensor,
    x_NI: Tensor,
    weight_EI: Tensor,
    codebook_GVD: Tensor,
    noise_NE: Tensor | None,
    chosen_NG: Tensor,
    scores_NE: Tensor,
    temperature: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of frames, weight, bias and codebooks, in chunks of frames."""
    G, V, D = codebook_GVD.shape
    N = len(x_NI)
    scores_NGV = scores_NE.view(-1, G, V)
    grad_x_NI = torch.empty_like(x_NI)
    grad_weight_EI, grad_bias_E = torch.zeros_like(weight_EI), weight_EI.new_zeros(G * V)
    with full_precision(x_NI.device):
        for part in chunks(N):
            scores_CGV = scores_NGV[part]
            probs_CGV = torch.softmax(scores_CGV, -1)
            grad_CGV = through_softmax(probs_CGV, grad_probs_GV / N)
            if noise_NE is not None:
                noisy_CGV = scores_CGV - noise_NE[part].log().view_as(scores_CGV)
                probs_CGV = torch.softmax(noisy_CGV.div_(temperature), -1)
                pull_GCV = torch.bmm(grad_rows_NGD[part].transpose(0, 1), codebook_GVD.mT)
                grad_CGV += through_softmax(probs_CGV, pull_GCV.transpose(0, 1)).div_(temperature)
            grad_CE = grad_CGV.flatten(1)
            torch.mm(grad_CE, weight_EI, out=grad_x_NI[part])
            grad_weight_EI.addmm_(grad_CE.T, x_NI[part])
            grad_bias_E += grad_CE.sum(0)
    rows_NG = chosen_NG.clamp(min=0) + torch.arange(G, device=chosen_NG.device) * V
    valid_NG1 = (chosen_NG >= 0)[..., None]
    grad_codebook = codebook_GVD.new_zeros(G * V, D)
    grad_codebook.index_add_(0, rows_NG.flatten(), (grad_rows_NGD * valid_NG1).view(-1, D))
    return grad_x_NI, grad_weight_EI, grad_bias_E, grad_codebook.view(G, V, D)


@gumbel_rows_backward.register_fake
def _(grad_rows, grad_probs, x, weight, codebook, noise, chosen, scores, temperature):
    gradients = (torch.empty_like(tensor) for tensor in (x, weight, weight[:, 0], codebook))
    return tuple(gradients)


def _setup_context(ctx, inputs, output):
    x_NI, weight_EI, _, codebook_GVD, noise_NE, ctx.temperature = inputs
    _, chosen_NG, _, _, scores_NE = output
    ctx.save_for_backward(x_NI, weight_EI, codebook_GVD, noise_NE, chosen_NG, scores_NE)


def _backward(ctx, grad_rows_NGD, _chosen, _codes, grad_probs_GV, _scores):
    gradients = gumbel_rows_backward(
        grad_rows_NGD, grad_probs_GV, *ctx.saved_tensors, ctx.temperature
    )
    return *gradients, None, None


gumbel_rows.register_autograd(_backward, setup_context=_setup_context)


def through_softmax(probs_CGV: Tensor, grad_CGV: Tensor) -> Tensor:
    """The gradient of the logits from the gradient of their softmax."""
    product_CGV = probs_CGV * grad_CGV
    return product_CGV.addcmul_(probs_CGV, product_CGV.sum(-1, keepdim=True), value=-1)


def chunks(num_frames: int) -> list[slice]:
    """Slices of at most ``CHUNK`` frames."""
    return [slice(start, start + CHUNK) for start in range(0, num_frames, CHUNK)]


def gather_rows(codebook_GVD: Tensor, codes_NG: Tensor) -> Tensor:
    """One row of each group's codebook per frame.

    Arguments
    ---------
    codebook_GVD : torch.Tensor
        Codebooks, shape (groups, codes, dim).
    codes_NG : torch.Tensor
        LongTensor of indices, shape (frames, groups).

    Returns
    -------
    rows_NGD : torch.Tensor
        Shape (frames, groups, dim).

    Example
    -------
    >>> codebook = torch.arange(6.0).view(1, 3, 2)
    >>> gather_rows(codebook, torch.tensor([[2], [0]])).squeeze(1)
    tensor([[4., 5.],
            [0., 1.]])
    """
    groups_G = torch.arange(codebook_GVD.shape[0], device=codes_NG.device)
    return codebook_GVD[groups_G, codes_NG]
