"""LibriSpeech becomes manifests, only once; errors name missing and broken files."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile
from speechbrain.dataio.dataset import DynamicItemDataset

from brainquant.data import librispeech as module
from brainquant.data.audio import AudioReader
from brainquant.data.librispeech import prepare_librispeech
from brainquant.data.manifests import load_dataset

TRAIN, VALID, TEST = "train-clean-100", "dev-clean", "test-clean"
SPLITS = {"train_splits": [TRAIN], "valid_splits": [VALID]}


@pytest.fixture
def copy(librispeech, tmp_path):
    """A LibriSpeech that a test may change."""
    return shutil.copytree(librispeech, tmp_path / "LibriSpeech")


@pytest.fixture
def headers_read(monkeypatch):
    """Names of the files whose headers were read."""
    names = []
    read_header = module.read_header
    monkeypatch.setattr(
        module, "read_header", lambda path: names.append(Path(path).name) or read_header(path)
    )
    return names


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def bytes_of(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def audio_of(folder, *splits):
    return sorted(path.name for split in splits for path in folder.glob(f"{split}/*/*/*.flac"))


def test_the_manifests_are_speechbrains_and_say_what_is_in_the_files(librispeech, tmp_path):
    before = bytes_of(librispeech)
    prepare_librispeech(
        librispeech,
        tmp_path,
        train_splits=[TRAIN, TEST],
        valid_splits=[VALID],
        test_splits=[TEST],
        num_workers=2,
    )
    assert bytes_of(librispeech) == before
    assert {path.stem for path in tmp_path.iterdir()} == {TRAIN, VALID, TEST, "train", "valid"}
    for name, splits in ((TRAIN, [TRAIN]), ("valid", [VALID]), ("train", [TRAIN, TEST])):
        path = tmp_path / f"{name}.csv"
        assert list(rows_of(path)[0]) == ["ID", "duration", "wav", "spk_id", "wrd"]
        data = DynamicItemDataset.from_csv(path, replacements={"data_root": str(librispeech)})
        data.set_output_keys(["id", "duration", "wav", "spk_id", "wrd"])
        assert sorted(f"{item['id']}.flac" for item in data) == audio_of(librispeech, *splits)
        for item in data:
            speaker, chapter, _ = item["id"].split("-")
            assert item["spk_id"] == speaker
            assert float(item["duration"]) == soundfile.info(item["wav"]).duration
            transcripts = Path(item["wav"]).parent / f"{speaker}-{chapter}.trans.txt"
            assert f"{item['id']} {item['wrd']}\n" in transcripts.read_text("utf-8")
    reader = AudioReader(16000)
    dataset = load_dataset(
        tmp_path / "valid.csv", librispeech, reader=reader, columns=["wrd", "spk_id"]
    )
    assert len(dataset[0]["sig"]) == round(16000 * dataset[0]["duration"])


def test_a_split_that_is_whole_is_not_looked_at_again(librispeech, tmp_path, monkeypatch):
    counts = {split: len(audio_of(librispeech, split)) for split in (TRAIN, VALID)}
    monkeypatch.setattr(module, "UTTERANCES", counts)
    prepare_librispeech(librispeech, tmp_path, **SPLITS)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    monkeypatch.setattr(module, "_folders", None)  # its folders are not listed either
    monkeypatch.setattr(module, "_read_chapter", None)
    prepare_librispeech(librispeech, tmp_path, **SPLITS)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}


def test_another_choice_of_splits_reads_only_what_is_new(librispeech, tmp_path, headers_read):
    prepare_librispeech(librispeech, tmp_path, **SPLITS)
    headers_read.clear()
    prepare_librispeech(librispeech, tmp_path, train_splits=[TEST, TRAIN], valid_splits=[VALID])
    assert sorted(headers_read) == audio_of(librispeech, TEST)
    ids = [row["ID"] for name in (TEST, TRAIN) for row in rows_of(tmp_path / f"{name}.csv")]
    assert [row["ID"] for row in rows_of(tmp_path / "train.csv")] == ids
    headers_read.clear()
    prepare_librispeech(librispeech, tmp_path, **SPLITS)
    assert not headers_read
    assert (tmp_path / "train.csv").read_bytes() == (tmp_path / f"{TRAIN}.csv").read_bytes()


def test_a_split_that_was_unpacked_in_part_is_taken_up(copy, tmp_path, headers_read, caplog):
    away = sorted(copy.glob(f"{TRAIN}/*/*"))[0]
    away.rename(tmp_path / "later")
    prepare_librispeech(copy, tmp_path / "manifests", **SPLITS)
    assert "of its 28539 utterances" in caplog.text
    assert audio_of(copy, TRAIN) == sorted(
        f"{row['ID']}.flac" for row in rows_of(tmp_path / "manifests" / "train.csv")
    )
    headers_read.clear()
    (tmp_path / "later").rename(away)
    gone = sorted(copy.glob(f"{TRAIN}/*/*/*.flac"))[-1]
    gone.unlink()
    prepare_librispeech(copy, tmp_path / "manifests", **SPLITS)
    assert sorted(headers_read) == sorted(path.name for path in away.glob("*.flac"))
    prepare_librispeech(copy, tmp_path / "anew", **SPLITS)
    assert bytes_of(tmp_path / "manifests") == bytes_of(tmp_path / "anew")


def test_killed_and_called_again_it_goes_on(librispeech, tmp_path, headers_read):
    code = (
        "import sys, time; from brainquant.data import librispeech as module;"
        "read = module.read_header;"
        "module.read_header = lambda path: time.sleep(0.2) or read(path);"
        f"module.prepare_librispeech(*sys.argv[1:], **{SPLITS}, num_workers=1)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(librispeech), str(tmp_path / "killed")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    part = tmp_path / "killed" / f"{TRAIN}.csv.part"
    limit = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size):
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [path.name for path in part.parent.iterdir()] == [part.name]
    with open(part, "ab") as file:
        file.write(b'["100-1000-0000", 1.2')  # a line that was not finished
    prepare_librispeech(librispeech, tmp_path / "killed", **SPLITS)
    assert len(headers_read) < len(audio_of(librispeech, TRAIN, VALID))
    prepare_librispeech(librispeech, tmp_path / "whole", **SPLITS)
    assert bytes_of(tmp_path / "killed") == bytes_of(tmp_path / "whole")


@pytest.mark.parametrize(
    ("below", "splits", "message"),
    [
        (".", {"valid_splits": ["dev-other"]},
         "valid_splits has 'dev-other', .* has train-clean-100, dev-clean, test-clean; set valid"),
        ("..", {}, "set data_folder: .*/LibriSpeech$"),
        (TRAIN, {}, "set data_folder: .*/LibriSpeech$"),
        (f"{TRAIN}/100", {}, "set data_folder: .*/LibriSpeech$"),
        ("nowhere/at/all", {}, "no folders in data_folder"),
        (".", {"train_splits": TRAIN}, "must be a list of names, got train_splits='train-clean"),
        (".", {"train_splits": []}, "train_splits must have at least one split"),
        (".", {"train_splits": [TRAIN, TRAIN]}, "train_splits has a split twice"),
        (".", {"train_splits": [TRAIN, VALID]}, "dev-clean is in train_splits and in valid_splits"),
        (".", {"num_workers": 0}, "num_workers must be at least 1, got num_workers=0"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named(librispeech, tmp_path, below, splits, message):
    with pytest.raises(ValueError, match=message):
        prepare_librispeech(
            os.path.normpath(librispeech / below), tmp_path / "manifests", **{**SPLITS, **splits}
        )
    assert not list(tmp_path.glob("manifests/*.csv"))


def test_a_broken_download_is_an_error_and_what_was_read_is_kept(copy, tmp_path, headers_read):
    files = sorted(copy.glob(f"{TRAIN}/*/*/*.flac"))
    broken = files[:4]
    contents = [path.read_bytes() for path in broken]
    for path in broken:
        path.write_bytes(b"<html>not found</html>")
    silent = files[-1].parent / f"{files[-1].parent.parent.name}-{files[-1].parent.name}.trans.txt"
    silent.rename(tmp_path / "transcript")
    number = 4 + len(list(silent.parent.glob("*.flac")))
    message = (
        rf"{number} files of train-clean-100 are not complete: (\S+\.flac [^;]+; ){{3}}\.\.\.;"
    )
    with pytest.raises(ValueError, match=f"{message} download train-clean-100 again"):
        prepare_librispeech(copy, tmp_path / "manifests", **SPLITS)
    for path, content in zip(broken, contents, strict=True):
        path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{files[-1]} has no transcript"):
        prepare_librispeech(copy, tmp_path / "manifests", **SPLITS)
    (tmp_path / "transcript").rename(silent)
    headers_read.clear()
    prepare_librispeech(copy, tmp_path / "manifests", **SPLITS)
    assert sorted(headers_read) == sorted(
        [path.name for path in silent.parent.glob("*.flac")] + audio_of(copy, VALID)
    )


@pytest.mark.parametrize("depth, function", [(2, "listdir"), (1, "scandir"), (0, "scandir")])
def test_a_folder_that_cannot_be_listed_is_named(copy, tmp_path, monkeypatch, depth, function):
    chapter = sorted(copy.glob(f"{TRAIN}/*/*"))[0]
    folder = str([*chapter.parents[:2][::-1], chapter][depth])
    list_it = getattr(os, function)

    def refuse(path):
        if path == folder:
            raise PermissionError(13, "Permission denied", path)
        return list_it(path)

    monkeypatch.setattr(os, function, refuse)
    with pytest.raises(ValueError, match=f"{folder} cannot be listed .Permission denied"):
        prepare_librispeech(copy, tmp_path / "manifests", **SPLITS)


@pytest.mark.parametrize("name", ["train", TRAIN])
@pytest.mark.parametrize(
    "content",
    ["ID,duration,wav\na,1.0,a.wav\n", "ID,duration,wav,spk_id,wrd\na,1.0,/a.flac,1,HELLO\n"],
)
def test_manifests_of_something_else_are_not_touched(librispeech, tmp_path, name, content):
    path = tmp_path / f"{name}.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"a manifest of another corpus, {path}; choose another"):
        prepare_librispeech(librispeech, tmp_path, **SPLITS)
    assert path.read_text() == content
