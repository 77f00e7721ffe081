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
from hyperpyyaml import load_hyperpyyaml

from brainquant.data.manifests import check_manifest

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("recipes/*/README.md"))
READMES = ["README.md", *RECIPES]


def blocks(language):
    for readme in READMES:
        text = (ROOT / readme).read_text("utf-8")
        yield from re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


COMMANDS = sorted({
    command.strip()
    for block in blocks("bash")
    for line in block.strip().splitlines()
    for command in line.split("&&")
})  # fmt: skip
TRAININGS = [command for command in COMMANDS if "train.py" in command]


def test_commands_that_install_name_what_setup_cfg_has():
    """The others are known: this suite runs in what they install, started by the last of them."""
    others = [command for command in COMMANDS if command not in TRAININGS]
    setup = (ROOT / "setup.cfg").read_text("utf-8")
    known = {"python3 -m venv .venv", ". .venv/bin/activate", "pytest"}
    extras = {re.fullmatch(r'pip install -e "\.\[(\w+)\]"', command) for command in others}
    extras = {match.group(1) for match in extras if match}
    assert all(f"\n{extra} =\n" in setup for extra in extras)
    assert set(others) == known | {f'pip install -e ".[{extra}]"' for extra in extras}


@pytest.mark.parametrize("command", TRAININGS)
def test_a_training_command_runs(command, corpus, tmp_path):
    """As it stands, from the repository's root, but in --debug, shallow and in a test's folder."""
    program, *arguments = shlex.split(command)
    programs = {"python": [], "torchrun": ["-m", "torch.distributed.run"]}
    quick = "--debug --num_layers 2 --prepare null --evaluate null".split()
    folders = ["--data_folder", str(corpus), "--output_folder", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, *programs[program], *arguments, *quick, *folders],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "debug" / "report.png").exists()


@pytest.mark.parametrize("block", list(blocks("yaml")))
def test_yaml_blocks_build(block):
    assert len(block.strip().splitlines()) <= 8
    assert load_hyperpyyaml(block)


@pytest.mark.parametrize("block", list(blocks("csv")))
def test_manifests_have_the_columns_that_are_read(block, tmp_path):
    (tmp_path / "train.csv").write_text(block, "utf-8")
    assert all(float(row["duration"]) > 0 for row in check_manifest(tmp_path / "train.csv"))


@pytest.mark.parametrize("page", [*READMES, "CONTRIBUTING.md"])
def test_links_and_pictures_are_there(page):
    text = (ROOT / page).read_text("utf-8")
    for target in re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", text):
        assert ((ROOT / page).parent / target).exists(), target
