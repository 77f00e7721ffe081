"""The command line: its help, its errors, and what it leaves behind."""

import os
import re
import subprocess
import sys
import time
import wave

import pytest

from brainquant import __version__
from brainquant.cli import main, make_parser

NAMED = {
    "": "plan kmeans probe shards",
    "compare": "RUN --json",
    "export": "RUN --output --title --license --language --format",
    "kmeans": "--layer --clusters --frames --output recipe --data_folder",
    "plan": "RECIPE.yaml --minutes --output --find_batch --data_folder",
    "probe": "MODEL --train --valid --test --label --alignments --data_folder --seeds "
    "--train_minutes --context --device --output",
    "report": "RUN --output --audio --no_audio --alignments --device",
    "push": "DIR USER/NAME --private --revision",
    "shards": "MANIFEST --data_folder --output --shard_megabytes --num_workers",
}


@pytest.mark.parametrize("arguments", [name.split() for name in NAMED])
def test_help_fits_80_columns_and_names_what_can_be_set(arguments, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        main([*arguments, "--help"])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert all(name in shown for name in NAMED["".join(arguments)].split())


def test_help_imports_nothing_heavy_and_the_version_is_shown():
    began = time.perf_counter()
    for arguments in (["--help"], ["kmeans", "--help"], ["--version"]):
        program = f"from brainquant.cli import main; main({arguments})"
        command = [sys.executable, "-X", "importtime", "-c", program]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        assert not re.search(r"\| +(torch|numpy|speechbrain)$", done.stderr, re.MULTILINE)
    assert done.stdout.strip() == f"brainquant {__version__}"
    assert (time.perf_counter() - began) / 3 < 0.5 or os.getloadavg()[0] > os.cpu_count()


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
        (["nowhere.yaml", "--output", "{folder}/pipe"], "^error: --output .*: cannot be written"),
        (["nowhere.yaml", "--output", ""], "^error: --output : cannot be written"),
        (["nowhere.yaml", "--output", "{folder}/a/k"], "^error: --output .*give another path"),
    ],
)
def test_a_wrong_path_ends_with_one_line(arguments, message, tmp_path):
    (tmp_path / "a").touch()  # a file where a folder is asked for
    os.mkfifo(tmp_path / "pipe")  # as /dev/stdout; a file of its name would replace it
    arguments = [argument.format(folder=tmp_path) for argument in arguments]
    with pytest.raises(SystemExit, match=message) as error:
        main(["kmeans", *arguments])
    assert "\n" not in error.value.code


MANIFESTS = "--train a.csv --valid b.csv --test c.csv"


@pytest.mark.parametrize(
    "line, message",
    [
        (f"probe run {MANIFESTS} --label x --lr 3", "unknown arguments: --lr 3"),
        (f"probe run {MANIFESTS}", "--label --alignments is required"),
        (f"probe run {MANIFESTS} --label x --alignments y", "not allowed with"),
        ("shards m.csv --output x", "--data_folder"),
        ("shards m.csv --output x --data_f y", "--data_folder"),
        ("shards m.csv --output x --data_folder y --shard_megabytes nan", "positive value: 'nan'"),
        (f"probe run {MANIFESTS} --label x --train_minutes nan", "positive value: 'nan'"),
        (f"probe run {MANIFESTS} --label x --dev cpu", "unknown arguments: --dev cpu"),
    ],
)
def test_options_that_a_command_does_not_have_end_with_its_usage(line, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(line.split())
    assert message in capsys.readouterr().err


def test_a_folder_that_is_no_run_ends_with_one_line(tmp_path):
    with pytest.raises(SystemExit, match="^error: .*is neither the folder of a run"):
        main(["probe", str(tmp_path), *MANIFESTS.split(), "--label", "x"])


def test_shards_are_written_and_the_next_command_is_said(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in ("a.wav", "b.wav"):
        with wave.open(str(tmp_path / "in" / name), "wb") as file:
            file.setparams((1, 2, 16000, 16000, "NONE", ""))
            file.writeframes(bytes(32000))
    manifest, output = tmp_path / "in" / "train.csv", tmp_path / "out"
    manifest.write_text("ID,duration,wav\na,1.0,$data_root/a.wav\nb,1.0,$data_root/b.wav\n")
    size = ["--shard_megabytes", "0.04"]  # of one clip
    main(["shards", str(manifest), "--data_folder", str(tmp_path / "in"), "--output", str(output),
          *size])  # fmt: skip
    assert len(list(output.glob("*.tar"))) == 2
    line = f"--train_csv {output / 'train.csv'} --data_folder {output}"
    assert line in capsys.readouterr().out
