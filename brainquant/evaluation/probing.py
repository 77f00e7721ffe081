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
from .abx import import_fastabx
from .code_phones import code_phone_statistics
from .comparison import PRETRAINED, Comparison
from .figure import draw_probe
from .frozen import quantise
from .progress import progress_bar
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
    subject: Subject, manifests: Mapping[str, str], *, path: str, **options: Any
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
    path : str
        Path of the files without ending.
    **options : object
        More of ``prepare_comparison``, which has the errors.

    Returns
    -------
    table : dict
        ``accuracies``, ``effective_rank`` and, with alignments, ``codes``; with ``abx`` also that;
        also in ``<path>.json``.
    """
    comparison, table = prepare_comparison(subject, manifests, **options)
    if not comparison.pool and subject.quantiser is not None:
        table["codes"] = _codes(comparison, subject)
    comparison.add_references(subject)
    comparison.add_encoder(PRETRAINED, subject.encoder)
    table |= comparison.table()
    write_whole(path + ".json", json.dumps(table, indent=1))
    draw_probe(table, path + ".png")
    log_table(table)
    return table


def prepare_comparison(
    subject: Subject,
    manifests: Mapping[str, str],
    *,
    data_folder: str,
    label: str | None = None,
    alignments: str | None = None,
    abx: bool = False,
    train_minutes: float | None = None,
    context: int = 1,
    num_seeds: int = 3,
) -> tuple[Comparison, dict[str, Any]]:
    """Reads the utterances that representations are compared on.

    Arguments
    ---------
    subject : Subject
        An encoder.
    manifests : Mapping of str to str
        Those of ``train``, ``valid`` and ``test`` utterances.
    data_folder : str
        Value of ``$data_root`` in the manifests.
    label : str or None
        Column of the manifests, such as ``spk_id``. Either this or
    alignments : str or None
        Folder of phone alignments, ``<ID>.tsv`` at any depth.
    abx : bool
        Whether to measure ABX errors of the test phones, too: ``abx_errors``. The manifest of the
        test utterances needs a column ``spk_id``.
    train_minutes : float or None
        Minutes of speech to fit on; None for all.
    context : int
        Encoder frames on both sides, for phones.
    num_seeds : int
        Seeds; their mean and spread are shown.

    Returns
    -------
    comparison : Comparison
        Without any representation yet.
    table : dict
        What is known before anything is measured.

    Raises
    ------
    ImportError
        If ABX errors are wanted, and fastabx is not installed.
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
    if abx and alignments is None:
        raise ValueError(f"abx: compares phones, got label={label!r}; give alignments: instead")
    if abx:
        import_fastabx()
    hidden = subject.without_bars
    load = partial(
        load_utterances,
        data_folder=data_folder,
        encoder=subject.encoder,
        label=label,
        alignments=None if alignments is None else find_alignments(alignments),
        hidden=hidden,
    )
    splits, left_out = {}, {}
    for split, manifest in manifests.items():
        minutes = train_minutes if split == "train" else None
        splits[split], more = load(manifest, minutes=minutes, speakers=abx and split == "test")
        left_out |= more
    comparison = Comparison(
        splits,
        subject.encoder,
        seeds=range(num_seeds),
        pool=label is not None,
        context=0 if label is not None else context,
        abx=abx,
        bar=partial(progress_bar, hidden),
    )
    return comparison, {
        "of": label or "phones",
        "utterances": {split: len(utterances) for split, utterances in splits.items()},
        "left_out": left_out,
        "num_seeds": num_seeds,
    }


def _codes(comparison: Comparison, subject: Subject) -> dict[str, Any]:
    """Statistics of codes and phones over the frames of all splits: more frames, less bias."""
    logger.info("Probe: codes")
    codes = {
        split: [
            quantise(subject.encoder, subject.quantiser, utterance.sig)
            for utterance in comparison.bar(utterances, f"codes, {split}", " utterances")
        ]
        for split, utterances in comparison.splits.items()
    }
    if comparison.phones is not None:
        comparison.add_abx("codes", [codes["test"]])
    pairs = [
        (codes_TG, phones_T[: len(codes_TG)])
        for split, of_split in codes.items()
        for codes_TG, phones_T in zip(of_split, comparison.labels[split])
    ]
    return code_phone_statistics(*map(np.concatenate, zip(*pairs)))
