"""ToySpeech: synthesised English, many speakers, exact phone times, nothing to download."""

import functools
import glob
import io
import itertools
import json
import os
import time
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import soundfile
from scipy.signal import firwin, resample_poly
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from ..alignments import HEADER, read_alignment
from ..prepare import to_csv, write_whole
from .espeak import SILENCE, Utterance, espeak_paths, synthesise_apart
from .script import SPLITS, Speaker, toy_sentences, toy_speakers

logger = get_logger(__name__)

SAMPLE_RATE = 16000
VERSION = 1  # of the files' content; raise it to have existing folders made again
COLUMNS = ("ID", "duration", "wav", "spk_id", "text")

Plan = list[tuple[Speaker, list[tuple[str, str]]]]  # for each speaker: IDs and texts


def prepare_toy_speech(
    data_folder: str | os.PathLike,
    train_minutes: float = 30,
    valid_minutes: float = 3,
    test_minutes: float = 3,
    seed: int = 1234,
    num_workers: int | None = None,
) -> None:
    """Makes the corpus ToySpeech: audio, phone alignments and SpeechBrain manifests.

    The same seed and sizes give the same bytes, whatever the number of workers. A larger size keeps
    the utterances of a smaller one. After an interruption, call it again: it continues. If
    everything is there, it returns at once.

    Arguments
    ---------
    data_folder : str or os.PathLike
        Where to write: `<split>.csv` with the columns ID, duration, wav, spk_id, text (paths begin
        with `$data_root`, for `replacements={"data_root": data_folder}`),
        `audio/<split>/<speaker>/<ID>.wav` (16 kHz, mono, 16 bit) and `phones/<split>/<ID>.tsv` (for
        `brainquant.data.alignments.read_alignment`).
    train_minutes, valid_minutes, test_minutes : float
        The approximate size of each split. Training has up to 48 speakers, the others up to 8 each.
    seed : int
        Another seed makes another corpus.
    num_workers : int or None
        The number of processes that synthesise. None: one per CPU.

    Raises
    ------
    ValueError
        If a size is not positive, or `data_folder` has manifests of another corpus.
    ImportError
        If something must be made and espeak-ng is missing.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> prepare_toy_speech(folder, train_minutes=0.1, valid_minutes=0.05, test_minutes=0.05)
    >>> header, first, *_ = (folder / "train.csv").read_text().splitlines()
    >>> header
    'ID,duration,wav,spk_id,text'
    >>> name, duration, *_ = first.split(",")
    >>> read_alignment(folder / "phones" / "train" / f"{name}.tsv")[-1][1] == float(duration)
    True
    """
    minutes = {"train": train_minutes, "valid": valid_minutes, "test": test_minutes}
    for split, value in minutes.items():
        if not 0 < value < float("inf"):
            raise ValueError(
                f"{split}_minutes must be positive, got {split}_minutes={value}; "
                "0.1 is enough for a test"
            )
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(
            f"seed must be a whole number from 0 up, got seed={seed!r}; set seed: 1234"
        )
    if num_workers is not None and num_workers < 1:
        raise ValueError(
            f"num_workers must be at least 1, got num_workers={num_workers}; null takes one per CPU"
        )
    folder = os.fspath(data_folder)
    settings = {"corpus": "ToySpeech", "version": VERSION, "seed": seed, "minutes": minutes}
    plans = {split: _plan(split, minutes[split], seed) for split in SPLITS}
    found = _read_settings(folder)
    if found == settings and _is_whole(folder, plans):
        logger.info("ToySpeech is ready in %s", folder)
        return
    espeak_paths()  # raises before anything changes

    began = time.monotonic()
    logger.info("Making %g minutes of ToySpeech in %s", sum(minutes.values()), folder)
    # Manifests mean that the corpus is complete: they are removed first and written last.
    for split in SPLITS:
        _remove(os.path.join(folder, f"{split}.csv"))
    same_corpus = found is not None and {**found, "minutes": minutes} == settings
    _remove_others(folder, plans if same_corpus else {})
    write_whole(os.path.join(folder, "toy_speech.json"), json.dumps(settings, indent=2) + "\n")

    jobs = [(split, speaker, todo) for split in SPLITS for speaker, todo in plans[split]]
    progress = tqdm(total=sum(len(todo) for *_, todo in jobs), unit="utterance", disable=None)
    pool = ThreadPoolExecutor(num_workers or os.cpu_count())
    try:
        work = functools.partial(_make_speaker, folder, seed, progress)
        for _ in pool.map(work, jobs):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
        progress.close()
    for split in SPLITS:
        write_whole(os.path.join(folder, f"{split}.csv"), _manifest(folder, split, plans[split]))
    logger.info("Made ToySpeech in %.0f s", time.monotonic() - began)


def _plan(split: str, minutes: float, seed: int) -> Plan:
    """The speakers of a split and their texts. More minutes add texts and change none."""
    speakers = toy_speakers(split, seed)
    plan: Plan = [(speaker, []) for speaker in speakers]
    seconds = 0.0
    for (speaker, todo), text in zip(itertools.cycle(plan), toy_sentences(split, seed)):
        if seconds >= 60 * minutes:
            break
        todo.append((f"{speaker['name']}-{len(todo):04d}", text))
        seconds += 0.5 + len(text) * 8.7 / speaker["voice"]["rate"]  # an estimate
    return [(speaker, todo) for speaker, todo in plan if todo]


def _make_speaker(
    folder: str, seed: int, progress: tqdm, job: tuple[str, Speaker, list[tuple[str, str]]]
) -> None:
    """Writes the utterances of one speaker that are missing."""
    split, speaker, todo = job
    paths = [_paths(folder, split, speaker["name"], name) for name, _ in todo]
    if any(_duration(*pair) is None for pair in paths):
        said = synthesise_apart([text + "." for _, text in todo], **speaker["voice"])
        for (name, _), pair, utterance in zip(todo, paths, said, strict=True):
            if _duration(*pair) is None:
                draw = np.random.default_rng([seed, zlib.crc32(name.encode())])
                _make_utterance(pair, utterance, speaker["level"], draw)
    progress.update(len(todo))


def _make_utterance(
    paths: tuple[str, str], utterance: Utterance, level: float, draw: np.random.Generator
) -> None:
    """Writes an utterance at 16 kHz, between silences, over a faint noise; and its phones."""
    samples, rate, phones = utterance
    before, after = (int(draw.uniform(0.1, 0.3) * SAMPLE_RATE) for _ in range(2))
    speech = _resample(samples.astype(np.float32), rate)
    speech *= 10 ** ((level + draw.uniform(-2, 2)) / 20) / np.sqrt(np.mean(speech**2))
    speech *= min(1.0, 0.9 / np.abs(speech).max())
    audio = 10 ** (-70 / 20) * draw.standard_normal(before + len(speech) + after, np.float32)
    audio[before : before + len(speech)] += speech

    ends = [(before, SILENCE)]
    ends += [(before + round(end * SAMPLE_RATE), phone) for _, end, phone in phones]
    lines, start = [], 0
    for (end, phone), (_, following) in itertools.pairwise([*ends, (len(audio), SILENCE), (0, "")]):
        if phone == following == SILENCE:  # one pause
            continue
        lines.append(f"{start / SAMPLE_RATE}\t{end / SAMPLE_RATE}\t{phone}")
        start = end
    wav = io.BytesIO()
    soundfile.write(wav, audio, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    wav_path, phones_path = paths
    write_whole(phones_path, "\n".join([HEADER, *lines, ""]))
    write_whole(wav_path, wav.getvalue())


def _resample(samples: np.ndarray, rate: int) -> np.ndarray:
    """Resamples to 16 kHz: flat up to 7 kHz, without aliasing."""
    divisor = np.gcd(SAMPLE_RATE, rate)
    up, down = SAMPLE_RATE // divisor, rate // divisor
    return resample_poly(samples, up, down, window=_lowpass(max(up, down)))


@functools.cache
def _lowpass(factor: int) -> np.ndarray:
    window: Any = ("kaiser", 8.0)
    return np.asarray(firwin(100 * factor + 1, 0.95 / factor, window=window), np.float32)


def _paths(folder: str, split: str, speaker: str, name: str) -> tuple[str, str]:
    return (
        os.path.join(folder, "audio", split, speaker, f"{name}.wav"),
        os.path.join(folder, "phones", split, f"{name}.tsv"),
    )


def _duration(wav_path: str, phones_path: str) -> float | None:
    """The seconds of an utterance, or None if its samples do not end where its phones end."""
    try:
        seconds = read_alignment(phones_path)[-1][1]
        size = os.path.getsize(wav_path)
    except (OSError, ValueError, IndexError):
        return None
    return seconds if size == 44 + 2 * round(seconds * SAMPLE_RATE) else None


def _is_whole(folder: str, plans: Mapping[str, Plan]) -> bool:
    """Whether the manifests and all utterances of the plans are there."""
    try:
        for split, plan in plans.items():
            with open(os.path.join(folder, f"{split}.csv"), encoding="utf-8", newline="") as file:
                if file.read() != _manifest(folder, split, plan):
                    return False
    except FileNotFoundError:
        return False
    return True


def _read_settings(folder: str) -> dict[str, Any] | None:
    """The settings that a folder was made with; None: a new folder; {}: they are damaged."""
    try:
        with open(os.path.join(folder, "toy_speech.json"), encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        if any(os.path.exists(os.path.join(folder, f"{split}.csv")) for split in SPLITS):
            raise ValueError(
                f"data_folder must be empty or made by ToySpeech, got data_folder={folder!r} "
                "with manifests of another corpus; choose another data_folder"
            ) from None
        return None
    except ValueError:
        return {}


def _manifest(folder: str, split: str, plan: Plan) -> str:
    """The text of a manifest; FileNotFoundError if an utterance is not whole."""
    rows: list[tuple[Any, ...]] = [COLUMNS]
    for speaker, todo in plan:
        for name, text in todo:
            seconds = _duration(*_paths(folder, split, speaker["name"], name))
            if seconds is None:
                raise FileNotFoundError(f"no whole utterance {name} in {folder}")
            wav = f"$data_root/audio/{split}/{speaker['name']}/{name}.wav"
            rows.append((name, seconds, wav, speaker["name"], text))
    return to_csv(rows)


def _remove(path: str) -> None:
    if os.path.exists(path):
        os.remove(path)


def _remove_others(folder: str, plans: Mapping[str, Plan]) -> None:
    """Removes utterances that are not in the plans, and unfinished files."""
    keep = {
        path
        for split, plan in plans.items()
        for speaker, todo in plan
        for name, _ in todo
        for path in _paths(folder, split, speaker["name"], name)
    }
    for pattern in ("audio/*/toy*/toy*.wav*", "phones/*/toy*.tsv*"):
        for path in glob.glob(os.path.join(glob.escape(folder), *pattern.split("/"))):
            if path not in keep:
                os.remove(path)
