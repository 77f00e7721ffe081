"""ToySpeech: the same bytes for the same seed, exact phones, complete after interruptions."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
from speechbrain.dataio.dataset import DynamicItemDataset

from brainquant.data.alignments import read_alignment
from brainquant.data.toy_speech.preparation import _resample, prepare_toy_speech
from brainquant.data.toy_speech.script import SPLITS, toy_sentences, toy_speakers

pytest.importorskip("espeakng_loader")

SIZES = {"train_minutes": 0.4, "valid_minutes": 0.1, "test_minutes": 0.1}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    prepare_toy_speech(folder, **SIZES, num_workers=2)
    return folder


def rows_of(folder, split):
    with open(folder / f"{split}.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def bytes_of(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_manifests_are_speechbrains(corpus):
    for split in SPLITS:
        path = str(corpus / f"{split}.csv")
        data = DynamicItemDataset.from_csv(path, replacements={"data_root": str(corpus)})
        data.set_output_keys(["id", "duration", "wav", "spk_id", "text"])
        assert list(rows_of(corpus, split)[0]) == ["ID", "duration", "wav", "spk_id", "text"]
        for item in data:
            audio, rate = soundfile.read(item["wav"])
            assert rate == 16000 and audio.ndim == 1
            assert soundfile.info(item["wav"]).subtype == "PCM_16"
            assert len(audio) / rate == float(item["duration"])
            assert 1.5 < len(audio) / rate < 7
            assert item["id"].startswith(item["spk_id"]) and len(item["text"].split()) >= 5


def test_the_sizes_are_about_what_was_asked(corpus):
    seconds = [sum(float(row["duration"]) for row in rows_of(corpus, split)) for split in SPLITS]
    assert np.allclose(seconds, [24, 6, 6], atol=6)


def test_the_alignment_covers_the_utterance_and_silence_is_quiet(corpus):
    for split in SPLITS:
        for row in rows_of(corpus, split):
            audio, rate = soundfile.read(row["wav"].replace("$data_root", str(corpus)))
            phones = read_alignment(corpus / "phones" / split / f"{row['ID']}.tsv")
            starts, ends, names = zip(*phones, strict=True)
            assert starts[0] == 0 and ends[-1] == len(audio) / rate and starts[1:] == ends[:-1]
            assert names[0] == names[-1] == "SIL" and all(np.diff((0, *ends)) > 0)
            silence = np.concatenate(
                [audio[round(s * rate) : round(e * rate)] for s, e, p in phones if p == "SIL"]
            )
            speech = np.concatenate(
                [audio[round(s * rate) : round(e * rate)] for s, e, p in phones if p != "SIL"]
            )
            assert 0 < silence.std() < 0.02 * speech.std()
            assert 0.02 < speech.std() and np.abs(audio).max() < 0.95


def test_speakers_are_many_and_disjoint():
    speakers = {split: toy_speakers(split) for split in SPLITS}
    assert [len(speakers[split]) for split in SPLITS] == [48, 8, 8]
    everybody = sum(speakers.values(), [])
    assert len({speaker["name"] for speaker in everybody}) == 64
    assert len({speaker["voice"]["voice"] for speaker in everybody}) == 64
    variants = [{s["voice"]["voice"].split("+")[1] for s in speakers[split]} for split in SPLITS]
    assert not variants[0] & variants[1] | variants[1] & variants[2] | variants[0] & variants[2]


def test_sentences_are_many_and_disjoint():
    drawn = [list(islice(toy_sentences(split), 700)) for split in SPLITS]
    assert len(set().union(*drawn)) == 2100
    assert drawn[0] != list(islice(toy_sentences("train", seed=1), 700))


def test_the_manifests_share_no_speaker_and_no_sentence(corpus):
    for key in ("spk_id", "text", "ID"):
        values = [{row[key] for row in rows_of(corpus, split)} for split in SPLITS]
        assert len(set().union(*values)) == sum(map(len, values))


def test_the_same_bytes_with_any_number_of_workers_in_any_folder(corpus, tmp_path):
    folder = tmp_path / "a folder, größer"
    prepare_toy_speech(str(folder), **SIZES, num_workers=1)
    assert bytes_of(folder) == bytes_of(corpus)


def test_when_all_is_there_nothing_is_made(corpus, monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    before = {path: path.stat().st_mtime_ns for path in corpus.rglob("*")}
    prepare_toy_speech(corpus, **SIZES)
    assert before == {path: path.stat().st_mtime_ns for path in corpus.rglob("*")}


def test_killed_and_called_again_it_is_as_if_it_had_not_been(corpus, tmp_path):
    code = (
        "import sys; from brainquant.data.toy_speech import prepare_toy_speech as prepare;"
        f"prepare(sys.argv[1], **{SIZES}, num_workers=1)"
    )
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, *sys.path[1:]])}
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.rglob("*.wav"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    made = list(tmp_path.rglob("*.wav"))
    assert 3 <= len(made) and not list(tmp_path.glob("*.csv"))
    times = {path: path.stat().st_mtime_ns for path in made}
    prepare_toy_speech(tmp_path, **SIZES)
    assert bytes_of(tmp_path) == bytes_of(corpus)
    assert all(path.stat().st_mtime_ns == made_at for path, made_at in times.items())


def copy(corpus, folder):
    for name, content in bytes_of(corpus).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def test_what_is_not_whole_is_made_again(corpus, tmp_path):
    copy(corpus, tmp_path)
    first, second, third, fourth, *_ = sorted(tmp_path.rglob("*.wav"))
    phones = tmp_path / "phones" / second.parts[-3] / f"{second.stem}.tsv"
    first.write_bytes(first.read_bytes()[:-1000])
    phones.write_bytes(phones.read_bytes()[:100])
    third.unlink()
    fourth.write_bytes(b"")
    first.with_name(first.name + ".tmp").write_bytes(b"half")
    prepare_toy_speech(tmp_path, **SIZES)
    assert bytes_of(tmp_path) == bytes_of(corpus)


def test_a_changed_manifest_is_made_again(corpus, tmp_path):
    copy(corpus, tmp_path)
    (tmp_path / "train.csv").write_bytes(b"")
    prepare_toy_speech(tmp_path, **SIZES)
    assert bytes_of(tmp_path) == bytes_of(corpus)


def test_other_sizes_keep_what_they_share_and_nothing_else(corpus, tmp_path):
    copy(corpus, tmp_path)
    prepare_toy_speech(tmp_path, **{**SIZES, "train_minutes": 0.1})
    smaller = bytes_of(tmp_path)
    assert len(rows_of(tmp_path, "train")) == len(list(tmp_path.glob("audio/train/*/*.wav")))
    assert len(rows_of(tmp_path, "train")) < len(rows_of(corpus, "train"))
    whole = bytes_of(corpus)
    assert all(whole[name] == smaller[name] for name in smaller if name.endswith((".wav", ".tsv")))
    prepare_toy_speech(tmp_path, **SIZES)
    assert bytes_of(tmp_path) == whole


def test_another_seed_is_another_corpus_and_is_never_mixed(corpus, tmp_path):
    copy(corpus, tmp_path)
    tiny = {"train_minutes": 0.05, "valid_minutes": 0.05, "test_minutes": 0.05, "seed": 7}
    prepare_toy_speech(tmp_path, **tiny)
    fresh = tmp_path.with_name(tmp_path.name + " fresh")
    prepare_toy_speech(fresh, **tiny)
    assert bytes_of(tmp_path) == bytes_of(fresh)
    old = {row["text"] for row in rows_of(corpus, "train")}
    assert not old & {row["text"] for row in rows_of(tmp_path, "train")}
    assert json.loads((tmp_path / "toy_speech.json").read_text())["seed"] == 7


def test_nothing_of_another_corpus_is_overwritten(tmp_path):
    (tmp_path / "train.csv").write_text("ID,duration,wav\n")
    with pytest.raises(ValueError, match="data_folder must be empty or made by ToySpeech"):
        prepare_toy_speech(tmp_path, **SIZES)
    assert (tmp_path / "train.csv").read_text() == "ID,duration,wav\n"


@pytest.mark.parametrize(
    "argument", [{"valid_minutes": 0}, {"train_minutes": -1}, {"seed": -1}, {"num_workers": 0}]
)
def test_a_wrong_argument_is_named(tmp_path, argument):
    ((key, value),) = argument.items()
    with pytest.raises(ValueError, match=f"{key} must be .*{key}={value}"):
        prepare_toy_speech(tmp_path, **{**SIZES, **argument})


def test_without_the_extra_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(ImportError, match=r"pip install"):
        prepare_toy_speech(tmp_path, **SIZES)
    assert not list(tmp_path.iterdir())


def test_what_16_khz_cannot_hold_does_not_come_back():
    time_axis = np.arange(22050) / 22050

    def gain(frequency):
        tone = np.sin(2 * np.pi * frequency * time_axis).astype(np.float32)
        return _resample(tone, 22050)[1000:-1000].std() / tone.std()

    assert abs(gain(1000) - 1) < 0.001 and abs(gain(7000) - 1) < 0.01
    assert gain(8100) < 0.001 and gain(10000) < 0.001


def test_an_alignment_that_is_none_is_named(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("start\tend\tphone\n0.0\t0.5\n")
    with pytest.raises(ValueError, match="a.tsv"):
        read_alignment(path)
