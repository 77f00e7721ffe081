"""What quantisers share whose codebooks follow the frames of training."""

from contextlib import contextmanager

import torch

from .base import Quantiser


class MovingQuantiser(Quantiser):
    """A quantiser whose codebooks move once in each optimiser step.

    A forward in training gathers its frames; ``end_step`` moves the codebooks by the frames of
    all batches of the step, on all ranks. So a step of four ranks is a step of one rank that
    accumulates four batches. ``base.py`` says when a forward is a step of its own.

    Codebooks stay where they are in ``eval()``, and where no parameter asks for a gradient:
    ``requires_grad_(False)`` freezes the quantiser as it freezes any other module.

    Moving averages stay in float32 in a module that is made ``half()`` or ``bfloat16()``, whose
    steps are coarser than what one batch adds to an average.
    """

    in_step = False  # between ``begin_step`` and ``end_step``

    def __init__(self):
        super().__init__()
        self.gathered = []  # from the batches of this step

    def begin_step(self):
        """Makes the forwards up to ``end_step`` one step; see ``Quantiser.begin_step``."""
        self.in_step = True

    def end_step(self):
        """Moves the codebooks by what the step has gathered; see ``Quantiser.end_step``.

        Every rank calls it after as many forwards as the others.
        """
        self.in_step = False
        gathered, self.gathered = self.gathered, []
        if gathered:
            with torch.no_grad():
                self.move(gathered)

    def gather(self, batch):
        """Keeps what a batch adds to the step; without ``begin_step`` it is a step of its own."""
        self.gathered.append(batch)
        if not self.in_step:
            self.end_step()

    def move(self, gathered):
        """Moves the codebooks.

        Arguments
        ---------
        gathered : list
            What ``gather`` was given in this step, not empty.
        """
        raise NotImplementedError

    @property
    def moves(self):
        """Whether a forward moves the codebooks: in training, unless all is frozen."""
        return self.training and any(p.requires_grad for p in self.parameters())

    def _apply(self, fn, recurse=True):
        """Moves to another device or dtype; see ``torch.nn.Module._apply``."""
        buffers = dict(self.named_buffers())
        super()._apply(fn, recurse)
        for name, buffer in list(self.named_buffers()):
            if buffer.dtype in (torch.float16, torch.bfloat16):
                owner, _, name_there = name.rpartition(".")
                precise = buffers[name].to(buffer.device)
                # As an attribute: one that is in no state_dict stays out of it.
                setattr(self.get_submodule(owner), name_there, precise)
        return self


@contextmanager
def drawing_from_seed(seed):
    """The global random numbers of the CPU replaced by those of a seed, while a module is built.

    So a quantiser does not depend on what was built before it, nor the other way round.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
