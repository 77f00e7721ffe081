"""Which numbers of runs may be compared, and why others may not."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..training.changed_keys import QUANTISER
from .differences import comparable, values_in_force
from .objective import codebooks_of
from .probes import same_test
from .run_files import DAMAGED, read_text
from .run_folder import RunFolder

# What else makes the targets easier or harder, by what to call it
OTHER = {
    "masks": ("mask_ratio", "mask_length", "noise_mean", "noise_std"),
    "features": ("n_mels", "stack", "sample_rate"),
    "unmasked weight": ("unmasked_weight",),
    "negatives": ("num_negatives", "same_code_negatives", "logit_temp"),
}
# Keys of the encoder, and the beginnings of those of its parts
ENCODER = (
    "encoder.", "transformer.", "conformer.", "front_end.", "extractor.", "num_layers.",
    "d_model.", "d_ffn.", "channels.",
)  # fmt: skip


def why_losses_differ(runs: Sequence[RunFolder]) -> dict[str, str]:
    """Why the losses of runs do not compare, beyond what the runs have learnt.

    Arguments
    ---------
    runs : sequence of RunFolder
        The runs. Those without a YAML are passed over.

    Returns
    -------
    reasons : dict of str to str
        A text by its kind: "objective", "quantiser", "codes", "masks", "features", "unmasked
        weight", "negatives", "validation set". Empty if the losses compare.
    """
    runs = [run for run in runs if run.values]
    reasons: dict[str, str] = {}
    if beside := _beside([run.objective for run in runs]):
        reasons["objective"] = f"other objectives: {beside}"
    parts = differing(runs, lambda key: f"{key}.".startswith(QUANTISER))
    other = {key: text for key, text in parts.items() if not key.endswith(".seed")}
    codebooks = _beside([_codebooks(run) for run in runs])
    if other or codebooks:
        # The class says more than its arguments, and the first of these are enough.
        reasons["quantiser"] = f"other quantisers: {_first(other) or codebooks}"
    elif parts:
        reasons["codes"] = f"other codes: {_first(parts)}"
    for kind, keys in OTHER.items() if "objective" not in reasons else ():
        if found := differing(runs, keys.__contains__):
            reasons[kind] = f"other {kind}: {_first(found)}"
    if len({_validation_set(run) for run in runs}) > 1:
        reasons["validation set"] = "other validation sets"
    return reasons


def may_mark(runs: Sequence[RunFolder]) -> dict[str, bool]:
    """Of which numbers the better one may be marked: "loss", "gain" and "units".

    A gain compares between the codes of two seeds of the same quantiser, not between quantisers:
    easier codes give more. Units that repeat compare between runs of the same encoder and targets.
    """
    reasons = why_losses_differ(runs)
    known = all(run.values for run in runs) and len(runs) > 1
    gain = known and not reasons.keys() - {"codes"}
    same_encoder = not differing(runs, lambda key: f"{key}.".startswith(ENCODER))
    return {"loss": known and not reasons, "gain": gain, "units": gain and same_encoder}


def notes(runs: Sequence[RunFolder]) -> list[str]:
    """What a reader has to know before comparing numbers, a line each."""
    found = []
    if reasons := why_losses_differ(runs):
        advice = "the gain says how much of its own targets each has learnt; compare by a probe"
        if reasons.keys() == {"codes"}:
            advice = "compare the gain, the distance to the reference of the same codes"
        found.append(f"The losses are not comparable ({'; '.join(reasons.values())}): {advice}.")
    if len(runs) > 1 and not all(run.values for run in runs):
        found.append("One run has no YAML: nobody knows whether its loss is comparable.")
    for of in dict.fromkeys(probe.of for run in runs for probe in run.probes):
        if not same_test([probe for run in runs for probe in run.probes if probe.of == of]):
            found.append(
                f"The probes of {of} have read other utterances, or frames of another length: "
                f"compare each encoder with its own log-mel and untrained encoder."
            )
    return found


def differing(runs: Sequence[RunFolder], takes: Callable[[str], bool]) -> dict[str, str]:
    """The keys of a kind whose values differ, the shortest first, with the values as a text."""
    values = [values_in_force(run) for run in runs]
    keys = dict.fromkeys(key for of_run in values for key in of_run if takes(key))
    found = {}
    for key in sorted(keys, key=lambda key: key.count(".")):
        if len({comparable(key, of_run) for of_run in values}) > 1:
            found[key] = f"{key} {_beside([short_value(of_run.get(key)) for of_run in values])}"
    return found


def short_value(value: str | None) -> str:
    """A value of a YAML for a reader: a class without its modules, "-" if it is not there.

    Example
    -------
    >>> short_value("!name:brainquant.brains.BestRQBrain"), short_value(None), short_value("a.b")
    ('BestRQBrain', '-', 'a.b')
    """
    if value is None:
        return "-"
    return re.sub(r"^!\w+:[\w.]*?(\w+)$", r"\1", value)


def _beside(texts: list[str]) -> str:
    """The texts of the runs, each once; empty if all are the same."""
    each = list(dict.fromkeys(text for text in texts if text))
    return ", ".join(each) if len(each) > 1 else ""


def _first(found: Mapping[str, str]) -> str:
    shown = [text for key, text in found.items() if "." not in key] or list(found.values())
    return "; ".join(shown[:3]) + (" and more" if len(shown) > 3 else "")


def _codebooks(run: RunFolder) -> str:
    codebooks, size = codebooks_of(run.points)
    return f"{codebooks} x {size:,} codes" if codebooks else ""


def _validation_set(run: RunFolder) -> str:
    """What the validation set is known by: its path or, inside the folder of the run, its text."""
    path, output = run.values.get("valid_csv", ""), run.values.get("output_folder", "")
    if not output or not path.startswith(f"{output}/"):
        return path
    inside = Path(run.folder, os.path.relpath(path, output))
    try:
        return hashlib.sha256(read_text(inside).encode()).hexdigest()
    except DAMAGED:  # made elsewhere, or removed
        return path.removeprefix(output)
