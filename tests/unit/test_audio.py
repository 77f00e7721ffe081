"""Audio files of every kind are read correctly, or refused with their name and a reason."""

import os
import pickle
import struct
import tarfile
import tracemalloc

import numpy as np
import pytest
import soundfile
import torch

import brainquant.data.audio.reader
from brainquant.data.audio import AudioReader, BadAudio
from brainquant.data.audio.decoders import read_samples

RATE = 16000


def tone(seconds=1.0, rate=RATE, hertz=440.0):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


@pytest.fixture
def write(tmp_path):
    """Writes a file and returns its path."""

    def write(samples, rate=RATE, name="clip.wav", keep=1.0, **kwargs):
        path = tmp_path / name
        soundfile.write(path, samples, rate, **kwargs)
        content = path.read_bytes()
        path.write_bytes(content[: round(keep * len(content))])
        return str(path)

    return write


@pytest.mark.parametrize(
    "name, subtype, error",
    [
        ("clip.wav", "PCM_16", 1e-4),
        ("clip.wav", "PCM_24", 1e-6),
        ("clip.wav", "FLOAT", 1e-7),
        ("clip.wav", "PCM_U8", 0.01),
        ("clip.wav", "ULAW", 0.02),
        ("clip.flac", "PCM_16", 1e-4),
        ("a name, 音声 é.flac", "PCM_16", 1e-4),
    ],
)
def test_files_of_the_wanted_kind_are_read_as_they_are(write, name, subtype, error):
    sig = AudioReader(RATE)(write(tone(), name=name, subtype=subtype), 1.0)
    assert sig.dtype == torch.float32 and sig.shape == (RATE,)
    assert (sig - torch.from_numpy(tone())).abs().max() < error


@pytest.mark.parametrize(
    "samples",
    [np.zeros(RATE), 0.3 + tone(), tone() * 1e-4, (4 * tone()).clip(-1, 1), 9 * tone()],
    ids=["silence", "offset", "quiet", "clipped", "beyond full scale"],
)
def test_no_level_is_a_fault(write, samples):
    sig = AudioReader(RATE)(write(samples, subtype="FLOAT"), 1.0)
    assert torch.equal(sig, torch.from_numpy(samples).float())


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_another_sample_rate_is_resampled_where_that_is_asked_for(write, rate):
    path = write(tone(rate=rate), rate)
    with pytest.raises(BadAudio, match=f"clip.wav: has {rate} samples per second, not 16000"):
        AudioReader(RATE)(path, 1.0)
    sig = AudioReader(RATE, resample=True)(path, 1.0)
    inside = slice(200, -200)
    assert sig.shape == (RATE,)
    assert (sig - torch.from_numpy(tone()))[inside].abs().max() < 1e-2


def test_channels_become_their_mean_where_that_is_asked_for(write):
    path = write(np.stack([tone(), np.zeros(RATE)], 1))
    with pytest.raises(BadAudio, match="clip.wav: has 2 channels, not one"):
        AudioReader(RATE, resample=True)(path, 1.0)
    sig = AudioReader(RATE, mix_down=True)(path, 1.0)
    assert (sig - torch.from_numpy(tone() / 2)).abs().max() < 1e-4


@pytest.mark.parametrize("rate", [8000, 11127, 16000, 44100, 48000])
def test_blocks_of_a_file_are_the_whole_file(write, rate):
    """11,127 Hz needs the longer of the two filters."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (40 * rate + 77, 2))
    path = write(noise, rate, name="long.flac")
    reader = AudioReader(RATE, resample=True, mix_down="mean")
    blocks = list(reader.blocks(path))
    assert len(blocks) > 1
    expected = reader(path, len(noise) / rate)
    torch.testing.assert_close(torch.cat(blocks), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "samples, kwargs, reason",
    [
        (tone(), {"keep": 0.5, "name": "clip.flac"}, "ends at sample 8192 where its header says"),
        (np.append(tone(), np.nan), {"subtype": "FLOAT"}, "samples that are NaN or infinite"),
        (np.stack([tone(), -tone()], 1), {}, "channels that cancel out"),
    ],
)
def test_blocks_of_a_broken_file_end_with_the_reason(write, samples, kwargs, reason):
    path = write(samples, **kwargs)
    with pytest.raises(BadAudio, match=f"clip.*: .*{reason}"):
        list(AudioReader(RATE, resample=True, mix_down="mean").blocks(path))


def test_blocks_that_end_before_the_file_are_refused(write, monkeypatch):
    def half(header, start, stop):
        yield from read_samples(header, start, stop // 2)

    monkeypatch.setattr(brainquant.data.audio.reader, "read_samples", half)
    with pytest.raises(BadAudio, match="clip.wav: lasts 0.5 s where its header says 1 s"):
        list(AudioReader(RATE).blocks(write(tone())))


def test_a_reader_in_another_process_gives_the_same(write):
    path = write(np.stack([tone(rate=22050)] * 2, 1), 22050)
    reader = AudioReader(RATE, resample=True, mix_down=True)
    expected = reader(path, 1.0)
    assert torch.equal(pickle.loads(pickle.dumps(reader))(path, 1.0), expected)


@pytest.mark.parametrize(
    "samples, kwargs, reason",
    [
        (tone(), {"keep": 0.5}, "lasts 0.49.* s where the manifest says 1 s"),
        (
            tone(),
            {"keep": 0.5, "name": "clip.flac"},
            "ends at sample 8192 where its header says 16000",
        ),
        (tone(), {"keep": 0.5, "name": "clip.mp3"}, "lasts 0.* s where the manifest says 1 s"),
        (tone(), {"keep": 0.0}, "cannot be read"),
        (tone(1.2), {}, "lasts 1.2 s where the manifest says 1 s"),
        (tone(0), {}, "has no samples"),
        (np.append(tone(), np.nan), {"subtype": "FLOAT"}, "samples that are NaN or infinite"),
        (np.append(tone(), -np.inf), {"subtype": "FLOAT"}, "samples that are NaN or infinite"),
        (tone(rate=900), {"rate": 900}, "has 900 samples per second; 1000 to 768000 can be"),
    ],
)
def test_a_broken_file_is_refused_with_its_name_and_the_reason(write, samples, kwargs, reason):
    path = write(samples, **kwargs)
    with pytest.raises(BadAudio, match=f"{os.path.basename(path)}: .*{reason}"):
        AudioReader(RATE, resample=True)(path, 1.0)


@pytest.mark.parametrize("what", ["text", "folder", "nothing"])
def test_what_is_no_audio_is_refused_with_its_name(tmp_path, what):
    path = tmp_path / "clip.wav"
    if what == "text":
        path.write_text("RIFF, this is not")
    elif what == "folder":
        path.mkdir()
    with pytest.raises(BadAudio, match="clip.wav: cannot be read"):
        AudioReader(RATE)(str(path), 1.0)


@pytest.mark.parametrize(
    "seconds, expected, good",
    [(1.0, 1.09, True), (1.0, 0.91, True), (1.0, 1.11, False), (20.0, 20.19, True),
     (20.0, 20.21, False), (20.0, 19.79, False)],
)  # fmt: skip
def test_a_length_may_differ_by_a_tenth_of_a_second_or_a_hundredth(write, seconds, expected, good):
    path = write(tone(seconds, rate=8000), 8000)
    if good:
        assert len(AudioReader(8000)(path, expected)) == seconds * 8000
    else:
        with pytest.raises(BadAudio, match="where the manifest says"):
            AudioReader(8000)(path, expected)


def test_a_length_that_only_the_header_has_is_refused_before_memory_is_taken(write):
    path = write(tone(), name="clip.flac")
    with open(path, "r+b") as file:
        file.seek(21)  # the last 36 bits of these 5 bytes count the samples
        file.write(b"\xff" * 5)
    with pytest.raises(BadAudio, match="ends at sample 16000 where its header says 68719476735"):
        AudioReader(RATE)(path, 1.0)


def test_a_waveform_shorter_than_what_is_needed_is_refused_after_resampling(write):
    path = write(tone(0.09, rate=8000), 8000)
    reader = AudioReader(RATE, resample=True, min_samples=1440)
    assert len(reader(path, 0.15)) == 1440
    reader = AudioReader(RATE, resample=True, min_samples=1441)
    with pytest.raises(BadAudio, match="clip.wav: has 1440 samples, 1441 are needed"):
        reader(path, 0.15)


@pytest.mark.parametrize(
    "name, kwargs",
    [
        ("clip.wav", {}),
        ("clip.flac", {"subtype": "PCM_24"}),
        ("clip.ogg", {}),
        ("clip.mp3", {}),
    ],
)
def test_a_segment_is_those_samples_of_the_file_and_no_others(write, name, kwargs):
    path = write(tone(4.0, hertz=97.0) * np.linspace(0, 1, 4 * RATE), name=name, **kwargs)
    whole, _ = soundfile.read(path, dtype="float32")
    for start, stop in [(0, RATE), (30001, 50017), (3 * RATE, 4 * RATE)]:
        sig = AudioReader(RATE)(path, (stop - start) / RATE, start=start, stop=stop)
        assert sig.shape == (stop - start,)
        assert (sig - torch.from_numpy(whole[start:stop])).abs().max() < 1e-6


def test_a_segment_is_counted_at_the_rate_of_the_file(write):
    path = write(np.stack([tone(3.0, rate=8000)] * 2, 1), 8000)
    reader = AudioReader(RATE, resample=True, mix_down=True)
    sig = reader(path, 1.0, start=8000, stop=16000)
    inside = slice(200, -200)
    assert sig.shape == (RATE,)
    assert (sig - torch.from_numpy(tone()))[inside].abs().max() < 1e-2


def test_a_segment_of_a_file_of_hours_takes_the_memory_of_the_segment(tmp_path):
    path, seconds = tmp_path / "ten hours.wav", 36000
    size = 2 * seconds * RATE
    header = struct.pack("<4sI8sIHHIIHH4sI", b"RIFF", 36 + size, b"WAVEfmt ", 16, 1, 1, RATE,
                         2 * RATE, 2, 16, b"data", size)  # fmt: skip
    path.write_bytes(header)
    os.truncate(path, len(header) + size)  # a hole: nothing on the disk
    start = (seconds - 2) * RATE
    tracemalloc.start()
    sig = AudioReader(RATE)(str(path), 1.0, start=start, stop=start + RATE)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert torch.equal(sig, torch.zeros(RATE))
    assert RATE <= peak < 20 * 4 * RATE


@pytest.mark.parametrize(
    "duration, start, stop, reason",
    [
        (1.0, RATE, 2 * RATE, "has 24000 samples .1.500 s., and the clip ends at sample 32000"),
        (0.5, 0, RATE, "lasts 1 s where the manifest says 0.5 s"),
        (
            1.0,
            24000,
            24000 + RATE,
            "has 24000 samples .1.500 s., and the clip starts at sample 24000",
        ),
    ],
)
def test_a_segment_that_the_file_does_not_have_is_refused(write, duration, start, stop, reason):
    path = write(tone(1.5))
    with pytest.raises(BadAudio, match=f"clip.wav, samples {start} to {stop}: {reason}"):
        AudioReader(RATE)(path, duration, start=start, stop=stop)


@pytest.fixture
def packed(write, tmp_path):
    """A tar of three files of one second, and the offset and size of the second file."""
    path = tmp_path / "shard.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("a.wav", "b.flac", "c.wav"):
            tar.add(write(tone(hertz=ord(name[0])), name=name), name)
    with tarfile.open(path) as tar:
        member = tar.getmember("b.flac")
    return str(path), {"offset": member.offset_data, "size": member.size}


def test_a_clip_inside_a_tar_is_as_its_file(packed, tmp_path):
    path, place = packed
    reader = AudioReader(RATE)
    expected = reader(str(tmp_path / "b.flac"), 1.0)
    assert torch.equal(reader(path, 1.0, **place), expected)
    sig = reader(path, 0.5, start=4000, stop=12000, **place)
    assert torch.equal(sig, expected[4000:12000])


def test_a_tar_that_is_cut_or_damaged_is_refused_with_its_name_and_the_clip(packed):
    path, place = packed
    clip = f"shard.tar, bytes {place['offset']} to {place['offset'] + place['size']}"
    with open(path, "r+b") as file:
        file.seek(place["offset"])
        file.write(bytes(100))
    with pytest.raises(BadAudio, match=f"{clip}: cannot be read .Format not recognised"):
        AudioReader(RATE)(path, 1.0, **place)
    end = place["offset"] + place["size"] - 1
    os.truncate(path, end)
    with pytest.raises(BadAudio, match=f"{clip}: ends at byte {end}$"):
        AudioReader(RATE)(path, 1.0, **place)
    with pytest.raises(BadAudio, match="ends at byte"):  # before memory is allocated for it
        AudioReader(RATE)(path, 1.0, offset=0, size=10**17)
    os.remove(path)
    with pytest.raises(BadAudio, match=f"{clip}: cannot be read: there is no such file"):
        AudioReader(RATE)(path, 1.0, **place)
