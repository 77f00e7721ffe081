"""What is heard: MP3 of the very segment, with what is shown of it."""

import base64
import io
import json
import re

import numpy as np
import pytest
import soundfile

from brainquant.reporting.coded_speech import FULL_SCALE, Clip
from brainquant.reporting.listening import FADE, LOUDNESS, Sounds, cut_out, to_mp3
from brainquant.reporting.segments import segment_of

RATE = 16000


@pytest.fixture(scope="module")
def speech():
    """Two seconds of a hoarse tone, of 16 bits."""
    time, draw = np.arange(2 * RATE) / RATE, np.random.default_rng(0)
    tone = np.sin(2 * np.pi * 180 * time) * np.sin(2 * np.pi * 3 * time)
    tone += 0.05 * draw.standard_normal(len(tone))
    return np.round(tone / np.abs(tone).max() * FULL_SCALE).astype(np.int16)


@pytest.mark.parametrize("seconds", [0.02, 0.05, 0.45, 0.8])
def test_mp3_decodes_to_the_same_samples_without_a_delay(speech, seconds):
    sound = cut_out(speech, 0.5, 0.5 + seconds, RATE)
    mp3 = to_mp3(sound, RATE)
    decoded, rate = soundfile.read(io.BytesIO(mp3), dtype="float32")
    assert rate == RATE and len(decoded) == len(sound)
    lags = np.correlate(decoded, sound, "full")
    assert abs(int(lags.argmax()) - (len(sound) - 1)) <= 1
    assert np.square(decoded - sound).mean() < 0.05 * np.square(sound).mean()
    # 200 codes with five segments stay below 5 MB as base64, with 150 kB for the rest
    assert len(mp3) * 4 / 3 < 4850 or seconds > 0.7


def test_a_cut_begins_and_ends_softly_but_the_ends_of_a_clip_stay(speech):
    fade = round(FADE * RATE)
    inner = cut_out(speech, 0.5, 1.0, RATE)
    assert inner[0] == 0 and len(inner) == RATE // 2
    whole = speech[RATE // 2 : RATE] * (LOUDNESS / FULL_SCALE)
    assert np.allclose(inner[fade:-fade], whole[fade:-fade], atol=1e-6)
    ends = cut_out(speech, 0.0, 2.0, RATE)
    assert np.allclose(ends, speech * (LOUDNESS / FULL_SCALE), atol=1e-6)
    assert len(cut_out(speech, 1.0, 1.0, RATE)) == 0


def test_the_data_of_sounds_says_where_they_are_from_and_cannot_leave_its_script(speech):
    name = "</script><script>alert('x')</script>"
    clip = Clip(name, "<b>Ann", 2.0, np.zeros((50, 1), int), speech)
    sounds = Sounds("sounds-1", RATE)
    assert sounds.add(clip, segment_of(0.1, 0.3, 0, 2.0), phone="<i>") == 0
    text = sounds.data()
    assert text.count("<script") == text.count("</script>") == 1
    ((said, seconds, start, end, peaks, mp3),) = json.loads(re.search(">(.*)<", text, re.S)[1])
    assert said == f"clip {name}, 0.10 to 0.30 s, speaker <b>Ann, phone <i>"
    assert (seconds, start, end) == (0.5, 0.1, 0.3)
    assert len(peaks) == 48 and max(peaks) > "g"
    assert len(soundfile.read(io.BytesIO(base64.b64decode(mp3)))[0]) == RATE // 2
