"""Which frames are hidden from the encoder."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from brainquant.masking import lengths_to_mask, span_mask, stack_mask


def draw(lengths, ratio, span, *, align=1, seed=0, num_frames=None):
    generator = torch.Generator().manual_seed(seed)
    num_frames = num_frames or max(*lengths, 1)
    lengths_B = torch.tensor(lengths)
    return span_mask(lengths_B, num_frames, ratio, span, align=align, generator=generator)


def runs(row):
    """Start and length of each run of masked frames."""
    found, start = [], None
    for frame, masked in enumerate([*row.tolist(), False]):
        if masked and start is None:
            start = frame
        elif not masked and start is not None:
            found.append((start, frame - start))
            start = None
    return found


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=4),
    st.floats(0.01, 0.99),
    st.integers(1, 12),
    st.integers(1, 5),
    st.integers(0, 2**31),
    st.integers(0, 7),
)
def test_spans_are_whole_aligned_apart_and_inside(lengths, ratio, span, align, seed, padding):
    num_frames = max(lengths) + padding
    mask_BT = draw(lengths, ratio, span, align=align, seed=seed, num_frames=num_frames or 1)
    for length, row in zip(lengths, mask_BT, strict=True):
        assert not row[length:].any()
        assert row.sum() % span == 0
        room = 1 + (length - span) // (-(-span // align) * align) if length >= span else 0
        assert row.sum() <= span * min(room, int(ratio * length / span) + 1)
        for start, frames in runs(row):
            assert start % align == 0
            assert frames % span == 0  # spans that touch make one run
            assert frames == span or span % align == 0


@pytest.mark.parametrize("length", [12, 15, 27, 200, 3000])
@pytest.mark.parametrize("span, align", [(10, 1), (4, 4), (3, 2)])
def test_the_expected_ratio_is_the_one_asked_for_at_any_length(length, span, align):
    draws = 2000 if length < 100 else 200
    mask_BT = draw([length] * draws, 0.4, span, align=align, num_frames=3000)
    shares_B = mask_BT.sum(1) / length
    error = 4 * float(shares_B.std()) / draws**0.5 + 1e-4
    assert abs(float(shares_B.mean()) - 0.4) < error < 0.05


def test_short_and_long_clips_of_a_batch_both_get_their_ratio():
    mask_BT = draw([200, 3000], 0.49, 10)
    assert mask_BT[0].sum() in (90, 100) and mask_BT[1].sum() == 1470
    assert mask_BT[1, 200:].float().mean() > 0.4


def test_an_utterance_shorter_than_a_span_is_not_masked():
    assert draw([9, 10, 0], 0.9, 10).sum(1).tolist()[::2] == [0, 0]


def test_utterances_have_different_masks_and_a_seed_gives_them_again(untouched_global_rng):
    with untouched_global_rng():
        mask_BT = draw([100] * 20, 0.5, 4)
    assert len({tuple(row.tolist()) for row in mask_BT}) == 20
    assert torch.equal(draw([100] * 20, 0.5, 4), mask_BT)
    assert not torch.equal(draw([100] * 20, 0.5, 4, seed=1), mask_BT)


@pytest.mark.parametrize("align, arrangements", [(1, 10), (2, 3)])
def test_every_arrangement_of_spans_is_equally_likely(align, arrangements):
    # Two spans of 2 in 7 frames leave 3 free: 5 over 2 ways, or 3 over 2 where they are aligned.
    mask_BT = draw([7] * 6000, 4 / 7, 2, align=align)
    counts = Counter(tuple(row.tolist()) for row in mask_BT if row.sum() == 4)
    total = counts.total()
    expected = total / arrangements
    assert total > 5900 and len(counts) == arrangements
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi_square < 28  # 1 of 1000 for 9 degrees of freedom


def test_stacks_are_masked_only_whole():
    row = torch.tensor([[1, 1, 1, 0, 0, 1, 1, 1]]).bool()
    assert stack_mask(row, 2).tolist() == [[True, False, False, True]]
    assert stack_mask(row, 1).equal(row)


def test_lengths_to_mask_is_true_inside():
    expected = [[frame < length for frame in range(5)] for length in (0, 2, 5)]
    assert lengths_to_mask(torch.tensor([0, 2, 5]), 5).tolist() == expected
