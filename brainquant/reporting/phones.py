"""How the codes of a run go with phones: measures, and a matrix with its table.

Shape suffixes: N frames, G codebooks, V codes, P phones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from ..evaluation.code_phones import code_phone_statistics
from ..monitoring.page import table
from .assets import fill
from .code_tables import CodeTable, order_by_phone
from .coded_speech import Clip
from .pixels import picture

MOST_COLUMNS, MOST_ROWS = 1000, 48  # codes and phones in the matrix
ROW, COLUMN = 13, 8  # pixels of a phone, and of a code if there is room
LEFT, WIDTH = 58, 1000  # pixels of the names, and of all codes
MEASURES = {  # of evaluation.code_phones: name and meaning
    "phone_purity": ("phone purity", "frames whose phone is the commonest one of their code"),
    "cluster_purity": ("cluster purity", "frames whose code is the commonest one of their phone"),
    "pnmi": ("PNMI", "the part of the phones' entropy that the codes explain"),
}


def share_text(share: Any) -> str:
    """A share for people.

    Example
    -------
    >>> share_text(0.1234), share_text(0.0012), share_text(0.00001)
    ('12 %', '0.12 %', '0.001 %')
    """
    digits = 0 if share >= 0.0995 else 1 if share >= 0.00995 else 2 if share >= 0.000995 else 3
    return f"{100 * share:.{digits}f} %"


def measures_table(clips: Sequence[Clip]) -> Markup:
    """Phone purity, cluster purity and PNMI of aligned clips, beside shuffled codes."""
    aligned = [(clip.codes_TG, clip.phones_T) for clip in clips if clip.phones_T is not None]
    codes_NG, phones_N = (np.concatenate(part) for part in zip(*aligned))
    found = code_phone_statistics(codes_NG, phones_N)
    mean = ", mean of the codebooks" if codes_NG.shape[1] > 1 else ""
    return table(
        ["measure", "codes", "shuffled", "meaning"],
        [
            [name, f"{found[key]:.3f}", f"{found['shuffled'][key]:.3f}", meaning]
            for key, (name, meaning) in MEASURES.items()
        ],
        caption=f"Codes and phones over {found['frames']:,} frames{mean}",
    )


def top_phones(shares_P: np.ndarray, phones: Sequence[str], most: int = 3) -> str:
    """The commonest phones of a code with their shares, without those below 5 %.

    Example
    -------
    >>> top_phones(np.array([0.2, 0.78, 0.02]), ["a", "b", "c"])
    'b 78 %, a 20 %'
    """
    best = np.argsort(-shares_P, kind="stable")[:most]
    return ", ".join(f"{phones[p]} {share_text(shares_P[p])}" for p in best if shares_P[p] >= 0.05)


def phone_matrix(of_codes: CodeTable, phones: Sequence[str]) -> Markup:
    """P(phone | code) as a picture whose diagonal shows, with a table of the same."""
    codes, order = order_by_phone(of_codes)
    shown = codes[np.isin(codes, of_codes.order[:MOST_COLUMNS])]
    rows = order[:MOST_ROWS]
    share_PV = of_codes.phone_share_VP[shown][:, rows].T
    names = [str(phones[p]) for p in order.tolist()]
    width, height = max(len(shown), min(COLUMN * len(shown), WIDTH)), ROW * len(rows)
    text = f"{_of(len(shown), len(codes))} codes from left to right, "
    text += f"{_of(len(rows), len(names))} phones from top to bottom"
    return fill(
        "matrix.html",
        text=text,
        left=LEFT,
        width=width,
        row=ROW,
        height=height,
        codes=shown.tolist(),
        phones=names[:MOST_ROWS],
        picture=picture(share_PV),
        table=_table_of_phones(of_codes, order, names),
    )


def _of(shown: int, total: int) -> str:
    """How many are shown, the commonest ones.

    Example
    -------
    >>> _of(3, 3), _of(2, 3)
    ('3', 'the 2 commonest of 3')
    """
    return f"{shown:,}" if shown == total else f"the {shown:,} commonest of {total:,}"


def _table_of_phones(of_codes: CodeTable, order: np.ndarray, names: Sequence[str]) -> Markup:
    """For each phone its share of the frames, and the codes that say it most clearly."""
    frames_VP = of_codes.frames_VP[:, order]
    share_VP = of_codes.phone_share_VP[:, order]
    commonest_V = np.where(frames_VP.sum(1) > 0, share_VP.argmax(1), -1)
    rows = []
    for row, name in enumerate(names):
        frames_V = frames_VP[:, row]
        best = [v for v in np.argsort(-frames_V, kind="stable")[:3] if frames_V[v]]
        listed = ", ".join(
            f"{v} ({share_text(share_VP[v, row])}, has {share_text(frames_V[v] / frames_V.sum())})"
            for v in best
        )
        share = frames_V.sum() / max(1, frames_VP.sum())
        rows.append([name, share_text(share), int((commonest_V == row).sum()), listed])
    return table(
        ["phone", "frames", "codes that are mostly it",
         "its commonest codes (P(phone | code), share of the phone's frames)"],
        rows, caption="Phones and their codes",
    )  # fmt: skip
