"""Real runs whose processes are killed, stopped and hung."""

import json
import os
import signal
import time

import pytest
from tiny_run import drop_times

from brainquant.processes.signals import exit_status

pytestmark = pytest.mark.faults  # locks, hangs and log files have samples in tests/unit
sample = pytest.mark.sample
STEPS = 24
OPTIONS = ["--optimizer_step_limit", STEPS, "--log_interval", 1, "--warmup_steps", 2]
OPTIONS += ["--ckpt_interval_steps", 3, "--dropout", 0.1]
# A Brain that does something to one of its ranks once, in the fifth batch.
FAULTY = """
import os, signal, time
from brainquant.brains import BestRQBrain
from brainquant.ranks import rank

class FaultyBrain(BestRQBrain):
    def compute_forward(self, batch, stage):
        first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        if self.optimizer_step == 4 and first and rank() == int(os.environ["FAULTY_RANK"]):
            print("the fault happens now", flush=True)
            exec(os.environ["FAULT"])
        return super().compute_forward(batch, stage)
"""
FAULTS = {
    "raises": "raise KeyError('no such thing')",
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "sleeps": "time.sleep(1000)",
    "stopped": "os.kill(os.getpid(), signal.SIGSTOP)",
}


@pytest.fixture
def faulty(tmp_path):
    """Options and environment of a run in which something happens to a rank."""
    (tmp_path / "faulty.py").write_text(FAULTY)

    def options(fault, rank=1):
        environment = {"FAULT": FAULTS[fault], "FAULTY_RANK": str(rank)}
        return ["--brain_class", "!name:faulty.FaultyBrain"], environment

    return options


def without_times(records):
    return [drop_times(record) for record in records]


def wait_for_step(process, metrics_file, step):
    while process.poll() is None:
        time.sleep(0.02)
        if metrics_file.exists() and len(metrics_file.read_text("utf-8").splitlines()) >= step:
            return
    raise AssertionError(process.communicate())


@pytest.mark.parametrize(
    "ranks, signal_number",
    [
        pytest.param(None, signal.SIGKILL, marks=sample),
        (None, signal.SIGTERM),
        (None, signal.SIGINT),
        (None, signal.SIGUSR1),
        (2, signal.SIGTERM),
        (2, signal.SIGINT),
        (2, signal.SIGKILL),
    ],
)
def test_a_run_that_is_signalled_goes_on_with_the_same_command(
    start_recipe, run_recipe, read_metrics, tmp_path, fault, ranks, signal_number
):
    run_recipe("best_rq", *OPTIONS, ranks=ranks, output="whole")
    options = [*OPTIONS, "--num_workers", 2]
    name, codes = signal.Signals(signal_number).name, []
    for step in (5, 12):
        process = start_recipe("best_rq", *options, ranks=ranks)
        wait_for_step(process, tmp_path / "run" / "metrics.jsonl", step)
        # The whole group, workers and torchrun included, as a scheduler does.
        os.killpg(process.pid, signal_number)
        shown = "".join(process.communicate(timeout=60))
        codes.append(process.returncode)
        if signal_number != signal.SIGKILL:
            assert f"Stopped by {name} after step" in shown
            assert ranks or process.returncode == exit_status(name)
    run_recipe("best_rq", *options, ranks=ranks)
    for stage in ("train", "valid"):
        whole = without_times(read_metrics("whole", stage))
        assert without_times(read_metrics("run", stage)) == whole
    fault(
        injected=f"{name} twice to a run of {ranks or 1} rank(s) with 2 workers each",
        expected="the same command goes on; every log line as in the whole run",
        seen=f"exit codes {codes}, then {len(whole)} validations and all steps equal",
    )


@pytest.mark.parametrize(
    "what, shown",
    [
        pytest.param("killed", ["SIGKILL"], marks=sample),
        ("raises", ["no such thing"]),
    ],
)
def test_a_rank_that_dies_ends_the_group(start_recipe, faulty, fault, what, shown):
    options, environment = faulty(what)
    process = start_recipe("best_rq", *OPTIONS, *options, ranks=2, **environment)
    while "the fault happens now" not in process.stdout.readline():
        assert process.poll() is None, process.communicate()
    began = time.monotonic()
    _, stderr = process.communicate(timeout=60)
    seconds = time.monotonic() - began
    assert process.returncode != 0
    assert all(text in stderr for text in shown)
    assert "error on rank 0: another rank" in stderr
    fault(
        injected=f"rank 1 of 2 {what}",
        expected="the group ends within 30 s and shows that rank's error",
        seen=f"ended after {seconds:.0f} s, {shown[0]!r} shown",
    )


@pytest.mark.parametrize("what", ["killed", "raises"])
def test_torchrun_restarts_from_the_checkpoint(run_recipe, faulty, read_metrics, fault, what):
    options, environment = faulty(what)
    run_recipe("best_rq", *OPTIONS, ranks=2, output="whole")
    done = run_recipe(
        "best_rq", *OPTIONS, *options, ranks=2, torchrun=["--max-restarts=1"], output="again",
        **environment,
    )  # fmt: skip
    assert "the fault happens now" in done.stdout
    assert without_times(read_metrics("again")) == without_times(read_metrics("whole"))
    fault(
        injected=f"rank 1 of 2 {what}, under torchrun --max-restarts=1",
        expected="goes on from the checkpoint to the same end",
        seen=f"exit code 0, {len(read_metrics('again'))} log lines as in the whole run",
    )


@pytest.mark.parametrize(
    "what, ranks",
    [
        ("sleeps", 2),
        ("stopped", 2),
        ("sleeps", None),
    ],
)
def test_a_rank_that_hangs_is_named(start_recipe, faulty, fault, what, ranks):
    options, environment = faulty(what, rank=1 if ranks else 0)
    options += ["--hang_minutes", 0.1]
    process = start_recipe("best_rq", *OPTIONS, *options, ranks=ranks, **environment)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode != 0
    named = [line for line in stderr.splitlines() if "hang_minutes" in line]
    # A rank that is stopped cannot say what it does: its phase is the last that it told.
    assert named and ("the forward pass" in named[0] or what == "stopped")
    assert not ranks or ("rank 1 (" in named[0] and "rank 0 (" not in named[0])
    fault(
        injected=f"a rank of {ranks or 1} {what} for longer than hang_minutes",
        expected="the run ends, rank and phase named",
        seen=named[0][:120],
    )


def test_a_second_run_in_the_same_folder_is_refused(start_recipe, run_recipe, tmp_path, fault):
    first = start_recipe("best_rq", *OPTIONS[2:], "--optimizer_step_limit", 100000)
    wait_for_step(first, tmp_path / "run" / "metrics.jsonl", 2)
    written = (tmp_path / "run" / "hyperparams.yaml").stat().st_mtime_ns
    second = run_recipe("best_rq", *OPTIONS, check=False)
    assert second.returncode == 1 and "Traceback" not in second.stderr
    assert str(first.pid) in second.stderr and os.uname().nodename in second.stderr
    assert (tmp_path / "run" / "hyperparams.yaml").stat().st_mtime_ns == written
    assert first.poll() is None
    fault(
        injected="a second run in the folder of a running one",
        expected="refused, with host and process of the first, which goes on",
        seen=second.stderr.strip().splitlines()[-1][:120],
    )
    first.kill()
    first.wait()
    run_recipe("best_rq", *OPTIONS, "--debug")  # a killed run is no obstacle


def test_log_files_and_tensorboard_have_each_step_once(start_recipe, run_recipe, tmp_path, fault):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tmp_path / "loggers.yaml").write_text(f"""
- !new:speechbrain.utils.train_logger.FileTrainLogger
    save_file: {tmp_path}/run/log
- !new:brainquant.monitoring.tensorboard.TensorboardLogger
    save_dir: {tmp_path}/run/tb
""")
    options = [*OPTIONS, "--train_loggers", f"!include:{tmp_path}/loggers.yaml"]
    process = start_recipe("best_rq", *options)
    wait_for_step(process, tmp_path / "run" / "metrics.jsonl", 8)
    process.kill()
    process.wait()
    run_recipe("best_rq", *options)
    records = [json.loads(line) for line in open(tmp_path / "run" / "metrics.jsonl")]
    steps = [r["step"] for r in records if r["span"] == "interval"]
    assert steps == list(range(1, STEPS + 1))
    assert len((tmp_path / "run" / "log").read_text("utf-8").splitlines()) == len(records)
    events = EventAccumulator(str(tmp_path / "run" / "tb"), size_guidance={"scalars": 0})
    tags = [tag for tag in events.Reload().Tags()["scalars"] if tag.startswith("loss")]
    for tag in tags:
        steps = [event.step for event in events.Scalars(tag)]
        assert steps == sorted(set(steps)), tag
    assert any(len(events.Scalars(tag)) == STEPS for tag in tags)
    fault(
        injected="SIGKILL between two checkpoints",
        expected="no step doubled or missing in metrics.jsonl, log file and TensorBoard",
        seen=f"steps 1 to {STEPS} once each",
    )
