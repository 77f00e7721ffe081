"""EMA codebooks on two processes: one codebook, and that of one process which sees all frames."""

import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from brainquant import VectorQuantizer

RANKS, STEPS, DIM = 2, 6, 5


def share(step, rank=None):
    """Frames of one step, of one rank or of all; they wander, and so leave codes to die."""
    generator = torch.Generator().manual_seed(step)
    x_BTI = 3 * step + torch.randn(4, 30, DIM, generator=generator)
    x_BTI[step % 4, :7] = torch.nan
    cut = 0 if step == 3 else 1  # one step has no frames on rank 0, the others have few
    return x_BTI if rank is None else (x_BTI[:cut], x_BTI[cut:])[rank]


def make():
    torch.manual_seed(0)
    return VectorQuantizer(DIM, 12, 2, 4, decay=0.5, revive_below=0.2, seed=3).train()


def train_on_a_rank(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/ranks", rank=rank, world_size=RANKS
    )
    quantiser = make()
    wrapped = DistributedDataParallel(quantiser)
    for step in range(STEPS):
        output = wrapped(share(step, rank), return_codes=True)
        output["aux_loss"].backward()
    torch.save(quantiser.state_dict(), folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """What each rank held in the end."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(train_on_a_rank, (folder,), nprocs=RANKS)
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


def test_ranks_hold_the_same_bits(states):
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_ranks_hold_what_one_process_learns_from_all_their_frames(states):
    alone, partial = make(), make()
    for step in range(STEPS):
        alone(share(step))
        partial(share(step, 1))
    assert states[0]["updates"] == STEPS
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(states[0][name], value, msg=name)
    assert not torch.allclose(partial.codebook, alone.codebook)  # each rank's frames count
