"""A training that takes milliseconds, with checkpoints and one right result."""

import functools
import os
import pickle
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import torch
from speechbrain.utils.epoch_loop import EpochCounter
from syscalls import disk_calls, fork, in_child

from brainquant.training.checkpoints import Checkpointer

LAST_STEP = 6


class SmallRun:
    """Six steps of a small model. Like a recipe, it continues from its last checkpoint."""

    def __init__(self, folder, checkpointer_class=Checkpointer, hidden=1024):
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(
            torch.nn.Linear(4, hidden), torch.nn.BatchNorm1d(hidden), torch.nn.Linear(hidden, 1)
        )
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.1)
        self.steps = EpochCounter(LAST_STEP)
        self.checkpointer = checkpointer_class(
            folder, {"model": self.model, "optimizer": self.optimizer, "steps": self.steps}
        )

    def recover(self):
        self.checkpointer.recover_if_possible()
        return self

    def train(self, until=LAST_STEP):
        """Trains until a step and returns the loss of that step."""
        loss = None
        while self.steps.current < until:
            self.steps.current += 1
            draw = torch.Generator().manual_seed(self.steps.current)
            # Gradients by hand: autograd refuses to work in a fork of a process that has used it.
            with torch.no_grad():
                loss = self.model(torch.randn(16, 4, generator=draw)).square().mean()
                for parameter in self.model.parameters():
                    parameter.grad = parameter - torch.randn(parameter.shape, generator=draw)
                    loss += parameter.grad.square().mean() / 2
            self.optimizer.step()
        return loss.item()

    def save(self, **options):
        return self.checkpointer.save_and_keep_only(meta={"step": self.steps.current}, **options)

    def state(self):
        """Everything that a checkpoint has to restore, as bytes."""
        tensors = [*self.model.state_dict().values()]
        for moments in self.optimizer.state_dict()["state"].values():
            tensors += moments.values()
        return str(self.steps.current).encode() + b"".join(t.numpy().tobytes() for t in tensors)


def never_killed(folder, **options):
    """Returns the states at steps 2 and 4 and the last loss, and saves a checkpoint of step 2."""

    def start():
        run = SmallRun(folder)
        run.train(2)
        run.save(**options)
        old = run.state()
        run.train(4)
        return old, run.state(), run.train()

    SmallRun(folder).train(1)  # does the slow imports, once for all children
    return in_child(start)


def save_at_step_4(folder, kill_at=None, **options):
    """Saves at step 4, deletes the checkpoint of step 2, and returns the calls that did it."""

    def prepare():
        run = SmallRun(folder).recover()
        run.train(4)
        return lambda: run.save(**options)

    return disk_calls(prepare, kill_at=kill_at)


def resume(folder, **options):
    """Starts the run again; returns what it loads, its last loss and the files in its folder."""

    def start():
        run = SmallRun(folder).recover()
        loaded, loss = run.state(), run.train()
        run.save(**options)
        return loaded, loss, sorted(path.name for path in Path(folder).iterdir())

    return in_child(start)


def count_calls(function):
    """Counts the calls of Python functions and builtins in a function."""
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
    return calls


def ranks(function, number=2):
    """Calls function(rank) on each rank of a gloo group, in forked processes."""
    with tempfile.TemporaryDirectory() as folder:

        def rank(number_of_rank):
            torch.distributed.init_process_group(
                "gloo",
                store=torch.distributed.FileStore(f"{folder}/store", number),
                rank=number_of_rank,
                world_size=number,
                timeout=timedelta(seconds=60),
            )
            os.environ["RANK"] = str(number_of_rank)
            result = function(number_of_rank)
            torch.distributed.barrier()
            Path(folder, f"result_{number_of_rank}").write_bytes(pickle.dumps(result))

        pids = [fork(functools.partial(rank, r)) for r in range(number)]
        statuses = [os.waitpid(pid, 0)[1] for pid in pids]
        assert statuses == [0] * number, "a rank has failed: see its traceback"
        return [pickle.loads(Path(folder, f"result_{r}").read_bytes()) for r in range(number)]
