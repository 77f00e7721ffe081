"""A manifest becomes a dataset, or one error that names its lines, IDs and columns."""

import csv
import json
import logging
import os

import hypothesis
import pytest
import soundfile
import torch
from hypothesis import strategies as st

from brainquant.data.audio import AudioReader
from brainquant.data.manifests import load_dataset, read_manifest

HEADER = "ID,duration,wav,text\n"


@pytest.fixture
def write(tmp_path):
    """Writes a manifest of some files, which are not audio, and returns its path."""

    def write(content, *files, to="train.csv"):
        for name in files:
            path = tmp_path / "audio" / name
            path.parent.mkdir(exist_ok=True, parents=True)
            path.touch()
        manifest = tmp_path / to
        manifest.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(manifest)

    return write


def test_rows_have_paths_durations_and_text(write, tmp_path):
    manifest = write(
        'text, ID, duration, wav\n"$5, ""he"" said", a, 1.5, $data_root/a.wav\n\n'
        f'é, b, 1e1, "{tmp_path}/audio/x,  y/音声 \'.wav"\n',
        "a.wav",
        "x,  y/音声 '.wav",
    )
    data_root = tmp_path / "audio"
    assert read_manifest(manifest, data_root) == {
        "a": {"text": '$5, "he" said', "duration": 1.5, "wav": f"{data_root}/a.wav"},
        "b": {"text": "é", "duration": 10.0, "wav": f"{data_root}/x,  y/音声 '.wav"},
    }


NAMES = st.text(st.characters(exclude_characters="/\0$", exclude_categories=["Cs"]), min_size=1)


@hypothesis.given(
    names=st.lists(
        NAMES.filter(lambda name: name.strip() == name and len(name.encode()) < 200),
        min_size=1,
        unique=True,
    )
)
def test_any_name_that_a_csv_can_hold_is_found(names, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    names = [f"{name}.wav" for name in names]
    for name in names:
        (folder / name).touch()
    with open(folder / "train.csv", "w", newline="", encoding="utf-8") as file:
        rows = [[str(number), 1.0, f"$data_root/{name}"] for number, name in enumerate(names)]
        csv.writer(file).writerows([["ID", "duration", "wav"], *rows])
    found = read_manifest(folder / "train.csv", folder)
    assert [row["wav"] for row in found.values()] == [f"{folder}/{name}" for name in names]


def test_a_byte_order_mark_is_no_part_of_a_name(write, tmp_path):
    manifest = write("\ufeff" + HEADER + "a,1.0,$data_root/a.wav,t\n", "a.wav")
    assert list(read_manifest(manifest, tmp_path / "audio")) == ["a"]


@pytest.mark.parametrize(
    "rows, fault",
    [
        (",1.0,a.wav,t\n", "line 3, ID '': the column ID is empty"),
        ("a,1.0,a.wav,t\n", "line 3, ID 'a': line 2 has the same ID"),
        ("b,1.0,a.wav\n", "line 3, ID 'b': it has 3 fields where the header has 4"),
        ("b,1.0,a.wav,t,u\n", "line 3, ID 'b': it has 5 fields where the header has 4"),
        ("b,1.0,,t\n", "line 3, ID 'b': the column wav is empty"),
        ("b,,a.wav,t\n", "line 3, ID 'b': the column duration is empty"),
        ("b,one,a.wav,t\n", "line 3, ID 'b': the column duration has 'one', not a positive number"),
        ("b,0,a.wav,t\n", "line 3, ID 'b': the column duration has '0'"),
        ("b,-1,a.wav,t\n", "line 3, ID 'b': the column duration has '-1'"),
        ("b,nan,a.wav,t\n", "line 3, ID 'b': the column duration has 'nan'"),
        ("b,inf,a.wav,t\n", "line 3, ID 'b': the column duration has 'inf'"),
    ],
)
def test_a_bad_row_is_named_with_its_line_and_id(write, tmp_path, rows, fault):
    manifest = write(HEADER + "a,1.0,$data_root/a.wav,t\n" + rows, "a.wav")
    with pytest.raises(ValueError) as error:
        read_manifest(manifest, tmp_path / "audio")
    assert str(error.value).startswith(f"{manifest}: 1 of 2 rows are not right; {fault}")


def test_of_many_bad_rows_the_first_are_named_and_all_are_counted(write, tmp_path):
    manifest = write(HEADER + "".join(f"{i},{i - 5},{i}.wav,t\n" for i in range(10)))
    with pytest.raises(ValueError, match="6 of 10 rows .*line 2,.*line 3,.*line 4,.*; ...; mend"):
        read_manifest(manifest, tmp_path)


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "the manifest .*train.csv cannot be read .*set train_csv: and valid_csv:"),
        (b"", "train.csv lacks the column 'ID', it has none"),
        (b"ID,wav\n", "train.csv lacks the column 'duration', it has ID, wav"),
        (HEADER.encode(), "train.csv has no rows"),
        (b"ID,duration,wav\n\xe9,1,a.wav\n", "train.csv is not UTF-8, it has a byte 0xe9"),
        ("\ufeffID,duration,wav\na,1,a.wav\n".encode("utf-16-le"), "train.csv is not UTF-8"),
        (b'ID,duration,wav\na,1,"a.wav\nb,1,"b.wav\n', "train.csv, line 3: .*put fields"),
        (b'ID,duration,wav\na,1,"a.wav\nb,1,b.wav\n', "train.csv, line 3: .*put fields"),
    ],
)
def test_a_file_that_is_no_manifest_gets_one_clear_error(write, tmp_path, content, message):
    manifest = tmp_path / "train.csv" if content is None else write(content)
    with pytest.raises(ValueError, match=message):
        read_manifest(manifest, tmp_path)


def test_all_files_are_looked_for_and_the_missing_are_counted(write, tmp_path):
    names = [f"{i % 3}/{i}.wav" for i in range(9)]
    rows = "".join(f"{i},1.0,$data_root/{name},t\n" for i, name in enumerate(names))
    manifest = write(HEADER + rows, *names)
    folder = tmp_path / "audio"
    assert len(read_manifest(manifest, folder)) == 9

    (folder / "1/4.wav").unlink()
    (folder / "2/8.wav").unlink()
    (folder / "2/8.wav").mkdir()
    (folder / "1/7.wav").unlink()
    (folder / "1/7.wav").symlink_to("nothing.wav")
    with pytest.raises(ValueError, match="3 of its 9 .*1/4.wav in line 6, ID '4'; set data_folder"):
        read_manifest(manifest, folder)
    with pytest.raises(ValueError, match="9 of its 9 audio files do not exist, the first is /no"):
        read_manifest(manifest, "/no/such/folder")


def test_a_folder_is_listed_once_and_no_file_is_asked_for(write, tmp_path, monkeypatch):
    names = [f"{i}.wav" for i in range(20)]
    rows = "".join(f"{name},1.0,$data_root/{name},t\n" for name in names)
    manifest = write(HEADER + rows, *names)
    asked, scandir, stat = [], os.scandir, os.stat
    monkeypatch.setattr(os, "scandir", lambda path: asked.append(path) or scandir(path))
    monkeypatch.setattr(os, "stat", lambda path, **kw: asked.append(path) or stat(path, **kw))
    read_manifest(manifest, tmp_path / "audio")
    assert asked == [str(tmp_path / "audio")]


def test_a_dataset_reads_the_clips_that_fit_and_tells_of_the_others(write, tmp_path, caplog):
    names = [f"{i}.wav" for i in range(1, 6)]
    rows = "".join(f"{i},{i},$data_root/{name},t\n" for i, name in enumerate(names, 1))
    manifest = write(HEADER + rows, *names)
    folder = tmp_path / "audio"
    for seconds, name in enumerate(names, 1):
        soundfile.write(folder / name, torch.full((seconds * 100,), 0.5).numpy(), 100)
    with caplog.at_level(logging.INFO):
        dataset = load_dataset(manifest, folder, 2, 4, reader=AudioReader(100))
    assert "2 of 5 clips left out, 1 below min_seconds: 2, 1 above max_seconds: 4" in caplog.text
    assert dataset.data_ids == ["2", "3", "4"]
    item = dataset[0]
    assert (item["id"], item["duration"]) == ("2", 2.0)
    assert torch.equal(item["sig"], torch.full((200,), 0.5))

    caplog.clear()
    with caplog.at_level(logging.INFO):
        load_dataset(manifest, folder, reader=AudioReader(100))
    assert "left out" not in caplog.text


def test_clips_of_no_fitting_length_are_an_error(write, tmp_path):
    manifest = write(HEADER + "a,1.0,$data_root/a.wav,t\n", "a.wav")
    with pytest.raises(ValueError, match="none of its 1 clips is between 100 and 200"):
        load_dataset(manifest, tmp_path / "audio", 100, 200, reader=AudioReader(16000))


def test_a_text_column_that_is_asked_for_is_an_item(write, tmp_path):
    manifest = HEADER + 'a,1,$data_root/a.wav,"one, two"\nb,1,$data_root/b.wav,\n'
    manifest = write(manifest, "a.wav", "b.wav")
    for name in "ab":
        soundfile.write(tmp_path / "audio" / f"{name}.wav", torch.zeros(100).numpy(), 100)
    load = {"manifest": manifest, "data_folder": tmp_path / "audio", "reader": AudioReader(100)}
    dataset = load_dataset(**load, columns=["text"])
    assert [dataset[i]["text"] for i in range(2)] == ["one, two", ""]
    assert sorted(load_dataset(**load)[0]) == ["duration", "id", "sig"]
    with pytest.raises(ValueError, match="train.csv lacks the column 'wrd', it has .*; add the"):
        load_dataset(**load, columns=["text", "wrd"])


PARTS_HEADER = "ID,duration,wav,start,stop,offset,size\n"


def test_the_part_of_a_file_that_a_clip_is_may_be_said_or_not(write, tmp_path):
    rows = "a,1,$data_root/a.wav,0,16000,,\nb,1,$data_root/a.wav, , ,512,100\n"
    found = read_manifest(write(PARTS_HEADER + rows, "a.wav"), tmp_path / "audio")
    parts = [[row[key] for key in ("start", "stop", "offset", "size")] for row in found.values()]
    assert parts == [[0, 16000, None, None], [None, None, 512, 100]]


@pytest.mark.parametrize(
    "cells, fault",
    [
        ("1.5,16000,,", "the column start has '1.5', not a whole number of samples"),
        ("0,-1,,", "the column stop has '-1', not a whole number"),
        ("0,,,", "the columns start and stop must be both filled or both empty"),
        ("7,7,,", "the column stop has '7', which is not after the start, 7"),
        (",,,9", "the columns offset and size must be both filled or both empty"),
        (",,1e3,9", "the column offset has '1e3', not a whole number"),
        (",,512,0", "the column size has '0': a file of no bytes"),
        (",,512," + 30 * "9", "the column size has '999.*', not a whole number"),
    ],
)
def test_a_part_that_cannot_be_is_named_with_its_line_and_id(write, tmp_path, cells, fault):
    manifest = write(PARTS_HEADER + f"a,1,$data_root/a.wav,{cells}\n", "a.wav")
    with pytest.raises(ValueError, match=f"1 of 1 rows are not right; line 2, ID 'a': {fault}"):
        read_manifest(manifest, tmp_path / "audio")


def test_segments_of_one_file_are_clips_of_their_own(write, tmp_path):
    rows = "".join(f"{i},1,$data_root/a.wav,{100 * i},{100 * i + 100}\n" for i in range(3))
    manifest = write("ID,duration,wav,start,stop\n" + rows + "all,3,$data_root/a.wav,,\n", "a.wav")
    samples = torch.linspace(-1, 1, 300)
    soundfile.write(tmp_path / "audio" / "a.wav", samples.numpy(), 100, subtype="FLOAT")
    dataset = load_dataset(manifest, tmp_path / "audio", reader=AudioReader(100))
    assert torch.equal(torch.cat([dataset[i]["sig"] for i in range(3)]), samples)
    assert torch.equal(dataset[3]["sig"], samples)


def test_a_json_manifest_is_as_the_csv_of_the_same_rows(write, tmp_path):
    rows = {
        "a.1": {"wav": "{data_root}/a.wav", "duration": 1.5, "text": "é {x} $data_root"},
        "b": {"duration": "2", "wav": "{data_root}/a.wav", "start": 0, "stop": 9, "phn": ["é", 7]},
    }
    folder = tmp_path / "audio"
    manifest = write("\ufeff" + json.dumps(rows), "a.wav", to="train.json")
    wav = f"{folder}/a.wav"
    assert read_manifest(manifest, folder) == {
        "a.1": {"wav": wav, "duration": 1.5, "text": "é {x} $data_root", "start": None,
                "stop": None, "phn": ""},
        "b": {"wav": wav, "duration": 2.0, "text": "", "start": 0, "stop": 9, "phn": '["é", 7]'},
    }  # fmt: skip


GOOD = {"wav": "{data_root}/a.wav", "duration": 1.0}


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "train.json is not JSON .Expecting value: line 1"),
        ("{", "train.json is not JSON .*line 1"),
        ("[1]", "train.json must be an object that has an object for each ID; write it as"),
        ("{}", "train.json must be an object that has"),
        ('{"a": 1}', "train.json must be an object that has"),
        ('{"a": {}, "b": {}, "a": {}}', "train.json: the key 'a' is there twice; keep one"),
        ('{"é": {}}'.encode("latin-1"), "train.json is not UTF-8, it has a byte 0xe9"),
        (json.dumps({"a": {"wav": "a.wav"}}), "train.json lacks the column 'duration', it has ID"),
        (
            json.dumps({"a": GOOD, "b": {**GOOD, "duration": -1.5}}),
            "train.json: 1 of 2 rows are not right; ID 'b': the column duration has '-1.5'",
        ),
        (
            json.dumps({"a": {"wav": "x.wav"}, "b": GOOD}),
            "1 of 2 rows are not right; ID 'a': the column duration is empty",
        ),
        (
            json.dumps({"a": {**GOOD, "start": True, "stop": 9}}),
            "ID 'a': the column start has 'true', not a whole number",
        ),
        (
            json.dumps({"a": GOOD, "b": {**GOOD, "wav": "{data_root}/b.wav"}}),
            "1 of its 2 .* first is .*/audio/b.wav in ID 'b'; .* that .data_root stands for",
        ),
    ],
)
def test_a_json_manifest_that_is_not_right_gets_one_clear_error(write, tmp_path, content, message):
    manifest = write(content, "a.wav", to="train.json")
    with pytest.raises(ValueError, match=message):
        read_manifest(manifest, tmp_path / "audio")


@pytest.mark.parametrize(
    "columns, message",
    [
        (
            "start_time,end_time",
            "has the columns start_time, end_time: .* Name two columns s",
        ),
        ("begin,end", "has the columns begin, end: which part of its file is a clip"),
        ("start,end", "has the column end: .* in samples at the file's own rate"),
        ("onset_ms,speaker", "has the column onset_ms: .* source: of recipes/OwnSpeech"),
        ("offset,speaker", "has the column offset: which part"),
        ("channelId,speaker", "has the column 'channelId'; name it channel, and count from 0 up"),
    ],
)
def test_columns_of_other_tools_that_mean_a_part_are_refused(write, tmp_path, columns, message):
    manifest = write(f"ID,duration,wav,{columns}\na,1,$data_root/a.wav,0,1\n", "a.wav")
    with pytest.raises(ValueError, match=message):
        read_manifest(manifest, tmp_path / "audio")


def test_the_same_audio_under_two_ids_is_a_fault(write, tmp_path):
    header = "ID,duration,wav,start,stop,channel\n"
    rows = ["a,1,$data_root/a.wav,,,", "b,1,$data_root/a.wav,,,0", "c,1,$data_root/a.wav,0,9,"]
    good = write(header + "\n".join(rows), "a.wav")
    found = read_manifest(good, tmp_path / "audio")
    assert [row["channel"] for row in found.values()] == [None, 0, None]
    bad = write(header + "\n".join([*rows, "d,1,$data_root/a.wav,0,9,"]))
    with pytest.raises(ValueError, match="line 5, ID 'd': line 4, ID 'c' has the same clip"):
        read_manifest(bad, tmp_path / "audio")


@pytest.mark.parametrize("part, unit", [("1,3", "seconds"), ("1500,3500", "milliseconds")])
def test_parts_in_another_unit_than_samples_are_named(write, tmp_path, part, unit):
    manifest = write(f"ID,duration,wav,start,stop\na,2.0,$data_root/a.wav,{part}\n", "a.wav")
    with pytest.raises(ValueError, match=f"duration is 2 s: they look like {unit}, and must be"):
        read_manifest(manifest, tmp_path / "audio")


def test_columns_that_nobody_asked_for_are_named_once(write, tmp_path, caplog):
    rows = HEADER.strip() + ",note\na,1.0,$data_root/a.wav,t,n\nb,1.0,$data_root/b.wav,t,n\n"
    manifest = write(rows, "a.wav", "b.wav")
    with caplog.at_level(logging.INFO):
        load_dataset(manifest, tmp_path / "audio", reader=AudioReader(100), columns=["text"])
    assert caplog.text.count("its columns note are not used here") == 1


def test_a_wav_of_speechbrains_json_may_be_a_part(write, tmp_path):
    rows = {
        "a": {"wav": {"file": "$data_root/a.wav", "start": 5, "stop": 9}, "duration": 1},
        "b": {"wav": {"file": "{data_root}/a.wav"}, "duration": 1},
    }
    manifest = write(json.dumps(rows), "a.wav", to="train.JSON")
    wav = f"{tmp_path}/audio/a.wav"
    found = read_manifest(manifest, tmp_path / "audio")
    assert [(row["wav"], row["start"], row["stop"]) for row in found.values()] == [
        (wav, 5, 9), (wav, None, None),
    ]  # fmt: skip
