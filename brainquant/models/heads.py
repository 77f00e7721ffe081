"""Heads that predict the codes of several codebooks, each from a layer of its own.

Shape suffixes: N frames, G codebooks, V codes, D dim.
"""

import math

import torch


class LayerHeads(torch.nn.Module):
    """A linear layer for each codebook.

    Arguments
    ---------
    dim : int
        Size of the hidden states.
    num_codebooks : int
        Codebooks.
    codebook_size : int
        Codes of each.

    Example
    -------
    >>> heads, hidden = LayerHeads(4, 2, 8), torch.randn(5, 2, 4)
    >>> logits = heads(hidden)
    >>> by_hand = hidden[:, 1] @ heads.weight[1].T + heads.bias[8:]
    >>> logits.shape, bool(torch.allclose(logits[:, 1], by_hand, atol=1e-6))
    (torch.Size([5, 2, 8]), True)
    """

    def __init__(self, dim: int, num_codebooks: int, codebook_size: int) -> None:
        super().__init__()
        self.num_codebooks = num_codebooks
        bound = 1 / math.sqrt(dim)  # torch.nn.Linear's
        weight_GVD = torch.empty(num_codebooks, codebook_size, dim).uniform_(-bound, bound)
        self.weight = torch.nn.Parameter(weight_GVD)
        # A vector, like the bias of one layer, so that no weight decay reaches it if none should.
        bias = torch.empty(num_codebooks * codebook_size).uniform_(-bound, bound)
        self.bias = torch.nn.Parameter(bias)

    def forward(self, hidden_NGD: torch.Tensor) -> torch.Tensor:
        """Scores, shape (frames, codebooks, codes).

        Arguments
        ---------
        hidden_NGD : torch.Tensor
            Hidden states, shape (frames, codebooks, dim), or (frames, 1, dim) if all codebooks
            are predicted from the same.
        """
        hidden_GND = hidden_NGD.expand(-1, self.num_codebooks, -1).transpose(0, 1)
        bias_G1V = self.bias.view(self.num_codebooks, 1, -1)
        return (torch.bmm(hidden_GND, self.weight.mT) + bias_G1V).transpose(0, 1)
