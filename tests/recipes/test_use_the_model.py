"""The pages about a finished run, played from the first line to the last in one folder."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from brainquant.cli import main

ROOT = Path(__file__).resolve().parents[2]
PAGES = (  # each goes on where the one before it ends
    "docs/tutorials/use_the_model.md",
    "docs/how_to/use_encoder.md",
    "docs/how_to/long_audio.md",
)
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
    assert_durations_fit("results/fairseq/test")
    for language, block in blocks("README.md"):
        if language == "python":  # its commands are lines of these pages
            exec(compile(block, "README.md", "exec"), {})
    shutil.rmtree(finished_run)  # the exported folder needs nothing of it
    main("encode results/my_encoder data/ToySpeech/valid.csv --output again.npz".split())


def assert_durations_fit(split):
    """What fairseq's HubertDataset checks: labels last as long as the audio, to 0.1 s."""
    clips = Path(f"{split}.tsv").read_text("utf-8").splitlines()[1:]
    labels = Path(f"{split}.km").read_text("utf-8").splitlines()
    rate = json.loads(Path(f"{split}.km.json").read_text("utf-8"))["frame_rate"]
    assert len(clips) == len(labels) > 0
    for clip, units in zip(clips, labels):
        assert abs(int(clip.split("\t")[1]) / 16000 - len(units.split()) / rate) < 0.1


def test_the_commands_of_the_readme_are_those_of_these_pages():
    played = {line for page in PAGES for _, block in blocks(page) for line in block.splitlines()}
    commands = {
        line
        for _, block in blocks("README.md")
        for line in block.splitlines()
        if line.startswith("brainquant ")
    }
    assert commands and commands <= played
