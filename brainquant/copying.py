"""Copies a recipe out of the installed package: ``brainquant copy``."""

import shutil
from pathlib import Path

# setup.py puts recipes and hparams into a wheel; in a clone they lie beside the package.
PACKAGE = Path(__file__).resolve().parent
SOURCE = PACKAGE / "_shared" if (PACKAGE / "_shared").is_dir() else PACKAGE.parent


def recipe_names() -> list[str]:
    """The recipes that can be copied.

    Example
    -------
    >>> "ToySpeech" in recipe_names()
    True
    """
    return sorted(path.parent.name for path in SOURCE.glob("recipes/*/train.py"))


def copy_recipe(name: str, folder: str | Path) -> list[str]:
    """Copies a recipe and the YAML fragments of all recipes into a folder of the user.

    The copy runs without a clone of the repository: fragments go into ``<folder>/hparams``, and
    paths in its files follow.

    Arguments
    ---------
    name : str
        The recipe, a folder of ``recipes/``.
    folder : str | Path
        A new or empty folder.

    Returns
    -------
    commands : list of str
        One for each YAML file that can be run.

    Raises
    ------
    ValueError
        If there is no such recipe, or the folder holds something.

    Example
    -------
    >>> folder = getfixture("tmp_path") / "my_recipe"
    >>> copy_recipe("ToySpeech", folder)[0] == (
    ...     f"python {folder}/train.py {folder}/hparams/best_rq.yaml"
    ... )
    True
    """
    if name not in recipe_names():
        raise ValueError(f"there is no recipe {name}; choose one of {', '.join(recipe_names())}")
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists already; give a new folder")
    for source, target in ((f"recipes/{name}", folder), ("hparams", folder / "hparams")):
        shutil.copytree(
            SOURCE / source,
            target,
            ignore=shutil.ignore_patterns("__pycache__", "*.md", "*.png"),
            copy_function=shutil.copyfile,  # an installed file may be read-only
            dirs_exist_ok=True,
        )
    changes = {
        "../../../hparams/": "",  # fragments lie beside the YAML that includes them
        f"recipes/{name}/": f"{folder.as_posix()}/",
        "From the repository's root": "Run it with",
    }
    for path in sorted([*folder.rglob("*.py"), *folder.rglob("*.yaml")]):
        text = path.read_text("utf-8")
        for before, after in changes.items():
            text = text.replace(before, after)
        path.write_text(text, "utf-8")
    return [_command(path) for path in sorted(folder.glob("hparams/*.yaml"))]


def _command(path: Path) -> str:
    """The command that stands at the top of a YAML file."""
    lines = path.read_text("utf-8").splitlines()
    return next(line for line in lines if line.startswith("#   python "))[1:].strip()
