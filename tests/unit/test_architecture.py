"""Every recipe and every quantiser fragment can be described, exported, and built from data."""

from pathlib import Path

import pytest
import torch
from fragments import OF_INPUTS
from safetensors.torch import save_file
from speechbrain.nnet import attention
from tiny_ctc import FINETUNE

from brainquant.inference import PretrainedEncoder
from brainquant.inference.allowed import ALLOWED, check_description, load_class
from brainquant.inference.architecture import build
from brainquant.inference.describing import describe_run
from brainquant.inference.folder import open_folder
from brainquant.publishing.export import write_model
from brainquant.training.hparams import load_hparams, parse_arguments
from brainquant.training.needed_files import keep_needed_files
from brainquant.training.resolve import write_hparams

ROOT = Path(__file__).resolve().parents[2]
# A continued run is that of another model or run: see test_to_transformers.py.
RECIPES = [
    path
    for path in sorted(ROOT.glob("recipes/*/hparams/*.yaml"))
    if path != FINETUNE and not path.stem.startswith("continue_")
]
BEST_RQ = ROOT / "recipes/ToySpeech/hparams/best_rq.yaml"
WAV2VEC2 = ROOT / "recipes/ToySpeech/hparams/wav2vec2.yaml"
REFERENCE = "in_dim: !ref <extractor.out_dim>"


@pytest.fixture
def describe(tmp_path):
    """The hyperparams.yaml of a run of a recipe that has not begun, with small sizes."""

    def run(recipe, *options, name="run"):
        small = {"d_model": 16, "d_ffn": 32, "num_layers": 1, "channels": 16}
        small["num_target_layers"] = 1
        document = recipe.read_text("utf-8")
        argv = [str(recipe), *options]
        for key, value in small.items():
            argv += [f"--{key}", str(value)] if f"\n{key}:" in document else []
        for key in ("data_folder", "source"):
            argv += [f"--{key}", "x"] if f"\n{key}: !PLACEHOLDER" in document else []
        file, _, overrides = parse_arguments([*argv, "--output_folder", str(tmp_path / name)])
        write_hparams(tmp_path / name, file, {**overrides, "train_loggers": []})
        return tmp_path / name / "hyperparams.yaml"

    return run


def modules_of(hparams_file):
    """The modules that the YAML itself builds."""
    torch.manual_seed(0)
    changes = {"output_folder": str(hparams_file.parent), "__set_seed": None}
    return load_hparams(hparams_file, changes, refuse_unused=False)["modules"]


def assert_exported_equals(hparams_file, folder):
    """What is built from data gives what the YAML's own modules give, bit for bit."""
    modules = modules_of(hparams_file)
    description = describe_run(hparams_file)
    quantiser = modules.get("quantiser")
    encoder = PretrainedEncoder(modules["encoder"], quantiser, step=3, description=description)
    folder.mkdir()
    write_model(str(folder), encoder, {})
    opened = open_folder(folder)
    wavs = torch.randn(2, 24000, generator=torch.manual_seed(1))
    lengths = torch.tensor([24000, 15000])
    with torch.no_grad():
        assert torch.equal(opened(wavs, lengths).hidden, encoder(wavs, lengths).hidden)
    if quantiser is not None:
        assert torch.equal(opened.codes(wavs, lengths)[0], encoder.codes(wavs, lengths)[0])
    assert opened.fingerprint() == encoder.fingerprint() and opened.step == 3


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_the_encoder_of_a_recipe_is_data(describe, tmp_path, recipe):
    assert_exported_equals(describe(recipe), tmp_path / "exported")


@pytest.fixture
def centroids(tmp_path):
    """A file of centroids, and the fragment of a quantiser that names it."""
    path, fragment = tmp_path / "k.safetensors", tmp_path / "kmeans.yaml"
    save_file({"centroids": torch.randn(8, 320)}, path)
    fragment.write_text(f"!name:brainquant.KMeansQuantizer {{centroids: {path}}}\n", "utf-8")
    return path, fragment


@pytest.mark.parametrize("fragment", OF_INPUTS, ids=lambda path: path.stem)
def test_a_quantiser_is_data(describe, tmp_path, fragment):
    hparams_file = describe(BEST_RQ, "--make_quantiser", f"!include:{fragment}")
    assert_exported_equals(hparams_file, tmp_path / "exported")


def test_centroids_of_a_file_are_a_shape(describe, tmp_path, centroids):
    hparams_file = describe(BEST_RQ, "--make_quantiser", f"!include:{centroids[1]}")
    assert_exported_equals(hparams_file, tmp_path / "exported")
    config = (tmp_path / "exported/config.json").read_text("utf-8")
    assert str(tmp_path) not in config


def test_centroids_that_a_run_has_kept_are_found_after_it_was_moved(describe, tmp_path, centroids):
    path, fragment = centroids
    hparams_file = describe(BEST_RQ, "--make_quantiser", f"!include:{fragment}")
    keep_needed_files(hparams_file.parent, went_on=False)
    path.unlink()
    hparams_file.parent.rename(tmp_path / "moved")
    quantiser = describe_run(tmp_path / "moved/hyperparams.yaml")["quantiser"]
    assert quantiser["arguments"]["centroids"] == [8, 320]


@pytest.mark.parametrize("attention_type", ["RoPEMHA", "regularMHA", "hypermixing"])
def test_other_attention_is_data(describe, tmp_path, attention_type):
    # SpeechBrain keeps the sines of rotary positions for the next model, also those without memory.
    attention._get_precomputed_values.memo.clear()
    hparams_file = describe(BEST_RQ, "--transformer", f"{{attention_type: {attention_type}}}")
    description = describe_run(hparams_file)
    encoder, _ = build(description)
    attention._get_precomputed_values.memo.clear()
    shapes = {f"encoder.{name}": tuple(t.shape) for name, t in encoder.state_dict().items()}
    description["quantiser"] = None
    again, _ = build(description, shapes)
    again.load_state_dict(encoder.state_dict())
    clip = torch.randn(1, 8000), torch.tensor([8000])
    assert torch.equal(again.eval()(*clip).hidden_BTD, encoder.eval()(*clip).hidden_BTD)


def test_a_fine_tuned_encoder_is_that_of_its_pretraining(describe, tmp_path):
    pretraining = describe(BEST_RQ, name="pretraining")
    finetuning = describe(FINETUNE, "--pretrained", str(pretraining.parent))
    expected = describe_run(pretraining)["encoder"]
    assert describe_run(finetuning) == {"encoder": expected, "quantiser": None}


def test_global_statistics_are_tensors_of_the_export(describe, tmp_path):
    hparams_file = describe(BEST_RQ, "--normalize", "{norm_type: global}")
    description = describe_run(hparams_file)
    encoder = PretrainedEncoder(modules_of(hparams_file)["encoder"], description=description)
    encoder.description["quantiser"] = None
    encoder.encoder.normalize.glob_mean.fill_(0.25)
    write_model(str(tmp_path), encoder, {})
    assert (open_folder(tmp_path).encoder.normalize.glob_mean == 0.25).all()


def test_a_reference_to_a_size_of_a_part_becomes_a_number(describe, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    text = WAV2VEC2.read_text("utf-8").replace("in_dim: !ref <channels>", REFERENCE)
    text = text.replace("../../../hparams", str(ROOT / "hparams"))
    recipe.write_text(text, "utf-8")
    hparams_file = describe(recipe)
    assert "!apply:getattr" in hparams_file.read_text("utf-8")
    transformer = describe_run(hparams_file)["encoder"]["arguments"]["transformer"]
    assert transformer["arguments"]["in_dim"] == 16


def test_a_class_of_the_users_own_is_named(describe):
    hparams_file = describe(BEST_RQ)
    text = hparams_file.read_text("utf-8")
    hparams_file.write_text(text.replace("torch.nn.GELU", "collections.Counter"), "utf-8")
    with pytest.raises(ValueError, match="encoder.*activation: collections.Counter cannot be exp"):
        describe_run(hparams_file)


def test_the_list_has_no_class_that_does_not_exist():
    assert all(isinstance(load_class(path), type) for path in ALLOWED)


@pytest.mark.parametrize(
    "value",
    [
        10**30, float("nan"), float("inf"), "../weights", "a/b", "~", "a" * 100, "x.y", "\x00",
        {"class": "os.system", "arguments": {}}, {"class": "torch.nn.GELU"}, [[[["/"]]]],
        {"class": "torch.load", "arguments": ["x"]}, {"name": "builtins.eval", "arguments": {}},
        {"class": "torch.nn.modules.activation.GELU", "arguments": {}}, b"x",
        {"class": ["torch.nn.GELU"], "arguments": {}}, {"class": "torch.nn.GELU", "arguments": "x"},
    ],
    ids=str,
)  # fmt: skip
def test_only_plain_arguments_are_allowed(value):
    good = {"class": "torch.nn.Dropout", "arguments": {"p": 0.5, "inplace": None}}
    check_description({"encoder": good, "quantiser": None})
    good["arguments"]["inplace"] = value
    with pytest.raises(ValueError, match=r"^encoder\.inplace.*: ") as caught:
        check_description({"encoder": good, "quantiser": None})
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError):
        build({"encoder": good, "quantiser": None})


def test_an_encoder_and_a_quantiser_are_built_and_nothing_else():
    dropout = {"class": "torch.nn.Dropout", "arguments": {"p": 0.5}}
    with pytest.raises(ValueError, match="encoder: must be an encoder of brainquant.models"):
        build({"encoder": dropout, "quantiser": None})
