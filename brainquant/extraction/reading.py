"""Reads the clips of the next batches while the model computes."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

AHEAD = 2  # batches that are read while one is used


class ReadAhead(Generic[Job, Result]):
    """Iterates over batches; threads read the jobs of the next ones.

    Threads share the memory of the process, and decoders do not hold Python's lock.

    Arguments
    ---------
    read : callable
        Reads a job. Its errors are raised when the batch is reached.
    batches : iterable
        Each has its jobs.
    num_workers : int
        The number of threads.

    Attributes
    ----------
    waited : float
        Seconds that the iteration has waited for reading.

    Example
    -------
    >>> list(ReadAhead(abs, [[-1, -2], [-3]], num_workers=2))
    [[1, 2], [3]]
    """

    def __init__(
        self, read: Callable[[Job], Result], batches: Iterable[Iterable[Job]], *, num_workers: int
    ) -> None:
        self._read = read
        self._batches = batches
        self._num_workers = num_workers
        self.waited = 0.0

    def __iter__(self) -> Generator[list[Result], None, None]:
        queue: collections.deque[list[Future[Result]]] = collections.deque()
        pool = ThreadPoolExecutor(self._num_workers, thread_name_prefix="reading")
        try:
            for batch in self._batches:
                queue.append([pool.submit(self._read, job) for job in batch])
                if len(queue) > AHEAD:
                    yield self._wait_for(queue.popleft())
            while queue:
                yield self._wait_for(queue.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _wait_for(self, futures: list[Future[Result]]) -> list[Result]:
        began = time.perf_counter()
        results = [future.result() for future in futures]
        self.waited += time.perf_counter() - began
        return results
