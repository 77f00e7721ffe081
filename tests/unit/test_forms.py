"""A corpus gives the same clips in every form of manifest; unclear manifests are refused."""

import csv
import gzip
import io
import json
import os
import shutil
import unicodedata
from decimal import Decimal

import hypothesis
import pytest
import soundfile
import torch
from hypothesis import strategies as st

from brainquant.data.audio import AudioReader
from brainquant.data.manifests import read_manifest
from brainquant.data.own_speech.sources import find_clips

RATE = 16000


def table(rows, delimiter=","):
    text = io.StringIO()
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, quoting=quoting)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def seconds(samples):
    return str(Decimal(samples) / RATE)


def recording(name, path, channels=1):
    source = {"type": "file", "channels": list(range(channels)), "source": path}
    return {
        "id": name, "sources": [source], "sampling_rate": RATE, "num_samples": 10 * RATE,
        "duration": 10.0, "channel_ids": list(range(channels)),
    }  # fmt: skip


def supervision(row, start=None):
    return {
        "id": row["ID"], "recording_id": row["wav"], "channel": 0,
        "start": float(seconds(row["start"])) if start is None else start,
        "duration": float(seconds(row["stop"] - row["start"])), "speaker": row["spk_id"],
    }  # fmt: skip


def cut(row):
    return {
        "type": "MonoCut", "id": row["ID"], "start": float(seconds(row["start"])), "channel": 0,
        "duration": float(seconds(row["stop"] - row["start"])),
        "supervisions": [supervision(row, 0.0)], "recording": recording(row["wav"], row["wav"]),
    }  # fmt: skip


def times(row, first="start_time", last="end_time", length=False):
    stop = row["stop"] - (row["start"] if length else 0)
    other = {key: row[key] for key in ("ID", "wav", "spk_id")}
    return other | {first: seconds(row["start"]), last: seconds(stop)}


def nemo(row):
    return {
        "ID": row["ID"], "audio_filepath": row["wav"], "speaker": row["spk_id"],
        "offset": float(seconds(row["start"])),
        "duration": float(seconds(row["stop"] - row["start"])),
    }  # fmt: skip


def speechbrain(row, root):
    part = {"file": root + row["wav"], "start": row["start"], "stop": row["stop"]}
    return {"wav": part, "spk_id": row["spk_id"], "duration": 1.0}


def rooted(rows, root):
    return [row | {"wav": f"{root}/{row['wav']}"} for row in rows]


def kaldi(rows):
    parts = [(r["ID"], r["wav"], seconds(r["start"]), seconds(r["stop"])) for r in rows]
    return {
        "wav.scp": "".join(f"{wav} {wav}\n" for wav in dict.fromkeys(row["wav"] for row in rows)),
        "segments": "".join(" ".join(part) + "\n" for part in parts),
        "utt2spk": "".join(f"{row['ID']} {row['spk_id']}\n" for row in rows),
    }


# The content of files by their names; the first file is the source.
FORMS = {
    "csv": lambda rows: {"a.csv": table(rows)},
    "CSV in capitals, $data_root": lambda rows: {"A.CSV": table(rooted(rows, "$data_root"))},
    "csv, {data_root}": lambda rows: {"a.csv": table(rooted(rows, "{data_root}"))},
    "csv.gz": lambda rows: {"a.csv.gz": table(rows)},
    "tsv.gz": lambda rows: {"a.tsv.gz": table(rows, "\t")},
    "start_time, end_time": lambda rows: {"a.csv": table([times(row) for row in rows])},
    "start_time, duration": lambda rows: {
        "a.csv": table([times(row, last="duration", length=True) for row in rows])
    },
    "offset, duration": lambda rows: {
        "a.csv": table([times(row, "offset", "duration", length=True) for row in rows])
    },
    "json of SpeechBrain": lambda rows: {
        "a.json": json.dumps({row["ID"]: speechbrain(row, "{data_root}/") for row in rows})
    },
    "json, $data_root": lambda rows: {
        "a.json": json.dumps({row["ID"]: speechbrain(row, "$data_root/") for row in rows})
    },
    "nemo.json": lambda rows: {"nemo.json": lines(map(nemo, rows))},
    "nemo.jsonl.gz": lambda rows: {"nemo.jsonl.gz": lines(map(nemo, rows))},
    "array": lambda rows: {"a.json": json.dumps(list(map(nemo, rows)))},
    "kaldi": kaldi,
    "lhotse cuts": lambda rows: {"cuts.jsonl.gz": lines(map(cut, rows))},
    "lhotse cuts as an array": lambda rows: {"cuts.json": json.dumps(list(map(cut, rows)))},
    "lhotse supervisions": lambda rows: {
        "x_supervisions_dev.jsonl.gz": lines(map(supervision, rows)),
        "x_recordings_dev.jsonl.gz": lines(
            recording(wav, wav) for wav in dict.fromkeys(row["wav"] for row in rows)
        ),
    },
}


def write(folder, files):
    """Writes text files and returns the path of the first."""
    for name, text in files.items():
        content = text.encode()
        path = os.path.join(folder, name)
        with open(path, "wb") as file:
            file.write(gzip.compress(content) if name.endswith(".gz") else content)
    return os.path.join(folder, next(iter(files)))


def in_samples(clip):
    return (clip.id, clip.wav, *clip.in_samples(10 * RATE, RATE), clip.channel, clip.speaker)


PARTS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 5 * RATE), st.integers(1, 5 * RATE - 1)),
    min_size=1,
    max_size=5,
    unique=True,
)


@pytest.mark.parametrize("form", FORMS)
@hypothesis.given(parts=PARTS)
@hypothesis.settings(max_examples=8)
def test_a_corpus_gives_the_same_clips_in_every_form(form, parts, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("corpus"))
    rows = [
        {"ID": f"u{n}", "wav": f"{name}.wav", "start": start, "stop": start + length,
         "spk_id": f"s-{name}"}
        for n, (name, start, length) in enumerate(parts)
    ]  # fmt: skip
    found = find_clips(write(folder, FORMS[form](rows)))
    assert [in_samples(clip) for clip in found.clips] == [
        (
            row["ID"],
            os.path.join(folder, row["wav"]),
            row["start"],
            row["stop"],
            None,
            row["spk_id"],
        )
        for row in rows
    ]


# Forms without segments
WHOLE = {
    "Common Voice": {
        "train.tsv": 'client_id\tpath\tsentence\ns-a\ta.wav\tHe said "hi\ns-b\tb.wav\t"\n',
        "clips/a.wav": "", "clips/b.wav": "",
    },
    "fairseq": {"train.tsv": "{}/clips\na.wav\t16000\nb.wav\t32000\n"},
    "metadata.csv": {"metadata.csv": "file_name,speaker_id\nclips/a.wav,s-a\nclips/b.wav,s-b\n"},
    "metadata.jsonl": {
        "metadata.jsonl": lines([{"file_name": "clips/a.wav", "text": "x"},
                                 {"file_name": "clips/b.wav"}]),
    },
    "wav.scp": {"wav.scp": "a clips/a.wav\nb  clips/b.wav \n", "text": "b one two\n"},
    "nemo without offsets": {
        "n.json": '{"audio_filepath": "clips/a.wav", "duration": 9.96}\n'
        '{"audio_filepath": "clips/b.wav", "duration": 10.04}\n'
    },
    "lhotse recordings": {
        "r.jsonl": lines(recording(name, f"clips/{name}.wav") for name in "ab"),
    },
}  # fmt: skip


@pytest.mark.parametrize("form", WHOLE)
def test_forms_of_whole_files_are_read(form, tmp_path):
    (tmp_path / "clips").mkdir()
    files = {name: text.replace("{}", str(tmp_path)) for name, text in WHOLE[form].items()}
    found = find_clips(write(tmp_path, WHOLE[form] if "{" not in str(files) else files))
    assert [clip.wav for clip in found.clips] == [f"{tmp_path}/clips/{n}.wav" for n in "ab"]
    assert all(clip.in_samples(10 * RATE, RATE) == (None, None) for clip in found.clips)
    if form in ("Common Voice", "metadata.csv"):
        assert [clip.speaker for clip in found.clips] == ["s-a", "s-b"]
    if form == "Common Voice":
        assert [clip.more for clip in found.clips] == [
            {"sentence": 'He said "hi'},
            {"sentence": '"'},
        ]
        assert "kept as text: sentence" in found.remark


def test_a_kaldi_folder_is_known_by_its_wav_scp(tmp_path):
    write(tmp_path, {"wav.scp": "r a.wav\n", "segments": "u r 1.5 -1 1\nv r 0 0.75\n"})
    found = find_clips(str(tmp_path))
    assert [in_samples(clip) for clip in found.clips] == [
        ("u", f"{tmp_path}/a.wav", 24000, 160000, 1, ""),
        ("v", f"{tmp_path}/a.wav", 0, 12000, None, ""),
    ]
    before = found.state
    (tmp_path / "utt2spk").write_text("u anna\n")
    assert find_clips(str(tmp_path)).state != before


def test_nemo_reads_so_much_of_a_longer_file(tmp_path):
    path = write(tmp_path, {"n.jsonl": '{"audio_filepath": "a.wav", "duration": 2.5}\n'})
    assert find_clips(path).clips[0].in_samples(10 * RATE, RATE) == (0, 40000)


def test_cuts_are_lhotses_own(tmp_path):
    lhotse = pytest.importorskip("lhotse")
    audio = torch.rand(2, 30000) - 0.5
    soundfile.write(tmp_path / "a.wav", audio.T.numpy(), RATE, subtype="FLOAT")
    whole = lhotse.Recording.from_file(tmp_path / "a.wav").to_cut()
    cuts = [
        lhotse.MonoCut("m", 0.3, 0.7, 1, [], recording=whole.recording),
        whole.truncate(offset=0.25, duration=0.5).with_id("both"),
    ]
    lhotse.CutSet.from_cuts(cuts).to_file(tmp_path / "cuts.jsonl.gz")
    for clip, cut in zip(find_clips(str(tmp_path / "cuts.jsonl.gz")).clips, cuts, strict=True):
        start, stop = clip.in_samples(30000, RATE)
        channels = slice(None) if clip.channel is None else slice(clip.channel, clip.channel + 1)
        assert torch.equal(audio[channels, start:stop], torch.from_numpy(cut.load_audio()))
    mixed = {"type": "MixedCut", "id": "x", "tracks": []}
    bad = {
        **recording("r", "a.wav"),
        "sources": [{"type": "command", "channels": [0], "source": "x"}],
    }
    (tmp_path / "mixed.jsonl").write_text(lines([cuts[0].to_dict(), mixed]))
    with pytest.raises(ValueError, match="line 2, ID 'x': it is a MixedCut, made of several files"):
        find_clips(str(tmp_path / "mixed.jsonl"))
    (tmp_path / "bad.jsonl").write_text(lines([bad]))
    with pytest.raises(ValueError, match="its audio is of the type 'command', not a file"):
        find_clips(str(tmp_path / "bad.jsonl"))
    (tmp_path / "supervisions.jsonl").write_text(
        lines([{"id": "s", "recording_id": "r", "start": 0, "duration": 1, "channel": 0}])
    )
    with pytest.raises(ValueError, match="put the recordings beside it, as recordings.jsonl"):
        find_clips(str(tmp_path / "supervisions.jsonl"))
    for values in ({"foo": 1}, {"id": "r", "foo": 1}):
        (tmp_path / "recordings.jsonl").write_text(lines([values]))
        with pytest.raises(ValueError, match="recordings.jsonl, line 1: lhotse cannot read it"):
            find_clips(str(tmp_path / "supervisions.jsonl"))


@pytest.mark.parametrize(
    "name, text", [("a.csv", "wav\n"), ("a.tsv", "path\tclient_id\n"), ("wav.scp", "\n")]
)
def test_a_manifest_without_rows_is_named(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name} has no rows: add a line for each audio file"):
        find_clips(str(tmp_path / name))


def test_a_single_line_of_json_may_have_objects_in_it(tmp_path):
    values = {"audio_filepath": "a.wav", "duration": 2.0, "more": {"x": 1}}
    (tmp_path / "a.json").write_text(json.dumps(values))
    assert [clip.name for clip in find_clips(str(tmp_path / "a.json")).clips] == ["a.wav"]


PIPE = "sph2pipe -f wav -p a.sph |"
UNCLEAR = {
    ("a.csv", "ID,wav,begin,finish\na,a.wav,0,1\n"): "has the columns begin, finish: which part .*"
    "start_time and end_time, in seconds",
    ("a.csv", "wav,start_ms,end_ms\na.wav,0,1\n"): "has the columns start_ms, end_ms: which part",
    ("a.csv", "wav,offset\na.wav,0.5\n"): "has the column offset: which part",
    ("a.csv", "wav,start_time,end_time,start,stop\na.wav,1,2,3,4\n"): "which part of its file",
    (
        "a.csv",
        "wav,start,end\na.wav,1,2\n",
    ): "start and end: do they count samples or seconds.*Name",
    ("a.csv", "wav,start,duration\na.wav,1,2.0\n"): "start and duration: do they count",
    ("a.csv", "wav,offset,size\na.tar,512,99\n"): "as manifests of shards .* set train_csv:",
    ("a.csv", "wav,channel_id\na.wav,1\n"): "the column 'channel_id'; name it channel",
    ("a.csv", "wav,channel\na.wav,left\n"): "the column channel has 'left', not a whole number",
    ("a.csv", "wav,start_time,end_time\na.wav,0:10,0:20\n"): "start_time has '0:10', not a number",
    ("a.csv", "wav,start_time,end_time\na.wav,2.5,\n"): "must be both filled or both empty",
    ("a.csv", "wav,start_time,end_time\na.wav,2.5,1\n"): "has '1', which is not after the start_t",
    (
        "a.csv",
        "ID,wav\na,a.wav\nb,a.wav\n",
    ): "line 3, ID 'b': line 2, ID 'a' has the same clip",
    ("a.csv", "wav,wav\na.wav,b.wav\n"): "has the column 'wav' twice",
    (
        "a.csv",
        "a.wav\nb.wav\n",
    ): "lacks the column 'wav', it has a.wav; .* as in wav,spk_id and bel",
    (
        "a.jsonl",
        '{"audio": "a.wav"}',
    ): 'lacks the column .wav., .*as in {"audio_filepath": "a.flac"',
    ("a.jsonl", '{"wav": "a.wav"}\n{"wav": '): "a.jsonl is not JSON",
    ("a.json", '["a.wav"]'): "a.json must be an object .* or one object a line",
    ("a.txt", "a.wav\n"): r"a.txt is none of these\. .* a .csv file with wav,spk_id and below it",
    ("a.yaml", "- a.wav\n"): "a.yaml is none of these",
    ("a.parquet", "PAR1"): "a.parquet is none of these",
    (
        "wav.scp",
        f"a {PIPE}\n",
    ): "ID 'a': 'sph2pipe -f wav -p a.sph .' is a command, which is not run",
    ("wav.scp", "a x.ark:1234\n"): "'x.ark:1234' is in an archive",
    ("wav.scp", "a a.wav\na b.wav\n"): "wav.scp, line 2: the ID 'a' is there already",
}


@pytest.mark.parametrize(("name", "content"), UNCLEAR)
def test_what_is_not_clear_gets_one_line_with_what_is_wanted(name, content, tmp_path):
    path = write(tmp_path, {name: content})
    with pytest.raises(ValueError, match=UNCLEAR[name, content]) as error:
        find_clips(path)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_gzip_is_named(tmp_path):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"wav\na.wav\n")[:-9])
    with pytest.raises(ValueError, match="a.csv.gz is not a complete gzip file"):
        find_clips(str(tmp_path / "a.csv.gz"))


def test_start_and_end_with_decimals_are_seconds(tmp_path):
    path = write(tmp_path, {"a.csv": "wav,start,end\na.wav,0,1\na.wav,1.5,2\n"})
    clips = find_clips(path).clips
    assert [clip.in_samples(160000, RATE) for clip in clips] == [(0, 16000), (24000, 32000)]


@pytest.mark.parametrize("written", ["NFC", "NFD"])
def test_names_are_found_in_either_form_of_unicode(written, tmp_path):
    other = {"NFC": "NFD", "NFD": "NFC"}[written]
    names = [unicodedata.normalize(form, "é/ü 음.wav") for form in (written, other)]
    on_disk = tmp_path / names[1]
    on_disk.parent.mkdir()
    soundfile.write(on_disk, [0.0] * RATE, RATE)
    path = write(tmp_path, {"a.csv": f"ID,duration,wav\na,1.0,$data_root/{names[0]}\n"})
    assert find_clips(path).clips[0].wav == str(on_disk)
    row = read_manifest(path, tmp_path)["a"]
    assert row["wav"] == str(on_disk)
    assert AudioReader(RATE)(row["wav"], 1.0).shape == (RATE,)
    shutil.rmtree(on_disk.parent)
    with pytest.raises(ValueError, match="1 of its 1 audio files do not exist"):
        read_manifest(path, tmp_path)
