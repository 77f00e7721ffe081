"""What is known of labels before they are read: sizes, rate, and what made them."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

from ..errors import RunError
from ..extraction.provenance import Provenance
from .label_files import FORMS

KEPT = "labels.json"  # in the folder of a run, in the place of the labels
SAME = ("model", "kmeans", "layer")  # of all files


@dataclasses.dataclass(frozen=True)
class LabelSource:
    """Files of labels, and what is known of them.

    Arguments
    ---------
    path : str
        A file or a folder.
    files : dict of str to int
        The bytes of each file, by its name.
    made_of : dict
        Hashes of the model and of the k-means, and the layer; empty if unknown.
    frame_rate : float or None
        Frames per second.
    num_codebooks : int
    codebook_size : int or None
    """

    path: str
    files: dict[str, int]
    made_of: dict[str, Any]
    frame_rate: float | None
    num_codebooks: int
    codebook_size: int | None

    @property
    def paths(self) -> list[str]:
        """The files."""
        folder = self.path if os.path.isdir(self.path) else os.path.dirname(self.path)
        return [os.path.join(folder, name) for name in self.files]


def find_labels(path: str) -> LabelSource:
    """What is known of the labels of a file or of a folder.

    Arguments
    ---------
    path : str
        A file with an ending of ``FORMS``, a folder with such files, or what ``keep_labels`` has
        put into the folder of a run.

    Raises
    ------
    ValueError
        If there are none, or if two files were made by different models or k-means, or have other
        numbers of codebooks.
    """
    if os.path.isfile(kept := os.path.join(path, KEPT)):
        with open(kept, encoding="utf-8") as file:
            return LabelSource(**json.load(file))
    folder, names = os.path.split(path) if os.path.isfile(path) else (path, "")
    names = [names] if names else sorted(os.listdir(path)) if os.path.isdir(path) else []
    names = [name for name in names if os.path.splitext(name)[1] in FORMS]
    if not names:
        raise ValueError(
            f"labels: {path} is no {' or '.join(FORMS)} file and no folder with such files; make "
            f"them with brainquant tokens --format npz"
        )
    known = [_read_about(os.path.join(folder, name)) for name in names]
    for name, about in zip(names, known):
        for key, value in about.items():
            if value != known[0][key]:
                raise ValueError(
                    f"labels: {names[0]} and {name} in {folder} were not made alike ({key}: "
                    f"{known[0][key]!s:.20} and {value!s:.20}); use one model and one k-means for "
                    f"all clips of a run, of training and of validation"
                )
    made_of = {key: known[0].pop(key) for key in SAME}
    sizes = {name: os.path.getsize(os.path.join(folder, name)) for name in names}
    return LabelSource(os.path.abspath(path), sizes, made_of, **known[0])


def _read_about(path: str) -> dict[str, Any]:
    """What the ``.json`` that ``brainquant tokens`` writes beside its output says."""
    found = Provenance(path).read() or {}
    made_of = found.get("made_of", {})
    if made_of.get("dedup") and path.endswith(".npz"):
        raise ValueError(
            f"labels: in {path} equal neighbours became one (--dedup), and an .npz has no "
            f"durations; make it again without --dedup, or with --format jsonl"
        )
    return {
        **{key: made_of.get(key) for key in SAME},
        **{key: found.get(key) for key in ("frame_rate", "codebook_size")},
        "num_codebooks": found.get("num_codebooks") or _count_codebooks(path),
    }


def _count_codebooks(path: str) -> int:
    """The codebooks of the first clip of a file; a ValueError if it has no clips."""
    file = FORMS[os.path.splitext(path)[1]](path)
    for entry in file.entries():
        return file.read(entry).shape[1]
    raise ValueError(f"labels: {path} has no clips; make it again with brainquant tokens")


def keep_labels(argument: str, path: str, kept: str) -> dict[str, Any] | None:
    """Writes what is known of the labels into the folder of a run: ``files_needed`` of FileCodes.

    The labels themselves are data, as the audio is, and stay where they are. So the encoder of a
    run can be opened without them.

    Arguments
    ---------
    argument : str
        The argument that names the labels.
    path : str
        The file or the folder.
    kept : str
        The folder that gets the description.

    Returns
    -------
    arguments : dict or None
        The path of the description; None if there are neither labels nor a description.

    Raises
    ------
    RunError
        If the labels are others than those that the run began with.
    """
    file = os.path.join(kept, KEPT)
    is_kept = os.path.isfile(file)
    if os.path.exists(path):
        source = find_labels(path)
        if not is_kept:
            os.makedirs(kept, exist_ok=True)
            with open(file + ".part", "w", encoding="utf-8") as part:
                json.dump(dataclasses.asdict(source), part, indent=1)
            os.replace(file + ".part", file)
        elif dataclasses.replace(source, path="") != dataclasses.replace(
            find_labels(kept), path=""
        ):
            raise RunError(
                f"labels: {path} has changed since the run began; bring the first labels back, or "
                f"begin in a new output_folder:"
            )
    return {argument: kept} if os.path.isfile(file) else None
