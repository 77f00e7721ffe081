"""The clock of a run: seconds of all its processes, without the pauses between them."""

import pytest

from brainquant.training import clock as module
from brainquant.training.clock import Clock


def test_a_run_that_goes_on_counts_from_its_checkpoint(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    first = Clock()
    first.start()
    now += 30
    saved = first.state_dict()
    now += 500  # another process, much later
    second = Clock()
    second.load_state_dict(saved)
    assert second.seconds() == 30  # nothing counts before it starts
    second.start()
    now += 5
    assert second.seconds() == 35


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), "1", None])
def test_a_damaged_time_is_refused(seconds):
    with pytest.raises(ValueError, match="seconds of the clock"):
        Clock().load_state_dict({"seconds": seconds})


def test_a_checkpoint_of_an_earlier_version_has_no_time():
    clock = Clock()
    clock.load_state_dict(Clock.without_state)
    assert clock.seconds() == 0
