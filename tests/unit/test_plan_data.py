"""A plan names each fault that is planted in a corpus, and none in a healthy one."""

import csv
import json
import math
import shutil

import hypothesis
import numpy as np
import pytest
import soundfile
from hypothesis import strategies as st
from scipy.signal import resample_poly

from brainquant.data.batches import make_loaders
from brainquant.data.own_speech import prepare_own_speech
from brainquant.data.shards import write_shards
from brainquant.planning.corpus.copies import find_copies
from brainquant.planning.corpus.sample import Reading, Sample, order_of
from brainquant.planning.corpus.shared import shared_clips
from brainquant.planning.corpus.sound import Sound, clipped_share, measure
from brainquant.planning.data import manifest_facts, survey_data

RATE = 16000
HPARAMS = {
    "valid_csv": None, "min_seconds": 1.0, "max_seconds": 20.0, "batch_seconds": 40,
    "num_buckets": 20, "batch_clips": None, "num_workers": 0, "seed": 1, "sample_rate": RATE,
    "resample": True, "mix_down": False, "max_bad_audio": 0.01,
}  # fmt: skip


@pytest.fixture(scope="module")
def long_speech():
    """Seventeen minutes that look like speech: louder at low frequencies, syllables, pauses."""
    rng = np.random.default_rng(0)
    second = np.fft.rfft(rng.standard_normal((1024, RATE), np.float32))
    second /= np.sqrt(50 + np.arange(second.shape[1]))
    wav = np.fft.irfft(second).reshape(-1).astype(np.float32)
    syllables = np.repeat(rng.random(len(wav) // 1600, np.float32) ** 2, 1600)
    return 0.06 / wav.std() * wav * syllables


class Corpus:
    """A folder of audio, and its manifests."""

    def __init__(self, folder):
        self.folder = folder
        self.rows = {"train": [], "valid": []}

    def add(self, name, wav, *, split="train", speaker=None, duration=None, rate=RATE):
        path = self.folder / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wav, rate, subtype="PCM_16")
        speaker = f"{split} {len(self.rows[split]) % 4}" if speaker is None else speaker
        self.rows[split].append((name, duration or len(wav) / rate, path, speaker))

    def hparams(self, **changes):
        files = {}
        for split, rows in self.rows.items():
            if rows:
                files[f"{split}_csv"] = path = str(self.folder / f"{split}.csv")
                with open(path, "w", newline="") as file:
                    csv.writer(file).writerows([("ID", "duration", "wav", "spk_id"), *rows])
        return {**HPARAMS, "data_folder": str(self.folder), **files, **changes}

    def survey(self, seconds=60, **changes):
        return survey(self.hparams(**changes), seconds)

    def names(self, **changes):
        """The names of the findings."""
        return {finding.name for finding in self.survey(**changes).findings}


def survey(hparams, seconds=60.0):
    """A survey, or only the manifests if there are no seconds."""
    loaders = make_loaders(hparams, min_samples=1920)
    section = (
        manifest_facts(hparams, *loaders)
        if seconds is None
        else survey_data(hparams, *loaders, seconds=seconds)
    )
    json.dumps(section.facts, allow_nan=False)
    assert all(len(line) <= 76 for line in section.lines)
    return section


def text_of(section):
    return "\n".join(section.lines)


@pytest.fixture
def cut(long_speech):
    """Pieces of the long speech, each of other audio."""
    position = 0

    def make(seconds):
        nonlocal position
        first, position = position, position + round(seconds * RATE)
        return long_speech[first:position]

    return make


@pytest.fixture
def small(tmp_path, cut):
    """Twelve clips of four speakers: too little, and no other fault."""
    corpus = Corpus(tmp_path)
    for number in range(12):
        corpus.add(f"clip{number}", cut(2 + 0.25 * number))
    return corpus


def test_a_healthy_corpus_has_no_findings(tmp_path, cut):
    corpus = Corpus(tmp_path)
    for number in range(95):
        corpus.add(f"a{number}", cut(5 + 0.1 * number))
    for number in range(8):
        corpus.add(f"b{number}", cut(6 + 0.1 * number), split="valid")
    section = corpus.survey()
    assert section.findings == []
    train, valid = section.facts["train"], section.facts["valid"]
    assert train["seconds"] == pytest.approx(sum(5 + 0.1 * n for n in range(95)), abs=0.01)
    assert train["lengths"]["median"] == pytest.approx(9.7, abs=1e-3)
    assert train["speakers"]["number"] == 4 and valid["speakers_in_training"] == 0
    assert "95 clips, 15.4 min" in text_of(section) and "up to 8 kHz" in text_of(section)
    assert "all 95 training clips" in text_of(section)


def test_without_time_one_clip_is_read_and_counted(small):
    section = small.survey(seconds=0)
    assert section.facts["train"]["audio"]["clips"] == 1
    assert "1 of 12 training clips" in text_of(section)


def test_a_long_recording_among_short_clips_is_named(small):
    small.add("talk", np.zeros(2400 * 1000), rate=1000, speaker="train 0")
    (finding, *_) = survey(small.hparams(), None).findings
    assert finding.name == "left_out"
    assert "1 above max_seconds: 20" in finding.text and "'talk' lasts 40 min" in finding.text
    assert "recipes/OwnSpeech" in finding.remedy
    found = {it.name: it for it in survey(small.hparams(max_seconds=math.inf), None).findings}
    assert "'talk' lasts 40 min" in found["long_clip"].text
    assert "max_seconds:" in found["long_clip"].remedy


def test_a_long_recording_in_a_large_corpus_is_named(small):
    wav = small.rows["train"][0][2]
    rows = [f"{number},15,{wav},{number},{240_000 + number}" for number in range(2000)]
    path = small.folder / "parts.csv"
    path.write_text("\n".join(["ID,duration,wav,start,stop", *rows, f"talk,2400,{wav},0,9"]))
    (finding,) = survey({**small.hparams(), "train_csv": str(path)}, None).findings
    assert finding.name == "long_left_out" and "'talk' lasts 40 min" in finding.text
    assert "1 of 2,001 clips" in finding.text


def test_a_recording_that_own_speech_cuts_is_named(small, tmp_path):
    small.add("talk", np.zeros(2400 * 2000), rate=2000)
    small.add("bit", np.zeros(600), rate=2000)
    (small.folder / "text.wav").write_text("no audio")
    prepare_own_speech(small.folder, tmp_path / "manifests", seed=2, valid_share=0.01)
    manifests = {f"{it}_csv": f"{tmp_path}/manifests/{it}.csv" for it in ("train", "valid")}
    section = survey({**HPARAMS, "data_folder": None, **manifests}, None)
    found = {finding.name: finding for finding in section.findings}
    assert {*found} == {"one_file", "unusable_files"}
    assert "talk.wav" in found["one_file"].text and "40 min" in found["one_file"].text
    assert "text.wav" in found["unusable_files"].text
    lines = text_of(section)
    assert "1 or parts of them below min_seconds (0.3 s)" in " ".join(lines.split())
    assert "1 in left_out.csv" in lines and "speakers    unknown" in lines


def test_telephone_speech_is_named(tmp_path, cut):
    corpus = Corpus(tmp_path)
    for number in range(8):
        wav = resample_poly(cut(3 + number / 4), 1, 2)
        if number % 2:  # the files of half of them say so
            corpus.add(f"clip{number}", wav, rate=8000)
        else:
            corpus.add(f"clip{number}", resample_poly(wav, 2, 1))
    section = corpus.survey()
    (finding,) = [it for it in section.findings if it.name != "few_hours"]
    assert finding.name == "narrow_band" and "100 % of the clips" in finding.text
    assert "sample_rate: 8000" in finding.remedy
    assert "16 kHz (50 %), 8 kHz (50 %); resampled to 16 kHz" in text_of(section)


def test_telephone_speech_among_other_speech_is_named(small, cut):
    for number in range(4):
        wav = resample_poly(resample_poly(cut(3 + number), 1, 2), 2, 1)
        small.add(f"phone{number}", wav)
    (finding,) = [it for it in small.survey().findings if it.name != "few_hours"]
    assert finding.name == "narrow_band" and "25 % of the clips" in finding.text
    assert "take one kind out" in finding.remedy


def test_short_clips_are_named(tmp_path, cut):
    corpus = Corpus(tmp_path)
    for number in range(30):
        corpus.add(f"clip{number}", cut(1.5 if number < 6 else 0.2))
    section = survey(corpus.hparams(), None)
    (finding, few) = section.findings
    assert finding.name == "left_out" and "24 of 30 clips" in finding.text
    assert "min_seconds: 1" in finding.text and "set min_seconds: lower" in finding.remedy
    assert few.name == "few_hours" and "9 s" in few.text
    names = [it.name for it in survey(corpus.hparams(min_seconds=0.1), None).findings]
    assert names == ["few_hours", "short_clips"]


def test_a_span_that_is_longer_than_clips_is_named(tmp_path, cut):
    corpus = Corpus(tmp_path)
    for number in range(30):
        corpus.add(f"clip{number}", cut(0.2 if number < 6 else 0.1))
    (finding, *_) = survey(corpus.hparams(min_seconds=0.05), None).findings
    assert finding.name == "left_out" and "set mask_length: lower" in finding.remedy


@pytest.mark.parametrize(
    ("speakers", "valid", "expected"),
    [
        (["a"] * 6, "a", {"one_speaker"}),
        (["a"] * 5 + ["b"], "c", {"largest_speaker"}),
        (["a"] * 3 + ["b"] * 3, "b", {"shared_speakers"}),
        (["a"] * 3 + ["b"] * 3, "c", set()),
        ([""] * 6, "", set()),
    ],
)
def test_speakers_are_judged(tmp_path, cut, speakers, valid, expected):
    corpus = Corpus(tmp_path)
    for number, speaker in enumerate(speakers):
        corpus.add(f"clip{number}", cut(2), speaker=speaker)
    corpus.add("valid", cut(2), speaker=valid, split="valid")
    section = survey(corpus.hparams(), None)
    assert {it.name for it in section.findings} == expected | {"few_hours"}
    assert ("unknown" in text_of(section)) == (speakers[0] == "")


def test_silent_clips_are_named(small):
    for number in range(3):
        small.add(f"nothing{number}", np.full(RATE * 2, 0.25 * number))
    section = small.survey()
    (finding,) = [it for it in section.findings if it.name != "few_hours"]
    assert finding.name == "silent_clips" and "3 of 15 clips" in finding.text
    assert section.facts["copies"]["found"] == 0


def test_long_pauses_are_named(small):
    for name, _, path, _ in list(small.rows["train"]):
        wav, _ = soundfile.read(path)
        small.add(f"pauses/{name}", np.concatenate([wav, np.zeros(5 * RATE), 0.9 * wav]))
    (finding,) = [it for it in small.survey().findings if it.name != "few_hours"]
    assert finding.name == "silence" and "digital" in finding.text


def test_faults_of_recordings_are_named(small, cut):
    small.add("clipped", np.clip(20 * cut(3), -1, 1))
    small.add("clipped_lower", 0.5 * np.clip(20 * cut(3), -1, 1))
    small.add("quiet", 0.002 * cut(3))
    small.add("offset", cut(3) / 2 + 0.3)
    section = small.survey()
    found = {it.name: it for it in section.findings}
    assert {*found} == {"clipping", "very_quiet", "offset", "few_hours"}
    assert "12 % of the clips" in found["clipping"].text
    assert section.facts["train"]["audio"]["very_quiet"] == 1


def test_clips_that_cannot_be_read_are_named(small):
    (small.folder / "clip3.wav").write_text("no audio")
    section = small.survey()
    assert {it.name for it in section.findings} == {"few_hours"}, "a run leaves out one clip"
    assert "unreadable  1 clip, such as clip3" in text_of(section)
    small.add("longer", np.ones(RATE), duration=3.0)
    (finding, _) = small.survey().findings
    assert finding.name == "unreadable" and "2 of 13 clips" in finding.text
    assert "max_bad_audio: 0.01" in finding.text


def test_a_corpus_that_is_there_twice_is_named_by_its_folders(small, tmp_path):
    for name, _, path, _ in list(small.rows["train"]):
        wav, _ = soundfile.read(path)
        small.add(f"copy/{name}", wav)
    found = {it.name: it for it in small.survey().findings}
    assert {*found} == {"corpus_twice", "few_hours"}
    assert f"{tmp_path} and {tmp_path}/copy" in found["corpus_twice"].text
    assert "100 %" in found["corpus_twice"].text


def test_some_copies_are_named(small):
    wav, _ = soundfile.read(small.folder / "clip5.wav")
    small.add("same", wav)
    section = small.survey()
    assert {it.name for it in section.findings} == {"copies", "few_hours"}
    assert sorted(section.facts["copies"]["pairs"][0]) == ["clip5", "same"]


def test_validation_clips_that_are_in_training_are_named(small, cut):
    small.add("new", cut(2), split="valid")
    small.rows["valid"].append(("again", *small.rows["train"][2][1:3], "valid 1"))
    (finding, few) = survey(small.hparams(), None).findings
    assert finding.name == "shared_clips" and "'again'" in finding.text and "50 %" in finding.text
    wav, _ = soundfile.read(small.folder / "clip5.wav")
    small.rows["valid"][1:] = []
    small.add("as_clip5", wav, split="valid")
    (finding, few) = small.survey().findings
    assert finding.name == "shared_clips" and "50 %" in finding.text and few.name == "few_hours"


def test_much_padding_is_named_with_a_cure(tmp_path, cut):
    corpus = Corpus(tmp_path)
    for number in range(60):
        corpus.add(f"clip{number}", cut(1 + 15 * (number % 6 == 0)))
    hparams = corpus.hparams(num_buckets=2)
    found = {it.name: it for it in survey(hparams, None).findings}
    buckets = int(found["padding"].remedy.split("num_buckets: ")[1].split(",")[0])
    cured = survey({**hparams, "num_buckets": buckets}, None)
    assert {it.name for it in cured.findings} == {"few_hours"}
    found = {it.name: it for it in survey({**hparams, "batch_clips": 4}, None).findings}
    assert "batch_clips: null" in found["padding"].remedy


def test_shards_and_parts_of_files_are_read_as_files_are(small, tmp_path):
    hparams = small.hparams()
    write_shards(hparams["train_csv"], tmp_path, tmp_path / "shards")
    shards = survey({**hparams, "train_csv": str(tmp_path / "shards/train.csv"),
                     "data_folder": str(tmp_path / "shards")})  # fmt: skip
    wavs = [soundfile.read(path)[0] for _, _, path, _ in small.rows["train"]]
    soundfile.write(tmp_path / "all.wav", np.concatenate(wavs), RATE)
    stops = np.cumsum([*map(len, wavs)])
    with open(tmp_path / "parts.csv", "w") as file:
        file.write("ID,duration,wav,start,stop\n")
        for number, (wav, stop) in enumerate(zip(wavs, stops)):
            file.write(f"{number},{len(wav) / RATE},$data_root/all.wav,{stop - len(wav)},{stop}\n")
    parts = survey({**hparams, "train_csv": str(tmp_path / "parts.csv")})
    for other in (shards, parts):
        assert [it.name for it in other.findings] == ["few_hours"]
        levels = other.facts["train"]["audio"]["levels"]
        assert levels == pytest.approx(small.survey().facts["train"]["audio"]["levels"])
    shutil.rmtree(tmp_path / "shards")


@hypothesis.given(factor=st.floats(0.01, 2), shift=st.floats(-0.3, 0.3))
def test_a_level_follows_the_scale_and_not_the_offset(factor, shift):
    wav = np.random.default_rng(1).normal(0, 0.1, 4000).astype(np.float32)
    sound, scaled = measure(wav, RATE), measure((factor * wav + shift).astype(np.float32), RATE)
    assert scaled.level == pytest.approx(sound.level + 20 * math.log10(factor), abs=0.01)
    assert scaled.offset == pytest.approx(shift + factor * sound.offset, abs=1e-4)


@hypothesis.given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_clipped_samples_are_in_runs_of_three(at_top):
    wav = np.where(at_top, 1.0, 0.1 + 0.01 * np.arange(len(at_top)) / len(at_top))
    runs = "".join("x" if top else " " for top in at_top).split(" ")
    if any(at_top):
        expected = sum(len(run) for run in runs if len(run) >= 3)
        assert clipped_share(wav) == pytest.approx(expected / len(wav))


@hypothesis.given(st.lists(st.integers(0, 5), min_size=1, max_size=200), st.integers(0, 9))
def test_clips_of_a_group_are_drawn_together_and_each_once(groups, seed):
    order = order_of(np.array(groups), np.random.default_rng(seed))
    assert sorted(order) == [*range(len(groups))]
    drawn = [groups[number] for number in order]
    runs = [value for place, value in enumerate(drawn) if place == 0 or drawn[place - 1] != value]
    for group in {*groups}:
        assert runs.count(group) <= -(-groups.count(group) // 50)


def reading(number, content, split=0, group=0):
    sound = Sound(content.to_bytes(1, "big"), False, -20.0, 0.0, 0.0, 0.0, 0.0, math.inf)
    return Reading(split, f"{split}-{number}", {"wav": f"{number}.wav"}, group, sound)


@hypothesis.given(
    st.lists(st.integers(0, 20), min_size=1, max_size=30), st.lists(st.integers(0, 20)), st.data()
)
def test_all_copies_are_found_in_any_order(train, valid, data):
    readings = [
        *(reading(number, content) for number, content in enumerate(train)),
        *(reading(number, content, split=1) for number, content in enumerate(valid)),
    ]
    sizes = np.array([len(train)]), np.array([len(valid)])
    copies = find_copies(Sample(data.draw(st.permutations(readings)), sizes, 1.0))
    assert copies.found == sum(train.count(content) > 1 for content in train)
    assert copies.share == pytest.approx(copies.found / len(train))
    assert copies.shared_found == sum(content in train for content in valid)


def test_the_share_of_copies_is_estimated_from_a_sample():
    rng = np.random.default_rng(0)
    contents = np.concatenate([np.arange(200), np.arange(120)])  # 240 of 320 clips are copies
    shares = []
    for _ in range(50):
        chosen = rng.permutation(320)[:100]
        readings = [
            Reading(0, str(n), {"wav": f"{n}.wav"}, 0,
                    Sound(contents[n].tobytes(), False, -20, 0, 0, 0, 0, None))
            for n in chosen
        ]  # fmt: skip
        shares.append(find_copies(Sample(readings, (np.array([320]),), 1.0)).share)
    assert np.mean(shares) == pytest.approx(240 / 320, abs=0.05)


PART = st.tuples(st.sampled_from("ab"), st.integers(0, 20), st.integers(1, 9))


@hypothesis.given(st.lists(PART, max_size=8), st.lists(PART, max_size=8))
def test_parts_of_files_share_clips_where_they_overlap(train, valid):
    def rows(parts):
        return {
            str(number): {"wav": wav, "start": start, "stop": start + length}
            for number, (wav, start, length) in enumerate(parts)
        }

    expected = [
        str(number)
        for number, (wav, start, length) in enumerate(valid)
        if any(
            wav == other and start < begin + size and begin < start + length
            for other, begin, size in train
        )
    ]
    assert [clip for _, clip in shared_clips(rows(train), rows(valid))] == expected
