"""What a run writes into log.txt and onto the terminal: lines for a person."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from speechbrain.core import DEFAULT_LOG_CONFIG
from speechbrain.utils.logger import TqdmCompatibleStreamHandler
from speechbrain.utils.run_opts import RunOptions

LOG_CONFIG = Path(__file__).with_name("log_config.yaml")
OURS = ("brainquant", "speechbrain")
IN_FILE_ONLY = "brainquant.in_file_only"  # a logger whose lines the terminal does not show
# Libraries that log their own work, and SpeechBrain's sampler, which logs in each epoch.
WORDY = (
    "numba", "matplotlib", "PIL", "filelock", "asyncio", "fsspec", "h5py", "urllib3", "torio",
    "speechbrain.dataio.sampler",
)  # fmt: skip

# These describe a training; a command that uses a trained model builds a Brain, too.
OF_A_TRAINING = ("speechbrain.core", "brainquant.models.quick")


def log_config(run_opts: RunOptions) -> str:
    """The ``log_config`` of SpeechBrain's ``create_experiment_directory``.

    The log has the lines of level INFO and above. With ``--debug`` it also has the DEBUG lines of
    brainquant and SpeechBrain. ``--log_config`` names another file.

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
        If ``--log_config`` names no file. (SpeechBrain 1.1.2 ignores the option, and logs the
        DEBUG lines of all libraries if the file is missing.)

    Example
    -------
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
    return str(DEFAULT_LOG_CONFIG)


def quieten() -> None:
    """Keeps libraries from logging their own work."""
    for name in WORDY:
        logging.getLogger(name).setLevel(logging.WARNING)


def log_to_terminal() -> None:
    """Shows log lines of level INFO and above, for a command without a log file."""
    if not logging.root.handlers:
        quieten()
        handler = TqdmCompatibleStreamHandler(sys.stderr)
        # A filter: SpeechBrain sets the level of a logger when its module is imported.
        handler.addFilter(
            lambda record: record.levelno > logging.INFO or record.name not in OF_A_TRAINING
        )
        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])


class NotOfSpeechBrain(logging.Filter):
    """Drops lines of SpeechBrain that the overview and the options in force say better."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is written."""
        text = record.getMessage()
        is_said = text.startswith("Run option ") or "Model Statistics:\n" in text
        return record.name != "speechbrain.core" or not is_said


class NotInFileOnly(logging.Filter):
    """Lets all lines pass but those of the logger IN_FILE_ONLY: for a terminal."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is shown."""
        return record.name != IN_FILE_ONLY
