"""Labels from files: joined by ID, checked before the first step, read when they are needed."""

import json
import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from brainquant.data.manifests import read_manifest
from brainquant.data.own_speech import prepare_own_speech
from brainquant.errors import RunError
from brainquant.extraction.corpus import find_source
from brainquant.quantisers import Clips
from brainquant.targets import FileCodes
from brainquant.targets.label_source import keep_labels
from brainquant.targets.labels import Labels

RATE = {"codebook_size": 100, "frame_rate": 25.0}


@pytest.fixture
def student():
    """The encoder that is trained: 25 frames per second, and one for the last, partial one."""
    return SimpleNamespace(sample_rate=16000, stride=640, count_frames=lambda n: n // 640 + 1)


@pytest.fixture
def drawn():
    """Labels of 200 clips, by ID."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 40, 200)
    return {f"clip é/{n}": generator.integers(0, 100, (k, 2)) for n, k in enumerate(lengths)}


@pytest.fixture
def write(tmp_path):
    """Writes labels in a form, in pieces that were merged if the form has durations."""

    def to(name, labels, about=None):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        if path.suffix == ".npz":
            np.savez(path, **labels)
        else:
            rows = [
                {"id": clip, "units": codes[::2].tolist(), "durations": [2] * len(codes[::2])}
                for clip, codes in labels.items()
            ]
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        if about:
            path.with_name(path.name + ".json").write_text(json.dumps({"files": [], **about}))
        return str(path)

    return to


@pytest.mark.parametrize("name", ["units.npz", "units.jsonl"])
def test_a_batch_gets_the_labels_of_its_clips_whatever_their_order(write, drawn, name):
    codes = pickle.loads(pickle.dumps(FileCodes(8, write(name, drawn), **RATE)))
    ids = ["clip é/150", "", "clip é/0", "clip é/7"]  # "" is the placeholder of an empty batch
    inputs_BTI = torch.zeros(4, 25, 8)
    found_BTG = codes.encode_clips(Clips(ids, torch.zeros(4, 9), torch.zeros(4), inputs_BTI))
    assert found_BTG.shape == (4, 25, 2) and codes.num_scores == 200
    for clip_id, found_TG in zip(ids, found_BTG.numpy()):
        expected_TG = drawn.get(clip_id, np.zeros((0, 2), int))
        if name == "units.jsonl":
            expected_TG = expected_TG[::2].repeat(2, 0)
        expected_TG = expected_TG[:25]
        assert (found_TG[: len(expected_TG)] == expected_TG).all()
        assert (found_TG[len(expected_TG) :] == -1).all()


def test_files_of_several_splits_are_one_index(write, drawn):
    ids = list(drawn)
    paths = [
        write("a.npz", {clip: drawn[clip] for clip in ids[:120]}),
        write("b.jsonl", {clip: drawn[clip] for clip in ids[120:]}),
    ]
    labels = Labels(paths)
    found = labels.find(["unknown", *ids])
    assert len(labels) == 200 and found.rows_N[0] == -1 and (found.rows_N[1:] >= 0).all()
    assert found.frames_N[1:121].tolist() == [len(drawn[clip]) for clip in ids[:120]]
    assert (labels.read(found.rows_N[1]) == drawn[ids[0]]).all()
    with pytest.raises(ValueError, match="1 clips have labels twice, the first in .*a.npz and in"):
        Labels([paths[0], write("c.npz", {ids[0]: drawn[ids[0]]})])


def test_clips_without_labels_or_of_another_rate_are_named_before_the_first_step(write, student):
    path = write("units.npz", {f"clip{n}": np.zeros(25, int) for n in range(9)})
    codes = FileCodes(8, path, **RATE)
    codes.check_encoder(student)
    codes.check_clips(student, [(f"clip{n}", 1.0) for n in range(9)])
    codes.check_clips(student, [("clip1", 0.95)])  # a frame at the end is no error
    with pytest.raises(ValueError, match="no labels for 2 of 3 clips .* such as 'x', 'y'; make"):
        codes.check_clips(student, [("x", 1.0), ("clip0", 1.0), ("y", 1.0)])
    for seconds, frames in ((2.0, 51), (0.5, 13)):
        told = rf"1 of 2 clips .* 25 frames per second, such as 'clip1' \(25 labels, {frames} "
        with pytest.raises(ValueError, match=told):
            codes.check_clips(student, [("clip0", 1.0), ("clip1", seconds)])
    with pytest.raises(ValueError, match="has 50 frames per second, but .* has 25"):
        FileCodes(8, path, codebook_size=9, frame_rate=50.0).check_encoder(student)
    with pytest.raises(ValueError, match="has nan frames per second"):
        FileCodes(8, path, codebook_size=9, frame_rate=math.nan).check_encoder(student)


def test_what_made_the_labels_is_read_beside_them(write, drawn):
    about = {"made_of": {"kmeans": "k1"}, **RATE, "num_codebooks": 2}
    path = write("units.npz", drawn, about)
    codes = FileCodes(8, path)
    assert (codes.codebook_size, codes.frame_rate, codes.num_codebooks) == (100, 25.0, 2)
    with pytest.raises(ValueError, match="codebook_size is 9, but .*units.npz has 100; leave"):
        FileCodes(8, path, codebook_size=9)
    write("valid.npz", {"v": np.zeros(3, int)}, {**about, "made_of": {"kmeans": "k2"}})
    with pytest.raises(ValueError, match=r"not made alike \(kmeans: k1 and k2\); use one model"):
        FileCodes(8, str(path).removesuffix("/units.npz"))
    write("units.npz", drawn, {**about, "made_of": {"dedup": True}})
    with pytest.raises(ValueError, match="equal neighbours became one .* without --dedup"):
        FileCodes(8, path)


@pytest.mark.parametrize(
    "name, content, told",
    [
        ("units.npz", b"no zip", "cannot be read: File is not a zip file"),
        ("units.jsonl", b'{"id": "a"}\n', "line 1 is no object with id and units"),
        ("units.jsonl", b"", "units.jsonl has no clips; make it again"),
        ("units.km", b"1 2 3\n", "is no .npz or .jsonl file and no folder .*--format npz"),
    ],
)
def test_a_file_that_is_none_is_one_line(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=told):
        FileCodes(8, str(tmp_path / name), **RATE)


def test_labels_that_cannot_be_used_name_what_is_missing_or_wrong(write, tmp_path):
    path = write("units.npz", {"a": np.array([3, 101])})
    for missing in RATE:
        known = {key: RATE[key] for key in RATE if key != missing}
        with pytest.raises(ValueError, match=f"says its {missing}; set {missing}:"):
            FileCodes(8, path, **known)
    for wrong in ("fast", True):
        with pytest.raises(ValueError, match=f"frame_rate must be a number, got {wrong!r}"):
            FileCodes(8, path, codebook_size=9, frame_rate=wrong)
    for wrong in (None, 2024):
        with pytest.raises(ValueError, match=f"labels must be a path, got {wrong}; set labels:"):
            FileCodes(8, wrong, **RATE)
    clips = Clips(["a"], torch.zeros(1, 9), torch.zeros(1), torch.zeros(1, 4, 8))
    with pytest.raises(RunError, match="the clip 'a' .* from 3 to 101, and codebook_size is 100"):
        FileCodes(8, path, **RATE).encode_clips(clips)
    np.savez(tmp_path / "floats.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match="of float64 of shape .* has no labels"):
        FileCodes(8, str(tmp_path / "floats.npz"), **RATE)
    np.savez_compressed(tmp_path / "small.npz", a=np.zeros(3, int))
    with pytest.raises(ValueError, match="its arrays are compressed"):
        FileCodes(8, str(tmp_path / "small.npz"), **RATE)


def test_a_run_opens_without_its_labels_and_refuses_others(write, drawn, student, tmp_path):
    about = {"made_of": {"kmeans": "k1"}, **RATE}  # another tool's, without num_codebooks
    path, kept = write("units/train.npz", drawn, about), str(tmp_path / "needed")
    for _ in range(2):
        assert keep_labels("labels", path, kept) == {"labels": kept}
    assert torch.equal(FileCodes(8, kept).sizes, FileCodes(8, path).sizes)
    FileCodes(8, kept).check_clips(student, [("clip é/0", len(drawn["clip é/0"]) / 25)])
    write("units/train.npz", {**drawn, "more": np.zeros(3, int)}, about)
    with pytest.raises(RunError, match="has changed since the run began; bring the first"):
        keep_labels("labels", path, kept)
    (tmp_path / "units/train.npz").unlink()
    assert keep_labels("labels", path, kept) == {"labels": kept}
    assert FileCodes(8, kept).num_codebooks == 2
    with pytest.raises(ValueError, match="train.npz is gone; bring it back"):
        FileCodes(8, kept).check_clips(student, [("clip é/0", 1.0)])


def test_parts_of_long_files_have_the_ids_that_tokens_gives_them(tmp_path):
    speech = tmp_path / "speech/speaker"
    speech.mkdir(parents=True)
    noise = torch.randn(5 * 8000, generator=torch.Generator().manual_seed(0)).mul(0.1).numpy()
    for name, seconds in (("long", 5), ("short", 1), ("other", 1)):
        soundfile.write(speech / f"{name}.wav", noise[: seconds * 8000], 8000)
    prepare_own_speech(
        str(tmp_path / "speech"), str(tmp_path), min_seconds=0.5, max_seconds=2.0,
        sample_rate=8000, valid_share=0.2,
    )  # fmt: skip
    rows = read_manifest(tmp_path / "train.csv", "")
    assert any(row["start"] is not None for row in rows.values())
    assert {clip.id for clip in find_source(str(tmp_path / "train.csv")).clips} == {*rows}
