"""A plan on a terminal, and what opens a recipe beside its run."""

import io

from hypothesis import given
from hypothesis import strategies as st

from brainquant.planning.aside import opened_aside, with_options
from brainquant.planning.plan import share_of_time
from brainquant.planning.section import Finding, Section
from brainquant.planning.status import status
from brainquant.planning.text import (
    as_json,
    failed,
    format_findings,
    format_section,
    say_bytes,
)

WORDS = st.lists(st.text("abcdefghij:_%", min_size=1, max_size=30), min_size=1, max_size=40).map(
    " ".join
)


@given(WORDS, WORDS)
def test_nothing_is_wider_than_80_columns_and_no_word_is_lost(text, remedy):
    section = Section("Data", {}, [text])
    findings = [Finding("name", text, remedy)] * 12
    for shown in (format_section(section), format_findings(findings)):
        assert max(map(len, shown.splitlines())) <= 80
    assert format_section(section).split() == ["Data", *text.split()]
    assert format_findings(findings[:1]).split() == [
        "1", "finding:", "1.", *text.split(), "->", *remedy.split()
    ]  # fmt: skip


def test_a_path_that_is_wider_than_the_terminal_stays_whole():
    path = "/data/" + "x" * 100
    assert path in format_section(Section("Data", {}, [f"in {path}"])).splitlines()[-1]


def test_columns_of_a_table_keep_their_places():
    lines = ["lr          0.0005      0.0005", "  2 workers   0.1 %"]
    assert format_section(Section("Rates", {}, lines)).splitlines()[1:] == [
        f"  {line}" for line in lines
    ]


@given(st.floats(0, 1e14))
def test_a_size_is_within_half_a_percent(number):
    value, unit = say_bytes(number).split()
    factor = 1000 ** ["B", "kB", "MB", "GB", "TB"].index(unit)
    assert abs(float(value) * factor - number) <= max(0.006 * number, 0.5)


def test_the_terminal_is_told_what_is_done_and_a_file_is_not():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        with status("reading", stream):
            pass
    assert "reading ... 0 s" in terminal.getvalue() and terminal.getvalue().endswith("\r\x1b[K")
    assert file.getvalue() == ""


RECIPE = """
brain_class: !name:brainquant.brains.BestRQBrain
output_folder: {folder}/run
manifest_folder: !ref <output_folder>/manifests
train_csv: !ref <manifest_folder>/train.csv
valid_csv: null
modules: {{}}
optimizer_step_limit: 10
lr: 0.1
number_of_epochs: 1
"""


def test_options_are_replaced_in_both_forms_wherever_they_are():
    argv = ["x.yaml", "--output_folder", "a b", "--lr=1", "--output_folder=c", "--seed", "2"]
    assert with_options(argv, {"output_folder": "d e"}) == [
        "x.yaml", "--lr=1", "--seed", "2", "--output_folder=d e"
    ]  # fmt: skip


def test_manifests_of_a_run_are_copied_and_the_copies_are_removed(tmp_path):
    recipe = tmp_path / "x.yaml"
    recipe.write_text(RECIPE.format(folder=tmp_path), "utf-8")
    manifests = tmp_path / "run" / "manifests"
    needed = tmp_path / "run" / "needed"
    for folder in (manifests, needed):
        folder.mkdir(parents=True)
    (manifests / "train.csv").write_text("ID", "utf-8")
    (needed / "model.bin").write_text("0", "utf-8")
    with opened_aside([str(recipe), "--lr", "0.2"]) as aside:
        assert (aside.folder / "manifests" / "train.csv").read_text("utf-8") == "ID"
        assert (aside.folder / "needed" / "model.bin").read_text("utf-8") == "0"
        assert aside.values["output_folder"] == f"{tmp_path}/run"
        assert f"--output_folder={aside.folder}" in aside.argv
        (aside.folder / "manifests" / "train.csv").write_text("changed", "utf-8")
    assert not aside.folder.exists()
    assert (manifests / "train.csv").read_text("utf-8") == "ID"
    assert (needed / "model.bin").read_text("utf-8") == "0"


def test_manifests_outside_the_run_are_left_alone_too(tmp_path):
    recipe = tmp_path / "x.yaml"
    recipe.write_text(RECIPE.format(folder=tmp_path), "utf-8")
    shared = tmp_path / "shared"
    shared.mkdir()
    with opened_aside([str(recipe), "--manifest_folder", str(shared)]) as aside:
        assert f"--manifest_folder={aside.folder}/manifests" in aside.argv
        assert str(shared) not in " ".join(aside.argv)


def test_a_bug_of_one_part_is_one_line_without_a_finding():
    section = failed("Codes", KeyError("no\nquantiser"))
    assert section.lines == ["not known: KeyError: 'no\\nquantiser'"] and not section.findings


def test_all_time_is_given_away():
    left = 100.0
    for name in ("data", "step", "codes", "memory", "time"):  # the others take none
        share = share_of_time(name, left)
        assert 0 < share <= left
        left -= share
    assert abs(left) < 1e-6


def test_infinities_are_null_in_json():
    assert as_json({"a": [float("inf"), 1.5], "b": {"c": float("nan")}}) == {
        "a": [None, 1.5], "b": {"c": None}
    }  # fmt: skip
