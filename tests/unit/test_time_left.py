"""The time that is left of a run: what is still to do, at the pace and the costs so far."""

import fcntl
import math
import os
import pty
import re
import struct
import sys
import termios
from datetime import datetime
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainquant.monitoring.progress import Progress
from brainquant.training.quality import Quality
from brainquant.training.time_left import (
    CHECKPOINT,
    QUALITY,
    Limits,
    TimeLeft,
    limits_of,
    work_left,
)
from brainquant.training.time_text import duration_text, moment_text


class Run:
    """A run on a clock that only its work moves, with the rules of the real one."""

    def __init__(self, limits, *, of_batch=1.0, of_end=0.0, of_save=0.0, of_quality=0.0):
        self.limits = limits
        self.costs = of_batch, of_end, of_save, of_quality
        self.now = 50.0
        self.time_left = TimeLeft(clock=lambda: self.now)
        self.quality = Quality(1.0, seed=0)
        self.quality.interval = limits.quality_steps
        self.estimates = []  # after each batch: the moment, and the seconds that were left

    def train(self, start_epoch=1, start_turn=0, step=0):
        of_batch, of_end, of_save, of_quality = self.costs
        epochs = start_epoch + int(self.limits.epochs_left)
        for epoch in range(start_epoch, epochs + 1):
            limits = self.limits._replace(
                epochs_left=epochs - epoch, quality_step=self.quality.last_step
            )
            self.time_left.start_epoch(limits)
            since_save = self.now
            for turn in range(start_turn + 1, limits.turns + 1):
                if step >= limits.steps:
                    break
                self.now += of_batch
                ends = turn - start_turn, limits.turns - start_turn
                step += ends[0] % limits.accumulation == 0 or ends[0] == ends[1]
                self.time_left.count_batch(step, limits.turns - turn)
                self.estimates.append((self.now, self.time_left.seconds))
                if self.now - since_save > limits.save_seconds:
                    self.save(of_save)
                    since_save = self.now
            start_turn = 0
            self.now += of_end
            is_last = step >= limits.steps or epoch == epochs
            if self.quality.is_due(step, is_last=is_last):
                self.quality.last_step = step
                with self.time_left.pause(QUALITY):
                    self.now += of_quality
            self.save(of_save)
            if is_last:
                return self
        return self

    def save(self, seconds):
        with self.time_left.pause(CHECKPOINT):
            self.now += seconds

    def errors(self):
        """How far each estimate was off, in seconds, with the moment."""
        return [(now, left - (self.now - now)) for now, left in self.estimates if left is not None]


@settings(max_examples=300)
@given(
    turns=st.integers(1, 12),
    accumulation=st.integers(1, 4),
    limit=st.one_of(st.just(math.inf), st.integers(1, 60)),
    epochs=st.integers(1, 8),
    quality_steps=st.one_of(st.just(math.inf), st.integers(1, 20)),
    skipped=st.floats(0, 0.99),
)
def test_what_is_left_is_what_the_run_still_does(
    turns, accumulation, limit, epochs, quality_steps, skipped
):
    limits = Limits(
        limit, epochs - 1, accumulation=accumulation, turns=turns, quality_steps=quality_steps
    )
    first = int(skipped * turns)  # a run that goes on within its epoch
    work = work_left(limits, 0, turns - first)
    run = Run(limits, of_batch=1, of_end=10_000, of_quality=100_000_000)
    run.train(start_turn=first)
    rest, measurements = (run.now - 50) % 100_000_000, (run.now - 50) // 100_000_000
    assert work == (rest % 10_000, rest // 10_000, measurements)


def test_a_constant_pace_gives_the_exact_time_from_the_first_estimate_on():
    run = Run(Limits(250, 99, turns=100), of_batch=0.7).train()
    errors = run.errors()
    assert errors[0][0] - 50 < 20, "known after a few seconds"
    assert max(abs(error) for _, error in errors) < 0.7 + 1.01  # renewed once a second


def test_validations_checkpoints_and_quality_are_counted_from_their_measured_costs():
    limits = Limits(390, 99, turns=100, quality_steps=150)
    run = Run(limits, of_batch=1.0, of_end=30.0, of_save=5.0, of_quality=20.0).train()
    # 4 ends of epochs; measured at the 2nd and the last one, whose costs are known from then on.
    assert [error for now, error in run.errors() if now > 350] == pytest.approx([0.0] * 180)
    unknown = [error for now, error in run.errors() if now < 140]
    assert set(unknown) == {-(4 * 35.0 + 2 * 20.0)}


def test_a_checkpoint_within_an_epoch_is_no_part_of_the_pace():
    limits = Limits(math.inf, 0, turns=1000, save_seconds=100)
    run = Run(limits, of_batch=1.0, of_save=60.0).train()
    late = [error for now, error in run.errors() if now > 400]
    assert max(map(abs, late)) <= 60  # less than a checkpoint, of 9 that are still to come


def test_a_validation_is_guessed_before_the_first_one():
    limits = Limits(1000, 9, turns=500, valid_batches=50)
    run = Run(limits, of_batch=1.0, of_end=20.0).train()
    assert max(abs(error) for _, error in run.errors()) == pytest.approx(0.0)


def test_the_pace_is_that_of_the_last_minutes_and_not_of_the_first_steps():
    run = Run(Limits(math.inf, 0, turns=1000, frozen_steps=200))
    time_left = run.time_left
    time_left.start_epoch(run.limits)
    for turn in range(1, 1001):
        run.now += 0.1 if turn <= 200 else 1.0  # the encoder is trained from then on
        time_left.count_batch(turn, 1000 - turn)
        assert time_left.seconds is None or turn > 200
        if turn == 260:
            assert time_left.seconds == pytest.approx(740)
    run = Run(Limits(math.inf, 0, turns=3000))
    run.time_left.start_epoch(run.limits)
    for turn in range(1, 2001):
        run.now += 3.0 if turn <= 1000 else 1.0  # another program has ended
        run.time_left.count_batch(turn, 3000 - turn)
    assert run.time_left.seconds == pytest.approx(1000, rel=0.01)


def test_short_runs_and_ends_have_no_time_below_zero():
    Run(Limits(3, 99, turns=2), of_batch=1.0).train()  # over before a pace is known
    run = Run(Limits(100, 0, turns=30), of_batch=1.0).train()
    assert run.time_left.seconds == 0
    backwards = Run(Limits(100, 9, turns=30), of_batch=-1.0).train()  # a clock that was set back
    assert backwards.time_left.seconds is None
    slow = Run(Limits(5, 0, turns=9), of_batch=900.0).train()
    assert slow.time_left.seconds is None
    over = work_left(Limits(10, 5, turns=9), step=12, turns_left=4)
    assert over == (0, 1, 0)


def test_a_run_without_limits_or_of_a_debug_run_says_nothing_wrong():
    time_left = TimeLeft()
    time_left.count_batch(1, 3)  # --debug: no epoch was started
    assert str(time_left) == "" and time_left.seconds is None
    run = Run(Limits(math.inf, math.inf, turns=30))
    run.time_left.start_epoch(run.limits)
    for turn in range(1, 31):
        run.now += 1.0
        run.time_left.count_batch(turn, 30 - turn)
    assert str(run.time_left) == "" and run.time_left.seconds is None


def test_the_log_has_the_time_once(caplog):
    with caplog.at_level("INFO"):
        Run(Limits(250, 99, turns=100), of_batch=60.0).train()
    lines = [record.message for record in caplog.records if "Training done" in record.message]
    assert len(lines) == 1
    assert lines[0].startswith("Training done in about 4 h 2 min, at ")


def test_the_limits_are_those_of_the_brain():
    brain = SimpleNamespace(
        optimizer_step_limit=None,
        ckpt_interval_minutes=15,
        ckpt_interval_steps=0,
        checkpointer=object(),
        grad_accumulation_factor=2,
        train_sampler=SimpleNamespace(total=7, world_size=2),
        valid_batches=3,
        hparams=SimpleNamespace(epoch_counter=SimpleNamespace(limit=10), freeze_steps=5),
    )
    assert limits_of(brain, 4) == Limits(
        math.inf, 6, accumulation=2, turns=4, frozen_steps=5, valid_batches=3, save_seconds=900
    )
    brain.checkpointer, brain.optimizer_step_limit = None, 80
    brain.quality = SimpleNamespace(interval=30, last_step=20)
    limits = limits_of(brain, 11)
    assert (limits.steps, limits.epochs_left, limits.save_seconds) == (80, 0, math.inf)
    assert (limits.quality_steps, limits.quality_step) == (30, 20)


@given(st.floats(0, 1e18))
def test_a_time_is_short_enough_for_a_progress_bar(seconds):
    now = datetime(2026, 12, 31, 23, 59)
    text = f"{duration_text(seconds)} left ({moment_text(seconds, now).removeprefix('at ')})"
    assert "-" not in text
    if seconds < 7 * 86_400:
        assert len(text) < 40


def test_a_terminal_of_80_columns_shows_all_of_it(monkeypatch):
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with os.fdopen(terminal, "w") as stderr, os.fdopen(main, "rb", buffering=0) as screen:
        monkeypatch.setattr(sys, "stderr", stderr)
        progress = Progress()
        progress.start(12, 10_000, 4998, show=True, colour="GREEN")
        progress.update()
        progress.show({"loss": 4.8214, "code_perplexity_sum": 1226.2, "accuracy": 0.3})
        progress.update("23 h 59 min left (18:40 Wed)")
        progress.bar.refresh()
        progress.close()
        stderr.flush()
        shown = screen.read(100_000).decode()
    lines = [re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line) for line in re.split(r"[\r\n]+", shown)]
    assert max(map(len, lines)) <= 80
    wanted = "| 50%, 23 h 59 min left (18:40 Wed), loss 4.82, perplexity 1226"
    assert any(line.startswith("epoch 12 |") and line.endswith(wanted) for line in lines)
