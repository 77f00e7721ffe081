"""The phone probe: what it must find, what it must not find, and its table."""

from types import SimpleNamespace

import numpy as np
import pytest

from brainquant.data.alignments import read_alignment
from brainquant.data.audio import AudioReader
from brainquant.evaluation import fit_and_read, load_split, phones_at, summarise


@pytest.fixture(scope="module")
def splits(corpus):
    reader = AudioReader(16000)
    return {split: load_split(corpus, split, reader) for split in ("train", "valid", "test")}


@pytest.fixture(scope="module")
def clock():
    """Frames of 20 ms, as a Brain would tell them."""
    return SimpleNamespace(frame_times=lambda count: 0.01 + 0.02 * np.arange(count))


def represent(splits, clock, frame):
    """One row per 20 ms of each utterance, made from its phones."""
    inputs = {}
    for name, utterances in splits.items():
        inputs[name] = []
        for utterance in utterances:
            times = clock.frame_times(int(utterance.phones[-1][1] / 0.02))
            inputs[name].append(np.stack([frame(p) for p in phones_at(times, utterance.phones)]))
    return inputs


def test_a_representation_of_phones_is_read_and_noise_is_not(splits, clock):
    rng = np.random.default_rng(0)
    phones = sorted({phone for u in splits["train"] for _, _, phone in u.phones})
    everything = range(len(splits["train"]))

    def one_hot(phone):
        return np.array([phone == other for other in phones], dtype=float)

    good = fit_and_read(represent(splits, clock, one_hot), splits, clock, everything)
    noise = represent(splits, clock, lambda phone: rng.normal(size=8))
    bad = fit_and_read(noise, splits, clock, everything)
    assert min(good) > 0.9 and max(bad) < 0.4


def test_utterances_come_with_their_own_alignment(splits, corpus):
    for utterance in splits["test"]:
        assert utterance.phones == read_alignment(f"{corpus}/phones/test/{utterance.id}.tsv")
        assert utterance.phones[-1][1] == pytest.approx(len(utterance.sig) / 16000, abs=0.01)


def test_the_layer_is_chosen_on_validation_not_on_test():
    by_seed = [[(0.9, 0.2), (0.1, 0.8)], [(0.9, 0.4), (0.1, 0.8)]]
    row = summarise({"encoder": by_seed})["encoder"]
    assert (row["best_layer"], row["mean"], row["spread"]) == (1, pytest.approx(0.3), 0.1)


@pytest.mark.parametrize("ranks", [None, 2])
def test_the_recipe_prints_and_writes_the_three(run_recipe, corpus, tmp_path, ranks):
    probe = f"{{num_seeds: 2, train_minutes: 0.3, data_folder: '{corpus}'}}"
    done = run_recipe("best_rq", "--debug", evaluate=probe, ranks=ranks)
    shown = done.stdout + done.stderr
    for name in ("log-mel", "untrained encoder", "pretrained encoder"):
        assert name in shown
    assert (tmp_path / "run" / "debug" / "phones.json").exists()
    lines = shown[shown.index("Phones read") :].splitlines()[:4]
    assert max(map(len, lines)) <= 80
