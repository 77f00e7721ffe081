"""The probe: labels read from an encoder, from log-mel and from the untrained encoder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from speechbrain.utils.logger import get_logger

from ..data.alignments import find_alignments
from ..data.prepare import write_whole
from .code_phones import code_phone_statistics
from .figure import draw_probe
from .frozen import encode, log_mel_frames, log_mel_windows, quantise
from .linear_probe import majority_accuracy, probe_layers, summarise
from .progress import progress_bar
from .spectrum import effective_rank
from .subjects import Subject, subject_of_run
from .table import log_table
from .utterances import load_utterances

logger = get_logger(__name__)


def probe(
    brain: Any,
    hparams: dict[str, Any],
    *,
    test: str,
    train: str | None = None,
    valid: str | None = None,
    data_folder: str | None = None,
    name: str | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Compares the encoder of a run with log-mel and with the untrained encoder: ``probe_subject``.

    Arguments
    ---------
    brain : PretrainBrain
        After training, with an ``encoder`` and, for phones, a ``quantiser``.
    hparams : dict
        Hyperparameters of the run. Reads ``hparams_file`` and ``overrides``, to build untrained
        encoders, and the defaults of manifests and ``data_folder``.
    test : str
        Manifest of the test utterances.
    train, valid : str or None
        Manifests; None for ``train_csv`` and ``valid_csv`` of the run.
    data_folder : str or None
        Value of ``$data_root`` in the manifests; None for that of the run.
    name : str or None
        Path of the files without ending, relative to the folder of the run. None for ``probe_`` and
        the label, or ``probe_phones``.
    **options : object
        More of ``probe_subject``, which has the result and the errors.
    """
    return probe_subject(
        subject_of_run(brain, hparams),
        {
            "train": train or hparams["train_csv"],
            "valid": valid or hparams["valid_csv"],
            "test": test,
        },
        data_folder=data_folder or hparams["data_folder"],
        path=os.path.join(
            brain.run_log.folder, name or f"probe_{options.get('label') or 'phones'}"
        ),
        **options,
    )


def probe_subject(
    subject: Subject,
    manifests: Mapping[str, str],
    *,
    data_folder: str,
    path: str,
    label: str | None = None,
    alignments: str | None = None,
    train_minutes: float | None = None,
    context: int = 1,
    num_seeds: int = 3,
) -> dict[str, Any]:
    """Compares linear classifiers on the encoder, on log-mel and on the untrained encoder.

    One ridge classifier per layer is fitted on training utterances and scored on test utterances.
    Each seed draws two thirds of the training utterances and another untrained encoder. The
    validation set chooses the layer whose accuracy counts. A label of the utterance is read from
    features averaged over time. Phones are read from each frame, and all representations see the
    same stretch of time: an encoder frame and ``context`` frames on both sides, or the log-mel
    frames of 10 ms within them. Waveforms and frames are held in memory; ``train_minutes`` limits
    it.

    Arguments
    ---------
    subject : Subject
        An encoder.
    manifests : Mapping of str to str
        Those of ``train``, ``valid`` and ``test`` utterances.
    data_folder : str
        Value of ``$data_root`` in the manifests.
    path : str
        Path of the files without ending.
    label : str or None
        Column of the manifests, such as ``spk_id``. Either this or
    alignments : str or None
        Folder of phone alignments, ``<ID>.tsv`` at any depth.
    train_minutes : float or None
        Minutes of speech to fit on; None for all.
    context : int
        Encoder frames on both sides, for phones.
    num_seeds : int
        Seeds; their mean and spread are shown.

    Returns
    -------
    table : dict
        ``accuracies``, ``effective_rank`` and, with alignments, ``codes``; also in ``<path>.json``.

    Raises
    ------
    ValueError
        If label and alignments are both given or both missing, or an input is wrong.
    """
    if (label is None) == (alignments is None):
        raise ValueError(
            f"a probe reads either a label: or alignments:, got label={label!r}, "
            f"alignments={alignments!r}; give one of them"
        )
    for key, value, least in (("num_seeds", num_seeds, 1), ("context", context, 0)):
        if value < least:
            raise ValueError(f"{key} must be at least {least}, got {value}; raise it")
    encoder, hidden = subject.encoder, subject.without_bars
    load = partial(
        load_utterances,
        data_folder=data_folder,
        encoder=encoder,
        label=label,
        alignments=None if alignments is None else find_alignments(alignments),
        hidden=hidden,
    )
    splits, left_out = {}, {}
    for split, manifest in manifests.items():
        minutes = train_minutes if split == "train" else None
        splits[split], more = load(manifest, minutes=minutes)
        left_out |= more
    bar = partial(progress_bar, hidden)
    comparison = _Comparison(splits, pool=label is not None, bar=bar)
    _check_labels(comparison.labels)
    table = {
        "of": label or "phones",
        "utterances": {split: len(utterances) for split, utterances in splits.items()},
        "left_out": left_out,
        "num_seeds": num_seeds,
        "majority": majority_accuracy(comparison.labels),
    }
    seeds, rate = range(num_seeds), encoder.sample_rate
    if label is None:

        def log_mel(utterance):
            times = encoder.frame_times(utterance.num_frames)
            return [log_mel_windows(utterance.sig, rate, times, context)]

        if subject.quantiser is not None:
            table["codes"] = _codes(encoder, subject.quantiser, splits, bar)
    else:
        context = 0

        def log_mel(utterance):
            return [log_mel_frames(utterance.sig, rate)]

    comparison.add("log-mel", log_mel, seeds)
    for seed in seeds:
        fresh = subject.make_untrained(seed)
        of_all = f" {seed + 1} of {num_seeds}"
        comparison.add_encoder("untrained encoder", fresh, [seed], context, shown=of_all)
    comparison.add_encoder("pretrained encoder", encoder, seeds, context)
    table["accuracies"] = {n: summarise(by_seed) for n, by_seed in comparison.accuracies.items()}
    table["effective_rank"] = {n: np.mean(r, 0).tolist() for n, r in comparison.ranks.items()}

    write_whole(path + ".json", json.dumps(table, indent=1))
    draw_probe(table, path + ".png")
    log_table(table)
    return table


class _Comparison:
    """Accuracies and effective ranks of several representations of the same utterances."""

    def __init__(self, splits, *, pool, bar):
        self.splits = splits
        self.pool = pool  # over time, for labels of utterances
        self.bar = bar
        self.labels = {name: [u.labels for u in split] for name, split in splits.items()}
        self.accuracies = {}  # by name, by seed, by layer: (valid, test)
        self.ranks = {}  # by name, by encoder, by layer

    def add_encoder(self, name, encoder, seeds, context, *, shown=""):
        """Adds an encoder: all its layers, and the effective rank of their test frames."""

        def frames(utterance):
            return [layer[: utterance.num_frames] for layer in encode(encoder, utterance.sig)]

        self.add(name, frames, seeds, context=context, rank=True, shown=shown)

    def add(self, name, represent, seeds, *, context=0, rank=False, shown=""):
        """Adds the layers that a function makes of an utterance, arrays (frames, dim)."""
        shown = name + shown
        logger.info(f"Probe: {shown}")
        layers = {}
        for split, utterances in self.splits.items():
            made = map(represent, self.bar(utterances, f"{shown}, {split}", " utterances"))
            layers[split] = [list(layer) for layer in zip(*made)]
            if rank and split == "test":
                ranks = [effective_rank(np.concatenate(layer)) for layer in layers[split]]
                self.ranks.setdefault(name, []).append(ranks)
            if self.pool:
                layers[split] = [
                    [x_TD.mean(0, keepdims=True) for x_TD in layer] for layer in layers[split]
                ]
        self.accuracies.setdefault(name, []).extend(
            probe_layers(
                layers,
                self.labels,
                seed=seed,
                context=context,
                progress=partial(self.bar, text=f"{shown}, classifiers", unit=" layers"),
            )
            for seed in seeds
        )


def _check_labels(labels):
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


def _codes(encoder, quantiser, splits, bar):
    """Statistics of codes and phones over the frames of all splits: more frames, less bias."""
    logger.info("Probe: codes")
    codes, phones = [], []
    utterances = [utterance for split in splits.values() for utterance in split]
    for utterance in bar(utterances, "codes", " utterances"):
        codes.append(quantise(encoder, quantiser, utterance.sig))
        phones.append(utterance.labels[: len(codes[-1])])
    return code_phone_statistics(np.concatenate(codes), np.concatenate(phones))
