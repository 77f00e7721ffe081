"""What a person types for a path or a text arrives as typed; the rest of a command line is YAML."""

import pytest
import ruamel.yaml
from hyperpyyaml import load_hyperpyyaml

from brainquant.cli import main
from brainquant.training.hparams import parse_arguments
from brainquant.training.resolve import build, resolve, write_hparams

YAML = """\
seed: 1
lr: 0.1
source: !PLACEHOLDER
valid_source: null
output_folder: !ref results/x_<seed>
optimizer: !name:torch.optim.AdamW
    lr: !ref <lr>
train_csv: !ref <source>/train.csv
test_csv: [a.csv, b.csv]
mine: my text
my_folder: !ref <output_folder>/mine
my_own: !PLACEHOLDER
steps: !ref <seed> * 10
prepare:
    source: !ref <source>
"""
TYPED = [
    "/data/talks #1", "#1", "2024", "2024/7", "1e3", "1:30", "Interviews: part 1", "a: b", "x<y>",
    "x<seed>", "<seed>", "~/x", "~", "*x", "&x", "!x", "%x", "@x", "`x`", "|", ">", "- a", "yes",
    "None", "True", "./null", "[a]", "{a: b}", "(1, 2)", '"q"', "'q'", "a=b", "=", "50%", "a\\b",
    "$x", "end ", " lead", "a\tb", "été/漢", "two  spaces", "x" * 90 + " " + "y" * 90,
]  # fmt: skip


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(YAML, "utf-8")
    return path


def read(recipe, *arguments):
    _, _, overrides = parse_arguments([str(recipe), "--my_own", "3", *arguments])
    return overrides


@pytest.mark.parametrize("typed", TYPED)
def test_a_path_arrives_as_typed_wherever_it_is_referred_to(recipe, tmp_path, typed):
    for arguments in (["--source", typed], [f"--source={typed}"]):
        overrides = read(recipe, *arguments, "--mine", typed, f"--my_folder={typed}")
        for text in ("source", "mine", "my_folder"):
            assert overrides[text] == typed
    write_hparams(tmp_path / "run", recipe, overrides)
    written = tmp_path / "run" / "hyperparams.yaml"
    again = tmp_path / "again.yaml"
    again.write_text(resolve(written, {"output_folder": typed}), "utf-8")
    for path in (written, again):  # what a run has, and what opens it
        with open(path, encoding="utf-8") as file:
            found = load_hyperpyyaml(file)
        assert found["source"] == found["prepare"]["source"] == typed
        assert found["train_csv"] == f"{typed}/train.csv"
        assert found["mine"] == found["my_folder"] == typed
    assert found["output_folder"] == typed


def test_null_and_tags_are_no_text(recipe):
    overrides = read(recipe, "--source", "!ref <my_folder>/x", "--valid_source", "null")
    assert overrides["valid_source"] is None and overrides["source"].tag.value == "!ref"
    found = ruamel.yaml.YAML().load(resolve(recipe, overrides))
    assert found["train_csv"] == "results/x_1/mine/x/train.csv"


def test_keys_that_are_no_text_are_yaml(recipe):
    overrides = read(
        recipe, "--lr", "1e-4", "--steps=7", "--optimizer", "{weight_decay: 0.5}",
        "--test_csv", "[a.csv,", "b.csv]", "--source=x",
    )  # fmt: skip
    assert overrides["lr"] == 1e-4 and overrides["steps"] == 7 and overrides["my_own"] == 3
    assert overrides["optimizer"] == {"weight_decay": 0.5}
    assert overrides["test_csv"] == ["a.csv", "b.csv"]
    assert read(recipe, "--test_csv", "[a].csv")["test_csv"] == "[a].csv"


def test_a_placeholder_of_ones_own_takes_a_text_as_typed(recipe):
    for typed in ("/data/talks #1", "x<seed>", "a=b"):
        _, _, overrides = parse_arguments([str(recipe), f"--my_own={typed}", "--source=s"])
        assert overrides["my_own"] == typed
        assert ruamel.yaml.YAML().load(resolve(recipe, overrides))["my_own"] == typed


@pytest.mark.parametrize(
    "key, value", [("optimizer", "{weight_decay: 0.5}"), ("optimizer", "!name:torch.optim.SGD")]
)
def test_a_key_is_no_abbreviation_of_an_option(recipe, key, value):
    _, run_opts, overrides = parse_arguments(
        [str(recipe), "--my_own=1", "--source=x", f"--{key}", value]
    )
    assert key in overrides and run_opts.optimizer_step_limit is None


@pytest.mark.parametrize("option", ["dev", "optimizer_step", "max_grad", "noprog", "sourc", "pre"])
def test_no_option_or_key_can_be_abbreviated(recipe, option):
    with pytest.raises(ValueError, match=f"^unknown key '{option}' .*did you mean"):
        read(recipe, f"--{option}", "1")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--source", "/data/my", "talks"], "--source takes one value, got 2.*quotes"),
        (["--source"], "--source has no value"),
        (["--source="], "source must be text"),
        (["--source", "\udce9"], "--source .* is not UTF-8"),
        (["--lr", "a: b: c"], "--lr 'a: b: c' is no YAML"),
        (["--lr", "[1"], r"--lr '\[1' is no YAML"),
        (["--seed", "1", "--seed=2"], "--seed is there twice"),
        (["--max_grad_norm", "abc"], "max_grad_norm.*'abc'"),
        (["--precision", "fp64"], "precision.*'fp64'"),
        (["--grad_accumulation_factor", "0"], "grad_accumulation_factor must be a whole number"),
        (["--lr", "0", "--source=x"], "lr must be a number above 0, got 0"),
        ([], "leaves source: to you; add --source"),
    ],
)
def test_what_cannot_be_read_is_one_line(recipe, arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        resolve(recipe, read(recipe, *arguments))
    assert "\n" not in str(error.value)


def test_commands_take_a_path_as_typed_too(tmp_path):
    recipe = "recipes/OwnSpeech/hparams/best_rq.yaml"
    for typed in ("/nowhere/talks #1", "/nowhere/x<y>: 2"):
        with pytest.raises(SystemExit, match="^error: ") as error:
            main(["kmeans", recipe, "--output", str(tmp_path / "k"), "--source", typed,
                  "--output_folder", str(tmp_path / "a: b"), "--num_layers", "1",
                  "--d_model", "16"])  # fmt: skip
        assert typed in error.value.code and "\n" not in error.value.code


@pytest.mark.parametrize(
    "line, message",
    [
        ("mine: [1", "recipe.yaml is no YAML: line "),
        ("seed: 2", "recipe.yaml is no YAML: line .*duplicate key"),
        ("x: !ref <nowhere>", "recipe.yaml: The reference .nowhere. is not valid"),
        ("x: !ref <seed> / 0", "recipe.yaml: division by zero"),
        ("x: !foo 3", "recipe.yaml: could not determine a constructor for the tag.*!foo"),
        ("lr: !new:torch.nn.Linear", "recipe.yaml: lr: torch.nn.Linear refuses its arguments: "),
    ],
)
def test_a_yaml_that_cannot_be_read_is_one_line(tmp_path, line, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"seed: 1\nprecision: fp32\n{line}\n", "utf-8")
    with pytest.raises(ValueError, match=message) as error:
        build(resolve(path), path)
    assert "\n" not in str(error.value)


def test_overrides_of_another_form_are_one_line(recipe):
    with pytest.raises(ValueError, match="recipe.yaml: The structure of the overrides") as error:
        resolve(recipe, read(recipe, "--seed", "{a: 1}", "--source=x"))
    assert "\n" not in str(error.value)
