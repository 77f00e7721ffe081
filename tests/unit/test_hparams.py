"""What the YAML and the command line say is what runs, or there is one clear error."""

import shutil
from pathlib import Path

import pytest
import torch

from brainquant.training.hparams import load_hparams, parse_arguments
from brainquant.training.resolve import build

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


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--learning_rate", "1"], "unknown key 'learning_rate'"),
        (["--mask_lenght", "4"], "did you mean 'mask_length'"),
        (["--max_grad", "3"], "unknown key 'max_grad'"),
        (["--lr", "1", "--lr", "2"], "--lr is there twice"),
        (["--quantiser", "!new:torch.nn.Linear {in_features: 2}"], "would keep the class"),
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
    yaml = renamed(tmp_path, "max_grad_norm", "max_grad_nrom")
    with pytest.raises(ValueError, match="'max_grad_nrom'.*did you mean 'max_grad_norm'"):
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


@pytest.mark.parametrize("key", ["noise_std", "log_interval", "brain_class"])
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


def test_a_new_key_with_a_default_breaks_no_old_yaml(tmp_path):
    yaml = renamed(tmp_path, "max_bad_audio", "__gone")
    assert load_hparams(yaml, {"output_folder": str(tmp_path)})["max_bad_audio"] == 0.001
    overrides = parse_arguments([str(yaml), "--max_bad_audio", "0.5", "--num_layers", "1"])[2]
    overrides["output_folder"] = str(tmp_path)
    assert load_hparams(yaml, overrides)["max_bad_audio"] == 0.5
