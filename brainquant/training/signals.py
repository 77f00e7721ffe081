"""Signals that ask a run to stop, kept until it has time for them."""

import signal
import threading

EXIT_STATUS = 143  # 128 + SIGTERM, as a shell shows it


class StopSignals:
    """Notes that SIGTERM or SIGUSR1 has come, and does no more: the step is finished first.

    Whoever trains looks at ``received`` after each step, saves, and ends with ``EXIT_STATUS``.

    Who sends what: Kubernetes and Slurm send SIGTERM before they kill, Slurm with
    ``--signal=USR1@120`` also SIGUSR1 120 seconds before the end of the time limit. torchrun
    passes SIGTERM on to its ranks and kills them 30 seconds later, which has to be enough for a
    step and a checkpoint. SIGUSR1 ends torchrun itself, unless its ``--signals-to-handle`` names
    it (torch 2.11): under torchrun ask for ``--signal=TERM@120``.

    torchrun signals all processes of a rank; ``brainquant.data.batches`` has its loaders' workers
    leave that to the rank.

    Python runs handlers in the main thread only; elsewhere this class does nothing.

    Example
    -------
    >>> with StopSignals() as signals:
    ...     signal.raise_signal(signal.SIGUSR1)
    ...     signals.received
    'SIGUSR1'
    """

    def __init__(self):
        self.received = None  # name of the first signal
        self._former = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGUSR1):
                self._former[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception):
        for number, handler in self._former.items():
            # None: set by something that is not Python, which alone can set it again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number, frame):
        self.received = self.received or signal.Signals(number).name
