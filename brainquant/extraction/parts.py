"""The work folder beside an output: what is computed so far, a file for each part."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..data.prepare import write_whole
from .provenance import refuse_other

MADE_BY = "made_by.json"


class Parts:
    """The folder ``<output>.parts``, which several processes fill at once.

    Each file in it appears whole. A process that is killed leaves the parts that it has finished,
    and the next run goes on with the others.

    Arguments
    ---------
    output : str
        The output, as the user names it.

    Example
    -------
    >>> parts = Parts(str(getfixture("tmp_path") / "f.npz"))
    >>> parts.open({"model": "a1"})
    >>> parts.write(0, {5: {"codes": np.array([7, 7])}}, {5: 2}, {6: "has no samples"})
    >>> parts.missing(2)
    [1]
    >>> parts.read(0, 5, ["codes"])
    {'codes': array([7, 7])}
    """

    def __init__(self, output: str) -> None:
        self.output = output
        self.folder = f"{output}.parts"

    def open(self, identity: dict[str, Any]) -> None:
        """Makes the folder; a ValueError if it has parts of anything else."""
        path = os.path.join(self.folder, MADE_BY)
        if not os.path.exists(path):
            write_whole(path, json.dumps(identity, indent=2))
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        refuse_other(found, identity, f"{self.folder} has unfinished work", [self.folder])

    def exist(self) -> bool:
        """Whether there is unfinished work."""
        return os.path.exists(os.path.join(self.folder, MADE_BY))

    def missing(self, num_parts: int) -> list[int]:
        """The numbers of the parts that are still to be computed."""
        try:
            there = {*os.listdir(self.folder)}
        except FileNotFoundError:
            there = set()
        return [part for part in range(num_parts) if self._name(part) not in there]

    def write(
        self,
        part: int,
        arrays: dict[int, dict[str, np.ndarray]],
        frames: dict[int, int],
        left_out: dict[int, str],
    ) -> None:
        """Writes a part: by the number of the clip its arrays and frames, or why it has none."""
        tensors = {
            f"{clip}.{name}": a for clip, named in arrays.items() for name, a in named.items()
        }
        about = json.dumps({"frames": frames, "left_out": left_out})
        write_whole(self._path(part), save(tensors, {"about": about}))

    def remove_damaged(self, num_parts: int) -> list[int]:
        """Removes parts that a failing machine has left incomplete, and returns their numbers."""
        damaged = []
        for part in {*range(num_parts)} - {*self.missing(num_parts)}:
            try:
                self.about(part)
            except SafetensorError:
                with contextlib.suppress(FileNotFoundError):  # another process was quicker
                    os.remove(self._path(part))
                damaged.append(part)
        return damaged

    def about(self, part: int) -> tuple[dict[int, int], dict[int, str]]:
        """The frames of the clips of a part, and why others were left out."""
        with self._opened(part) as file:
            about = json.loads(file.metadata()["about"])
        frames, left_out = about["frames"], about["left_out"]
        return {int(k): v for k, v in frames.items()}, {int(k): v for k, v in left_out.items()}

    def read(self, part: int, clip: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """The arrays of a clip. Nothing else is read, and nothing kept."""
        with self._opened(part) as file:
            return {name: file.get_tensor(f"{clip}.{name}") for name in names}

    def _opened(self, part: int) -> Any:
        return safe_open(self._path(part), "np")

    @contextlib.contextmanager
    def locked(self) -> Iterator[bool]:
        """Whether this process may write the output; False while another one does.

        The lock is that of ``brainquant.training.run_lock``: the kernel releases it when the
        process ends, and it works over NFS.
        """
        import fcntl

        try:
            file = open(os.path.join(self.folder, "merge.lock"), "a", encoding="utf-8")
        except FileNotFoundError:  # another process has written the output and removed the folder
            yield False
            return
        with file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                yield False
            else:
                yield True

    def publish(self, path: str, text: str) -> None:
        """Writes a file beside the output, whole, and leaves nothing else there if it is killed."""
        made = os.path.join(self.folder, os.path.basename(path))
        write_whole(made, text)
        os.replace(made, path)

    def remove(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, part: int) -> str:
        return os.path.join(self.folder, self._name(part))

    def _name(self, part: int) -> str:
        return f"{part:06d}.safetensors"
