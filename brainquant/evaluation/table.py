"""Writes the results of a probe as a table of text."""

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
from speechbrain.utils.logger import get_logger

from .comparison import ENCODERS

logger = get_logger(__name__)

KINDS = {"within": "within a speaker", "across": "across speakers"}


def format_table(table: Mapping[str, Any]) -> str:
    """Formats the results as lines of at most 80 columns.

    Arguments
    ---------
    table : dict
        The result of ``probe``.

    Returns
    -------
    text : str
    """
    lines = [*describe_probe(table, f"Linear probe of {table['of']}"), *rows_of(table)]
    by_seed = [np.array(table["accuracies"][name]["layers"]) for name in ENCODERS]
    means, spreads = [x.mean(0) for x in by_seed], [x.std(0) for x in by_seed]
    ranks = [table["effective_rank"][name] for name in ENCODERS]
    lines += ["", f"  {'':<9}{'accuracy':<33}effective rank of the test frames"]
    lines.append(f"  {'':<9}{'untrained':<14}{'pretrained':<19}{'untrained':<12}pretrained")
    for k in range(len(ranks[0])):
        shown = [format_accuracy(mean[k], std[k]) for mean, std in zip(means, spreads)]
        accuracies = "   ".join(shown)
        lines.append(f"  layer {k + 1:<3}{accuracies}   {ranks[0][k]:14.1f}{ranks[1][k]:13.1f}")

    if "codes" in table:
        codes = table["codes"]
        lines += ["", f"  {codes['frames']:,} frames".ljust(25) + "codes   shuffled"]
        for key in ("phone_purity", "cluster_purity", "pnmi"):
            name = key.replace("_", " ").replace("pnmi", "PNMI")
            lines.append(f"  {name:<22}{codes[key]:6.3f}{codes['shuffled'][key]:11.3f}")
        lines.append(f"  {'code perplexity':<22}{codes['code_perplexity']:6,.0f}")
    if "abx" in table:
        lines += ["", *_abx_lines(table["abx"])]
    return "\n".join(lines)


def describe_probe(table: Mapping[str, Any], opening: str) -> list[str]:
    """Lines that say how a probe was made."""
    utterances = table["utterances"]
    return textwrap.wrap(
        f"{opening}: accuracy in % on {utterances['test']} test utterances, fitted on two thirds "
        f"of {utterances['train']}; mean and spread of {table['num_seeds']} seeds; layers chosen "
        f"on validation",
        80,
    )


def rows_of(table: Mapping[str, Any]) -> list[str]:
    """A line for each representation, and one for the majority class."""
    lines = []
    for name, row in table["accuracies"].items():
        layer = f"   layer {row['best_layer']}" if name in ENCODERS else ""
        accuracy = format_accuracy(row["mean"], row["spread"])
        # Files of earlier versions do not say how many.
        inputs = f"   of {row['inputs']:5,} inputs" if "inputs" in row else ""
        lines.append(f"  {name:<20}{accuracy}{inputs}{layer}")
    return [*lines, f"  {'majority class':<20}{100 * table['majority']:5.1f}"]


def _abx_lines(abx: Mapping[str, Any]) -> list[str]:
    """ABX errors: one line for what has no layers, then one for each layer."""
    kinds = [kind for kind in ("within", "across") if abx[kind]]
    lines = [
        f"ABX error in % of {abx['phones']:,} test phones of {abx['speakers']} speakers; chance 50",
        f"  {'':<20}" + "".join(f"{KINDS[kind]:<24}" for kind in kinds).rstrip(),
    ]
    for name in abx[kinds[0]]:
        if name not in ENCODERS:
            errors = "".join(f"{100 * abx[kind][name][0]:5.1f}{'':<19}" for kind in kinds)
            lines.append(f"  {name:<20}{errors}".rstrip())
    columns = "".join(f"{'untrained':<12}{'pretrained':<12}" for _ in kinds)
    lines += ["", f"  {'':<20}{columns}".rstrip()]
    for k in range(len(abx[kinds[0]][ENCODERS[0]])):
        errors = "".join(
            f"{100 * abx[kind][name][k]:5.1f}{'':<7}" for kind in kinds for name in ENCODERS
        )
        lines.append(f"  layer {k + 1:<14}{errors}".rstrip())
    return lines


def log_table(table: Mapping[str, Any]) -> None:
    """Logs the table. ``brainquant probe`` prints it instead and turns this logger off."""
    logger.info(format_table(table))


def format_accuracy(mean: float, spread: float) -> str:
    """Mean and spread in %, 12 characters.

    Example
    -------
    >>> format_accuracy(0.5, 0.012)
    ' 50.0 +- 1.2'
    """
    return f"{100 * mean:5.1f} +- {100 * spread:.1f}"
