"""A folder of mixed files: audio is used, other files are named, speakers are found."""

import contextlib
import os
import shutil
import tempfile

import pytest

from brainquant.data.own_speech import folders
from brainquant.data.own_speech.folders import find_speakers
from brainquant.data.own_speech.sources import find_clips

SPEAKERS = [str(n) for n in (19, 26, 198, 1988, 2007, 3080, 6930)]
LAYOUTS = {
    "LibriSpeech": (
        "train-clean-100/{}/1/a.flac",
        "dev-other/{}/2/b.flac",
        "test-clean/9/3/c.flac",
    ),
    "MLS": ("train/audio/{}/12/a.flac", "dev/audio/{}/7/b.flac", "test/audio/9/3/c.flac"),
    "VCTK": ("wav48_silence_trimmed/{}/a.flac",),
    "versions": ("v1.0/{}/a.wav", "v2.0/{}/b.wav"),
    "releases": ("1.0/train/{}/a.wav", "2.0/valid/{}/b.wav", "1.1/{}.wav"),
    "dates": ("2024-01-05/{}/a.wav", "2024-02-06/{}/b.wav"),
    "more beside it": ("train-clean-100/{}/a.wav", "dev-clean/{}/b.wav", "extra/9/c.wav"),
    "speakers first": ("{}/wav/a.wav",),
    "one called as a part": ("{}/a.wav", "test/a.wav"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_parts_kinds_and_versions_of_a_corpus_are_no_speakers(layout):
    files = [path.format(name) for path in LAYOUTS[layout] for name in SPEAKERS]
    speakers, remark = find_speakers(files, "corpus")
    levels = [path.split("/").index("{}") for path in LAYOUTS[layout] if "{}" in path.split("/")]
    expected = [file.split("/")[levels[0]] if file.count("/") > levels[0] else "" for file in files]
    assert speakers == expected
    example = "/".join(files[0].split("/")[: levels[0] + 1])
    assert f"folders of level {levels[0] + 1}, such as {example}, are used" in remark
    assert "speaker_level: names another level" in remark


@pytest.mark.parametrize("files", [["a.wav"], ["train/a.wav", "dev/b.wav"], ["x/1.wav", "y/1.wav"]])
def test_without_five_folders_that_may_be_speakers_there_are_none(files):
    speakers, remark = find_speakers(files, "corpus")
    assert speakers == [""] * len(files)
    assert ("speaker_level: 1 would use the first" in remark) == ("/" in files[0])


def test_speaker_level_names_another_level(speech, prepare, caplog):
    for name in ("train/anna/1/a.wav", "train/bob/1/a.wav", "dev/bob/2/a.wav", "dev/b.wav"):
        speech(name)
    caplog.set_level("INFO")

    def speakers(**settings):
        return [row["spk_id"] for rows in prepare(**settings) for row in rows]

    assert set(speakers()) == {""}
    assert sorted(speakers(speaker_level=2)) == ["", "anna", "bob", "bob"]
    assert "2 folders of level 2, such as dev/bob, are used as speakers" in caplog.text
    assert sorted(speakers(speaker_level=1)) == ["dev", "dev", "train", "train"]
    assert set(speakers(speaker_level=0)) == {""}
    with pytest.raises(ValueError, match="speaker_level is 4, but .* at most 3 folders deep"):
        speakers(speaker_level=4)
    (speech.folder / "all.csv").write_text("wav\ndev/b.wav\n")
    with pytest.raises(
        ValueError, match="speaker_level is for folders, .*name speakers in the man"
    ):
        speakers(source=speech.folder / "all.csv", speaker_level=1)


def test_audio_with_an_ending_that_cannot_be_read_is_a_warning_and_listed(speech, prepare, caplog):
    for name in "abc":
        speech(f"{name}.WAV")
    for number in range(9):
        (speech.folder / f"{number}.ape").touch()
    (speech.folder / "x.SHN").touch()
    (speech.folder / "notes.txt").touch()
    caplog.set_level("INFO")
    train, valid = prepare()
    assert len(train + valid) == 3
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert (
        "10 of 13 audio files have an ending that cannot be read: 9 .ape, 1 .shn" in warning.message
    )
    assert "ignored: 1 .txt" in caplog.text
    reasons = prepare.left_out()
    assert len(reasons) == 10
    assert reasons[str(speech.folder / "x.SHN")] == "has an ending that cannot be read, .shn"


def test_endings_that_the_extra_reads_are_files_with_it_and_name_it_without(speech, monkeypatch):
    for name in ("a.wav", "b.M4A", "c.webm", "d.m4a"):
        (speech.folder / name).touch()
    monkeypatch.setattr(folders, "import_av", lambda: None)
    found = find_clips(str(speech.folder))
    assert [clip.name for clip in found.clips] == ["a.wav"] and len(found.left_out) == 3
    assert "3 of 4 audio files have an ending that cannot be read: 2 .m4a, 1 .webm" in found.warning
    assert 'pip install "brainquant[codecs]", which reads .m4a, .webm' in found.warning
    assert "brainquant[codecs]" in found.left_out[str(speech.folder / "c.webm")]
    monkeypatch.setattr(folders, "import_av", lambda: object())
    found = find_clips(str(speech.folder))
    assert len(found.clips) == 4 and not found.left_out and not found.warning


@pytest.fixture
def as_nobody():
    """A folder that everybody may read, and a way not to be root, who may read everything."""
    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o755)

    @contextlib.contextmanager
    def become():
        if root := os.geteuid() == 0:
            os.seteuid(65534)
        try:
            yield
        finally:
            if root:
                os.seteuid(0)

    become.folder = folder
    yield become
    os.chmod(os.path.join(folder, "lost+found"), 0o755)
    shutil.rmtree(folder)


def test_a_folder_that_cannot_be_listed_is_left_out_and_named(as_nobody):
    folder = as_nobody.folder
    for name in ("lost+found", "talks"):
        os.mkdir(os.path.join(folder, name))
        open(os.path.join(folder, name, "a.wav"), "w").close()
    os.chmod(os.path.join(folder, "lost+found"), 0)
    with as_nobody():
        found = find_clips(folder)
        assert [clip.name for clip in found.clips] == ["talks/a.wav"]
        lost = os.path.join(folder, "lost+found")
        assert found.left_out == {lost: "cannot be listed (Permission denied)"}
        assert f"1 of its folders cannot be listed: {lost}" in found.warning
        with pytest.raises(
            ValueError, match="lost.found cannot be listed .*; change its permissions, or give ano"
        ):
            find_clips(lost)
    os.chmod(lost, 0o755)
    with as_nobody():
        assert find_clips(folder).state != found.state


def test_a_folder_that_goes_away_is_left_out(speech, monkeypatch):
    for name in ("a/1.wav", "b/1.wav", "c/1.wav"):
        speech(name)
    scandir = os.scandir

    def removing(path):
        if path == str(speech.folder / "a"):
            (speech.folder / "b" / "1.wav").unlink()
            (speech.folder / "b").rmdir()
        return scandir(path)

    monkeypatch.setattr(os, "scandir", removing)
    found = find_clips(str(speech.folder))
    assert [clip.name for clip in found.clips] == ["a/1.wav", "c/1.wav"]
    gone = str(speech.folder / "b")
    assert found.left_out == {gone: "cannot be listed (No such file or directory)"}
