"""Codebooks that follow the frames, on two processes: one codebook, and that of one process.

A step has two batches on each of two ranks, or four on one process.
"""

import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from brainquant import LibraryQuantizer, RefinedProjectionQuantizer, VectorQuantizer
from brainquant.quantisers import Clips
from brainquant.testing.ranks import RANKS, in_processes

BATCHES, STEPS, DIM = 4, 5, 5
KINDS = {
    "vector": lambda: VectorQuantizer(DIM, 12, 2, 4, decay=0.5, revive_below=0.2, seed=3),
    "residual": lambda: LibraryQuantizer(
        DIM, 4, "ResidualVQ", codebook_size=8, num_quantizers=2, kmeans_init=True, decay=0.5,
        threshold_ema_dead_code=1.0,
    ),
    "residual with dropout": lambda: LibraryQuantizer(
        DIM, 4, "ResidualVQ", codebook_size=8, num_quantizers=3, quantize_dropout=True
    ),
    "refined": lambda: RefinedProjectionQuantizer(
        DIM, 3, 12, num_codebooks=2, refine_steps=[2, 4], split_above=1.5, seed=3
    ),
}  # fmt: skip


def batch(step, number):
    """Frames of one batch; they wander, and so leave codes to die."""
    generator = torch.Generator().manual_seed(100 * step + number)
    x_BTI = 3 * step + torch.randn(2, 20, DIM, generator=generator)
    x_BTI[step % 2, :7] = torch.nan
    return x_BTI[:0] if number == step else x_BTI  # in turns, a rank has a batch without frames


def train(quantiser, forward, rank, ranks):
    """The steps of one rank: batch k goes to rank k modulo the number of ranks."""
    for step in range(STEPS):
        quantiser.update_temp(step)
        quantiser.begin_step()
        for number in range(rank, BATCHES, ranks):
            if quantiser.vq_dim is None:
                x_BTI = batch(step, number)
                quantiser.encode_clips(Clips([], x_BTI, torch.ones(len(x_BTI)), x_BTI))
                continue
            generator = torch.Generator().manual_seed(number)
            output = forward(batch(step, number), generator=generator, return_codes=True)
            output["aux_loss"].backward()
        quantiser.end_step()


def train_on_a_rank(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/ranks", rank=rank, world_size=RANKS
    )
    for kind, make in KINDS.items():
        quantiser = make().train()
        moved = quantiser.vq_dim is None  # and has no parameters
        train(quantiser, quantiser if moved else DistributedDataParallel(quantiser), rank, RANKS)
        torch.save(quantiser.state_dict(), folder / f"{kind} {rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The states of each rank after the training, by kind and rank."""
    folder = tmp_path_factory.mktemp("ranks")
    in_processes(train_on_a_rank, folder)
    return folder


@pytest.mark.parametrize("kind", list(KINDS))
def test_ranks_hold_the_same_bits(folder, kind):
    one, other = (torch.load(folder / f"{kind} {rank}.pt") for rank in range(RANKS))
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("kind", list(KINDS))
def test_ranks_hold_what_one_process_learns_that_accumulates_their_batches(folder, kind):
    alone, partial = KINDS[kind]().train(), KINDS[kind]().train()
    train(alone, alone, 0, 1)
    train(partial, partial, 1, 2)
    on_ranks = torch.load(folder / f"{kind} 0.pt")
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(on_ranks[name], value, msg=name)
    if kind == "vector":
        assert on_ranks["updates"] == STEPS
    if kind == "refined":
        assert on_ranks["refined"] == 2
    one, other = (dict(q.named_buffers()) for q in (alone, partial))
    assert any(not torch.allclose(one[name].float(), other[name].float()) for name in one)
