"""The parts of a run in its checkpoints, without a Brain."""

import pytest
import torch
from small_run import ranks
from speechbrain.utils.checkpoints import Checkpointer as StockCheckpointer
from speechbrain.utils.epoch_loop import EpochCounter

from brainquant.errors import RunError
from brainquant.training.checkpoints import Checkpointer
from brainquant.training.place import Place
from brainquant.training.run_parts import RunParts
from brainquant.training.run_setup import RunSetup


class Sums:
    """A part that forgets the epoch."""

    def __init__(self, value):
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]

    def forget_epoch(self):
        self.value = 0


def make(folder, value=0, step=0, batches=(("seed", 1),)):
    """Parts as a Brain has them in a training, their checkpointer, and a module."""
    parts = RunParts(place=Place(), sums=Sums(value))
    parts.add_first(setup=RunSetup(dict(batches), {}, allowed=True))
    parts.parts["place"].optimizer_step = step
    parts.parts["place"].batches_done = value
    module = torch.nn.Linear(1, 1)
    checkpointer = Checkpointer(folder, {"counter": EpochCounter(9)})
    parts.add_to(checkpointer, torch.nn.ModuleDict({"module": module}), EpochCounter(9))
    return parts, checkpointer, module


@pytest.mark.parametrize(
    "end_of_epoch, batches, left",
    [(False, (("seed", 1),), 5), (True, (("seed", 1),), 0), (False, (("seed", 2),), 0)],
)
def test_an_epoch_goes_on_only_where_it_was_left(tmp_path, end_of_epoch, batches, left):
    _, checkpointer, saved = make(tmp_path, value=5, step=7)
    checkpointer.save_checkpoint(end_of_epoch=end_of_epoch)
    parts, checkpointer, module = make(tmp_path, batches=batches)
    checkpointer.recover_if_possible()
    place = parts.parts["place"]
    assert torch.equal(module.weight, saved.weight)
    assert (place.optimizer_step, place.resumed) == (7, not end_of_epoch)
    assert place.batches_done == parts.parts["sums"].value == left


def test_the_setup_is_loaded_first_and_anew_in_each_training(tmp_path):
    parts, _, _ = make(tmp_path)
    again = RunSetup({}, {})
    parts.add_first(setup=again)
    assert [*parts.parts] == ["setup", "place", "sums"] and parts.parts["setup"] is again


def test_a_checkpoint_that_was_saved_by_the_checkpointer_alone_is_whole(tmp_path):
    """SpeechBrain's recipes call ``save_and_keep_only`` in their ``on_stage_end``."""
    parts, checkpointer, _ = make(tmp_path, step=7)
    parts.collect()
    checkpointer.save_checkpoint()
    parts.parts["place"].optimizer_step = 8
    checkpointer.save_checkpoint()
    parts, checkpointer, _ = make(tmp_path)
    checkpointer.recover_if_possible()
    assert parts.parts["place"].optimizer_step == 8


def test_on_several_ranks_such_a_save_is_refused(tmp_path):
    def rank(number):
        with pytest.raises((RunError, RuntimeError), match="has to be saved by brain.save"):
            make(tmp_path)[1].save_checkpoint()

    ranks(rank)


def test_what_cannot_be_saved_safely_is_refused(tmp_path):
    parts = RunParts(place=Place())
    with pytest.raises(ValueError, match="cannot be trusted after a kill"):
        parts.add_to(StockCheckpointer(tmp_path), torch.nn.ModuleDict(), EpochCounter(9))
    modules = torch.nn.ModuleDict({"optimizer": torch.nn.Linear(1, 1)})
    with pytest.raises(ValueError, match="modules: 'optimizer' is the name of another file"):
        parts.add_to(Checkpointer(tmp_path), modules, EpochCounter(9))
