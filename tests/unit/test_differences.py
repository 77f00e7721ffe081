"""What differs between the configurations of runs: the causes, not what follows from them."""

import itertools

import pytest
from made_runs import WAV2VEC2, make_run

from brainquant.reporting.differences import what_differs
from brainquant.reporting.several_runs import read_runs


@pytest.fixture
def differences(tmp_path):
    """What differs between runs of these values."""
    numbers = itertools.count()

    def find(*runs):
        made = [make_run(tmp_path / f"run{next(numbers)}", **values) for values in runs]
        return what_differs(read_runs(made)[0])

    return find


def test_equal_runs_in_two_folders_do_not_differ(differences):
    assert differences({}, {}, {}) == {}


def test_a_key_is_listed_once_where_others_refer_to_it(differences):
    assert differences({"lr": "0.001"}, {"lr": "1e-3"}, {"lr": "0.002"}) == {
        "lr": ["0.001", "1e-3", "0.002"]
    }


def test_a_corpus_that_has_moved_is_one_difference(differences):
    found = differences({"data": "/data"}, {"data": "/mnt/data"})
    assert found == {"data_folder": ["/data", "/mnt/data"]}


def test_what_a_recipe_computes_is_left_out_unless_somebody_has_set_it(differences, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("warmup_steps: !ref <optimizer_step_limit> // 10\n")
    short = {"limit": 200, "warmup": 20, "recipe": recipe}
    long = {"limit": 300, "warmup": 30, "recipe": recipe}
    assert list(differences(short, long)) == ["optimizer_step_limit"]
    recipe.write_text("warmup_steps: !ref <optimizer_step_limit> // 5\n")  # changed since
    assert set(differences(short, long)) == {"optimizer_step_limit", "warmup_steps"}


def test_without_the_recipe_the_default_of_a_key_says_what_it_is_computed_from(differences):
    short, long = {"limit": 200, "warmup": 20}, {"limit": 300, "warmup": 30}
    assert list(differences(short, long)) == ["optimizer_step_limit"]
    assert list(differences(short, {**long, "warmup": 40})) == [
        "optimizer_step_limit", "warmup_steps",
    ]  # fmt: skip


def test_another_class_hides_its_arguments_but_not_those_of_the_quantiser(differences):
    found = differences({}, WAV2VEC2)
    assert found["brain_class"][1] == "!name:brainquant.brains.Wav2Vec2Brain"
    assert found["make_quantiser.cb_vocab"] == ["64", None]
    assert found["make_quantiser.num_vars"] == [None, "32"]
    optimiser = {"more": "optimizer2: !name:torch.optim.SGD {momentum: 0.5}"}
    other = {"more": "optimizer2: !name:torch.optim.Adam {eps: 0.5}"}
    assert list(differences(optimiser, other)) == ["optimizer2"]


def test_options_and_versions_count_where_all_logs_tell_them(differences, tmp_path):
    one, other, silent = (make_run(tmp_path / name) for name in ("one", "other", "silent"))
    (other / "log.txt").write_text(" - In force:\n  device: cuda:0  precision: fp32  x: 1\n")
    (other / "env.log").write_text("torch==2.12.0\n")
    found = what_differs(read_runs([one, other])[0])
    assert found == {"device": ["cpu", "cuda:0"], "version of torch": ["2.11.0", "2.12.0"]}
    (silent / "log.txt").unlink()
    (silent / "env.log").unlink()
    assert what_differs(read_runs([one, other, silent])[0]) == {}
    (silent / "hyperparams.yaml").unlink()  # a run without keys lacks none
    assert what_differs(read_runs([one, other, silent])[0]) == {}
