"""What goes into a run's log.txt, and onto the terminal: what a person reads."""

import logging
import os
import sys
from pathlib import Path

from speechbrain.core import DEFAULT_LOG_CONFIG
from speechbrain.utils.logger import TqdmCompatibleStreamHandler

LOG_CONFIG = Path(__file__).with_name("log_config.yaml")
OURS = ("brainquant", "speechbrain")
# Libraries that log their own work, and SpeechBrain's sampler, which logs it in each epoch.
WORDY = (
    "numba", "matplotlib", "PIL", "filelock", "asyncio", "fsspec", "h5py", "urllib3", "torio",
    "speechbrain.dataio.sampler",
)  # fmt: skip


def log_config(run_opts):
    """The ``log_config`` of SpeechBrain's ``create_experiment_directory``.

    Lines of the level INFO and above; with ``--debug`` also those of the level DEBUG that
    brainquant and SpeechBrain write, and ``--log_config`` names another file.

    Arguments
    ---------
    run_opts : RunOptions
        Has ``debug`` and ``log_config``.

    Returns
    -------
    path : str
        A YAML in the form of ``logging.config``.

    Raises
    ------
    ValueError
        Where ``--log_config`` names no file. (SpeechBrain 1.1.2 ignores the option, and logs the
        DEBUG lines of all libraries where the file is missing.)

    Example
    -------
    >>> from speechbrain.utils.run_opts import RunOptions
    >>> log_config(RunOptions()).endswith("log_config.yaml")
    True
    """
    if run_opts.log_config is not None:
        if not os.path.isfile(run_opts.log_config):
            raise ValueError(
                f"log_config: there is no file {run_opts.log_config}; give the path of a YAML in "
                f"the form of Python's logging.config, or leave the option out"
            )
        return str(run_opts.log_config)
    quieten()
    if not run_opts.debug:
        return str(LOG_CONFIG)
    for name in [*logging.root.manager.loggerDict]:
        if name.split(".")[0] in OURS and name not in WORDY:
            logging.getLogger(name).setLevel(logging.DEBUG)
    return DEFAULT_LOG_CONFIG


def quieten():
    """Keeps the log free of what libraries say of their own work."""
    for name in WORDY:
        logging.getLogger(name).setLevel(logging.WARNING)


def log_to_terminal():
    """Shows log lines of the level INFO and above, as a command without a log file does."""
    if not logging.root.handlers:
        quieten()
        handler = TqdmCompatibleStreamHandler(sys.stderr)
        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
