"""Utterances with a label of their own, or with one for each frame, out of a manifest."""

from dataclasses import dataclass

import numpy as np
import torch
from speechbrain.utils.logger import get_logger

from ..data.alignments import phones_at, read_alignment
from ..data.audio import AudioReader
from ..data.batches import LeftOutClip, ReadableClips
from ..data.manifests import load_dataset
from .progress import progress_bar

logger = get_logger(__name__)

NUM_SHOWN = 10  # of those that are left out


@dataclass
class Utterance:
    """What is read of an utterance: ``labels`` has one for each encoder frame, or a single one."""

    id: str
    sig: torch.Tensor
    num_frames: int
    labels: np.ndarray


def load_utterances(manifest, data_folder, brain, *, label=None, alignments=None, minutes=None):
    """Utterances of a manifest in random order, the same whenever it is called.

    Arguments
    ---------
    manifest : str
        CSV or JSON file.
    data_folder : str
        What ``$data_root`` in the manifest stands for.
    brain : PretrainBrain
        Tells sample rate, frames of an utterance and their times.
    label : str or None
        Column of the manifest.
    alignments : dict or None
        Paths by ID, in the place of a column.
    minutes : float or None
        Speech after which it ends; None for all.

    Returns
    -------
    utterances : list of Utterance
    left_out : dict
        By ID: why the utterance could not be used.

    Raises
    ------
    ValueError
        Where the manifest is not right, or no utterance is left.
    """
    if minutes is not None and minutes <= 0:
        raise ValueError(f"train_minutes must be more than 0, got {minutes}; null takes all speech")
    # A corpus with labels need not have the rate of the one that was trained on.
    reader = AudioReader(brain.hparams.sample_rate, resample=True, mix_down="mean")
    columns = () if label is None else (label,)
    dataset = ReadableClips(load_dataset(manifest, data_folder, reader=reader, columns=columns))
    utterances, left_out, seconds = [], {}, 0.0
    logger.info(f"Probe: reading {manifest}")
    order = np.random.default_rng(0).permutation(len(dataset))
    for index in progress_bar(brain, order, "reading", " clips"):
        if minutes is not None and seconds >= 60 * minutes:
            break
        item = dataset[int(index)]
        utterance = _read(item, brain, label, alignments)
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


def _read(item, brain, label, alignments):
    """An Utterance of a dataset's item, or a LeftOutClip that says why not."""
    if isinstance(item, LeftOutClip):
        return item
    name, sig = item["id"], item["sig"]
    num_frames = brain.count_frames(len(sig))
    if num_frames < 1:
        return LeftOutClip(name, f"{len(sig)} samples are too short for a frame of the encoder")
    if label is not None:
        text = item[label].strip()
        if not text:
            return LeftOutClip(name, f"has no {label}")
        return Utterance(name, sig, num_frames, np.array([text]))
    alignment = read_alignment(alignments[name]) if name in alignments else None
    if not alignment:
        return LeftOutClip(
            name, "has no alignment" if alignment is None else "its alignment is empty"
        )
    return Utterance(name, sig, num_frames, phones_at(brain.frame_times(num_frames), alignment))
