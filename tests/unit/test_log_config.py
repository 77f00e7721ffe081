"""What a run writes into log.txt: lines for a person, each once, and what it is asked for."""

import logging
import re

import pytest
import speechbrain as sb
from speechbrain.utils.logger import get_logger
from speechbrain.utils.run_opts import RunOptions
from speechbrain.utils.superpowers import run_shell

from brainquant.training.log_config import WORDY, log_config, log_to_terminal

OURS = get_logger("brainquant.training.checkpoints")


@pytest.fixture
def write_lines(tmp_path, monkeypatch):
    """Has everybody write lines into the log of a run, and gives what is there."""
    root, before = logging.root, (logging.root.level, [*logging.root.handlers])
    levels = {name: logging.getLogger(name).level for name in [*root.manager.loggerDict, *WORDY]}
    monkeypatch.setenv("SB_LOG_LEVEL", "INFO")
    monkeypatch.setattr("sys.excepthook", lambda *_: None)

    def write(**options):
        path = log_config(RunOptions(**options))
        sb.create_experiment_directory(str(tmp_path), log_config=path, save_env_desc=False)
        for name in ("numba.core.ssa", "matplotlib.font_manager", "some.library"):
            logging.getLogger(name).debug(f"DEBUG of {name}")
            logging.getLogger(name).info(f"INFO of {name}")
            logging.getLogger(name).warning(f"WARNING of {name}")
        OURS.debug("DEBUG of ours")
        OURS.info("INFO of ours")
        get_logger("speechbrain.imported_later").debug("DEBUG of speechbrain")
        core = get_logger("speechbrain.core")
        core.info("Run option lr from hparams is used")
        core.info("SomeBrain Model Statistics:\n* Parameters: 1M")
        run_shell("true")  # SpeechBrain logs what a command prints
        return (tmp_path / "log.txt").read_text("utf-8").splitlines()

    yield write
    for handler in root.handlers:
        if handler not in before[1]:
            handler.close()
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def told(lines):
    return [match for line in lines for match in re.findall(r"(\w+ of [\w.]+)$", line)]


def test_a_person_reads_each_line_once_with_its_time(write_lines):
    lines = write_lines()
    assert told(lines) == [
        "WARNING of numba.core.ssa",
        "WARNING of matplotlib.font_manager",
        "INFO of some.library",
        "WARNING of some.library",
        "INFO of ours",
    ]
    assert all(
        re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - [\w.]+ - [A-Z]+ - ", x) for x in lines
    )
    assert not any(" - DEBUG - " in line for line in lines)


def test_debug_asks_for_ours(write_lines):
    lines = told(write_lines(debug=True))
    assert "DEBUG of ours" in lines and "DEBUG of speechbrain" in lines
    assert not {"DEBUG of numba.core.ssa", "INFO of matplotlib.font_manager"} & {*lines}


def test_a_log_config_of_the_command_line_is_taken(write_lines, tmp_path):
    file = tmp_path / "mine.yaml"
    handler = f"{{class: logging.FileHandler, filename: '{tmp_path}/none.txt'}}"
    root = "{level: WARNING, handlers: [file_handler]}"
    text = f"{{version: 1, handlers: {{file_handler: {handler}}}, root: {root}"
    file.write_text(f"{text}, disable_existing_loggers: false}}")
    # Its root is at WARNING. SpeechBrain's loggers have a level of their own, from SB_LOG_LEVEL.
    lines = [line for line in write_lines(log_config=str(file)) if " of " in line]
    assert lines == [
        "WARNING of numba.core.ssa",
        "WARNING of matplotlib.font_manager",
        "WARNING of some.library",
        "INFO of ours",
        "DEBUG of speechbrain",
    ]
    with pytest.raises(ValueError, match="log_config: there is no file nowhere.yaml"):
        log_config(RunOptions(log_config="nowhere.yaml"))


def test_a_command_shows_its_lines_beside_its_bars(write_lines, capsys, monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])
    log_to_terminal()
    OURS.info("INFO of ours")
    logging.getLogger("numba.core.ssa").info("INFO of numba")
    get_logger("speechbrain.core").info("INFO of a Brain")
    shown = capsys.readouterr()
    assert (shown.err, shown.out) == ("INFO of ours\n", "")
