"""The effective rank of features."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainquant.evaluation import effective_rank


def features(frames, dim, seed=0):
    """Of which each direction varies less than the one before."""
    return np.random.default_rng(seed).normal(size=(frames, dim)) * 0.8 ** np.arange(dim)


@given(st.integers(2, 30), st.integers(1, 20), st.integers(0, 99))
def test_it_is_that_of_the_singular_values(frames, dim, seed):
    x_ND = features(frames, dim, seed)
    values = np.linalg.svd(x_ND - x_ND.mean(0), compute_uv=False)
    shares = values[values > 1e-6 * values[0]] / values.sum()
    expected = np.exp(-(shares * np.log(shares)).sum())
    assert effective_rank(x_ND) == pytest.approx(expected, rel=1e-4)
    assert effective_rank(x_ND) <= min(frames - 1, dim) + 1e-6


def test_scale_offset_and_rotation_do_not_change_it():
    x_ND = features(200, 16)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(16, 16)))[0]
    other = (100 * x_ND @ turn + 1000).astype(np.float32)
    assert effective_rank(other) == pytest.approx(effective_rank(x_ND), rel=1e-3)


def test_features_that_do_not_vary_have_none():
    assert effective_rank(np.full((9, 4), 0.1, np.float32)) == 0.0
