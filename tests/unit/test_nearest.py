"""Search for the nearest code."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from brainquant.functional import nearest
from brainquant.functional.nearest import nearest_code


def slow_nearest(x_ND, codebook_VD):
    """One distance after the other, in float64; also the margin of the best to the second."""
    codes, margins = [], []
    for x in x_ND.double():
        distances = [float((x - code).square().sum()) for code in codebook_VD.double()]
        codes.append(distances.index(min(distances)))
        best, second = sorted(distances)[:2]
        margins.append(second - best)
    return torch.tensor(codes), torch.tensor(margins)


@given(st.integers(0, 2**31), st.integers(0, 20), st.integers(1, 8), st.integers(2, 40))
def test_is_the_nearest_in_euclidean_distance(seed, N, D, V):
    generator = torch.Generator().manual_seed(seed)
    x_ND = 10 * torch.randn(N, D, generator=generator)
    codebook_VD = F.normalize(torch.randn(V, D, generator=generator))
    codes_N = nearest_code(x_ND, codebook_VD)
    slow_N, margins_N = slow_nearest(x_ND, codebook_VD)
    clear_N = margins_N > 1e-4
    assert codes_N.dtype == torch.long and codes_N.shape == (N,)
    assert torch.equal(codes_N[clear_N], slow_N[clear_N])


@pytest.mark.parametrize("frames", [1, 6, 7, 8, 21, 50])
def test_chunks_leave_no_seam(frames, monkeypatch):
    x_ND = torch.randn(frames, 4, generator=torch.Generator().manual_seed(0))
    codebook_VD = F.normalize(torch.randn(30, 4, generator=torch.Generator().manual_seed(1)))
    whole_N = nearest_code(x_ND, codebook_VD)
    monkeypatch.setattr(nearest, "CHUNK", 7)
    assert torch.equal(nearest_code(x_ND, codebook_VD), whole_N)


def test_a_tie_goes_to_the_lowest_index():
    codebook_VD = torch.eye(3).repeat(20, 1)  # each code 20 times, with scores that are exact
    x_ND = torch.tensor([[0, 2.0, 0], [0, 0, 2.0], [1.0, 1.0, 0], [0, 0, 0]])
    assert nearest_code(x_ND, codebook_VD).tolist() == [1, 2, 0, 0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_frame_that_is_not_finite_has_no_code(value):
    x_ND = torch.tensor([[0.0, 1.0], [value, 1.0], [0.0, 1.0]])
    assert nearest_code(x_ND, torch.eye(2)).tolist() == [1, -1, 1]


def test_holds_the_scores_of_one_chunk_only(largest_tensor):
    N, D, V = 4 * nearest.CHUNK, 8, 64
    with largest_tensor() as measured:
        nearest_code(torch.randn(N, D), F.normalize(torch.randn(V, D)))
    assert measured.elements <= max(nearest.CHUNK * V, N * D)
