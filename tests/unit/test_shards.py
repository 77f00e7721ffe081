"""Shards give exactly the same samples as the files."""

import csv
import io
import json
import os
import shutil

import numpy as np
import pytest
import soundfile
import torch
import webdataset

from brainquant.data.audio import AudioReader
from brainquant.data.audio.files import read_bytes
from brainquant.data.batches import make_loaders
from brainquant.data.manifests import load_dataset, read_manifest
from brainquant.data.shards import write_shards

RATE = 8000
SHARD_BYTES = 50_000
CLIPS = {  # name: seconds, keywords of soundfile.write
    "a.flac": (1.0, {}),
    "b.wav": (1.2, {}),
    "c.ogg": (1.4, {}),
    "d.e.wav": (1.6, {"subtype": "FLOAT"}),
    "f.mp3": (1.1, {}),
    "g.flac": (1.3, {"subtype": "PCM_24"}),
    "h.flac": (0.7, {}),
}
ODD_IDS = ["a", "b/c.1", "d.e.f", "é 音", "%2E", 'h "i", j', " k"]


@pytest.fixture
def folder(tmp_path):
    """A manifest of clips in several formats, with IDs that are difficult in a tar."""
    folder = tmp_path / "files"
    folder.mkdir()
    rng = np.random.default_rng(0)
    with open(folder / "train.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(["ID", "spk", "duration", "wav", "text"])
        for number, (clip, (name, (seconds, kwargs))) in enumerate(zip(ODD_IDS, CLIPS.items())):
            soundfile.write(folder / name, rng.uniform(-1, 1, int(seconds * RATE)), RATE, **kwargs)
            writer.writerow([clip, number, seconds, f"$data_root/{name}", f'" {{x}}, {number}'])
    return folder


def pack(folder, output=None, manifest="train.csv", **kwargs):
    """The rows of the new manifest."""
    output = output or folder.parent / "shards"
    path = write_shards(folder / manifest, folder, output, shard_bytes=SHARD_BYTES, **kwargs)
    assert path == str(output / "train.csv")
    return read_manifest(path, output)


def sigs(rows_folder, manifest="train.csv"):
    reader = AudioReader(RATE)
    dataset = load_dataset(rows_folder / manifest, rows_folder, reader=reader)
    return {item["id"]: item["sig"] for item in dataset}


def assert_same_audio(found, expected):
    assert list(found) == list(expected)
    assert all(torch.equal(found[clip], expected[clip]) for clip in expected)


def test_shards_have_the_bytes_of_the_files_in_their_order_and_the_other_columns(folder):
    files, packed = read_manifest(folder / "train.csv", folder), pack(folder, num_workers=2)
    assert list(packed) == list(files) == ODD_IDS
    for clip, row in packed.items():
        assert read_bytes(row["wav"], row["offset"], row["size"]) == read_bytes(files[clip]["wav"])
        assert all(row[column] == files[clip][column] for column in ("duration", "spk", "text"))
    names = sorted({os.path.basename(row["wav"]) for row in packed.values()})
    assert names == [f"train-{number:06d}.tar" for number in range(len(names))] and len(names) > 2
    shards = folder.parent / "shards"
    assert sorted(os.listdir(shards)) == [*names, "train.csv", "train.plan.json"]
    assert all(os.path.getsize(shards / name) < 1.5 * SHARD_BYTES for name in names)


def test_webdataset_reads_them_too(folder):
    pack(folder)
    tars = sorted(map(str, folder.parent.joinpath("shards").glob("*.tar")))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False))
    files = read_manifest(folder / "train.csv", folder)
    extensions = [name.split(".")[-1] for name in CLIPS]
    assert len(samples) == len(files) == len({sample["__key__"] for sample in samples})
    for sample, extension, (clip, row) in zip(samples, extensions, files.items()):
        assert sample[extension] == read_bytes(row.pop("wav"))
        assert json.loads(sample["json"]) == {"ID": clip, **row}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_from_shards_is_an_epoch_from_files_bit_by_bit(folder, num_workers):
    pack(folder)
    epochs = []
    for place in (folder, folder.parent / "shards"):
        loader, _ = make_loaders({
            "train_csv": str(place / "train.csv"), "valid_csv": str(place / "train.csv"),
            "data_folder": str(place), "min_seconds": 0.0, "max_seconds": 60.0,
            "batch_seconds": 3, "num_buckets": 2, "batch_clips": None, "num_workers": num_workers,
            "seed": 1, "sample_rate": RATE, "resample": False, "mix_down": False,
        }, columns=["text"])  # fmt: skip
        loader.batch_sampler.set_epoch(2)
        epochs.append([(batch.id, batch.text, batch.sig.data, batch.left_out) for batch in loader])
    files, shards = epochs
    assert len(files) == len(shards) > 2 and sorted(sum((b[0] for b in files), [])) == sorted(
        ODD_IDS
    )
    for one, other in zip(files, shards):
        assert one[:2] == other[:2] and torch.equal(one[2], other[2])
        assert one[3] == other[3] == []


@pytest.mark.parametrize(
    "name, kwargs, expected",
    [
        ("long.wav", {}, "fLaC"),
        ("long.flac", {"subtype": "PCM_24"}, "fLaC"),
        ("long.wav", {"subtype": "FLOAT"}, "RIFF"),
        ("long.mp3", {}, "RIFF"),
    ],
)
def test_segments_are_cut_out_without_loss(tmp_path, name, kwargs, expected):
    folder = tmp_path / "files"
    folder.mkdir()
    samples = 3 * np.random.default_rng(0).uniform(-1, 1, 4 * RATE)
    soundfile.write(folder / name, samples, RATE, **kwargs)
    rows = {
        str(start): {"wav": f"{{data_root}}/{name}", "duration": 1.0, "start": start,
                     "stop": start + RATE, "spk": "s"}
        for start in (0, 10001, 3 * RATE)
    }  # fmt: skip
    rows["whole"] = {"wav": f"{{data_root}}/{name}", "duration": 4.0}
    (folder / "train.json").write_text(json.dumps(rows))
    packed = pack(folder, manifest="train.json")
    assert list(packed["0"]) == ["duration", "wav", "offset", "size", "spk"]
    assert read_bytes(packed["0"]["wav"], packed["0"]["offset"], 4) == expected.encode()
    assert_same_audio(sigs(tmp_path / "shards"), sigs(folder, "train.json"))
    shards = [row["wav"] for row in packed.values()]
    assert shards[0] == shards[1] != shards[2]  # by the size of the segments


@pytest.mark.parametrize("rate", [96_001, 768_000])
def test_a_segment_of_a_rate_that_flac_has_not_is_cut_out_as_wav(tmp_path, rate):
    samples = np.random.default_rng(0).uniform(-1, 1, rate)
    soundfile.write(tmp_path / "a.wav", samples, rate)
    row = {"wav": str(tmp_path / "a.wav"), "duration": 0.5, "start": 9, "stop": 9 + rate // 2}
    (tmp_path / "train.json").write_text(json.dumps({"a": row}))
    packed = pack(tmp_path, tmp_path / "shards", "train.json")["a"]
    place = {"offset": packed["offset"], "size": packed["size"]}
    expected = AudioReader(rate)(row["wav"], 0.5, start=row["start"], stop=row["stop"])
    assert torch.equal(AudioReader(rate)(packed["wav"], 0.5, **place), expected)


def test_shards_can_be_packed_again(folder):
    once = pack(folder)
    again = pack(folder.parent / "shards", folder.parent / "again")
    places = [[row["offset"] for row in packed.values()] for packed in (once, again)]
    assert list(again) == ODD_IDS and places[0] == places[1]
    assert_same_audio(sigs(folder.parent / "again"), sigs(folder))


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_was_interrupted_goes_on_and_keeps_what_is_whole(folder):
    shards = folder.parent / "shards"
    pack(folder)
    expected = content(shards)
    first, second, third, *_ = sorted(shards.glob("*.tar"))
    (shards / "train.csv").unlink()
    second.unlink()
    (shards / f"{second.name}.part").write_bytes(b"half a")
    os.truncate(third, third.stat().st_size - 12_000)
    kept = {path: path.stat().st_ino for path in shards.glob("*.tar") if path != third}
    pack(folder, num_workers=2)
    assert content(shards) == expected
    assert {path: path.stat().st_ino for path in kept} == kept


def test_nothing_of_another_kind_in_the_folder_is_written_over(folder):
    shards = folder.parent / "shards"
    with pytest.raises(ValueError, match="files holds train.csv of another .*give an empty folder"):
        pack(folder, folder)
    pack(folder)
    before = content(shards)
    with pytest.raises(
        ValueError, match="holds train-000000.tar.* of another .* shard_bytes; give"
    ):
        write_shards(folder / "train.csv", folder, shards, shard_bytes=2 * SHARD_BYTES)
    shutil.copy(folder / "train.csv", folder / "valid.csv")
    write_shards(folder / "valid.csv", folder, shards, shard_bytes=SHARD_BYTES)  # beside it
    assert before.items() < content(shards).items()


def test_a_clip_that_cannot_be_read_is_left_out_and_named_until_it_can_be(folder, caplog):
    good, shards = (folder / "b.wav").read_bytes(), folder.parent / "shards"
    (folder / "b.wav").write_bytes(good[:20] + bytes(len(good) - 20))
    written = set()
    for _ in range(2):
        caplog.clear()
        assert list(pack(folder)) == [clip for clip in ODD_IDS if clip != "b/c.1"]
        (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
        assert "1 of 7 clips cannot be read and are left out: b/c.1: " in warning.message
        assert f"{folder}/b.wav: cannot be read (" in warning.message
        written.add((shards / "train-000000.tar").stat().st_ino)
    assert len(written) == 1  # a shard without it is complete
    (folder / "b.wav").write_bytes(good)
    pack(folder)
    assert_same_audio(sigs(shards), sigs(folder))


def test_a_manifest_of_nothing_that_can_be_read_is_an_error(folder):
    for name in CLIPS:
        (folder / name).write_text("no audio")
    with pytest.raises(ValueError, match="train.csv: none of its clips can be read"):
        pack(folder)
    assert not (folder.parent / "shards" / "train.csv").exists()


@pytest.mark.parametrize("option", ["shard_bytes", "num_workers"])
def test_options_that_cannot_be_are_refused_by_name(folder, option):
    with pytest.raises(ValueError, match=f"{option} must be at least 1, got {option}=0"):
        write_shards(folder / "train.csv", folder, folder / "shards", **{option: 0})
    assert not (folder / "shards").exists()


def test_a_clip_that_is_a_channel_of_its_file_stays_one(folder):
    audio = np.random.default_rng(1).integers(-(2**15), 2**15, (RATE, 2), dtype=np.int16)
    soundfile.write(folder / "call.wav", audio, RATE)
    rows = ["x,1.0,$data_root/call.wav,,,0", "y,0.5,$data_root/call.wav,4000,8000,1"]
    header = "ID,duration,wav,start,stop,channel"
    (folder / "calls.csv").write_text("\n".join([header, *rows, ""]))
    path = write_shards(folder / "calls.csv", folder, folder.parent / "shards")
    packed = read_manifest(path, folder.parent / "shards")
    assert [row["channel"] for row in packed.values()] == [0, 1]
    for row, part in zip(packed.values(), (audio, audio[4000:])):
        with open(row["wav"], "rb") as file:
            file.seek(row["offset"])
            content = io.BytesIO(file.read(row["size"]))
        assert np.array_equal(soundfile.read(content, dtype="int16")[0], part)
