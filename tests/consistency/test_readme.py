"""Every command and code block of the READMEs and of the documentation runs.

In tests/recipes, test_contributor.py plays the pages for contributors, test_use_the_model.py those
about a finished run, and test_other_toolkits.py the one about other toolkits; in tests/unit,
test_onnx.py plays the one about ONNX; in tests/integration, test_to_transformers.py plays the one
about transformers.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml
from made_runs import make_run
from tiny_ctc import pretrain
from tiny_fairseq import make_checkpoint
from tiny_huggingface import save_model
from tiny_speechbrain import save_run

from brainquant.cli import make_parser
from brainquant.data.manifests import read_rows
from brainquant.training import keys

ROOT = Path(__file__).resolve().parents[2]
READMES = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("recipes/*/README.md"))
READMES = ["README.md", "CONTRIBUTING.md", *READMES]
DOCS = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md"))
PLAYED = {
    "docs/tutorials/own_quantiser.md",
    "docs/how_to/contribute_a_recipe.md",
    "docs/tutorials/use_the_model.md",
    "docs/how_to/use_encoder.md",
    "docs/how_to/long_audio.md",
    "docs/how_to/other_toolkits.md",
    "docs/how_to/onnx.md",
    "docs/how_to/export_to_transformers.md",
}
# The YAML of schedules is tested in tests/unit/test_schedules.py.
SCHEDULES = "docs/how_to/schedules_and_optimisers.md"


def blocks(language, pages=(*READMES, *DOCS), without=PLAYED):
    for page in pages:
        if page not in without:
            text = (ROOT / page).read_text("utf-8")
            yield from re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def lines(pages, without=PLAYED):
    found = blocks("bash", pages, without)
    return {line for block in found for line in block.strip().splitlines()}


LINES = sorted(lines([*READMES, *DOCS]) - lines(PLAYED, without=()))
RUNS = [line for line in LINES if "recipes/" in line or line.startswith("brainquant ")]
# All of them run with --debug: a line that another one begins with needs no run of its own.
RUNS_ONCE = [line for line in RUNS if not any(o.startswith(f"{line} --debug") for o in RUNS)]
INSTALLS = "python3 -m venv .venv|. .venv/bin/activate|pip install |pytest"


def commands(line):
    """What is joined by && in a line, without what installs: this suite runs in its result."""
    for command in line.split("&&"):
        if not re.match(INSTALLS, command.strip()):
            yield shlex.split(command)


def test_commands_that_install_name_what_setup_cfg_has():
    setup = (ROOT / "setup.cfg").read_text("utf-8")
    assert all(not list(commands(line)) for line in LINES if line not in RUNS)
    extras = {
        extra for line in LINES for extra in re.findall(r'pip install -e "\.\[(\w+)\]"', line)
    }
    assert {"demo", "test"} <= extras
    assert all(f"\n{extra} =\n" in setup for extra in extras)


# Small enough for a few batches on a CPU. ToySpeech and TEMPLATE are given a corpus that is there.
TOY = "--prepare null --evaluate null --num_layers 2 --data_folder"
LIBRISPEECH = (
    "--train_splits [train-clean-100] --valid_splits [dev-clean] --batch_seconds 8 --num_buckets 4 "
    "--num_workers 0 --precision fp32"
)
TEST = "results/librispeech_finetune_ctc/seed_1234/manifests/test-clean.csv"
SMALLER = {
    "recipes/LibriSpeech/train.py": f"--num_layers 1 --d_model 16 {LIBRISPEECH}",
    "recipes/LibriSpeech/finetune_ctc.py": f"--test_splits [test-clean] --test_csv [{TEST}] "
    f"{LIBRISPEECH}",
    "recipes/OwnSpeech/train.py": "--num_layers 1 --d_model 16 --batch_seconds 8 --num_workers 0",
    "recipes/OwnSpeech/hparams/continue_wav2vec2.yaml": "--batch_seconds 8 --num_workers 0",
    "recipes/OwnSpeech/hparams/continue_masked.yaml": "--batch_seconds 8 --num_workers 0",
    "recipes/OwnSpeech/hparams/continue_best_rq.yaml": "--batch_seconds 8 --num_workers 0",
    "recipes/OwnSpeech/hparams/continue_speechbrain_wav2vec2.yaml": "--batch_seconds 8 "
    "--num_workers 0",
    "shards": "",
    "compare": "",
}
WITHOUT_RECIPE = {"shards", "compare"}  # commands that take no option of a recipe
# Public models that the pages name: folders under these names, with random weights.
PUBLIC = {
    "facebook/wav2vec2-base": ("Wav2Vec2ForPreTraining", "group"),
    "facebook/hubert-base-ls960": ("HubertModel", "group"),
}

# Checkpoints of fairseq and runs of SpeechBrain that they name, small and with random weights.
CHECKPOINTS = {
    "checkpoints/wav2vec_small.pt": "wav2vec2",
    "checkpoints/hubert_base_ls960.pt": "hubert",
}
SPEECHBRAIN = {
    "BEST-RQ/results/1000": "continue_best_rq",
    "wav2vec2/wav2vec2-base": "continue_speechbrain_wav2vec2",
}


@pytest.fixture
def root(line, corpus, librispeech, tmp_path):
    """What there is at the root before the line: recipes, data, what an earlier line has made."""
    for name in ("recipes", "hparams"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "LibriSpeech").symlink_to(librispeech)
    (tmp_path / "data" / "own_speech").symlink_to(librispeech)
    for name, (kind, norm) in PUBLIC.items():
        if name in line:
            save_model(tmp_path / name, kind, norm)
    for name, kind in CHECKPOINTS.items():
        if name in line:
            (tmp_path / name).parent.mkdir()
            torch.save(make_checkpoint(kind), tmp_path / name)
    for name, recipe in SPEECHBRAIN.items():
        if f" {name}" in line:
            save_run(tmp_path / name, recipe)
    run = tmp_path / "results/librispeech_best_rq_base/seed_1234"
    if "brainquant compare" in line:
        for name in re.findall(r"results/\S+", line):
            make_run(tmp_path / name)
    if "finetune" in line:
        run.mkdir(parents=True)
        pretrain("best_rq", corpus, run)
    if "shards" in line:
        (run / "manifests").mkdir(parents=True)
        paths = [path.relative_to(librispeech) for path in librispeech.rglob("*.flac")]
        rows = "".join(
            f"{path.stem},{soundfile.info(librispeech / path).duration},$data_root/{path}\n"
            for path in paths
        )
        (run / "manifests" / "train.csv").write_text(f"ID,duration,wav\n{rows}", "utf-8")
    return tmp_path


def marked(line):
    """Several ranks are tested with ToySpeech. More options of another recipe are slow."""
    slow = "ToySpeech" not in line and ("torchrun" in line or line not in lines(READMES))
    slow = slow and not line.startswith("brainquant ")
    return pytest.param(line, marks=pytest.mark.slow if slow else ())


@pytest.mark.parametrize("line", [marked(line) for line in RUNS_ONCE])
def test_a_line_runs(line, corpus, root):
    """As it stands, seen from the root, but in --debug, shallow and in a folder of the test."""
    programs = {
        "python": [sys.executable],
        "torchrun": [sys.executable, "-m", "torch.distributed.run"],
        "brainquant": [Path(sys.executable).with_name("brainquant")],
    }
    for program, *arguments in commands(line):
        smaller = [SMALLER[a].split() for a in arguments if a in SMALLER]
        quick = smaller[-1] if smaller else [*TOY.split(), str(corpus)]
        if any("online_codebooks" in argument for argument in arguments):
            quick = [*quick, "--num_target_layers", "1"]
        # An option is given once: that of the page stays.
        quick = [
            part for option in zip(quick[::2], quick[1::2]) if option[0] not in arguments
            for part in option
        ]  # fmt: skip
        quick += [] if WITHOUT_RECIPE & set(arguments) else ["--debug"]
        quick += ["--frames", "5000"] if "kmeans" in arguments else []
        done = subprocess.run(
            [*programs[program], *arguments, *quick],
            cwd=root,
            text=True,
            capture_output=True,
            timeout=300,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr[-3000:]
    assert "train.py" not in line or list(root.rglob("debug/report.png"))
    assert "finetune" not in line or list(root.rglob("debug/wer_test-clean.txt"))
    for name in ("metrics.jsonl", "left_out.jsonl"):
        written = {
            field
            for path in root.rglob(f"debug/{name}")
            for record in path.read_text("utf-8").splitlines()
            for field in json.loads(record)
        }
        assert written <= documented_fields(name)


def documented_fields(name):
    """The fields that the page about the files of a run has for a file."""
    text = (ROOT / "docs/reference/files.md").read_text("utf-8")
    section = re.search(rf"^## {name}\n(.*?)(^## |\Z)", text, re.DOTALL | re.MULTILINE).group(1)
    cells = re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
    return {field for cell in cells for field in re.findall(r"`(\w+)`", cell)}


def test_every_field_that_is_documented_is_in_the_code():
    code = "".join(path.read_text("utf-8") for path in ROOT.glob("brainquant/**/*.py"))
    for name in ("metrics.jsonl", "left_out.jsonl"):
        for field in documented_fields(name):
            of_layers = re.sub("^(start|mean)_", "", field)
            names = f'"{field}"', f"{field}=", f'"{of_layers}"'
            assert any(name in code for name in names), field


def test_every_group_of_keys_is_documented():
    text = (ROOT / "docs/reference/keys.md").read_text("utf-8")
    documented = {
        name for group in re.findall(r"<!-- keys: (\w+) -->", text) for name in vars(keys)[group]
    }
    assert documented == set(keys.ALL)


@pytest.mark.parametrize("page", [page for page in DOCS if page not in PLAYED])
def test_python_blocks_run(page, tmp_path, monkeypatch):
    """The blocks of a page go on from each other."""
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    for block in blocks("python", [page]):
        exec(compile(block, page, "exec"), names)


@pytest.mark.parametrize("block", list(blocks("yaml", sorted({*READMES, *DOCS} - {SCHEDULES}))))
def test_yaml_blocks_build(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(block.strip().splitlines()) <= 8
    assert load_hyperpyyaml(block)


@pytest.mark.parametrize("block", list(blocks("csv")))
def test_manifests_have_the_columns_that_are_read(block, tmp_path):
    (tmp_path / "train.csv").write_text(block, "utf-8")
    assert all(float(row["duration"]) > 0 for row in read_rows(tmp_path / "train.csv").values())


@pytest.mark.parametrize("page", [*READMES, *DOCS])
def test_links_and_pictures_are_there(page):
    text = (ROOT / page).read_text("utf-8")
    links = re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]*))?\)", text)
    links += [(target, "") for target in re.findall(r"^```\{image\} (\S+)$", text, re.MULTILINE)]
    for target, anchor in links:
        path = ((ROOT / page).parent / target) if target else ROOT / page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path), f"{target}#{anchor}"


def anchors(path):
    """The headings of a page, as GitHub names them in links."""
    if "<!-- commands:" in (text := path.read_text("utf-8")):
        (commands,) = (a.choices for a in make_parser()._actions if a.metavar == "command")
        text += "".join(f"\n## brainquant {name}\n" for name in commands)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_pages_that_code_and_recipes_name_are_there():
    for folder in ("brainquant", "hparams", "recipes", "tests"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".yaml"):
                for page in re.findall(r"\bdocs/[\w/]+\.\w+", path.read_text("utf-8")):
                    assert (ROOT / page).exists(), f"{path}: {page}"
