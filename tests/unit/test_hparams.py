"""What the YAML and the command line say is what runs, or there is one clear error."""

import dataclasses
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from brainquant.brains import BestRQBrain
from brainquant.training.changed_keys import changed_keys
from brainquant.training.hparams import (
    OPTIONS_SHOWN,
    load_hparams,
    parse_arguments,
    show_options,
)
from brainquant.training.keys import RECIPE
from brainquant.training.log_config import IN_FILE_ONLY
from brainquant.training.ranges import REQUIRED, InYaml
from brainquant.training.resolve import build, write_hparams

ROOT = Path(__file__).resolve().parents[2]
BEST_RQ = str(ROOT / "recipes/ToySpeech/hparams/best_rq.yaml")


def load(tmp_path, *arguments):
    hparams_file, run_opts, overrides = parse_arguments(
        [BEST_RQ, "--output_folder", str(tmp_path), "--num_layers", "1", *arguments]
    )
    return load_hparams(hparams_file, overrides), run_opts


def test_run_options_of_the_command_line_reach_the_yaml_too(tmp_path):
    hparams, run_opts = load(tmp_path, "--optimizer_step_limit", "1000", "--precision=bf16")
    assert run_opts.optimizer_step_limit == hparams["optimizer_step_limit"] == 1000
    assert hparams["lr_schedule"].total_steps == 1000
    assert hparams["precision"] == "bf16"


def test_gloo_is_chosen_where_there_is_no_gpu_to_use(tmp_path):
    _, run_opts = load(tmp_path, "--device", "cpu")
    assert run_opts.distributed_backend == "gloo"
    _, run_opts = load(tmp_path, "--device", "cpu", "--distributed_backend", "mpi")
    assert run_opts.distributed_backend == "mpi"


def test_fragments_are_tweaked_and_swapped_from_the_command_line(tmp_path):
    hparams, _ = load(tmp_path, "--make_quantiser", "{cb_dim: 8}")
    assert hparams["quantiser"].CB.shape[1] == 8
    hparams, _ = load(
        tmp_path, "--make_quantiser", "!include:../../../hparams/quantisers/gumbel.yaml"
    )
    assert type(hparams["quantiser"]).__name__ == "GumbelVectorQuantizer"
    assert hparams["quantiser"].input_dim == 320
    kmeans = "!include:../../../hparams/quantisers/kmeans.yaml {clusters: 7}"
    hparams, _ = load(tmp_path, "--make_quantiser", kmeans)
    assert hparams["quantiser"].codebook_size == 7


def test_an_object_on_the_command_line_has_its_own_class_and_references(tmp_path):
    head = "!new:torch.nn.Linear {in_features: !ref <d_model>, out_features: !ref <cb_vocab>}"
    hparams, _ = load(tmp_path, "--head", head, "--cb_vocab", "9")
    assert hparams["head"].weight.shape == (9, hparams["d_model"])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--learning_rate", "1"], "unknown key 'learning_rate'"),
        (["--mask_lenght", "4"], "did you mean 'mask_length'"),
        (["--max_grad", "3"], "unknown key 'max_grad'"),
        (["--lr", "1", "--lr", "2"], "--lr is there twice"),
        (["--head", "!new:torch.nn.Linear {in_feature: 2}"], "head: torch.nn.Linear refuses"),
        (
            ["--optimizer_step_limit", "many"],
            "optimizer_step_limit must be a whole number from 1 up, or null, got 'many'",
        ),
        (["--transformer", "{d_modle: 4}"], "transformer.*d_modle|d_modle.*transformer"),
        (["--make_quantiser", "{cb_dim: 0}"], "cb_dim must be a positive integer, got 0"),
        (["--make_quantiser", "{cb_size: 4}"], "cb_size"),
    ],
)
def test_an_override_that_cannot_work_is_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        load(tmp_path, *arguments)


def renamed(tmp_path, key, name):
    """The recipe with another name for one of its keys, where its fragments are found."""
    shutil.copytree(ROOT / "hparams", tmp_path / "hparams")
    yaml = tmp_path / "recipes" / "ToySpeech" / "hparams" / "mine.yaml"
    yaml.parent.mkdir(parents=True)
    text = Path(BEST_RQ).read_text("utf-8")
    yaml.write_text(text.replace(f"\n{key}:", f"\n{name}:"), "utf-8")
    return yaml


def test_a_yaml_key_that_nothing_reads_is_refused(tmp_path):
    yaml = renamed(tmp_path, "mask_ratio", "mask_ration")
    with pytest.raises(ValueError, match="'mask_ration'.*did you mean 'mask_ratio'"):
        load_hparams(yaml, {"output_folder": str(tmp_path)})


@pytest.mark.parametrize("line", ["debug: True", "log_config: logs.yaml"])
def test_an_option_that_is_read_before_the_yaml_is_refused_in_it(tmp_path, line):
    shutil.copytree(ROOT / "hparams", tmp_path / "hparams")
    yaml = tmp_path / "a/b/c.yaml"
    yaml.parent.mkdir(parents=True)
    text = Path(BEST_RQ).read_text("utf-8").replace("../../../hparams", "../../hparams")
    yaml.write_text(f"{text}\n{line}\n", "utf-8")
    key = line.split(":")[0]
    with pytest.raises(ValueError, match=f"{key}: counts on the command line only.* say --{key}"):
        load_hparams(str(yaml), {"output_folder": str(tmp_path)})


@pytest.mark.parametrize("key", ["train_csv", "brain_class"])
def test_a_key_that_is_missing_from_the_yaml_is_named(tmp_path, key):
    yaml = renamed(tmp_path, key, f"__{key}")
    with pytest.raises(ValueError, match=f"mine.yaml: the YAML lacks the key '{key}'"):
        load_hparams(yaml, {"output_folder": str(tmp_path)})


def test_an_assertion_without_a_text_is_named_by_its_kind(monkeypatch):
    def refuse(self):
        raise AssertionError

    monkeypatch.setattr(torch.nn.Identity, "__init__", refuse)
    with pytest.raises(ValueError, match="x.yaml: m: .*refuses its arguments: AssertionError$"):
        build("m: !new:torch.nn.Identity", "x.yaml")


def test_a_missing_yaml_file_is_named():
    with pytest.raises(ValueError, match="there is no file nowhere.yaml"):
        parse_arguments(["nowhere.yaml"])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--transformer", "{nhead: 5}"], "transformer: .*TransformerASR refuses its arguments"),
        (["--dropout", "1.5"], "dropout must be a number from 0 up and below 1, got 1.5"),
        (["--front_end", "{dropout: 1.5}"], "front_end: .* refuses .*between 0 and 1"),
        (["--d_model", "2.5"], "d_model must be a whole number from 1 up, got 2.5"),
        (["--seed", "-1"], "seed must be a whole number from 0 to 4294967295, got -1"),
        (["--resample", "yes"], "resample must be True or False, got 'yes', which is text"),
        (["--valid_csv", "null"], "evaluate: chooses a layer on valid_csv, which is null"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_is_named_with_its_key(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        load(tmp_path, *arguments)
    assert "\n" not in str(error.value)


def test_an_evaluation_of_ones_own_may_do_without_a_validation(tmp_path):
    yaml = renamed(tmp_path, "evaluate", "evaluate")
    text = yaml.read_text("utf-8").replace("brainquant.evaluation.probe", "builtins.print")
    yaml.write_text(text, "utf-8")
    overrides = {"output_folder": str(tmp_path), "valid_csv": None}
    assert load_hparams(yaml, overrides)["evaluate"].func is print


def test_a_new_key_with_a_default_breaks_no_old_yaml(tmp_path):
    yaml = renamed(tmp_path, "warmup_steps", "__gone")
    assert load_hparams(yaml, {"output_folder": str(tmp_path)})["warmup_steps"] == 150
    overrides = parse_arguments([str(yaml), "--max_bad_audio", "0.5", "--num_layers", "1"])[2]
    overrides["output_folder"] = str(tmp_path)
    assert load_hparams(yaml, overrides)["max_bad_audio"] == 0.5


NEEDED = """
brain_class: !name:brainquant.brains.{brain}
output_folder: out
train_csv: train.csv
valid_csv: null
{options}
modules:
    quantiser: !new:torch.nn.Linear {{in_features: 2, out_features: !ref <size>}}
size: 3
"""


def write_yaml(tmp_path, options="optimizer_step_limit: 500", brain="BestRQBrain"):
    yaml = tmp_path / "mine.yaml"
    yaml.write_text(NEEDED.format(brain=brain, options=options), "utf-8")
    return yaml


def test_a_yaml_without_any_optional_key_has_all_defaults(tmp_path):
    hparams = load_hparams(write_yaml(tmp_path))
    for name, key in (BestRQBrain.hparams_read | RECIPE).items():
        if not isinstance(key.default, InYaml) and key.default is not REQUIRED:
            assert hparams[name] == key.default, name
    assert hparams["warmup_steps"] == 50 and hparams["precision"] == "fp32"
    schedule = hparams["lr_schedule"]
    assert (schedule.warmup, schedule.cooldown, schedule.total_steps) == (50, 250, 500)
    assert hparams["epoch_counter"].limit == hparams["number_of_epochs"]
    assert str(hparams["checkpointer"].checkpoints_dir) == "out/save"
    assert hparams["train_loggers"][0].save_file == "out/train_log.txt"
    assert hparams["optimizer"].keywords["lr"] == hparams["lr"]


def test_the_run_is_seeded_before_its_modules_are_built(tmp_path):
    hparams = load_hparams(write_yaml(tmp_path), {"seed": 7})
    torch.manual_seed(7)
    expected = torch.nn.Linear(2, 3).weight
    assert torch.equal(hparams["modules"]["quantiser"].weight, expected)


@pytest.mark.parametrize(
    "options, key, value",
    [
        ("steps: 40\noptimizer_step_limit: !ref <steps> * 2", "warmup_steps", 8),
        ("optimizer_step_limit: 100\nmine: !ref <warmup_steps> + 1", "mine", 11),
        ("optimizer_step_limit: 100\nckpt_interval_steps: 5", "ckpt_interval_steps", 5),
        ("optimizer_step_limit: null\nlr_schedule: null\nwarmup_steps: 0", "lr_schedule", None),
        ("optimizer_step_limit: 9\ncheckpointer: null", "checkpointer", None),
    ],
)
def test_a_default_goes_with_what_the_yaml_states(tmp_path, options, key, value):
    hparams = load_hparams(write_yaml(tmp_path, options), refuse_unused=False)
    assert hparams[key] == value
    assert ("ckpt_interval_minutes" in hparams) != ("ckpt_interval_steps" in hparams)


def test_a_key_that_a_default_refers_to_is_named(tmp_path):
    with pytest.raises(ValueError, match="the YAML lacks the key .optimizer_step_limit."):
        load_hparams(write_yaml(tmp_path, ""))


def test_a_checkpointer_of_an_old_yaml_keeps_its_recoverables(tmp_path):
    old = """
optimizer_step_limit: 5
head: !new:torch.nn.Identity
checkpointer: !new:brainquant.training.checkpoints.Checkpointer
    checkpoints_dir: !ref <output_folder>/save
    recoverables: {head: !ref <head>}"""
    hparams = load_hparams(write_yaml(tmp_path, old))
    assert hparams["checkpointer"].recoverables == {"head": hparams["head"]}


@pytest.mark.parametrize(
    "brain, part, encoder",
    [
        ("BestRQBrain", "front_end", "BestRQEncoder"),
        ("Wav2Vec2Brain", "extractor", "Wav2Vec2Encoder"),
    ],
)
def test_a_yaml_of_the_old_modules_is_told_what_to_write(tmp_path, brain, part, encoder):
    yaml = write_yaml(tmp_path, "optimizer_step_limit: 5", brain)
    text = yaml.read_text("utf-8")
    yaml.write_text(text.replace("size: 3", f"    {part}: !new:torch.nn.Identity\nsize: 3"))
    with pytest.raises(ValueError, match=f"modules: {part} is .* !new:brainquant.models.{encoder}"):
        load_hparams(yaml)


def test_an_old_address_in_a_yaml_is_named_with_the_new_one(tmp_path, caplog):
    line = "optimizer_step_limit: 5\nprepare: !name:brainquant.monitors.CodeMonitor"
    load_hparams(write_yaml(tmp_path, line))
    assert "monitors.CodeMonitor is brainquant.monitoring.counts.CodeMonitor now" in caplog.text


def test_the_folder_of_a_run_has_every_value_in_force(tmp_path):
    yaml = write_yaml(tmp_path)
    write_hparams(tmp_path / "run", yaml, {"seed": 5})
    written = (tmp_path / "run" / "hyperparams.yaml").read_text("utf-8")
    assert "\nkeep_checkpoints: 2\n" in written and "\nwarmup_steps: 50\n" in written
    values = load_hparams(yaml, {"seed": 5})["values_by_key"]
    again = load_hparams(tmp_path / "run" / "hyperparams.yaml", refuse_unused=False)
    assert again["values_by_key"] == values and values["keep_checkpoints"] == "2"


def test_a_default_that_changes_in_a_later_version_is_named(tmp_path, monkeypatch):
    yaml = write_yaml(tmp_path)
    then = load_hparams(yaml)["values_by_key"]
    later = dataclasses.replace(BestRQBrain.hparams_read["hang_minutes"], default=30)
    read = BestRQBrain.hparams_read | {"hang_minutes": later}
    monkeypatch.setattr(BestRQBrain, "hparams_read", read)
    changed = changed_keys(then, load_hparams(yaml)["values_by_key"])
    assert changed == {"hang_minutes": "10 then, 30 now"}


def test_the_values_in_force_fit_a_terminal_of_80_columns(tmp_path, caplog):
    hparams = load_hparams(write_yaml(tmp_path))
    options = dict.fromkeys(OPTIONS_SHOWN, 1)
    brain = SimpleNamespace(hparams=SimpleNamespace(**hparams), **options)
    with caplog.at_level("INFO"):
        show_options(brain)
    shown, in_file = [record.getMessage().splitlines() for record in caplog.records[-2:]]
    assert shown[0] == "In force:" and len(shown) < 8
    assert caplog.records[-1].name == IN_FILE_ONLY
    assert max(map(len, shown + in_file)) <= 80
    values = dict(re.findall(r"  (\w+): (\S+)", "\n".join(in_file)))
    stated = {key for key in hparams["values_by_key"] if "." not in key}
    assert stated | options.keys() == values.keys()
    assert values["keep_checkpoints"] == "2" and values["optimizer"] == "torch.optim.AdamW"
