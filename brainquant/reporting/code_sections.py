"""The sections of a page about the codes of runs: what they are, and how they sound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup
from speechbrain.utils.logger import get_logger

from ..monitoring.page import PageSection
from . import one_clip
from .assets import text_of
from .codebook_view import CodebookView
from .coded_speech import CodedSpeech, code_speech
from .listening import Sounds, can_be_heard, play_button
from .phones import measures_table
from .usage import read_periods

logger = get_logger(__name__)

MOST_CODES, LEAST_CODES = 200, 40  # of all runs that have a row, and of each run anyway
MOST_CODEBOOKS = 4  # of a run that are shown


def code_sections(
    runs: Sequence[tuple[str, str]],
    *,
    device: str = "cpu",
    audio: int = 5,
    alignments: Mapping[str, str] | None = None,
) -> list[PageSection]:
    """A section about the codes of each run; a run that has none to show gets one line.

    Arguments
    ---------
    runs : sequence of (str, str)
        Name and folder of each run.
    device : str
        Where speech is encoded.
    audio : int
        Segments to hear of each code; 0 for none.
    alignments : Mapping or None
        Paths of phone alignments by ID.

    Returns
    -------
    sections : list of PageSection
    """
    script, style = text_of("codes.js"), text_of("codes.css")
    sections, most = [], max(LEAST_CODES, MOST_CODES // max(1, len(runs)))
    for number, (name, folder) in enumerate(runs, 1):
        anchor, title = f"codes-{number}", f"Codes of {name}" if len(runs) > 1 else "Codes"
        try:
            speech = code_speech(folder, device=device, alignments=alignments)
            body = describe_codes(speech, most=most, audio=audio, anchor=f"sounds-{number}")
        except Exception as error:  # a YAML may build anything; the rest of the page is wanted
            reason = " ".join(str(error).split()) or type(error).__name__
            logger.warning(f"{folder}: its codes cannot be shown: {reason}")
            body = Markup("<p>No codes can be shown: {}.</p>").format(reason.rstrip("."))
        sections.append(PageSection(anchor, title, body, script, style))
    return sections


def describe_codes(speech: CodedSpeech, *, most: int, audio: int, anchor: str) -> Markup:
    """All about the codes of one run.

    Arguments
    ---------
    speech : CodedSpeech
        Its validation speech.
    most : int
        Codes that have a row of a table at most.
    audio : int
        Segments to hear of each code; 0 for none.
    anchor : str
        The ID of the sounds.

    Returns
    -------
    body : Markup
    """
    if audio and not can_be_heard(speech.sample_rate):
        speech.remarks.append(
            f"There are no sounds: libsndfile writes no MP3 at {speech.sample_rate} Hz here."
        )
        audio = 0
    sounds = Sounds(anchor, speech.sample_rate)
    phones = sorted({p for c in speech.clips if c.phones_T is not None for p in {*c.phones_T}})
    shown = range(min(MOST_CODEBOOKS, speech.num_codebooks))
    periods = read_periods(speech.checkpoints, (speech.num_codebooks, speech.codebook_size))
    parts = [_summary(speech), _one_clip(speech, sounds, audio > 0)]
    if phones:
        parts.append(
            Markup("<h3>What the codes know of phones</h3>") + measures_table(speech.clips)
        )
    of_codebooks = [
        CodebookView(speech, codebook, phones).describe(periods, sounds, audio, most // len(shown))
        for codebook in shown
    ]
    if speech.num_codebooks == 1:
        parts += of_codebooks
    else:
        if len(shown) < speech.num_codebooks:
            text = f"The first {len(shown)} of {speech.num_codebooks} codebooks are shown."
            parts.append(Markup("<p>{}</p>").format(text))
        for codebook, body in zip(shown, of_codebooks):
            parts.append(
                Markup("<details{}><summary>Codebook {} of {}</summary>{}</details>").format(
                    "" if codebook else Markup(" open"), codebook + 1, speech.num_codebooks, body
                )
            )
    return Markup('<div class="codes" data-sounds="{}">{}{}</div>').format(
        anchor, Markup("").join(parts), sounds.data()
    )


def _summary(speech: CodedSpeech) -> Markup:
    """What was encoded, and what was left out."""
    frames = sum(len(clip.codes_TG) for clip in speech.clips)
    speakers = {clip.speaker for clip in speech.clips} - {""}
    books = f"{speech.num_codebooks} codebooks of " if speech.num_codebooks > 1 else ""
    of_speakers = f" of {len(speakers):,} speakers" if speakers else ""
    minutes = speech.seconds / 60
    length = f"{minutes:.1f} min" if minutes >= 2 else f"{speech.seconds:.1f} s"
    text = (
        f"The quantiser of step {speech.step:,} on validation speech: {books}"
        f"{speech.codebook_size:,} codes, {len(speech.clips):,} clips{of_speakers}, "
        f"{length}, {frames:,} frames of {1000 * speech.frame_seconds:g} ms."
    )
    return Markup("<p>{}</p>").format(text) + Markup("").join(
        Markup("<p>{}</p>").format(remark) for remark in speech.remarks
    )


def _one_clip(speech: CodedSpeech, sounds: Sounds, with_sound: bool) -> Markup:
    number = one_clip.choose_clip(speech.clips)
    clip, button = speech.clips[number], Markup()
    if with_sound:
        sound = sounds.add(clip, one_clip.part_shown(clip, number))
        button = play_button(sound, "Play the clip", f"Play clip {clip.id}")
    return one_clip.draw_clip(speech, clip, button)
