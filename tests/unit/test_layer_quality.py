"""The label-free quality of a layer: rank and units, against slow references and known cases."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score

from brainquant.evaluation import effective_rank
from brainquant.monitoring.quality import (
    find_centroids,
    layer_quality,
    mutual_information,
    same_times,
)


def clips(dim=6, frames=(150, 210), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, dim, generator=generator) for n in frames]


def noisy(originals, scale, seed=1):
    return [x + scale * y for x, y in zip(originals, clips(seed=seed))]


def test_units_repeat_less_the_more_noise_the_other_version_has():
    levels = [layer_quality(clips(), noisy(clips(), scale)).units_repeat for scale in (0, 0.3, 1)]
    assert levels[0] > levels[1] > levels[2] > 0.05
    unrelated = layer_quality(clips(), clips(seed=5)).units_repeat
    assert abs(unrelated) < 0.05


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_scale_and_what_a_clip_shares_change_nothing(offset):
    plain = layer_quality(clips(), noisy(clips(), 0.3))
    moved = [
        [(x + offset * (n + 1)).double() * 7 for n, x in enumerate(version)]
        for version in (clips(), noisy(clips(), 0.3))
    ]
    assert layer_quality(*moved) == pytest.approx(plain, rel=1e-3)


def test_the_rank_is_that_of_the_frames_without_what_their_clip_shares():
    x_ND = torch.cat([x - x.mean(0) for x in clips()]).double().numpy()
    quality = layer_quality(clips(), clips())
    assert quality.effective_rank == pytest.approx(effective_rank(x_ND), rel=1e-6)


def test_collapse_is_no_quality_however_well_it_repeats():
    constant = [torch.full((150, 6), 0.3), torch.full((90, 6), 7.1)]  # one vector for each clip
    assert layer_quality(constant, constant) == (0.0, 0.0)
    rounding = [x + 1e-8 * torch.randn(x.shape, dtype=torch.float64) for x in constant]
    assert layer_quality(rounding, rounding) == (0.0, 0.0)
    # One direction of six: as many units as k-means finds, but a rank of one.
    line = [x[:, :1] * torch.ones(6) for x in clips()]
    assert layer_quality(line, line).effective_rank == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_or_too_short_has_no_quality(bad):
    broken = clips()
    broken[1][3, 2] = bad
    assert layer_quality(broken, clips()) is None
    assert layer_quality(clips(), broken) is None
    assert layer_quality(clips(frames=(19,)), clips(frames=(19,))) is None
    assert layer_quality(clips(frames=(1, 19)), clips(frames=(1, 19))) is not None


def test_mutual_information_is_scikit_learns():
    a_N, b_N = torch.randint(0, 7, (2, 300), generator=torch.Generator().manual_seed(0))
    assert mutual_information(a_N, b_N, 7) == pytest.approx(mutual_info_score(a_N, b_N))


def test_centroids_are_the_means_of_their_frames():
    x_ND = torch.cat([torch.randn(40, 3) * 0.01 + 10 * k for k in range(4)])
    centroids_KD = find_centroids(x_ND, 4)
    means_KD = x_ND.view(4, 40, 3).mean(1)
    assert torch.allclose(centroids_KD.sort(0).values, means_KD, atol=1e-4)


def test_frames_are_paired_with_the_nearest_in_time():
    rng = np.random.default_rng(0)
    for frames, others in [(1, 1), (1, 4), (5, 1), (40, 44), (44, 40), (30, 3)]:
        times_T = 0.04 * np.arange(frames) + 0.02
        others_T = np.sort(rng.uniform(0, 0.04 * frames + 0.1, others))
        pairs = dict(zip(*(indices.tolist() for indices in same_times(times_T, others_T))))
        distances_TT = np.abs(times_T[:, None] - others_T)
        for frame, row_T in enumerate(distances_TT):
            if frame in pairs:
                assert row_T[pairs[frame]] == row_T.min()
            else:
                assert frames > 1 and row_T.min() > 0.02 - 1e-9
