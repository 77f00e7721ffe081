"""Gumbel-softmax quantiser of wav2vec 2.0.

Shape suffixes: B batch, T time, N = B * T frames, G groups, V codes of a group, D dim of a code.
"""

import math

import torch
import torch.nn.functional as F

from ..functional.straight_through import StraightThroughGather, gather_rows
from .base import Quantiser, as_float, check_positive, full_precision


class GumbelVectorQuantizer(Quantiser):
    """Learned codebooks, chosen from by a Gumbel softmax with a straight-through gradient.

    See Baevski et al., https://arxiv.org/abs/2006.11477, section 2. The interface, the
    ``state_dict`` (``vars``, ``weight_proj.weight``, ``weight_proj.bias``, ``max_ent``) and, for
    the same seed, the values and gradients are those of
    ``speechbrain.nnet.quantisers.GumbelVectorQuantizer``, which multiplies one-hot vectors of
    (frames, codes, dim) in 1.1.2 and chooses other codes under autocast; this one gathers rows.

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

    def __init__(self, input_dim, num_vars, temp_tuple, groups, vq_dim):
        super().__init__()
        check_positive(input_dim=input_dim, num_vars=num_vars, groups=groups, vq_dim=vq_dim)
        if vq_dim % groups:
            raise ValueError(
                f"vq_dim must be a multiple of groups, got vq_dim={vq_dim}, groups={groups}; "
                f"set vq_dim: under the quantiser in your YAML"
            )
        self.max_temp, self.min_temp, self.temp_decay = check_temperatures(temp_tuple)
        self.curr_temp = self.max_temp
        self.input_dim = input_dim
        self.num_vars = num_vars
        self.groups = groups
        self.vq_dim = vq_dim

        # The order of the draws is SpeechBrain's, so that a seed gives its values.
        self.vars = torch.nn.Parameter(torch.empty(1, groups * num_vars, vq_dim // groups))
        torch.nn.init.uniform_(self.vars)
        self.weight_proj = torch.nn.Linear(input_dim, groups * num_vars)
        torch.nn.init.normal_(self.weight_proj.weight, mean=0, std=1)
        torch.nn.init.zeros_(self.weight_proj.bias)
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
        self.curr_temp = max(self.max_temp * self.temp_decay**steps, self.min_temp)

    def forward(self, x, *, generator=None, return_codes=False):
        """Quantised vectors.

        Arguments
        ---------
        x : torch.Tensor
            Shape (batch, time, input_dim).
        generator : torch.Generator or None
            What the Gumbel noise is drawn from in training; None is the global generator.
        return_codes : bool
            Adds to the result ``codes``, those that ``encode`` gives, and ``chosen_codes``, those
            of the vectors: after the noise in training, the same in evaluation. Both are of
            shape (batch, time, groups).

        Returns
        -------
        result : dict
            ``x``: vectors, shape (batch, time, vq_dim), NaN for a frame that is not finite;
            ``num_vars``: codes of all groups together; ``temp``: the temperature;
            ``code_perplexity``, ``prob_perplex``: perplexities of the codes (without noise) and
            of the mean probabilities in this batch, summed over groups.
        """
        B, T = x.shape[:2]
        logits_NGV = self._logits(x)
        codes_NG = logits_NGV.argmax(-1)
        codebook_GVD = self.vars.float().view(self.groups, self.num_vars, -1)
        if self.training:
            # SpeechBrain draws for (N * G, V): the same numbers in the same order.
            noise_NGV = torch.empty_like(logits_NGV).exponential_(generator=generator).log()
            noisy_NGV = logits_NGV - noise_NGV
            vectors_NGD, chosen_NG = StraightThroughGather.apply(
                noisy_NGV, codebook_GVD, self.curr_temp
            )
        else:
            vectors_NGD, chosen_NG = gather_rows(codebook_GVD, codes_NG), codes_NG
        # A frame that is not finite must not come out as a code that looks fine.
        finite_N11 = torch.isfinite(logits_NGV).all(-1).all(-1)[:, None, None]
        vectors_NGD = torch.where(finite_N11, vectors_NGD, torch.nan)
        # A mean that is zeros, not NaN, where there are no frames.
        mean_probs_GV = torch.softmax(logits_NGV, dim=-1).sum(0) / max(len(logits_NGV), 1)

        result = {
            "num_vars": self.num_vars * self.groups,
            "temp": self.curr_temp,
            "code_perplexity": perplexity(code_shares(codes_NG, self.num_vars)).sum(),
            "prob_perplex": perplexity(mean_probs_GV).sum(),
            "x": vectors_NGD.reshape(B, T, self.vq_dim),
        }
        if return_codes:
            # Share of the codes that the mean probabilities leave unused (arXiv 2006.11477, eq. 4)
            result["aux_loss"] = 1 - result["prob_perplex"] / result["num_vars"]
            invalid_NG = ~finite_N11[:, 0].expand_as(codes_NG)
            result["codes"] = codes_NG.masked_fill(invalid_NG, -1).view(B, T, self.groups)
            result["chosen_codes"] = chosen_NG.masked_fill(invalid_NG, -1).view(B, T, self.groups)
        return result

    @torch.no_grad()
    def encode(self, x):
        """Codes of frames without noise, shape (batch, time, groups); see ``Quantiser.encode``."""
        logits_NGV = self._logits(x)
        invalid_N1 = ~torch.isfinite(logits_NGV).all(-1).all(-1, keepdim=True)
        codes_NG = logits_NGV.argmax(-1).masked_fill(invalid_N1, -1)
        return codes_NG.view(*x.shape[:2], self.groups)

    def _logits(self, x):
        """Scores of the codes in float32, shape (frames, groups, codes)."""
        x = as_float(x, self.input_dim).flatten(0, 1)
        with full_precision(x.device):
            logits = F.linear(x, self.weight_proj.weight.float(), self.weight_proj.bias.float())
        return logits.view(-1, self.groups, self.num_vars)


def check_temperatures(temp_tuple):
    """The three numbers of a temperature schedule, or a ValueError that says what they must be."""
    start = stop = decay = math.nan
    if isinstance(temp_tuple, (list, tuple)) and len(temp_tuple) == 3:
        if all(isinstance(number, (int, float)) for number in temp_tuple):
            start, stop, decay = map(float, temp_tuple)
    if not (math.inf > start >= stop > 0 and 0 < decay <= 1):
        raise ValueError(
            f"temp_tuple must be (start, stop, decay) with start >= stop > 0 and 0 < decay <= 1, "
            f"got {temp_tuple!r}; set temp_tuple: under the quantiser in your YAML, "
            f"as in temp_tuple: [2.0, 0.5, 0.999995]"
        )
    return start, stop, decay


def code_shares(codes_NG, num_codes):
    """Share of frames that chose each code, shape (groups, codes)."""
    ones_NG = torch.ones_like(codes_NG, dtype=torch.float32)
    counts_GV = ones_NG.new_zeros(codes_NG.shape[1], num_codes)
    counts_GV.scatter_add_(1, codes_NG.T, ones_NG.T)
    return counts_GV / max(len(codes_NG), 1)


def perplexity(shares_GV):
    """Exponential of the entropy of each group's shares, as SpeechBrain computes it."""
    return torch.exp(-(shares_GV * torch.log(shares_GV + 1e-7)).sum(-1))
