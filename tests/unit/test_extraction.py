"""The parts of the engine behind encode and tokens: plan, reading, shares, provenance."""

import itertools
import json
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from syscalls import in_child

from brainquant.cli import main
from brainquant.extraction.clips import Clip
from brainquant.extraction.parts import Parts
from brainquant.extraction.plan import NUM_PARTS, PART_BYTES, PART_SECONDS, make_plan
from brainquant.extraction.provenance import Provenance
from brainquant.extraction.reading import AHEAD, ReadAhead
from brainquant.extraction.results import collapse
from brainquant.extraction.shares import Share, share_of_launcher

RATE = 100


def clips_of(lengths):
    return [Clip(str(n), f"/{n}.wav", length, RATE) for n, length in enumerate(lengths)]


@given(
    st.lists(st.integers(1, 5000), min_size=1, max_size=60),
    st.floats(1, 100),
    st.floats(1, PART_BYTES),
)
def test_each_clip_is_in_one_batch_and_each_batch_in_one_part(lengths, batch_seconds, size):
    clips = clips_of(lengths)
    plan = make_plan(clips, batch_seconds, size)
    assert sorted(itertools.chain(*plan.batches)) == [*range(len(clips))]
    assert [*itertools.chain(*plan.parts)] == [*range(len(plan.batches))]
    order = [clips[number].seconds for batch in plan.batches for number in batch]
    assert order == sorted(order, reverse=True)
    for batch in plan.batches:
        longest = clips[batch[0]].seconds
        assert len(batch) == 1 or len(batch) * longest <= batch_seconds
    most = min(PART_SECONDS, PART_BYTES / size, sum(order) / NUM_PARTS)
    for part in range(len(plan.parts)):
        assert len(plan.parts[part]) == 1 or plan.seconds_of([part]) <= most + 1e-6


def test_a_long_corpus_has_few_parts_of_limited_size():
    plan = make_plan(clips_of([15 * RATE] * 50_000), 30, bytes_per_second=25 * 512 * 4)
    seconds = [plan.seconds_of([part]) for part in range(len(plan.parts))]
    assert max(seconds) * 25 * 512 * 4 <= PART_BYTES and len(plan.parts) == 2500
    small = make_plan(clips_of([15 * RATE] * 50_000), 30, bytes_per_second=100)
    assert len(small.parts) == -(-50_000 * 15 // PART_SECONDS)


def test_the_digest_knows_each_clip():
    clips = clips_of([100, 200])
    other = [clips[0], Clip("1", "/1.wav", 200, RATE, start=5)]
    digests = {make_plan(those, 9, 1).digest() for those in (clips, clips_of([100, 201]), other)}
    assert len(digests) == 3 and make_plan(clips_of([100, 200]), 9, 1).digest() in digests


@given(st.lists(st.integers(0, 2), min_size=1), st.booleans())
def test_repeated_codes_become_one(codes, two_codebooks):
    array = np.array([[code, 7 - code] for code in codes] if two_codebooks else codes)
    runs = [(code, len([*same])) for code, same in itertools.groupby(codes)]
    units, durations = collapse(array)
    assert [(unit[0] if two_codebooks else unit) for unit in units.tolist()] == [u for u, _ in runs]
    assert durations.tolist() == [length for _, length in runs]
    assert np.array_equal(np.repeat(units, durations, 0), array)


def test_reading_is_ahead_by_two_batches_and_no_more():
    read, all_read = [], threading.Event()

    def note(job):
        read.append(job)
        if len(read) == 2 * (AHEAD + 1):
            all_read.set()
        return job

    batches = iter(ReadAhead(note, ([n, -n] for n in range(1, 100)), num_workers=2))
    assert next(batches) == [1, -1] and all_read.wait(10)
    assert {*read} == {1, -1, 2, -2, 3, -3}
    batches.close()  # the threads end
    assert len(read) == 6 and "reading" not in str(threading.enumerate())


def test_an_error_of_reading_is_raised():
    with pytest.raises(ZeroDivisionError):
        [*ReadAhead(lambda job: 1 // job, [[1], [0]], num_workers=1)]


@pytest.mark.parametrize(
    "variables, share",
    [
        ({}, None),
        ({"LOCAL_RANK": "0", "RANK": "3", "WORLD_SIZE": "4"}, Share(3, 4)),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, Share(1, 2)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, None),  # a script of sbatch, without srun
    ],
)
def test_the_launcher_gives_the_share(variables, share, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert share_of_launcher() == share


def test_a_damaged_part_is_computed_again(tmp_path):
    parts = Parts(str(tmp_path / "f.npz"))
    parts.open({"model": "a"})
    for part in range(3):
        parts.write(part, {part: {"codes": np.arange(9)}}, {part: 9}, {})
    damaged = tmp_path / "f.npz.parts" / "000001.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-5])
    assert parts.remove_damaged(4) == [1] and parts.missing(4) == [1, 3]
    assert parts.read(2, 2, ["codes"])["codes"].tolist() == [*range(9)]


def test_one_process_at_a_time_merges(tmp_path):
    parts = Parts(str(tmp_path / "f.npz"))
    with parts.locked() as mine:
        assert not mine  # another one has removed the folder
    parts.open({})

    def lock():
        with parts.locked() as mine:
            return mine

    with parts.locked() as mine:
        assert mine and not in_child(lock)
    assert in_child(lock)


def test_an_output_without_a_readable_provenance_is_refused(tmp_path):
    provenance = Provenance(str(tmp_path / "f.npz"))
    assert provenance.read() is None and not provenance.is_complete({})
    for text in ("{", "[]", json.dumps({"files": []})):
        (tmp_path / "f.npz.json").write_text(text)
        with pytest.raises(ValueError, match="does not say what made .*f.npz; give another --out"):
            provenance.is_complete({})


def test_a_missing_file_makes_an_output_incomplete(tmp_path):
    provenance = Provenance(str(tmp_path / "f.npz"))
    said = {"made_of": {"model": "a"}, "files": ["f.layer1.npz", "f.layer2.npz"]}
    (tmp_path / "f.npz.json").write_text(json.dumps(said))
    (tmp_path / "f.layer1.npz").touch()
    assert not provenance.is_complete({"model": "b"})
    (tmp_path / "f.layer2.npz").touch()
    assert provenance.is_complete({"model": "a", "torch": "9"})  # of any version


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["tokens", "--layer", "2"], "--layer 2 needs --kmeans"),
        (["encode"], "SOURCE|neither the folder|does not exist"),
    ],
)
def test_wrong_options_are_one_line(arguments, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        main([*arguments, str(tmp_path), str(tmp_path / "no"), "--output", str(tmp_path / "f")])


@pytest.mark.parametrize(
    "option", [["--layers", "2,2"], ["--layers", "x"], ["--num_workers", "0"],
               ["--batch_seconds", "-1"], ["--format", "km"]]
)  # fmt: skip
def test_wrong_values_are_named_by_the_parser(option, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["encode", "m", "s", "--output", "f", *option])
    assert option[0] in capsys.readouterr().err
