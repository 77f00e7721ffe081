"""encode and tokens: right values, the same bytes from any number of processes, nothing lost."""

import csv
import json
import logging
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file
from syscalls import disk_calls, fork, in_child

import brainquant
from brainquant.cli import main
from brainquant.extraction import Features, Job, KMeansTokens, QuantiserTokens, extract
from brainquant.extraction import job as job_module
from brainquant.extraction.parts import Parts

RATE = 16000
PARTS = {"first": 560000, "last": 640000}  # ends of two overlapping parts of 35 s
SECONDS = {"a/long": 1.3, "b": 0.31, "c": 1.1, "d": 0.7, "e": 0.32, "f": 0.5}


def noise(seconds, rate=RATE):
    generator = np.random.default_rng(int(seconds * 1000))
    return generator.uniform(-0.3, 0.3, int(seconds * rate)).astype(np.float32)


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """A folder of six files; one of them has another rate."""
    folder = tmp_path_factory.mktemp("speech")
    (folder / "a").mkdir()
    for name, seconds in SECONDS.items():
        rate = 8000 if name == "d" else RATE
        soundfile.write(folder / f"{name}.wav", noise(seconds, rate), rate, "FLOAT")
    return folder


@pytest.fixture(scope="module")
def encoder(pretrained_run):
    return brainquant.load_pretrained(pretrained_run("best_rq"))


@pytest.fixture
def opened(encoder, monkeypatch):
    """Jobs get an encoder that is loaded already."""
    monkeypatch.setattr(job_module, "load_pretrained", lambda *args, **kwargs: encoder)


@pytest.fixture
def job(opened, speech, tmp_path):
    def make(results=None, *, output="f.npz", source=speech, batch_seconds=2.0, **options):
        options = {"format": "npz", **options}
        results = results or Features()
        output = str(tmp_path / output)
        return Job(
            "the model", str(source), output, results, batch_seconds=batch_seconds, **options
        )

    return make


@pytest.fixture
def kmeans(encoder, tmp_path):
    path = str(tmp_path / "k.safetensors")
    centroids = torch.randn(9, encoder.dim, generator=torch.manual_seed(0))
    save_file({"centroids": centroids}, path, {"layer": "1", "fingerprint": encoder.fingerprint()})
    return path


def read(job, layer=""):
    with np.load(job.output.replace(".npz", f"{layer}.npz")) as file:
        return dict(file)


def provenance(job):
    return json.loads(Path(f"{job.output}.json").read_text("utf-8"))


def contents(folder):
    """The bytes of all files in a folder, hidden ones too."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}


# ---- values ----------------------------------------------------------------------------------


def test_features_are_those_of_each_clip_alone(job, encoder):
    made = job(Features([2, 0, 1]))
    extract(made)
    by_layer = [read(made, f".layer{layer}") for layer in (2, 0, 1)]
    assert [*by_layer[0]] == [*"bcdef", "a-long"]  # in the order of the folder
    for name, seconds in SECONDS.items():
        if name == "d":  # resampled
            assert len(by_layer[0]["d"]) == encoder.count_frames(int(seconds * RATE))
            continue
        hidden, _ = encoder(torch.from_numpy(noise(seconds))[None], layers=[2, 0, 1])
        for found, expected in zip(by_layer, hidden):
            found = found[name.replace("/", "-")]
            np.testing.assert_allclose(found, expected[0].detach().numpy(), rtol=0, atol=1e-5)
    said = provenance(made)
    assert said["made_of"]["model"] == encoder.fingerprint() and said["left_out"] == 0
    assert said["files"] == ["f.layer2.npz", "f.layer0.npz", "f.layer1.npz"]
    assert said["frames"] == sum(map(len, by_layer[0].values())) and said["clips"] == 6


@pytest.mark.parametrize("batch_seconds", [0.1, 100.0])
def test_codes_and_units_are_the_same_for_any_batch(job, encoder, kmeans, batch_seconds):
    for results in (QuantiserTokens(), KMeansTokens(None, kmeans)):
        made = job(results, output=f"{type(results).__name__}.npz", batch_seconds=batch_seconds)
        extract(made)
        found = read(made)
        for name in set(SECONDS) - {"d"}:
            wav = torch.from_numpy(noise(SECONDS[name]))[None]
            if isinstance(results, QuantiserTokens):
                expected = encoder.codes(wav).codes_BTG[0, :, 0]
            else:
                expected = encoder.units(wav, layer=1).units_BT[0]
            valid = expected[expected >= 0].tolist()
            assert valid and found[name.replace("/", "-")].tolist() == valid


def test_options_change_what_is_stored(job, kmeans):
    plain, half = job(), job(Features(half=True), output="half.npz")
    pooled = job(Features(pool="mean"), output="pooled.npz")
    units, merged = (
        job(KMeansTokens(1, kmeans), output="units.npz"),
        job(KMeansTokens(1, kmeans, dedup=True), output="merged.jsonl", format="jsonl"),
    )
    for made in (plain, half, pooled, units, merged):
        extract(made)
    rows = [json.loads(line) for line in Path(merged.output).read_text("utf-8").splitlines()]
    for row, (name, frames) in zip(rows, read(plain).items(), strict=True):
        assert np.array_equal(read(half)[name], frames.astype(np.float16))
        np.testing.assert_allclose(read(pooled)[name], frames.mean(0), rtol=0, atol=1e-6)
        assert np.array_equal(np.repeat(row["units"], row["durations"]), read(units)[name])
        assert all(unit != follower for unit, follower in zip(row["units"], row["units"][1:]))


def test_a_manifest_gives_ids_and_parts_of_files(job, encoder, tmp_path):
    stereo = np.stack([noise(1.3), noise(1.1)[: len(noise(1.1))].repeat(2)[: len(noise(1.3))]], 1)
    soundfile.write(tmp_path / "two.wav", stereo, RATE, "FLOAT")
    rows = [("right", 1, 4000, 20000), ("left", 0, "", ""), ("both", "", 1600, 12800)]
    lines = [f"{name},$data_root/two.wav,{start},{stop},{c}" for name, c, start, stop in rows]
    manifest = tmp_path / "m.csv"
    manifest.write_text("\n".join(["ID,wav,start,stop,channel", *lines]))
    made = job(source=manifest)
    extract(made)
    found = read(made)
    assert [*found] == ["right", "left", "both"]
    expected = {
        "right": stereo[4000:20000, 1], "left": stereo[:, 0], "both": stereo[1600:12800].mean(1)
    }  # fmt: skip
    for name, samples in expected.items():
        hidden, _ = encoder(torch.from_numpy(samples)[None])
        np.testing.assert_allclose(found[name], hidden[0].detach().numpy(), rtol=0, atol=1e-5)


def test_a_single_file_is_a_source(job, speech):
    made = job(QuantiserTokens(), source=speech / "b.wav", output="b.km", format="km")
    extract(made)
    root, line = Path(made.output).with_suffix(".tsv").read_text().splitlines()
    assert Path(root) == speech and line == f"b.wav\t{int(0.31 * RATE)}"


def test_long_recordings_are_encoded_in_windows(job, encoder, kmeans, tmp_path):
    folder = tmp_path / "long"
    folder.mkdir()
    samples = noise(40.0)
    soundfile.write(folder / "whole.wav", samples, RATE, "FLOAT")
    broken = samples.copy()
    broken[-9] = np.nan
    soundfile.write(folder / "broken.wav", broken, RATE, "FLOAT")
    parts = "".join(f"{name},whole.wav,{stop - 560000},{stop}\n" for name, stop in PARTS.items())
    (folder / "m.csv").write_text(
        f"ID,wav,start,stop\n{parts}broken,broken.wav,,\nwhole,whole.wav,,"
    )
    found = {}
    for results in (Features([2]), QuantiserTokens(), KMeansTokens(1, kmeans)):
        kind = type(results).__name__
        made = job(results, source=folder / "m.csv", output=f"{kind}.npz", batch_seconds=100.0)
        extract(made)
        found[kind] = read(made)
        assert [*found[kind]] == [*PARTS, "whole"] and provenance(made)["left_out"] == 1
    features, codes, units = found.values()
    (hidden,) = encoder.encode_file(folder / "whole.wav", layers=[2])
    assert np.array_equal(features["whole"], hidden.numpy())
    for name, stop in {**PARTS, "whole": len(samples)}.items():
        wav = torch.from_numpy(samples[0 if name == "whole" else stop - 560000 : stop])[None]
        alone = encoder.codes(wav).codes_BTG[0, : len(codes[name]), 0].numpy()
        # On some CPUs a window rounds otherwise, and a frame between two codes takes the other.
        assert (codes[name] == alone).mean() > 0.995
        assert len(features[name]) == len(units[name]) == encoder.count_frames(wav.shape[1])
        whole = encoder.units(wav, layer=1).units_BT[0].numpy()
        assert (units[name] == whole).mean() > 0.9


# ---- what cannot be read ---------------------------------------------------------------------


def test_bad_files_are_listed_and_shift_no_others(job, speech, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name in "bcef":
        os.link(speech / f"{name}.wav", folder / f"{name}.wav")
    (folder / "a.wav").write_text("no audio")
    samples = noise(0.4)
    samples[100] = np.nan  # found when it is decoded
    soundfile.write(folder / "d.wav", samples, RATE, "FLOAT")
    good, mixed = job(), job(source=folder, output="mixed.npz")
    for made in (good, mixed):
        extract(made)
    assert [*read(mixed)] == [*"bcef"]
    for name, frames in read(mixed).items():
        np.testing.assert_allclose(frames, read(good)[name], rtol=0, atol=1e-5)
    with open(f"{mixed.output}.left_out.csv", encoding="utf-8", newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [(row["ID"], row["path"]) for row in rows] == [
        (name, str(folder / f"{name}.wav")) for name in "ad"
    ]
    assert "NaN" in rows[1]["reason"] and str(folder) not in rows[1]["reason"]
    assert provenance(mixed)["left_out"] == 2 and not os.path.exists(f"{good.output}.left_out.csv")


def test_a_name_that_is_not_utf_8_is_listed(job, speech, tmp_path):
    folder = tmp_path / "names"
    folder.mkdir()
    os.link(speech / "b.wav", folder / "b.wav")
    os.link(speech / "c.wav", folder / "c\udcff.wav")
    made = job(source=folder)
    extract(made)
    assert [*read(made)] == ["b"] and provenance(made)["left_out"] == 1
    assert "c\\udcff.wav,has a name" in Path(f"{made.output}.left_out.csv").read_text("utf-8")


def test_clips_too_short_for_a_frame_are_listed(job, speech, tmp_path):
    folder = tmp_path / "short"
    folder.mkdir()
    os.link(speech / "b.wav", folder / "b.wav")
    soundfile.write(folder / "c.wav", noise(0.02), RATE)
    made = job(QuantiserTokens(), source=folder)
    extract(made)
    assert [*read(made)] == ["b"]
    assert "c.wav,is too short for a frame" in Path(f"{made.output}.left_out.csv").read_text()


@pytest.mark.parametrize("when", ["header", "decoding"])
def test_nothing_that_can_be_read_is_one_error(job, tmp_path, when):
    folder = tmp_path / "bad"
    folder.mkdir()
    samples = np.full(9000, np.nan, np.float32)
    if when == "decoding":
        soundfile.write(folder / "x.wav", samples, RATE, "FLOAT")
    else:
        (folder / "x.wav").write_text("no audio")
    with pytest.raises(ValueError, match=f"none of the 1 clips of {folder} can be .*x.wav"):
        extract(job(source=folder))
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]


# ---- processes and interruptions -------------------------------------------------------------


@pytest.mark.parametrize("launcher", ["num_processes", "torchrun"])
def test_any_number_of_processes_writes_the_same_bytes(
    launcher, pretrained_run, speech, kmeans, tmp_path
):
    arguments = [pretrained_run("best_rq"), speech, "--batch_seconds", "1"]
    if launcher == "torchrun":  # its ranks load the model, as one process does
        command = ["encode", *arguments, "--layers", "1,2"]
    else:
        command = ["tokens", *arguments, "--kmeans", kmeans, "--format", "jsonl", "--dedup"]
    folders = [tmp_path / "one", tmp_path / "two"]
    name = "f.npz" if launcher == "torchrun" else "f.jsonl"
    outputs = [["--output", folder / name] for folder in folders]
    main([*map(str, [*command, *outputs[0], "--num_processes", 1])])
    if launcher == "num_processes":
        main([*map(str, [*command, *outputs[1], "--num_processes", 2])])
    else:
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        done = subprocess.run(
            [*start, "--nproc-per-node=2", "-m", "brainquant.cli", *command, *outputs[1]],
            env={**os.environ, "OMP_NUM_THREADS": "3"},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert "in each of 2 processes" in done.stderr
    one, two = map(contents, folders)
    assert len(one) == (3 if launcher == "torchrun" else 2) and one == two


def test_ranks_share_the_work_and_the_last_one_writes(job, monkeypatch, caplog):
    monkeypatch.setattr("brainquant.extraction.run.GRACE_SECONDS", 0.0)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    alone, shared = job(batch_seconds=0.1), job(output="shared.npz", batch_seconds=0.1)
    with caplog.at_level(logging.INFO):
        for rank in "01":
            monkeypatch.setenv("SLURM_PROCID", rank)
            assert not os.path.exists(shared.output)
            extract(shared)
    assert "this share is done, 3 of 6 parts are missing" in caplog.text
    with pytest.raises(ValueError, match="--num_processes is for one machine without"):
        extract(shared, num_processes=2)
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS")
    extract(alone, num_processes=1)
    assert Path(shared.output).read_bytes() == Path(alone.output).read_bytes()


def test_killed_at_any_moment_and_run_again_it_writes_the_same_bytes(job, fault):
    whole = job(Features([1, 2]), output="whole/f.npz", batch_seconds=1.0)
    os.makedirs(os.path.dirname(whole.output))
    calls = disk_calls(lambda: lambda: extract(whole, num_processes=1))
    expected = contents(os.path.dirname(whole.output))
    assert {*expected} == {"f.layer1.npz", "f.layer2.npz", "f.npz.json"}
    number = len(calls)  # the last ones are those beside the output
    points = sorted({*range(1, number, number // 9), *range(number - 14, number, 4)})
    for point in points:
        made = job(Features([1, 2]), output=f"{point}/f.npz", batch_seconds=1.0)
        os.makedirs(folder := os.path.dirname(made.output))
        disk_calls(lambda made=made: lambda: extract(made, num_processes=1), kill_at=point)
        in_child(lambda made=made: extract(made, num_processes=1))
        assert contents(folder) == expected, f"killed at call {point}, {calls[point]}"
        assert len(os.listdir(folder)) == 3
    fault(
        injected=f"SIGKILL at {len(points)} of {len(calls)} disk calls of encode",
        expected="the same bytes after a second run",
        seen="the same bytes",
    )


def test_sigterm_ends_it_with_one_line_and_what_is_done_is_kept(job, capfd, monkeypatch, tmp_path):
    made = job(QuantiserTokens(), batch_seconds=0.1)
    computed, write = [], Parts.write

    def write_and_stop(parts, part, *content):
        write(parts, part, *content)
        computed.append(part)
        if stop_at == len(computed):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Parts, "write", write_and_stop)
    argv = ["tokens", "m", made.source, "--output", made.output, "--format", "npz"]
    argv += ["--batch_seconds", "0.1", "--num_processes", "1"]
    stop_at = 4
    status = os.waitpid(fork(lambda: main(argv)), 0)[1]
    assert os.WIFEXITED(status)
    shown = capfd.readouterr().err
    assert "Stopped: 143" in shown and "\nStopped by SIGTERM\n" in shown
    assert not os.path.exists(made.output)
    stop_at = None
    main(argv)
    assert computed == [4, 5] and len(read(made)) == 6
    assert not os.path.exists(f"{made.output}.parts")


@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_full_disk_is_one_error_and_the_work_goes_on(job, num_processes):
    made = job(batch_seconds=0.1)

    def with_little_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, resource.RLIM_INFINITY))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            extract(made, num_processes=num_processes)
        except ValueError as error:
            return str(error)

    assert "make room on this disk: the same command goes on" in in_child(with_little_room)
    assert not os.path.exists(made.output)
    extract(made, num_processes=1)
    assert len(read(made)) == 6


def test_a_lost_process_is_an_error_and_its_share_is_done_later(job, monkeypatch):
    made = job(batch_seconds=0.1)
    write = Parts.write

    def write_or_die(parts, part, *content):
        if part == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        write(parts, part, *content)

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "write", write_or_die)
        with pytest.raises(ValueError, match="1 of 2 processes ended by SIGKILL .* goes on"):
            extract(made, num_processes=2)
    assert Parts(made.output).missing(6) == [3, 5] and not os.path.exists(made.output)
    extract(made, num_processes=1)
    assert len(read(made)) == 6


# ---- what is there already -------------------------------------------------------------------


def test_a_complete_output_is_left_alone(job, caplog, monkeypatch):
    made = job()
    extract(made)
    before = os.stat(made.output).st_mtime_ns
    monkeypatch.setattr("brainquant.extraction.run.read_corpus", None)  # it does not get so far
    with caplog.at_level(logging.INFO):
        extract(made)
    assert "is complete" in caplog.text and os.stat(made.output).st_mtime_ns == before


@pytest.mark.parametrize(
    "change, message",
    [
        ({"results": Features([1])}, "layers: None, not \\[1\\]"),
        ({"results": Features(pool="mean")}, "pool: None, not mean"),
        ({"results": QuantiserTokens()}, "command: encode, not tokens"),
        ({"batch_seconds": 3.0}, "batch_seconds: 2.0, not 3.0"),
        ({"source": "b.wav"}, "other audio: SOURCE has changed.*"),
        ({"model": None}, "another model"),
    ],
)
@pytest.mark.parametrize("state", ["complete", "unfinished"])
def test_nothing_else_is_continued_or_replaced(
    job, speech, encoder, monkeypatch, state, change, message
):
    made = job()
    if state == "complete":
        extract(made)
    else:
        with monkeypatch.context() as patch:
            patch.setattr("brainquant.extraction.run.work", lambda *args: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                extract(made)
    before = contents(os.path.dirname(made.output))
    if "model" in change:
        monkeypatch.setattr(type(encoder), "fingerprint", lambda self: "another")
        change = {}
    elif "source" in change:
        change = {"source": speech / change["source"]}
    with pytest.raises(ValueError, match=f"{message}; give another --output, or remove .*f.npz"):
        extract(job(**change))
    assert contents(os.path.dirname(made.output)) == before


@pytest.mark.parametrize("name, output", [("f.npz", "f.npz"), ("train.tsv", "train.km")])
def test_files_of_others_are_not_replaced(job, tmp_path, name, output):
    (tmp_path / name).write_text("precious")
    form = output.split(".")[1]
    with pytest.raises(ValueError, match=f"{name} exists, and nothing says .* give another --out"):
        extract(job(QuantiserTokens(), output=output, format=form))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "precious"


@pytest.mark.parametrize(
    "output, form, message",
    [
        ("f.km", "km", "dict.km.txt is the dictionary of another number of units"),
        ("f.npz", "km", "--output .*f.npz ends as other files than those of --format km: .km;"),
        ("f.parquet", "kaldi", "those of --format kaldi: .ark or .scp; give another --format"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_the_work(job, tmp_path, output, form, message):
    (tmp_path / "dict.km.txt").write_text("0 1\n")
    with pytest.raises(ValueError, match=message):
        extract(job(QuantiserTokens(), output=output, format=form))
    assert [path.name for path in tmp_path.iterdir()] == ["dict.km.txt"]


@pytest.mark.parametrize(
    "results, message",
    [
        (Features([3]), "--layers: there is no layer 3; .* layers 1 to 2"),
        (KMeansTokens(2, "k.safetensors"), "k.safetensors was fitted to layer 1, not to layer 2"),
    ],
)
def test_what_the_model_does_not_have_is_refused(job, kmeans, tmp_path, results, message):
    if isinstance(results, KMeansTokens):
        results = KMeansTokens(2, kmeans)
    with pytest.raises(ValueError, match=message):
        extract(job(results))
    assert [path.name for path in tmp_path.iterdir()] == ["k.safetensors"]
