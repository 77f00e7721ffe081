"""The house in order: imports go one way, fragments build, recipes say how they are run."""

import ast
import re
import shutil
from pathlib import Path

import pytest
import torch
from fragments import OF_INPUTS
from hyperpyyaml import load_hyperpyyaml

from brainquant.quantisers import Quantiser, make_quantiser

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "brainquant"
# An exported folder needs nothing of training, and the first lines of a training need nothing of
# recipes. These files of the same rooms also open recipes, or the folders of runs.
OPENS_RUNS = {
    *(
        f"inference/{name}"
        for name in ("__init__", "describing", "describing_speechbrain", "loading", "speechbrain")
    ),
    *(f"planning/{name}" for name in ("plan", "trial", "trial_process", "find_batch")),
}
# Rooms from left to right; nothing imports from a room to the right of its own.
ROOMS = [
    {"errors", "processes", "copying", "old_addresses"},
    {"own_files", "functional"},
    {"ranks"},
    {"search", "losses", "masking", "data", "models"},
    {"quantisers", "monitoring"},
    {"huggingface"},
    {"inference"},
    {"training"},
    {"brains"},
    {"planning"},
    {"recipe"},
    {"evaluation", "fitting", "testing", *OPENS_RUNS},
    {"extraction", "publishing", "targets", "reporting"},
    {"cli"},
]
RECIPES = sorted(ROOT.glob("recipes/*/hparams/*.yaml"))
PROGRAMS = [path for run in ROOT.glob("recipes/*/train.py") for path in run.parent.glob("*.py")]


def room_of(parts):
    """The number of a room. A file that is listed by itself is in another one than its folder."""
    file = "/".join([*filter(None, parts), "__init__"][:2])
    name = file if file in OPENS_RUNS else parts[0]
    return next(number for number, room in enumerate(ROOMS) if name in room)


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_nothing_imports_rightwards(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if parts == ("__init__",):
        return
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            package = parts[: len(parts) - node.level] if len(parts) >= node.level else ()
            target = [*package, *(node.module or "").split(".")]
            if not target[0]:  # a name of brainquant/__init__.py, such as __version__
                continue
            assert room_of(target) <= room_of(parts), f"{path.name} imports {target}"


@pytest.mark.parametrize("fragment", OF_INPUTS, ids=lambda path: path.stem)
def test_a_quantiser_fragment_builds_and_keeps_the_contract(fragment, tmp_path):
    shutil.copy(fragment, tmp_path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"make_quantiser: !include:{fragment.name} {{}}", "utf-8")
    with open(recipe, encoding="utf-8") as file:
        quantiser = make_quantiser(load_hyperpyyaml(file)["make_quantiser"], input_dim=24)
    assert isinstance(quantiser, Quantiser)
    codes = quantiser.encode(torch.randn(2, 5, 24))
    assert codes.shape == (2, 5, quantiser.num_codebooks) and codes.dtype == torch.long
    assert codes.min() >= 0 and codes.max() < quantiser.codebook_size
    quantiser.update_temp(10)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_opens_with_the_command_that_runs_it(recipe):
    opening = "".join(recipe.read_text("utf-8").splitlines(keepends=True)[:4])
    folder = recipe.parent.parent.relative_to(ROOT)
    command = rf"^#   python ({folder}/\w+\.py) {recipe.relative_to(ROOT)}\b"
    program = re.search(command, opening, re.MULTILINE)
    assert program and (ROOT / program.group(1)).exists()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_short_and_states_no_line_of_the_checkpointer(recipe):
    text = recipe.read_text("utf-8")
    assert 60 <= len(text.splitlines()) <= 90
    assert "recoverables" not in text


PROGRAMS = [
    path for path in sorted(ROOT.glob("recipes/*/*.py")) if (path.parent / "train.py").exists()
]


@pytest.mark.parametrize("program", sorted(PROGRAMS), ids=str)
def test_a_program_of_a_recipe_is_a_docstring_and_a_call(program):
    text = program.read_text("utf-8")
    assert len(text.splitlines()) <= 15
    docstring, *body = ast.parse(text).body
    code = 'from brainquant.recipe import main\nif __name__ == "__main__":\n    main()'
    assert ast.dump(ast.Module([*body], [])) == ast.dump(ast.parse(code))
