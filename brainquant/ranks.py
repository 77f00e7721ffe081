"""This process as one rank of a run, and the small messages between ranks."""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
from speechbrain.utils.distributed import (
    ddp_init_group,
    is_distributed_initialized,
    main_process_only,
)

# torch documents both as public, but its type hints do not export them.
from torch.distributed import PrefixStore, TCPStore  # pyright: ignore[reportPrivateImportUsage]

# torchrun starts a rank only after its agents have met, so it answers quickly.
LAUNCHER_TIMEOUT = timedelta(seconds=30)
_control_groups = {}

T = TypeVar("T")


def join_group(run_opts: Any) -> None:
    """Makes this process a rank of the run, if ``torchrun`` started it.

    Calls ``speechbrain.utils.distributed.ddp_init_group``, except after a restart by ``torchrun
    --max-restarts``: torch (at least 2.11) gives the new ranks the store of the failed ones. The
    store holds addresses where nobody answers any more (pytorch/pytorch#167288).

    Arguments
    ---------
    run_opts : speechbrain.utils.run_opts.RunOptions
        Has ``distributed_backend``.

    Raises
    ------
    ValueError
        If torchrun has already ended. torch would try to reach it for two hours.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if shared:
        _check_launcher()
    # On several nodes the agents may count differently: see docs/explanation/reliability.md.
    one_node = os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE")
    if not (shared and one_node and int(attempt) > 0):
        ddp_init_group(run_opts)
        return
    timeout = timedelta(hours=2)  # as SpeechBrain
    number, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if (backend := run_opts.distributed_backend) == "nccl":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    store = PrefixStore(f"attempt {attempt}", _connect_to_store(timeout))
    torch.distributed.init_process_group(
        backend, store=store, rank=number, world_size=size, timeout=timeout
    )


def _check_launcher():
    try:
        _connect_to_store(LAUNCHER_TIMEOUT)
    except RuntimeError as error:
        raise ValueError(
            f"torchrun does not answer at {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}, "
            f"it seems to have ended; start the run again"
        ) from error


def _connect_to_store(timeout):
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(address, port, is_master=False, timeout=timeout)


def rank() -> int:
    """Number of this process in the run, from 0."""
    return torch.distributed.get_rank() if is_distributed_initialized() else 0


def world_size() -> int:
    """Number of processes of the run."""
    return torch.distributed.get_world_size() if is_distributed_initialized() else 1


def control_group() -> Any:
    """A process group for small messages between CPUs, which never waits for a GPU.

    The first call creates it; every rank has to make this call at the same point.
    """
    default = torch.distributed.group.WORLD
    if default not in _control_groups:
        gloo = torch.distributed.get_backend() == "gloo"
        _control_groups[default] = default if gloo else torch.distributed.new_group(backend="gloo")
    return _control_groups[default]


def add_over_ranks(*numbers: int) -> list[int]:
    """Sums of whole numbers over ranks. A collective: every rank has to call it.

    Example
    -------
    >>> add_over_ranks(1, False, 5)
    [1, 0, 5]
    """
    sums = torch.tensor([int(number) for number in numbers])
    if world_size() > 1:
        torch.distributed.all_reduce(sums, group=control_group())
    return sums.tolist()


def gather_over_ranks(value: T) -> list[T]:
    """The values of all ranks, in the order of ranks. A collective: every rank has to call it.

    Arguments
    ---------
    value : object
        Anything that can be pickled.

    Returns
    -------
    values : list
        The same on every rank.

    Example
    -------
    >>> gather_over_ranks("mine")
    ['mine']
    """
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    torch.distributed.all_gather_object(values, value, group=control_group())
    return values


def on_main_process(function: Callable[[], T]) -> T:
    """Calls a function on the main process; every rank gets its result or its error.

    (If the function raises, SpeechBrain 1.1.2's ``main_process_only`` makes the other ranks wait
    for ever.)

    Arguments
    ---------
    function : callable
        Takes no arguments. It may call functions that are ``main_process_only`` themselves.

    Returns
    -------
    result : object
        The function's result, which must be picklable.

    Raises
    ------
    Exception
        On the main process, the function's error. On the other ranks, the same error if it is a
        ValueError with only a text. Otherwise a RuntimeError that quotes it.

    Example
    -------
    >>> on_main_process(lambda: 5)
    5
    """
    errors = []

    @main_process_only
    def attempt() -> Any:
        try:
            return function(), None
        except Exception as error:
            errors.append(error)
            if isinstance(error, ValueError) and error.args == (str(error),):
                return None, (type(error), str(error))
            return None, (RuntimeError, f"on rank 0, {type(error).__name__}: {error}")

    result, failure = attempt()
    if errors:
        raise errors[0]
    if failure is not None:
        kind, text = failure
        raise kind(text)
    return result


def leave_group() -> None:
    """Waits for all ranks and ends their group. If a rank just exits, gloo makes others abort."""
    if is_distributed_initialized():
        torch.distributed.barrier()
        _control_groups.clear()
        torch.distributed.destroy_process_group()
