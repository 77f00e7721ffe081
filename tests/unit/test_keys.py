"""Every key has one range, and one error where its value is outside of it."""

import math

import pytest

from brainquant.brains import BestRQBrain, CTCBrain, Wav2Vec2Brain
from brainquant.training.keys import (
    ALL,
    BEST_RQ,
    LOADERS,
    OPTIONS,
    RECIPE,
    REFERENCED,
    check_values,
)
from brainquant.training.ranges import REQUIRED, InYaml, number, whole

NUMBERS = {name: key for name, key in ALL.items() if "number" in key.allowed}
NO_NUMBERS = [math.nan, "abc", "1,000", True, [1], "0.1 %"]


@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_no_number_is_refused_for_every_number(name):
    key = NUMBERS[name]
    wrong = [*NO_NUMBERS, *([2.5] if key.kind == "whole" else []), *([] if key.null else [None])]
    for value in wrong:
        with pytest.raises(ValueError, match=f"^{name} must be {key.allowed}") as error:
            key.read(name, value)
        assert f"set {name}:" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_but_a_mean_or_a_norm_has_a_limit(name):
    # SpeechBrain says "non-positive" for never: -1 is allowed, -2 is not.
    below = -2 if name in {"ckpt_interval_minutes", "ckpt_interval_steps", "debug_epochs"} else -1
    assert not NUMBERS[name].accepts(below) or name in {"noise_mean", "max_grad_norm"}
    assert NUMBERS[name].accepts(math.inf) == (name in {"max_seconds", "max_grad_norm"})
    assert NUMBERS[name].example is None or NUMBERS[name].accepts(NUMBERS[name].example)


@pytest.mark.parametrize(
    "key, right, wrong",
    [
        (whole("x", low=1), [1, 2.0, 10**6], [0, -1, 1.5]),
        (whole("x", low=0, high=7, null=True), [0, 7, None], [8, -1]),
        (number("x", above=0, below=1), [0.1, 0.999], [0, 1, -0.1]),
        (number("x", low=0, high=1), [0, 1, 0.5], [1.01, -0.01]),
        (number("x", low=0, finite=False), [math.inf], [-math.inf, math.nan]),
        (RECIPE["prepare"], [None, print], ["None", 3]),
        (ALL["resample"], [True, False], ["yes", 1, None]),
        (ALL["precision"], ["bf16"], ["fp64", 16, None]),
        (ALL["data_folder"], ["2024", None], [2024, "", True]),
        (ALL["test_csv"], ["a.csv", ["a.csv", "b.csv"]], [[], [2024], 3, None]),
    ],
)
def test_a_key_takes_its_range_and_nothing_else(key, right, wrong):
    assert [key.read("x", value) for value in right] == right
    for value in wrong:
        with pytest.raises(ValueError, match="^x must be .*; it is .*: set x: in your YAML"):
            key.read("x", value)


def test_text_that_looks_like_another_value_is_explained():
    with pytest.raises(ValueError, match="got 'yes', which is text in YAML"):
        ALL["mix_down"].read("mix_down", "yes")


def test_defaults_are_filled_in_and_steps_become_whole():
    read = {"stack": BEST_RQ["mask_length"], "evaluate": RECIPE["evaluate"]}
    read["train_csv"] = LOADERS["train_csv"]
    checked = check_values({"stack": 4.0, "mine": 1, "train_csv": "a"}, read)
    assert checked == {"stack": 4, "mine": 1, "evaluate": None, "train_csv": "a"}
    assert isinstance(checked["stack"], int)
    options = check_values({"optimizer_step_limit": 1000.0}, {})  # of !ref <steps> / 10
    assert isinstance(options["optimizer_step_limit"], int)
    with pytest.raises(ValueError, match="lacks the key 'train_csv'"):
        check_values({}, read)


def test_keys_that_other_lines_refer_to_are_checked_where_they_are_numbers():
    check_values({"channels": [64, 64], "d_model": 8}, {})
    with pytest.raises(ValueError, match="d_model must be"):
        check_values({"d_model": 0}, {})
    with pytest.raises(ValueError, match="debug_batches must be"):
        check_values({"debug_batches": None}, {})


@pytest.mark.parametrize("brain", [BestRQBrain, Wav2Vec2Brain, CTCBrain])
def test_defaults_are_allowed_values(brain):
    for name, key in {**brain.hparams_read, **RECIPE, **REFERENCED, **OPTIONS}.items():
        if not isinstance(key.default, InYaml):
            assert key.default is REQUIRED or key.read(name, key.default) == key.default
