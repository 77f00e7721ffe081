"""A model that cannot be continued is named in one line; whatever transformers wrote is read."""

import json
import os
import pickle
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_huggingface import make_model, save_model

from brainquant.errors import RunError
from brainquant.huggingface import continuing, load_encoder, load_wav2vec2
from brainquant.huggingface.library import import_transformers
from brainquant.recipe import main

RECIPE = Path(__file__).resolve().parents[2] / "recipes/OwnSpeech/hparams/continue_wav2vec2.yaml"
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a whole model, which no test changes."""
    folder = tmp_path_factory.mktemp("saved")
    save_model(folder, norm="group")
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of the folder, to break."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def edit(folder, name="config.json", **values):
    content = json.loads((folder / name).read_text("utf-8"))
    (folder / name).write_text(json.dumps({**content, **values}), "utf-8")


def change_weights(folder, change):
    tensors = load_file(folder / WEIGHTS)
    save_file({k: v for k, v in map(change, tensors.items()) if v is not None}, folder / WEIGHTS)


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def as_pickle(folder, content=None):
    """Puts the weights, or another object, into a pytorch_model.bin."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save(tensors if content is None else content, folder / "pytorch_model.bin")


def old_name(item):
    """The name that torch gave the parts of a weight norm before version 2."""
    name = item[0].replace("parametrizations.weight.original0", "weight_g")
    return name.replace("parametrizations.weight.original1", "weight_v"), item[1]


def shard(folder):
    (folder / WEIGHTS).unlink()
    make_model(norm="group").save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1


def with_nan(item):
    if "layers.1.attention.q_proj.weight" in item[0]:
        item[1][0, 0] = torch.nan
    return item


def half_pickle(folder):
    as_pickle(folder)
    halve(folder / "pytorch_model.bin")


def without(part):
    return lambda item: (item[0], None if part in item[0] else item[1])


BROKEN = {
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json; give a folder"),
    "half a config": (lambda f: halve(f / "config.json"), "config.json is no JSON .*again"),
    "nested": (
        lambda f: (f / "config.json").write_text("[" * 10**5, "utf-8"),
        "config.json is no JSON .*recursion.*again",
    ),
    "no type": (lambda f: edit(f, model_type=None), "names no model_type"),
    "bert": (lambda f: edit(f, model_type="bert"), "of the type bert, which cannot .*wavlm"),
    "whisper": (lambda f: edit(f, model_type="whisper"), "of the type whisper, which cannot"),
    "hubert": (lambda f: edit(f, model_type="hubert"), "a hubert model.*continue_masked.yaml"),
    "adapter": (lambda f: edit(f, add_adapter=True), "an adapter .*continue_masked.yaml"),
    "heads": (lambda f: edit(f, num_attention_heads=3), "cannot be loaded .*correct its config"),
    "activation": (lambda f: edit(f, hidden_act="none"), "cannot be loaded .*'none'.*config"),
    "rate": (
        lambda f: edit(f, "preprocessor_config.json", sampling_rate="8k"),
        "sampling_rate in .*preprocessor_config.json must be a whole number .*'8k'",
    ),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "has no weights, neither model.safe"),
    "half the weights": (lambda f: halve(f / WEIGHTS), "weights of .* cannot be read .*again"),
    "empty weights": (lambda f: (f / WEIGHTS).write_bytes(b""), "weights of .* cannot be read"),
    "half a pickle": (half_pickle, "weights of .* (cannot be read|are a pickle that)"),
    "other sizes": (
        lambda f: edit(f, num_codevectors_per_group=20),
        "do not fit its config.json: quantizer.codevectors is 1 x 20 x 4 in .* 1 x 40 x 4 by",
    ),
    "fewer layers": (lambda f: edit(f, num_hidden_layers=3), "lacks 16 of the weights.*layers.2"),
    "more layers": (lambda f: edit(f, num_hidden_layers=1), "has more layers .*layers.1"),
    "a missing head": (lambda f: change_weights(f, without("project_q")), "lacks 2 of .*project_q"),
    "fine-tuned": (
        lambda f: change_weights(f, without("quantizer")),
        "has no quantiser, as after fine-tuning.*continue_masked.yaml",
    ),
    "NaN": (lambda f: change_weights(f, with_nan), "layers.1.attention.q_proj.weight in .* NaN"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_model_ends_the_program_with_one_line(kind, folder, tmp_path, capfd):
    damage, message = BROKEN[kind]
    damage(folder)
    with pytest.raises(SystemExit, match=f"^error: model: .*{message}") as end:
        main([str(RECIPE), "--model", str(folder), "--source", "-", "--output_folder",
              str(tmp_path / "run")])  # fmt: skip
    assert "\n" not in str(end.value) and str(folder) in str(end.value)
    assert "".join(capfd.readouterr()) == ""  # neither tables nor progress bars of transformers


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_file_of_a_model_is_answered_with_its_folder(name, folder):
    with pytest.raises(ValueError, match=f"is one file of a model; give its folder, {folder}$"):
        load_encoder(str(folder / name))


def test_the_folder_of_a_run_is_for_begin_from(tmp_path):
    (tmp_path / "hyperparams.yaml").touch()
    with pytest.raises(ValueError, match="is the folder of a run; .* set begin_from: to it"):
        load_encoder(str(tmp_path))


def test_only_the_weights_of_a_hub_model_are_downloaded(saved, monkeypatch):
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    there = [
        "README.md", "config.json", "preprocessor_config.json", "model.safetensors",
        "model-00001-of-00002.safetensors", "model.safetensors.index.json", "tf_model.h5",
        "adapter.deu.safetensors", "pytorch_model.bin", "modeling_x.py", "vocab.json",
    ]  # fmt: skip
    taken = []

    def download(name, revision, allow_patterns):
        taken.append(set(filter_repo_objects(there, allow_patterns=allow_patterns)))
        return str(saved)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert load_encoder("facebook/mms-300m").dim == 16
    assert taken == [{*there[1:6]}]


@pytest.mark.parametrize("offline", [True, False])
def test_a_hub_id_without_network_is_one_line(offline, tmp_path, monkeypatch, capfd):
    import huggingface_hub

    def refuse(*arguments, **options):
        raise huggingface_hub.errors.LocalEntryNotFoundError("https://... \n Traceback")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    why = "HF_HUB_OFFLINE is set" if offline else "does not answer"
    with pytest.raises(SystemExit, match=f"^error: facebook/wav2vec2-base is no folder .*{why}"):
        main([str(RECIPE), "--source", "-", "--output_folder", str(tmp_path)])
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize("version", [None, "4.57.1"])
def test_transformers_is_asked_for_in_one_line(version, folder, tmp_path, monkeypatch, capfd):
    transformers = import_transformers()
    if version is None:
        monkeypatch.setitem(sys.modules, "transformers", None)  # its import fails
    else:
        monkeypatch.setattr(transformers, "__version__", version)
    expected = version or "models of transformers need it"
    with pytest.raises(SystemExit, match=rf'^error: .*{expected}.*"brainquant\[hf\]"$'):
        main([str(RECIPE), "--model", str(folder), "--source", "-", "--output_folder",
              str(tmp_path / "run")])  # fmt: skip
    assert "".join(capfd.readouterr()) == ""


READ = {
    "names of older versions": lambda f: change_weights(f, old_name),
    "a pickle of tensors": as_pickle,
    "shards": shard,
    "float16": lambda f: change_weights(f, lambda item: (item[0], item[1].half())),
    "bfloat16": lambda f: (
        edit(f, torch_dtype="bfloat16"),
        change_weights(f, lambda item: (item[0], item[1].bfloat16())),
    ),
    "no masks in its config": lambda f: edit(f, apply_spec_augment=False),
}


@pytest.mark.parametrize("kind", READ)
def test_what_transformers_has_written_is_read_as_float32(kind, saved, folder, capfd):
    READ[kind](folder)
    capfd.readouterr()
    exact = kind not in ("float16", "bfloat16")
    tensors = [
        load_wav2vec2(str(path), temp_tuple=[0.5, 0.5, 1.0]).encoder.state_dict()
        for path in (saved, folder)
    ]
    assert tensors[0].keys() == tensors[1].keys()
    for name, tensor in tensors[0].items():
        assert tensors[1][name].dtype == torch.float32
        tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 0.01, "atol": 1e-6}
        torch.testing.assert_close(tensors[1][name], tensor, **tolerance)
    assert "".join(capfd.readouterr()) == ""


class Canary:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "save", [torch.save, lambda *a: Path(a[1]).write_bytes(pickle.dumps(a[0]))]
)
def test_code_in_a_pickle_is_not_executed(save, folder, tmp_path, capfd):
    (folder / WEIGHTS).unlink()
    save({"x": Canary(tmp_path / "canary")}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="pickle that holds more than tensors.*model.safetensors"):
        load_encoder(str(folder))
    assert not (tmp_path / "canary").exists() and "".join(capfd.readouterr()) == ""


def test_code_in_a_models_folder_is_not_executed(folder, tmp_path):
    classes = {"AutoConfig": "code.Config", "AutoModelForPreTraining": "code.Model"}
    edit(folder, auto_map=classes)
    (folder / "code.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'canary')!r})\n", "utf-8")
    assert load_wav2vec2(str(folder), temp_tuple=[0.5, 0.5, 1.0]).encoder.dim == 16
    assert not (tmp_path / "canary").exists()


def test_loading_leaves_the_global_generators_alone(folder, untouched_global_rng):
    import random

    import numpy as np

    states = random.getstate(), np.random.get_state()[1].tolist()
    with untouched_global_rng():
        load_wav2vec2(str(folder), temp_tuple=[0.5, 0.5, 1.0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states


def test_transformers_is_as_talkative_after_loading_as_before(folder):
    logging = import_transformers().utils.logging
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_encoder(str(folder))
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert before[1]


@pytest.mark.parametrize("weights", [True, False])
def test_the_recipe_decides_what_is_computed_again_not_the_config(weights, folder):
    edit(folder, gradient_checkpointing=True)  # as in the config.json of wav2vec2-base
    encoder = load_encoder(str(folder), weights=weights)
    parts = encoder.model.modules()
    assert not any(getattr(part, "gradient_checkpointing", False) for part in parts)


def test_a_run_does_not_go_on_as_another_model(folder, tmp_path):
    model, kept = str(folder), str(tmp_path / "kept")
    copy = {"model": kept, "weights": False}
    assert continuing.keep_model("model", model, kept, {}) == copy
    edit(folder, hidden_dropout=0.2, transformers_version="5.99")  # it stays the same model
    assert continuing.keep_model("model", model, kept, {}) == copy
    edit(folder, hidden_act="relu")
    with pytest.raises(RunError, match="has changed.*hidden_act is relu, and was gelu; move it"):
        continuing.keep_model("model", model, kept, {})
    shutil.rmtree(folder)
    assert continuing.keep_model("model", model, kept, {}) == copy


def test_the_copy_of_a_model_is_of_its_revision(folder, tmp_path, monkeypatch):
    asked = []
    find_model = continuing.find_model
    monkeypatch.setattr(continuing, "find_model", lambda *a: asked.append(a) or find_model(folder))
    continuing.keep_model("model", "some/model", str(tmp_path / "kept"), {"revision": "v2"})
    assert asked == [("some/model", "v2")]
    assert (tmp_path / "kept/hub_id.txt").read_text("utf-8") == "some/model"
    continuing.keep_model("model", "some/model", str(tmp_path / "kept"), {"revision": "v2"})
    assert len(asked) == 1  # a run that goes on needs no network


def test_what_w2v_bert_does_not_have_cannot_be_frozen(tmp_path):
    save_model(tmp_path, "Wav2Vec2BertModel")
    with pytest.raises(ValueError, match="freeze_extractor is True, but .* has no convolutions"):
        load_encoder(str(tmp_path), freeze_extractor=True)
