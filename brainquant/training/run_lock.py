"""One run at a time in an output folder."""

import fcntl
import os
import socket
import time

from speechbrain.utils.logger import get_logger

from .errors import place_in_run

logger = get_logger(__name__)


class RunLock:
    """Keeps a second run out of a folder for as long as this process has it.

    A POSIX record lock on ``run.lock``, whose text says who holds it. The kernel drops it with
    the process, however that ends, and works over NFS; and unlike one of ``flock``, children do
    not inherit it: workers of a loader outlive a killed run for seconds. The file may stay.

    Rank 0 holds it for all ranks of a run; on the others nothing happens here.

    Arguments
    ---------
    folder : str
        Is made if need be.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> with RunLock(folder):
    ...     f"process {os.getpid()}, since " in (folder / "run.lock").read_text("utf-8")
    True
    """

    # Folders of this process, which no lock would keep out of its own file. And the lock falls
    # with the first descriptor of the file that is closed: only its holder may ever open one.
    _held = set()

    def __init__(self, folder):
        self.folder = os.path.realpath(folder)
        self._file = None

    def acquire(self):
        """Takes the lock.

        Raises
        ------
        ValueError
            Where another run has it; with its host, process and start.
        """
        if place_in_run()[0] > 0:
            return
        if self.folder in self._held:
            self._refuse("of this process")
        os.makedirs(self.folder, exist_ok=True)
        # Opened for appending: until the lock is there, the text is that of another.
        file = open(os.path.join(self.folder, "run.lock"), "a+", encoding="utf-8")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            holder = file.read() or "just started"
            file.close()
            self._refuse(f"({holder})")
        except OSError as error:  # a file system without locks
            file.close()
            logger.warning(f"{self.folder} cannot be locked ({error}): start no second run in it")
            return
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        file.truncate(0)
        file.write(f"host {socket.gethostname()}, process {os.getpid()}, since {since}")
        file.flush()
        os.fsync(file.fileno())  # for readers on other hosts
        self._file = file
        self._held.add(self.folder)

    def release(self):
        """Gives the lock back, if it was taken."""
        if self._file is not None:
            self._held.discard(self.folder)
            self._file.close()
            self._file = None

    def __enter__(self):
        self.acquire()
        return self

    def __exit__(self, *exception):
        self.release()

    def _refuse(self, holder):
        raise ValueError(
            f"output_folder {self.folder} is in use by another run {holder}: wait for it, stop "
            f"it, or give this run another output_folder:"
        )
