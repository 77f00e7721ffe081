"""Helpers for the preparation of every corpus: threads, CSV, and files that are written whole."""

import csv
import io
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.pool import ThreadPool
from typing import Any, TypeVar

from tqdm import tqdm

NUM_THREADS = 16

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_threads(
    function: Callable[[Job], Result], jobs: Sequence[Job], *, num_workers: int | None, unit: str
) -> Iterator[Result]:
    """Yields the result of each job, in order, and shows a progress bar with the ``unit`` of jobs.

    Threads spend most of the time waiting for the disk, and a network disk serves many requests at
    once faster. Processes would read more from memory, but a process that uses a GPU should not
    fork. ``num_workers`` None takes 16 threads.

    Example
    -------
    >>> list(in_threads(abs, [-1, -2], num_workers=2, unit="number"))
    [1, 2]
    """
    if num_workers is not None and num_workers < 1:
        raise ValueError(
            f"num_workers must be at least 1, got num_workers={num_workers}; null takes "
            f"{NUM_THREADS} threads"
        )
    with ThreadPool(num_workers or NUM_THREADS) as pool:
        results = pool.imap(function, jobs)
        yield from tqdm(results, total=len(jobs), unit=f" {unit}", disable=None)


def to_csv(rows: Iterable[Iterable[Any]]) -> str:
    """The text of a CSV file.

    Example
    -------
    >>> to_csv([("ID", "wav"), ("a", "x, y.wav")])
    'ID,wav\\na,"x, y.wav"\\n'
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def write_whole(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a file whole or not at all, even if two runs write it at once.

    Makes its folder if needed. Text becomes UTF-8.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> write_whole(folder / "a.txt", "é")
    >>> [path.read_bytes() for path in folder.iterdir()]
    [b'\\xc3\\xa9']
    """
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    part = f"{os.fspath(path)}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with open(part, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.replace(part, path)
    finally:
        if os.path.exists(part):
            os.remove(part)
