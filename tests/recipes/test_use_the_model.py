"""The pages about a finished run, played from the first line to the last in one folder."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from brainquant.cli import main

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("docs/tutorials/use_the_model.md", "docs/how_to/use_encoder.md")  # the second goes on
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page):
    return BLOCK.findall((ROOT / page).read_text("utf-8"))


@pytest.fixture
def finished_run(pretrained_run, corpus, tmp_path, monkeypatch):
    """A folder with what the first tutorial leaves; the commands run in it."""
    run = tmp_path / "results/toyspeech_best_rq/seed_1234"
    shutil.copytree(pretrained_run("best_rq"), run)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/ToySpeech").symlink_to(corpus)
    monkeypatch.chdir(tmp_path)
    return run


def test_every_line_of_the_pages_runs(finished_run, capsys):
    for page in PAGES:
        names = {"__name__": "page"}
        for language, block in blocks(page):
            if language == "python":
                exec(compile(block, page, "exec"), names)
                continue
            for line in block.splitlines():
                program, *arguments = shlex.split(line)
                assert program == "brainquant"
                main(arguments)
    assert "log-mel: " in capsys.readouterr().out
    shutil.rmtree(finished_run)  # the exported folder needs nothing of it
    main("encode results/my_encoder data/ToySpeech/valid.csv --output again.npz".split())


def test_python_of_the_readme_is_that_of_these_pages():
    played = {line for page in PAGES for _, block in blocks(page) for line in block.splitlines()}
    for language, block in blocks("README.md"):
        if language == "python":  # its commands are run by tests/consistency/test_readme.py
            assert {*block.splitlines()} <= played
