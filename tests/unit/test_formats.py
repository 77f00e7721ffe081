"""Formats of features and units, read back by the tools that people read them with.

fairseq cannot be installed beside a new torch: ``FairseqReader`` does what its HubertDataset,
Dictionary and simple_kmeans do with the files, with the same checks.
"""

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import kaldiio
import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainquant.extraction.clips import Clip
from brainquant.extraction.formats import FORMATS

EVERY = [(kind, name) for kind in FORMATS for name in FORMATS[kind]]
ENDINGS = {"kaldi": "scp"}
META = {
    "dim": 6, "pooled": False, "frame_shift": 0.04, "frame_rate": 25.0, "root": "/speech",
    "num_codes": 500, "num_codebooks": 1,
}  # fmt: skip


def clips_of(ids, **more):
    return [
        Clip(name, f"/speech/b/{n}.flac", 16000 * n, 16000, **more) for n, name in enumerate(ids)
    ]


def arrays_of(kind, lengths, *, pooled=False, codebooks=1, dtype=np.float32):
    rng = np.random.default_rng(0)
    if kind == "tokens":
        shapes = [(n, codebooks) if codebooks > 1 else (n,) for n in lengths]
        return [rng.integers(0, 500, shape) for shape in shapes]
    shapes = [(6,) if pooled else (n, 6) for n in lengths]
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def write(folder, kind, name, ids, arrays, durations=None, file="train", **meta):
    """Writes arrays with the writer of a format and gives the files, the main one first."""
    path = os.path.join(folder, f"{file}.{ENDINGS.get(name, name)}")
    writer = FORMATS[kind][name](path, {**META, "kind": kind, **meta})
    for clip, array, frames in zip(clips_of(ids), arrays, durations or [None] * len(ids)):
        writer.add(clip, array, frames)
    assert [*Path(folder).glob("[!.]*")] == []  # nothing has its name yet
    writer.close()
    assert sorted(writer.files) == sorted(map(str, Path(folder).iterdir()))
    return path


class FairseqReader:
    """What fairseq does with a folder of labels or features."""

    def __init__(self, folder, split):
        self.folder, self.split = folder, split
        with open(f"{folder}/{split}.tsv") as file:  # hubert_dataset.load_audio
            self.root = file.readline().strip()
            items = [line.strip().split("\t") for line in file]
        assert all(len(item) == 2 for item in items)
        self.paths = [os.path.join(self.root, path) for path, _ in items]
        self.sizes = [int(size) for _, size in items]

    def units(self):
        with open(f"{self.folder}/dict.km.txt", encoding="utf-8") as file:  # Dictionary
            pairs = [line.rstrip().rsplit(" ", 1) for line in file]
        index = {word: number for number, (word, count) in enumerate(pairs) if int(count)}
        assert len(index) == len(pairs), "Duplicate word"
        with open(f"{self.folder}/{self.split}.km") as file:  # hubert_dataset.load_label
            labels = [line.rstrip() for line in file]
        assert len(labels) == len(self.paths), "number of labels does not match"
        return [[index[word] for word in line.split()] for line in labels]

    def features(self):
        stem = f"{self.folder}/{self.split}_0_1"  # simple_kmeans: get_feat_iterator
        with open(f"{stem}.len") as file:
            lengths = [int(line.rstrip()) for line in file]
        assert len(lengths) == len(self.paths)
        offsets = [0, *np.cumsum(lengths[:-1]).tolist()]
        features = np.load(f"{stem}.npy", mmap_mode="r")
        assert features.shape[0] == offsets[-1] + lengths[-1]
        return [features[start : start + length] for start, length in zip(offsets, lengths)]


def read(kind, name, path, ids):
    """The arrays of a corpus by ID, as the tools of a format give them."""
    if name == "npz":
        with np.load(path) as file:
            return {key: file[key] for key in file}
    if name == "kaldi":
        by_index = {**kaldiio.load_scp(path)}
        with kaldiio.ReadHelper(f"ark:{path.removesuffix('scp')}ark") as archive:
            for key, array in archive:
                assert np.array_equal(array, by_index[key])
        return by_index
    if name in ("npy", "km"):
        reader = FairseqReader(os.path.dirname(path), "train")
        assert reader.paths == [clip.path for clip in clips_of(ids)]
        assert reader.sizes == [clip.num_samples for clip in clips_of(ids)]
        return dict(zip(ids, reader.units() if name == "km" else reader.features()))
    if name == "jsonl":
        rows = [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]
    else:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    return {row["id"]: row["hidden" if kind == "encode" else "units"] for row in rows}


def assert_read_back(kind, name, path, ids, arrays):
    found = read(kind, name, path, ids)
    assert list(found) == ids
    for key, array in zip(ids, arrays):
        assert np.array_equal(np.asarray(found[key]).reshape(array.shape), array), key


@pytest.mark.parametrize("kind, name", EVERY)
def test_a_tool_reads_what_was_written(kind, name, tmp_path):
    ids = ["19-198-0001", "é/ü.v2", "x" * 200]
    arrays = arrays_of(kind, [3, 1, 40])
    assert_read_back(kind, name, write(tmp_path, kind, name, ids, arrays), ids, arrays)


@pytest.mark.parametrize("name", FORMATS["encode"])
def test_pooled_features_are_one_vector_a_clip(name, tmp_path):
    ids, arrays = ["a", "b"], arrays_of("encode", [3, 1], pooled=True)
    path = write(tmp_path, "encode", name, ids, arrays, pooled=True)
    assert_read_back("encode", name, path, ids, arrays)
    assert not (tmp_path / "utt2num_frames").exists()


@pytest.mark.parametrize("name", FORMATS["encode"])
def test_half_precision_is_kept_where_the_format_has_it(name, tmp_path):
    ids, arrays = ["a", "b"], arrays_of("encode", [3, 1], dtype=np.float16)
    path = write(tmp_path, "encode", name, ids, arrays)
    assert_read_back("encode", name, path, ids, arrays)
    if name in ("npz", "npy"):
        assert read("encode", name, path, ids)["a"].dtype == np.float16
    if name == "parquet":
        assert "halffloat" in str(pyarrow.parquet.read_schema(path).field("hidden").type)


@pytest.mark.parametrize("name", sorted(FORMATS["tokens"].keys() - {"km"}))
def test_several_codebooks_are_matrices(name, tmp_path):
    ids, arrays = ["a", "b"], arrays_of("tokens", [3, 2], codebooks=4)
    path = write(tmp_path, "tokens", name, ids, arrays, num_codebooks=4)
    assert_read_back("tokens", name, path, ids, arrays)
    assert np.shape(read("tokens", name, path, ids)["a"]) == (3, 4)


@pytest.mark.parametrize("name", ["jsonl", "parquet"])
def test_durations_stand_beside_the_units(name, tmp_path):
    arrays, durations = arrays_of("tokens", [2, 3]), [np.array([4, 1]), None]
    path = write(tmp_path, "tokens", name, ["a", "b"], arrays, durations)
    table = pyarrow.parquet.read_table(path) if name == "parquet" else None
    text = Path(path).read_text("utf-8").splitlines() if table is None else []
    rows = table.to_pylist() if table is not None else [json.loads(line) for line in text]
    assert [row["durations"] for row in rows] == [[4, 1], [1, 1, 1]]


@pytest.mark.parametrize("kind, name", EVERY)
def test_a_writer_names_its_files_before_it_writes(kind, name, tmp_path):
    path = str(tmp_path / "f")
    writer = FORMATS[kind][name](path, {"kind": kind, **META})
    writer.close()
    shared = [str(tmp_path / "dict.km.txt")] if name == "km" else []
    assert sorted(writer.files) == sorted([*writer.paths(path), *shared])


def test_kaldi_has_no_float16():
    with pytest.raises(ValueError, match="--half: archives of Kaldi have no float16"):
        FORMATS["encode"]["kaldi"].check("f.ark", {"half": True})


@pytest.mark.parametrize("kind", FORMATS)
def test_kaldi_has_its_tables_of_frames(kind, tmp_path):
    durations = [np.array([4, 1]), None] if kind == "tokens" else None
    write(tmp_path, kind, "kaldi", ["a", "b"], arrays_of(kind, [2, 3]), durations)
    first = 5 if durations else 2
    assert (tmp_path / "utt2num_frames").read_text() == f"a {first}\nb 3\n"
    assert (tmp_path / "frame_shift").read_text() == "0.04\n"


@pytest.mark.parametrize("kind, name", EVERY)
@given(
    corpus=st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=9),
                  st.integers(1, 5)),
        min_size=1, unique_by=lambda clip: clip[0],
    )
)  # fmt: skip
def test_any_corpus_comes_back(kind, name, tmp_path_factory, corpus):
    ids, lengths = ([clip[n] for clip in corpus] for n in range(2))
    ids = [f"{key}_" for key in ids]  # none ends with .npy
    arrays = arrays_of(kind, lengths)
    path = write(tmp_path_factory.mktemp("out"), kind, name, ids, arrays)
    assert_read_back(kind, name, path, ids, arrays)


@pytest.mark.parametrize("kind, name", EVERY)
def test_the_same_arrays_are_the_same_bytes_at_any_time(kind, name, tmp_path, monkeypatch):
    ids, arrays, contents = ["a", "b"], arrays_of(kind, [30, 20]), []
    for year in (1, 2):
        monkeypatch.setattr("time.time", lambda year=year: year * 3.2e7 + 1.5e9)
        write(tmp_path, kind, name, ids, arrays)
        contents.append({path.name: path.read_bytes() for path in tmp_path.iterdir()})
        for path in tmp_path.iterdir():
            path.unlink()
    assert contents[0] == contents[1]


@pytest.mark.parametrize("kind, name", EVERY)
def test_memory_does_not_grow_with_the_corpus(kind, name, tmp_path, monkeypatch):
    monkeypatch.setattr("brainquant.extraction.formats.parquet.GROUP_BYTES", 50_000)
    arrays, peaks = arrays_of(kind, [2000]), []
    for count in (10, 10, 40):  # the first one warms up
        folder = tmp_path / f"{len(peaks)}"
        folder.mkdir()
        tracemalloc.start()
        write(folder, kind, name, list(map(str, range(count))), arrays * count)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] - peaks[1] < 30 * arrays[0].nbytes / 10


@pytest.mark.parametrize("kind, name", EVERY)
def test_a_killed_program_leaves_nothing_in_the_way_of_the_next(kind, name, tmp_path):
    path = os.path.join(tmp_path, f"train.{ENDINGS.get(name, name)}")
    arrays = arrays_of(kind, [3, 2])
    killed = FORMATS[kind][name](path, {**META, "kind": kind})
    killed.add(clips_of(["old"])[0], arrays[0])
    assert all(not os.path.exists(file) for file in killed.files)
    write(tmp_path, kind, name, ["a", "b"], arrays)
    assert_read_back(kind, name, path, ["a", "b"], arrays)


LOAD = """
import json, sys
from datasets import load_dataset
rows = load_dataset("parquet", data_files=sys.argv[1], split="train", cache_dir=sys.argv[2])
print(json.dumps(list(rows)))
"""


@pytest.mark.parametrize("kind", FORMATS)
def test_datasets_of_hugging_face_loads_parquet_without_network(kind, tmp_path):
    arrays = arrays_of(kind, [3, 2])
    path = write(tmp_path, kind, "parquet", ["a", "b"], arrays)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, path, str(tmp_path / "cache")],
        text=True,
        capture_output=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(done.stdout)
    column = "hidden" if kind == "encode" else "units"
    assert [row[column] for row in rows] == [array.tolist() for array in arrays]
    assert kind == "encode" or [row["durations"] for row in rows] == [[1, 1, 1], [1, 1]]


@pytest.mark.parametrize(
    "kind, name, meta, clip, message",
    [
        ("tokens", "km", {"num_codebooks": 2}, {}, "2 codebooks; choose jsonl, kaldi, parquet or"),
        ("tokens", "km", {}, {"path": "/speech/a\tb.wav"}, "cannot be in a manifest of fairseq"),
        ("encode", "npy", {}, {"path": "/speech/a.wav "}, "a blank at its start or end"),
        ("encode", "npy", {}, {"start": 0}, "the clip 'a' is a part of /speech/a.wav"),
        ("tokens", "km", {}, {"channel": 1}, "fairseq has whole files only"),
        ("encode", "kaldi", {}, {"id": "a b"}, "the ID 'a b' has blanks"),
        ("tokens", "kaldi", {}, {"id": "a "}, "another --format"),
        ("encode", "npz", {}, {"id": "a.npy"}, "the ID 'a.npy' cannot be a name in an .npz"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_before_the_work(kind, name, meta, clip, message):
    clip = Clip(**{"id": "a", "path": "/speech/a.wav", "num_samples": 1, "sample_rate": 8, **clip})
    with pytest.raises(ValueError, match=message):
        FORMATS[kind][name].check("f", {**META, "kind": kind, **meta}, [clip])


def test_the_dictionary_of_other_units_is_kept(tmp_path):
    arrays = arrays_of("tokens", [3])
    write(tmp_path, "tokens", "km", ["a"], arrays)
    FORMATS["tokens"]["km"](str(tmp_path / "valid.km"), {**META, "kind": "tokens"})
    with pytest.raises(ValueError, match="dict.km.txt is the dictionary of another number"):
        meta = {**META, "kind": "tokens", "num_codes": 1000}
        FORMATS["tokens"]["km"](str(tmp_path / "test.km"), meta)


@pytest.mark.parametrize("module, name", [("kaldiio", "kaldi"), ("pyarrow.parquet", "parquet")])
def test_a_library_that_is_missing_is_named_with_its_extra(module, name, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=rf"--format {name} needs .*brainquant\[{name}\]"):
        FORMATS["encode"][name].check("f", {**META, "kind": "encode"})
