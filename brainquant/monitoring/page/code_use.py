"""How often each code was a target, as a part of a page."""

# G codebooks, V codes
from __future__ import annotations

import numpy as np
from markupsafe import Markup

from .chart import Chart, Curve, chart
from .render import PageSection

MOST_CODEBOOKS = 6  # that a chart can tell apart
MOST_RANKS = 150
DASHES = ("", "7 4", "1 4", "7 3 2 3", "12 4", "3 3")


def code_use_section(counts_GV: np.ndarray) -> PageSection:
    """The share of frames of each code, the commonest first, beside uniform use.

    Arguments
    ---------
    counts_GV : np.ndarray
        How often each code was a target in the whole run, (G, V) integers.

    Returns
    -------
    section : PageSection

    Example
    -------
    >>> section = code_use_section(np.array([[6, 2, 0, 0]]))
    >>> section.anchor, "2 of 4 codes were never a target" in section.body
    ('code-use', True)
    """
    codebooks, codes = counts_GV.shape
    curves = []
    for index, counts_V in enumerate(counts_GV[:MOST_CODEBOOKS]):
        used_V = np.sort(counts_V[counts_V > 0])[::-1] / max(1, counts_V.sum())
        if len(used_V):
            ranks = np.unique(np.geomspace(1, len(used_V), MOST_RANKS).round().astype(int))
            name = f"codebook {index + 1}" if codebooks > 1 else "share of frames"
            dash, lone = DASHES[index % len(DASHES)], len(used_V) == 1
            shares = used_V[ranks - 1].tolist()
            curves.append(Curve(name, ranks.tolist(), shares, 0, index, dash, lone))
    curves.append(Curve("uniform use", [1, codes], [1 / codes] * 2, 0, -1, "2 3"))
    dead = ", ".join(f"{n:,}" for n in (counts_GV == 0).sum(1)[:MOST_CODEBOOKS].tolist())
    note = f"{dead} of {codes:,} codes were never a target"
    if codebooks > 1:
        note = f"{note}, in codebook 1 to {min(codebooks, MOST_CODEBOOKS)}"
    if codebooks > MOST_CODEBOOKS:
        note += f"; the other {codebooks - MOST_CODEBOOKS} codebooks are not shown"
    drawn = chart(
        Chart(
            "How often each code was a target",
            curves,
            x_label="rank of the code",
            log=True,
            log_x=True,
            percent=True,
            note=note,
        )
    )
    body = Markup('<div class="charts">\n{}</div>').format(drawn)
    return PageSection("code-use", "Use of the codes", body)
