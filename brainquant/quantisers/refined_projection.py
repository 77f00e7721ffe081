"""Random-projection quantiser whose codebooks move to the frames at a few steps.

Shape suffixes: B batch, T time, N = B * T frames, K drawn frames, I input dim, G codebooks,
V codes, D code dim.
"""

import logging
from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from typing_extensions import override

from ..functional.collectives import rank_and_size, sum_over_ranks
from ..functional.transfer import to_device
from .base import Clips, check_positive
from .draws import draw_over_ranks, frame_keys, with_highest_keys
from .moving import MovingQuantiser
from .random_projection import RandomProjectionQuantizer

# Not SpeechBrain's: a program that only quantises does not wait for its imports.
logger = logging.getLogger(__name__)


class Batch(NamedTuple):
    """The frames of a batch: unit vectors, their codes, and False for what is no frame."""

    units_NGD: torch.Tensor
    codes_NG: torch.Tensor
    valid_N: torch.Tensor


class RefinedProjectionQuantizer(RandomProjectionQuantizer, MovingQuantiser):
    """``RandomProjectionQuantizer`` with codebooks that are refined at a few steps of a training.

    Codes that were drawn at random fit no corpus: a few take many frames, and some take none. In a
    refinement each code becomes the mean direction of the projected frames that have chosen it
    since the last one, as in https://arxiv.org/abs/2606.30671 (which does so every few thousand
    steps). The rarest codes are drawn anew: as many as there are codes that take too many frames,
    and in any case all that no frame has chosen. Each becomes a frame of this step that has chosen
    a code of too many, and so takes a part of its frames.

    The frames are those of the clips (no padding) that ``encode_clips`` gets in training. All ranks
    and all batches of a step count. Between refinements, and after the last one, the codes do not
    change; what predicts them keeps its outputs. ``update_temp`` says how many steps there were; a
    refinement in a step that is left out comes in the next one. The ``state_dict`` also has
    ``counts`` and ``sums`` of the frames of each code since the last refinement, and ``refined``.

    Arguments
    ---------
    input_dim, cb_dim, cb_vocab, num_codebooks, seed, whiten
        See ``RandomProjectionQuantizer``.
    refine_steps : sequence of int
        Optimiser steps at whose end the codebooks are refined, counted from 1. Targets that change
        late disturb the training: early steps are enough, because the frames do not change.
    split_above : float
        A code takes too many frames if they are more than this many times the mean of all codes.

    Raises
    ------
    ValueError
        As for ``RandomProjectionQuantizer``; if refine_steps are not whole numbers that grow, or if
        split_above is not above 1.

    Example
    -------
    >>> quantiser = RefinedProjectionQuantizer(4, 4, 8, refine_steps=[1], seed=0)
    >>> x = torch.randn(1, 800, 4, generator=torch.Generator().manual_seed(0)) + 1.0
    >>> clips = Clips(["a"], torch.zeros(1, 1), torch.ones(1), x)
    >>> before = quantiser.encode_clips(clips).flatten().bincount()  # a step of its own
    >>> after = quantiser.encode(x).flatten().bincount()
    >>> bool(after.max() < 0.8 * before.max())
    True
    """

    __jit_unused_properties__ = [*RandomProjectionQuantizer.__jit_unused_properties__, "moves"]
    counts: torch.Tensor
    sums: torch.Tensor
    refined: torch.Tensor

    def __init__(
        self,
        input_dim: int,
        cb_dim: int,
        cb_vocab: int,
        *,
        refine_steps: Sequence[int],
        split_above: float = 4.0,
        **options: Any,
    ):
        super().__init__(input_dim, cb_dim, cb_vocab, **options)
        self.refine_steps = check_steps(refine_steps)
        if not (isinstance(split_above, Real) and split_above > 1):
            raise ValueError(
                f"split_above must be above 1, got {split_above!r}; set split_above: under the "
                f"quantiser in your YAML, 4 for codes of four times the mean"
            )
        self.split_above = float(split_above)
        self.seed = options.get("seed") or 0
        shape = self.num_codebooks, self.cb_vocab
        self.register_buffer("counts", torch.zeros(shape, dtype=torch.long))
        self.register_buffer("sums", torch.zeros(*shape, self.cb_dim, dtype=torch.double))
        self.register_buffer("refined", torch.tensor(0))
        self.steps = 0  # taken before this one
        self.is_done = False  # whether no refinement is to come, as far as the host knows

    @override
    def update_temp(self, steps: int) -> None:
        """Notes the number of optimiser steps; there is no temperature."""
        self.steps = int(steps)

    @property
    @override
    def moves(self) -> bool:
        """Whether frames are counted: in training, until the last refinement.

        The host asks the device until then. It does not keep the answer "no": the step may be left
        out.
        """
        self.is_done = self.is_done or int(self.refined) >= len(self.refine_steps)
        return self.training and not self.is_done

    def _load_from_state_dict(self, *args, **kwargs):
        """Loads; there may be refinements to come."""
        super()._load_from_state_dict(*args, **kwargs)
        self.is_done = False

    @override
    def encode_clips(self, clips: Clips) -> torch.Tensor:
        """Codes of the clips, which training counts; see ``Quantiser.encode_clips``."""
        x_BTI = self.read(clips)
        codes_BTG = self.encode(x_BTI)
        if self.moves:
            valid_BT = codes_BTG[..., 0] >= 0
            if clips.valid_BT is not None:
                valid_BT = valid_BT & to_device(clips.valid_BT, valid_BT.device)
            units_NGD = self._project(x_BTI.detach().flatten(0, 1))
            self.gather(Batch(units_NGD, codes_BTG.flatten(0, 1), valid_BT.flatten()))
        return codes_BTG

    def _project(self, x_NI: torch.Tensor) -> torch.Tensor:
        """Unit vectors of frames, in each codebook's space; float64 is the same in any batch."""
        P_GID = self.P.view(-1, self.input_dim, self.cb_dim).double()
        units_GND = x_NI.double() @ P_GID
        if self.shift is not None:
            units_GND = units_GND + self.shift.double()
        return F.normalize(units_GND, dim=-1).float().transpose(0, 1)

    @override
    def move(self, gathered: list[Batch]) -> None:
        """Counts the frames of the step on all ranks; refines the codebooks if it is time."""
        units_NGD, codes_NG, valid_N = map(torch.cat, zip(*gathered))
        units_NGD = units_NGD.masked_fill(~valid_N[:, None, None], 0.0)
        codes_NG = codes_NG.clamp(min=0)
        first_G = torch.arange(self.num_codebooks, device=codes_NG.device) * self.cb_vocab
        rows_X = (codes_NG + first_G).flatten()
        counts, sums = torch.zeros_like(self.counts), torch.zeros_like(self.sums)
        counts.view(-1).index_add_(0, rows_X, valid_N.long().repeat_interleave(self.num_codebooks))
        sums.view(-1, self.cb_dim).index_add_(0, rows_X, units_NGD.flatten(0, 1).to(sums))
        self.counts += sum_over_ranks(counts)
        self.sums += sum_over_ranks(sums)
        if self.steps + 1 >= self.refine_steps[int(self.refined)]:
            self._refine(Batch(units_NGD, codes_NG, valid_N))

    def _refine(self, step: Batch) -> None:
        """Moves all codebooks; ``step`` has the frames of this step on this rank."""
        anew = 0
        for g, CB_VD in enumerate(self.CB.view(-1, self.cb_vocab, self.cb_dim)):
            counts_V = self.counts[g]
            crowded_V = counts_V > self.split_above * counts_V.double().mean()
            drawn_N = step.valid_N & (crowded_V | ~crowded_V.any())[step.codes_NG[:, g]]
            units_ND = step.units_NGD[:, g].contiguous()
            keys_N = frame_keys(units_ND, drawn_N, self.seed, self.refined)
            frames = draw_over_ranks(*with_highest_keys(keys_N, units_ND, self.cb_vocab))
            refined_VD, anew_V = refine(CB_VD, counts_V, self.sums[g], crowded_V, *frames)
            CB_VD.copy_(refined_VD)
            anew += int(anew_V.sum())
        self.counts.zero_()
        self.sums.zero_()
        self.refined += 1
        if rank_and_size()[0] == 0:
            logger.info(
                f"The codebooks are refined (refine_steps, step {self.steps + 1}): {anew} of "
                f"{self.counts.numel()} codes are drawn anew; the loss may rise for a while"
            )


def refine(
    codebook_VD: torch.Tensor,
    counts_V: torch.Tensor,
    sums_VD: torch.Tensor,
    crowded_V: torch.Tensor,
    frames_KD: torch.Tensor,
    drawn_K: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A refined codebook.

    Arguments
    ---------
    codebook_VD : torch.Tensor
        Unit vectors.
    counts_V, sums_VD : torch.Tensor
        Number and sum of the frames of each code.
    crowded_V : torch.Tensor
        True for codes that take too many frames.
    frames_KD : torch.Tensor
        Frames, unit vectors, of which the n-th code that is drawn anew becomes the n-th.
    drawn_K : torch.Tensor
        True for frames; False for the rest, if there are fewer.

    Returns
    -------
    codebook_VD : torch.Tensor
    anew_V : torch.Tensor
        True for codes that are drawn anew.

    Example
    -------
    >>> counts, sums = torch.tensor([9, 0, 1]), torch.tensor([[0.0, 9.0], [0.0, 0.0], [1.0, 0.0]])
    >>> crowded, frames = torch.tensor([True, False, False]), torch.tensor([[0.6, 0.8]] * 3)
    >>> refine(torch.eye(3, 2), counts, sums, crowded, frames, torch.ones(3).bool())
    (tensor([[0.0000, 1.0000],
            [0.6000, 0.8000],
            [1.0000, 0.0000]]), tensor([False,  True, False]))
    """
    means_VD = F.normalize(sums_VD, dim=-1).to(codebook_VD)
    has_mean_V = means_VD.square().sum(-1) > 0.5  # not if there are no frames, or they cancel
    moved_VD = torch.where(has_mean_V[:, None], means_VD, codebook_VD)
    rarest_V = counts_V.sort(stable=True).indices  # codes, the rarest first
    position_V = torch.empty_like(rarest_V)
    position_V[rarest_V] = torch.arange(len(rarest_V), device=rarest_V.device)
    number = torch.maximum((counts_V == 0).sum(), crowded_V.sum())
    anew_V = (position_V < number) & ~crowded_V & drawn_K[position_V]
    return torch.where(anew_V[:, None], frames_KD[position_V], moved_VD), anew_V


def check_steps(refine_steps: Any) -> list[int]:
    """The steps as ints; a ValueError if they are no whole numbers that grow.

    Example
    -------
    >>> check_steps([100, 300])
    [100, 300]
    >>> check_steps(100)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: refine_steps must be a list of steps, each above the last, got 100; set ...
    """
    steps: list[int] = []
    if isinstance(refine_steps, Sequence) and not isinstance(refine_steps, str):
        steps = [step for value in refine_steps for step in check_positive(refine_steps=value)]
    if not steps or sorted(set(steps)) != steps:
        raise ValueError(
            f"refine_steps must be a list of steps, each above the last, got {refine_steps!r}; set "
            f"refine_steps: under the quantiser in your YAML, as in [25, 100]"
        )
    return steps
