"""Utterances of a manifest, with one label each or with one label per frame."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from speechbrain.utils.logger import get_logger

from ..data.alignments import Phone, phones_at, read_alignment
from ..data.audio import AudioReader
from ..data.batches import LeftOutClip, ReadableClips
from ..data.manifests import load_dataset
from ..models import SpeechEncoder
from .progress import progress_bar

logger = get_logger(__name__)

NUM_SHOWN = 10  # utterances that a warning names
SPEAKER = "spk_id"  # the column of the speaker


@dataclass
class Utterance:
    """Audio and labels of an utterance: one label per encoder frame, or a single one."""

    id: str
    sig: torch.Tensor
    num_frames: int
    labels: np.ndarray
    alignment: list[Phone] = field(default_factory=list)
    speaker: str = ""


def load_utterances(
    manifest: str,
    data_folder: str,
    encoder: SpeechEncoder,
    *,
    label: str | None = None,
    alignments: dict[str, str] | None = None,
    speakers: bool = False,
    minutes: float | None = None,
    hidden: bool = False,
) -> tuple[list[Utterance], dict[str, str]]:
    """Utterances of a manifest in random order, the same whenever it is called.

    Arguments
    ---------
    manifest : str
        CSV or JSON file.
    data_folder : str
        What ``$data_root`` in the manifest stands for.
    encoder : SpeechEncoder
        Knows the sample rate, the frames of an utterance and their times.
    label : str or None
        Column of the manifest.
    alignments : dict or None
        Paths by ID, instead of a column.
    speakers : bool
        Whether the column ``spk_id`` is read, too.
    minutes : float or None
        Minutes of speech to read; None for all.
    hidden : bool
        Whether to draw no progress bar.

    Returns
    -------
    utterances : list of Utterance
    left_out : dict
        Why an utterance could not be used, by ID.

    Raises
    ------
    ValueError
        If the manifest is wrong, or no utterance is left.
    """
    if minutes is not None and minutes <= 0:
        raise ValueError(f"train_minutes must be more than 0, got {minutes}; null takes all speech")
    # A corpus with labels may have another rate than the training corpus.
    reader = AudioReader(encoder.sample_rate, resample=True, mix_down="mean")
    columns = [*([] if label is None else [label]), *([SPEAKER] if speakers else [])]
    dataset = ReadableClips(load_dataset(manifest, data_folder, reader=reader, columns=columns))
    utterances, left_out, seconds = [], {}, 0.0
    logger.info(f"Probe: reading {manifest}")
    order = np.random.default_rng(0).permutation(len(dataset))
    for index in progress_bar(hidden, order, "reading", " clips"):
        if minutes is not None and seconds >= 60 * minutes:
            break
        item = dataset[int(index)]
        utterance = _read(item, encoder, label, alignments, speakers)
        if isinstance(utterance, LeftOutClip):
            left_out[utterance.id] = utterance.reason
        else:
            utterances.append(utterance)
            seconds += item["duration"]
    if left_out:
        shown = "; ".join(f"{name}: {left_out[name]}" for name in list(left_out)[:NUM_SHOWN])
        more = "; ..." if len(left_out) > NUM_SHOWN else ""
        total = len(left_out) + len(utterances)
        counted = f"{len(left_out)} of {total} utterances left out: {shown}{more}"
        if not utterances:
            raise ValueError(f"{manifest}: {counted}; nothing is left to probe with")
        logger.warning(f"{manifest}: {counted}")
    return utterances, left_out


def _read(item, encoder, label, alignments, speakers):
    """An Utterance of a dataset's item, or a LeftOutClip that says why not."""
    if isinstance(item, LeftOutClip):
        return item
    name, sig = item["id"], item["sig"]
    num_frames = encoder.count_frames(len(sig))
    if num_frames < 1:
        return LeftOutClip(name, f"{len(sig)} samples are too short for a frame of the encoder")
    wanted = label or (SPEAKER if speakers else None)
    text = item[wanted].strip() if wanted else ""
    if wanted and not text:
        return LeftOutClip(name, f"has no {wanted}")
    if label is not None:
        return Utterance(name, sig, num_frames, np.array([text]))
    path = (alignments or {}).get(name)
    alignment = None if path is None else read_alignment(path)
    if not alignment:
        return LeftOutClip(
            name, "has no alignment" if alignment is None else "its alignment is empty"
        )
    phones = phones_at(encoder.frame_times(num_frames), alignment)
    return Utterance(name, sig, num_frames, phones, alignment, text)
