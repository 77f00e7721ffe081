"""Random-projection quantiser of BEST-RQ.

Shape suffixes: B batch, T time, N = B * T frames, D code dim, V codes, I input dim.
"""

import torch
import torch.nn.functional as F

from ..functional.nearest import nearest_code
from .base import Quantiser, as_float, check_positive, full_precision


class RandomProjectionQuantizer(Quantiser):
    """Index of the random code that is nearest to a random projection of the frame.

    Nothing in it is trained (Chiu et al., https://arxiv.org/abs/2202.01855). The interface,
    the ``state_dict`` (``P``, ``CB``) and, for the same seed, the tables and codes are those of
    ``speechbrain.nnet.quantisers.RandomProjectionQuantizer``, which builds a tensor of (batch,
    codes, time, dim) in 1.1.2 and changes its codes under autocast; this one does neither.

    Arguments
    ---------
    input_dim : int
        Size of a frame.
    cb_dim : int
        Size of a code.
    cb_vocab : int
        Number of codes.
    seed : int or None
        Draws the tables from a generator of their own, so that they do not depend on what was
        built before. None draws from the global one, as SpeechBrain does.

    Raises
    ------
    ValueError
        Where a size is not a positive integer, or a frame has another size than input_dim.

    Example
    -------
    >>> quantiser = RandomProjectionQuantizer(16, 16, 32, seed=0)
    >>> inputs = torch.rand(10, 12, 16)
    >>> codes = quantiser(inputs)
    >>> codes.shape
    torch.Size([10, 12])
    >>> bool((quantiser(3.0 * inputs[:2, :5]) == codes[:2, :5]).all())
    True
    """

    num_codebooks = 1

    def __init__(self, input_dim, cb_dim, cb_vocab, *, seed=None):
        super().__init__()
        check_positive(input_dim=input_dim, cb_dim=cb_dim, cb_vocab=cb_vocab)
        self.input_dim = input_dim
        self.cb_dim = cb_dim
        self.cb_vocab = cb_vocab
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        P_ID = torch.empty(input_dim, cb_dim)
        self.register_buffer("P", torch.nn.init.xavier_uniform_(P_ID, generator=generator))
        CB_VD = torch.randn(cb_vocab, cb_dim, generator=generator)
        self.register_buffer("CB", F.normalize(CB_VD))

    @property
    def codebook_size(self):
        """Number of codes."""
        return self.cb_vocab

    def forward(self, x):
        """Codes of frames.

        Arguments
        ---------
        x : torch.Tensor
            Shape (batch, time, input_dim).

        Returns
        -------
        codes : torch.Tensor
            LongTensor, shape (batch, time). A frame that projects to zeros gets code 0; one
            that is not finite gets -1.
        """
        x_BTI = as_float(x, self.input_dim)
        with torch.no_grad(), full_precision(x.device):
            x_ND = F.normalize(x_BTI @ self.P.float(), dim=2).flatten(0, 1)
            return nearest_code(x_ND, self.CB.float()).view(x.shape[:2])

    def encode(self, x):
        """Codes of frames, shape (batch, time, 1); see ``Quantiser.encode``."""
        return self(x).unsqueeze(-1)
