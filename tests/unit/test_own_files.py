"""A run never writes through a link to a file, but accepts a link to a folder."""

import os

import pytest
from speechbrain.utils.train_logger import FileTrainLogger

from brainquant.errors import RunError
from brainquant.monitoring.report import save_figure
from brainquant.monitoring.run_log import RunLog
from brainquant.own_files import open_own
from brainquant.training.checkpoints import Checkpointer
from brainquant.training.run_lock import RunLock

# Files of this package, SpeechBrain, logging and matplotlib.
FILES = [
    "run.lock", "metrics.jsonl", "left_out.jsonl", "log.txt", "train_log.txt", "report.png",
    "report.html", "evaluated_at_step.txt", "hyperparams.yaml", "env.log", "train.py",
    "characters.txt", "wer_test-clean.txt", "probe_phones.json",
]  # fmt: skip
LINE = "of another run\n"


@pytest.fixture
def run(tmp_path):
    """The folder of a run, next to a file and a folder of somebody else."""
    (tmp_path / "precious.txt").write_text(LINE)
    (tmp_path / "larger disk").mkdir()
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("target", ["../precious.txt", "../not there", "metrics"])
def test_a_run_does_not_begin_where_a_file_is_a_link(run, name, target):
    (run / name).symlink_to(target)
    with pytest.raises(RunError) as refused:
        RunLock(run).acquire()
    for part in (
        f"{run / name} is a symbolic link to {target}",
        "remove it",
        "output_folder",
    ):
        assert part in str(refused.value)
    assert os.listdir(run) == [name] and (run / "../precious.txt").read_text() == LINE


def test_links_to_folders_may_stay(run):
    (run.parent / "link").symlink_to("run")
    (run / "save").symlink_to("../larger disk")
    with RunLock(run.parent / "link"):
        Checkpointer(run.parent / "link" / "save").save_checkpoint()
    assert (run / "run.lock").exists() and (run / "save").is_symlink()
    assert len(list((run.parent / "larger disk").glob("CKPT*"))) == 1


@pytest.mark.parametrize("file", ["metrics.jsonl", "left_out.jsonl", "train_log.txt"])
@pytest.mark.parametrize("what", ["write", "begin", "go on"])
def test_a_log_is_neither_written_nor_emptied_through_a_link(run, file, what):
    (run / file).symlink_to("../precious.txt")
    log = RunLog(str(run), [FileTrainLogger(str(run / "train_log.txt"))])
    call = {
        "begin": lambda: log.start(0),
        "go on": lambda: (log.load_state_dict({file: 0}), log.start(0)),
        "write": lambda: (log.write({"step": 1, "stage": "train"}), log.leave_out({"step": 1})),
    }[what]
    with pytest.raises(RunError, match=f"{file} is a symbolic link"):
        call()
    assert (run / "../precious.txt").read_text() == LINE


def test_a_file_that_becomes_a_link_at_the_last_moment_is_not_followed(run, monkeypatch):
    (run / "metrics.jsonl").symlink_to("../precious.txt")
    monkeypatch.setattr(os.path, "islink", lambda path: False)
    with pytest.raises(OSError, match="symbolic links"):
        open_own(run / "metrics.jsonl", "a")


def test_a_picture_replaces_a_link(run):
    class Figure:
        def savefig(self, path, format):
            with open(path, "w", encoding="utf-8") as file:
                file.write("picture")

    (run / "report.png").symlink_to("../precious.txt")
    save_figure(Figure(), run / "report.png")
    assert (run / "../precious.txt").read_text() == LINE and not (run / "report.png").is_symlink()
