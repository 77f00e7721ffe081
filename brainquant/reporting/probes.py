"""The results of probes, as a run's folder has them: read with care, and in one form."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..evaluation.comparison import ENCODERS, LOG_MEL, PRETRAINED
from .run_files import LARGEST, printable, read_text

CODE_NUMBERS = ("phone_purity", "cluster_purity", "pnmi", "code_perplexity")
ALIKE = 0.005  # accuracies of log-mel in two probes of the same frames


class Accuracy(NamedTuple):
    """How well labels are read from a representation, in the layer that validation has chosen."""

    mean: float
    spread: float
    layer: int
    layers: list[float]  # the mean of the seeds in each layer


class ProbedStep(NamedTuple):
    """An encoder at a step of its run."""

    step: int
    accuracy: Accuracy
    abx: dict[str, list[float]]  # as in ``Probe``, of each layer


class Probe(NamedTuple):
    """The result of a probe.

    Attributes
    ----------
    file : str
        Its file, without folder and ending.
    of : str
        What is read: "phones", or a column of the manifests.
    utterances : int
        How many the accuracy is of.
    majority : float
        The accuracy of the commonest label.
    accuracies : dict of str to Accuracy
        By the names of ``brainquant.evaluation.comparison``.
    ranks : dict of str to list of float
        The effective rank of each layer of the encoders, by the same names.
    codes : dict of str to float
        What the codes say of phones; empty without phones.
    abx : dict of str to dict
        ABX errors of each layer, by "within" and "across", then by name.
    steps : list of ProbedStep
        Of a probe of all checkpoints.
    """

    file: str
    of: str
    utterances: int
    majority: float
    accuracies: dict[str, Accuracy]
    ranks: dict[str, list[float]]
    codes: dict[str, float]
    abx: dict[str, dict[str, list[float]]]
    steps: list[ProbedStep]

    @property
    def pretrained(self) -> Accuracy | None:
        """The accuracy of the encoder itself; of a probe of all checkpoints, of the last one."""
        if self.steps:
            return self.steps[-1].accuracy
        return self.accuracies.get(PRETRAINED)


def read_probe(path: Path) -> Probe:
    """Reads the file of a probe.

    Raises
    ------
    ValueError
        If it is not what ``brainquant probe`` writes.

    Example
    -------
    >>> path = getfixture("tmp_path") / "probe_spk_id.json"
    >>> row = {"mean": 0.5, "spread": 0.1, "best_layer": 1, "layers": [[0.4], [0.6]]}
    >>> table = {"of": "spk_id", "utterances": {"test": 9}, "majority": 0.25,
    ...          "accuracies": {"pretrained encoder": row}, "effective_rank": {}}
    >>> _ = path.write_text(json.dumps(table))
    >>> read_probe(path).pretrained
    Accuracy(mean=0.5, spread=0.1, layer=1, layers=[0.5])
    """
    try:
        table = json.loads(read_text(path))
        return Probe(
            printable(path.stem),
            printable(table["of"]),
            int(_number(table["utterances"]["test"])),
            _number(table["majority"]),
            {printable(k): _accuracy(row) for k, row in table["accuracies"].items()},
            {printable(k): _numbers(x) for k, x in table["effective_rank"].items()},
            {key: _number(table["codes"][key]) for key in CODE_NUMBERS} if "codes" in table else {},
            _abx(table.get("abx", {})),
            [_step(row) for row in table.get("steps", [])],
        )
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError) as error:
        raise ValueError("it is not what brainquant probe writes") from error


def same_test(probes: list[Probe]) -> bool:
    """Whether probes have read the same labels of the same frames, so that they compare.

    An encoder of another frame rate is probed on other stretches of time. Log-mel has no weights,
    so its accuracy says whether that is the case.
    """
    found = [probe.accuracies[LOG_MEL].mean for probe in probes if LOG_MEL in probe.accuracies]
    alike = len({(probe.of, probe.utterances) for probe in probes}) == 1
    return alike and (not found or max(found) - min(found) < ALIKE)


def encoders_of(rows: Mapping[str, Any]) -> list[str]:
    """The names of the encoders among representations; the others have no layers."""
    return [name for name in ENCODERS if name in rows]


def _accuracy(row):
    by_seed = [_numbers(layers) for layers in row["layers"]]
    means = [sum(seeds) / len(seeds) for seeds in zip(*by_seed)]
    layer = int(_number(row["best_layer"]))
    if not means or not 1 <= layer <= len(means):
        raise ValueError("its layers are not those of an encoder")
    return Accuracy(_number(row["mean"]), _number(row["spread"]), layer, means)


def _step(row):
    errors = {kind: _numbers(row[kind]) for kind in ("within", "across") if kind in row}
    return ProbedStep(int(_number(row["step"])), _accuracy(row["accuracy"]), errors)


def _abx(errors):
    kinds = [kind for kind in ("within", "across") if errors.get(kind)]
    return {kind: {printable(k): _numbers(x) for k, x in errors[kind].items()} for kind in kinds}


def _numbers(values):
    if not isinstance(values, list) or not values:
        raise ValueError("it lacks the numbers of the layers")
    return [_number(value) for value in values]


def _number(value):
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"it has {printable(repr(value))[:40]} where a number should be")
    if not math.isfinite(value) or abs(value) > LARGEST:
        raise ValueError("it has a number that is not finite, or too large")
    return float(value)
