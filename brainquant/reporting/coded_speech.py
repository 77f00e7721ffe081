"""The codes that the quantiser of a run gives to the validation speech of the run.

Shape suffixes: B batch, L samples, T frames, G codebooks, V codes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from ..data.alignments import Phone, phones_at, read_alignment
from ..data.audio import AudioReader, BadAudio
from ..data.columns import PARTS
from ..data.manifests import read_manifest
from ..errors import RunError
from ..evaluation.utterances import SPEAKER
from ..extraction.reading import ReadAhead
from ..functional.precision import full_precision
from ..inference import PretrainedEncoder
from ..inference.loading import quantiser_of
from ..recipe import find_hparams, open_run, without_seeding

logger = get_logger(__name__)

MOST_SECONDS = 7200  # of speech that are encoded
BATCH_SECONDS = 50  # of a batch, with its padding
NUM_READERS = 2  # threads that read the next clips
FULL_SCALE = 32767
Rows = list[tuple[str, Mapping[str, Any]]]  # of a manifest, with their IDs


@dataclass
class Clip:
    """A clip with its codes."""

    id: str
    speaker: str  # "" if the manifest does not say it
    seconds: float
    codes_TG: np.ndarray
    sig: np.ndarray  # 16 bits, the highest peak is full scale
    phones_T: np.ndarray | None = None  # names, one for each frame; None without an alignment
    alignment: list[Phone] = field(default_factory=list)


@dataclass
class CodedSpeech:
    """The validation speech of a run, as codes."""

    clips: list[Clip]
    num_codebooks: int
    codebook_size: int
    sample_rate: int
    times: np.ndarray  # seconds at the middle of each frame of the longest clip
    frame_seconds: float
    step: int | None
    remarks: list[str]  # what was left out
    checkpoints: list[Any]  # those that the run has kept, the newest first

    @property
    def seconds(self) -> float:
        """Seconds of speech."""
        return sum(clip.seconds for clip in self.clips)

    def span(self, first: int, length: int) -> tuple[float, float]:
        """When some frames start and end, in seconds of a clip."""
        half = self.frame_seconds / 2
        return float(self.times[first] - half), float(self.times[first + length - 1] + half)


def code_speech(
    folder: str,
    *,
    device: str = "cpu",
    alignments: Mapping[str, str] | None = None,
) -> CodedSpeech:
    """Encodes the validation speech of a run with its newest whole checkpoint.

    Nothing in the folder changes, even if the run goes on or a checkpoint is damaged.

    Arguments
    ---------
    folder : str
        The ``output_folder`` of a run.
    device : str
        Where to encode.
    alignments : Mapping or None
        Paths of phone alignments by ID.

    Returns
    -------
    speech : CodedSpeech
        Of at most two hours; of a larger manifest it is a draw, the same each time.

    Raises
    ------
    ValueError
        If the run has no codes, no checkpoint or no speech, and why.
    """
    model, hparams, checkpoints = open_model(folder, device)
    manifest = hparams.get("valid_csv")
    if not manifest:
        raise ValueError("valid_csv: is null, so there is no speech to show codes of")
    rows, remarks = choose_rows(read_manifest(manifest, hparams["data_folder"]), hparams)
    reader = AudioReader(
        model.sample_rate, resample=hparams["resample"], mix_down=hparams["mix_down"]
    )
    clips, bad = [], 0
    for clip in _encode(model, rows, reader):
        if clip is None:
            bad += 1
        else:
            clips.append(clip)
    if not clips:
        raise ValueError(f"none of the {len(rows)} clips of {manifest} can be read and encoded")
    if bad:
        remarks.append(f"{bad} of {len(rows)} clips cannot be read or encoded; they are left out.")
    clips.sort(key=lambda clip: clip.id)
    times = model.frame_times(max(len(clip.codes_TG) for clip in clips))
    if alignments is not None:
        remarks += _add_phones(clips, alignments, times)
    return CodedSpeech(
        clips, model.num_codebooks, model.codebook_size, model.sample_rate, times,
        model.encoder.stride / model.sample_rate, model.step, remarks, checkpoints,
    )  # fmt: skip


def open_model(folder: str, device: str) -> tuple[PretrainedEncoder, dict[str, Any], list[Any]]:
    """The model of a run's newest whole checkpoint, hyperparameters, and the kept checkpoints.

    Raises
    ------
    ValueError
        If there is none, or if it has no quantiser.
    """
    path = find_hparams(folder)
    save = os.path.join(folder, "save")
    nothing = f"there is no whole checkpoint in {save}"
    if not os.path.isdir(save):
        raise ValueError(nothing)
    overrides = {"evaluate": None, **without_seeding(path)}
    brain, hparams = open_run(folder, device=device, overrides=overrides)
    quantiser = quantiser_of(brain)
    if quantiser is None:
        raise ValueError(
            f"it is a run of {type(brain).__name__}, whose encoder has no quantiser of its own"
        )
    checkpoints = brain.checkpointer.find_checkpoints()
    wrong = []
    for checkpoint in checkpoints:
        try:
            # Not recover_if_possible: it sets damaged ones aside, which is for the run to do.
            brain.checkpointer.load_checkpoint(checkpoint)
        except (RunError, OSError) as error:
            logger.warning(f"{error}")
            wrong.append(checkpoint)
            continue
        model = PretrainedEncoder(brain.raw("encoder"), quantiser, step=brain.optimizer_step)
        return model, hparams, [kept for kept in checkpoints if kept not in wrong]
    raise ValueError(nothing)


def choose_rows(
    rows: Mapping[str, Mapping[str, Any]], hparams: Mapping[str, Any]
) -> tuple[Rows, list[str]]:
    """The clips of a manifest that the run validates on, up to two hours, and what is left out."""
    shortest, longest = hparams["min_seconds"], hparams["max_seconds"]
    usable = [row for row in rows.items() if shortest <= row[1]["duration"] <= longest]
    if not usable:
        raise ValueError(f"no clip of valid_csv: is between {shortest:g} and {longest:g} s long")
    order = np.random.default_rng(0).permutation(len(usable))
    seconds = np.cumsum([usable[index][1]["duration"] for index in order])
    chosen = [usable[index] for index in order[: max(1, int((seconds <= MOST_SECONDS).sum()))]]
    if len(chosen) == len(usable):
        return chosen, []
    hours = seconds[-1] / 3600
    return chosen, [f"A draw of {MOST_SECONDS // 3600} h out of {hours:.1f} h is shown."]


def _encode(
    model: PretrainedEncoder, rows: Rows, reader: Callable[..., torch.Tensor]
) -> Iterator[Clip | None]:
    """The clips with their codes; None for one that cannot be used."""

    def read(row: Mapping[str, Any]) -> torch.Tensor | None:
        given = {part: row[part] for part in PARTS if row.get(part) is not None}
        try:
            return reader(row["wav"], row["duration"], **given)
        except BadAudio as error:
            logger.warning(str(error))
            return None

    batches = make_batches(rows)
    reading = ReadAhead(
        read, ([row for _, row in batch] for batch in batches), num_workers=NUM_READERS
    )
    shown = tqdm(zip(batches, reading), "codes", len(batches), leave=False, disable=None)
    for batch, sigs in shown:
        named = [(name, row, sig) for (name, row), sig in zip(batch, sigs) if sig is not None]
        yield from [None] * (len(batch) - len(named))
        if not named:
            continue
        codes = _codes_of(model, [sig for *_, sig in named])
        for (name, row, sig), codes_TG in zip(named, codes):
            if not len(codes_TG) or codes_TG.min() < 0:  # too short, or not finite
                yield None
                continue
            speaker, seconds = row.get(SPEAKER) or "", len(sig) / model.sample_rate
            yield Clip(name, speaker, seconds, codes_TG, _to_16_bits(sig))


def make_batches(rows: Rows) -> list[Rows]:
    """Batches of clips of similar lengths.

    Example
    -------
    >>> rows = [(name, {"duration": seconds}) for name, seconds in zip("abc", (60, 1, 20))]
    >>> [[name for name, _ in batch] for batch in make_batches(rows)]
    [['b', 'c'], ['a']]
    """
    batches: list[Rows] = []
    for row in sorted(rows, key=lambda row: row[1]["duration"]):
        if batches and (len(batches[-1]) + 1) * row[1]["duration"] <= BATCH_SECONDS:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


@torch.inference_mode()
def _codes_of(model: PretrainedEncoder, sigs: Sequence[torch.Tensor]) -> list[np.ndarray]:
    wavs_BL = torch.nn.utils.rnn.pad_sequence([*sigs], batch_first=True)
    with full_precision(model.device):
        codes_BTG, frames_B = model.codes(wavs_BL, torch.tensor([len(sig) for sig in sigs]))
    codes = codes_BTG.to(torch.int32).cpu().numpy()
    return [clip_TG[:frames].copy() for clip_TG, frames in zip(codes, frames_B.tolist())]


def _to_16_bits(sig: torch.Tensor) -> np.ndarray:
    peak = float(sig.abs().max()) or 1.0
    return (sig * (FULL_SCALE / peak)).round().to(torch.int16).numpy()


def _add_phones(
    clips: Sequence[Clip], alignments: Mapping[str, str], times: np.ndarray
) -> list[str]:
    """Gives clips their phones, and says how many have none."""
    remarks, wrong = [], []
    for clip in clips:
        if (path := alignments.get(clip.id)) is None:
            continue
        try:
            clip.alignment = read_alignment(path)
        except (ValueError, OSError) as error:
            wrong.append(str(error))
            continue
        if clip.alignment:
            clip.phones_T = phones_at(times[: len(clip.codes_TG)], clip.alignment)
    aligned = sum(clip.phones_T is not None for clip in clips)
    if aligned < len(clips):
        known = f"{aligned:,}" if aligned else "none"
        remarks.append(f"Phones are known of {known} of its {len(clips):,} clips.")
    if wrong:
        remarks.append(f"{len(wrong):,} of the alignments cannot be read; the first: {wrong[0]}")
    return remarks
