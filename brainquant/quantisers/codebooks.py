"""Codebooks that are moving averages: each code follows the mean of the frames that choose it.

Only two steps wait for the device: the first, to count the finite frames, and the second, to learn
whether the first was kept.

Shape suffixes: B batch, T time, N = B * T frames, K drawn frames, G groups, V codes of a group,
D dim of a code, E = D + 1: the sum of frames, and last their number, X = G * V.
"""

from numbers import Real
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import distributed
from typing_extensions import override

from ..functional.collectives import rank_and_size, sum_over_ranks
from ..functional.imports import import_late
from ..functional.straight_through import gather_rows
from ..search.nearest import nearest_code
from .draws import draw_over_ranks, frame_keys, with_highest_keys
from .moving import MovingQuantiser

FRAMES_PER_CODE = 64  # at most, in the k-means of the first step
SMOOTHING = 1e-5  # Laplace smoothing of the counts, against a division by zero


class Batch(NamedTuple):
    """Sums and drawn frames of the batches of a step so far; the codebooks follow them.

    Attributes
    ----------
    sums_XE : torch.Tensor
        For each code, the sum and the number of the frames that chose it. In float64: the order
        of batches and ranks does not change the float32 result.
    keys_K, frames_KGD : torch.Tensor
        Drawn frames, see ``brainquant.quantisers.draws``.
    """

    sums_XE: torch.Tensor
    keys_K: torch.Tensor
    frames_KGD: torch.Tensor


class MovingCodebooks(MovingQuantiser):
    """Nearest codes in codebooks that are moving averages.

    See van den Oord et al., https://arxiv.org/abs/1711.00937, appendix A.1. The codebooks move
    once in each optimiser step, see ``MovingQuantiser``. In the first training step they are
    random; at its end they become the k-means of its frames; later steps move them to averages. A
    code that few frames choose is replaced by a frame of the step (Zeghidour et al.,
    https://arxiv.org/abs/2107.03312). All of this is the same on every rank, and is in the
    ``state_dict``. A subclass says in ``_project`` what the codes are compared with.

    Arguments
    ---------
    input_dim : int
        Size of a frame.
    num_vars : int
        Codes of each group.
    groups : int
        Groups (codebooks); a frame gets one code of each.
    vq_dim : int
        Size of what the codes are compared with, the groups' parts side by side.
    decay : float
        Share of the old average in the new one.
    revive_below : float
        A code is dead if its average count is below this share of the mean count; a frame then
        replaces it. 0 never replaces a code.
    seed : int
        Seeds the first codebook, k-means, and the frames that replace dead codes.

    Raises
    ------
    ValueError
        If a size is not positive, or if decay or revive_below is not from 0 to below 1.
    """

    vq_dim: int  # pyright: ignore[reportIncompatibleVariableOverride]
    codebook: torch.Tensor
    sums: torch.Tensor
    counts: torch.Tensor
    updates: torch.Tensor

    def __init__(
        self,
        input_dim: int,
        num_vars: int,
        groups: int,
        vq_dim: int,
        *,
        decay: float,
        revive_below: float,
        seed: int,
    ):
        super().__init__()
        for key, share in {"decay": decay, "revive_below": revive_below}.items():
            if not (isinstance(share, Real) and 0 <= share < 1):
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

        shape = groups, num_vars, vq_dim // groups
        generator = torch.Generator().manual_seed(seed)
        codebook_GVD = torch.randn(shape, generator=generator, device=generator.device)
        codebook_GVD = F.normalize(codebook_GVD, dim=-1).to(torch.empty(0).device)
        self.register_buffer("codebook", codebook_GVD)
        self.register_buffer("sums", torch.zeros(shape))
        self.register_buffer("counts", torch.zeros(shape[:2]))
        self.register_buffer("updates", torch.tensor(0))
        self.started = False  # whether ``updates`` is above 0, as far as the host knows

    def forward(
        self, x: torch.Tensor, *, generator: torch.Generator | None = None, return_codes=False
    ) -> dict[str, torch.Tensor]:
        """Quantised vectors; in training, the codebooks then follow the frames.

        Arguments
        ---------
        x : torch.Tensor
            Shape (batch, time, input_dim).
        generator : torch.Generator or None
            Draws the frames for k-means and the frames that replace dead codes. None draws them
            by hashes of the frames, which are the same on every rank too.
        return_codes : bool
            Adds to the result ``codes`` and ``chosen_codes``, both the codes of the vectors,
            shape (batch, time, groups), and ``aux_loss``, the commitment loss: the mean squared
            difference between what the codes are compared with and the codes.

        Returns
        -------
        result : dict
            ``x``: vectors, shape (batch, time, vq_dim), NaN for a frame that is not finite; their
            gradient is that of the projected frame.
        """
        B, T = x.shape[:2]
        projected_NGD, finite_N = self._project(x)
        invalid_N11 = ~finite_N[:, None, None]
        frames_NGD = projected_NGD.float().masked_fill(invalid_N11, 0.0)
        codes_NG = self._nearest(projected_NGD, finite_N)
        rows_NGD = gather_rows(self.codebook.float(), codes_NG.clamp(min=0))
        self._follow(frames_NGD.detach(), codes_NG, finite_N, generator)

        # The value is exactly the row; the difference adds only a gradient.
        vectors_NGD = rows_NGD + (frames_NGD - frames_NGD.detach())
        vectors_NGD = vectors_NGD.masked_fill(invalid_N11, torch.nan)
        result = {"x": vectors_NGD.view(B, T, self.vq_dim).to(self.vector_dtype)}
        if return_codes:
            square_NGD = (frames_NGD - rows_NGD).square().masked_fill(invalid_N11, 0.0)
            result["aux_loss"] = square_NGD.sum() / (finite_N.sum() * self.vq_dim).clamp(min=1)
            result["codes"] = result["chosen_codes"] = codes_NG.view(B, T, self.num_codebooks)
        return result

    @torch.no_grad()
    def assign(self, x: torch.Tensor, *, generator: torch.Generator | None = None) -> torch.Tensor:
        """Codes as ``encode`` gives them; in training, the codebooks then follow the frames.

        So a target needs no vectors. Arguments are those of ``forward``.
        """
        projected_NGD, finite_N = self._project(x)
        codes_NG = self._nearest(projected_NGD, finite_N)
        frames_NGD = projected_NGD.float().masked_fill(~finite_N[:, None, None], 0.0)
        self._follow(frames_NGD, codes_NG, finite_N, generator)
        return codes_NG.view(*x.shape[:2], self.num_codebooks)

    @override
    @torch.no_grad()
    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Codes of frames, shape (batch, time, groups); see ``Quantiser.encode``."""
        codes_NG = self._nearest(*self._project(x))
        return codes_NG.view(*x.shape[:2], self.num_codebooks)

    @property
    def vector_dtype(self) -> torch.dtype:
        """Of the vectors that a forward gives."""
        return torch.float32

    def _project(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the codes are compared with, shape (frames, groups, dim); which are finite."""
        raise NotImplementedError

    def _nearest(self, projected_NGD, finite_N):
        """Nearest code of each group, -1 for a frame that is not finite."""
        projected_GND = projected_NGD.detach().transpose(0, 1).contiguous()
        codes_NG = torch.stack(list(map(nearest_code, projected_GND, self.codebook.float())), -1)
        return codes_NG.masked_fill(~finite_N[:, None], -1)

    def _follow(self, frames_NGD, codes_NG, finite_N, generator):
        """Gathers the frames of a batch, if the codebooks move."""
        if self.moves:
            self.gather(self._batch(frames_NGD, codes_NG, finite_N, generator))

    def _has_started(self):
        """Whether the codes are averages already; reads the device until they are."""
        self.started = self.started or bool(self.updates)
        return self.started

    def _load_from_state_dict(self, *args, **kwargs):
        """Loads; the loaded codebooks may not be averages yet."""
        super()._load_from_state_dict(*args, **kwargs)
        self.started = False

    def _batch(self, frames_NGD, codes_NG, finite_N, generator):
        """The sums and drawn frames of this batch, added to those of the step so far."""
        G, V, D = self.codebook.shape
        rows_NG = codes_NG.clamp(min=0) + torch.arange(G, device=codes_NG.device) * V
        counted_NGE = F.pad(frames_NGD.double(), (0, 1), value=1.0) * finite_N[:, None, None]
        sums_XE = counted_NGE.new_zeros(G * V, D + 1)
        sums_XE.index_add_(0, rows_NG.flatten(), counted_NGE.flatten(0, 1))
        keys_N = frame_keys(frames_NGD, finite_N, self.seed, self.updates, generator)
        if self.gathered:
            before = self.gathered.pop()
            sums_XE += before.sums_XE
            keys_N = torch.cat([before.keys_K, keys_N])
            frames_NGD = torch.cat([before.frames_KGD, frames_NGD])
        most = V if self._has_started() else V * FRAMES_PER_CODE
        return Batch(sums_XE, *with_highest_keys(keys_N, frames_NGD, most))

    @override
    def move(self, gathered: list[Batch]) -> None:
        """Moves the averages by the frames of all ranks, and the codes to the averages."""
        [batch] = gathered
        G, V, D = self.codebook.shape
        sums_GVE = sum_over_ranks(batch.sums_XE).view(G, V, D + 1)
        frames_KGD, drawn_K = draw_over_ranks(batch.keys_K, batch.frames_KGD)
        any_frames = sums_GVE[..., D].any()  # without frames on any rank nothing changes
        if not self._has_started():
            if not any_frames:
                return
            sums_GVE = self._start(frames_KGD[drawn_K], sums_GVE[..., D].sum(1).mean())
        self.updates += any_frames
        weight = (1 - self.decay) * any_frames
        self.sums.lerp_(sums_GVE[..., :D].to(self.sums), weight)
        self.counts.lerp_(sums_GVE[..., D].to(self.counts), weight)
        total_G1 = self.counts.sum(1, keepdim=True)
        smooth_GV = total_G1 * (self.counts + SMOOTHING) / (total_G1 + V * SMOOTHING)
        averages_GVD = self.sums / smooth_GV[..., None]
        self.codebook.copy_(torch.where(any_frames, averages_GVD, self.codebook))
        if self.revive_below:
            self._revive(frames_KGD[:V], drawn_K[:V])

    def _start(self, frames_KGD, num_frames):
        """Sums and counts of the clusters of drawn frames, scaled to the number of all frames."""
        G, V, D = self.codebook.shape
        sums_GVE = frames_KGD.new_zeros(G, V, D + 1)
        if rank_and_size()[0] == 0:
            for clusters_VE, frames_KD in zip(sums_GVE, frames_KGD.unbind(1)):
                means_VD, sizes_V = k_means(frames_KD, V, self.seed)
                clusters_VE[: len(means_VD)] = F.pad(means_VD, (0, 1), value=1.0) * sizes_V[:, None]
        if distributed.is_initialized():
            distributed.broadcast(sums_GVE, 0)
        return sums_GVE * (num_frames / len(frames_KGD))

    def _revive(self, frames_VGD, drawn_V):
        """Replaces dead codes by frames, and gives them the mean count."""
        even_G1 = self.counts.mean(1, keepdim=True)
        dead_GV = self.counts < self.revive_below * even_G1
        frame_GV = (dead_GV.cumsum(1) - 1).clamp(min=0)  # the n-th dead code gets the n-th frame
        dead_GV &= drawn_V[frame_GV]
        revived_GVD = gather_rows(frames_VGD.transpose(0, 1), frame_GV.T).transpose(0, 1)
        revived_GVD = revived_GVD.to(self.codebook)
        dead_GV1 = dead_GV[..., None]
        self.codebook.copy_(torch.where(dead_GV1, revived_GVD, self.codebook))
        self.counts.copy_(torch.where(dead_GV, even_G1, self.counts))
        self.sums.copy_(torch.where(dead_GV1, even_G1[..., None] * revived_GVD, self.sums))


def k_means(
    frames_KD: torch.Tensor, num_codes: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Means and sizes of ``num_codes`` clusters; of fewer if there are fewer frames."""
    KMeans = import_late("sklearn.cluster").KMeans
    fitted = KMeans(min(num_codes, len(frames_KD)), random_state=seed)
    labels_K = torch.from_numpy(fitted.fit(frames_KD.double().cpu().numpy()).labels_).long()
    means_VD = torch.from_numpy(fitted.cluster_centers_).to(frames_KD)
    return means_VD, torch.bincount(labels_K, minlength=len(means_VD)).to(frames_KD)
