"""Every command and code block of the READMEs runs.

Those of CONTRIBUTING.md are played by tests/recipes/test_contributor.py.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from hyperpyyaml import load_hyperpyyaml
from tiny_ctc import pretrain

from brainquant.data.manifests import read_rows

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("recipes/*/README.md"))
READMES = ["README.md", "docs/drop_in.md", *RECIPES]


def blocks(language):
    for readme in READMES:
        text = (ROOT / readme).read_text("utf-8")
        yield from re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


LINES = sorted({line for block in blocks("bash") for line in block.strip().splitlines()})
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
    "shards": "",
}


@pytest.fixture
def root(line, corpus, librispeech, tmp_path):
    """What there is at the root before the line: recipes, data, what an earlier line has made."""
    for name in ("recipes", "hparams"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "LibriSpeech").symlink_to(librispeech)
    (tmp_path / "data" / "own_speech").symlink_to(librispeech)
    run = tmp_path / "results/librispeech_best_rq_base/seed_1234"
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
    """Several ranks are tested with ToySpeech; those of the other recipes have the time of slow."""
    slow = "torchrun" in line and "ToySpeech" not in line
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
        quick = smaller[0] if smaller else [*TOY.split(), str(corpus)]
        quick += ["--debug"] if "shards" not in arguments else []
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


@pytest.mark.parametrize("block", list(blocks("yaml")))
def test_yaml_blocks_build(block):
    assert len(block.strip().splitlines()) <= 8
    assert load_hyperpyyaml(block)


@pytest.mark.parametrize("block", list(blocks("csv")))
def test_manifests_have_the_columns_that_are_read(block, tmp_path):
    (tmp_path / "train.csv").write_text(block, "utf-8")
    assert all(float(row["duration"]) > 0 for row in read_rows(tmp_path / "train.csv").values())


@pytest.mark.parametrize("page", [*READMES, "CONTRIBUTING.md", "docs/reliability.md"])
def test_links_and_pictures_are_there(page):
    text = (ROOT / page).read_text("utf-8")
    for target in re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", text):
        assert ((ROOT / page).parent / target).exists(), target
