"""Frames that are drawn by their hashes; that ranks draw alike is in test_vector_ranks.py."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from brainquant.quantisers.draws import (
    draw_over_ranks,
    frame_keys,
    scramble,
    with_highest_keys,
)


def draw_frames(x, valid, most, step, *, generator=None):
    keys = frame_keys(x, valid, 0, torch.tensor(step), generator)
    return draw_over_ranks(*with_highest_keys(keys, x, most))


@given(st.integers(-(2**63), 2**63 - 1))
def test_the_hash_is_that_of_splitmix64(number):
    expected = number % 2**64
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        expected = (expected ^ (expected >> shift)) * factor % 2**64
    assert int(scramble(torch.tensor(number))) % 2**64 == expected


@pytest.mark.parametrize("generator", [None, torch.Generator().manual_seed(0)])
def test_valid_frames_are_drawn_evenly_and_each_once(generator):
    x, valid = torch.randn(30, 2), torch.arange(30) % 3 > 0
    draws = [draw_frames(x, valid, 5, step, generator=generator) for step in range(1000)]
    drawn = torch.stack([(frames_KX[:, None] == x).all(-1).sum(0) for frames_KX, _ in draws])
    assert drawn.amax() == 1
    assert (drawn.sum(1) == 5).all()
    assert (drawn.sum(0)[~valid] == 0).all()
    assert (drawn.sum(0)[valid] - 250).abs().max() < 5 * (1000 * 0.25 * 0.75) ** 0.5
    assert drawn[1:][(drawn[:-1] == 1)].float().mean() < 0.35  # whatever was drawn before


def test_no_more_frames_are_drawn_than_there_are():
    x = torch.randn(4, 2)
    drawn, are_frames = draw_frames(x, torch.tensor([True, False, True, True]), 6, 0)
    assert are_frames.tolist() == [True] * 3 + [False] * 3
    assert set(map(tuple, drawn[:3].tolist())) == set(map(tuple, x[[0, 2, 3]].tolist()))


@given(st.integers(0, 20), st.sampled_from([None, 1]))
def test_batches_that_are_drawn_one_after_the_other_are_drawn_as_one(cut, seed):
    x, valid = torch.randn(20, 2), torch.arange(20) % 3 > 0

    def keys(*parts):
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return [frame_keys(x[p], valid[p], 0, torch.tensor(0), generator) for p in parts]

    first, second = slice(0, cut), slice(cut, 20)
    first_keys, second_keys = keys(first, second)
    kept_keys, kept = with_highest_keys(first_keys, x[first], 5)
    kept_keys, kept = torch.cat([kept_keys, second_keys]), torch.cat([kept, x[second]])
    seen = with_highest_keys(kept_keys, kept, 5)
    expected = with_highest_keys(*keys(slice(0, 20)), x, 5)
    assert torch.equal(seen[0], expected[0]) and torch.equal(seen[1], expected[1])
