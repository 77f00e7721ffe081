"""One rule of health, for the log and for the report."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from brainquant.monitoring.health import health_warnings, unigram_loss, verdict
from brainquant.monitoring.report import read_points
from brainquant.monitoring.run_log import RunLog

COUNTS = arrays(np.int64, (2, 6), elements=st.integers(0, 50))


@given(COUNTS, COUNTS)
def test_unigram_loss_is_the_cross_entropy_of_the_frequencies(counts, train):
    train_shares = np.maximum(train, 0.5)
    train_shares = train_shares / train_shares.sum(1, keepdims=True)
    slow = [
        -sum(n * math.log(q) for n, q in zip(row, shares, strict=True)) / max(row.sum(), 1)
        for row, shares in zip(counts, train_shares, strict=True)
    ]
    loss = unigram_loss(torch.from_numpy(counts), torch.from_numpy(train))
    assert loss == pytest.approx(np.mean(slow))


def test_unigram_loss_of_the_training_codes_is_their_entropy():
    counts = torch.tensor([[5, 3, 2], [8, 1, 1]])
    assert unigram_loss(counts, counts) == pytest.approx(scipy.stats.entropy(counts.T).mean())


HEALTHY = {
    "step": 900,
    "loss": 3.0,
    "accuracy": 0.3,
    "unigram_loss": 4.5,
    "code_perplexity": [200.0, 180.0],
    "perplexity_cap": 320,
}


@pytest.mark.parametrize(
    "changes, warmup_steps, names",
    [
        ({}, 450, set()),
        ({"code_perplexity": [200.0, 1.3]}, 450, {"collapse"}),  # one codebook is enough
        ({"loss": 0.001, "accuracy": 0.999}, 450, {"collapse"}),
        ({"loss": 4.6}, 450, {"not_learning"}),
        ({"loss": 4.6}, 451, set()),
        ({"loss": 4.45}, 450, {"not_learning"}),
        ({"loss": 4.39}, 450, set()),
        ({"unmasked_loss": 2.8}, 450, {"not_of_speech"}),
        ({"unmasked_loss": 2.8}, 451, set()),
        ({"unmasked_loss": 2.6}, 450, set()),
        ({"loss": 3.6, "unmasked_loss": 3.6}, 450, set()),
        ({"loss": math.nan}, 451, {"diverged"}),
        ({"loss": None}, 451, {"diverged"}),  # as JSON writes it
        ({"loss": math.nan, "frames": 0, "code_perplexity": [1.0]}, 450, set()),
        ({"loss": 4.6, "code_perplexity": [1.0, 1.0]}, 450, {"collapse", "not_learning"}),
        ({"code_perplexity": [1.0], "perplexity_cap": 1}, 451, set()),  # one frame says nothing
        ({"code_perplexity": [1.0], "perplexity_cap": 2}, 451, {"collapse"}),  # two codes
        ({"code_perplexity": [1.9], "perplexity_cap": 2}, 451, set()),
        ({"start_loss": 2.99}, 450, {"worse_than_start"}),
        ({"start_loss": 2.99}, 451, set()),  # a warm-up may cost something
        ({"start_loss": 3.0}, 450, set()),  # that is the model as it came
        ({"start_loss": None}, 450, set()),
        ({"loss": 4.6, "step": 0}, 0, set()),  # a model as it came has not learned yet
        ({"start_loss": 2.0, "loss": math.nan}, 450, {"diverged"}),
    ],
)
def test_health_warnings(changes, warmup_steps, names):
    assert set(health_warnings({**HEALTHY, **changes}, 320, warmup_steps)) == names


def test_health_warnings_use_chance_if_there_is_no_unigram():
    record = {**HEALTHY, "chance_loss": 4.6, "loss": 4.7}
    del record["unigram_loss"]
    (warning,) = health_warnings(record, 320).values()
    text = " ".join(warning)
    assert "4.700" in text and "4.600" in text and "lr:" in text


def test_a_collapse_is_warned_of_with_its_numbers_and_what_to_try():
    record = {**HEALTHY, "code_perplexity": [1.3]}
    text = " ".join(health_warnings(record, 320)["collapse"])
    for part in ("step 900", "1.3 of 320", "3.0000", "30.0%", "aux_weight:"):
        assert part in text


def agree(folder, records, warmup_steps):
    """The warnings of the log and the verdict of the report on the same records."""
    log = RunLog(str(folder), [], codebook_size=320, warmup_steps=warmup_steps)
    for record in records:
        log.write(record)
    counts_GV = np.ones((len(records[0]["code_perplexity"]), 320), int)
    text, state = verdict(read_points(log.metrics_file), counts_GV, warmup_steps)
    assert (state == "bad") == bool(log.warned), (text, log.warned)
    if state == "good":
        assert not log.warned
    return log.warned, state


def test_perfect_accuracy_is_a_collapse_in_the_report_too(tmp_path):
    record = {**HEALTHY, "stage": "valid", "loss": 0.04, "accuracy": 0.995}
    assert agree(tmp_path, [record], warmup_steps=10) == ({"collapse"}, "bad")


def test_worse_than_not_having_trained_is_the_first_thing_to_see(tmp_path):
    point = {**HEALTHY, "stage": "valid", "start_loss": 2.75}
    counts_GV = np.ones((2, 320))
    text, state = verdict([point], counts_GV)
    assert state == "bad" and text.startswith("worse than not having trained: at step 900")
    assert "the loss 3.000 is 0.25 nats above the model as it came (2.750)" in text
    assert agree(tmp_path, [point], warmup_steps=10) == ({"worse_than_start"}, "bad")
    assert verdict([point], counts_GV, warmup_steps=900)[1] == "unknown"
    text, state = verdict([{**point, "loss": 2.5}], counts_GV)
    assert text.startswith("valid loss 2.50, 0.25 nats below the model as it came, 2.00 nats below")
    assert state == "good"


RECORDS = st.fixed_dictionaries(
    {
        "step": st.integers(0, 40),
        "loss": st.sampled_from([0.0, 0.04, 0.06, 2.0, 4.35, 4.45, 4.55, 9.0, math.nan, math.inf]),
        "accuracy": st.sampled_from([0.0, 0.5, 0.985, 0.995, 1.0, math.nan]),
        "code_perplexity": st.lists(
            st.sampled_from([1.0, 1.4, 1.9, 2.1, 200.0]), min_size=2, max_size=2
        ),
        "span": st.sampled_from(["interval", "epoch"]),
    },
    optional={
        "unigram_loss": st.sampled_from([0.0, 4.5]),
        "chance_loss": st.just(4.6),
        "perplexity_cap": st.sampled_from([1, 2, 320]),
        "frames": st.sampled_from([0, 900]),
        "start_loss": st.sampled_from([1.0, 4.35, 4.5, math.nan]),
    },
)


@settings(deadline=None)
@given(train=RECORDS, valid=RECORDS, warmup_steps=st.integers(0, 20))
def test_log_and_report_always_agree(tmp_path_factory, train, valid, warmup_steps):
    valid |= {"stage": "valid", "span": "epoch", "step": train["step"]}
    for records in ([train | {"stage": "train"}], [valid], [train | {"stage": "train"}, valid]):
        agree(tmp_path_factory.mktemp("run"), records, warmup_steps)
