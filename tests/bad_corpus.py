"""A corpus with bad clips of every kind, and with usable clips that only look bad."""

import contextlib
import csv
import json
import math
import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch

from brainquant.errors import RunError

RATE = 16000
# The reason for each kind of bad clip, as a regular expression
BAD = {
    "missing": "cannot be read",
    "text": "cannot be read",
    "zero_bytes": "cannot be read",
    "header_only": "has no samples",
    "cut_wav": "lasts 1.* s where the manifest says 3 s",
    "cut_flac": "ends at sample .* where its header says",
    "nan": "has samples that are NaN or infinite",
    "infinite": "has samples that are NaN or infinite",
    "other_rate": "has 8000 samples per second, not 16000",
    "two_channels": "has 2 channels, not one",
    "longer": "lasts 3 s where the manifest says 2 s",
    "shorter": "lasts 3 s where the manifest says 4 s",
}
USABLE = {"other_rate", "two_channels"}  # if the YAML allows them
FINE = ["silence", "offset", "clipped", "beyond_full_scale"]
SHORT = "five_ms"
BAD_IN_VALID = ["text", "nan"]


class BadCorpus(NamedTuple):
    """A corpus with bad clips, and the results that a run should have."""

    folder: Path
    bad: dict  # regular expressions of the reasons by ID, in train and valid
    good: set  # IDs of train

    def remove_missing(self):
        """Removes the missing file, after all ranks have checked the manifest."""
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        with contextlib.suppress(FileNotFoundError):  # another rank was faster
            os.remove(self.folder / "bad" / "missing.wav")


def make_bad_corpus(corpus, folder, bad=tuple(BAD), bad_in_valid=tuple(BAD_IN_VALID)):
    """Adds clips to a copy of a corpus.

    Arguments
    ---------
    corpus, folder : pathlib.Path
        ToySpeech, and the path of the copy.
    bad, bad_in_valid : sequence of str
        The kinds of ``BAD`` to add to train and to valid.
    """
    shutil.copytree(corpus, folder)
    (folder / "bad").mkdir()
    write_clips(folder / "bad")
    durations = {"longer": 2.0, "shorter": 4.0, SHORT: 0.005}

    def rows(kinds, prefix=""):
        for kind in kinds:
            name = "cut_flac.flac" if kind == "cut_flac" else f"{kind}.wav"
            yield [f"{prefix}{kind}", durations.get(kind, 3.0), f"$data_root/bad/{name}"]

    with open(folder / "train.csv", newline="", encoding="utf-8") as file:
        good = {row["ID"] for row in csv.DictReader(file)} | set(FINE)
    for manifest, more in (
        ("train.csv", [*rows(bad), *rows([*FINE, SHORT])]),
        ("valid.csv", [*rows(bad_in_valid, "valid_"), *rows([SHORT], "valid_")]),
    ):
        with open(folder / manifest, "a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([*row, "nobody", "nothing"] for row in more)
    reasons = {kind: BAD[kind] for kind in bad}
    reasons.update({f"valid_{kind}": BAD[kind] for kind in bad_in_valid})
    return BadCorpus(folder, reasons, good)


def write_clips(folder):
    """Writes a file of each kind. All have three seconds, except the short one."""
    noise = np.random.default_rng(0).normal(size=3 * RATE) * 0.1
    spoilt, infinite = noise.copy(), noise.copy()
    spoilt[RATE : RATE + 10], infinite[-1] = np.nan, np.inf
    for name, samples in {
        "nan": spoilt,
        "infinite": infinite,
        "silence": 0 * noise,
        "offset": noise + 0.5,
        "clipped": (100 * noise).clip(-1, 1),
        "beyond_full_scale": 50 * noise,
        "missing": noise,
        "longer": noise,
        "shorter": noise,
        "two_channels": np.stack([noise, -noise / 2], 1),
        "header_only": noise[:0],
        "five_ms": noise[: RATE // 200],
        "cut_wav": noise,
    }.items():
        soundfile.write(folder / f"{name}.wav", samples, RATE, subtype="FLOAT")
    soundfile.write(folder / "other_rate.wav", noise[::2], RATE // 2)
    soundfile.write(folder / "cut_flac.flac", noise, RATE)
    for name in ("cut_wav.wav", "cut_flac.flac"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
    (folder / "text.wav").write_text("This is no audio.\n" * 100)
    (folder / "zero_bytes.wav").touch()


def left_out(output_folder):
    """The lines of left_out.jsonl of a run."""
    with open(output_folder / "left_out.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def check_left_out(output_folder, bad):
    """Each bad clip is listed once, with the expected reason, and no other clip is."""
    lines = left_out(output_folder)
    assert sorted(line["id"] for line in lines) == sorted(bad)
    for line in lines:
        assert line["kind"] == "clip" and re.search(bad[line["id"]], line["reason"]), line


def check_traces(traces, good):
    """Checks the batches of all ranks: finite losses, equal steps, each good clip once an epoch.

    Returns
    -------
    empty : int
        The number of batches without clips, over all ranks.
    """
    assert len({len(trace) for trace in traces}) == 1
    batches = [batch for trace in traces for batch in trace]
    assert all(math.isfinite(loss) for *_, loss in batches)
    epochs = {epoch for epoch, *_ in batches}
    for number in epochs:
        seen = [clip for epoch, _, ids, _ in batches if epoch == number for clip in ids if clip]
        assert sorted(seen) == sorted(good)
    return sum(ids == ("",) for _, _, ids, _ in batches)


def check_too_many(results, bad, *, share, count):
    """All ranks ended with the same error, which names the share and the last bad clip."""
    (error,) = {(type(error), str(error)) for error, _ in results}
    assert error[0] is RunError
    told = re.match(
        rf"{count} of \d+ clips cannot be used, more than max_bad_audio: {share} allows; the last "
        rf"is '(\w+)': (.*)\. All are in left_out.jsonl: mend them, or take them out",
        error[1],
    )
    assert told and re.search(bad[told[1]], told[2])
