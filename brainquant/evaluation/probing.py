"""The probe of a run: what its encoder has learnt, beside log-mel and the untrained encoder."""

import json
import os
from functools import partial

import numpy as np
from speechbrain.utils.logger import get_logger

from ..data.alignments import find_alignments
from ..data.prepare import write_whole
from .code_phones import code_phone_statistics
from .figure import draw_probe
from .frozen import encode, log_mel_frames, log_mel_windows, on_one_rank, quantise, untrained
from .linear_probe import majority_accuracy, probe_layers, summarise
from .progress import progress_bar
from .spectrum import effective_rank
from .table import log_table
from .utterances import load_utterances

logger = get_logger(__name__)


def probe(
    brain,
    hparams_file,
    overrides=None,
    *,
    train,
    valid,
    test,
    data_folder,
    label=None,
    alignments=None,
    train_minutes=None,
    context=1,
    num_seeds=3,
    name=None,
):
    """Compares linear classifiers on the encoder, on log-mel and on the untrained encoder.

    One ridge classifier per layer, fitted on training utterances and read on test ones; each
    seed draws two thirds of the training utterances and another untrained encoder. The layer that
    counts is chosen on the validation set. A label of the utterance is read from features that
    are averaged over time; phones from each frame, where all see the same stretch of time: an
    encoder frame and ``context`` more on both sides, for log-mel the frames of 10 ms within them.
    Waveforms and frames are held in memory, so ``train_minutes`` limits it.

    Arguments
    ---------
    brain : PretrainBrain
        After training.
    hparams_file : str
        The YAML that it was built from, or the copy of it in the run's folder, to build untrained
        encoders.
    overrides : dict
        What the command line changed in it.
    train, valid, test : str
        Manifests.
    data_folder : str
        What ``$data_root`` in them stands for.
    label : str or None
        Column of the manifests, such as ``spk_id``; or else
    alignments : str or None
        Folder of phone alignments, ``<ID>.tsv`` at any depth.
    train_minutes : float or None
        Speech to fit on; None for all of it.
    context : int
        Encoder frames on both sides, for phones.
    num_seeds : int
        Seeds whose mean and spread are shown.
    name : str or None
        Of the files that are written, without ending, in the run's folder or with a path of
        their own; None for ``probe_`` and the label, or ``probe_phones``.

    Returns
    -------
    table : dict
        ``accuracies``, ``effective_rank`` and, with alignments, ``codes``; also in ``<name>.json``.

    Raises
    ------
    ValueError
        Where label and alignments are both given or both missing, or an input is not right.
    """
    if (label is None) == (alignments is None):
        raise ValueError(
            f"a probe reads either a label: or alignments:, got label={label!r}, "
            f"alignments={alignments!r}; give one of them"
        )
    for key, value, least in (("num_seeds", num_seeds, 1), ("context", context, 0)):
        if value < least:
            raise ValueError(f"{key} must be at least {least}, got {value}; raise it")
    brain = on_one_rank(brain)
    load = partial(
        load_utterances,
        data_folder=data_folder,
        brain=brain,
        label=label,
        alignments=None if alignments is None else find_alignments(alignments),
    )
    train, left_out = load(train, minutes=train_minutes)
    splits = {"train": train}
    for split, manifest in {"valid": valid, "test": test}.items():
        splits[split], more = load(manifest)
        left_out |= more
    bar = partial(progress_bar, brain)
    comparison = _Comparison(splits, pool=label is not None, bar=bar)
    _check_labels(comparison.labels)
    table = {
        "of": label or "phones",
        "utterances": {split: len(utterances) for split, utterances in splits.items()},
        "left_out": left_out,
        "num_seeds": num_seeds,
        "majority": majority_accuracy(comparison.labels),
    }
    seeds, rate = range(num_seeds), brain.hparams.sample_rate
    if label is None:

        def log_mel(utterance):
            times = brain.frame_times(utterance.num_frames)
            return [log_mel_windows(utterance.sig, rate, times, context)]

        table["codes"] = _codes(brain, splits, bar)
    else:
        context = 0

        def log_mel(utterance):
            return [log_mel_frames(utterance.sig, rate)]

    comparison.add("log-mel", log_mel, seeds)
    for seed in seeds:
        fresh = untrained(brain, hparams_file, overrides or {}, seed)
        of_all = f" {seed + 1} of {num_seeds}"
        comparison.add_encoder("untrained encoder", fresh, [seed], context, shown=of_all)
    comparison.add_encoder("pretrained encoder", brain, seeds, context)
    table["accuracies"] = {n: summarise(by_seed) for n, by_seed in comparison.accuracies.items()}
    table["effective_rank"] = {n: np.mean(r, 0).tolist() for n, r in comparison.ranks.items()}

    path = os.path.join(brain.run_log.folder, name or f"probe_{table['of']}")
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

    def add_encoder(self, name, brain, seeds, context, *, shown=""):
        """Adds an encoder: all its layers, and the effective rank of their test frames."""

        def frames(utterance):
            return [layer[: utterance.num_frames] for layer in encode(brain, utterance.sig)]

        self.add(name, frames, seeds, context=context, rank=True, shown=shown)

    def add(self, name, represent, seeds, *, context=0, rank=False, shown=""):
        """Adds what a function makes of an utterance: a list of layers, arrays (frames, dim)."""
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
    """Tells of labels that no classifier can get right; a ValueError where that is all of them."""
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


def _codes(brain, splits, bar):
    """What the codes of all frames say about their phones: the more frames, the less bias."""
    logger.info("Probe: codes")
    codes, phones = [], []
    utterances = [utterance for split in splits.values() for utterance in split]
    for utterance in bar(utterances, "codes", " utterances"):
        codes.append(quantise(brain, utterance.sig))
        phones.append(utterance.labels[: len(codes[-1])])
    return code_phone_statistics(np.concatenate(codes), np.concatenate(phones))
