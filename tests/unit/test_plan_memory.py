"""The memory of a plan: the model, the largest batch, the search, and what a machine has."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from speechbrain.dataio.dataset import DynamicItemDataset

from brainquant.data.batches import make_batches
from brainquant.planning.batch_search import FoundBatch, TriedBatch, is_out_of_memory, search
from brainquant.planning.capacity import Capacity, machine_capacity
from brainquant.planning.find_batch import describe_found
from brainquant.planning.largest_batch import BatchShape, batch_shapes
from brainquant.planning.memory import plan_memory
from brainquant.planning.memory_model import fit_memory
from brainquant.planning.trial import failure
from brainquant.planning.trial_steps import Trial, TrialStep

MB = 2**20


def step(clips, longest, peak, batches=1):
    """A step on clips of one length."""
    seconds = batches * clips * longest
    return TrialStep(batches, seconds, seconds, batches * clips, longest, 1.0, 0.1, int(peak))


def trial(steps, *, shapes=(), floor=800 * MB, least=850 * MB, free=8192 * MB, **more):
    """A trial on a machine with so much free memory."""
    values = {
        "device": "cpu", "threads": 1, "parameters": 10_000_000, "accumulation": 1, "pace": [],
        "before_steps_bytes": 0, "before_steps_seconds": 0.0,
        "capacity": Capacity(2 * free, free, "this machine"),
    }  # fmt: skip
    return Trial(
        floor_bytes=floor, least_bytes=least, shapes=[*shapes], steps=[*steps], **{**values, **more}
    )


@given(
    slope=st.floats(1 * MB, 20 * MB),
    ratio=st.floats(0.0, 0.2),
    state=st.floats(0.0, 300 * MB),
    clips=st.integers(16, 200),
    longest=st.floats(4.0, 30.0),
)
@settings(max_examples=50, deadline=None)
def test_the_model_finds_the_batch_of_the_run_again(slope, ratio, state, clips, longest):
    """Activations and the optimiser's state peak at different moments of a step."""
    floor = 800 * MB

    def peak(count, seconds):
        activations = slope * count * seconds * (1 + ratio * seconds)
        return max(floor + state, floor + activations)

    shapes = [step(n, s, peak(n, s) - 0) for n, s in ((clips, longest), (2 * clips, longest / 2))]
    steps = [step(n, longest, peak(n, longest)) for n in (clips // 8, clips // 4, clips // 2)]
    model = fit_memory(trial(steps, shapes=shapes, floor=floor, least=floor + state))
    whole = BatchShape(clips, longest)
    if sum(s.peak_bytes > 1.02 * (floor + state) for s in steps) >= 2:
        assert model.predict(whole) == pytest.approx(peak(clips, longest), rel=0.01)
        half = BatchShape(2 * clips, longest / 2)
        if shapes[1].peak_bytes > 1.02 * (floor + state):
            assert model.predict(half) == pytest.approx(peak(2 * clips, longest / 2), rel=0.01)
    predicted = [model.predict(BatchShape(n, longest)) for n in range(1, 2 * clips, 7)]
    assert predicted == sorted(predicted) and predicted[0] >= round(floor + state)


def test_a_step_of_two_batches_is_counted_once():
    one = fit_memory(trial([step(4, 10.0, 1000 * MB), step(8, 10.0, 1200 * MB)]))
    two = fit_memory(trial([step(4, 10.0, 1000 * MB, 2), step(8, 10.0, 1200 * MB, 2)]))
    assert one == two and one.predict(BatchShape(16, 10.0)) == 1600 * MB


def test_batches_below_the_floor_do_not_make_the_line_flat():
    steps = [step(2, 5.0, 850 * MB), step(4, 5.0, 900 * MB), step(8, 5.0, 1100 * MB)]
    assert fit_memory(trial(steps)).predict(BatchShape(16, 5.0)) == 1500 * MB
    # The allocator kept more from the first series than the second one needs.
    flat = fit_memory(trial([step(4, 5.0, 1000 * MB), step(8, 5.0, 1000 * MB)]))
    assert flat.predict(BatchShape(8, 5.0)) >= 1000 * MB
    assert flat.predict(BatchShape(80, 5.0)) > 1000 * MB


# ---- the batches of a run ------------------------------------------------------------------


def clips_of(lengths):
    return DynamicItemDataset({str(n): {"duration": s} for n, s in enumerate(lengths)})


def keys(**changes):
    return {
        "batch_seconds": 20, "batch_clips": None, "num_buckets": 6, "seed": 3, "num_workers": 0,
        "activation_checkpointing": False, **changes,
    }  # fmt: skip


@given(st.lists(st.floats(0.5, 12.0), min_size=1, max_size=60), st.sampled_from([None, 5]))
@settings(max_examples=25, deadline=None)
def test_no_batch_of_the_first_epochs_is_larger_than_the_largest(lengths, clips):
    dataset = clips_of(lengths)
    shapes = batch_shapes(dataset, keys(batch_clips=clips))
    sampler = make_batches(dataset, keys(batch_clips=clips), shuffle=True)
    for epoch in (1, 2, 3):
        getattr(sampler, "sampler", sampler).set_epoch(epoch)
        for batch in itertools.islice(sampler, len(sampler)):
            longest = max(dataset.data[str(clip)]["duration"] for clip in batch)
            assert any(s.clips == len(batch) and s.longest_seconds >= longest for s in shapes)


def section_of(found, **changes):
    lengths = torch.linspace(1.0, 10.0, 400).tolist()
    loader = SimpleNamespace(dataset=SimpleNamespace(dataset=clips_of(lengths)))
    return plan_memory(keys(num_buckets=50, **changes), loader, found)


def test_a_batch_that_fits_and_the_largest_one():
    found = trial([step(4, 10.0, 1000 * MB), step(8, 10.0, 1200 * MB)], free=4000 * MB)
    section = section_of(found, batch_seconds=100, num_workers=2)
    assert section.findings == [] and section.facts["fits"]
    padded = section.facts["largest_batch"]["padded_seconds"]
    assert section.facts["predicted_bytes"] == pytest.approx((800 + 5 * padded) * MB, rel=1e-6)
    # (4000 - 10 % - 800) MB of 5 MB for a second
    assert section.facts["largest_batch_seconds"] == 500
    assert all(len(line) <= 76 for line in section.lines)
    assert "2 loader workers" in section.lines[-1]


def test_a_batch_larger_than_memory_is_named_with_keys_that_keep_the_step():
    found = trial([step(4, 10.0, 1000 * MB), step(8, 10.0, 1200 * MB)], free=2000 * MB)
    section = section_of(found, batch_seconds=400)
    (finding,) = section.findings
    assert finding.name == "batch_larger_than_memory" and not section.facts["fits"]
    words = finding.remedy.replace(",", "").split()
    value = float(words[words.index("batch_seconds:") + 1])
    factor = int(words[words.index("grad_accumulation_factor:") + 1])
    assert value * factor == pytest.approx(400, rel=0.01)
    assert value <= section.facts["largest_batch_seconds"] <= 200
    assert "activation_checkpointing" in finding.remedy
    smaller = section_of(found._replace(accumulation=factor), batch_seconds=value)
    assert smaller.findings == []


def test_a_model_larger_than_memory_has_no_batch():
    found = trial([step(4, 10.0, 1000 * MB), step(8, 10.0, 1200 * MB)], free=500 * MB)
    section = section_of(found, batch_clips=8)
    assert section.facts["largest_batch_seconds"] is None
    assert "smaller model" in section.findings[0].remedy


def test_the_fit_of_the_quantiser_may_need_the_most():
    found = trial([step(4, 10.0, 1000 * MB), step(8, 10.0, 1200 * MB)])
    section = section_of(found._replace(before_steps_bytes=3000 * MB))
    assert section.facts["predicted_bytes"] == 3000 * MB


# ---- the search on real steps --------------------------------------------------------------


@given(st.integers(0, 80), st.integers(0, 79), st.integers(1, 30))
def test_the_search_finds_the_last_value_that_fits(limit, start, most):
    tries = []

    def fits(value):
        tries.append(value)
        return value < limit

    value, whole = search(range(80), start, fits, lambda: len(tries) < most)
    assert len(tries) == len(set(tries)) <= most
    if whole:
        assert value == (limit - 1 if limit else None)
        assert len(tries) <= 15
    else:
        assert value is None or value < limit


def test_what_is_no_lack_of_memory_is_an_error():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_a_search_without_a_result_says_so():
    tries = [TriedBatch(8, 4, 10.0, False, 900 * MB)]
    lines = describe_found(FoundBatch("batch_clips", None, tries, True, 800 * MB))
    assert lines[0] == "batch_clips: 8: 0.88 GiB, too much, for 4 clips of up to 10.0 s"
    assert lines[1].startswith("No batch_clips fits")


# ---- the machine ---------------------------------------------------------------------------


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


MEMORY = {
    "proc/meminfo": "MemTotal: 8000 kB\nMemFree: 100 kB\nMemAvailable: 6000 kB\n",
    "proc/self/status": "Name: python\nRssAnon: 500 kB\n",
}
CURRENT, LIMIT = 1000 * 1024, 4000 * 1024


@pytest.mark.parametrize(
    "group, names",
    [
        ("0::/", "sys/fs/cgroup/memory.{}: current max inactive_file"),
        ("0::/user/a", "sys/fs/cgroup/user/memory.{}: current max inactive_file"),
        (
            "5:cpu:/\n4:memory:/a",
            "sys/fs/cgroup/memory/a/memory.{}: usage_in_bytes limit_in_bytes total_inactive_file",
        ),
    ],
    ids=["container", "group above", "version 1"],
)
def test_the_limit_of_a_container_counts(tmp_path, group, names):
    path, (used, limit, cached) = names.split(": ")[0], names.split(": ")[1].split()
    write(tmp_path, MEMORY)
    assert machine_capacity(tmp_path) == Capacity(8000 * 1024, 6500 * 1024, "this machine")
    write(
        tmp_path,
        {
            "proc/self/cgroup": group + "\n",
            path.format(used): f"{CURRENT}\n",
            path.format(limit): f"{LIMIT}\n",
            path.format("stat"): f"anon 5\n{cached} {200 * 1024}\n",
        },
    )
    # The pages of files, and what this process holds, are free for the run.
    assert machine_capacity(tmp_path) == Capacity(LIMIT, 3700 * 1024, "this container")
    write(tmp_path, {path.format(limit): "max\n"})
    assert machine_capacity(tmp_path).name == "this machine"


def test_a_system_without_proc_has_no_capacity(tmp_path):
    assert machine_capacity(tmp_path) is None


# ---- a trial that fails --------------------------------------------------------------------


def test_a_trial_that_fails_is_one_line():
    traceback = "Traceback (most recent call last):\n  File 'x'\nKeyError: 'sig'\n"
    assert failure(1, traceback, "a step") == "the trial ended in a step: KeyError: 'sig'"
    assert failure(-11, "", "a step") == (
        "the trial ended in a step: SIGSEGV; its last line: it has said nothing"
    )
    assert "batch_seconds: lower" in failure(-9, traceback, "a step")
