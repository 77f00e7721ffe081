"""How good a layer is, without labels: its rank, and how well its units repeat.

Shape suffixes: T frames of a clip, N frames of all clips, D dim, K units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from .spectrum import rank_of_variances

# The numbers of a layer, and what they are called in the report.
LAYER_NUMBERS = {
    "effective_rank": "Effective rank of the layers",
    "units_repeat": "Units that repeat at another speed",
}
START = "start_"  # begins the names of those of the encoder before the first step
UNITS, DIRECTIONS = 50, 128  # at most; fewer if there are not ten frames for each
FRAMES_FOR_EACH = 10
ROUNDS = 10  # of k-means
NOISE = 1e-12  # a smaller share of the mean square is the rounding of float32


class LayerQuality(NamedTuple):
    """Two numbers of a layer.

    Attributes
    ----------
    effective_rank : float
        In how many directions the frames vary, see ``brainquant.monitoring.spectrum``. What all
        frames of a clip share is subtracted first.
    units_repeat : float
        How much a frame's unit says about the unit of the same moment at another speed, as a share
        of what a unit can say; 0 is chance.
    """

    effective_rank: float
    units_repeat: float


def same_times(times_T: np.ndarray, others_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs each frame with the nearest of another version of the clip.

    Arguments
    ---------
    times_T, others_T : array
        Seconds of the frames, in the time of the first version.

    Returns
    -------
    frames, others : array
        Indices of the pairs. A frame that is further away than half a frame has none.

    Example
    -------
    >>> same_times(np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.2, 1.3, 2.4]))
    (array([0, 1, 2]), array([0, 1, 2]))
    """
    right = np.searchsorted(others_T, times_T).clip(1, max(len(others_T) - 1, 1))
    left = right - 1
    right = right.clip(max=len(others_T) - 1)
    nearer = np.abs(others_T[left] - times_T) <= np.abs(others_T[right] - times_T)
    nearest = np.where(nearer, left, right)
    reach = np.diff(times_T).min() / 2 if len(times_T) > 1 else math.inf
    near = np.abs(others_T[nearest] - times_T) <= reach
    return np.flatnonzero(near), nearest[near]


@torch.no_grad()
def layer_quality(
    clips: Sequence[torch.Tensor], others: Sequence[torch.Tensor]
) -> LayerQuality | None:
    """Measures a layer from its outputs for two versions of the same clips.

    The outputs are whitened, so that no few directions decide, and clustered by k-means. The units
    of the other version are the nearest of the same clusters. The mutual information of both, less
    that of frames that do not belong together, is divided by that of units that all repeat. So an
    encoder whose frames are all alike has 0, however well that repeats.

    Arguments
    ---------
    clips : sequence of torch.Tensor
        Outputs for each clip, shape (frames, dim).
    others : sequence of torch.Tensor
        Those of the other version, frame by frame of the same moments.

    Returns
    -------
    quality : LayerQuality or None
        None if an output is not finite, or if there are fewer than 20 frames.

    Example
    -------
    >>> clips = torch.randn(2, 500, 4, generator=torch.Generator().manual_seed(0))
    >>> same, noise = layer_quality(clips, clips), layer_quality(clips, clips.flip(1))
    >>> same.effective_rank > 3.9, same.units_repeat > 0.5, abs(noise.units_repeat) < 0.1
    (True, True, True)
    """
    x_ND, y_ND = (torch.cat([*map(without_mean, version)]) for version in (clips, others))
    frames = len(x_ND)
    if frames < 2 * FRAMES_FOR_EACH or not (x_ND.isfinite().all() and y_ND.isfinite().all()):
        return None
    power = torch.cat([clip.double().square().mean(1) for clip in clips]).mean()
    variances_D, directions_DD = torch.linalg.eigh(x_ND.mT @ x_ND / frames)
    varies_D = variances_D > NOISE * power
    if not varies_D.any():
        return LayerQuality(0.0, 0.0)
    rank = rank_of_variances(variances_D.clamp(min=0).cpu().numpy())
    kept = min(DIRECTIONS, frames // FRAMES_FOR_EACH, int(varies_D.sum()))
    whiten_DD = directions_DD[:, -kept:] / variances_D[-kept:].sqrt()
    x_ND, y_ND = (x_ND @ whiten_DD).float(), (y_ND @ whiten_DD).float()
    return LayerQuality(rank, units_repeat(x_ND, y_ND))


def without_mean(clip_TD: torch.Tensor) -> torch.Tensor:
    """The frames of a clip without what all of them share, in float64."""
    clip_TD = clip_TD.double()
    return clip_TD - clip_TD.mean(0)


def units_repeat(x_ND: torch.Tensor, y_ND: torch.Tensor) -> float:
    """How much the units of frames say about those of their counterparts, above chance, of 1."""
    units = min(UNITS, len(x_ND) // FRAMES_FOR_EACH)
    centroids_KD = find_centroids(x_ND, units)
    a_N, b_N = (torch.cdist(frames, centroids_KD).argmin(1) for frames in (x_ND, y_ND))
    # Frames half of the corpus apart do not belong together.
    chance = mutual_information(a_N, b_N.roll(len(b_N) // 2), units)
    return (mutual_information(a_N, b_N, units) - chance) / math.log(units)


def find_centroids(x_ND: torch.Tensor, units: int) -> torch.Tensor:
    """Centroids of k-means, from frames that are spread evenly over the clips.

    Not scikit-learn's, whose threads and import would take longer than the measurement, and whose
    result may depend on the number of threads.
    """
    centroids_KD = x_ND[torch.linspace(0, len(x_ND) - 1, units).long().to(x_ND.device)]
    for _ in range(ROUNDS):
        nearest_N = torch.cdist(x_ND, centroids_KD).argmin(1)
        members_KN = torch.nn.functional.one_hot(nearest_N, units).T.to(x_ND.dtype)
        counts_K = members_KN.sum(1, keepdim=True)
        means_KD = members_KN @ x_ND / counts_K.clamp(min=1)
        centroids_KD = torch.where(counts_K > 0, means_KD, centroids_KD)
    return centroids_KD


def mutual_information(a_N: torch.Tensor, b_N: torch.Tensor, units: int) -> float:
    """Mutual information of two sequences of units, in nats.

    Example
    -------
    >>> units = torch.tensor([0, 0, 1, 1])
    >>> round(mutual_information(units, 1 - units, 2), 4)  # ln 2
    0.6931
    """
    joint_KK = torch.bincount(a_N * units + b_N, minlength=units**2).view(units, units)
    joint_KK = joint_KK.double().cpu() / len(a_N)
    independent_KK = joint_KK.sum(1, keepdim=True) * joint_KK.sum(0)
    seen_KK = joint_KK > 0
    return float((joint_KK * (joint_KK / independent_KK).log())[seen_KK].sum())
