"""The linear probe: what it must find, what it must not find, and which layer counts."""

import numpy as np
import pytest

from brainquant.evaluation import majority_accuracy, probe_layers, summarise

SPLITS = {"train": 30, "valid": 10, "test": 10}
PHONES = np.array(["a", "s", "t", "SIL"])


@pytest.fixture
def labels():
    """Phones of utterances of 20 frames, each twice as long as a frame."""
    rng = np.random.default_rng(0)
    return {
        split: [np.repeat(rng.choice(PHONES, 10), 2) for _ in range(count)]
        for split, count in SPLITS.items()
    }


def layer_of(labels, represent):
    return {split: [[represent(u) for u in utterances]] for split, utterances in labels.items()}


def one_hot(labels):
    return (labels[:, None] == PHONES).astype(float)


def test_a_representation_of_phones_is_read_and_noise_is_not(labels):
    rng = np.random.default_rng(1)
    good, noise = (
        layer_of(labels, one_hot),
        layer_of(labels, lambda u: rng.normal(size=(len(u), 8))),
    )
    both = {split: good[split] + noise[split] for split in labels}
    (of_good, of_noise) = probe_layers(both, labels, seed=0)
    assert min(of_good) == 1.0 and max(of_noise) < 0.4


def test_context_is_what_the_neighbours_say(labels):
    late = layer_of(
        labels, lambda u: np.roll(one_hot(u), 2, axis=0) * (np.arange(len(u)) > 1)[:, None]
    )
    (alone,), (beside,) = (probe_layers(late, labels, seed=0, context=n) for n in (0, 2))
    assert max(alone) < 0.5 and min(beside) > 0.85


def test_each_seed_fits_on_other_two_thirds_of_the_utterances():
    labels = {split: [np.array([x]) for x in "abcdef"] for split in SPLITS}
    layers = {split: [[row[None] for row in np.eye(6)]] for split in SPLITS}
    read = [probe_layers(layers, labels, seed=seed) for seed in range(3)]
    assert read == [[(4 / 6, 4 / 6)]] * 3
    # Valid and test tell which they were: only the first half of them is asked for.
    half = {**labels, "test": labels["test"][:3]}
    first = {**layers, "test": [layers["test"][0][:3]]}
    assert len({probe_layers(first, half, seed=seed)[0][1] for seed in range(6)}) > 1


def test_the_layer_is_chosen_on_validation_not_on_test():
    row = summarise([[(0.9, 0.2), (0.1, 0.8)], [(0.9, 0.4), (0.1, 0.8)]])
    assert (row["best_layer"], row["mean"], row["spread"]) == (1, pytest.approx(0.3), 0.1)
    assert row["layers"] == [[0.2, 0.8], [0.4, 0.8]]


def test_the_majority_is_that_of_the_training():
    labels = {"train": [np.array(["b", "b", "a"])], "test": [np.array(["a"]), np.array(["a", "b"])]}
    assert majority_accuracy(labels) == pytest.approx(1 / 3)
