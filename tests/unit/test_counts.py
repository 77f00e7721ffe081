"""Numbers about a run."""

import math
import socket
from collections import Counter

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from brainquant.monitoring.counts import CodeMonitor, Sums, code_statistics

COUNTS = arrays(np.int64, (2, 6), elements=st.integers(0, 50))


@given(st.lists(st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 3))), max_size=5))
def test_counts_add_up_over_chunks_and_leave_out_what_is_no_code(chunks):
    monitor = CodeMonitor(2, 4)
    for chunk in chunks:
        monitor.update(torch.tensor(chunk, dtype=torch.long).view(-1, 2))
    for g in range(2):
        expected = Counter(frame[g] for chunk in chunks for frame in chunk)
        assert monitor.counts[g].tolist() == [expected[v] for v in range(4)]


def test_counts_are_kept_in_checkpoints():
    monitor, other = CodeMonitor(1, 3), CodeMonitor(1, 3)
    monitor.update(torch.tensor([[2]]))
    other.load_state_dict(monitor.state_dict())
    assert other.counts.tolist() == [[0, 0, 1]]


@given(COUNTS)
def test_statistics_are_those_of_scipy(counts):
    statistics = code_statistics(torch.from_numpy(counts))
    for row, perplexity in zip(counts, statistics["code_perplexity"], strict=True):
        entropy = scipy.stats.entropy(row) if row.any() else 0.0
        assert perplexity == pytest.approx(math.exp(entropy), abs=1e-5)
        assert 1 <= perplexity <= max(statistics["perplexity_cap"], 1)
    assert statistics["code_perplexity_sum"] == pytest.approx(sum(statistics["code_perplexity"]))
    assert statistics["dead_codes"] == (counts == 0).sum()
    assert statistics["code_usage"] == pytest.approx((counts > 0).mean())
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    assert statistics["commonest_code"] == pytest.approx(shares.max(1).mean())
    assert statistics["frames"] == counts.sum(1).max()
    assert statistics["perplexity_cap"] == min(6, counts.sum(1).max())


def test_uniform_use_has_the_perplexity_of_all_codes():
    assert code_statistics(torch.full((1, 320), 7))["code_perplexity"] == [320.0]


def test_pooled_counts_show_more_codes_than_a_batch_can():
    monitor = CodeMonitor(1, 320)
    generator = torch.Generator().manual_seed(0)
    batches = torch.randint(320, (200, 100, 1), generator=generator)
    one = CodeMonitor(1, 320)
    one.update(batches[0])
    for batch in batches:
        monitor.update(batch)
    assert code_statistics(one.counts)["code_perplexity_sum"] < 100
    assert code_statistics(monitor.counts)["code_perplexity_sum"] > 315


def test_sums_add_merge_read_and_clear():
    sums, other = Sums(1, 3), Sums(1, 3)
    loss = torch.tensor(0.25, requires_grad=True)
    sums.add(torch.tensor([[0], [1]]), loss=loss, targets=2)
    sums.add(torch.tensor([[1]]), loss=torch.tensor([0.5]), targets=torch.tensor(1))
    assert sums.read() == {"loss": 0.75, "targets": 3.0}
    assert all(type(value) is float for value in sums.read().values())
    other.merge(sums), other.merge(sums)
    assert other.read() == {"loss": 1.5, "targets": 6.0}
    assert other.monitor.counts.tolist() == [[2, 4, 0]]
    assert sums.reduced().read() == sums.read()  # one process
    assert sums.reduced().monitor.counts.tolist() == [[1, 2, 0]]
    sums.clear()
    assert sums.read() == {} and not sums.monitor.counts.any()


def rank_sums(ranks):
    """What these ranks saw, as one process would add it up."""
    sums = Sums(2, 5)
    for rank in ranks:
        generator = torch.Generator().manual_seed(rank)
        for frames in (3, 7 + rank):
            codes = torch.randint(-1, 5, (frames, 2), generator=generator)
            sums.add(codes, loss=torch.rand((), generator=generator), targets=frames)
    return sums


def reduce_on_a_rank(rank, port, folder):
    import os

    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))  # SpeechBrain looks at these
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://localhost:{port}", rank=rank, world_size=2
    )
    own = rank_sums([rank])
    before = own.read(), own.monitor.counts.clone()
    total = own.reduced()
    assert own.read() == before[0] and torch.equal(own.monitor.counts, before[1])
    torch.save((total.read(), total.monitor.counts), os.path.join(folder, f"{rank}.pt"))
    torch.distributed.destroy_process_group()


def test_sums_of_two_ranks_are_those_of_one_process(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(reduce_on_a_rank, (port, str(tmp_path)), nprocs=2)
    expected = rank_sums([0, 1])
    for rank in range(2):
        values, counts = torch.load(tmp_path / f"{rank}.pt")
        assert values == pytest.approx(expected.read(), rel=1e-5)
        assert torch.equal(counts, expected.monitor.counts)
