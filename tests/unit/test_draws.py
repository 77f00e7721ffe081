"""Frames that are drawn by their hashes; that ranks draw alike is in test_vector_ranks.py."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from brainquant.functional.draws import draw_frames, scramble


@given(st.integers(-(2**63), 2**63 - 1))
def test_the_hash_is_that_of_splitmix64(number):
    expected = number % 2**64
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        expected = (expected ^ (expected >> shift)) * factor % 2**64
    assert int(scramble(torch.tensor(number))) % 2**64 == expected


def test_valid_frames_are_drawn_evenly_and_each_once():
    x, valid = torch.randn(30, 2), torch.arange(30) % 3 > 0
    draws = [draw_frames(x, valid, 5, 0, torch.tensor(step)) for step in range(1000)]
    drawn = torch.stack([(frames_KX[:, None] == x).all(-1).sum(0) for frames_KX, _ in draws])
    assert drawn.amax() == 1
    assert (drawn.sum(1) == 5).all()
    assert (drawn.sum(0)[~valid] == 0).all()
    assert (drawn.sum(0)[valid] - 250).abs().max() < 5 * (1000 * 0.25 * 0.75) ** 0.5
    assert drawn[1:][(drawn[:-1] == 1)].float().mean() < 0.35  # whatever was drawn before


def test_no_more_frames_are_drawn_than_there_are():
    x = torch.randn(4, 2)
    drawn, are_frames = draw_frames(
        x, torch.tensor([True, False, True, True]), 6, 0, torch.tensor(0)
    )
    assert are_frames.tolist() == [True] * 3 + [False] * 3
    assert set(map(tuple, drawn[:3].tolist())) == set(map(tuple, x[[0, 2, 3]].tolist()))
