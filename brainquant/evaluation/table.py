"""Writes the results of a probe as a table of text."""

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

ENCODERS = ("untrained encoder", "pretrained encoder")


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
    seeds, utterances = table["num_seeds"], table["utterances"]
    lines = textwrap.wrap(
        f"Linear probe of {table['of']}: accuracy in % on {utterances['test']} test utterances, "
        f"fitted on two thirds of {utterances['train']}; mean and spread of {seeds} seeds; layers "
        f"chosen on validation",
        80,
    )
    for name, row in table["accuracies"].items():
        layer = f"   layer {row['best_layer']}" if name in ENCODERS else ""
        lines.append(f"  {name:<20}{_accuracy(row['mean'], row['spread'])}{layer}")
    lines.append(f"  {'majority class':<20}{100 * table['majority']:5.1f}")

    by_seed = [np.array(table["accuracies"][name]["layers"]) for name in ENCODERS]
    means, spreads = [x.mean(0) for x in by_seed], [x.std(0) for x in by_seed]
    ranks = [table["effective_rank"][name] for name in ENCODERS]
    lines += ["", f"  {'':<9}{'accuracy':<33}effective rank of the test frames"]
    lines.append(f"  {'':<9}{'untrained':<14}{'pretrained':<19}{'untrained':<12}pretrained")
    for k in range(len(ranks[0])):
        accuracies = "   ".join(_accuracy(mean[k], std[k]) for mean, std in zip(means, spreads))
        lines.append(f"  layer {k + 1:<3}{accuracies}   {ranks[0][k]:14.1f}{ranks[1][k]:13.1f}")

    if "codes" in table:
        codes = table["codes"]
        lines += ["", f"  {codes['frames']:,} frames".ljust(25) + "codes   shuffled"]
        for key in ("phone_purity", "cluster_purity", "pnmi"):
            name = key.replace("_", " ").replace("pnmi", "PNMI")
            lines.append(f"  {name:<22}{codes[key]:6.3f}{codes['shuffled'][key]:11.3f}")
        lines.append(f"  {'code perplexity':<22}{codes['code_perplexity']:6,.0f}")
    return "\n".join(lines)


def log_table(table: Mapping[str, Any]) -> None:
    """Logs the table. ``brainquant probe`` prints it instead and turns this logger off."""
    logger.info(format_table(table))


def _accuracy(mean, spread):
    return f"{100 * mean:5.1f} +- {100 * spread:.1f}"
