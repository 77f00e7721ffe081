"""The command line: its help, its errors, and what it leaves behind."""

import pytest

from brainquant.cli import main, make_parser


@pytest.mark.parametrize("arguments", [[], ["kmeans"], ["pca"]])
def test_help_fits_80_columns_and_names_what_can_be_set(arguments, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        main([*arguments, "--help"])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    named = {"kmeans": "--layer --clusters --frames --output recipe --data_folder",
             "pca": "--dim --frames --output recipe --data_folder", "": "kmeans pca"}  # fmt: skip
    assert all(name in shown for name in named["".join(arguments)].split())


def test_what_is_not_its_own_goes_to_the_recipe_in_order():
    line = "kmeans r.yaml --lr -1 --layer 2 --out x --seed=3 --output o --quantiser"
    options, overrides = make_parser().parse_known_args([*line.split(), "{cb_dim: 8}"])
    assert (options.recipe, options.layer, options.output) == ("r.yaml", 2, "o")
    assert overrides == ["--lr", "-1", "--out", "x", "--seed=3", "--quantiser", "{cb_dim: 8}"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nowhere.yaml", "--output", "{folder}/k"], "^error: there is no file nowhere.yaml"),
        (["nowhere.yaml", "--output", "{folder}"], "^error: --output .*: cannot be written"),
        (["nowhere.yaml", "--output", "{folder}/a/k"], "^error: --output .*give another path"),
    ],
)
@pytest.mark.parametrize("command", ["kmeans", "pca"])
def test_a_wrong_path_ends_with_one_line(command, arguments, message, tmp_path):
    (tmp_path / "a").touch()  # a file where a folder is asked for
    arguments = [argument.format(folder=tmp_path) for argument in arguments]
    with pytest.raises(SystemExit, match=message) as error:
        main([command, *arguments])
    assert "\n" not in error.value.code
