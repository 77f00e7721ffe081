"""Sounds that a page plays: segments of clips as MP3, with what a reader sees of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import soundfile
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from .coded_speech import FULL_SCALE, Clip
from .segments import Segment

# About 40 kbit/s for speech at 16 kHz. With a variable bit rate LAME writes how many samples it has
# put before and after the sound, and decoders drop them. With a small constant one it does not.
COMPRESSION = {"compression_level": 0.9, "bitrate_mode": "VARIABLE"}
LOUDNESS = 0.9  # of the highest peak of a clip
FADE = 0.005  # seconds: a cut in the middle of speech would click
NUM_PEAKS = 48  # of the small waveform
LEVELS = "0123456789abcdefghijklmnopqrstuvwxyz"  # their heights


def to_mp3(sound: np.ndarray, sample_rate: int) -> bytes:
    """Encodes a sound as MP3.

    Arguments
    ---------
    sound : np.ndarray
        Floats from -1 to 1, shape (samples,).
    sample_rate : int
        Samples per second; one that MP3 knows.

    Returns
    -------
    mp3 : bytes

    Example
    -------
    >>> tone = np.sin(np.arange(8000) / 5) / 2
    >>> decoded, rate = soundfile.read(io.BytesIO(to_mp3(tone, 16000)))
    >>> len(decoded), rate, bool(np.abs(decoded - tone).max() < 0.1)
    (8000, 16000, True)
    """
    file = io.BytesIO()
    soundfile.write(file, sound, sample_rate, format="MP3", **COMPRESSION)
    return file.getvalue()


def can_be_heard(sample_rate: int) -> bool:
    """Whether this machine's libsndfile writes MP3 of a sample rate.

    Example
    -------
    >>> can_be_heard(16000), can_be_heard(10000)
    (True, False)
    """
    try:
        return bool(to_mp3(np.zeros(sample_rate // 10), sample_rate))
    except (soundfile.LibsndfileError, ValueError):
        return False


def cut_out(sig: np.ndarray, start: float, end: float, sample_rate: int) -> np.ndarray:
    """A part of a clip of 16 bits, as floats that begin and end softly."""
    first, last = round(start * sample_rate), round(end * sample_rate)
    sound = sig[first:last].astype(np.float32) * (LOUDNESS / FULL_SCALE)
    fade = min(len(sound) // 2, round(FADE * sample_rate))
    ramp = np.linspace(0, 1, fade, endpoint=False, dtype=np.float32)
    if fade and first > 0:
        sound[:fade] *= ramp
    if fade and last < len(sig):
        sound[-fade:] *= ramp[::-1]
    return sound


def draw_peaks(sound: np.ndarray) -> str:
    """The outline of a sound: for each of its parts how loud it gets, from "0" to "z".

    Example
    -------
    >>> draw_peaks(np.array([0.0, 1.0] * 48))[:4]
    'zzzz'
    """
    edges = np.linspace(0, len(sound), NUM_PEAKS + 1).astype(int)
    peaks = [float(np.abs(sound[a:b]).max(initial=0)) for a, b in zip(edges, edges[1:])]
    return "".join(LEVELS[round(min(1, peak) * (len(LEVELS) - 1))] for peak in peaks)


class Sounds:
    """The sounds of one run, which are in the page once, as data for its script.

    Arguments
    ---------
    anchor : str
        The ID of the data.
    sample_rate : int
        Of the clips.
    """

    def __init__(self, anchor: str, sample_rate: int) -> None:
        self.anchor = anchor
        self.sample_rate = sample_rate
        self.sounds: list[list[Any]] = []

    def add(self, clip: Clip, segment: Segment, *, phone: str = "") -> int:
        """Adds a segment of a clip with a waveform; returns its number."""
        sound = cut_out(clip.sig, segment.play_start, segment.play_end, self.sample_rate)
        text = f"clip {clip.id}, {segment.start:.2f} to {segment.end:.2f} s"
        text += f", speaker {clip.speaker}" if clip.speaker else ""
        text += f", phone {phone}" if phone else ""
        mp3 = base64.b64encode(to_mp3(sound, self.sample_rate)).decode()
        marks = [round(t - segment.play_start, 3) for t in (segment.start, segment.end)]
        seconds = round(len(sound) / self.sample_rate, 3)
        self.sounds.append([text, seconds, *marks, draw_peaks(sound), mp3])
        return len(self.sounds) - 1

    def data(self) -> Markup:
        """The sounds in HTML, where there are any."""
        if not self.sounds:
            return Markup()
        text = htmlsafe_json_dumps(self.sounds, separators=(",", ":"), ensure_ascii=False)
        return Markup('<script type="application/json" id="{}">{}</script>').format(
            self.anchor, text
        )


def play_button(sound: int, text: str, name: str) -> Markup:
    """A button that plays a sound; ``name`` is what a screen reader calls it."""
    return Markup('<button type="button" class="play" data-sound="{}" aria-label="{}">{}</button>'
    ).format(sound, name, text)  # fmt: skip


def segment_buttons(code: int, segments: Sequence[tuple[int, str]]) -> Markup:
    """The buttons of a code's segments, from the number of each sound and the ID of its clip."""
    return Markup("").join(
        play_button(sound, str(turn), f"Play segment {turn} of code {code}, clip {clip}")
        for turn, (sound, clip) in enumerate(segments, 1)
    )
