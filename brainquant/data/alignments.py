"""Alignments: which phone sounds when. One file per utterance, tab-separated, with a header."""

HEADER = "start\tend\tphone"


def read_alignment(path):
    """Reads the phones of one utterance.

    Arguments
    ---------
    path : str or os.PathLike
        A file with the header "start<TAB>end<TAB>phone" and one phone per line, times in seconds.

    Returns
    -------
    list of tuple
        (start, end, phone), as float, float, str.

    Raises
    ------
    ValueError
        If the file is not such a table.

    Example
    -------
    >>> path = getfixture("tmpdir").join("a.tsv")
    >>> path.write("start\\tend\\tphone\\n0.0\\t0.25\\tSIL\\n0.25\\t0.3125\\ts\\n")
    >>> read_alignment(path)
    [(0.0, 0.25, 'SIL'), (0.25, 0.3125, 's')]
    """
    with open(path, encoding="utf-8") as file:
        header, *lines = file.read().splitlines() or [""]
    try:
        if header != HEADER:
            raise ValueError(header)
        rows = [line.split("\t") for line in lines]
        return [(float(start), float(end), phone) for start, end, phone in rows]
    except ValueError as error:
        raise ValueError(
            f"an alignment must have the header {HEADER!r} and three columns, got {path}; "
            "delete the file and prepare the corpus again"
        ) from error
