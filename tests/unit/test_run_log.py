"""Log points reach the file and SpeechBrain's loggers, once each."""

import contextlib
import json
import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import speechbrain.utils.train_logger
from hypothesis import given, settings
from hypothesis import strategies as st
from small_run import ranks
from speechbrain.utils.train_logger import FileTrainLogger, WandBLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from brainquant.monitoring.run_log import RunLog
from brainquant.monitoring.tensorboard import TensorboardLogger

RECORDS = [
    {
        "step": 10,
        "epoch": 1,
        "stage": "train",
        "loss": 3.5,
        "accuracy": 0.1,
        "code_perplexity": [2.0, 3.0],
    },
    {
        "step": 20,
        "epoch": 1,
        "stage": "train",
        "loss": 2.5,
        "accuracy": 0.1,
        "code_perplexity": [2.0, 3.0],
    },
    {
        "step": 20,
        "epoch": 1,
        "stage": "valid",
        "loss": 2.75,
        "accuracy": 0.1,
        "code_perplexity": [2.0, 3.0],
    },
]


def make_log(folder, loggers=()):
    return RunLog(str(folder), loggers, codebook_size=320, warmup_steps=10)


class WandBRun:
    """What wandb.init gives, as far as SpeechBrain's logger uses it."""

    def __init__(self):
        self.logged = []

    def log(self, values, step=None):
        self.logged.append((values, step))


def read_scalars(folder):
    """(step, value) of each tag, as TensorBoard shows them."""
    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_every_logger_gets_every_number(tmp_path):
    run = WandBRun()
    loggers = [
        FileTrainLogger(str(tmp_path / "train_log.txt")),
        TensorboardLogger(str(tmp_path / "tensorboard")),
        WandBLogger(lambda: run),
    ]
    log = make_log(tmp_path, loggers)
    for record in RECORDS:
        log.write(record)

    lines = Path(log.metrics_file).read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == RECORDS
    assert "valid loss: 2.75" in (tmp_path / "train_log.txt").read_text("utf-8").splitlines()[2]
    assert read_scalars(tmp_path / "tensorboard")["loss/train"] == [(10, 3.5), (20, 2.5)]
    # Without a step of its own, W&B takes each log point for a new one.
    assert [values["step"] for values, _ in run.logged] == [10, 20, 20]
    assert [step for _, step in run.logged] == [None] * 3
    assert run.logged[2][0]["valid"]["loss"] == 2.75


def point(step, **more):
    return {"step": step, "stage": "train", "loss": float(step), "accuracy": 0.5} | more


def write_all(log, steps):
    for step in steps:
        log.write(point(step, code_perplexity=[9.0]))
        log.leave_out({"kind": "clip", "step": step, "id": f"clip {step}", "reason": "it is cut"})


def killed_after(function):
    """Calls a function in a process that is then killed."""
    child = os.fork()
    if child == 0:
        try:
            function()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


@settings(max_examples=25, deadline=None)
@given(saved=st.integers(0, 5), killed=st.integers(0, 5), half=st.booleans())
def test_a_resumed_run_has_the_files_of_one_that_was_never_killed(
    tmp_path_factory, saved, killed, half
):
    folders = [tmp_path_factory.mktemp(name) for name in ("whole", "killed")]
    logs = [make_log(folder, [FileTrainLogger(str(folder / "train.txt"))]) for folder in folders]
    write_all(logs[0], range(1, saved + killed + 3))

    write_all(logs[1], range(1, saved + 1))
    sizes = logs[1].state_dict()
    write_all(logs[1], range(saved + 1, saved + killed + 1))
    if half:
        for path in folders[1].iterdir():
            with open(path, "a", encoding="utf-8") as file:
                file.write('{"step": 99, "sta')
    logs[1].load_state_dict(sizes)
    logs[1].start(saved)
    write_all(logs[1], range(saved + 1, saved + killed + 3))

    names = ["left_out.jsonl", "metrics.jsonl", "train.txt"]
    assert [path.name for path in sorted(folders[0].iterdir())] == names
    for name in names:
        assert (folders[1] / name).read_bytes() == (folders[0] / name).read_bytes()


@pytest.mark.parametrize("sizes", [None, {}])
def test_a_run_without_a_checkpoint_empties_its_folder_and_no_other(tmp_path, sizes):
    beside = FileTrainLogger(str(tmp_path / "real.txt"))
    curves = TensorboardLogger(str(tmp_path / "curves"))
    trial = make_log(tmp_path / "debug", [beside, curves])
    write_all(trial, [1, 2])
    before = Path(beside.save_file).read_bytes()
    if sizes is not None:
        trial.load_state_dict(sizes)
    trial.start(0)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "debug").iterdir()}
    assert sizes == {"metrics.jsonl": 0, "left_out.jsonl": 0}
    assert before and Path(beside.save_file).read_bytes() == before
    assert len(read_scalars(tmp_path / "curves")["loss/train"]) == 2


def test_what_the_disk_has_lost_of_a_file_is_said_and_the_run_goes_on(tmp_path, caplog):
    log = make_log(tmp_path)
    write_all(log, range(1, 4))
    sizes = log.state_dict()
    os.remove(log.left_out_file)
    os.truncate(log.metrics_file, sizes["metrics.jsonl"] - 5)  # in the middle of a line
    log.load_state_dict(sizes)
    log.start(3)
    warned = [record.getMessage() for record in caplog.records]
    assert len(warned) == 2 and log.metrics_file in warned[0] and log.left_out_file in warned[1]
    log.write(point(4, code_perplexity=[9.0]))
    lines = Path(log.metrics_file).read_text("utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 4]


def test_tensorboard_has_each_step_once_after_a_kill_and_a_resume(tmp_path):
    folder = tmp_path / "curves"

    def first_run():
        log = make_log(tmp_path, [TensorboardLogger(str(folder))])
        for step in range(1, 7):
            log.write(point(step, code_perplexity=[9.0]))

    killed_after(first_run)
    log = make_log(tmp_path, [TensorboardLogger(str(folder))])
    sizes = {name: os.path.getsize(tmp_path / name) for name in ["metrics.jsonl"]}
    log.load_state_dict(sizes)
    log.start(4)
    for step in range(5, 9):
        log.write(point(step, loss=float(10 * step), code_perplexity=[9.0]))
    scalars = read_scalars(folder)
    values = [1, 2, 3, 4, 50, 60, 70, 80]
    assert scalars["loss/train"] == list(zip(range(1, 9), values))
    assert [step for step, _ in scalars["step"]] == list(range(1, 9))


def test_a_clock_that_was_set_back_is_said_and_the_run_goes_on(tmp_path, caplog):
    curves = TensorboardLogger(str(tmp_path))
    (tmp_path / "events.out.tfevents.9999999999.host.1.0").touch()
    curves.rewind(4)
    curves.log_stats({"step": 5}, {"loss": 1.0})
    assert "s behind the files" in caplog.text
    assert read_scalars(tmp_path)["loss/train"] == [(5, 1.0)]


def test_the_mean_of_an_epoch_is_no_second_point_of_its_last_interval(tmp_path):
    text = FileTrainLogger(str(tmp_path / "train.txt"))
    log = make_log(tmp_path, [TensorboardLogger(str(tmp_path / "curves")), text])
    for span, loss in (("interval", 2.0), ("epoch", 4.0)):
        log.write(point(20, loss=loss, span=span, epoch=1, code_perplexity=[9.0]))
    scalars = read_scalars(tmp_path / "curves")
    assert scalars["loss/train"] == [(20, 2.0)] and scalars["epoch_loss/train"] == [(20, 4.0)]
    assert all(len(points) == 1 for points in scalars.values())
    assert "train epoch_loss: 4.00" in Path(text.save_file).read_text("utf-8").splitlines()[1]


def test_speechbrains_tensorboard_logger_is_warned_of_and_ours_is_not(tmp_path, caplog):
    make_log(tmp_path, [TensorboardLogger(str(tmp_path / "a"))])
    assert not caplog.records
    make_log(tmp_path, [speechbrain.utils.train_logger.TensorboardLogger(str(tmp_path / "b"))])
    (record,) = caplog.records
    path = record.getMessage().split("!new:")[1].split(" ")[0]
    assert path == f"{TensorboardLogger.__module__}.{TensorboardLogger.__name__}"


def test_a_warning_is_given_once_with_its_numbers(tmp_path, caplog):
    log = make_log(tmp_path)
    bad = {"stage": "train", "loss": 0.001, "accuracy": 0.999, "code_perplexity": [1.0, 9.0]}
    bad |= {"chance_loss": 4.6, "perplexity_cap": 320, "frames": 900}
    for step in (30, 40):
        log.write({"step": step, **bad})
    worse = {**bad, "loss": 4.7, "accuracy": 0.01}
    log.write({"step": 45, **worse, "span": "epoch"})  # a mean that holds the warm-up
    log.write({"step": 50, **worse, "span": "interval"})
    texts = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(texts) == 2
    assert "codes have collapsed at step 30" in texts[0] and "1.0 of 320" in texts[0]
    assert "at step 50 (train), the loss 4.700 is not 0.1 nats below" in texts[1]


@contextlib.contextmanager
def no_file_beyond(size):
    """As on a full disk, what is written beyond a size of a file fails, after its first half."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# The thread of TensorBoard's writer dies of it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_costs_whole_lines_and_the_run_goes_on(tmp_path, caplog):
    text = FileTrainLogger(str(tmp_path / "train.txt"))
    log = make_log(tmp_path, [text, TensorboardLogger(str(tmp_path / "curves"))])
    write_all(log, [1, 2])
    files = [Path(path) for path in (log.metrics_file, log.left_out_file, text.save_file)]
    for path in files:
        before = path.read_bytes()
        with no_file_beyond(len(before) + 20):  # half a line of this file, if not all of others
            write_all(log, [3, 4])
        assert path.read_bytes() == before
    with no_file_beyond(0):
        log.draw_report(np.ones((1, 8), int))
    assert [p for p in tmp_path.iterdir() if "report" in p.name] == []
    texts = [r.getMessage() for r in caplog.records if "no space for" in r.getMessage()]
    lost = {
        log.metrics_file: "lines from step 3 on",
        log.left_out_file: "lines from step 3 on",
        "FileTrainLogger of train_loggers": "steps from 4 on",
        "TensorboardLogger of train_loggers": "steps from 3 on",
        str(tmp_path / "report.png"): "the report",
        str(tmp_path / "report.html"): "the report",
    }
    assert len(texts) == len(lost)
    for name, what in lost.items():
        (told,) = (text for text in texts if text.startswith(f"{name}: no space for {what} ("))
        assert "make space on that disk" in told

    write_all(log, [5])
    log.draw_report(np.ones((1, 8), int))
    assert [json.loads(line)["step"] for line in files[0].open()][-1] == 5
    assert (tmp_path / "report.png").stat().st_size > 10_000


def test_all_ranks_go_on_where_one_has_no_space_and_end_where_it_may_not_write(tmp_path):
    def on_rank(rank):
        log = make_log(tmp_path, [FileTrainLogger(str(tmp_path / "train.txt"))])
        with no_file_beyond(0):
            write_all(log, [1])
            log.draw_report(np.ones((1, 8), int))
        write_all(log, [2])
        if rank == 0:
            os.remove(log.left_out_file)
            os.mkdir(log.left_out_file)
        with pytest.raises((OSError, RuntimeError)) as error:
            write_all(log, [3])
        return type(error.value), str(error.value)

    (kind, text), others = ranks(on_rank)
    assert kind is IsADirectoryError and "left_out.jsonl" in text
    assert others == (RuntimeError, f"on rank 0, IsADirectoryError: {text}")
    assert len((tmp_path / "train.txt").read_text("utf-8").splitlines()) == 2
