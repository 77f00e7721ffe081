"""Any audio becomes manifests: it is cut, split and counted; bad files are left out."""

import json
import os
import shutil

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from brainquant.data.audio import AudioReader
from brainquant.data.manifests import load_dataset
from brainquant.data.own_speech import preparation as module
from brainquant.data.own_speech import prepare_own_speech, usable
from brainquant.data.own_speech.clips import Clip, cut
from brainquant.data.own_speech.sources import find_clips
from brainquant.data.own_speech.split import divide


def names_of(rows):
    return sorted({os.path.basename(row["wav"]) for row in rows})


FORMATS = [
    ("a.wav", 8000, 1, {"subtype": "ULAW"}),
    ("a.flac", 22050, 2, {"subtype": "PCM_24"}),
    ("a.ogg", 44100, 1, {}),
    ("a.opus", 48000, 1, {"format": "OGG", "subtype": "OPUS"}),
    ("a.mp3", 32000, 1, {}),
    ("A.AIFF", 16000, 3, {}),
    ("a.aif", 11025, 1, {"format": "AIFF"}),
]


def test_every_format_and_rate_is_cut_and_can_be_trained_on(speech, prepare, tmp_path):
    for name, rate, channels, options in FORMATS:
        speech(name, 5.0, rate, channels, **options)
    train, valid = prepare(max_seconds=2.0)
    assert list(train[0]) == ["ID", "duration", "wav", "start", "stop", "channel", "spk_id"]
    assert names_of(train + valid) == sorted(name for name, *_ in FORMATS)
    assert not {*names_of(train)} & {*names_of(valid)}  # a file is never split
    ids = [row["ID"] for row in train + valid]
    assert len(set(ids)) == len(ids) == 3 * len(FORMATS)
    reader = AudioReader(16000, resample=True, mix_down=True)
    for split in ("train", "valid"):  # paths are absolute: data_folder may be anything
        manifest = tmp_path / "manifests" / f"{split}.csv"
        for item in load_dataset(manifest, "/nowhere", 0.0, 2.0, reader=reader):
            assert abs(len(item["sig"]) / 16000 - 5 / 3) < 0.1


def test_the_segments_of_a_file_are_the_file(speech, prepare):
    path = speech("long.flac", 7.0, 22050)
    speech("other.flac", 1.5)
    rows = [row for rows in prepare(max_seconds=3.0) for row in rows if row["wav"] == str(path)]
    reader = AudioReader(22050)
    clips = [
        reader(row["wav"], float(row["duration"]), start=int(row["start"]), stop=int(row["stop"]))
        for row in rows
    ]
    assert len(clips) == 3 and torch.equal(torch.cat(clips), reader(str(path), 7.0))


@hypothesis.given(
    num_samples=st.integers(1, 10**7),
    rate=st.sampled_from([8000, 11025, 22050, 44100]),
    max_seconds=st.floats(0.5, 100.0),
    part=st.none() | st.tuples(st.integers(0, 10**6), st.integers(1, 10**7)),
)
def test_cuts_are_equal_cover_the_clip_and_are_as_few_as_can_be(
    num_samples, rate, max_seconds, part
):
    start, stop = (None, None) if part is None else (part[0], sum(part))
    first, last = (0, num_samples) if part is None else (start, min(stop, num_samples))
    hypothesis.assume(first < last)
    pieces = cut(Clip("a", "a", "a", start, stop), first, last, rate, max_seconds)
    if len(pieces) == 1:
        assert (pieces[0].start, pieces[0].stop) == (start, stop)
        assert pieces[0].seconds == (last - first) / rate <= max_seconds
        return
    bounds = [piece.start for piece in pieces] + [pieces[-1].stop]
    lengths = np.diff(bounds)
    assert (bounds[0], bounds[-1]) == (first, last)
    assert [piece.stop for piece in pieces] == bounds[1:]
    assert [piece.seconds for piece in pieces] == [length / rate for length in lengths]
    assert max(lengths) - min(lengths) <= 1 and max(lengths) / rate <= max_seconds
    assert (last - first) / (len(pieces) - 1) > int(max_seconds * rate)


def test_short_clips_are_left_out_and_counted(speech, prepare, caplog):
    for seconds in (0.4, 0.9, 1.0, 2.1, 1.1):
        speech(f"{int(seconds * 10)}.wav", seconds)
    caplog.set_level("INFO")
    train, valid = prepare(max_seconds=2.0)
    assert names_of(train + valid) == ["10.wav", "11.wav", "21.wav"]
    assert "5 files, 5 clips, 0.002 hours" in caplog.text
    assert "1 clips longer than 2 s, cut into 2; 2 shorter than 1 s, left out" in caplog.text
    with pytest.raises(ValueError, match="nothing is left; set min_seconds:"):
        prepare(min_seconds=3.0)


def test_what_cannot_be_read_is_left_out_and_listed(speech, prepare, tmp_path, caplog):
    for name in "abcd":
        speech(f"{name}.wav")
    (speech.folder / "text.wav").write_text("this is no audio")
    speech("none.wav", 0)
    (speech.folder / "gone.flac").symlink_to("nowhere")
    streamed = speech("streamed.flac")
    header = bytearray(streamed.read_bytes())
    header[21] &= 0xF0  # the first of the 36 bits of the number of samples
    header[22:26] = bytes(4)
    streamed.write_bytes(header)
    (speech.folder / "notes.txt").touch()
    caplog.set_level("INFO")
    train, valid = prepare()
    assert names_of(train + valid) == ["a.wav", "b.wav", "c.wav", "d.wav", "streamed.flac"]
    assert "3 of 8 files" in caplog.text and "ignored: 1 .txt" in caplog.text
    assert prepare.left_out() == {
        str(speech.folder / "text.wav"): "cannot be read (it is text named .wav)",
        str(speech.folder / "none.wav"): "has no samples",
        str(speech.folder / "gone.flac"): "is a link to nowhere, which does not exist",
    }
    for name in "ab":
        (speech.folder / f"{name}.wav").unlink()
    streamed.unlink()
    with pytest.raises(ValueError, match=r"3 of 5 files in .* cannot be used: .*convert them"):
        prepare()
    assert not (tmp_path / "manifests" / "train.csv").exists()


@pytest.mark.parametrize("num_folders", [4, 5])
def test_five_subfolders_are_speakers_fewer_are_not(speech, prepare, caplog, num_folders):
    for folder in range(num_folders):
        for number in range(4):
            speech(f"speaker {folder}/day/{number}.wav")
    caplog.set_level("INFO")
    train, valid = prepare(valid_share=0.3)
    speakers = [{row["wav"].split(os.sep)[-3] for row in rows} for rows in (train, valid)]
    if num_folders == 5:
        assert not speakers[0] & speakers[1]
        assert {row["spk_id"] for row in valid} == speakers[1]
        assert "its 5 folders of level 1, such as speaker 0, are used as speakers" in caplog.text
    else:
        assert speakers[0] & speakers[1]
        assert {row["spk_id"] for row in train + valid} == {""}
        assert "of 16 files" in caplog.text


NAMES = st.sets(st.text("abcdefgh0123", min_size=1), min_size=2, max_size=60)


@hypothesis.given(NAMES, st.data(), st.floats(1e-6, 0.5), st.integers(0, 9), st.booleans())
def test_a_split_has_both_parts_and_whole_groups(names, data, share, seed, speakers):
    seconds = data.draw(st.lists(st.floats(0.1, 500.0), min_size=len(names), max_size=len(names)))
    clips = [
        Clip(name, name, f"{name}{k}", speaker=name if speakers else "", seconds=length)
        for name, length in zip(sorted(names), seconds, strict=True)
        for k in range(3)
    ]
    train, valid = divide(clips, share, seed, "source")
    assert train and valid and sorted([*train, *valid], key=id) == sorted(clips, key=id)
    group = (lambda clip: clip.speaker) if speakers else (lambda clip: clip.name)
    assert not {*map(group, train)} & {*map(group, valid)}
    assert divide(clips[::-1], share, seed, "source") == (train[::-1], valid[::-1])
    taken, total = (sum(clip.seconds for clip in part) for part in (valid, clips))
    assert taken <= 0.5001 * total
    least = min(seconds) * (3 if speakers else 1)
    assert taken <= 2.0001 * max(share * total, least)


def test_a_split_has_its_share_of_the_seconds_and_files_that_are_added_move_few_others():
    lengths = np.random.default_rng(1).uniform(1.0, 30.0, 2000)
    clips = [Clip(str(n), f"{n}.wav", f"{n}.wav", seconds=lengths[n]) for n in range(2000)]
    valid = [clip for clip in divide(clips, 0.1, 1, "source")[1]]
    assert 0.1 <= sum(clip.seconds for clip in valid) / sum(lengths) < 0.102
    valid = {clip.id for clip in valid}
    before = {clip.id for clip in divide(clips[:1000], 0.1, 1, "source")[1]}
    assert len(before ^ {name for name in valid if int(name) < 1000}) < 20
    assert valid != {clip.id for clip in divide(clips, 0.1, 2, "source")[1]}


@pytest.mark.parametrize(("names", "seconds"), [("ab", [50.0, 1.0]), ("abc", [90.0, 2.0, 30.0])])
def test_of_a_long_and_a_short_file_validation_takes_the_short_one(names, seconds):
    for seed in range(8):
        clips = [
            Clip(f"{name}-{k}", name, name, seconds=1.0)
            for name, length in zip(names, seconds, strict=True)
            for k in range(int(length))
        ]
        assert {clip.name for clip in divide(clips, 0.05, seed, "source")[1]} == {"b"}


def test_one_speaker_is_split_by_file_and_one_file_not_at_all(speech, prepare):
    for name in "ab":
        speech(f"{name}.wav", 3.0)
    manifest = speech.folder / "all.csv"
    manifest.write_text("wav,spk_id\na.wav,x\nb.wav,x\n")
    assert all(prepare(manifest))
    (speech.folder / "b.wav").unlink()
    with pytest.raises(ValueError, match="has one; set valid_source:"):
        prepare(max_seconds=1.5)


def test_a_csv_needs_paths_only(speech, prepare):
    paths = [str(speech(f"sub/{name}.1.wav")) for name in "abc"]
    manifest = speech.folder / "all.csv"
    manifest.write_text(f"wav\nsub/a.1.wav\n$data_root/./sub/b.1.wav\n{paths[2]}\n")
    train, valid = prepare(manifest)
    assert sorted((row["ID"], row["wav"]) for row in train + valid) == [
        (f"sub-{name}_1", path) for name, path in zip("abc", paths, strict=True)
    ]


def test_parts_of_a_file_get_ids_of_their_own(speech, prepare):
    for name in "ab":
        speech(f"{name}.wav", 4.0)
    manifest = speech.folder / "all.csv"
    manifest.write_text("wav,start,stop\n" + "a.wav,0,32000\na.wav,0,64000\nb.wav,,\n")
    train, valid = prepare(manifest)
    ids = [row["ID"] for row in train + valid]
    assert len(set(ids)) == 3 and all(name[0] in "ab" for name in ids)


def test_a_manifest_keeps_ids_speakers_parts_and_further_columns(speech, prepare):
    speech("a.flac", 10.0)
    table = {
        "x.1": {"wav": "a.flac", "start": 16000, "stop": 48000, "spk_id": 7, "wrd": "HI, YOU"},
        "x.2": {
            "wav": "{data_root}/a.flac",
            "start": 0,
            "stop": 160000,
            "spk_id": 8,
            "duration": 3,
        },
    }
    speech.folder.joinpath("all.json").write_text(json.dumps(table))
    train, valid = prepare(speech.folder / "all.json", max_seconds=5.0)
    rows = {row["ID"]: row for row in train + valid}
    assert sorted(rows) == ["x.1", "x.2-000", "x.2-001"]
    assert rows["x.1"] == {
        "ID": "x.1", "duration": "2.0", "wav": str(speech.folder / "a.flac"),
        "start": "16000", "stop": "48000", "channel": "", "spk_id": "7", "wrd": "HI, YOU",
    }  # fmt: skip
    assert [rows[f"x.2-00{k}"]["stop"] for k in range(2)] == ["80000", "160000"]
    assert {row["spk_id"] for row in train}.isdisjoint(row["spk_id"] for row in valid)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ID,file\na,a.wav\n", "lacks the column 'wav', it has ID, file; name the column .* wav,"),
        ("wav\n", "has no rows: add a line for each audio file"),
        ("wav,ID\na.wav,a\n,b\n", "1 of 2 rows are not right; line 3, ID 'b': the column wav is e"),
        ("wav,ID\na.wav,a\nb.wav,a\n", "line 2 has the same ID"),
        ("wav\na.wav\n./a.wav\n", "line 3: line 2 has the same clip"),
        ("wav,start,stop\na.wav,5,\n", "the columns start and stop must be both filled"),
        ("wav,start,stop\na.wav,5,5\n", "the column stop has '5', which is not after the start"),
        ("wav,start,stop\na.wav,0.5,2\n", "the column start has '0.5', .* go in start_time"),
        ("wav\na.raw\n", "1 of 1 files .*a.raw cannot be read"),
        ("wav\nb.wav\n", "1 of 1 files .* there is no such file; .*relative to the manifest"),
    ],
)
def test_a_manifest_that_is_not_right_is_refused(speech, prepare, content, message):
    speech("a.wav")
    shutil.copy(speech.folder / "a.wav", speech.folder / "a.raw")  # which has no header
    speech.folder.joinpath("all.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        prepare(speech.folder / "all.csv")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": ""}, "source must be a folder or a manifest, got source=''"),
        ({"source": "/nowhere"}, "/nowhere does not exist"),
        ({"source": __file__}, "test_own_speech.py is none of these"),
        ({}, r"has 1 of 1 audio files .* 1 \.ape; give another folder, or convert the f"),
        ({"valid_share": 0}, "valid_share must be above 0 and at most 0.5, .* got valid_share=0"),
        ({"valid_share": 0.7}, "at most 0.5, .* got valid_share=0.7"),
        ({"mix_down": "all"}, "mix_down must be .* first or each, got mix_down='all'"),
        ({"speaker_level": -1}, "speaker_level must be a whole number from 0 up or null, got"),
        ({"min_seconds": 20.0}, "min_seconds must be from 0 up and below max_seconds"),
        ({"seed": "one"}, "seed must be a whole number, got seed='one'"),
    ],
)
def test_wrong_settings_are_named(speech, tmp_path, settings, message):
    (speech.folder / "a.ape").touch()
    with pytest.raises(ValueError, match=message):
        prepare_own_speech(
            **{"source": speech.folder, "manifest_folder": tmp_path / "manifests", **settings}
        )


def test_nothing_is_done_again_until_the_source_or_the_settings_change(
    speech, prepare, tmp_path, monkeypatch
):
    for name in "abcdef":
        speech(f"{name}.wav")
    read = []
    real = usable.read_header
    monkeypatch.setattr(usable, "read_header", lambda wav: read.append(wav) or real(wav))
    rows = prepare()

    def made_again(**settings):
        read.clear()
        prepare(**settings)
        return len(read)

    assert made_again() == 0
    speech("g.wav")
    assert made_again() == 7
    speech("g.wav", 1.6)
    assert made_again() == 7
    (speech.folder / "g.wav").rename(speech.folder / "h.wav")
    assert made_again() == 7
    (speech.folder / "h.wav").unlink()
    assert made_again() == 6 and made_again() == 0
    assert made_again(seed=2) == 6 and made_again(seed=2) == 0
    (tmp_path / "manifests" / "valid.csv").unlink()
    assert made_again(seed=2) == 6
    assert prepare() == rows and prepare(folder=tmp_path / "other", num_workers=1) == rows
    manifest = speech.folder / "all.csv"
    manifest.write_text("wav\na.wav\nb.wav\n")
    assert made_again(source=manifest) == 2 and made_again(source=manifest) == 0
    manifest.write_text("wav\na.wav\nc.wav\n")
    assert made_again(source=manifest) == 2


def test_interrupted_it_begins_anew(speech, prepare, tmp_path, monkeypatch):
    for name in "abcdef":
        speech(f"{name}.wav")
    rows = prepare()
    with monkeypatch.context() as patch:
        patch.setattr(module, "divide", None)
        with pytest.raises(TypeError):
            prepare(seed=2)
    assert not (tmp_path / "manifests" / "train.csv").exists()
    assert prepare() == rows


def test_manifests_of_something_else_are_not_touched(speech, prepare, tmp_path):
    speech("a.wav")
    speech("b.wav")
    path = tmp_path / "speech" / "train.csv"
    path.write_text("wav\na.wav\nb.wav\n")
    with pytest.raises(ValueError, match="has manifests of another corpus"):
        prepare(path, folder=speech.folder)
    assert path.read_text() == "wav\na.wav\nb.wav\n"


def test_a_valid_source_is_taken_out_of_the_training(speech, prepare):
    for name in ("a.wav", "dev/b.wav", "dev/c.wav", "d.wav"):
        speech(name)
    train, valid = prepare(valid_source=str(speech.folder / "dev"))
    assert (names_of(train), names_of(valid)) == (["a.wav", "d.wav"], ["b.wav", "c.wav"])


def test_no_clip_of_training_shares_audio_with_validation(speech, prepare):
    for name in ("a.wav", "b.wav", "c.wav"):
        speech(name, 4.0)
    manifest = speech.folder / "valid.csv"
    manifest.write_text("wav,start_time,end_time\na.wav,0,4\nb.wav,1,3\n")
    train, valid = prepare(valid_source=str(manifest))
    assert (names_of(train), names_of(valid)) == (["c.wav"], ["a.wav", "b.wav"])
    parts = speech.folder / "train.csv"
    parts.write_text("wav,start_time,end_time\nb.wav,0,1\nb.wav,0,2\nb.wav,3,4\n")
    train, _ = prepare(parts, valid_source=str(manifest))
    assert [(row["start"], row["stop"]) for row in train] == [("0", "16000"), ("48000", "64000")]


def test_hidden_files_and_links_that_go_round_are_not_followed(speech, tmp_path):
    speech("x/a.wav")
    speech("x/.a.wav")
    speech(".trash/a.wav")
    (speech.folder / "x" / "up").symlink_to(speech.folder)
    shutil.move(speech.folder / "x", tmp_path / "elsewhere")
    (speech.folder / "y").symlink_to(tmp_path / "elsewhere")
    assert [clip.name for clip in find_clips(str(speech.folder)).clips] == ["y/a.wav"]


def test_odd_names_give_ids_for_any_tool_and_manifests_that_can_be_read(speech, prepare, tmp_path):
    names = [
        '1.5, "it\'s" é  音声.v2.wav',
        "1.5, 'it's' é 音声.v2.wav",
        *("a-b.wav", "a/b.wav", "a/b.flac", ", .wav", "Icon\r.wav", "two\nlines.wav"),
    ]
    for name in names:
        speech(name)
    shutil.copy(speech.folder / "a-b.wav", os.fsencode(speech.folder) + b"/\xff.wav")
    train, valid = prepare()
    ids = [row["ID"] for row in train + valid]
    assert len(set(ids)) == len(ids) == 6
    assert not {*"".join(ids)} & {*".,'\" /"} and "a-b" not in ids
    assert {row["wav"] for row in train + valid} == {
        str(speech.folder / name) for name in names[:6]
    }
    assert len(prepare.left_out()) == 3
    for split in ("train", "valid"):
        load_dataset(tmp_path / "manifests" / f"{split}.csv", "", reader=AudioReader(16000))
