"""What has to stay the same while a run goes on, without a Brain."""

import pytest
import torch
from small_run import ranks

from brainquant.errors import RunError
from brainquant.training.run_setup import RunSetup

BATCHES = {"seed": 1, "batch_seconds": 12, "batches_per_step": 2}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"batches_per_step": 4}, "batches_per_step: 2 then, 4 now.*ranks x accumulation is as"),
        ({"seed": 2}, "seed: 1 then, 2 now.*go back to what was"),
    ],
)
def test_other_batches_are_refused_unless_they_are_allowed(change, message, caplog):
    then = RunSetup(BATCHES, {}).state_dict()
    with pytest.raises(RunError, match=message):
        RunSetup({**BATCHES, **change}, {}).load_state_dict(then)
    setup = RunSetup({**BATCHES, **change}, {}, allowed=True)
    setup.load_state_dict(then)
    assert setup.same_batches == ("seed" not in change) and setup.loaded == then
    assert "Resuming with changes" in caplog.text


def test_keys_that_change_count_from_now_and_tables_may_not_change(caplog):
    then = RunSetup(BATCHES, {"lr": "0.1", "make_quantiser.seed": "1"}).state_dict()
    setup = RunSetup(BATCHES, {"lr": "0.2", "make_quantiser.seed": "1"})
    setup.load_state_dict(then)
    setup.warn_of_changes()
    assert "Resuming with other keys, which count from here: lr: 0.1 then, 0.2" in caplog.text
    other = {"lr": "0.1", "make_quantiser.seed": "2"}
    with pytest.raises(RunError, match="make_quantiser.seed: 1 then, 2 now"):
        RunSetup(BATCHES, other).load_state_dict(then)
    RunSetup(BATCHES, other, allowed=True).load_state_dict(then)


@pytest.mark.parametrize("name", ["batches", "keys"])
def test_damaged_contents_are_named(name):
    then = {**RunSetup(BATCHES, {}).state_dict(), name: 5}
    with pytest.raises(ValueError, match=f"{name} of the setup is a int"):
        RunSetup(BATCHES, {}).load_state_dict(then)


def test_ranks_with_other_modules_or_clips_do_not_start():
    def rank(number):
        module = torch.nn.Linear(1, 1)
        torch.nn.init.constant_(module.weight, 1.0), torch.nn.init.constant_(module.bias, 0.0)
        modules = torch.nn.ModuleDict({"head": module})
        RunSetup(BATCHES, {}).check_ranks_agree(modules)
        with pytest.raises(RunError, match="clips and batches of rank 1 is not that of rank 0"):
            RunSetup({**BATCHES, "seed": number}, {}).check_ranks_agree(modules)
        torch.nn.init.constant_(module.weight, float(number))
        with pytest.raises(RunError, match="head of rank 1 is not that of rank 0"):
            RunSetup(BATCHES, {}).check_ranks_agree(modules)

    ranks(rank)
