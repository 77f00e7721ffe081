"""Rows of several runs as text of at most 80 columns: side by side, or a line for each run."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .rows import Row

WIDTH, LABEL, GAP = 80, 26, 2
SIDE_BY_SIDE = 4  # runs at most
LONGEST, LONGEST_LABEL = 24, 14  # of a cell and of its heading, where each run is a line
BETTER = " *"
# Lines break at spaces, behind signs, and before a capital letter of a class; no number is cut.
PIECES = re.compile(r"\s+|\d[\d.,]*[/_-]*|(?:[A-Z]+[^\sA-Z/_.,-]*|[^\sA-Z/_.,-]+)[/_.,-]*|.")


def lay_out(names: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Rows as lines, each group under its heading.

    Up to four runs stand side by side. More runs are lines, of as many blocks as are needed.

    Arguments
    ---------
    names : sequence of str
        Those of the runs.
    rows : sequence of Row
        Their numbers. One without a label is only a heading.

    Returns
    -------
    lines : list of str

    Example
    -------
    >>> rows = [Row("Loss", "valid", ["4.3", "4.1"], frozenset([1]))]
    >>> for line in lay_out(["a", "b"], rows): print(line)
                              a                          b
    Loss
      valid                   4.3                        4.1 *
    """
    if len(names) > SIDE_BY_SIDE:
        return _run_by_run(names, rows)
    width = (WIDTH - LABEL) // len(names) - GAP
    lines = _line("", names, width)
    group = ""
    for row in rows:
        if row.group != group:
            lines += [*([""] if group and row.group else []), *([row.group] if row.group else [])]
            group = row.group
        lines += _line(f"  {row.label}", _marked(row), width) if row.label else []
    return lines


def wrap(text: str, width: int) -> list[str]:
    """Lines of a width. What has no place to break is cut.

    Example
    -------
    >>> wrap("results/best_rq/seed_1234", 12), wrap("Wav2Vec2Extractor", 12)
    (['results/', 'best_rq/', 'seed_1234'], ['Wav2Vec2', 'Extractor'])
    """
    lines, line = [], ""
    for piece in PIECES.findall(text):
        if line and len((line + piece).rstrip()) > width:
            lines.append(line.rstrip())
            line, piece = "", piece.lstrip()
        line += piece
        while len(line.rstrip()) > width:
            lines.append(line[:width])
            line = line[width:]
    return [*lines, line.rstrip()] if line.strip() or not lines else lines


def _marked(row: Row) -> list[str]:
    """The cells with their marks; those without are as wide, so that numbers stand in a column."""
    none = " " * len(BETTER) if row.best else ""
    return [cell + (BETTER if n in row.best else none) for n, cell in enumerate(row.cells)]


def _line(label: str, cells: Sequence[str], width: int) -> list[str]:
    """One row, of as many lines as its longest cell needs."""
    indent = " " * (len(label) - len(label.lstrip()) + 2)
    head, *more = wrap(label.strip(), LABEL - GAP - len(indent) + 2)
    labels = [indent[2:] + head, *[indent + line for line in more]]
    columns = [labels, *[wrap(cell, width) for cell in cells]]
    lines = []
    for number in range(max(map(len, columns))):
        parts = [column[number] if number < len(column) else "" for column in columns]
        widths = [LABEL, *[width + GAP] * len(cells)]
        lines.append("".join(p.ljust(w) for p, w in zip(parts, widths)).rstrip())
    return lines


def _run_by_run(names: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """A line for each run, and a column for each row, in blocks that fit the width."""
    lines = []
    for number, name in enumerate(names, 1):
        first, *more = wrap(name, WIDTH - 5)
        lines += [f"{number:3}  {first}", *[f"     {line}" for line in more]]
    for group in dict.fromkeys(row.group for row in rows):
        lines += ["", group]
        block: list[list[list[str]]] = []
        used = 0
        for row in rows:
            if row.group == group and row.label:
                column = _column(row)
                width = GAP + len(column[0][0])
                if block and 3 + used + width > WIDTH:
                    lines += [*_block(block), ""]
                    block, used = [], 0
                block.append(column)
                used += width
        lines += _block(block) if block else []
    return lines


def _column(row: Row) -> list[list[str]]:
    """The lines of the label, then those of each run, all of one width."""
    cells = [wrap(cell, LONGEST) if len(cell) > LONGEST else [cell] for cell in _marked(row)]
    label = wrap(row.label.strip(), LONGEST_LABEL)
    width = max(len(line) for lines in (label, *cells) for line in lines)
    return [[line.rjust(width) for line in lines] for lines in (label, *cells)]


def _block(columns: Sequence[Sequence[Sequence[str]]]) -> list[str]:
    """Columns beside each other: the labels end on one line, the cells begin on one."""
    lines = []
    for number, parts in enumerate(zip(*columns)):
        height = max(map(len, parts))
        padded = []
        for part in parts:
            blank = [" " * len(part[0])] * (height - len(part))
            padded.append([*blank, *part] if number == 0 else [*part, *blank])
        for place, line in enumerate(zip(*padded)):
            run = f"{number:3}" if number and place == 0 else "   "
            lines.append((run + "".join(" " * GAP + text for text in line)).rstrip())
    return lines
