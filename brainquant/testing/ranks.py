"""The promise about ranks, and the processes that check it."""

import multiprocessing
import pickle
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch

# torch documents it as public, but its type hints do not export it.
from torch.distributed import FileStore  # pyright: ignore[reportPrivateImportUsage]
from torch.multiprocessing.spawn import ProcessExitedException, start_processes

from .promise import Make, build, draw_frames, expect, expect_same, promise

RANKS = 2


@promise
def check_ranks(make: Make, input_dim: int) -> None:
    """A frame has the same code on any rank. Two processes encode half of the frames each."""
    quantiser, x_BTI = build(make, input_dim), draw_frames(input_dim, RANKS, 60)
    codes_BTG = quantiser.encode(x_BTI)
    try:
        pickle.dumps(make)
    except (pickle.PicklingError, AttributeError, TypeError):
        # For example, make is a lambda: the ranks get a copy of the quantiser instead.
        job = (None, input_dim, quantiser, x_BTI)
    else:
        job = (make, input_dim, quantiser.state_dict(), x_BTI)
    with tempfile.TemporaryDirectory() as folder:
        torch.save(job, Path(folder, "job.pt"))
        in_processes(encode_share, folder)
        shares = [torch.load(Path(folder, f"codes_{rank}.pt")) for rank in range(RANKS)]
    remedy = "compute codes from the frame and the state, and gather nothing in encode"
    expect_same(
        torch.cat(shares), codes_BTG, "the same codes on two ranks as in one process", remedy
    )


def in_processes(function: Callable[[int, str], None], folder: str | Path) -> None:
    """Calls function(rank, folder) in a process for each rank."""
    method = "spawn"
    if "forkserver" in multiprocessing.get_all_start_methods():
        # One process does the slow imports; the others are forks of it.
        method = "forkserver"
        multiprocessing.set_forkserver_preload(["__main__", __name__, "torch._dynamo", "numba"])
    try:
        start_processes(function, (folder,), RANKS, start_method=method)
    except ProcessExitedException as error:
        remedy = 'in a script, call the check under if __name__ == "__main__":'
        expect(False, f"{RANKS} processes that encode", f"{error}", remedy)


def encode_share(rank: int, folder: str) -> None:
    """Builds the quantiser on one rank, as a run does, and encodes this rank's frames."""
    torch.set_num_threads(1)
    make, input_dim, state, x_BTI = torch.load(Path(folder, "job.pt"), weights_only=False)
    torch.distributed.init_process_group(
        "gloo",
        store=FileStore(str(Path(folder, "store")), RANKS),
        rank=rank,
        world_size=RANKS,
        timeout=timedelta(seconds=60),
    )
    torch.distributed.barrier()  # otherwise one rank may end before the other has connected
    try:
        if make is None:
            quantiser = state
        else:
            quantiser = build(make, input_dim, seed=rank, started=False)
            quantiser.load_state_dict(state)
        torch.save(quantiser.encode(x_BTI[rank : rank + 1]), Path(folder, f"codes_{rank}.pt"))
    finally:
        torch.distributed.destroy_process_group()
