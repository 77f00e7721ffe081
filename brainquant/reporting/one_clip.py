"""The codes of one clip under its spectrogram, aligned in time.

Shape suffixes: T frames, G codebooks, F bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from markupsafe import Markup

from ..evaluation.frozen import HOP, log_mel_frames
from .assets import fill
from .code_tables import find_stretches
from .coded_speech import FULL_SCALE, Clip, CodedSpeech
from .pixels import picture
from .segments import Segment

BEST_SECONDS, MOST_SECONDS = 3.5, 5.0  # of the clip that is shown, and of its part
FRAME_PIXELS = 12  # of one code: its number fits upright
LEFT = 56  # pixels of the names of the rows
LETTER = 6.5  # pixels of a letter
RANGE = 60  # dB below the loudest band that are shown
BANDS = {"500 Hz": 500, "1 kHz": 1000, "2 kHz": 2000, "4 kHz": 4000}
HEIGHT, ROW, AXIS = 128, 34, 18  # pixels of the spectrogram, of a row, and of the times
CODEBOOKS = 4  # that are shown at most

Part = tuple[float, float, str]  # start and end in seconds, and its name


def choose_clip(clips: Sequence[Clip]) -> int:
    """The number of the clip that is shown: one with phones if possible, of a handy length."""
    return min(
        range(len(clips)),
        key=lambda n: (
            clips[n].phones_T is None,
            abs(clips[n].seconds - BEST_SECONDS),
            clips[n].id,
        ),
    )


def part_shown(clip: Clip, number: int) -> Segment:
    """The part of a clip that is shown, as a sound."""
    end = min(clip.seconds, MOST_SECONDS)
    return Segment(number, 0.0, end, 0.0, end)


def draw_clip(speech: CodedSpeech, clip: Clip, button: Markup) -> Markup:
    """Spectrogram, phones and codes of a clip in SVG, and the same in words.

    Arguments
    ---------
    speech : CodedSpeech
        The speech that it belongs to.
    clip : Clip
        The clip.
    button : Markup
        Plays it.

    Returns
    -------
    figure : Markup
    """
    seconds = min(clip.seconds, MOST_SECONDS)
    scale = FRAME_PIXELS / speech.frame_seconds  # pixels of a second
    rows = {"phones": list(clip.alignment)} if clip.alignment else {}
    for codebook in range(min(CODEBOOKS, speech.num_codebooks)):
        name = f"codes {codebook + 1}" if speech.num_codebooks > 1 else "codes"
        rows[name] = stretches_of(speech, clip, codebook)
    bottom = HEIGHT + ROW * len(rows)
    return fill(
        "clip.html",
        id=clip.id,
        caption=_caption(clip, seconds),
        button=button,
        width=LEFT + round(seconds * scale) + 1,
        height=bottom + AXIS,
        bottom=bottom,
        scale=round(scale, 3),
        left=LEFT,
        picture=_spectrogram(clip.sig, speech.sample_rate, seconds, scale),
        rows=[
            _row(name, parts, HEIGHT + ROW * number, seconds, scale)
            for number, (name, parts) in enumerate(rows.items())
        ],
        ticks=[
            (round(LEFT + tick * scale), f"{tick:g} s")
            for tick in np.arange(0, seconds - 10 / scale, 0.5).tolist()
        ],
        words=[
            f"{name}: " + ", ".join(f"{text} at {max(0, start):.2f} s" for start, _, text in parts)
            for name, parts in rows.items()
        ],
    )


def _caption(clip: Clip, seconds: float) -> str:
    speaker = f", speaker {clip.speaker}" if clip.speaker else ""
    return f"Clip {clip.id}{speaker}" + (f", its first {seconds:g} s" * (seconds < clip.seconds))


def stretches_of(speech: CodedSpeech, clip: Clip, codebook: int) -> list[Part]:
    """Start, end and code of each stretch of a clip."""
    found = find_stretches([clip.codes_TG[:, codebook]])
    return [
        (*speech.span(first, length), str(code))
        for code, first, length in zip(found.code, found.first, found.length)
    ]


def _spectrogram(sig: np.ndarray, sample_rate: int, seconds: float, scale: float) -> dict[str, Any]:
    """A picture of log-mel energies, low bands below, and the places of some frequencies."""
    samples = torch.from_numpy(sig[: round(seconds * sample_rate)].astype(np.float32) / FULL_SCALE)
    mel_TF = log_mel_frames(samples, sample_rate)
    strength_FT = ((mel_TF - mel_TF.max()) / RANGE + 1).clip(0, 1).T[::-1]
    top = _mel(sample_rate / 2)
    return {
        "uri": picture(strength_FT, bits=4),
        "x": round(LEFT - HOP / 2 * scale, 1),  # a frame is centred on its time
        "width": round(HOP * len(mel_TF) * scale, 1),
        "height": HEIGHT,
        "bands": [
            (round(HEIGHT * (1 - _mel(hertz) / top)) + 4, name)
            for name, hertz in BANDS.items()
            if hertz < sample_rate / 2
        ],
    }


def _mel(hertz: float) -> float:
    return float(np.log10(1 + hertz / 700))


def _row(
    name: str, parts: Sequence[Part], top: int, seconds: float, scale: float
) -> dict[str, Any]:
    """A row of named stretches: a name is upright if it is wider than its stretch."""
    outlines: tuple[list[str], list[str]] = [], []
    names = []
    for number, (start, end, text) in enumerate(parts):
        start, end = max(0.0, start), min(end, seconds)
        if end > start:
            x, width = LEFT + start * scale, (end - start) * scale
            high = ROW - 2
            outline = f"M{x:.1f} {-high // 2}h{width:.1f}v{high}h{-width:.1f}z"
            outlines[number % 2].append(outline)
            upright = LETTER * len(text[:6]) + 2 > width
            names.append((f"{x + width / 2:.1f}", upright, text[:6]))
    odd, even = map("".join, outlines)
    return {"name": name, "middle": top + ROW // 2, "odd": odd, "even": even, "names": names}
