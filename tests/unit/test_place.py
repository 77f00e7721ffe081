"""The place of a run, counted over ranks."""

import pytest

from brainquant.training import place as place_module
from brainquant.training.place import Place


class Sampler:
    """Batches of an epoch, dealt out in turns."""

    def __init__(self, total, ranks):
        self.total, self.ranks, self.start, self.epoch = total, ranks, 0, None

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return len(range(self.start, self.total, self.ranks))


@pytest.fixture
def on_rank(monkeypatch):
    def set_rank(number, ranks):
        monkeypatch.setattr(place_module, "rank", lambda: number)
        monkeypatch.setattr(place_module, "world_size", lambda: ranks)

    return set_rank


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("done", [0, 3])
def test_ranks_that_accumulate_as_many_batches_take_the_same_steps(on_rank, ranks, done):
    """Each batch counts once, with the same weight, in the same step, on any number of ranks."""
    seen = {}
    for number in range(ranks):
        on_rank(number, ranks)
        place = Place(4 // ranks)
        place.load_state_dict({"optimizer_step": 5, "batches_done": done})
        place.resumed = True
        place.start_epoch(Sampler(9, ranks), epoch=2)
        step = 0
        for turn in range(1, place.turns + 1):
            batch = place.batch_number(turn)
            if batch < 9:
                # Gradients are averaged over ranks.
                seen[batch] = step, place.share_of_step(turn) / ranks
            step += place.ends_step(turn)
            place.count_batch(turn)
        assert place.batches_done == 9
    left = 9 - done
    last = left % 4 or 4
    expected = [((b - done) // 4, 1 / (last if b >= 9 - last else 4)) for b in range(done, 9)]
    assert [seen[b] for b in range(done, 9)] == expected


def test_an_epoch_begins_where_the_checkpoint_left_it_and_the_next_at_0():
    place, sampler = Place(), Sampler(9, 1)
    place.load_state_dict({"optimizer_step": 5, "batches_done": 3})
    place.resumed = True
    place.start_epoch(sampler, epoch=2)
    assert (sampler.start, sampler.epoch, place.turns) == (3, 2, 6)
    place.resumed = False
    place.start_epoch(sampler, epoch=3)
    assert (sampler.start, place.batches_done) == (0, 0)
    assert place.state_dict() == {"optimizer_step": 5, "batches_done": 0}


@pytest.mark.parametrize("value", [-1, 1.0, "many", True])
def test_counts_of_a_damaged_checkpoint_are_named(value):
    with pytest.raises(ValueError, match=f"batches_done is {value!r}, not a count"):
        Place().load_state_dict({"optimizer_step": 5, "batches_done": value})
