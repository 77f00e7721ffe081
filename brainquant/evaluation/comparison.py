"""Several representations of the same utterances, and how well labels are read from each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
from speechbrain.utils.logger import get_logger

from ..models import SpeechEncoder
from ..monitoring.spectrum import effective_rank
from .abx import abx_errors, spoken_phones
from .frozen import encode, encode_with_front_end, log_mel_frames, log_mel_windows
from .linear_probe import majority_accuracy, probe_layers, summarise
from .subjects import Subject
from .utterances import Utterance

logger = get_logger(__name__)

LOG_MEL, FRONT_END = "log-mel", "untrained front end"
UNTRAINED, PRETRAINED = "untrained encoder", "pretrained encoder"
ENCODERS = (UNTRAINED, PRETRAINED)

# Arrays (frames, dim) of each layer, by the name of what they represent.
Represent = Callable[[Utterance], Mapping[str, list[np.ndarray]]]


class Comparison:
    """Accuracies, effective ranks and ABX errors of several representations.

    Arguments
    ---------
    splits : Mapping
        The ``train``, ``valid`` and ``test`` utterances.
    encoder : SpeechEncoder
        Knows the sample rate and the times of frames.
    seeds : iterable of int
        Each draws two thirds of the training utterances.
    pool : bool
        Whether labels are of utterances, so that features are averaged over time.
    context : int
        Encoder frames on both sides of each.
    abx : bool
        Whether ABX errors are measured, on the test utterances.
    bar : callable
        Shows progress: ``progress_bar`` without its first argument.

    Raises
    ------
    ValueError
        If the classifiers cannot learn the labels.
    """

    def __init__(
        self,
        splits: Mapping[str, list[Utterance]],
        encoder: SpeechEncoder,
        *,
        seeds: Iterable[int],
        pool: bool,
        context: int,
        abx: bool,
        bar: Callable[..., Iterable[Any]],
    ) -> None:
        self.splits = splits
        self.encoder = encoder
        self.seeds = list(seeds)
        self.pool = pool
        self.context = context
        self.bar = bar
        self.labels = {name: [u.labels for u in split] for name, split in splits.items()}
        self.accuracies: dict[str, list[Any]] = {}  # by name, by seed, by layer: (valid, test)
        self.inputs: dict[str, int] = {}  # of a classifier, by name
        self.ranks: dict[str, list[Any]] = {}  # by name, by encoder, by layer
        self.abx_errors: dict[str, list[Any]] = {}  # by name, by encoder, by layer
        self.phones = None
        if abx:
            test = splits["test"]
            alignments = [utterance.alignment for utterance in test]
            self.phones = spoken_phones(alignments, [utterance.speaker for utterance in test])
        _check_labels(self.labels)

    def add_references(self, subject: Subject) -> None:
        """Adds log-mel, and an untrained encoder and its front end for each seed."""
        rate = self.encoder.sample_rate

        def log_mel(utterance: Utterance, context: int) -> list[np.ndarray]:
            if self.pool:
                return [log_mel_frames(utterance.sig, rate)]
            times = self.encoder.frame_times(utterance.num_frames)
            return [log_mel_windows(utterance.sig, rate, times, context)]

        if self.phones is not None:
            self.add_abx(LOG_MEL, zip(*(log_mel(u, 0) for u in self.splits["test"])))
        self._add(lambda u: {LOG_MEL: log_mel(u, self.context)}, self.seeds, LOG_MEL)

        for seed in self.seeds:
            fresh = subject.make_untrained(seed)

            def represent(
                utterance: Utterance, fresh: SpeechEncoder = fresh
            ) -> dict[str, list[np.ndarray]]:
                front_end, layers = encode_with_front_end(fresh, utterance.sig)
                return {FRONT_END: _cut([front_end], utterance), UNTRAINED: _cut(layers, utterance)}

            self._add(represent, [seed], f"{UNTRAINED} {seed + 1} of {len(self.seeds)}")

    def add_encoder(self, name: str, encoder: SpeechEncoder) -> None:
        """Adds an encoder: all its layers, and the effective rank of their test frames."""
        self._add(lambda u: {name: _cut(encode(encoder, u.sig), u)}, self.seeds, name)

    def add_abx(self, name: str, layers: Iterable[Any]) -> None:
        """Adds the ABX errors of layers of the test utterances."""
        assert self.phones is not None
        times = self.encoder.frame_times
        errors = [abx_errors(layer, self.phones, times) for layer in layers]
        self.abx_errors.setdefault(name, []).append(errors)

    def table(self) -> dict[str, Any]:
        """What was measured, plain numbers by name."""
        made: dict[str, Any] = {
            "majority": majority_accuracy(self.labels),
            "accuracies": {
                name: {**summarise(seeds), "inputs": self.inputs[name]}
                for name, seeds in self.accuracies.items()
            },
            "effective_rank": {name: np.mean(r, 0).tolist() for name, r in self.ranks.items()},
        }
        if self.phones is not None:
            made["abx"] = {
                "phones": len(self.phones),
                "speakers": len({phone.speaker for phone in self.phones}),
                **{kind: self._mean_errors(kind) for kind in ("within", "across")},
            }
        return made

    def _mean_errors(self, kind: str) -> dict[str, list[float]] | None:
        """Errors by name and layer, or None: the phones are the same for all representations."""
        by_name = {
            name: [[layer[kind] for layer in layers] for layers in encoders]
            for name, encoders in self.abx_errors.items()
        }
        if any(error is None for layers in by_name.values() for error in layers[0]):
            return None
        return {name: np.mean(layers, 0).tolist() for name, layers in by_name.items()}

    def _add(self, represent: Represent, seeds: list[int], shown: str) -> None:
        """Represents all utterances and measures each layer; each seed fits classifiers."""
        logger.info(f"Probe: {shown}")
        layers: dict[str, dict[str, Any]] = {}  # by name, by split
        for split, utterances in self.splits.items():
            made = [represent(u) for u in self.bar(utterances, f"{shown}, {split}", " utterances")]
            for name in made[0]:
                by_layer = zip(*(of_utterance[name] for of_utterance in made))
                layers.setdefault(name, {})[split] = [list(layer) for layer in by_layer]
        for name, by_split in layers.items():
            if name not in (LOG_MEL, FRONT_END):
                ranks = [effective_rank(np.concatenate(layer)) for layer in by_split["test"]]
                self.ranks.setdefault(name, []).append(ranks)
            if self.phones is not None and name != LOG_MEL:
                self.add_abx(name, self.bar(by_split["test"], f"{shown}, ABX", " layers"))
            if self.pool:
                by_split = {
                    split: [[x_TD.mean(0, keepdims=True) for x_TD in layer] for layer in of_split]
                    for split, of_split in by_split.items()
                }
            context = self.context if name != LOG_MEL else 0  # its windows have the context already
            self.inputs[name] = (2 * context + 1) * by_split["test"][0][0].shape[1]
            self.accuracies.setdefault(name, []).extend(
                probe_layers(
                    by_split,
                    self.labels,
                    seed=seed,
                    context=context,
                    progress=partial(self.bar, text=f"{shown}, classifiers", unit=" layers"),
                )
                for seed in seeds
            )


def _cut(layers: list[np.ndarray], utterance: Utterance) -> list[np.ndarray]:
    return [layer[: utterance.num_frames] for layer in layers]


def _check_labels(labels: Mapping[str, list[np.ndarray]]) -> None:
    """Warns of labels that no classifier can get right; a ValueError if all labels are such."""
    known = np.unique(np.concatenate(labels["train"]))
    if len(known) < 2:
        raise ValueError(
            f"the training utterances have one label only, {known[0]!r}; give a train: manifest "
            f"that has several"
        )
    for split in ("valid", "test"):
        unknown = np.setdiff1d(given := np.concatenate(labels[split]), known)
        share = np.isin(given, unknown).mean()
        names = ", ".join(map(repr, unknown[:10].tolist()))
        text = f"{split} has labels that training lacks, {names}, {share:.1%} of all that it has"
        if share == 1:
            raise ValueError(f"{text}; split the utterances so that all have the same labels")
        if share:
            logger.warning(f"{text}; they count as wrong")
