"""Parts and channels of files: their exact samples, or a reason, or one clear error."""

import os
from decimal import Decimal

import pytest

from brainquant.data.audio.decoders import Header
from brainquant.data.own_speech.clips import Clip
from brainquant.data.own_speech.usable import find_samples


def test_segments_in_seconds_are_the_segments_and_nothing_else(speech, prepare):
    speech("talk.flac", 40.0)
    rows = [f"u{k},talk.flac,{1.6 * k:.3f},{1.6 * k + 1.5:.3f}" for k in range(25)]
    speech("other.flac", 2.0)
    text = "\n".join(["ID,wav,start_time,end_time", *rows, "v,other.flac,,", ""])
    (speech.folder / "all.csv").write_text(text)
    train, valid = prepare(speech.folder / "all.csv")
    assert [row["ID"] for row in valid] == ["v"]
    assert [(row["start"], row["stop"]) for row in train] == [
        (str(25600 * k), str(25600 * k + 24000)) for k in range(25)
    ]
    assert {row["duration"] for row in train} == {"1.5"}


@pytest.mark.parametrize(
    ("rate", "text", "samples"),
    [
        (11025, "0.1", 1103),
        (44100, "0.000012", 1),
        (16000, "1.00003125", 16001),
        (8000, "1e-1", 800),
    ],
)
def test_seconds_become_the_nearest_sample_halves_up(rate, text, samples):
    assert Clip("a", "a", "a", Decimal(text), Decimal(9)).in_samples(10 * rate, rate)[0] == samples


def test_parts_that_are_not_in_the_file_are_left_out_with_the_reason(speech, prepare, caplog):
    for name in "abc":
        path = speech(f"{name}.wav", 3.0)
    bad = ["c.wav,60000,70000,", "c.wav,24000,70000,", "c.wav,0,30000,1"]
    rows = ["a.wav,0,48000,", "b.wav,,,", "c.wav,0,24000,", *bad]
    (speech.folder / "all.csv").write_text("\n".join(["wav,start,stop,channel", *rows, ""]))
    (speech.folder / "c.txt").touch()
    train, valid = prepare(speech.folder / "all.csv")
    assert len(train + valid) == 3
    assert all(float(row["duration"]) > 0 for row in train + valid)
    assert "3 of 6 clips in" in caplog.text and "listed in left_out.csv" in caplog.text
    lines = (speech.folder.parent / "manifests" / "left_out.csv").read_text().splitlines()
    assert len(lines) == 4 and all(str(path) in line for line in lines[1:])
    for reason in ("starts at sample 60000", "ends at sample 70000", "the clip is channel 1"):
        assert reason in caplog.text and any(reason in line for line in lines)


def test_an_end_in_seconds_may_be_rounded_beyond_the_end(speech, prepare):
    for name in "ab":
        speech(f"{name}.wav", 2.96)
    (speech.folder / "all.csv").write_text(
        "wav,start_time,end_time\na.wav,0.5,3.0\na.wav,0.5,3.1\nb.wav,0.25,2.9\n"
    )
    train, valid = prepare(speech.folder / "all.csv")
    assert sorted((row["start"], row["stop"]) for row in train + valid) == [
        ("4000", "46400"),
        ("8000", "47360"),
    ]


@pytest.mark.parametrize(
    ("columns", "parts", "unit"),
    [
        ("start,stop", [(0, 1), (1, 3)], "seconds"),
        ("start,stop", [(0, 1000), (1000, 3000)], "milliseconds"),
        ("start_time,end_time", [(0, 1000), (1500, 3000), (1000, 2500)], "milliseconds"),
    ],
)
def test_another_unit_is_one_error_that_names_it(speech, prepare, columns, parts, unit):
    for name in "ab":
        speech(f"{name}.wav", 4.4)
    rows = [f"{name}.wav,{start},{stop}" for name in "ab" for start, stop in parts]
    (speech.folder / "all.csv").write_text("\n".join([f"wav,{columns}", *rows, ""]))
    message = f"look like {unit}: samples go in the columns start and stop, seconds in start_time"
    with pytest.raises(ValueError, match=message):
        prepare(speech.folder / "all.csv")


def test_more_than_half_behind_the_end_is_an_error_with_the_first(speech, prepare):
    speech("a.wav", 3.0)
    rows = ["a.wav,0,48000", "a.wav,50000,90000", "a.wav,90000,99000"]
    (speech.folder / "all.csv").write_text("\n".join(["wav,start,stop", *rows, ""]))
    with pytest.raises(ValueError, match="2 of 3 clips in .* cannot be used: .*at sample 50000"):
        prepare(speech.folder / "all.csv")


@pytest.mark.parametrize("speakers", [False, True])
def test_every_channel_is_a_clip_with_a_speaker_and_both_are_in_one_part(speech, prepare, speakers):
    names = [f"{'abcdefgh'[k]}/call.flac" for k in range(8)]
    for name in names[:6]:
        speech(name, 3.0, channels=2)
    speech(names[6], 3.0, channels=1)
    speech(names[7], 3.0, channels=3)
    settings = {} if speakers else {"speaker_level": 0}
    train, valid = prepare(mix_down="each", valid_share=0.3, max_seconds=2.0, **settings)
    rows = train + valid
    assert len(rows) == 2 * (6 * 2 + 1 + 3) == len({row["ID"] for row in rows})
    assert train and valid and not {row["wav"] for row in train} & {row["wav"] for row in valid}
    for name in names:
        own = [row for row in rows if row["wav"].endswith(name)]
        channels = {"g/call.flac": [""], "h/call.flac": ["0", "1", "2"]}.get(name, ["0", "1"])
        assert sorted({row["channel"] for row in own}) == channels
        base = name[0] if speakers else f"{name[0]}-call"
        mono = base if speakers else ""
        expected = {mono} if channels == [""] else {f"{base}-ch{channel}" for channel in channels}
        assert {row["spk_id"] for row in own} == expected
    assert {row["channel"] for row in sum(prepare(mix_down="mean"), [])} == {""}


def test_channels_of_a_manifest_stay_as_they_are(speech, prepare):
    for name in "ab":
        speech(f"{name}.wav", 2.0, channels=2)
    (speech.folder / "all.csv").write_text(
        "wav,channel,spk_id\na.wav,1,anna\na.wav,0,bob\nb.wav,,carl\n"
    )
    for mix_down, number in (("mean", 3), ("each", 4)):
        rows = sum(prepare(speech.folder / "all.csv", mix_down=mix_down), [])
        found = {row["spk_id"]: row["channel"] for row in rows}
        assert len(rows) == number and (found["anna"], found["bob"]) == ("1", "0")


def test_files_that_the_reader_would_refuse_are_left_out(speech, prepare, caplog):
    for name, rate in (("a", 16000), ("b", 16000), ("c", 16000), ("d", 8000)):
        speech(f"{name}.wav", 2.0, rate)
    train, valid = prepare(resample=False, sample_rate=16000)
    assert {os.path.basename(row["wav"])[0] for row in train + valid} == {*"abc"}
    assert "8000 samples per second, not 16000" in prepare.left_out()[str(speech.folder / "d.wav")]
    clips = [Clip("a", "a", "a"), Clip("b", "b", "b")]
    headers = {"b": Header(16000, 16000, 2)}  # a cannot be read
    samples, bad = find_samples(clips, headers, mix_down=False, sample_rate=None, resample=True)
    assert not samples and "has 2 channels, not one; set mix_down:" in bad[0][1]
