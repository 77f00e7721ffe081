"""Tallies of a run, without a Brain: sums over batches, epochs, ranks and interruptions."""

import pytest
import torch
from small_run import ranks
from speechbrain import Stage

from brainquant.errors import RunError
from brainquant.monitoring.code_tally import CodeTally
from brainquant.monitoring.error_tally import ErrorTally


def code_tally():
    return CodeTally(2, 5, sample_rate=10, describe=lambda values, counts: {"own": values["own"]})


def observe(tally, number, stage=Stage.TRAIN, **changes):
    generator = torch.Generator().manual_seed(number)
    codes_NG = torch.randint(5, (6, 2), generator=generator)
    sums = {"loss": torch.rand((), generator=generator), "correct": 2, "targets": 6, "masked": 6,
            "valid": 10, "samples": 20, "own": 1}  # fmt: skip
    tally.observe(stage, codes_NG, **{**sums, **changes})


def numbers(record):
    """What two intervals have in common: nothing of a clock, nothing of the run so far."""
    own = {"speech_per_second", "speech_seconds"}
    return {name: value for name, value in record.items() if name not in own}


def test_the_speech_of_a_run_adds_up_over_intervals_and_checkpoints():
    first, second = code_tally(), code_tally()
    first.start(Stage.TRAIN)
    observe(first, 1)
    assert first.interval(step=1)["speech_seconds"] == 2  # 20 samples at 10 a second
    observe(first, 2)
    second.load_state_dict(first.state_dict())
    second.start(Stage.TRAIN)
    observe(second, 3)
    assert second.interval(step=3)["speech_seconds"] == 6
    second.start(Stage.VALID)
    observe(second, 4, Stage.VALID)
    assert second.end(Stage.VALID, step=3)["speech_seconds"] == 6  # of training
    older = {name: value for name, value in first.state_dict().items() if name != "samples"}
    second.load_state_dict(older)
    assert second.samples == 0


def test_intervals_epochs_and_validations_are_added_up_apart():
    tally = code_tally()
    tally.start(Stage.TRAIN)
    observe(tally, 1), observe(tally, 2)
    first = tally.interval(step=2)
    observe(tally, 3)
    epoch = tally.end(Stage.TRAIN, step=3)
    tally.start(Stage.VALID)
    observe(tally, 4, Stage.VALID)
    valid = tally.end(Stage.VALID, step=3)
    tally.start(Stage.TRAIN)
    observe(tally, 5)
    second = tally.interval(step=4)  # with the batch of the first epoch
    spans = [(record["span"], record["own"]) for record in (first, epoch, valid, second)]
    assert spans == [("interval", 2), ("epoch", 3), ("epoch", 1), ("interval", 2)]
    assert epoch["frames"] == 18 and int(tally.run.counts.sum()) == 4 * 6 * 2
    assert tally.interval(step=5) is None  # nothing since then


def test_what_is_not_finite_and_placeholders_count_for_nothing():
    tally = code_tally()
    observe(tally, 1)
    alone = numbers(tally.interval(step=1))
    observe(tally, 1), observe(tally, 2, loss=torch.tensor(float("inf")))
    observe(tally, 3, empty=True)
    assert numbers(tally.interval(step=2)) == alone


def test_a_run_without_targets_ends():
    tally = code_tally()
    observe(tally, 1, targets=0)
    with pytest.raises(RunError, match="no target was seen in training up to step 7; 6 of 10"):
        tally.interval(step=7)
    observe(tally, 1, Stage.VALID, empty=True)
    with pytest.raises(RunError, match="in validation up to step 8; every clip or step was left"):
        tally.end(Stage.VALID, step=8)


def test_an_interrupted_tally_is_the_uninterrupted_one():
    tally = code_tally()
    observe(tally, 1), tally.interval(step=1)
    observe(tally, 2), observe(tally, 3)
    again = code_tally()
    again.load_state_dict(tally.state_dict())
    for one in (tally, again):
        observe(one, 4)
    assert numbers(again.interval(step=2)) == numbers(tally.interval(step=2))
    assert torch.equal(again.run.counts, tally.run.counts)
    assert numbers(again.end(Stage.TRAIN, 2)) == numbers(tally.end(Stage.TRAIN, 2))
    again.load_state_dict(tally.state_dict())
    again.forget_epoch()
    assert again.end(Stage.TRAIN, 2) is None


def test_ranks_add_up_and_another_number_of_them_goes_on():
    def rank(number):
        tally = code_tally()
        observe(tally, number)
        state = tally.state_dict()
        again = code_tally()
        again.load_state_dict(state)
        return state, numbers(again.interval(step=1))

    (state, one), (_, other) = ranks(rank)
    alone = code_tally()
    alone.load_state_dict(state)  # one process in place of two
    assert one == other == numbers(alone.interval(step=1))
    assert one["frames"] == 12


def test_errors_are_added_up_over_interruptions():
    def observe(tally):
        tally.observe(Stage.TRAIN, loss=6.0, characters=4, samples=10, clips_too_short=1)

    tally = ErrorTally(sample_rate=10)
    tally.start(Stage.TRAIN)
    observe(tally)
    again = ErrorTally(sample_rate=10)
    again.load_state_dict(tally.state_dict())
    observe(again)
    record = again.interval(step=2)
    assert (record["loss"], record["clips_too_short"]) == (1.5, 2)
    assert again.end(Stage.TRAIN, step=2) is None
    again.observe(Stage.TRAIN, loss=0.0, characters=0, samples=10, clips_too_short=1)
    with pytest.raises(RunError, match="no target was seen in training up to step 3: 1 clips"):
        again.interval(step=3)


def test_a_test_has_its_name_and_its_errors(tmp_path):
    tally = ErrorTally(sample_rate=10)
    tally.start(Stage.TEST)
    tally.test_name = "test-clean"
    tally.observe(Stage.TEST, loss=6.0, characters=4, samples=10, clips_too_short=0)
    tally.count_errors(["a"], ["the  cat"], ["the hat"])
    record = tally.end(Stage.TEST, step=2)
    assert record["test"] == "test-clean" and record["wer"] == 50.0
    assert record["cer"] == pytest.approx(100 / 7)  # a space is no character here
    tally.write_errors(str(tmp_path))
    assert "cat" in (tmp_path / "wer_test-clean.txt").read_text("utf-8")


def test_a_rank_without_clips_and_other_numbers_of_ranks_add_up_the_same_sums():
    def rank(number):
        tally = ErrorTally(sample_rate=10)
        tally.start(Stage.TRAIN)
        if number == 0:  # the other has a placeholder
            tally.observe(Stage.TRAIN, loss=6.0, characters=4, samples=10, clips_too_short=1)
        tally.end(Stage.TRAIN, step=1)
        first = tally.interval(step=1)
        # Saved by one process after a log point, and loaded by two.
        alone = code_tally().state_dict()
        assert len(alone["windows"]) == 2
        again = code_tally()
        again.load_state_dict({**alone, "windows": alone["windows"][:1]})
        observe(again, number)
        return numbers(first), numbers(again.interval(step=1))

    (one, codes), other = ranks(rank)
    assert (one, codes) == other and one == {"loss": 1.5, "clips_too_short": 1}
    alone = code_tally()
    observe(alone, 0), observe(alone, 1)
    assert codes == numbers(alone.interval(step=1))


@pytest.mark.parametrize("kind", ["codes", "codes in an epoch", "errors"])
def test_the_speed_of_training_does_not_count_the_time_of_a_validation(monkeypatch, kind):
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    tally = ErrorTally(sample_rate=10) if kind == "errors" else code_tally()

    def see(stage):
        if kind == "errors":
            tally.observe(stage, loss=6.0, characters=4, samples=20, clips_too_short=0)
        else:
            observe(tally, 1, stage)

    tally.start(Stage.TRAIN)
    see(Stage.TRAIN)
    now += 4.0
    if kind != "codes in an epoch":  # the validation of the model as it came
        tally.end(Stage.TRAIN, step=1)
    tally.start(Stage.VALID)
    see(Stage.VALID)
    now += 100.0
    tally.state_dict()  # a checkpoint
    if kind != "errors":
        assert tally.end(Stage.VALID, step=1)["speech_per_second"] == 2 / 100
    tally.state_dict()
    tally.start(Stage.TRAIN)
    see(Stage.TRAIN)
    now += 4.0
    assert tally.interval(step=2)["speech_per_second"] == 4 / 8
