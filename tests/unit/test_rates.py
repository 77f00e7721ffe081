"""Learning rate, batch and warm-up beside those of the recipe."""

import pytest

from brainquant.planning.length import Length
from brainquant.planning.rates import allowed_rate, check_rates, recipe_rates

RECIPE = """
brain_class: !name:brainquant.brains.BestRQBrain
output_folder: !PLACEHOLDER
train_csv: train.csv
valid_csv: null
modules: {}
batch_seconds: 40
grad_accumulation_factor: 2
number_of_epochs: 1000
optimizer_step_limit: 1000
lr: 0.001
warmup_steps: 80
"""


@pytest.fixture
def check(tmp_path):
    """The section of a command line that changes the recipe."""
    path = tmp_path / "x.yaml"

    def run(*, more="", steps=1000, ended_by="optimizer_step_limit", **changes):
        path.write_text(RECIPE + more, "utf-8")
        values = {
            "lr": 0.001, "batch_seconds": 40, "grad_accumulation_factor": 2, "batch_clips": None,
            "optimizer_step_limit": 1000, "warmup_steps": 80,
            "cooldown_steps": 500, **changes,
        }  # fmt: skip
        seconds = values["batch_seconds"] * values["grad_accumulation_factor"]
        length = Length(steps, ended_by, 10, 20, 9 * seconds, 1000.0)
        return check_rates(str(path), {"output_folder": "r", **changes}, values, length)

    return run


def names(section):
    return [finding.name for finding in section.findings]


def test_the_recipe_itself_has_no_finding(check):
    section = check()
    assert names(section) == [] and section.facts["batch_ratio"] == 1
    assert max(map(len, section.lines)) <= 76


@pytest.mark.parametrize("change", [{"lr": 0.01}, {"batch_seconds": 4}])
def test_a_learning_rate_that_is_too_high_for_the_batch_is_named(check, change):
    [finding] = check(**change).findings
    assert finding.name == "high_lr" and f"{change.get('lr', 0.001):g}" in finding.text
    assert "lr:" in finding.remedy


def test_a_smaller_batch_of_the_same_rate_may_be_accumulated(check):
    [finding] = check(batch_seconds=4).findings
    assert finding.remedy == "set grad_accumulation_factor: 20, or lr: 0.0003"


@pytest.mark.parametrize(
    "change",
    [
        {"batch_seconds": 20, "grad_accumulation_factor": 4},  # the same product
        {"batch_seconds": 20},  # a half of it
        {"lr": 0.002},  # one that may be tried
        {"lr": 0.004, "batch_seconds": 160},
        {"lr": 0.0001},
    ],
)
def test_what_may_be_tried_has_no_finding(check, change):
    assert names(check(**change)) == []


def test_a_recipe_for_several_ranks_says_so(check):
    [finding] = check(more="lr_batch_seconds: 640\n").findings
    assert finding.name == "high_lr" and "640 s" in finding.text
    assert finding.remedy == "set grad_accumulation_factor: 16, or lr: 0.0004"


def test_the_rule_of_the_square_root_counts_below_and_of_proportion_above():
    assert allowed_rate(1.0, 0.25) == 0.5 and allowed_rate(1.0, 1.0) == 1.0
    assert allowed_rate(1.0, 4.0) == 4.0


@pytest.mark.parametrize(
    "change, name, remedy",
    [
        ({"warmup_steps": 0}, "short_warmup", "set warmup_steps: 80"),
        ({"warmup_steps": 1000}, "endless_warmup", "set warmup_steps: 80"),
        (
            {"steps": 400, "ended_by": "number_of_epochs"},
            "no_cooldown",
            "set optimizer_step_limit: 400",
        ),
    ],
)
def test_each_fault_has_its_finding_and_the_key_to_change(check, change, name, remedy):
    [finding] = check(**change).findings
    assert finding.name == name and remedy in finding.remedy


def test_a_run_that_ends_in_its_cooldown_is_right(check):
    assert names(check(steps=900, ended_by="number_of_epochs")) == []


def test_overrides_do_not_change_what_the_recipe_has(check, tmp_path):
    check()
    rates = recipe_rates(str(tmp_path / "x.yaml"), {"lr": 0.5, "output_folder": "r"})
    assert rates == (0.001, 80.0, 80, 1000, 2)
    by_clips = check(batch_clips=8)
    assert by_clips.facts["run"]["step_seconds"] is None and names(by_clips) == []
