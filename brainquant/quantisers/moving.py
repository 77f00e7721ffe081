"""The base of quantisers whose codebooks follow the frames of training."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from typing_extensions import override

from .base import Quantiser


class MovingQuantiser(Quantiser):
    """A quantiser whose codebooks move once in each optimiser step.

    A forward in training gathers its frames; ``end_step`` moves the codebooks by the frames of
    all batches of the step, on all ranks. So a step of four ranks equals a step of one rank that
    accumulates four batches. ``base.py`` says when a forward is a step of its own.

    Codebooks do not move in ``eval()``, nor if no parameter needs a gradient:
    ``requires_grad_(False)`` freezes the quantiser as it freezes any other module.

    Moving averages stay in float32 after ``half()`` or ``bfloat16()``: these dtypes are too coarse
    for the little that one batch adds to an average.
    """

    in_step = False  # between ``begin_step`` and ``end_step``

    def __init__(self):
        super().__init__()
        self.gathered: list[Any] = []  # from the batches of this step

    @override
    def begin_step(self) -> None:
        """Makes the forwards up to ``end_step`` one step; see ``Quantiser.begin_step``."""
        self.in_step = True

    @override
    def end_step(self) -> None:
        """Moves the codebooks by the batches of the step; see ``Quantiser.end_step``.

        Every rank calls it, after the same number of forwards.
        """
        self.in_step = False
        gathered, self.gathered = self.gathered, []
        if gathered:
            with torch.no_grad():
                self.move(gathered)

    def gather(self, batch: Any) -> None:
        """Adds a batch to the step; without ``begin_step`` it is a step of its own."""
        self.gathered.append(batch)
        if not self.in_step:
            self.end_step()

    def move(self, gathered: list[Any]) -> None:
        """Moves the codebooks.

        Arguments
        ---------
        gathered : list
            The batches that ``gather`` got in this step, at least one.
        """
        raise NotImplementedError

    @property
    def moves(self) -> bool:
        """Whether a forward moves the codebooks: in training, unless the quantiser is frozen."""
        return self.training and any(p.requires_grad for p in self.parameters())

    @override
    def _apply(self, fn, recurse=True):
        """Moves to another device or dtype; see ``torch.nn.Module._apply``."""
        buffers = dict(self.named_buffers())
        super()._apply(fn, recurse)
        for name, buffer in list(self.named_buffers()):
            if buffer.dtype in (torch.float16, torch.bfloat16):
                owner, _, name_there = name.rpartition(".")
                precise = buffers[name].to(buffer.device)
                # setattr keeps a buffer out of the state_dict if it was not in it.
                setattr(self.get_submodule(owner), name_there, precise)
        return self


@contextmanager
def drawing_from_seed(seed: int) -> Iterator[None]:
    """Replaces the global random numbers of the CPU by those of a seed while a module is built.

    So the quantiser does not depend on modules built before it, nor later modules on it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
