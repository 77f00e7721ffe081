"""Generators depend on the place of a run."""

import itertools

import torch

from brainquant.training.randomness import derived_generator


def draw(*keys):
    return torch.randint(2**62, (1,), generator=derived_generator("cpu", *keys)).item()


def test_the_same_place_gives_the_same_numbers_on_every_machine(untouched_global_rng):
    torch.manual_seed(3)
    with untouched_global_rng():
        generator = derived_generator("cpu", 1234, "TRAIN", 1, 0)
        # A fixed number: a run that is resumed on another machine has to draw the same.
        assert generator.initial_seed() == 8164015685156888343
        assert draw(1234, "TRAIN", 1, 0) == draw(1234, "TRAIN", 1, 0)


def test_every_place_of_a_run_gives_other_numbers():
    seeds, stages, epochs, batches = (1, 1234), ("TRAIN", "VALID"), range(1, 11), range(150)
    places = list(itertools.product(seeds, stages, epochs, batches))
    # CPU generators keep 32 bits of a seed: with 6000 seeds, 0.004 pairs are equal by chance.
    assert len({draw(*place) for place in places}) == len(places)
