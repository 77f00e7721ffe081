"""Alignments are found in folders and read."""

import numpy as np
import pytest

from brainquant.data.alignments import find_alignments, phones_at, read_alignment


def test_further_columns_are_not_read(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("start\tend\tphone\tword\n0.00\t0.47\tSIL\t<sil>\n0.47\t0.56\tDH\tthe\n")
    assert read_alignment(path) == [(0.0, 0.47, "SIL"), (0.47, 0.56, "DH")]


@pytest.mark.parametrize("header", ["start\tend\tphones\tword", "word\tstart\tend\tphone", ""])
def test_another_header_is_refused(tmp_path, header):
    path = tmp_path / "a.tsv"
    path.write_text(header + "\n0.0\t0.5\ta\tb\n")
    with pytest.raises(ValueError, match="a.tsv; mend the file"):
        read_alignment(path)


def test_alignments_are_found_at_any_depth(tmp_path):
    for path in ("a.tsv", "x/b.c.tsv", "x/y/d.tsv", "x/d.txt"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    paths = find_alignments(tmp_path)
    assert paths == {name: str(tmp_path / path) for name, path in
                     {"a": "a.tsv", "b.c": "x/b.c.tsv", "d": "x/y/d.tsv"}.items()}  # fmt: skip
    (tmp_path / "x/a.tsv").touch()
    with pytest.raises(ValueError, match="have the same ID"):
        find_alignments(tmp_path)
    with pytest.raises(ValueError, match="no file <ID>.tsv in .*nowhere"):
        find_alignments(tmp_path / "nowhere")


def test_times_outside_have_the_nearest_phone():
    alignment = [(0.2, 0.3, "a"), (0.3, 0.4, "b")]
    times = np.array([0.0, 0.2, 0.29, 0.3, 9.0])
    assert "".join(phones_at(times, alignment)) == "aaabb"
