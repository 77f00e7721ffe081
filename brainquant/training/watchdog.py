"""Ends a run that hangs, and names the rank that hangs and what it was doing."""

import json
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

from speechbrain.utils.logger import get_logger

# torch documents both as public, but its type hints do not export them.
from torch.distributed import PrefixStore, TCPStore  # pyright: ignore[reportPrivateImportUsage]

from ..errors import error_line, rank_from_environment, tell_torchrun

logger = get_logger(__name__)

STORE_TIMEOUT = timedelta(seconds=5)
# The process ends after this time even if asking other ranks or writing the message hangs too.
LAST_WORDS_SECONDS = 10

# What a rank publishes: ticks, phase, time of the last tick, host, process number, and whether it
# waits for others. None: it has published nothing.
Entry = list[Any] | None


class Watchdog:
    """A thread that ends the process if its main thread has not ticked for too long.

    If one rank hangs, all others wait for it in a collective, for hours. All ranks go through the
    same phases in the same order. So the rank with the fewest ticks is the one to blame: tick
    before each thing that may take long, collectives included. If several ranks have the fewest
    ticks, those inside torch's collectives only wait for the others.

    The ranks exchange their counts through the store of the process group. So a rank that is
    stopped or gone is still known by its last count. Each rank ends itself, the waiting ones too.

    Time is counted in polls of the thread. So the time while the machine sleeps or the process is
    stopped does not count. Code that hangs while it holds Python's lock stops this thread as well;
    then the other ranks end the run.

    Arguments
    ---------
    minutes : float or None
        How long is too long, ``hang_minutes:`` of the YAML; 0 and None mean no limit.

    Example
    -------
    >>> with Watchdog(10) as watchdog:
    ...     watchdog.tick("reading a batch")
    ...     watchdog.tick("a training step")
    ...     watchdog.progress[:2]
    (2, 'a training step')
    """

    def __init__(self, minutes: float | None):
        self.minutes = minutes or 0
        self.rank, self.ranks = rank_from_environment()
        self.progress: tuple[float, str, float] = (0, "before training", time.time())
        self._store = None
        self._stop = threading.Event()

    def tick(self, phase: str) -> None:
        """Notes that the main thread begins a new phase. Takes less than a microsecond."""
        # A single assignment, so no lock is needed.
        self.progress = (self.progress[0] + 1, phase, time.time())

    def __enter__(self) -> "Watchdog":
        if self.minutes:
            self._stop.clear()
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.minutes:
            self.progress = (math.inf, "after training", time.time())  # never to blame
            self._stop.set()
            self._thread.join()

    def _watch(self):
        limit = self.minutes * 60
        interval = min(5.0, limit / 10)
        self._connect()
        seen, quiet = None, 0.0
        while not self._stop.wait(interval):
            self._publish()
            if self.progress is not seen:
                seen, quiet = self.progress, 0.0
            else:
                quiet += interval
            if quiet >= limit:
                self._end_process()
        self._publish()

    # ---- what ranks know of each other -----------------------------------------------------

    def _connect(self):
        """Connects to the store. The main thread may be using its own connection."""
        if self.ranks == 1:
            return
        try:
            store = TCPStore(
                os.environ["MASTER_ADDR"],
                int(os.environ["MASTER_PORT"]),
                is_master=False,
                timeout=STORE_TIMEOUT,
            )
        except (RuntimeError, KeyError) as error:
            logger.warning(f"the watchdog cannot compare the ranks: {error}")
            return
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self._store = PrefixStore(f"watchdog/{attempt}", store)
        self._publish()

    def _own(self):
        return [*self.progress, socket.gethostname(), os.getpid(), waits_for_others()]

    def _publish(self):
        if self._store is not None:
            with suppress(RuntimeError):  # without the store, this rank knows only itself
                self._store.set(str(self.rank), json.dumps(self._own()))

    def _read_others(self, store, board):
        """Adds the entries of the other ranks to the board."""
        with suppress(RuntimeError):
            for rank in set(range(self.ranks)) - {self.rank}:
                published = store.check([str(rank)])
                board[rank] = json.loads(store.get(str(rank))) if published else None

    # ---- the end ---------------------------------------------------------------------------

    def _end_process(self):
        """Names the rank that hangs and ends the process, even if the message cannot be written."""
        last = threading.Timer(LAST_WORDS_SECONDS, os._exit, [1])
        last.daemon = True
        last.start()
        board: dict[int, Entry] = {self.rank: self._own()}
        if self._store is not None:
            # In a thread, because a store whose process is stopped never answers.
            arguments = [self._store, board]
            reader = threading.Thread(target=self._read_others, args=arguments, daemon=True)
            reader.start()
            reader.join(LAST_WORDS_SECONDS / 2)
        blamed = ranks_to_blame(board := dict(board))
        line = error_line(hang_text({rank: board[rank] for rank in blamed}, self.minutes))
        # On a new line, below a progress bar. The code that hangs may hold the lock of sys.stderr.
        os.write(2, f"\n{line}\n".encode())
        tell_torchrun(line, at_fault=self.rank in blamed)
        if logger.hasHandlers():  # without a handler, logging would write to stderr once more
            logger.error(line)
        os._exit(1)


def ranks_to_blame(board: Mapping[int, Entry]) -> list[int]:
    """The ranks that all others wait for.

    Arguments
    ---------
    board : dict
        The entry of each known rank.

    Returns
    -------
    ranks : list of int

    Example
    -------
    >>> ranks_to_blame({0: [8, "a step", 0.0, "a", 1, True], 1: [7, "reading", 0.0, "b", 2, True]})
    [1]
    >>> ranks_to_blame({0: [8, "a step", 0.0, "a", 1, True], 1: [8, "a step", 0.0, "b", 2, False]})
    [1]
    >>> ranks_to_blame({0: [8, "a step", 0.0, "a", 1, False], 1: None})
    [1]
    """
    ticks = {rank: -1 if entry is None else entry[0] for rank, entry in board.items()}
    behind = sorted(rank for rank in board if ticks[rank] == min(ticks.values()))
    busy = [rank for rank in behind if (entry := board[rank]) is not None and not entry[5]]
    return busy or behind


def waits_for_others() -> bool:
    """Whether the main thread is inside a collective of torch."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    if frame is None:
        return False
    path = frame.f_code.co_filename.replace(os.sep, "/")
    return "torch/distributed/" in path or path.endswith("torch/nn/parallel/distributed.py")


def hang_text(entries: Mapping[int, Entry], minutes: float) -> str:
    """Says which ranks hang and what to do; ``entries`` are those of the ranks to blame."""
    where = []
    for rank, entry in entries.items():
        if entry is None:
            where.append(f"rank {rank} has not begun to train")
            continue
        _, phase, since, host, process, _ = entry
        seconds = max(time.time() - since, 0.0)
        where.append(
            f"rank {rank} (host {host}, process {process}) was last seen at {phase!r}, "
            f"{seconds:.0f} s ago"
        )
    return (
        f"the run hangs: {'; '.join(where)}; look at that machine, or set hang_minutes: higher "
        f"than {minutes:g} if that may take so long"
    )
