"""The health of a run: one rule for the warnings of its log and the heading of its report.

Shape suffixes: G codebooks, V codes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

MIN_PERPLEXITY = 2.0  # a codebook below it has collapsed
EASY_ACCURACY, EASY_LOSS = 0.99, 0.05  # a run that passes both has collapsed
MIN_GAIN = 0.1  # nats: a loss that is less than this below its reference has learned nothing
# Masked codes as easy as unmasked ones, and far below the reference, do not come from the speech.
AS_EASY, FAR_BELOW = 1.1, 1.0  # a factor, nats
WARMUPS = 2  # the loss is judged after so many times the warm-up
LOSS_REFERENCES = {"unigram_loss": "the unigram", "chance_loss": "chance"}
START_LOSS = "start_loss"  # of the model that a run began with; only validations have it
WORST_FIRST = ("diverged", "collapse", "not_of_speech", "worse_than_start", "not_learning")
ACCURACY_REFERENCES = {"chance_accuracy": "chance", "commonest_code": "commonest code"}


class HealthWarning(NamedTuple):
    """Something that is wrong with a run.

    Attributes
    ----------
    finding : str
        What is wrong, with its numbers: the heading of the report.
    advice : str
        What to try. The log shows both.
    """

    finding: str
    advice: str


def health_warnings(
    record: Mapping[str, Any], codebook_size: int, warmup_steps: int = 0
) -> dict[str, HealthWarning]:
    """What is wrong with a run, from one of its log points.

    Arguments
    ---------
    record : dict
        A line of metrics.jsonl. A point without frames (``frames`` is 0) gives no warning.
    codebook_size : int
        Codes of each codebook.
    warmup_steps : int
        After twice as many steps the loss has to be below its reference.

    Returns
    -------
    warnings : dict of str to HealthWarning
        By name, the worst first: see ``WORST_FIRST``.

    Example
    -------
    >>> record = {"step": 900, "loss": 0.001, "accuracy": 1.0, "code_perplexity": [1.0]}
    >>> list(health_warnings(record, 320))
    ['collapse']
    """
    if not _is_measured(record):
        return {}
    warnings = {}
    stage, step = record.get("stage", "train"), record["step"]
    where = f"at step {step:,.0f} ({stage})"
    loss, accuracy = _number(record, "loss"), _number(record, "accuracy")
    if not math.isfinite(loss):
        warnings["diverged"] = HealthWarning(
            f"diverged: the loss {where} is not finite",
            "Try a lower lr: or a longer warmup_steps:",
        )
    lowest, codebook, codebooks = _lowest_perplexity(record)
    cap = _cap(record, codebook_size)
    # With two codes, or with few frames, a perplexity of 2 is out of reach.
    floor = min(MIN_PERPLEXITY, (1 + cap) / 2)
    if lowest < floor or (accuracy > EASY_ACCURACY and loss < EASY_LOSS):
        which = f" (codebook {codebook} of {codebooks})" if codebooks > 1 else ""
        facts = [f"perplexity {lowest:.1f} of {_ceiling(cap, codebook_size)}{which}"]
        facts += [f"loss {loss:.4f}"] if math.isfinite(loss) else []
        facts += [f"accuracy {accuracy:.1%}"] if math.isfinite(accuracy) else []
        warnings["collapse"] = HealthWarning(
            f"codes have collapsed {where}: {', '.join(facts)}",
            "Targets that are all alike teach the encoder nothing, however low the loss. Try a "
            "lower lr:, a higher aux_weight: (wav2vec 2.0), features of zero mean and unit "
            "variance (BEST-RQ), and listen to the data",
        )
    # The mean of a training epoch still holds steps of the warm-up.
    is_current = stage != "train" or record.get("span") != "epoch"
    is_warm = is_current and step >= max(1, WARMUPS * warmup_steps)
    if is_warm and loss > (start := _number(record, START_LOSS)):
        warnings["worse_than_start"] = HealthWarning(
            f"worse than not having trained: {where}, the loss {loss:.3f} is "
            f"{gain_on_start(loss, start)} ({start:.3f})",
            "Until a validation is better, the model that the run began with is the better one. "
            "Try a lower lr:, layer_decay: 0.9, pull_to_start: 1, or a longer warmup_steps:",
        )
    name, reference = loss_reference(record)
    unmasked = _number(record, "unmasked_loss")
    if is_warm and loss < AS_EASY * unmasked and reference - loss > FAR_BELOW:
        warnings["not_of_speech"] = HealthWarning(
            f"the codes say nothing of speech {where}: those of masked frames (loss {loss:.3f}) "
            f"are as easy as those of unmasked ones ({unmasked:.3f})",
            "They may say where a frame is in its clip. Take relative positions in place of "
            "absolute ones, as in attention_type: RelPosMHAXL or RoPEMHA",
        )
    if is_warm and reference - loss < MIN_GAIN:
        warnings["not_learning"] = HealthWarning(
            f"not learning: after warm-up, {where}, the loss {loss:.3f} is not {MIN_GAIN:g} nats "
            f"below its reference {reference:.3f} ({name})",
            "The reference knows nothing of the audio. Try another lr: (3 times lower and higher), "
            "a longer warmup_steps:, or larger batches",
        )
    return warnings


def verdict(
    points: Sequence[Mapping[str, Any]], counts_GV: np.ndarray, warmup_steps: int = 0
) -> tuple[str, str]:
    """The health of a run in one line, from the last training and validation points of its log.

    Arguments
    ---------
    points : list of dict
        Lines of metrics.jsonl in the order of their steps.
    counts_GV : np.ndarray
        How often each code was a target in the whole run, shape (codebooks, codes).
    warmup_steps : int
        As for ``health_warnings``.

    Returns
    -------
    text : str
        The first warning or, if there is none, the numbers of the run.
    state : str
        "bad" if ``health_warnings`` finds something in one of these points; "good" if it does not
        and the loss is clearly below its reference; else "unknown".

    Example
    -------
    >>> point = {"step": 9, "stage": "valid", "loss": 3.0, "unigram_loss": 4.0}
    >>> verdict([point], np.ones((1, 8)))
    ('valid loss 3.00, 1.00 nats below the unigram · 0 % dead codes', 'good')
    """
    codes = counts_GV.shape[1]
    latest = {point.get("stage"): point for point in points if _is_measured(point)}
    judged = [latest[stage] for stage in ("valid", "train") if stage in latest]
    if not judged:
        return "nothing was logged yet" if not points else "no loss was logged yet", "unknown"
    found = [health_warnings(record, codes, warmup_steps) for record in judged]
    for name in WORST_FIRST:
        for warnings in found:
            if name in warnings:
                return warnings[name].finding, "bad"
    return _numbers_of(judged[0], counts_GV)


def _numbers_of(record, counts_GV):
    """The numbers of a healthy record in one line, and whether they are "good" or "unknown"."""
    loss, accuracy, state = _number(record, "loss"), _number(record, "accuracy"), "unknown"
    parts = [f"{record['stage']} loss {loss:.2f}"]
    if math.isfinite(start := _number(record, START_LOSS)) and math.isfinite(loss):
        parts[0] += f", {gain_on_start(loss, start)}"
    name, reference = loss_reference(record)
    if name:
        gain = reference - loss
        parts[0] += f", {abs(gain):.2f} nats {'below' if gain >= 0 else 'above'} {name}"
        good = gain >= MIN_GAIN and not loss > start
        state = "good" if good else "unknown"  # in the warm-up
    if math.isfinite(accuracy):
        shares = {name: _number(record, key) for key, name in ACCURACY_REFERENCES.items()}
        known = [f" ({name} {_percent(x)})" for name, x in shares.items() if math.isfinite(x)]
        parts.append(f"accuracy {_percent(accuracy)}{''.join(known[:1])}")
    perplexity = float(np.mean(_perplexities(record)))
    if math.isfinite(perplexity):
        codebooks, codes = counts_GV.shape
        ceiling = _ceiling(_cap(record, codes), codes)
        each = " per codebook" if codebooks > 1 else ""
        parts.append(f"perplexity {short(perplexity)} of {ceiling}{each}")
    if counts_GV.any():
        parts.append(f"{_percent((counts_GV == 0).mean())} dead codes")
    return " · ".join(parts), state


def _is_measured(record):
    return "loss" in record and record.get("frames") != 0


def _number(record, key):
    """A value of the record; NaN if it has none, since JSON writes null for NaN."""
    value = record.get(key)
    return float(value) if isinstance(value, (int, float)) else math.nan


def _perplexities(record):
    """The perplexity of each codebook; NaN if it was not logged."""
    values = record.get("code_perplexity")
    return np.atleast_1d(np.array(math.nan if values is None else values, dtype=float))


def _lowest_perplexity(record):
    """The lowest perplexity, the codebook that has it (from 1), and the number of codebooks."""
    values_G = _perplexities(record)
    return float(values_G.min()), int(values_G.argmin()) + 1, len(values_G)


def _cap(record, codes):
    """The highest perplexity that so many codes and frames allow."""
    cap = _number(record, "perplexity_cap")
    return min(cap, codes) if math.isfinite(cap) else codes


def _ceiling(cap, codes):
    return short(codes) if cap > codes - 0.5 else f"at most {short(cap)} (few frames)"


def gain_on_start(loss: float, start_loss: float) -> str:
    """How far a loss is from that of the model that the run began with.

    Example
    -------
    >>> gain_on_start(4.23, 4.5)
    '0.27 nats below the model as it came'
    """
    side = "below" if loss <= start_loss else "above"
    return f"{short(abs(loss - start_loss))} nats {side} the model as it came"


def loss_reference(record: Mapping[str, Any]) -> tuple[str, float]:
    """The name and value of the reference of the loss; ("", NaN) if none was logged."""
    for key, name in LOSS_REFERENCES.items():
        if math.isfinite(_number(record, key)):
            return name, _number(record, key)
    return "", math.nan


def short(value: float, _: object = None) -> str:
    """A number in three digits or a few more; the second argument is matplotlib's.

    Example
    -------
    >>> short(0.12345), short(1024.4)
    ('0.123', '1,024')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _percent(share):
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.2g} %"


def unigram_loss(counts_GV: torch.Tensor, train_counts_GV: torch.Tensor) -> float:
    """Cross-entropy of always predicting the frequencies of the training codes, in nats per code.

    A loss has to be lower than this. Uniform chance is too easy a reference when a few codes
    dominate. A code that was never seen in training counts as seen half a time.

    Arguments
    ---------
    counts_GV : torch.Tensor
        Counts of the codes to predict.
    train_counts_GV : torch.Tensor
        Counts of the codes in training so far.

    Returns
    -------
    loss : float
        Mean of the codebooks.

    Example
    -------
    >>> counts = torch.tensor([[5, 5, 5, 5]])
    >>> round(unigram_loss(counts, 1000 * counts), 4)  # ln 4
    1.3863
    """
    counts_GV = counts_GV.double().cpu()
    train_GV = train_counts_GV.double().cpu().clamp(min=0.5)
    log_GV = torch.log(train_GV / train_GV.sum(1, keepdim=True))
    cross_G = -(counts_GV * log_GV).sum(1) / counts_GV.sum(1).clamp(min=1)
    return float(cross_G.mean())
