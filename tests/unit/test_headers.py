"""A file is used whole, even if its header is wrong, or is refused with one reason."""

import io
import os
import re
import struct
import tracemalloc

import av
import numpy as np
import pytest
import soundfile
import torch

from brainquant.data.audio import AudioReader, BadAudio
from brainquant.data.audio.headers import check_clip, decoder_endings, read_header

RATE = 16000


def chirp(seconds, rate=RATE):
    time = np.arange(round(seconds * rate)) / rate
    return 0.4 * np.sin(2 * np.pi * (200 + 150 * time) * time)


def encoded(samples, format, rate=RATE, **kwargs):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=format, **kwargs)
    return file.getvalue()


def media(path, samples, codec, format, rate=RATE):
    """Writes a file with ffmpeg's libraries."""
    with av.open(str(path), "w", format=format) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(
            (32767 * np.asarray(samples)).astype(np.int16)[None], format="s16", layout="mono"
        )
        frame.sample_rate = rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            if packet.size:  # for FLAC, the last one has only a new header
                container.mux(packet)
    return str(path)


def mp3(samples, rate=RATE, vbr=True):
    """An MP3 file, and the same without its Xing header."""
    content = encoded(samples, "MP3", rate, bitrate_mode="VARIABLE" if vbr else "CONSTANT")
    place = max(content.find(b"Xing"), content.find(b"Info"))
    begin = max(content.rfind(bytes([255, byte]), 0, place) for byte in (0xFB, 0xF3, 0xFA, 0xF2))
    end = content.index(content[begin : begin + 2], place)
    return content, content[:begin] + content[end:]


def wav(samples, told=None, behind=b""):
    """A WAV file whose header gives another number of samples than it has."""
    pcm = (32767 * samples).astype("<i2").tobytes()
    size = len(pcm) if told is None else told
    return struct.pack(
        "<4sI8sIHHIIHH4sI", b"RIFF", (36 + size) & 0xFFFFFFFF, b"WAVEfmt ", 16, 1, 1, RATE,
        2 * RATE, 2, 16, b"data", size,
    ) + pcm + behind  # fmt: skip


def flac(samples, told=None):
    content = bytearray(encoded(samples, "FLAC"))
    if told is not None:
        content[21] = content[21] & 0xF0 | told >> 32
        content[22:26] = (told & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(content)


def nist(samples):
    """A NIST SPHERE file like TIMIT's: its header is 1024 bytes of text."""
    head = f"""NIST_1A\n   1024
sample_count -i {len(samples)}
sample_n_bytes -i 2
channel_count -i 1
sample_byte_format -s2 01
sample_rate -i {RATE}
sample_coding -s3 pcm
end_head
"""
    return head.encode().ljust(1024) + (32767 * samples).astype("<i2").tobytes()


def quiet_then_loud():
    """Like speech: its first frames need few bits, so a length guessed from them is wrong."""
    return np.concatenate([chirp(4) * 1e-4, np.random.default_rng(0).uniform(-0.5, 0.5, 6 * RATE)])


WHOLE = {
    "MP3 of many bit rates without a Xing header": ("a.mp3", lambda: mp3(quiet_then_loud())[1], 10),
    "two MP3 files in one": ("a.mp3", lambda: mp3(chirp(4))[0] + mp3(chirp(6))[0], 10),
    "MP3 with tags before, between and behind": (
        "a.mp3",
        lambda: b"ID3\4\0\0\0\0\2\0" + bytes(256) + mp3(chirp(4))[0] + b"ID3\4\0\0\0\0\1\0"
        + b"\xff\xfb" * 64 + mp3(chirp(6))[0] + b"TAG" + b"\xff" * 125,
        10,
    ),
    "MP3 of one bit rate": ("a.mp3", lambda: mp3(chirp(10), vbr=False)[1], 10),
    "FLAC without a length": ("a.flac", lambda: flac(chirp(10), told=0), 10),
    "WAV of a stream": ("a.wav", lambda: wav(chirp(10), told=0xFFFFFFFF), 10),
    "WAV that was not closed": ("a.wav", lambda: wav(chirp(10), told=0), 10),
    "WAV with notes behind": (
        "a.wav", lambda: wav(chirp(10), behind=b"LIST\x10\0\0\0" + b"INFO" * 4), 10
    ),
    "WAV with room behind": ("a.wav", lambda: wav(chirp(10), behind=bytes(40000)), 10),
    "a cut WAV": ("a.wav", lambda: wav(chirp(20))[: 44 + 2 * 10 * RATE], 10),
    "AIFF": ("a.aiff", lambda: encoded(chirp(10), "AIFF"), 10),
    "CAF": ("a.caf", lambda: encoded(chirp(10), "CAF"), 10),
    "AU of a stream": (
        "a.au",
        lambda: encoded(chirp(10), "AU")[:8] + b"\xff" * 4 + encoded(chirp(10), "AU")[12:],
        10,
    ),
    "NIST SPHERE": ("a.sph", lambda: nist(chirp(10)), 10),
    "NIST SPHERE named .wav": ("a.wav", lambda: nist(chirp(10)), 10),
    "RF64": ("a.wav", lambda: encoded(chirp(10), "RF64"), 10),
    "Ogg Vorbis": ("a.ogg", lambda: encoded(chirp(10), "OGG"), 10),
    "GSM, which cannot be sought in": (
        "a.wav", lambda: encoded(chirp(25, 8000), "WAV", 8000, subtype="GSM610"), 25
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_all_of_a_file_is_read_whatever_it_announces(name, tmp_path):
    file, content, seconds = WHOLE[name]
    path = tmp_path / file
    path.write_bytes(b"junk" + content() + b"more")
    place = {"offset": 4, "size": path.stat().st_size - 8}
    inside = read_header(str(path), **place)
    path.write_bytes(content())
    header = read_header(str(path))
    assert header.num_samples / header.sample_rate == pytest.approx(seconds, abs=0.2)
    assert header[:3] == inside[:3]
    reader = AudioReader(header.sample_rate)
    whole = reader(str(path), header.num_samples / header.sample_rate)
    assert len(whole) == header.num_samples
    # As a segment, the last second equals that of the whole file, and has sound.
    stop = header.num_samples
    part = reader(str(path), 1.0, start=stop - header.sample_rate, stop=stop)
    assert torch.allclose(part, whole[-header.sample_rate :], atol=1e-4)
    assert part.abs().max() > 0.1


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.wav", lambda: wav(chirp(3), told=2 * RATE)),
        ("a.wav", lambda: wav(chirp(1)) + wav(chirp(2))),
        ("a.wav", lambda: wav(chirp(1), behind=b"data" + struct.pack("<I", 64000) + b"ab" * 32000)),
        ("a.aiff", lambda: encoded(chirp(1), "AIFF") + encoded(chirp(2), "AIFF")),
        ("a.caf", lambda: encoded(chirp(1), "CAF") + encoded(chirp(2), "CAF")),
        ("a.au", lambda: encoded(chirp(1), "AU") + encoded(chirp(2), "AU")),
        ("a.flac", lambda: flac(chirp(3), told=RATE)),
        ("a.flac", lambda: flac(chirp(1)) + flac(chirp(3))),
        ("a.flac", lambda: 2 * flac(chirp(5))),
        ("a.ogg", lambda: encoded(chirp(1), "OGG") + encoded(chirp(3), "OGG")),
        ("a.opus", lambda: 2 * encoded(chirp(1), "OGG", subtype="OPUS")),
    ],
)
def test_a_file_with_more_behind_its_announced_end_is_refused(name, content, tmp_path, monkeypatch):
    monkeypatch.setattr("brainquant.data.audio.headers.import_av", lambda: None)
    path = tmp_path / name
    path.write_bytes(content())
    with pytest.raises(BadAudio, match="has more after its announced end; convert it to FLAC"):
        read_header(str(path))
    with pytest.raises(BadAudio, match=f"{name}: has more after"):
        AudioReader(RATE)(str(path), 1.0)


@pytest.mark.parametrize(
    "keep, reason", [(0.5, "ends at sample .* it is cut"), (0, "only a header")]
)
def test_a_flac_file_that_ends_before_its_announced_end_is_refused(keep, reason, tmp_path):
    content = flac(chirp(5))
    begin = content.index(b"\xff\xf8")
    (tmp_path / "a.flac").write_bytes(content[: round(begin + keep * (len(content) - begin))])
    with pytest.raises(BadAudio, match=reason):
        read_header(str(tmp_path / "a.flac"))


@pytest.mark.parametrize(
    "name, codec, format, rate",
    [
        ("a.m4a", "aac", None, RATE),
        ("m4a named.mp3", "aac", "mp4", RATE),
        ("a.aac", "aac", "adts", RATE),
        ("a.webm", "libopus", None, 48000),
        ("a.amr", "libopencore_amrnb", None, 8000),
        ("a.oga", "flac", "ogg", RATE),
        ("alac.caf", "alac", "caf", RATE),
    ],
)
def test_what_ffmpeg_reads_is_used_with_the_extra_and_named_without(
    name, codec, format, rate, tmp_path, monkeypatch
):
    samples = chirp(5, rate)
    path = media(tmp_path / name, samples, codec, format, rate)
    assert name.endswith((*decoder_endings(), ".mp3", ".caf", ".oga"))
    header = read_header(path)
    assert header[1:3] == (rate, 1) and abs(header.num_samples - 5 * rate) < 0.2 * rate
    seconds = header.num_samples / rate
    whole = AudioReader(rate)(path, seconds).numpy()
    shift = max(range(2500), key=lambda n: np.dot(whole[n : n + rate], samples[:rate]))
    near = np.corrcoef(whole[shift : shift + rate], samples[:rate])[0, 1]
    assert near > 0.9
    part = AudioReader(rate)(path, 1.0, start=3 * rate + 7, stop=4 * rate + 7)
    assert np.abs(part.numpy() - whole[3 * rate + 7 : 4 * rate + 7]).max() < 1e-4
    read_header.__globals__["_read"].cache_clear()
    monkeypatch.setattr("brainquant.data.audio.headers.import_av", lambda: None)
    with pytest.raises(BadAudio, match=r"convert it to FLAC, or .*brainquant\[codecs\]"):
        read_header(path)


def test_chained_ogg_is_read_to_its_end_with_the_extra(tmp_path):
    path = tmp_path / "a.ogg"
    path.write_bytes(encoded(chirp(4), "OGG") + encoded(chirp(6), "OGG"))
    header = read_header(str(path))
    assert header.num_samples / RATE == pytest.approx(10, abs=0.1)
    assert AudioReader(RATE)(str(path), 2.0, start=8 * RATE, stop=10 * RATE).abs().max() > 0.1


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"<!DOCTYPE html><html>gone</html>", "it is an HTML page named .wav"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"PK\3\4" + bytes(100), "it is a zip archive named .wav"),
        (b"hello", "it is text named .wav"),
        (b"", "it has no bytes"),
        (bytes(1000), "Format not recognised"),
    ],
)
def test_what_is_no_audio_is_named(content, reason, tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(BadAudio, match=f"^cannot be read .*{reason}"):
        read_header(str(path))


def test_what_cannot_be_opened_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "link.wav").symlink_to("gone.wav")
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / "a.wav").write_bytes(wav(chirp(1)))
    for name, reason in {
        "pipe.wav": "it is a pipe", "link.wav": "is a link to gone.wav, which does not exist",
        "locked": "it is a folder", "gone.wav": "there is no such file",
        "a\0b": "embedded null byte", "x" * 300: "File name too long",
    }.items():  # fmt: skip
        with pytest.raises(BadAudio, match=reason):
            read_header(str(tmp_path / name))
    (tmp_path / "locked" / "a.wav").chmod(0)
    user = os.geteuid()
    if user == 0:  # root may read everything
        tmp_path.chmod(0o755)
        for folder in list(tmp_path.parents)[:2]:
            folder.chmod(0o755)
        os.seteuid(65534)
    try:
        with pytest.raises(BadAudio, match="^cannot be read .Permission denied"):
            read_header(str(tmp_path / "locked" / "a.wav"))
    finally:
        os.seteuid(user)


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"start": 40000, "stop": 48000}, "has 32000 samples .2.000 s., and the clip starts at"),
        ({"start": 16000, "stop": 80000}, "has 32000 samples .2.000 s., and the clip ends at"),
        ({"start": 1, "stop": 3}, "give seconds in the columns start_time and end_time"),
        ({"channel": 2}, "has 2 channels, and the clip is channel 2"),
        ({"mix_down": False}, "has 2 channels, not one; set mix_down:"),
        ({"mix_down": "each"}, "name it in the column channel"),
        ({"resample": False, "sample_rate": 8000}, "not 8000; set resample: True"),
        ({"sample_rate": 8000}, None),
    ],
)
def test_preparation_and_reader_give_one_answer(change, reason, tmp_path):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, np.stack([chirp(2), chirp(2)], 1), RATE)
    clip = {key: change[key] for key in ("start", "stop", "channel") if key in change}
    kwargs = {"sample_rate": RATE, "resample": True, "mix_down": "mean", **change}
    reader = AudioReader(*(kwargs[key] for key in ["sample_rate"]), resample=kwargs["resample"],
                         mix_down=kwargs["mix_down"])  # fmt: skip
    if reason is None:
        first, last = check_clip(read_header(path), **kwargs)
        assert len(reader(path, (last - first) / RATE)) == 16000
        return
    with pytest.raises(BadAudio, match=f"^{reason}|{reason}"):
        check_clip(read_header(path), **kwargs)
    with pytest.raises(BadAudio, match=reason):
        reader(path, 2.0, **clip)


@pytest.mark.parametrize("rate", [11127, 22047, 95999])
def test_a_rate_without_a_common_divisor_is_resampled(rate, tmp_path):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate), rate)
    sig = AudioReader(RATE, resample=True)(path, 2.0)
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE)
    assert sig.dtype == torch.float32 and abs(len(sig) - 2 * RATE) <= 1
    assert np.abs(sig.numpy()[500:31000] - expected[500:31000]).max() < 0.01


@pytest.mark.parametrize(
    "mix_down, channel, expected",
    [("mean", None, 0.5), (True, None, 0.5), ("first", None, 1), ("each", 1, 0), (False, 1, 0)],
)
def test_channels_are_mixed_or_chosen(mix_down, channel, expected, tmp_path):
    path, samples = str(tmp_path / "a.wav"), chirp(1)
    soundfile.write(path, np.stack([samples, 0 * samples], 1), RATE)
    sig = AudioReader(RATE, mix_down=mix_down)(path, 1.0, channel=channel)
    assert np.abs(sig.numpy() - expected * samples).max() < 1e-4


def test_channels_that_cancel_out_are_bad_audio_with_the_remedy(tmp_path):
    path, samples = str(tmp_path / "a.wav"), chirp(1)
    soundfile.write(path, np.stack([samples, -0.95 * samples], 1), RATE)
    with pytest.raises(BadAudio, match="a.wav: .* cancel out: .* 32 dB less .* mix_down: first"):
        AudioReader(RATE, mix_down="mean")(path, 1.0)
    assert AudioReader(RATE, mix_down="first")(path, 1.0).abs().max() > 0.3
    soundfile.write(path, np.stack([samples, -0.7 * samples], 1), RATE)  # 15 dB less
    assert AudioReader(RATE, mix_down="mean")(path, 1.0).abs().max() > 0.05


def test_mix_down_is_one_of_four():
    with pytest.raises(ValueError, match="mix_down must be False, mean, .* got mix_down='left'"):
        AudioReader(RATE, mix_down="left")


def bomb_of_channels(path):
    """Four seconds of 8 channels at 655,350 Hz: 84 MB. A mono clip needs 10 MB."""
    block = np.zeros((655350 // 2, 8), np.int16)
    with soundfile.SoundFile(path, "w", 655350, 8, "PCM_16", format="FLAC") as file:
        for _ in range(8):
            file.write(block)
    return 4.0


def bomb_of_an_hour(path):
    """An hour of silence: 230 MB in a file of 200 kB. The manifest says one second."""
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16", format="FLAC") as file:
        for _ in range(36):
            file.write(np.zeros(100 * RATE, np.int16))
    return 1.0


def bomb_in_a_tar(path):
    """A clip of 8 GB in a tar, a hole in the file. The manifest says one second."""
    with open(path, "wb") as file:
        file.write(wav(chirp(1), told=0xFFFFFFF0))
        file.truncate(2**33)
    return 1.0


@pytest.mark.parametrize(
    "bomb, reason, mix_down, place",
    [
        (bomb_of_channels, None, "mean", {}),
        (bomb_of_channels, None, "first", {}),
        (bomb_of_channels, None, False, {"channel": 7}),
        (bomb_of_an_hour, "lasts 3600 s where the manifest says 1 s", False, {}),
        (bomb_in_a_tar, "lasts .* s where the manifest", False, {"offset": 0, "size": 2**33 - 1}),
    ],
)
def test_a_file_that_unpacks_to_gigabytes_takes_what_its_clip_takes(
    bomb, reason, mix_down, place, tmp_path
):
    path = str(tmp_path / "bomb")
    seconds = bomb(path)
    reader = AudioReader(RATE, resample=True, mix_down=mix_down)
    tracemalloc.start()
    try:
        sig = reader(path, seconds, **place)
        assert reason is None and sig.shape == (seconds * RATE,)
    except BadAudio as error:
        assert reason and re.search(reason, str(error))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6
