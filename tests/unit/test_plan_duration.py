"""How long a run takes: its length, its pace, reading, and what it does besides its steps."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from brainquant.planning import duration
from brainquant.planning.besides import num_quality, state_bytes
from brainquant.planning.duration_lines import find_in_duration, lines_of
from brainquant.planning.length import Length, length_of
from brainquant.planning.reading import small_batches
from brainquant.planning.trial_steps import Trial, TrialStep

LENGTHS = st.lists(st.lists(st.floats(0.5, 20), min_size=1, max_size=5), min_size=1, max_size=20)


@given(LENGTHS, st.integers(1, 4), st.integers(1, 5), st.integers(1, 60))
def test_the_length_is_what_a_training_counts(batches, accumulation, epochs, limit):
    steps = 0
    for _ in range(epochs):
        for turn in range(1, len(batches) + 1):
            if steps < limit and (turn % accumulation == 0 or turn == len(batches)):
                steps += 1
    length = length_of(batches, accumulation=accumulation, epochs=epochs, limit=limit)
    assert length.steps == steps
    assert length.speech_of_epoch == pytest.approx(sum(map(sum, batches)))
    assert length.padded_of_epoch >= length.speech_of_epoch - 1e-6


def test_a_run_without_an_end_is_refused():
    with pytest.raises(ValueError, match="set optimizer_step_limit:"):
        length_of([[1.0]], accumulation=1, epochs=math.inf, limit=math.inf)


@given(st.lists(st.floats(0.1, 70), min_size=1, max_size=50))
def test_small_batches_have_all_clips_in_order(lengths):
    order = list(reversed(range(len(lengths))))
    batches = small_batches([order], lengths)
    assert [clip for batch in batches for clip in batch] == order
    assert all(sum(lengths[clip] for clip in batch[:-1]) < 20 for batch in batches)


def step(padded, seconds, batches=1):
    return TrialStep(batches, padded * 0.9, padded, 3, 4.0, seconds, 0.01, 10**9)


def trial(steps=(), pace=()):
    empty = dict.fromkeys(Trial._fields)
    made = {"steps": list(steps), "pace": list(pace), "before_steps_seconds": 3.0}
    return Trial(**{**empty, **made})


LENGTH = Length(1000, "optimizer_step_limit", 100, 200, 1800.0, 2000.0)  # 20 s in a step


def test_the_pace_is_that_of_the_recipes_own_batches():
    found = duration.pace_of(trial([step(1, 9)], [step(10, 1.0), step(30, 3.0)]), LENGTH)
    assert found == (pytest.approx(2.0), True)


def test_small_steps_are_followed_along_a_line():
    found = duration.pace_of(trial([step(2, 0.5), step(6, 0.9)]), LENGTH)
    assert found == (pytest.approx(2.3), False)


def test_small_steps_that_are_slower_give_a_pace_all_the_same():
    seconds, is_measured = duration.pace_of(trial([step(2, 0.5), step(4, 0.4)]), LENGTH)
    assert seconds == pytest.approx(2.0) and not is_measured


def test_a_trial_without_steps_names_the_option():
    with pytest.raises(ValueError, match="--minutes"):
        duration.pace_of(trial(), LENGTH)


@given(st.integers(1, 400), st.integers(1, 30), st.integers(1, 90))
def test_the_layers_are_measured_as_often_as_a_training_does(steps, of_epoch, interval):
    from brainquant.training.quality import Quality

    quality = Quality(1.0, seed=0)
    quality.interval = interval
    count, made = 1, 0  # before the first step
    while made < steps:
        made = min(made + of_epoch, steps)
        if quality.is_due(made, is_last=made == steps):
            count += 1
            quality.last_step = made
    assert num_quality(Length(steps, "", of_epoch, of_epoch, 1.0, 1.0), interval) == count


def test_the_state_of_an_optimiser_is_counted():
    assert round(state_bytes(torch.optim.AdamW)) == 8
    assert state_bytes(lambda p: torch.optim.SGD(p, 0.1)) == 0
    assert round(state_bytes(lambda p: torch.optim.SGD(p, 0.1, momentum=0.9))) == 4


def brain(**changes):
    values = {
        "checkpointer": object(), "ckpt_interval_minutes": 15, "ckpt_interval_steps": 0,
        "hparams": SimpleNamespace(keep_checkpoints=2), **changes
    }  # fmt: skip
    return SimpleNamespace(**values)


def test_checkpoints_count_from_the_start_of_an_epoch():
    assert duration.saves_of_epoch(brain(), LENGTH, step=8.9) == 1  # an epoch of less than 15 min
    assert duration.saves_of_epoch(brain(), LENGTH, step=18.1) == 3
    assert duration.saves_of_epoch(brain(ckpt_interval_minutes=0), LENGTH, step=60) == 1
    by_batches = brain(ckpt_interval_minutes=0, ckpt_interval_steps=60)
    assert duration.saves_of_epoch(by_batches, LENGTH, step=60) == 4
    assert duration.saves_of_epoch(brain(checkpointer=None), LENGTH, step=60) == 0


def test_no_more_checkpoints_are_kept_than_are_written():
    assert duration.kept_checkpoints(brain(), saves=100) == 7
    assert duration.kept_checkpoints(brain(), saves=3) == 3
    assert duration.kept_checkpoints(brain(checkpointer=None), saves=100) == 0


def test_the_disk_of_a_folder_that_is_not_there_is_that_of_the_nearest_one(tmp_path):
    free = duration.free_bytes(str(tmp_path / "a" / "b"))
    saved = tmp_path / "run" / "save" / "CKPT+1"
    saved.mkdir(parents=True)
    (saved / "model.ckpt").write_bytes(b"0" * 10**6)
    with_own = duration.free_bytes(str(tmp_path / "run"))
    assert free > 0 and abs(with_own - free) < 10**9


FACTS = {
    "steps_per_second": 0.5, "speech_per_second": 10.0, "measured_on_own_batches": True,
    "steps": 1000, "ended_by": "optimizer_step_limit", "steps_of_epoch": 100,
    "speech_seconds_of_step": 20.0, "passes": 10.0, "seconds": 2100.0,
    "seconds_of_parts": {"steps": 2000.0, "validations": 90.0, "checkpoints": 10.0},
    "num_workers": 0, "reading_speech_per_second": {"0": 500.0, "2": 900.0, "4": 1200.0},
    "share_of_time_waiting": {"0": 0.04, "2": 0.0, "4": 0.0},
    "checkpoint_bytes": 10**8, "checkpoints_kept": 7, "free_bytes": 10**10, "output_folder": "r",
}  # fmt: skip
SLOW_DISK = {"0": 0.4, "2": 0.3, "4": 0.2}


@pytest.mark.parametrize(
    "changes, name, remedy",
    [
        ({"passes": 1.9}, "few_passes", "set optimizer_step_limit: 200 or more"),
        ({"passes": 2001}, "many_passes", "set optimizer_step_limit: 200000 or less"),
        (
            {"passes": 2001, "ended_by": "number_of_epochs"},
            "many_passes",
            "set number_of_epochs: 2000 or less",
        ),
        ({"free_bytes": 6 * 10**8}, "disk_too_small", "keep_checkpoints:"),
        (
            {"share_of_time_waiting": {"0": 0.3, "2": 0.01, "4": 0.0}},
            "waits_for_audio",
            "set num_workers: 2",
        ),
        ({"share_of_time_waiting": SLOW_DISK, "num_workers": 4}, "waits_for_audio", "shards"),
        ({"seconds": 200.0}, "costly_validations", "valid_csv:"),
    ],
)
def test_each_fault_has_its_finding_and_the_key_to_change(changes, name, remedy):
    assert find_in_duration(FACTS) == []
    [finding] = find_in_duration(FACTS | changes)
    assert finding.name == name and remedy in finding.remedy


def test_the_lines_say_what_a_reader_asks_first():
    lines = lines_of(FACTS)
    assert lines[0] == "2 s a step, 20 s of speech in each: 10 s of speech a second"
    assert "1,000 steps (optimizer_step_limit), 10.0 passes over the corpus" in lines
    assert any(line.startswith("done in about 35 min: at ") for line in lines)
    assert any("(set)" in line and "4.0% of the time" in line for line in lines)
    assert lines[-1] == "checkpoints of 100 MB, at most 7 at once: 700 MB of 10 GB free"
    assert max(map(len, lines)) <= 76
