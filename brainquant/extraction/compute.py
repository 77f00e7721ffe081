"""Computes the parts of one share: reads clips in the background, and encodes batch by batch."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from ..data.audio import AudioReader, BadAudio
from ..functional.precision import full_precision
from ..inference import PretrainedEncoder
from ..inference.long_audio import WHOLE_SECONDS
from .clips import Clip
from .job import Job
from .parts import Parts
from .plan import Plan
from .reading import ReadAhead
from .results import Results
from .shares import Share

Read = torch.Tensor | Path | str  # the waveform of a clip, a long file, or why it cannot be read
OfClip = tuple[int, dict[str, np.ndarray]]  # the frames of a clip, and its array for each output


@contextlib.contextmanager
def one_thread() -> Iterator[int]:
    """Computes with one thread, and gives the number of threads before.

    The sums of a matrix product are rounded in another way with another number of threads. And
    processes with one thread each are faster than one process with several.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


class Timing(NamedTuple):
    """How long a share took."""

    speech: float = 0.0  # seconds of speech
    elapsed: float = 0.0  # seconds
    waited: float = 0.0  # seconds of these in which nothing was read yet


def work(job: Job, plan: Plan, share: Share, encoder: PretrainedEncoder | None = None) -> Timing:
    """Computes what is missing of a share, and writes each part into the work folder.

    Arguments
    ---------
    job : Job
        What to encode, and how.
    plan : Plan
        Batches and parts; part k belongs to share k modulo the number of shares.
    share : Share
        The share of this process. The first one shows a progress bar for all.
    encoder : PretrainedEncoder or None
        None: loads it.

    Returns
    -------
    timing : Timing
        Without the time to load the model.
    """
    parts = Parts(job.output)
    missing = parts.missing(len(plan.parts))
    mine = [part for part in missing if part % share.ranks == share.rank]
    if not mine:
        return Timing()
    with one_thread(), contextlib.ExitStack() as until_end:
        encoder = encoder or job.open_model()
        reader = AudioReader(encoder.sample_rate, resample=True, mix_down="mean")
        reading = ReadAhead(
            lambda number: read_unless_long(reader, plan.clips[number]),
            (plan.batches[batch] for part in mine for batch in plan.parts[part]),
            num_workers=job.num_workers,
        )
        total = plan.seconds_of(range(len(plan.parts)))
        bar = until_end.enter_context(
            tqdm(
                total=round(total),
                initial=round(total - plan.seconds_of(missing)),
                unit=" s of speech",
                dynamic_ncols=True,
                disable=True if share.rank else None,  # None: on a terminal only
            )
        )
        batches = until_end.enter_context(contextlib.closing(iter(reading)))
        began = time.perf_counter()
        for part in mine:
            if not parts.exist():  # the others have done this share, too
                break
            _compute_part(job.results, encoder, plan, part, batches, parts)
            if not bar.disable:
                done = total - plan.seconds_of(parts.missing(len(plan.parts)))
                bar.update(round(done) - bar.n)
        return Timing(plan.seconds_of(mine), time.perf_counter() - began, reading.waited)


def read_clip(reader: AudioReader, clip: Clip) -> torch.Tensor | str:
    """The waveform of a clip, or why it cannot be read."""
    try:
        return reader(
            clip.path, clip.seconds, start=clip.start, stop=clip.stop, channel=clip.channel
        )
    except BadAudio as error:
        return _reason(error, clip)


def read_unless_long(reader: AudioReader, clip: Clip) -> Read:
    """A whole file that is encoded in windows is also read in windows."""
    if clip.seconds > WHOLE_SECONDS and clip.start is None and clip.channel is None:
        return Path(clip.path)
    return read_clip(reader, clip)


def _reason(error: BadAudio, clip: Clip) -> str:
    return str(error).removeprefix(f"{clip.path}: ")


def _compute_part(
    results: Results,
    encoder: PretrainedEncoder,
    plan: Plan,
    part: int,
    batches: Iterator[list[Read]],
    parts: Parts,
) -> None:
    arrays: dict[int, dict[str, np.ndarray]] = {}
    frames: dict[int, int] = {}
    left_out: dict[int, str] = {}
    for batch in plan.parts[part]:
        numbers = plan.batches[batch]
        found = encode_batch(results, encoder, [plan.clips[n] for n in numbers], next(batches))
        for number, of_clip in zip(numbers, found, strict=True):
            if isinstance(of_clip, str):
                left_out[number] = of_clip
            else:
                frames[number], arrays[number] = of_clip
    parts.write(part, arrays, frames, left_out)


@torch.inference_mode()
def encode_batch(
    results: Results, encoder: PretrainedEncoder, clips: Sequence[Clip], read: Sequence[Read]
) -> list[OfClip | str]:
    """Encodes the clips of a batch that could be read.

    Arguments
    ---------
    results : Results
        What to compute.
    encoder : PretrainedEncoder
        The model.
    clips : sequence of Clip
        The batch. A clip longer than 30 s is alone, and encoded in windows.
    read : sequence
        For each its waveform, the path of a long file, or why it cannot be read.

    Returns
    -------
    found : list
        For each clip its frames and its arrays by output; or why it has none.
    """
    with full_precision(encoder.device):
        frames, outputs, read = _encode(results, encoder, clips, read)
    encoded = zip(frames, *outputs.values(), strict=True)
    found: list[OfClip | str] = []
    for waveform in read:
        if isinstance(waveform, str):
            found.append(waveform)
            continue
        length, *arrays = next(encoded)
        if not length:
            found.append("is too short for a frame")
        elif not all(map(_is_sound, arrays)):
            found.append("gives values that are not finite, or too large for --half")
        else:
            found.append((length, dict(zip(outputs, arrays))))
    return found


def _encode(
    results: Results, encoder: PretrainedEncoder, clips: Sequence[Clip], read: Sequence[Read]
) -> tuple[list[int], dict[str, list[np.ndarray]], Sequence[Read]]:
    """Frames and arrays of the clips that can be read; and ``read``, as it is known then."""
    first = read[0]
    if clips[0].seconds > WHOLE_SECONDS and not isinstance(first, str):
        try:
            return *results.of_long(encoder, first), read
        except BadAudio as error:  # a long file is read only now
            return [], {}, [_reason(error, clips[0])]
    sigs = [sig for sig in read if isinstance(sig, torch.Tensor)]
    if not sigs:
        return [], {}, read
    wavs_BL = torch.nn.utils.rnn.pad_sequence(sigs, batch_first=True)
    lengths_B = torch.tensor([len(sig) for sig in sigs])
    return *results.of_batch(encoder, wavs_BL, lengths_B), read


def _is_sound(array: np.ndarray) -> bool:
    """Whether features are finite, or codes are codes."""
    return bool((np.isfinite(array) if array.dtype.kind == "f" else array >= 0).all())
