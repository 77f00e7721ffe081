"""Code tables: counts against a plain loop over frames."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from brainquant.reporting.code_tables import (
    UNKNOWN,
    find_stretches,
    order_by_phone,
    tabulate,
)

NUM_CODES, NUM_PHONES = 4, 3
CLIPS = st.lists(
    st.lists(
        st.tuples(st.integers(0, NUM_CODES - 1), st.integers(UNKNOWN, NUM_PHONES - 1)), max_size=12
    ),
    max_size=5,
)


def arrays(clips):
    codes = [np.array([code for code, _ in clip], dtype=int) for clip in clips]
    return codes, [np.array([phone for _, phone in clip], dtype=int) for clip in clips]


@given(CLIPS)
@settings(max_examples=60, deadline=None)
def test_stretches_make_the_clips_again(clips):
    codes, _ = arrays(clips)
    stretches = find_stretches(codes)
    again = [np.zeros(0, int) for _ in clips]
    for code, clip, first, length, at_border in zip(*stretches):
        assert first == len(again[clip])
        assert not len(again[clip]) or again[clip][-1] != code
        assert at_border == (first == 0 or first + length == len(codes[clip]))
        again[clip] = np.append(again[clip], [code] * length)
    assert all(map(np.array_equal, again, codes))


@given(CLIPS, st.data())
@settings(max_examples=60, deadline=None)
def test_a_table_counts_as_a_loop_does(clips, data):
    speakers = data.draw(st.lists(st.integers(0, 2), min_size=len(clips), max_size=len(clips)))
    codes, phones = arrays(clips)
    table = tabulate(
        find_stretches(codes), speakers, NUM_CODES, phones=phones, num_phones=NUM_PHONES
    )
    for code in range(NUM_CODES):
        frames = [(n, phone) for n, clip in enumerate(clips) for c, phone in clip if c == code]
        assert table.frames_V[code] == len(frames)
        assert table.speakers_V[code] == len({speakers[n] for n, _ in frames})
        for phone in range(NUM_PHONES):
            assert table.frames_VP[code, phone] == sum(p == phone for _, p in frames)
        starts = sum(
            t == 0 or clip[t - 1][0] != code
            for clip in clips for t in range(len(clip)) if clip[t][0] == code
        )  # fmt: skip
        assert table.stretches_V[code] == starts
    used = table.order.tolist()
    assert sorted(used) == [c for c in range(NUM_CODES) if table.frames_V[c]]
    assert all(table.frames_V[a] >= table.frames_V[b] for a, b in zip(used, used[1:]))


@given(CLIPS)
@settings(max_examples=30, deadline=None)
def test_codes_in_the_order_of_their_phones_make_a_diagonal(clips):
    codes, phones = arrays(clips)
    table = tabulate(
        find_stretches(codes), [0] * len(clips), NUM_CODES, phones=phones, num_phones=NUM_PHONES
    )
    order, by_frames = order_by_phone(table)
    assert sorted(by_frames) == list(range(NUM_PHONES))
    best = table.frames_VP[order][:, by_frames].argmax(1)
    assert (np.diff(best) >= 0).all()
    assert set(order) == {c for c in range(NUM_CODES) if table.frames_VP[c].sum()}
