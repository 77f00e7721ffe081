"""The quantisers of vector-quantize-pytorch, with the contract of this package.

Shape suffixes: B batch, T time, N = B * T frames, M finite frames, G codebooks, D dim.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.func import functional_call
from typing_extensions import override

from ..functional.collectives import gather_batches, rank_and_size
from ..functional.precision import full_precision
from .base import as_float, check_positive
from .moving import MovingQuantiser, drawing_from_seed


class Batch(NamedTuple):
    """A batch that moves the library's codebooks.

    Attributes
    ----------
    frames_MD : torch.Tensor
        Its projected frames; only finite ones.
    seed : int
        The seed of the library's draws.
    buffers : dict of str to torch.Tensor
        The library's buffers after a step that has this batch only.
    """

    frames_MD: torch.Tensor
    seed: int
    buffers: dict[str, torch.Tensor]


class LibraryQuantizer(MovingQuantiser):
    """A quantiser of the library vector-quantize-pytorch behind a learned projection.

    Examples are finite scalar quantisation (``FSQ``, https://arxiv.org/abs/2309.15505), lookup-free
    quantisation (``LFQ``, https://arxiv.org/abs/2310.05737) and residual vector quantisation
    (``ResidualVQ``, https://arxiv.org/abs/2107.03312). The library computes codes, vectors, loss
    and its own updates; it gets finite frames only.

    Codebooks that follow the frames (``VectorQuantize``, ``ResidualVQ``) move once in each
    optimiser step, see ``MovingQuantiser``. (The library itself, 1.32, moves them in each forward,
    and its ranks draw other frames than one process.) A step of several batches keeps their
    projected frames, on all ranks, until it ends: 1 kB per frame for a vq_dim of 256, and several
    times as much at its end.

    Arguments
    ---------
    input_dim : int
        Size of a frame.
    vq_dim : int
        Size of the projected and of the quantised vector.
    name : str
        A class of the library.
    seed : int
        Seeds the first projection, and the library's draws when it is built.
    **arguments
        Arguments of that class, except ``dim`` (it is vq_dim) and ``sync_codebook``.

    Raises
    ------
    ImportError
        If the library is not installed.
    ValueError
        If the library has no such class, if the class does not take the arguments, or if the size
        of a frame is not input_dim.

    Example
    -------
    >>> quantiser = LibraryQuantizer(16, 8, "FSQ", levels=[3, 3, 5])
    >>> quantiser.num_codebooks, quantiser.codebook_size
    (1, 45)
    >>> x = torch.randn(2, 5, 16)
    >>> bool((quantiser(x, return_codes=True)["codes"] == quantiser.encode(x)).all())
    True
    """

    vq_dim: int  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, input_dim: int, vq_dim: int, name: str, *, seed: int = 0, **arguments: Any):
        super().__init__()
        self.input_dim, self.vq_dim = check_positive(input_dim=input_dim, vq_dim=vq_dim)
        make = library_class(name)
        try:
            with drawing_from_seed(seed):
                self.proj = torch.nn.Linear(self.input_dim, self.vq_dim)
                self.library = make(dim=self.vq_dim, **arguments)
            if self.follows:  # this package adds up over ranks, not the library
                with drawing_from_seed(seed):
                    arguments["sync_codebook"] = False
                    self.library = make(dim=self.vq_dim, **arguments)
        except AssertionError as error:
            raise ValueError(
                f"{name} of vector-quantize-pytorch does not take these arguments ({error}), got "
                f"{arguments}; change them under the quantiser in your YAML"
            ) from error
        self.codebook_size = self.library.codebook_size
        _, codes_MG, _ = self._look(torch.zeros(1, self.vq_dim))
        self.num_codebooks = codes_MG.shape[1]

    @property
    def follows(self) -> bool:
        """Whether the library has codebooks that follow the frames."""
        return any(name.endswith("initted") for name, _ in self.library.named_buffers())

    def forward(
        self, x: torch.Tensor, *, generator: torch.Generator | None = None, return_codes=False
    ) -> dict[str, torch.Tensor]:
        """Quantised vectors; in training, the library's codebooks then follow the frames.

        Arguments
        ---------
        x : torch.Tensor
            Shape (batch, time, input_dim).
        generator : torch.Generator or None
            Seeds the library's draws in training; None is the global generator.
        return_codes : bool
            Adds to the result ``codes``, those of ``encode``; ``chosen_codes``, those of the
            vectors, -1 for a codebook that the library has dropped; both of shape (batch, time,
            codebooks); ``aux_loss``, the sum of the library's losses, 0 if it has none.

        Returns
        -------
        result : dict
            ``x``: vectors, shape (batch, time, vq_dim), NaN for a frame that is not finite.
        """
        B, T = x.shape[:2]
        frames_MD, finite_N = self._project(x)
        vectors_MD, codes_MG, loss = self._look(frames_MD)
        chosen_MG = codes_MG
        # A rank without frames takes part in the collectives and gradients of the others.
        if self.training:
            follows = self.follows and self.moves
            seed = draw_seed(generator)
            buffers = self._copied_buffers(started=not follows or not len(frames_MD))
            vectors_MD, chosen_MG, loss = self._ask(frames_MD, buffers, seed)
            if follows:
                self.gather(Batch(frames_MD.detach(), seed, buffers))
        vectors_ND = spread(vectors_MD, finite_N, torch.nan).to(self.proj.weight.dtype)
        result = {"x": vectors_ND.view(B, T, self.vq_dim)}
        if return_codes:
            result["aux_loss"] = loss
            for key, rows_MG in {"codes": codes_MG, "chosen_codes": chosen_MG}.items():
                result[key] = spread(rows_MG, finite_N, -1).view(B, T, self.num_codebooks)
        return result

    @override
    @torch.no_grad()
    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Codes of frames, shape (batch, time, codebooks); see ``Quantiser.encode``."""
        frames_MD, finite_N = self._project(x)
        _, codes_MG, _ = self._look(frames_MD)
        return spread(codes_MG, finite_N, -1).view(*x.shape[:2], self.num_codebooks)

    def _project(self, x):
        """The finite projected frames, and True for the frames that are finite."""
        x = as_float(x, self.input_dim).flatten(0, 1)
        with full_precision(x.device):
            x = F.linear(x, self.proj.weight.float(), self.proj.bias.float())
        finite_N = torch.isfinite(x).all(-1)
        return x[finite_N], finite_N

    @override
    def move(self, gathered: list[Batch]) -> None:
        """Moves the library's codebooks by all frames as one batch, in the order of one rank."""
        frames_MD = gather_batches([batch.frames_MD for batch in gathered])
        seeds = [torch.tensor([[batch.seed]], device=frames_MD.device) for batch in gathered]
        seed = int(gather_batches(seeds)[0])
        if not len(frames_MD):
            return
        buffers = gathered[0].buffers
        if len(gathered) > 1 or rank_and_size()[1] > 1:
            buffers, training = self._copied_buffers(), self.library.training
            self.library.train()
            self._ask(frames_MD, buffers, seed)
            self.library.train(training)
        for name, buffer in self.library.named_buffers():
            if torch.distributed.is_initialized():  # sums of two GPUs may differ in their last bits
                torch.distributed.broadcast(buffers[name], 0)
            buffer.copy_(buffers[name])

    def _copied_buffers(self, *, started=False):
        """Copies of the library's buffers, in float32; ``started`` marks k-means as done."""
        buffers = {}
        for name, buffer in self.library.named_buffers():
            buffers[name] = buffer.detach().clone()
            if buffer.is_floating_point():
                buffers[name] = buffers[name].float()
            if started and name.endswith("initted"):
                buffers[name].fill_(True)
        return buffers

    def _ask(self, frames_MD, buffers, seed=None):
        """Vectors, codes and loss from the library; in training it changes these buffers."""
        state = {name: p.float() for name, p in self.library.named_parameters()}
        options = {}
        if getattr(self.library, "quantize_dropout", False):  # without it, ranks exchange seeds
            options["rand_quantize_dropout_fixed_seed"] = seed
        with drawing_from(seed, frames_MD.device), full_precision(frames_MD.device):
            vectors_1MD, codes, *losses = functional_call(
                self.library, {**state, **buffers}, (frames_MD[None],), options
            )
        loss = vectors_1MD[:, :0].sum()  # zero, with a gradient even without frames
        if len(frames_MD):
            loss = sum(map(torch.sum, losses), loss)
        # One codebook has no dimension for the codebooks.
        return vectors_1MD[0], codes.unsqueeze(-1).flatten(2)[0].long(), loss

    def _look(self, frames_MD):
        """The same in evaluation; it changes nothing.

        In 1.32 even an evaluation starts codebooks by k-means (``kmeans_init``).
        """
        training = self.library.training
        self.library.eval()
        try:
            return self._ask(frames_MD, self._copied_buffers(started=True))
        finally:
            self.library.train(training)


def library_class(name: str) -> Any:
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


def spread(rows_MX: torch.Tensor, finite_N: torch.Tensor, fill: float) -> torch.Tensor:
    """The rows for the finite frames, ``fill`` for the others."""
    rows_NX = rows_MX.new_full((len(finite_N), rows_MX.shape[1]), fill)
    rows_NX[finite_N] = rows_MX
    return rows_NX


def draw_seed(generator: torch.Generator | None) -> int:
    """A seed drawn from a generator; from the global one if it is None."""
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(2**62, (), generator=generator, device=device))


@contextmanager
def drawing_from(seed: int | None, device: torch.device) -> Iterator[None]:
    """Replaces the global random numbers by those of a seed, unless it is None."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
