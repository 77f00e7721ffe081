"""Each clip is in one batch of an epoch, on one rank, despite bad audio and signals."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import strategies as st
from speechbrain.dataio.sampler import ReproducibleRandomSampler
from torch.utils.data import BatchSampler, DataLoader

from brainquant.data.audio import AudioReader, BadAudio
from brainquant.data.batches import (
    AudioBatch,
    LeftOutClip,
    RankBatchSampler,
    make_loaders,
)
from brainquant.data.manifests import load_dataset
from brainquant.errors import RunError
from brainquant.processes.family import is_running
from brainquant.training.lost_workers import explain_lost_workers

ROOT = Path(__file__).resolve().parents[2]
RATE = 1000
COUNTS = st.integers(1, 9)


def plain(num_clips, clips=2):
    return BatchSampler(ReproducibleRandomSampler(range(num_clips), seed=3), clips, False)


def ranks_of(num_clips, world_size, start=0, epoch=1):
    """The batches of each rank in an epoch."""
    dealt = []
    for rank in range(world_size):
        sampler = RankBatchSampler(plain(num_clips), rank=rank, world_size=world_size)
        sampler.start = start
        sampler.set_epoch(epoch)
        turns = list(sampler)
        assert len(sampler) == len(turns)
        dealt.append(turns)
    return dealt


def in_order(dealt):
    """The batches of all ranks, step by step, without the empty ones."""
    return [batch for turn in zip(*dealt) for batch in turn if batch]


@hypothesis.given(num_clips=st.integers(1, 60), world_size=COUNTS)
def test_ranks_take_the_batches_of_one_rank_in_equal_turns(num_clips, world_size):
    (whole,) = ranks_of(num_clips, 1)
    dealt = ranks_of(num_clips, world_size)
    assert len({len(turns) for turns in dealt}) == 1
    assert in_order(dealt) == whole
    assert sorted(sum(whole, [])) == list(range(num_clips))


@hypothesis.given(
    num_clips=st.integers(1, 60), before=COUNTS, after=COUNTS, turns=st.integers(0, 40)
)
def test_a_resumed_epoch_goes_on_with_what_is_left_on_as_many_ranks_as_there_are(
    num_clips, before, after, turns
):
    (whole,) = ranks_of(num_clips, 1)
    first = in_order([dealt[:turns] for dealt in ranks_of(num_clips, before)])
    resumed = ranks_of(num_clips, after, start=len(first))
    assert len({len(turns) for turns in resumed}) == 1
    assert first + in_order(resumed) == whole


@pytest.fixture
def corpus_of(tmp_path):
    """The hyperparameters for a corpus of noise; each clip has another amplitude."""

    def make(seconds, num_workers=0, **changes):
        rng = np.random.default_rng(0)
        rows = ["ID,duration,wav"]
        for number, duration in enumerate(seconds):
            path = tmp_path / f"{number}.wav"
            soundfile.write(path, rng.uniform(-1, 1, int(duration * RATE)), RATE)
            rows.append(f"{number},{duration},$data_root/{path.name}")
        (tmp_path / "train.csv").write_text("\n".join(rows))
        csv_file = str(tmp_path / "train.csv")
        return {
            "train_csv": csv_file, "valid_csv": csv_file, "data_folder": str(tmp_path),
            "min_seconds": 0.0, "max_seconds": 60.0, "batch_seconds": 5, "num_buckets": 3,
            "batch_clips": None, "num_workers": num_workers, "seed": 1, "sample_rate": RATE,
            "resample": False, "mix_down": False, **changes,
        }  # fmt: skip

    return make


SECONDS = [0.5 + 0.1 * number for number in range(20)]


def epoch_of(loader, epoch):
    """IDs and samples of each batch of an epoch."""
    loader.batch_sampler.set_epoch(epoch)
    return [(batch.id, batch.sig.data.clone()) for batch in loader]


def same(one, other):
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in zip(one, other, strict=True))


@pytest.mark.parametrize("batch_clips", [None, 3])
def test_epochs_have_each_clip_once_in_other_batches_and_workers_change_nothing(
    corpus_of, batch_clips, untouched_global_rng
):
    loaders = [make_loaders(corpus_of(SECONDS, n, batch_clips=batch_clips))[0] for n in (0, 2)]
    with untouched_global_rng():
        (first, second), workers = ([epoch_of(loader, e) for e in (1, 2)] for loader in loaders)
        again = epoch_of(loaders[0], 1)
    for epoch in (first, second):
        assert sorted(int(i) for ids, _ in epoch for i in ids) == list(range(len(SECONDS)))
    assert [ids for ids, _ in first] != [ids for ids, _ in second]
    assert same(first, again) and same(first, workers[0]) and same(second, workers[1])
    if batch_clips:
        assert {len(ids) for ids, _ in first} == {3, len(SECONDS) % 3}


@pytest.mark.parametrize("batch_clips", [None, 3])
def test_validation_has_the_same_batches_in_each_epoch(corpus_of, batch_clips):
    _, loader = make_loaders(corpus_of(SECONDS, batch_clips=batch_clips))
    first, second = ([(b.id, b.sig.data) for b in loader] for _ in range(2))
    assert sorted(int(i) for ids, _ in first for i in ids) == list(range(len(SECONDS)))
    assert same(first, second)


def test_a_resumed_loader_goes_on_where_it_was(corpus_of):
    loader, _ = make_loaders(corpus_of(SECONDS, num_workers=2))
    whole = epoch_of(loader, 1)
    loader.batch_sampler.start = 2
    assert len(loader) == len(whole) - 2
    assert same(epoch_of(loader, 1), whole[2:])


def test_clips_that_are_too_short_for_the_brain_are_left_out_of_both_loaders(corpus_of, caplog):
    hparams = corpus_of([0.3, 0.4, 0.5, 0.6], min_seconds=0.1)
    with caplog.at_level("INFO"):
        loaders = make_loaders(hparams, min_samples=500)
    for loader in loaders:
        assert sorted(i for batch in loader for i in batch.id) == ["2", "3"]
    assert "min_seconds: 0.5 is used" in caplog.text
    assert caplog.text.count("2 of 4 clips left out, 2 below min_seconds: 0.5") == 2

    hparams["min_seconds"] = 0.6  # the YAML's value counts if it is larger
    assert [batch.id for batch in make_loaders(hparams, min_samples=500)[0]] == [["3"]]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_clip_that_has_turned_bad_is_skipped_with_its_id_and_reason(corpus_of, num_workers):
    hparams = corpus_of(SECONDS, num_workers, batch_clips=7)
    folder = Path(hparams["data_folder"])
    for loader in make_loaders(hparams):
        (folder / "3.wav").write_bytes(b"")
        (folder / "11.wav").unlink(missing_ok=True)
        batches = list(loader)
        skipped = {clip: reason for batch in batches for clip, reason in batch.left_out}
        assert sorted(skipped) == ["11", "3"]
        assert "/3.wav: cannot be read" in skipped["3"] and "/11.wav: cannot" in skipped["11"]
        left = [clip for batch in batches for clip in batch.id]
        assert sorted(left + list(skipped), key=int) == [str(i) for i in range(len(SECONDS))]
        assert not any(batch.is_empty for batch in batches)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_turn_without_a_clip_is_a_placeholder(corpus_of, num_workers):
    hparams = corpus_of([1.0, 1.0, 1.0], num_workers, batch_clips=1)
    loader, _ = make_loaders(hparams)
    loader.batch_sampler.rank, loader.batch_sampler.world_size = 1, 2
    full, empty = loader
    assert not full.is_empty and full.sig.data.shape == (1, 1000)
    assert empty.is_empty and empty.left_out == [] and empty.id == [""]
    assert torch.equal(empty.sig.data, torch.zeros(1, RATE))

    for name in "012":
        (Path(hparams["data_folder"]) / f"{name}.wav").write_bytes(b"")
    bad, empty = loader
    assert bad.is_empty and len(bad.left_out) == 1 and empty.is_empty


@pytest.mark.parametrize("num_workers", [0, 2])
def test_text_columns_that_are_asked_for_are_in_every_batch(corpus_of, num_workers):
    hparams = corpus_of([1.0, 1.0, 1.0], num_workers, batch_clips=2)
    manifest = Path(hparams["train_csv"])
    header, *rows = manifest.read_text().splitlines()
    rows = [f"{row},word {row[0]}" for row in rows]
    manifest.write_text("\n".join([header + ",wrd", *rows]))
    loader, valid_loader = make_loaders(hparams, columns=["wrd"])
    for batch in [*loader, *valid_loader]:
        assert batch.wrd == [f"word {clip}" for clip in batch.id]
    loader.batch_sampler.rank, loader.batch_sampler.world_size = 2, 3
    (empty,) = loader
    assert empty.is_empty and empty.wrd == [""]
    with pytest.raises(ValueError, match="train.csv lacks the column 'phn'"):
        make_loaders(hparams, columns=["wrd", "phn"])


def test_bad_audio_that_nobody_skips_leaves_a_worker_with_its_text(corpus_of):
    hparams = corpus_of([1.0])
    dataset = load_dataset(hparams["train_csv"], hparams["data_folder"], reader=AudioReader(RATE))
    (Path(hparams["data_folder"]) / "0.wav").write_bytes(b"")
    with pytest.raises(BadAudio, match="/0.wav: cannot be read"):
        next(iter(DataLoader(dataset, batch_size=None, num_workers=1)))


def test_what_a_worker_needs_can_be_sent_to_one_that_is_not_forked(corpus_of):
    loader, _ = make_loaders(corpus_of(SECONDS))
    sent = loader.dataset, loader.collate_fn, loader.worker_init_fn
    dataset, collate, _ = pickle.loads(pickle.dumps(sent))
    batch = collate([dataset[5], LeftOutClip("b", "b.wav: no")])
    assert torch.equal(batch.sig.data[0], loader.dataset[5]["sig"])
    assert pickle.loads(pickle.dumps(batch)).left_out == batch.left_out != []


def test_a_batch_keeps_what_it_knows_where_it_is_moved():
    items = [{"id": "a", "sig": torch.ones(4), "duration": 1.0}, LeftOutClip("b", "b.wav: no")]
    batch = AudioBatch(items, placeholder_samples=10).to(dtype=torch.float64)
    if torch.cuda.is_available():
        batch = batch.pin_memory()
    assert batch.sig.data.dtype == torch.float64 and batch.id == ["a"]
    assert batch.left_out == [("b", "b.wav: no")] and not batch.is_empty


DEATHS = {
    "kill": (
        "os.kill(os.getpid(), 9)",
        "was killed by SIGKILL",
        "short of memory, set num_w",
    ),
    "crash": ("os.kill(os.getpid(), 11)", "was killed by SIGSEGV", "remove it from the manifest"),
    "exit": ("os._exit(3)", "ended with exit status 3", "set num_workers: 0 to see why"),
}


@pytest.mark.parametrize("death", ["kill", "exit", pytest.param("crash", marks=pytest.mark.slow)])
def test_a_worker_that_dies_ends_the_run_with_one_line_and_its_clip(corpus_of, monkeypatch, death):
    fault, how, remedy = DEATHS[death]
    read = AudioReader.__call__

    def read_or_die(self, path, *arguments, **options):
        if path.endswith("/7.wav"):
            exec(fault)
        return read(self, path, *arguments, **options)

    monkeypatch.setattr(AudioReader, "__call__", read_or_die)
    loaders = make_loaders(corpus_of(SECONDS, num_workers=2, batch_clips=1))
    with pytest.raises(RunError) as error, explain_lost_workers(None, *loaders):
        for loader in loaders[::-1]:
            for _ in loader:
                pass
    line = str(error.value)
    pid = re.match(r"a loader worker \(process (\d+)\) ", line).group(1)
    assert how in line and remedy in line and "\n" not in line and not is_running(int(pid))
    assert "the last clip that it began is '7'" in line


def test_other_errors_than_the_death_of_a_worker_stay_as_they_are(corpus_of):
    loaders = make_loaders(corpus_of(SECONDS, num_workers=2, batch_clips=1))
    with pytest.raises(RuntimeError, match="^another$"), explain_lost_workers(*loaders):
        next(iter(loaders[0]))
        raise RuntimeError("another")


READING = """
import json, multiprocessing, signal, sys
from brainquant.data.batches import make_loaders

signal.signal(signal.SIGTERM, lambda *_: print("main got it", flush=True))
for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, lambda *_: None)
train_loader, _ = make_loaders(json.loads(sys.argv[1]))
for number, batch in enumerate(train_loader):
    print(batch.id, flush=True)
    if number == 2:
        print("workers", *(w.pid for w in multiprocessing.active_children()), flush=True)
        sys.stdin.readline()
print("read", flush=True)
sys.stdin.readline()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody tells who sent a signal")
@pytest.mark.parametrize(
    "end",
    [
        "signals",
        "a stopped worker",
        pytest.param("a stopped worker and a kill", marks=pytest.mark.slow),
    ],
)
def test_workers_obey_their_main_process_only_and_end_with_it(corpus_of, end):
    hparams = corpus_of(SECONDS, num_workers=2, batch_clips=1)
    process = subprocess.Popen(
        [sys.executable, "-c", READING, json.dumps(hparams)],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    try:
        for line in process.stdout:
            if line.startswith("workers"):
                workers = [int(pid) for pid in line.split()[1:]]
                break
        if end == "signals":  # to the whole group
            for name in ("TERM", "USR1", "INT", "HUP", "TERM"):
                os.killpg(process.pid, getattr(signal, f"SIG{name}"))
            process.stdin.write("\n")
        else:
            process.stdin.write("\n")
            process.stdin.flush()
            for line in process.stdout:
                if line == "read\n":
                    break
            os.kill(workers[0], signal.SIGSTOP)
            if end.endswith("kill"):
                process.kill()
        # The process still holds the loader at its end, and must end the workers.
        process.stdin.write("\n")
        out, err = process.communicate(timeout=60)
        until = time.monotonic() + 10
        while any(map(is_running, workers)):
            assert time.monotonic() < until
            time.sleep(0.01)
    finally:
        process.kill()
    assert end.endswith("kill") or (process.returncode, err) == (0, "")
    if end == "signals":
        assert "main got it" in out and out.endswith("read\n")
        assert len([line for line in out.splitlines() if line[0] == "["]) == len(SECONDS) - 3
