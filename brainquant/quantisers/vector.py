"""Vector quantiser whose codebooks follow the means of the frames that choose them.

Shape suffixes: B batch, T time, N = B * T frames, M finite frames, K drawn frames, G groups,
V codes of a group, D dim of a code, E = D + 1: a sum of frames and, last, their number.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import distributed

from ..functional.nearest import nearest_code
from ..functional.straight_through import gather_rows
from .base import Quantiser, as_float, check_divides, check_positive

FRAMES_PER_CODE = 64  # what k-means starts from, at most
SMOOTHING = 1e-5  # Laplace smoothing of the counts, against a division by none


class VectorQuantizer(Quantiser):
    """Nearest codes of a learned projection, in codebooks that are moving averages.

    See van den Oord et al., https://arxiv.org/abs/1711.00937, appendix A.1. The codebooks start
    from k-means of the first batch in training, and a code that few frames choose becomes a
    frame of the current batch (Zeghidour et al., https://arxiv.org/abs/2107.03312). All of it is
    the same on every rank, and in the ``state_dict``. Encoded with but never trained, as the
    target of BEST-RQ, it is a random codebook.

    Arguments
    ---------
    input_dim : int
        Size of a frame.
    num_vars : int
        Codes of each group.
    groups : int
        Groups (codebooks); a frame gets one code of each.
    vq_dim : int
        Size of the projected and of the quantised vector, the groups' vectors side by side.
    decay : float
        Share of the averages that a step keeps.
    revive_below : float
        A code is dead, and becomes a frame, where its average count is below this share of an
        even use of all codes; 0 leaves dead codes alone.
    seed : int
        Draws the first codebook, k-means and the frames that dead codes become.

    Raises
    ------
    ValueError
        Where sizes are not positive or do not divide, where decay or revive_below is not from 0
        to below 1, or where a frame has another size than input_dim.

    Example
    -------
    >>> quantiser = VectorQuantizer(16, 4, 1, 8)
    >>> x = torch.randn(1, 4, 16).repeat(1, 10, 1)  # four frames, ten times each
    >>> output = quantiser(x, return_codes=True)
    >>> output["codes"].unique(return_counts=True)[1]
    tensor([10, 10, 10, 10])
    >>> bool(output["aux_loss"] < 1e-9)
    True
    """

    def __init__(
        self, input_dim, num_vars, groups, vq_dim, *, decay=0.99, revive_below=0.1, seed=0
    ):
        super().__init__()
        check_positive(input_dim=input_dim, num_vars=num_vars, groups=groups, vq_dim=vq_dim)
        check_divides(vq_dim, groups)
        for key, share in {"decay": decay, "revive_below": revive_below}.items():
            if not (isinstance(share, (int, float)) and 0 <= share < 1):
                raise ValueError(
                    f"{key} must be from 0 to below 1, got {share!r}; "
                    f"set {key}: under the quantiser in your YAML"
                )
        self.input_dim = input_dim
        self.num_codebooks = groups
        self.codebook_size = num_vars
        self.vq_dim = vq_dim
        self.decay = decay
        self.revive_below = revive_below
        self.seed = seed

        self.proj = torch.nn.Linear(input_dim, vq_dim)
        shape = groups, num_vars, vq_dim // groups
        generator = torch.Generator().manual_seed(seed)
        codebook_GVD = F.normalize(torch.randn(shape, generator=generator), dim=-1)
        self.register_buffer("codebook", codebook_GVD)
        self.register_buffer("sums", torch.zeros(shape))
        self.register_buffer("counts", torch.zeros(shape[:2]))
        self.register_buffer("updates", torch.tensor(0))

    def forward(self, x, *, generator=None, return_codes=False):
        """Quantised vectors; in training, the codebooks then move towards the frames.

        Arguments
        ---------
        x : torch.Tensor
            Shape (batch, time, input_dim).
        generator : torch.Generator or None
            Not needed: what is drawn here has to be the same on every rank.
        return_codes : bool
            Adds to the result ``codes`` and ``chosen_codes``, both those of the vectors, shape
            (batch, time, groups), and ``aux_loss``, the commitment loss: the mean square of the
            difference between the projected frames and their codes.

        Returns
        -------
        result : dict
            ``x``: vectors, shape (batch, time, vq_dim), NaN for a frame that is not finite; their
            gradient is that of the projected frame.
        """
        B, T = x.shape[:2]
        projected_NGD, finite_N = self._project(x)
        frames_MGD = projected_NGD.float()[finite_N]
        if self.training and self.updates == 0:
            self._start(frames_MGD.detach())
        codes_NG = self._nearest(projected_NGD, finite_N)
        rows_MGD = gather_rows(self.codebook.float(), codes_NG[finite_N])
        if self.training:
            self._follow(frames_MGD.detach(), codes_NG[finite_N])

        # The value is the row to the last bit; the difference has only a gradient.
        vectors_NGD = torch.full_like(projected_NGD, torch.nan, dtype=torch.float32)
        vectors_NGD[finite_N] = rows_MGD + (frames_MGD - frames_MGD.detach())
        result = {"x": vectors_NGD.view(B, T, self.vq_dim)}
        if return_codes:
            square_MGD = (frames_MGD - rows_MGD).square()
            result["aux_loss"] = square_MGD.sum() / max(square_MGD.numel(), 1)
            result["codes"] = result["chosen_codes"] = codes_NG.view(B, T, self.num_codebooks)
        return result

    @torch.no_grad()
    def encode(self, x):
        """Codes of frames, shape (batch, time, groups); see ``Quantiser.encode``."""
        codes_NG = self._nearest(*self._project(x))
        return codes_NG.view(*x.shape[:2], self.num_codebooks)

    def _project(self, x):
        """Projected frames, and which of them are finite.

        In float64, which no autocast touches: a rounding that depends on the size of the batch
        would give a frame that is between two codes now the one, now the other.
        """
        x = as_float(x, self.input_dim).flatten(0, 1).double()
        x = F.linear(x, self.proj.weight.double(), self.proj.bias.double())
        return x.unflatten(1, (self.num_codebooks, -1)), torch.isfinite(x.float()).all(-1)

    def _nearest(self, projected_NGD, finite_N):
        """Nearest code of each group, -1 for a frame that is not finite."""
        projected_GND = projected_NGD.detach().transpose(0, 1).contiguous()
        codes_NG = torch.stack(list(map(nearest_code, projected_GND, self.codebook.float())), -1)
        return codes_NG.masked_fill(~finite_N[:, None], -1)

    def _start(self, frames_MGD):
        """Codes from k-means of frames, as many as there are frames at most."""
        frames_KGD = draw_frames(frames_MGD, FRAMES_PER_CODE * self.codebook_size, self._draw())
        if place_among_ranks()[0] == 0:
            for codebook_VD, frames_KD in zip(self.codebook, frames_KGD.unbind(1)):
                means_VD = k_means(frames_KD, self.codebook_size, self.seed)
                codebook_VD[: len(means_VD)] = means_VD
        if distributed.is_initialized():
            distributed.broadcast(self.codebook, 0)

    def _follow(self, frames_MGD, codes_MG):
        """Moves the averages by the frames of all ranks, and the codes to the averages."""
        G, V, D = self.codebook.shape
        rows_MG = codes_MG + torch.arange(G, device=codes_MG.device) * V
        counted_MGE = F.pad(frames_MGD, (0, 1), value=1.0)
        batch_XE = frames_MGD.new_zeros(G * V, D + 1)
        batch_XE.index_add_(0, rows_MG.flatten(), counted_MGE.flatten(0, 1))
        batch_GVE = sum_over_ranks(batch_XE).view(G, V, D + 1)
        if not batch_GVE[..., D].any():
            return  # no frames on any rank
        self.updates += 1
        self.sums.lerp_(batch_GVE[..., :D], 1 - self.decay)
        self.counts.lerp_(batch_GVE[..., D], 1 - self.decay)
        total_G1 = self.counts.sum(1, keepdim=True)
        smooth_GV = total_G1 * (self.counts + SMOOTHING) / (total_G1 + V * SMOOTHING)
        self.codebook.copy_(self.sums / smooth_GV[..., None])
        self._revive(frames_MGD)

    def _revive(self, frames_MGD):
        """Dead codes become frames, and count as if they had always been used evenly."""
        even_G = self.counts.mean(1)
        dead_GV = self.counts < self.revive_below * even_G[:, None]
        if most := int(dead_GV.sum(1).max()):
            frames_KGD = draw_frames(frames_MGD, most, self._draw())
            for g, dead_V in enumerate(dead_GV):
                dead_K = dead_V.nonzero().flatten()[: len(frames_KGD)]
                self.codebook[g, dead_K] = frames_KGD[: len(dead_K), g]
                self.counts[g, dead_K] = even_G[g]
                self.sums[g, dead_K] = even_G[g] * self.codebook[g, dead_K]

    def _draw(self):
        """A generator that is the same on every rank, and after a resume."""
        return np.random.default_rng([self.seed, int(self.updates)])


def k_means(frames_KD, num_codes, seed):
    """Means of ``num_codes`` clusters, or of one for each frame where there are fewer."""
    from sklearn.cluster import KMeans  # here, since it takes longer to import than brainquant

    if not len(frames_KD):
        return frames_KD
    fitted = KMeans(min(num_codes, len(frames_KD)), random_state=seed)
    fitted.fit(frames_KD.double().cpu().numpy())
    return torch.from_numpy(fitted.cluster_centers_)


def draw_frames(frames_MX, most, draw):
    """Frames of all ranks, drawn without replacement, the same on every rank.

    Arguments
    ---------
    frames_MX : torch.Tensor
        Frames of this rank, shape (frames, ...).
    most : int
        How many are drawn, unless there are fewer.
    draw : numpy.random.Generator
        In the same state on every rank.

    Returns
    -------
    frames_KX : torch.Tensor
        Shape (drawn, ...).

    Example
    -------
    >>> draw_frames(torch.arange(5.0), 3, np.random.default_rng(0)).unique().numel()
    3
    """
    rank, ranks = place_among_ranks()
    sizes_R = torch.zeros(ranks, dtype=torch.long, device=frames_MX.device)
    sizes_R[rank] = len(frames_MX)
    sizes = sum_over_ranks(sizes_R).tolist()
    drawn_K = draw.choice(sum(sizes), min(most, sum(sizes)), replace=False) - sum(sizes[:rank])
    drawn_K = torch.from_numpy(drawn_K).to(frames_MX.device)
    own_K = (drawn_K >= 0) & (drawn_K < len(frames_MX))
    frames_KX = frames_MX.new_zeros(len(drawn_K), *frames_MX.shape[1:])
    frames_KX[own_K] = frames_MX[drawn_K[own_K]]
    return sum_over_ranks(frames_KX)


def place_among_ranks():
    """The number of this process, and how many there are."""
    if distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def sum_over_ranks(tensor):
    """The tensor after it has been summed, in place, over all ranks."""
    if distributed.is_initialized():
        distributed.all_reduce(tensor)
    return tensor
