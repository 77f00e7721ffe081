"""Segments of codes: inside the clip, long ones, of different speakers."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from brainquant.reporting.code_tables import find_stretches
from brainquant.reporting.segments import CONTEXT, LONGEST, choose_stretches, segment_of

SECONDS = st.floats(0.01, 5)


@given(SECONDS, st.floats(-0.1, 5), st.floats(0.001, 3))
@settings(max_examples=100, deadline=None)
def test_a_segment_is_inside_its_clip_and_has_all_the_context_that_there_is(clip, start, length):
    segment = segment_of(start, start + length, 0, clip)
    assert 0 <= segment.play_start <= segment.start <= segment.end <= segment.play_end <= clip
    assert segment.play_start == max(0.0, segment.start - CONTEXT)
    until = min(start + length, clip, segment.start + LONGEST)
    assert segment.play_end == min(clip, until + CONTEXT)


CLIPS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=15), min_size=1, max_size=6)


@given(CLIPS, st.integers(1, 6), st.data())
@settings(max_examples=100, deadline=None)
def test_stretches_come_from_as_many_speakers_as_there_are(clips, count, data):
    speakers = data.draw(st.lists(st.integers(0, 3), min_size=len(clips), max_size=len(clips)))
    stretches = find_stretches([np.array(clip) for clip in clips])
    chosen = choose_stretches(stretches, 1, speakers, count, long=3)
    (all_of_code,) = np.nonzero(stretches.code == 1)
    assert len(set(chosen)) == len(chosen) == min(count, len(all_of_code))
    assert set(chosen) <= set(all_of_code)
    having = {speakers[clip] for clip in stretches.clip[all_of_code]}
    heard = {speakers[clip] for clip in stretches.clip[chosen]}
    assert len(heard) == min(len(chosen), len(having))


def test_of_one_speaker_other_clips_come_first_and_within_them_the_long_middle():
    clips = [np.array(clip) for clip in ([1, 1, 1, 0, 1, 1, 0, 1, 0], [0, 1, 0], [1, 0])]
    stretches = find_stretches(clips)
    chosen = choose_stretches(stretches, 1, [0, 0, 0], 3, long=9)
    found = list(zip(stretches.clip[chosen], stretches.first[chosen]))
    # The first has the longest stretch within a clip; the stretch of three is at a border.
    assert found == [(0, 4), (1, 1), (2, 0)]
