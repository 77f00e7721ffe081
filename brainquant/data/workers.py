"""Loader workers: they read clips, leave out bad ones, and end with the run."""

import atexit
import multiprocessing
import os
import signal
import threading
from typing import Any, NamedTuple

import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from torch.utils.data import DataLoader, Dataset, get_worker_info
from typing_extensions import override

from ..processes.family import ask_for_signal_when_parent_ends, end_workers, stop_signals_wait
from .audio import BadAudio


class LeftOutClip(NamedTuple):
    """A clip that is left out of its batch."""

    id: str
    reason: str


class ReadableClips(Dataset):
    """A dataset that returns a ``LeftOutClip`` for bad audio instead of raising an error.

    Arguments
    ---------
    dataset : DynamicItemDataset
        Its items may raise ``BadAudio``.
    num_workers : int
        The loader's number of workers. For each, the clip that it last began to read is kept.
    """

    def __init__(self, dataset: DynamicItemDataset, num_workers: int = 0):
        self.dataset = dataset
        # In memory that the workers share with the main process: it outlives them.
        self._last_clips = torch.full((max(num_workers, 1),), -1).share_memory_()
        self.data: dict[str, dict[str, Any]] = dataset.data
        self.data_ids: list[str] = dataset.data_ids

    def __len__(self) -> int:
        return len(self.dataset)

    @override
    def __getitem__(self, index: int) -> Any:
        if worker := get_worker_info():
            self._last_clips[worker.id] = index
        try:
            return self.dataset[index]
        except BadAudio as error:
            return LeftOutClip(self.data_ids[index], str(error))

    def last_clip_of(self, worker: int) -> str | None:
        """The ID of the clip that a worker last began to read; None before the first."""
        index = int(self._last_clips[worker])
        return None if index < 0 else self.data_ids[index]


class AudioLoader(DataLoader):
    """A DataLoader whose workers obey only their main process, and end with it.

    Its ``worker_init_fn`` must be ``leave_signals_to_main``.
    """

    @override
    def __iter__(self) -> Any:
        with stop_signals_wait():  # until each worker has its own handlers
            iterator = super().__iter__()
        atexit.unregister(end_workers)
        atexit.register(end_workers)  # the last one is called first: before torch joins them
        return iterator


def leave_signals_to_main(worker_id: int) -> None:
    """Makes a worker ignore the signals that are sent to all processes of a run.

    The main process ends its step, saves, and then ends its workers. torch's workers die from any
    SIGTERM and take the main process with them; ours obey only the main process. When the main
    process is killed, Linux kills its workers; elsewhere torch's workers check for it every 5 s.
    """
    ask_for_signal_when_parent_ends(signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS does not report the sender of a signal
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    main = multiprocessing.parent_process()
    assert main, "a worker has a parent process"

    def wait():
        while True:
            if signal.sigwaitinfo({signal.SIGTERM}).si_pid == main.pid:
                os._exit(0)  # as torch's workers do

    threading.Thread(target=wait, daemon=True).start()
