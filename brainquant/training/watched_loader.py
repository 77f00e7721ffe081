"""A loader whose batches are watched: by the watchdog, and for clips that are left out."""

from collections.abc import Callable, Iterator
from typing import Any

from .left_out import LeftOut
from .watchdog import Watchdog


class WatchedLoader:
    """Gives the batches of a loader, and reports each of them.

    Arguments
    ---------
    loader : torch.utils.data.DataLoader
        Its batches have ``left_out``.
    stage : str
        "training" or "validation".
    watchdog : Watchdog
        Gets a tick before each batch is read and before it is used.
    left_out : LeftOut
        Notes the clips that were left out.
    after_batch : callable
        Is called after each batch has been used.

    Example
    -------
    >>> from brainquant.monitoring.run_log import RunLog
    >>> left_out = LeftOut(RunLog(str(getfixture("tmpdir")), []), max_bad_audio=0.5)
    >>> class Batch:
    ...     left_out = [("a", "a.wav: cannot be read")]
    >>> loader = WatchedLoader([Batch()], "training", Watchdog(0), left_out)
    >>> len(loader), len(list(loader)), left_out.new
    (1, 1, {'a': 'a.wav: cannot be read'})
    """

    def __init__(
        self,
        loader: Any,
        stage: str,
        watchdog: Watchdog,
        left_out: LeftOut,
        after_batch: Callable[[], None] = lambda: None,
    ) -> None:
        self.loader = loader
        self.stage = stage
        self.watchdog = watchdog
        self.left_out = left_out
        self.after_batch = after_batch

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        self.watchdog.tick(f"reading a {self.stage} batch")
        for batch in self.loader:
            self.watchdog.tick(f"a {self.stage} batch")
            self.left_out.note(batch.left_out)
            yield batch
            self.after_batch()
            self.watchdog.tick(f"reading a {self.stage} batch")
        self.watchdog.tick(f"the end of a {self.stage} epoch")
