"""Two small good quantisers, and a gallery of broken ones: each breaks one promise."""

import pickle

import numpy as np
import torch

from brainquant import GumbelVectorQuantizer
from brainquant.quantisers.base import Quantiser, as_float


class Codes(Quantiser):
    """Codes only, small; what is broken in it is told by its subclasses."""

    num_codebooks = 1
    codebook_size = 16
    also = ()  # other promises that cannot be kept where this one is broken

    def __init__(self, input_dim):
        super().__init__()
        self.input_dim = input_dim
        self.register_buffer("table", torch.randn(16, input_dim))

    @torch.no_grad()
    def encode(self, x):
        x = as_float(x, self.input_dim)
        with torch.autocast("cpu", enabled=False):
            codes = (x @ self.table.T).argmax(-1, keepdim=True)
        return codes.masked_fill(~x.isfinite().all(-1, keepdim=True), -1)

    def forward(self, x):
        return self.encode(x)

    def shifted(self, x, by):
        """Codes of its own, moved by some."""
        codes = Codes.encode(self, x)
        return torch.where(codes < 0, codes, (codes + by) % 16)


class Vectors(GumbelVectorQuantizer):
    """Codes and vectors, small; what is broken in it is told by its subclasses."""

    also = ()

    def __init__(self, input_dim):
        super().__init__(input_dim, 10, (2.0, 0.25, 0.99), 2, 8)

    def forward(self, x, *, generator=None, return_codes=False):
        output = super().forward(x, generator=generator, return_codes=True)
        self.spoil(output, x)
        return output

    def spoil(self, output, x):
        """What is broken in the forward."""


class SizeFromNumpy(Codes):
    breaks = "check_attributes"
    codebook_size = np.int64(16)


class NoCodeForLoudFrames(Codes):
    breaks = "check_codes"

    def encode(self, x):
        loud = ((x.abs() > 100) & (x.abs() < 1e6)).any(-1, keepdim=True)
        return super().encode(x).masked_fill(loud, -1)


class OtherWayForOneFrame(Codes):
    breaks = "check_independence"

    def encode(self, x):
        return self.shifted(x, by=x.shape[:2] == (1, 1))


class CodesByThreads(Codes):
    breaks = "check_threads"

    def encode(self, x):
        return self.shifted(x, by=torch.get_num_threads())


class HalfPrecision(Codes):
    breaks = "check_autocast"

    def encode(self, x):
        low = torch.is_autocast_enabled("cpu")
        return super().encode(x.to(torch.get_autocast_dtype("cpu")) if low else x)


class OtherCodesInTraining(Codes):
    breaks = "check_modes"

    def encode(self, x):
        return self.shifted(x, by=self.training)


class CountsItsCalls(Codes):
    breaks = "check_no_trace"

    def __init__(self, input_dim):
        super().__init__(input_dim)
        self.register_buffer("calls", torch.zeros(()))

    def encode(self, x):
        self.calls += 1
        return super().encode(x)


class DrawsNumbers(Codes):
    breaks = "check_no_trace"

    def encode(self, x):
        return self.shifted(x, by=0 * torch.randint(16, ()))


class ChangesItsFrames(Codes):
    breaks = "check_no_trace"

    def encode(self, x):
        return super().encode(x.detach().mul_(2))


class LastOfTies(Codes):
    breaks = "check_ties"

    def encode(self, x):
        codes = super().encode(x)
        ties = (self.table[codes] == self.table).all(-1)
        return torch.where(codes < 0, codes, 15 - ties.flip(-1).int().argmax(-1, keepdim=True))


class SilentCode(Codes):
    breaks = "check_not_finite"

    def encode(self, x):
        return super().encode(x.nan_to_num())


class SquaresOverflow(Codes):
    breaks = "check_extremes"

    def encode(self, x):
        energy = x.square().sum(-1, keepdim=True)
        return super().encode(x).masked_fill(energy.isinf(), -1)


class MeanOfNoFrames(Vectors):
    breaks = "check_no_frames"

    def spoil(self, output, x):
        output["aux_loss"] = output["aux_loss"] + 0 * x.mean()


class ErrorWithoutFrames(Codes):
    breaks = "check_no_frames"

    def encode(self, x):
        x.abs().max()
        return super().encode(x)


class NoisyCodes(Vectors):
    breaks = "check_forward"

    def spoil(self, output, x):
        output["codes"] = output["chosen_codes"]


class LeakOfTheFrame(Vectors):
    breaks = "check_vectors"

    def spoil(self, output, x):
        output["x"] = output["x"] + 0.1 * x[..., :8]


class PerplexityAboveItsCap(Vectors):
    breaks = "check_perplexity"

    def spoil(self, output, x):
        output["prob_perplex"] = output["prob_perplex"] ** 2


class TemperatureWithoutFloor(Vectors):
    breaks = "check_temperature"

    def update_temp(self, steps):
        self.curr_temp = self.max_temp * self.temp_decay**steps


class TemperatureFromCalls(Vectors):
    breaks = "check_temperature"

    def update_temp(self, steps):
        self.curr_temp = max(self.curr_temp * self.temp_decay, self.min_temp)


class NoiseOfItsOwn(Vectors):
    breaks = "check_generator"

    def forward(self, x, *, generator=None, return_codes=False):
        return super().forward(x, return_codes=return_codes)


class NoGradientToTheFrames(Vectors):
    breaks = "check_straight_through"

    def spoil(self, output, x):
        output["x"] = output["x"].detach()


class LossThatRises(Vectors):
    breaks = "check_aux_loss"

    def spoil(self, output, x):
        output["aux_loss"] = 2 * output["aux_loss"].detach() - output["aux_loss"]


class GradientThatIsNoNumber(Vectors):
    breaks = "check_aux_loss"

    def spoil(self, output, x):
        output["aux_loss"] = output["aux_loss"] + (0 * x.nan_to_num()).sum().sqrt()


class TwiceTheGradient(Vectors):
    breaks = "check_gradients"

    def spoil(self, output, x):
        output["x"] = 2 * output["x"] - output["x"].detach()


class SilentVector(Vectors):
    breaks = "check_not_finite_vectors"

    def spoil(self, output, x):
        output["x"] = output["x"].nan_to_num()


class PoisonedStatistics(Vectors):
    breaks = "check_not_finite_vectors"
    also = ("check_steps", "check_frozen")

    def __init__(self, input_dim):
        super().__init__(input_dim)
        self.register_buffer("mean", torch.zeros(input_dim))

    def spoil(self, output, x):
        if self.training:
            self.mean += x.detach().sum((0, 1)) / 1000


class MovesInEachForward(Vectors):
    breaks = "check_steps"

    def __init__(self, input_dim):
        super().__init__(input_dim)
        self.register_buffer("largest", torch.zeros(()))

    def spoil(self, output, x):
        if self.training and self.vars.requires_grad and x.numel():
            torch.maximum(self.largest, x.detach().nan_to_num(0, 0, 0).max(), out=self.largest)


class MovesWhereItIsFrozen(Vectors):
    breaks = "check_frozen"

    def __init__(self, input_dim):
        super().__init__(input_dim)
        self.register_buffer("steps", torch.zeros(()))
        self.in_step = self.seen = False

    def begin_step(self):
        self.in_step = True

    def spoil(self, output, x):
        self.seen |= self.training
        if not self.in_step:
            self.end_step()

    def end_step(self):
        self.steps += self.seen
        self.in_step = self.seen = False


class UnregisteredTable(Codes):
    breaks = "check_state_dict"
    also = ("check_safetensors",)

    def __init__(self, input_dim):
        super().__init__(input_dim)
        self.by = int(torch.randint(16, ()))

    def encode(self, x):
        return self.shifted(x, self.by)


class CopyThatIsWarm(Vectors):
    breaks = "check_deepcopy"

    def __deepcopy__(self, memo):
        copied = pickle.loads(pickle.dumps(self))
        copied.curr_temp = copied.max_temp
        return copied


class HoldsALambda(Codes):
    breaks = "check_pickle"

    def __init__(self, input_dim):
        super().__init__(input_dim)
        self.activation = lambda x: x


class TextInItsState(Codes):
    breaks = "check_safetensors"

    def get_extra_state(self):
        return {"corpus": "LibriSpeech"}

    def set_extra_state(self, state):
        pass


class CodesByRank(Codes):
    breaks = "check_ranks"

    def encode(self, x):
        distributed = torch.distributed
        return self.shifted(x, by=distributed.is_initialized() and distributed.get_rank())


BROKEN = [
    kind for good in (Codes, Vectors) for kind in good.__subclasses__() if hasattr(kind, "breaks")
]
