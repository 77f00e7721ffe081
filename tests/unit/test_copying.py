"""A recipe copied from the package needs nothing of the repository."""

import re
from pathlib import Path

import pytest

from brainquant.copying import SOURCE, copy_recipe, recipe_names

ROOT = Path(__file__).resolve().parents[2]


def test_every_recipe_of_the_repository_can_be_copied():
    assert SOURCE == ROOT
    assert recipe_names() == sorted(path.parent.name for path in ROOT.glob("recipes/*/train.py"))


@pytest.mark.parametrize("name", recipe_names())
def test_no_path_of_a_copy_leads_out_of_it(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = copy_recipe(name, "my/recipe")
    for path in Path("my/recipe").rglob("*.*"):
        text = path.read_text("utf-8")
        assert "../" not in text and f"recipes/{name}" not in text
        assert "repository" not in text
        for fragment in re.findall(r"^[^#\n]*!include:(\S+)", text, re.MULTILINE):
            assert (path.parent / fragment).exists()
    for command in commands:
        _, program, hparams = command.split()[:3]
        assert Path(program).exists() and Path(hparams).exists()


def test_what_cannot_be_copied_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no recipe Toy; choose one of .*ToySpeech"):
        copy_recipe("Toy", tmp_path / "new")
    (tmp_path / "mine.txt").touch()
    for folder in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(ValueError, match="exists already; give a new folder"):
            copy_recipe("ToySpeech", folder)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
