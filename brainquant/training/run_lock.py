"""Allows one run at a time in an output folder."""

import os
import re
import socket
import stat
import struct
import sys
import time
from contextlib import suppress

from speechbrain.utils.logger import get_logger

from ..errors import rank_from_environment
from ..own_files import refuse_links
from ..processes.family import is_running
from ..processes.launcher import launcher

if sys.platform != "win32":
    import fcntl

logger = get_logger(__name__)

PATIENCE_SECONDS = 60.0  # ranks whose launcher has died end within 45 s


class RunLock:
    """Keeps a second run out of a folder while this process runs.

    A POSIX record lock on the file ``run.lock``; the text of the file names the holder. The kernel
    releases the lock when the process ends, for any reason. The lock works over NFS. Child
    processes do not inherit it, as they would a lock of ``flock``: loader workers live on for
    seconds after a run is killed. The file may stay.

    Rank 0 holds the lock for all ranks of a run; on other ranks this class does nothing.

    If the holder is a rank whose torchrun was killed, it will save and end soon
    (``brainquant.processes.launcher``). This class waits for that.

    Arguments
    ---------
    folder : str
        Created if it does not exist.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> with RunLock(folder):
    ...     f"process {os.getpid()}, since " in (folder / "run.lock").read_text("utf-8")
    True
    """

    # Folders that this process holds: the lock does not stop the process that holds it. Closing
    # any descriptor of the file releases the lock, so only its holder may open the file.
    _held: set[str] = set()

    def __init__(self, folder: str | os.PathLike):
        self.folder = os.path.realpath(folder)
        self._file = None

    def acquire(self) -> None:
        """Takes the lock.

        Raises
        ------
        ValueError
            If another run holds it; the message gives its host, process and start. Or if a
            file of the folder is a symbolic link.
        """
        if sys.platform == "win32":
            raise ValueError("runs need Linux or macOS; on Windows, start them in WSL 2")
        if rank_from_environment()[0] > 0:
            return
        if self.folder in self._held:
            self._refuse("of this process")
        os.makedirs(self.folder, exist_ok=True)
        refuse_links(self.folder)
        until, waiting = time.monotonic() + PATIENCE_SECONDS, False
        while (holder := self._try_to_lock()) is not None:
            ended = _ended_launcher(holder)
            if ended is None or time.monotonic() > until:
                self._refuse(f"({holder})", ended)
            if not waiting:
                waiting = True
                logger.warning(
                    f"{self.folder} is held by a rank of this run ({holder}), whose torchrun "
                    f"(process {ended}) has ended: the rank saves and ends by itself; waiting for "
                    f"it, up to {PATIENCE_SECONDS:.0f} s"
                )
            time.sleep(0.5)
        if self._file is None:  # a file system without locks
            return
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        holder = f"host {socket.gethostname()}, process {os.getpid()}, since {since}"
        if launcher() is not None:
            holder += f", of torchrun process {launcher()}"
        self._file.truncate(0)
        self._file.write(holder)
        self._file.flush()
        os.fsync(self._file.fileno())  # for readers on other hosts
        self._held.add(self.folder)

    def _try_to_lock(self):
        """Takes the lock, or returns the text that names its holder."""
        # Opened for appending: before the lock is taken, the text belongs to its holder.
        file = open(os.path.join(self.folder, "run.lock"), "a+", encoding="utf-8")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            holder = file.read() or "just started"
            file.close()
            return holder
        except OSError as error:  # a file system without locks
            file.close()
            logger.warning(
                f"{self.folder} cannot be locked ({error}): do not start a second run in it"
            )
            return None
        self._file = file
        return None

    def release(self) -> None:
        """Releases the lock, if this object holds it."""
        if self._file is not None:
            self._held.discard(self.folder)
            self._file.close()
            self._file = None

    def __enter__(self) -> "RunLock":
        self.acquire()
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def _refuse(self, holder, ended_launcher=None):
        remedy = "wait for it, stop it, or give this run another output_folder:"
        if ended_launcher is not None:
            remedy = f"its torchrun (process {ended_launcher}) has ended, but it has not: kill it"
        raise ValueError(f"output_folder {self.folder} is in use by another run {holder}: {remedy}")


def is_held(folder: str | os.PathLike) -> bool:
    """Whether a run holds the lock of a folder; takes nothing, changes nothing.

    Arguments
    ---------
    folder : str
        The folder of a run.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> with RunLock(folder):
    ...     is_held(folder)
    True
    >>> is_held(folder)
    False
    """
    folder = os.path.realpath(folder)
    if folder in RunLock._held:  # to open and close the file would release the lock
        return True
    path = os.path.join(folder, "run.lock")
    with suppress(OSError):  # no file, no permission, or a file system without locks
        if sys.platform == "win32" or not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file:
            # Asks which lock would stop an exclusive one of the whole file; sets none. The kernel
            # reads and writes a C struct: whence, start, length and process are 0 here.
            linux = sys.platform == "linux"
            layout, place = ("hhqqi0q", 0) if linux else ("qqihh", 3)
            fields = [0] * 5
            fields[place] = fcntl.F_WRLCK
            answer = fcntl.fcntl(file, fcntl.F_GETLK, struct.pack(layout, *fields))
            return struct.unpack(layout, answer)[place] != fcntl.F_UNLCK
    return False


def _ended_launcher(holder):
    """The torchrun process of a holder on this host, if it has ended; otherwise None."""
    match = re.fullmatch(r"host (.*), process .*, of torchrun process (\d+)", holder)
    if match is None or match.group(1) != socket.gethostname():
        return None
    return None if is_running(int(match.group(2))) else match.group(2)
