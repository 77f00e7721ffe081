"""Loader workers: they read clips, leave out bad ones, and end with the run."""

import atexit
import multiprocessing
import os
import signal
import threading
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ..processes.family import ask_for_signal_when_parent_ends, end_workers, stop_signals_wait
from .audio import BadAudio


class LeftOutClip(NamedTuple):
    """A clip that is left out of its batch."""

    id: str
    reason: str


class ReadableClips(Dataset):
    """A dataset that gives a ``LeftOutClip`` for bad audio instead of an error.

    Arguments
    ---------
    dataset : DynamicItemDataset
        Its items may raise ``BadAudio``. ``data`` and ``data_ids`` are taken from it.
    num_workers : int
        Of the loader. For each worker the last clip that it began to read is remembered.
    """

    def __init__(self, dataset, num_workers=0):
        self.dataset = dataset
        # In memory that the workers share with the main process, which outlives them.
        self._last_clips = torch.full((max(num_workers, 1),), -1).share_memory_()
        self.data = dataset.data
        self.data_ids = dataset.data_ids

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        if worker := get_worker_info():
            self._last_clips[worker.id] = index
        try:
            return self.dataset[index]
        except BadAudio as error:
            return LeftOutClip(self.data_ids[index], str(error))

    def last_clip_of(self, worker):
        """ID of the last clip that a worker, by number, began to read; None before the first."""
        index = int(self._last_clips[worker])
        return None if index < 0 else self.data_ids[index]


class AudioLoader(DataLoader):
    """A DataLoader whose workers obey their main process only, and end with it.

    Its ``worker_init_fn`` is ``leave_signals_to_main``. Arguments are those of
    ``torch.utils.data.DataLoader``.
    """

    def __iter__(self):
        with stop_signals_wait():  # until each worker has handlers of its own
            iterator = super().__iter__()
        atexit.unregister(end_workers)
        atexit.register(end_workers)  # the last one is called first: before torch joins them
        return iterator


def leave_signals_to_main(worker_id):
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
    main = multiprocessing.parent_process().pid

    def wait():
        while True:
            if signal.sigwaitinfo({signal.SIGTERM}).si_pid == main:
                os._exit(0)  # as torch's workers do

    threading.Thread(target=wait, daemon=True).start()
