"""The file ``<output>.json``: what an output was made of. Nothing else is continued or replaced."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

VERSIONS = ("brainquant", "torch")  # may differ where an output is complete
# Hashes say nothing to a reader.
HASHED = {
    "model": "another model",
    "kmeans": "another k-means",
    "source": "other audio: SOURCE has changed, or is another one",
    "plan": "other audio: files of SOURCE have changed",
}


class Provenance:
    """What an output was made of.

    Arguments
    ---------
    output : str
        The output, as the user names it.

    Example
    -------
    >>> output = str(getfixture("tmp_path") / "f.npz")
    >>> open(output, "w").close()
    >>> provenance = Provenance(output)
    >>> with open(provenance.path, "w") as file:
    ...     json.dump({"made_of": {"model": "a1"}, "files": ["f.npz"]}, file)
    >>> provenance.is_complete({"model": "a1"})
    True
    >>> provenance.is_complete({"model": "b2"})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: ...f.npz was made with another model; give another --output, or remove ...
    """

    def __init__(self, output: str) -> None:
        self.output = output
        self.path = f"{output}.json"

    def read(self) -> dict[str, Any] | None:
        """Its content; None if there is none."""
        try:
            with open(self.path, encoding="utf-8") as file:
                found = json.load(file)
        except FileNotFoundError:
            return None
        except ValueError:
            found = None
        if not isinstance(found, dict) or not {"made_of", "files"} <= {*found}:
            raise ValueError(
                f"{self.path} does not say what made {self.output}; give another --output, or "
                f"remove both"
            )
        return found

    def is_complete(self, identity: dict[str, Any]) -> bool:
        """Whether the output is there and was made of just this.

        Raises
        ------
        ValueError
            If it was made of something else.
        """
        if (found := self.read()) is None:
            return False
        folder = os.path.dirname(self.output)
        files = [os.path.join(folder, name) for name in found["files"]]
        if not all(map(os.path.exists, files)):
            return False
        same_versions = {key: found["made_of"].get(key) for key in VERSIONS}
        refuse_other(found["made_of"], {**identity, **same_versions}, f"{self.output} was made",
                     [*files, self.path])  # fmt: skip
        return True


def refuse_other(
    found: dict[str, Any], wanted: dict[str, Any], subject: str, files: Sequence[str]
) -> None:
    """Raises a ValueError if two identities differ; it names the first difference.

    Arguments
    ---------
    found, wanted : dict
        What was made, and what is to be made.
    subject : str
        Beginning of the message.
    files : sequence of str
        What the user may remove.
    """
    for key, value in wanted.items():
        if found.get(key) != value:
            change = HASHED.get(key) or f"{key}: {found.get(key)}, not {value}"
            raise ValueError(
                f"{subject} with {change}; give another --output, or remove {' '.join(files)}"
            )
