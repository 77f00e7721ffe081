"""Gumbel-softmax quantiser of wav2vec 2.0.

Shape suffixes: B batch, T time, N = B * T frames, I input dim of the layer that scores the codes, G
groups, V codes of a group, E = G * V, D dim of a code.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from typing_extensions import override

from ..functional.precision import full_precision
from ..functional.straight_through import gumbel_rows
from ..search.nearest import highest_code
from .base import Quantiser, check_divides, check_frames, check_positive


class GumbelVectorQuantizer(Quantiser):
    """Learned codebooks; a Gumbel softmax with a straight-through gradient chooses the codes.

    See Baevski et al., https://arxiv.org/abs/2006.11477, section 2. The interface, the
    ``state_dict`` (``vars``, ``weight_proj.weight``, ``weight_proj.bias``, ``max_ent``) and, for
    the same seed, the values and gradients are those of
    ``speechbrain.nnet.quantisers.GumbelVectorQuantizer``. SpeechBrain 1.1.2 multiplies one-hot
    vectors of (frames, codes, dim) and chooses other codes under autocast; this class gathers
    rows, and its codes stay the same. The arguments after vq_dim are fairseq's; with them, the
    ``state_dict`` is fairseq's too.

    Arguments
    ---------
    input_dim : int
        Size of a frame.
    num_vars : int
        Codes of each group.
    temp_tuple : tuple of float
        Temperature in training: (start, stop, decay factor per optimiser step).
    groups : int
        Groups (codebooks); a frame gets one code of each.
    vq_dim : int
        Size of the quantised vector, the groups' vectors side by side.
    combine_groups : bool
        All groups share one codebook, instead of one for each.
    weight_proj_depth : int
        Layers of the network that scores the codes, with GELU between them.
    weight_proj_factor : int
        Size of its hidden layers, as a multiple of input_dim.

    Raises
    ------
    ValueError
        If a size is not positive, if vq_dim is not a multiple of groups, if the temperatures are
        not start >= stop > 0 with 0 < decay <= 1, or if the size of a frame is not input_dim.

    Example
    -------
    >>> quantiser = GumbelVectorQuantizer(128, 100, (2.0, 0.25, 0.999995), 2, 50)
    >>> output = quantiser(torch.rand(10, 12, 128))
    >>> output["x"].shape
    torch.Size([10, 12, 50])
    >>> 1 <= float(output["code_perplexity"]) <= output["num_vars"] == 200
    True
    """

    # It always has vectors and a temperature.
    vq_dim: int  # pyright: ignore[reportIncompatibleVariableOverride]
    curr_temp: float  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(
        self,
        input_dim: int,
        num_vars: int,
        temp_tuple: Sequence[float],
        groups: int,
        vq_dim: int,
        *,
        combine_groups: bool = False,
        weight_proj_depth: int = 1,
        weight_proj_factor: int = 1,
    ):
        super().__init__()
        input_dim, num_vars, groups, vq_dim = check_positive(
            input_dim=input_dim, num_vars=num_vars, groups=groups, vq_dim=vq_dim
        )
        weight_proj_depth, weight_proj_factor = check_positive(
            weight_proj_depth=weight_proj_depth, weight_proj_factor=weight_proj_factor
        )
        check_divides(vq_dim, groups)
        self.max_temp, self.min_temp, self.temp_decay = check_temperatures(temp_tuple)
        self.curr_temp = self.max_temp
        self.input_dim = input_dim
        self.num_vars = num_vars
        self.groups = groups
        self.vq_dim = vq_dim

        # The draws are in SpeechBrain's order, so that a seed gives SpeechBrain's values.
        codebooks = 1 if combine_groups else groups
        shape = 1, codebooks * num_vars, vq_dim // groups
        # Always float32, as in SpeechBrain: another dtype draws other numbers.
        self.vars = torch.nn.Parameter(torch.empty(shape, dtype=torch.float32))
        torch.nn.init.uniform_(self.vars)
        hidden_dim = input_dim * weight_proj_factor
        sizes = [input_dim] + [hidden_dim] * (weight_proj_depth - 1)
        hidden = [
            torch.nn.Sequential(torch.nn.Linear(size, hidden_dim), torch.nn.GELU())
            for size in sizes[:-1]
        ]
        scores = torch.nn.Linear(sizes[-1], groups * num_vars)
        if not hidden:  # fairseq initialises a single layer only
            torch.nn.init.normal_(scores.weight, mean=0, std=1)
            torch.nn.init.zeros_(scores.bias)
        self.weight_proj = torch.nn.Sequential(*hidden, scores) if hidden else scores
        max_ent = torch.log(torch.tensor(float(num_vars * groups)))
        self.max_ent = torch.nn.Parameter(max_ent, requires_grad=False)

    @property
    @override
    def num_codebooks(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Number of groups."""
        return self.groups

    @property
    @override
    def codebook_size(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Codes of each group."""
        return self.num_vars

    @override
    def update_temp(self, steps: int) -> None:
        """Sets the temperature: max(start * decay ** steps, stop)."""
        self.curr_temp = float(max(self.max_temp * self.temp_decay**steps, self.min_temp))

    def forward(
        self, x: torch.Tensor, *, generator: torch.Generator | None = None, return_codes=False
    ) -> dict[str, Any]:
        """Quantised vectors.

        Arguments
        ---------
        x : torch.Tensor
            Shape (batch, time, input_dim).
        generator : torch.Generator or None
            Draws the Gumbel noise in training; None is the global generator.
        return_codes : bool
            Adds to the result ``codes``, those of ``encode`` (except where two scores are equal
            in float32: ``encode`` then compares in float64); ``chosen_codes``, those of the
            vectors, with noise in training and without in evaluation; both of shape (batch, time,
            groups); and ``aux_loss``, the share of the codes that the mean probabilities leave
            unused.

        Returns
        -------
        result : dict
            ``x``: vectors, shape (batch, time, vq_dim), NaN for a frame that is not finite;
            ``num_vars``: codes of all groups together; ``temp``: the temperature;
            ``code_perplexity``, ``prob_perplex``: perplexities of the codes (without noise) and
            of the mean probabilities in this batch, summed over groups.
        """
        x_NI, weight_EI, bias_E = self._score_inputs(x)
        dtype = x_NI.dtype
        codebook_GVD = self.vars.to(dtype).view(-1, self.num_vars, self.vq_dim // self.groups)
        codebook_GVD = codebook_GVD.expand(self.groups, -1, -1)
        noise_NE = None
        if self.training:
            # The same numbers in the same order as SpeechBrain draws them for (N * G, V).
            noise_NE = x_NI.new_empty(x_NI.shape[0], weight_EI.shape[0])
            noise_NE.exponential_(generator=generator)
        rows_NGD, chosen_NG, codes_NG, probs_GV, _ = gumbel_rows(
            x_NI, weight_EI, bias_E, codebook_GVD, noise_NE, float(self.curr_temp)
        )
        result: dict[str, Any] = {
            "num_vars": self.num_vars * self.groups,
            "temp": self.curr_temp,
            "code_perplexity": perplexity(code_shares(codes_NG, self.num_vars)).sum(),
            "prob_perplex": perplexity(probs_GV).sum(),
            "x": rows_NGD.reshape(*x.shape[:2], self.vq_dim).to(self._output_dtype()),
        }
        if return_codes:
            # The diversity loss of https://arxiv.org/abs/2006.11477, as fairseq scales it.
            result["aux_loss"] = 1 - result["prob_perplex"] / result["num_vars"]
            shape = *x.shape[:2], self.groups
            result["codes"], result["chosen_codes"] = codes_NG.view(shape), chosen_NG.view(shape)
        return result

    @override
    @torch.no_grad()
    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Codes of frames without noise, shape (batch, time, groups); see ``Quantiser.encode``."""
        x_NI, weight_EI, bias_E = self._score_inputs(x)
        weight_GVI = weight_EI.view(self.groups, self.num_vars, -1)
        codes_NG = highest_code(x_NI, weight_GVI, bias_E.view(self.groups, -1))
        return codes_NG.view(*x.shape[:2], self.groups)

    def _output_dtype(self):
        """The dtype of SpeechBrain's product of scores and codes."""
        return torch.promote_types(self.vars.dtype, self._layers()[-1].weight.dtype)

    def _layers(self):
        """The linear layers of the network that scores the codes."""
        return [part for part in self.weight_proj.modules() if isinstance(part, torch.nn.Linear)]

    def _score_inputs(self, x):
        """Input, weight and bias of the layer that scores the codes, in float32 (or float64)."""
        check_frames(x, self.input_dim)
        dtype = torch.promote_types(x.dtype, torch.float32)
        x_NI = x.flatten(0, 1).to(dtype)
        *hidden, scores = self._layers()
        if hidden:
            with full_precision(x.device):
                for layer in hidden:
                    x_NI = F.gelu(F.linear(x_NI, layer.weight.to(dtype), layer.bias.to(dtype)))
        return x_NI, scores.weight.to(dtype), scores.bias.to(dtype)


def check_temperatures(temp_tuple: Sequence[float]) -> tuple[float, float, float]:
    """The numbers of a temperature schedule; a ValueError if they are not allowed."""
    try:
        start, stop, decay = (math.nan if isinstance(n, str) else float(n) for n in temp_tuple)
    except (TypeError, ValueError):
        start = stop = decay = math.nan
    if not (math.inf > start >= stop > 0 and 0 < decay <= 1):
        raise ValueError(
            f"temp_tuple must be (start, stop, decay) with start >= stop > 0 and 0 < decay <= 1, "
            f"got {temp_tuple!r}; set temp_tuple: under the quantiser in your YAML, "
            f"as in temp_tuple: [2.0, 0.5, 0.999995]"
        )
    return start, stop, decay


def code_shares(codes_NG: torch.Tensor, num_codes: int) -> torch.Tensor:
    """Share of frames that chose each code, shape (groups, codes); -1 is not counted."""
    valid_GN = (codes_NG >= 0).T.float()
    counts_GV = valid_GN.new_zeros(codes_NG.shape[1], num_codes)
    counts_GV.scatter_add_(1, codes_NG.T.clamp(min=0), valid_GN)
    return counts_GV / max(codes_NG.shape[0], 1)


def perplexity(shares_GV: torch.Tensor) -> torch.Tensor:
    """Exponential of the entropy of each group's shares, as SpeechBrain computes it."""
    return torch.exp(-(shares_GV * torch.log(shares_GV + 1e-7)).sum(-1))
