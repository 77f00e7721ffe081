"""The quantisers of vector-quantize-pytorch, under the contract of this package.

Shape suffixes: B batch, T time, N = B * T frames, M finite frames, G codebooks, D dim.
"""

from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch.func import functional_call

from ..functional.precision import full_precision
from .base import Quantiser, as_float, check_positive


class LibraryQuantizer(Quantiser):
    """A quantiser of the library vector-quantize-pytorch behind a learned projection.

    Among them finite scalar quantisation (``FSQ``, https://arxiv.org/abs/2309.15505), lookup-free
    quantisation (``LFQ``, https://arxiv.org/abs/2310.05737) and residual vector quantisation
    (``ResidualVQ``, https://arxiv.org/abs/2107.03312). The library computes codes, vectors, loss
    and its own updates; it sees finite frames only. It agrees on codebooks between ranks where
    the process group exists before the quantiser is built, as in a recipe.

    Arguments
    ---------
    input_dim : int
        Size of a frame.
    vq_dim : int
        Size of the projected and of the quantised vector.
    name : str
        Class of the library.
    **arguments
        Arguments of that class, but for its ``dim``, which is vq_dim.

    Raises
    ------
    ImportError
        Where the library is not installed.
    ValueError
        Where the library has no such class or does not take its arguments, or a frame has
        another size than input_dim.

    Example
    -------
    >>> quantiser = LibraryQuantizer(16, 8, "FSQ", levels=[3, 3, 5])
    >>> quantiser.num_codebooks, quantiser.codebook_size
    (1, 45)
    >>> x = torch.randn(2, 5, 16)
    >>> bool((quantiser(x, return_codes=True)["codes"] == quantiser.encode(x)).all())
    True
    """

    def __init__(self, input_dim, vq_dim, name, **arguments):
        super().__init__()
        check_positive(input_dim=input_dim, vq_dim=vq_dim)
        self.input_dim = input_dim
        self.vq_dim = vq_dim
        self.proj = torch.nn.Linear(input_dim, vq_dim)
        make = library_class(name)
        try:
            self.library = make(dim=vq_dim, **arguments)
        except AssertionError as error:
            raise ValueError(
                f"{name} of vector-quantize-pytorch does not take these arguments ({error}), got "
                f"{arguments}; change them under the quantiser in your YAML"
            ) from error
        self.codebook_size = self.library.codebook_size
        _, codes_MG, _ = self._look(torch.zeros(1, vq_dim))
        self.num_codebooks = codes_MG.shape[1]

    def forward(self, x, *, generator=None, return_codes=False):
        """Quantised vectors; in training, the library then updates what it updates.

        Arguments
        ---------
        x : torch.Tensor
            Shape (batch, time, input_dim).
        generator : torch.Generator or None
            Seeds what the library draws in training; None leaves it the global generator.
        return_codes : bool
            Adds to the result ``codes``, those of ``encode``; ``chosen_codes``, those of the
            vectors, -1 where the library has dropped a codebook; both of shape (batch, time,
            codebooks); ``aux_loss``, the sum of the library's losses, 0 where it has none.

        Returns
        -------
        result : dict
            ``x``: vectors, shape (batch, time, vq_dim), NaN for a frame that is not finite.
        """
        B, T = x.shape[:2]
        frames_MD, finite_N = self._project(x)
        vectors_MD, codes_MG, loss = self._look(frames_MD)
        chosen_MG = codes_MG
        # A rank without frames takes part in the collectives of the others.
        if self.training and (len(frames_MD) or torch.distributed.is_initialized()):
            with drawing_from(generator, x.device):
                vectors_MD, chosen_MG, loss = self._ask(self.library, frames_MD)
        result = {"x": spread(vectors_MD, finite_N, torch.nan).view(B, T, self.vq_dim)}
        if return_codes:
            result["aux_loss"] = loss
            for key, rows_MG in {"codes": codes_MG, "chosen_codes": chosen_MG}.items():
                result[key] = spread(rows_MG, finite_N, -1).view(B, T, self.num_codebooks)
        return result

    @torch.no_grad()
    def encode(self, x):
        """Codes of frames, shape (batch, time, codebooks); see ``Quantiser.encode``."""
        frames_MD, finite_N = self._project(x)
        _, codes_MG, _ = self._look(frames_MD)
        return spread(codes_MG, finite_N, -1).view(*x.shape[:2], self.num_codebooks)

    def _project(self, x):
        """Projected frames, the finite ones only, and which those are."""
        x = as_float(x, self.input_dim).flatten(0, 1)
        with full_precision(x.device):
            x = F.linear(x, self.proj.weight.float(), self.proj.bias.float())
        finite_N = torch.isfinite(x).all(-1)
        return x[finite_N], finite_N

    def _ask(self, library, frames_MD):
        """Vectors, codes and loss from the library."""
        with full_precision(frames_MD.device):
            vectors_1MD, codes, *losses = library(frames_MD[None])
        loss = vectors_1MD.new_zeros(())
        if len(frames_MD):
            loss = sum(map(torch.sum, losses), loss)
        # One codebook has no dimension for the codebooks.
        return vectors_1MD[0], codes.unsqueeze(-1).flatten(2)[0].long(), loss

    def _look(self, frames_MD):
        """The same in evaluation, from copies of the buffers.

        In 1.32 even an evaluation would start codebooks by k-means (``kmeans_init``).
        """
        buffers = {name: buffer.detach().clone() for name, buffer in self.library.named_buffers()}
        for name in buffers:
            if name.endswith("initted"):
                buffers[name].fill_(True)
        training = self.library.training
        self.library.eval()
        try:
            return self._ask(partial(functional_call, self.library, buffers), frames_MD)
        finally:
            self.library.train(training)


def library_class(name):
    """A class of vector-quantize-pytorch."""
    try:
        import vector_quantize_pytorch
    except ImportError as error:
        raise ImportError(
            f"{name} is a quantiser of vector-quantize-pytorch, which is not installed; "
            f'pip install "brainquant[vq]"'
        ) from error
    if not hasattr(vector_quantize_pytorch, name):
        raise ValueError(
            f"vector-quantize-pytorch has no {name!r}; set name: under the quantiser in your YAML "
            f"to one of its classes, for instance FSQ, LFQ or ResidualVQ"
        )
    return getattr(vector_quantize_pytorch, name)


def spread(rows_MX, finite_N, fill):
    """Rows at the places of finite frames, ``fill`` at the others."""
    rows_NX = rows_MX.new_full((len(finite_N), rows_MX.shape[1]), fill)
    rows_NX[finite_N] = rows_MX
    return rows_NX


@contextmanager
def drawing_from(generator, device):
    """The global random numbers replaced by a generator's, where one is given."""
    if generator is None:
        yield
        return
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(seed))
        yield
