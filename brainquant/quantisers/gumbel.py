"""Gumbel-softmax quantiser of wav2vec 2.0.

Shape suffixes: B batch, T time, N = B * T frames, I input dim of the layer that scores the codes, G
groups, V codes of a group, E = G * V, D dim of a code.
"""

import math

import torch

from ..functional.precision import full_precision
from ..functional.straight_through import gumbel_rows
from ..search.nearest import highest_code
from .base import Quantiser, check_divides, check_frames, check_positive


class GumbelVectorQuantizer(Quantiser):
    """Learned codebooks, chosen from by a Gumbel softmax with a straight-through gradient.

    See Baevski et al., https://arxiv.org/abs/2006.11477, section 2. The interface, the
    ``state_dict`` (``vars``, ``weight_proj.weight``, ``weight_proj.bias``, ``max_ent``) and, for
    the same seed, the values and gradients are those of
    ``speechbrain.nnet.quantisers.GumbelVectorQuantizer``, which multiplies one-hot vectors of
    (frames, codes, dim) in 1.1.2 and chooses other codes under autocast; this one gathers rows.
    The arguments after vq_dim are fairseq's; its ``state_dict`` fits where they are used.

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
        One codebook that all groups choose from, instead of one for each.
    weight_proj_depth : int
        Layers of the network that scores the codes, with GELU between them.
    weight_proj_factor : int
        Size of its hidden layers, as a multiple of input_dim.

    Raises
    ------
    ValueError
        Where sizes are not positive or do not divide, where the temperatures are not
        start >= stop > 0 with 0 < decay <= 1, or where a frame has another size than input_dim.

    Example
    -------
    >>> quantiser = GumbelVectorQuantizer(128, 100, (2.0, 0.25, 0.999995), 2, 50)
    >>> output = quantiser(torch.rand(10, 12, 128))
    >>> output["x"].shape
    torch.Size([10, 12, 50])
    >>> 1 <= float(output["code_perplexity"]) <= output["num_vars"] == 200
    True
    """

    def __init__(
        self, input_dim, num_vars, temp_tuple, groups, vq_dim, *, combine_groups=False,
        weight_proj_depth=1, weight_proj_factor=1,
    ):  # fmt: skip
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

        # The order of the draws is SpeechBrain's, so that a seed gives its values.
        codebooks = 1 if combine_groups else groups
        shape = 1, codebooks * num_vars, vq_dim // groups
        # SpeechBrain's dtype, whatever the default is: another one draws other numbers.
        self.vars = torch.nn.Parameter(torch.empty(shape, dtype=torch.float32))
        torch.nn.init.uniform_(self.vars)
        hidden_dim = input_dim * weight_proj_factor
        sizes = [input_dim] + [hidden_dim] * (weight_proj_depth - 1)
        hidden = [
            torch.nn.Sequential(torch.nn.Linear(size, hidden_dim), torch.nn.GELU())
            for size in sizes[:-1]
        ]
        scores = torch.nn.Linear(sizes[-1], groups * num_vars)
        if not hidden:  # deeper, fairseq leaves the layers as torch makes them
            torch.nn.init.normal_(scores.weight, mean=0, std=1)
            torch.nn.init.zeros_(scores.bias)
        self.weight_proj = torch.nn.Sequential(*hidden, scores) if hidden else scores
        max_ent = torch.log(torch.tensor(float(num_vars * groups)))
        self.max_ent = torch.nn.Parameter(max_ent, requires_grad=False)

    @property
    def num_codebooks(self):
        """Number of groups."""
        return self.groups

    @property
    def codebook_size(self):
        """Codes of each group."""
        return self.num_vars

    def update_temp(self, steps):
        """Sets the temperature of a step: max(start * decay ** steps, stop)."""
        self.curr_temp = float(max(self.max_temp * self.temp_decay**steps, self.min_temp))

    def forward(self, x, *, generator=None, return_codes=False):
        """Quantised vectors.

        Arguments
        ---------
        x : torch.Tensor
            Shape (batch, time, input_dim).
        generator : torch.Generator or None
            What the Gumbel noise is drawn from in training; None is the global generator.
        return_codes : bool
            Adds to the result ``codes``, those that ``encode`` gives (where float32 can tell the
            scores apart: ``encode`` goes on in float64); ``chosen_codes``, those of the vectors:
            after the noise in training, the same in evaluation; both of shape (batch, time,
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
            # SpeechBrain draws for (N * G, V): the same numbers in the same order.
            noise_NE = x_NI.new_empty(x_NI.shape[0], weight_EI.shape[0])
            noise_NE.exponential_(generator=generator)
        rows_NGD, chosen_NG, codes_NG, probs_GV, _ = gumbel_rows(
            x_NI, weight_EI, bias_E, codebook_GVD, noise_NE, float(self.curr_temp)
        )
        result = {
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

    @torch.no_grad()
    def encode(self, x):
        """Codes of frames without noise, shape (batch, time, groups); see ``Quantiser.encode``."""
        x_NI, weight_EI, bias_E = self._score_inputs(x)
        weight_GVI = weight_EI.view(self.groups, self.num_vars, -1)
        codes_NG = highest_code(x_NI, weight_GVI, bias_E.view(self.groups, -1))
        return codes_NG.view(*x.shape[:2], self.groups)

    def _output_dtype(self):
        """The dtype of the module; of SpeechBrain's product of scores and codes, if it has two."""
        scores = self.weight_proj
        scores = scores[-1] if isinstance(scores, torch.nn.Sequential) else scores
        return torch.promote_types(self.vars.dtype, scores.weight.dtype)

    def _score_inputs(self, x):
        """Input, weight and bias of the layer that scores the codes, in float32 (or float64)."""
        check_frames(x, self.input_dim)
        dtype = torch.promote_types(x.dtype, torch.float32)
        x_NI, scores = x.flatten(0, 1).to(dtype), self.weight_proj
        if isinstance(scores, torch.nn.Sequential):
            *hidden, scores = scores
            with full_precision(x.device):
                for layer, activation in hidden:
                    weight, bias = layer.weight.to(dtype), layer.bias.to(dtype)
                    x_NI = activation(torch.nn.functional.linear(x_NI, weight, bias))
        return x_NI, scores.weight.to(dtype), scores.bias.to(dtype)


def check_temperatures(temp_tuple):
    """The three numbers of a temperature schedule, or a ValueError that says what they must be."""
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


def code_shares(codes_NG, num_codes):
    """Share of frames that chose each code, shape (groups, codes); -1 is no code."""
    valid_GN = (codes_NG >= 0).T.float()
    counts_GV = valid_GN.new_zeros(codes_NG.shape[1], num_codes)
    counts_GV.scatter_add_(1, codes_NG.T.clamp(min=0), valid_GN)
    return counts_GV / max(codes_NG.shape[0], 1)


def perplexity(shares_GV):
    """Exponential of the entropy of each group's shares, as SpeechBrain computes it."""
    return torch.exp(-(shares_GV * torch.log(shares_GV + 1e-7)).sum(-1))
