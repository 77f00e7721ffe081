"""Log points reach the file and SpeechBrain's loggers, once each."""

import json
from pathlib import Path

from speechbrain.utils.train_logger import FileTrainLogger, TensorboardLogger, WandBLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from brainquant.training.run_log import RunLog

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
    loggers[1].writer.flush()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.value for event in events.Scalars("loss/train")] == [3.5, 2.5]
    # Without a step of its own, W&B takes each log point for a new one.
    assert [values["step"] for values, _ in run.logged] == [10, 20, 20]
    assert [step for _, step in run.logged] == [None] * 3
    assert run.logged[2][0]["valid"]["loss"] == 2.75


def test_a_resumed_run_forgets_what_came_after_its_checkpoint(tmp_path):
    log = make_log(tmp_path)
    log.forget_after(0)  # nothing there yet
    for record in RECORDS:
        log.write(record)
    with open(log.metrics_file, "a", encoding="utf-8") as file:
        file.write('{"step": 30, "sta')  # killed in the middle of a line
    log.forget_after(10)
    assert Path(log.metrics_file).read_text("utf-8") == json.dumps(RECORDS[0]) + "\n"
    log.forget_after(0)  # another run in the same folder, without a checkpoint
    assert Path(log.metrics_file).read_text("utf-8") == ""


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
    assert "at step 50, the loss 4.700 is no better than its reference 4.600" in texts[1]
