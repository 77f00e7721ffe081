"""Reads the files of a run that may be damaged, foreign, or written at this moment."""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ..monitoring.points import read_points
from ..training.values_by_key import values_by_key

MOST_BYTES = 64 * 2**20  # of a text; metrics.jsonl is read line by line
LARGEST = 1e15  # of a number that a run may log
DAMAGED = (OSError, ValueError, RecursionError)
VERSIONS = ("brainquant", "speechbrain", "torch", "torchaudio")
Read = TypeVar("Read")


class KeptCheckpoint(NamedTuple):
    """A checkpoint that a run has kept; its step is None if it does not say."""

    name: str
    step: int | None
    bytes: int


def attempt(remarks: list[str], what: str, read: Callable[[], Read], instead: Read) -> Read:
    """What a function reads; if that is damaged, something else and a remark.

    Example
    -------
    >>> remarks = []
    >>> attempt(remarks, "steps", lambda: int("many"), instead=0), remarks
    (0, ["steps cannot be read: invalid literal for int() with base 10: 'many'"])
    """
    try:
        return read()
    except DAMAGED as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        remarks.append(f"{what} cannot be read: {printable(' '.join(str(reason).split()))}")
        return instead


def printable(text: object) -> str:
    """A text of somebody else for a terminal or a page: what does not show is written as escapes.

    Example
    -------
    >>> printable("a\\x1b[31m b\\ud800")
    'a\\\\x1b[31m b\\\\ud800'
    """
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in str(text)
    )


def read_text(path: Path) -> str:
    """A text file; a ValueError if it is none, or too large."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is no file")
    if found.st_size > MOST_BYTES:
        raise ValueError(f"it has {found.st_size:,} bytes, more than any such file of a run")
    return path.read_text("utf-8", errors="replace")


def read_log(path: Path) -> list[dict[str, Any]]:
    """The points of metrics.jsonl, as ``read_points`` gives them, without what is no number.

    Example
    -------
    >>> path = getfixture("tmp_path") / "metrics.jsonl"
    >>> line = '{"step": 5, "stage": "valid", "loss": 2.5, "accuracy": "?"}'
    >>> _ = path.write_text(line + '\\n{"step": 6, "sta')
    >>> read_log(path)
    [{'step': 5.0, 'stage': 'valid', 'loss': 2.5}]
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is no file")
    points = [
        {str(key): value for key, value in point.items() if _is_logged(key, value)}
        for point in read_points(path)
    ]
    return [point for point in points if "step" in point and "stage" in point]


def _is_logged(key, value):
    if key in ("stage", "span", "test"):
        return isinstance(value, str)
    if key == "step":
        return 0 <= value <= LARGEST
    if isinstance(value, list):
        return len(value) > 0 and all(map(_is_number, value))
    return _is_number(value)


def _is_number(value):
    """Whether a value of JSON is a number or null; Python's JSON has NaN and Infinity, too."""
    if value is None or isinstance(value, bool):
        return value is None
    return isinstance(value, (int, float)) and not LARGEST < abs(value) < math.inf


def read_values(path: Path) -> dict[str, str]:
    """The values of a YAML by their keys, as ``values_by_key`` gives them; nothing is built."""
    values = values_by_key(read_text(path))
    return {printable(key): printable(value) for key, value in values.items()}


def read_left_out(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The clips and steps of left_out.jsonl, and how many lines are damaged.

    A step that came again after a resume counts once.
    """
    found, damaged = {}, 0
    for line in read_text(path).splitlines():
        try:
            record = json.loads(line)
            kind, step = record["kind"], int(record["step"])
            if kind not in ("clip", "step") or not 0 <= step <= LARGEST:
                raise ValueError(kind)
            entry = {"kind": kind, "step": step, "reason": printable(record["reason"])}
            if kind == "clip":
                entry["id"] = printable(record["id"])
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            damaged += bool(line.strip())
            continue
        found[kind, entry.get("id", step)] = entry
    return list(found.values()), damaged


def read_checkpoints(folder: Path) -> list[KeptCheckpoint]:
    """The checkpoints that a run has kept, the first step first; nothing is loaded."""
    kept = []
    if not folder.is_dir():
        return kept
    for path in sorted(folder.glob("CKPT+*")):
        step = None
        try:
            written = read_values(path / "CKPT.yaml").get("step", "")
            step = int(written) if re.fullmatch(r"\d{1,15}", written) else None
        except DAMAGED:  # or a run that goes on has just removed it
            if not path.is_dir():
                continue
        kept.append(KeptCheckpoint(printable(path.name), step, bytes_of(path)))
    return sorted(kept, key=lambda checkpoint: (checkpoint.step is None, checkpoint.step or 0))


def bytes_of(folder: Path) -> int:
    """The size of all files in a folder."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except OSError:  # removed meanwhile
                continue
    return total


def read_options(log: str) -> dict[str, str]:
    """The run options that log.txt says were in force, at the last start.

    The command line has them, and hyperparams.yaml need not.

    Example
    -------
    >>> read_options("12:00 - INFO - In force:\\n  device: cpu  precision: bf16\\n12:01 - go")
    {'device': 'cpu', 'precision': 'bf16'}
    """
    _, found, rest = log.rpartition(" - In force:\n")
    options = {}
    for line in rest.splitlines() if found else ():
        if not line.startswith("  "):
            break
        options |= dict(re.findall(r"(\w+): (\S+)", printable(line)))
    return options


def read_versions(environment: str) -> dict[str, str]:
    """The versions in env.log, of Python and of the packages that a result may depend on.

    Example
    -------
    >>> read_versions("Python version:\\n3.11.7 (main, May  9)\\n====\\ntorch==2.11.0\\nx==1")
    {'Python': '3.11.7', 'torch': '2.11.0'}
    """
    python = re.search(r"^Python version:\n(\d[\w.]*)", environment, re.MULTILINE)
    found = {} if python is None else {"Python": python[1]}
    for name in VERSIONS:
        package = re.search(rf"\b{name}==([\w.+!-]+)", environment)
        if package is not None:
            found[name] = package[1]
    return found


def read_error_rate(text: str) -> float:
    """The word error rate in per cent of a file that SpeechBrain writes.

    Example
    -------
    >>> read_error_rate("%WER 9.09 [ 2 / 22, 0 ins, 1 del, 1 sub ]")
    9.09
    """
    found = re.match(r"%WER (\d{1,9}(?:\.\d{1,9})?) \[", text)
    if found is None:
        raise ValueError("it does not begin with %WER")
    return float(found[1])


def number_of(record: Mapping[str, Any], key: str) -> float | None:
    """A finite number of a record, or None."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def last_of(points: Sequence[Mapping[str, Any]], stage: str) -> Mapping[str, Any]:
    """The last point of a stage that has a loss; an empty one if there is none.

    Example
    -------
    >>> points = [{"stage": "valid", "loss": 2.0}, {"stage": "valid"}, {"stage": "train"}]
    >>> last_of(points, "valid")
    {'stage': 'valid', 'loss': 2.0}
    """
    for point in reversed(points):
        if point.get("stage") == stage and "loss" in point and point.get("frames") != 0:
            return point
    return {}
