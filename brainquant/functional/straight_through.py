"""Hard choices with soft gradients.

Shape suffixes: N frames, G groups (codebooks), V codes of a group, D dim of a code.
"""

import torch


class StraightThroughGather(torch.autograd.Function):
    """Rows of a codebook, chosen hard in the forward and softly in the backward.

    The forward gathers one row per frame and group. The backward is that of the product of the
    straight-through one-hot vectors with the codebook, which would take a tensor of (frames,
    codes, dim): the gradient of the codebook adds up the rows that were chosen, the gradient of
    the logits goes through the softmax (Jang et al., https://arxiv.org/abs/1611.01144).
    """

    @staticmethod
    def forward(ctx, logits_NGV, codebook_GVD, temperature):
        """Returns the chosen rows (frames, groups, dim) and their indices (frames, groups)."""
        codes_NG = logits_NGV.argmax(-1)
        ctx.save_for_backward(logits_NGV, codebook_GVD, codes_NG)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(codes_NG)
        return gather_rows(codebook_GVD, codes_NG), codes_NG

    @staticmethod
    def backward(ctx, grad_NGD, _):
        """Gradients of the logits and of the codebook."""
        logits_NGV, codebook_GVD, codes_NG = ctx.saved_tensors
        grad_logits = grad_codebook = None
        if ctx.needs_input_grad[0]:
            probs_NGV = torch.softmax(logits_NGV / ctx.temperature, dim=-1)
            pull_NGV = torch.einsum("ngd,gvd->ngv", grad_NGD, codebook_GVD)
            mean_NG1 = (probs_NGV * pull_NGV).sum(-1, keepdim=True)
            grad_logits = probs_NGV * (pull_NGV - mean_NG1) / ctx.temperature
        if ctx.needs_input_grad[1]:
            G, V, D = codebook_GVD.shape
            rows_NG = codes_NG + torch.arange(G, device=codes_NG.device) * V
            grad_codebook = codebook_GVD.new_zeros(G * V, D)
            grad_codebook.index_add_(0, rows_NG.flatten(), grad_NGD.reshape(-1, D))
            grad_codebook = grad_codebook.view(G, V, D)
        return grad_logits, grad_codebook, None


def gather_rows(codebook_GVD, codes_NG):
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
