"""The promise about ranks, and the processes that it takes."""

import multiprocessing
import pickle
import tempfile
from datetime import timedelta
from pathlib import Path

import torch

from .promise import build, draw_frames, expect, expect_same, promise

RANKS = 2


@promise
def check_ranks(make, input_dim):
    """A frame has the same code on any rank: two processes encode one half each."""
    quantiser, x_BTI = build(make, input_dim), draw_frames(input_dim, RANKS, 60)
    codes_BTG = quantiser.encode(x_BTI)
    try:
        pickle.dumps(make)
    except (pickle.PicklingError, AttributeError, TypeError):
        make = None  # a lambda, for one: the ranks get a copy of the module
    job = (make, input_dim, quantiser if make is None else quantiser.state_dict(), x_BTI)
    with tempfile.TemporaryDirectory() as folder:
        torch.save(job, Path(folder, "job.pt"))
        in_processes(encode_share, folder)
        shares = [torch.load(Path(folder, f"codes_{rank}.pt")) for rank in range(RANKS)]
    remedy = "compute codes from the frame and the state, and gather nothing in encode"
    expect_same(torch.cat(shares), codes_BTG, "on two ranks the codes of one process", remedy)


def in_processes(function, folder):
    """Calls function(rank, folder) in one process per rank."""
    method = "spawn"
    if "forkserver" in multiprocessing.get_all_start_methods():
        # One process imports, once, what is slow to import, and all others are its forks.
        method = "forkserver"
        multiprocessing.set_forkserver_preload(["__main__", __name__, "torch._dynamo", "numba"])
    try:
        torch.multiprocessing.start_processes(function, (folder,), RANKS, start_method=method)
    except torch.multiprocessing.ProcessExitedException as error:
        remedy = 'in a script, call the check under if __name__ == "__main__":'
        expect(False, f"{RANKS} processes that encode", f"{error}", remedy)


def encode_share(rank, folder):
    """What one rank does: it builds the quantiser as a run does, and encodes its frames."""
    torch.set_num_threads(1)
    make, input_dim, state, x_BTI = torch.load(Path(folder, "job.pt"), weights_only=False)
    torch.distributed.init_process_group(
        "gloo",
        store=torch.distributed.FileStore(str(Path(folder, "store")), RANKS),
        rank=rank,
        world_size=RANKS,
        timeout=timedelta(seconds=60),
    )
    torch.distributed.barrier()  # or the first to be done is gone before the other has met it
    try:
        if make is None:
            quantiser = state
        else:
            quantiser = build(make, input_dim, seed=rank, started=False)
            quantiser.load_state_dict(state)
        torch.save(quantiser.encode(x_BTI[rank : rank + 1]), Path(folder, f"codes_{rank}.pt"))
    finally:
        torch.distributed.destroy_process_group()
