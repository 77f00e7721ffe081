"""The loss of the model as it came: when it is measured, and what is said of it."""

import pytest

from brainquant.training.start_loss import StartLoss


def wanted(freeze_steps=0):
    start_loss = StartLoss(freeze_steps)
    start_loss.is_wanted = True
    return start_loss


def test_it_is_measured_once_before_the_first_step_that_changes_the_encoder():
    start_loss = wanted(freeze_steps=2)
    assert [step for step in range(5) if start_loss.is_due(step)] == [2]
    start_loss.keep({"loss": 3.0, "unigram_loss": 4.0})
    assert not start_loss.is_due(2)
    assert not StartLoss().is_due(0)  # a run of random weights has no such model


def test_a_resumed_run_has_it_and_one_that_was_stopped_before_measures_it():
    measured, stopped = wanted(), wanted()
    measured.keep({"loss": 3.0, "unigram_loss": 4.0})
    for before in (measured, stopped):
        resumed = StartLoss()
        resumed.load_state_dict(before.state_dict())
        assert resumed.is_due(0) == before.is_due(0) == (before is stopped)
        assert resumed.numbers() == before.numbers()
    older = StartLoss()
    older.load_state_dict(StartLoss.without_state)
    assert not older.is_due(0) and older.numbers() == {}
    with pytest.raises(ValueError, match="value of the start loss is 'low', not a loss"):
        StartLoss().load_state_dict({"is_wanted": True, "value": "low"})


def test_a_validation_without_a_batch_gives_none():
    start_loss = wanted()
    start_loss.keep(None)
    assert start_loss.numbers() == {} and not start_loss.is_due(0)


@pytest.mark.parametrize("loss, is_easy", [(3.85, False), (3.95, True), (float("nan"), True)])
def test_a_loss_that_says_nothing_of_the_encoder_is_warned_of(caplog, loss, is_easy):
    wanted().keep({"loss": loss, "unigram_loss": 4.0})
    assert (
        any("too easy" in text and "freeze_steps:" in text for text in caplog.messages) == is_easy
    )
