"""Exported folders: the hidden states of the run bit for bit, and none of its code and paths."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tiny_ctc import FINETUNE, build_ctc, fit_ctc, manifests, options, write_hparams

from brainquant import cli, load_pretrained
from brainquant.evaluation.table import ENCODERS
from brainquant.inference.describing import describe_run
from brainquant.publishing.card import model_card
from brainquant.publishing.export import export
from brainquant.publishing.facts import Facts, read_facts

USER, HOST, HOME = "xqzuser", "xqzhost", "xqzhome"
ROW = {"mean": 0.5, "spread": 0.01, "best_layer": 1, "layers": [[0.5, 0.4]]}
PROBE = {
    "of": "speakers",
    "num_seeds": 1,
    "utterances": {"train": 9, "valid": 3, "test": 4},
    "majority": 0.25,
    "effective_rank": dict.fromkeys(ENCODERS, [3, 2]),
    "accuracies": dict.fromkeys(["log-mel", *ENCODERS], ROW),
}

# What a program is that has brainquant, but no training code, no network and no YAML.
ALONE = """
import socket, sys

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        for room in ("training", "brains", "recipe", "evaluation", "publishing"):
            assert not f"{name}.".startswith(f"brainquant.{room}."), f"imports {name}"

sys.meta_path.insert(0, Forbidden())

def refuse(*arguments, **options):
    raise AssertionError("forbidden")

import hyperpyyaml, hyperpyyaml.core
hyperpyyaml.load_hyperpyyaml = hyperpyyaml.core.load_hyperpyyaml = refuse
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse

import torch
from safetensors.torch import load_file
import brainquant

for folder in sys.argv[1:]:
    expected = load_file(f"{folder}.expected")
    encoder = brainquant.load_pretrained(folder)
    wavs, lengths = expected["wavs"], expected["lengths"]
    hidden, frames = encoder(wavs, lengths, layers=[1, 2])
    assert torch.equal(frames, expected["frames"])
    assert torch.equal(torch.stack(hidden), expected["hidden"])
    assert torch.equal(encoder(wavs, lengths).hidden, expected["last"])
    if "codes" in expected:
        assert torch.equal(encoder.codes(wavs, lengths).codes_BTG, expected["codes"])
    code = open(f"{folder}/README.md").read().split("```python")[1].split("```")[0]
    exec(code.replace("user/name", folder))
    print(encoder.fingerprint())
"""


@pytest.fixture(scope="module")
def finetuned(corpus, pretrained_run, tmp_path_factory):
    """The folder of a fine-tuning of one step."""
    folder = tmp_path_factory.mktemp("finetuned")
    arguments = pretrained_run("best_rq"), corpus, manifests(corpus, folder), folder / "run"
    small = {"optimizer_step_limit": 1, "number_of_epochs": 1}
    write_hparams(FINETUNE, folder / "run", options(*arguments, **small))
    fit_ctc(*build_ctc(*arguments, **small))
    return folder / "run"


@pytest.fixture(scope="module")
def exports(pretrained_run, finetuned, tmp_path_factory):
    """Runs and their exports, by name, made by somebody whose name and host are known."""
    root = tmp_path_factory.mktemp("xqzroot")
    runs = {
        "best_rq": root / "best_rq_run",
        "wav2vec2": pretrained_run("wav2vec2"),
        "ctc": finetuned,
    }
    shutil.copytree(pretrained_run("best_rq"), runs["best_rq"])
    (runs["best_rq"] / "probe_spk_id.json").write_text(json.dumps(PROBE), "utf-8")
    (runs["best_rq"] / "probe_old.json").write_text("{}", "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
            patch.setenv(variable, USER)
        patch.setenv("HOME", str(root / HOME))
        patch.setattr(socket, "gethostname", lambda: HOST)
        patch.chdir(root)
        for name, run in runs.items():
            export(run, name, license="apache-2.0", language="en,no")
    return {name: (run, root / name) for name, run in runs.items()}


def test_a_process_without_training_code_gives_what_the_run_gives(exports):
    wavs = torch.randn(3, 24000, generator=torch.manual_seed(0))
    lengths = torch.tensor([24000, 9000, 16001])
    fingerprints = []
    for run, folder in exports.values():
        encoder = load_pretrained(run)
        with torch.no_grad():
            hidden, frames = encoder(wavs, lengths, layers=[1, 2])
            last, _ = encoder(wavs, lengths)
        expected = {"wavs": wavs, "lengths": lengths, "frames": frames, "last": last}
        expected["hidden"] = torch.stack(hidden)
        if encoder.quantiser is not None:
            expected["codes"] = encoder.codes(wavs, lengths).codes_BTG
        save_file(expected, f"{folder}.expected")
        fingerprints.append(encoder.fingerprint())
    folders = [str(folder) for _, folder in exports.values()]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *folders], text=True, capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == fingerprints


def test_no_path_and_no_name_of_a_person_or_machine_is_in_any_file(exports, corpus):
    folders = {tempfile.gettempdir(), os.getcwd(), str(Path.home()), str(corpus)} - {"/"}
    private = {USER, HOST, HOME, "xqzroot", *folders}
    for _, folder in exports.values():
        for path in sorted(folder.rglob("*")):
            content = path.read_bytes()
            assert not [word for word in private if word.encode() in content], path
            # Text that is compressed would escape the search.
            assert path.suffix != ".png" or not re.search(b"zTXt|iTXt|eXIf", content)


def test_what_is_in_the_folder(exports):
    for name, (run, folder) in exports.items():
        report = [] if name == "ctc" else ["report.png"]
        expected = ["README.md", "config.json", "hyperparams.yaml", "model.safetensors", *report]
        assert sorted(os.listdir(folder)) == expected
        assert (folder / "model.safetensors").stat().st_mode & 0o444 == 0o444
        config = json.loads((folder / "config.json").read_text("utf-8"))
        assert config["step"] == 1 and config["architecture"] == describe_run(
            run / "hyperparams.yaml"
        )
        tensors = load_file(folder / "model.safetensors")
        rooms = {tensor.partition(".")[0] for tensor in tensors}
        assert rooms == ({"encoder"} if name == "ctc" else {"encoder", "quantiser"})
    assert not [path for path in folder.parent.iterdir() if path.name.startswith(".")]


def test_hours_are_those_of_the_batches(exports):
    run, folder = exports["best_rq"]
    training = json.loads((folder / "config.json").read_text("utf-8"))["training"]
    assert training["objective"] == "BEST-RQ" and training["corpus"] == ["ToySpeech"]
    points = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    train = next(point for point in points if point["stage"] == "train")
    seconds = train["frames"] / train["masked_ratio"] * 0.04
    assert training["hours_seen"] == round(seconds / 3600, 2)
    assert (
        training["validation"]["loss"] == [p for p in points if p["stage"] == "valid"][-1]["loss"]
    )


def test_what_the_run_has_measured_after_its_checkpoint_is_not_said_of_the_model(exports, tmp_path):
    run = shutil.copytree(exports["best_rq"][0], tmp_path / "run")
    facts = read_facts(run)
    later = {"step": 2, "stage": "valid", "loss": 0.0, "frames": 1, "masked_ratio": 0.5}
    with open(run / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"step": 1, "stage": "valid", "loss": None, "accuracy": 0.5}) + "\n")
        file.write(json.dumps(later) + "\n" + json.dumps({**later, "stage": "train"}) + "\n")
    (run / "phones.json").write_text(json.dumps({**PROBE, "of": "phones"}), "utf-8")
    (run / "evaluated_at_step.txt").write_text("0", "utf-8")
    again = read_facts(run)
    assert again.training.pop("validation") == {"accuracy": 0.5}
    assert facts.training.pop("validation")["loss"] > 0
    assert again.training == facts.training and again.probes == facts.probes
    (run / "evaluated_at_step.txt").write_text("1", "utf-8")
    assert len(read_facts(run).probes) == 2


def test_the_card_says_what_the_model_is(exports):
    _, folder = exports["best_rq"]
    _, front, text = (folder / "README.md").read_text("utf-8").split("---\n", 2)
    assert yaml.safe_load(front) == {
        "license": "apache-2.0",
        "language": ["en", "no"],
        "library_name": "brainquant",
        "pipeline_tag": "feature-extraction",
        "tags": ["audio", "speech", "self-supervised", "speechbrain", "best-rq"],
    }
    for part in (
        "# BEST-RQ on ToySpeech", "and 2 layers", "16000 Hz", "25 vectors of 16 values",
        "gives each frame a code out of 32", "![Loss, accuracy and codes", "](report.png)",
        "Linear probe of speakers", "brainquant.load_pretrained", "WaveformEncoder.from_hparams",
        "YAML of this form is code", "FOLDER_OF_AUDIO --format npz --output codes.npz",
        "--format onnx", "## Limits",
    ):  # fmt: skip
        assert part in text, part
    _, folder = exports["ctc"]
    text = (folder / "README.md").read_text("utf-8")
    assert (
        "report.png" not in text and "brainquant tokens" not in text and "CTC fine-tuning" in text
    )


def test_speechbrain_opens_the_folder_as_the_card_says(exports, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, folder = exports["best_rq"]
    code = (folder / "README.md").read_text("utf-8").split("```python")[2].split("```")[0]
    names = {}
    exec(code.replace("user/name", str(folder)), names)
    wavs = torch.randn(1, 16000)
    with torch.no_grad():
        hidden, _ = load_pretrained(run)(wavs)
        encoded = names["encoder"].encode_batch(wavs, torch.ones(1))
    assert torch.equal(encoded["embeddings"], hidden)


def test_a_folder_with_other_content_is_refused_and_the_same_one_is_left_alone(exports, tmp_path):
    run, folder = exports["ctc"]
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    before = copy.stat().st_mtime_ns
    export(run, copy, license="apache-2.0", language="en,no")
    assert copy.stat().st_mtime_ns == before
    (copy / "mine.txt").write_text("mine", "utf-8")
    with pytest.raises(ValueError, match="copy exists and has other content"):
        export(run, copy, license="apache-2.0", language="en,no")
    assert (copy / "mine.txt").exists() and os.listdir(tmp_path) == ["copy"]
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(ValueError, match="file exists and has other content"):
        export(run, tmp_path / "file")


def test_a_class_of_the_users_own_cannot_be_exported(exports, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(exports["best_rq"][0], run)
    text = (run / "hyperparams.yaml").read_text("utf-8")
    (run / "hyperparams.yaml").write_text(text.replace("torch.nn.GELU", "tiny_run.build"), "utf-8")
    with pytest.raises(
        ValueError, match="tiny_run.build cannot be exported: an exported folder is d"
    ):
        export(run, tmp_path / "exported")
    assert os.listdir(tmp_path) == ["run"]


def test_the_command_says_what_it_has_written(exports, tmp_path, capsys):
    output = str(tmp_path / "model")
    cli.main(["export", str(exports["ctc"][0]), "--output", output, "--title", "A: model"])
    assert f"the encoder of step 1 is in {output}" in capsys.readouterr().out
    text = Path(output, "README.md").read_text("utf-8")
    assert "# A: model" in text and "The authors have named no licence" in text
    assert yaml.safe_load(text.split("---\n")[1]).keys() == {"library_name", "pipeline_tag", "tags"}
    with pytest.raises(SystemExit, match="--title is for the card, and --format onnx writes none"):
        cli.main(["export", "x", "--output", output, "--format", "onnx", "--title", "x"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"license": "Mine: all"}, "--license must be written as the Hub does, got 'Mine: all'"),
        ({"language": "English"}, "--language must be codes of languages, got 'English'"),
        ({"title": "a\nb"}, "--title must be one line"),
    ],
)
def test_a_card_is_not_broken_by_its_options(exports, options, said):
    run, folder = exports["ctc"]
    config = json.loads((folder / "config.json").read_text("utf-8"))
    with pytest.raises(ValueError, match=re.escape(said)):
        model_card(Facts(load_pretrained(folder)), config, "", **options)
