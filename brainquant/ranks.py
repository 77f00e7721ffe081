"""This process among the ranks of a run, and the little that they tell each other."""

import os
from datetime import timedelta

import torch
from speechbrain.utils.distributed import (
    ddp_init_group,
    is_distributed_initialized,
    main_process_only,
)

LAUNCHER_TIMEOUT = timedelta(seconds=30)  # it has met all others before it starts a rank
_control_groups = {}


def join_group(run_opts):
    """Makes this process a rank of the run, where ``torchrun`` has started it.

    As ``speechbrain.utils.distributed.ddp_init_group``, which is called for all but this: torch
    (2.11 at least) gives the ranks that ``torchrun --max-restarts`` starts again the store of
    those that have failed, and with it their addresses, where nobody answers any more
    (pytorch/pytorch#167288).

    Arguments
    ---------
    run_opts : RunOptions
        Reads ``distributed_backend``.

    Raises
    ------
    ValueError
        Where torchrun has ended already: torch would look for it for two hours.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if shared:
        _check_launcher()
    # On several nodes the agents may count differently: see docs/reliability.md.
    one_node = os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE")
    if not (shared and one_node and int(attempt) > 0):
        ddp_init_group(run_opts)
        return
    timeout = timedelta(hours=2)  # SpeechBrain's
    number, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if (backend := run_opts.distributed_backend) == "nccl":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = torch.distributed.TCPStore(address, port, is_master=False, timeout=timeout)
    store = torch.distributed.PrefixStore(f"attempt {attempt}", store)
    torch.distributed.init_process_group(
        backend, store=store, rank=number, world_size=size, timeout=timeout
    )


def _check_launcher():
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        torch.distributed.TCPStore(address, port, is_master=False, timeout=LAUNCHER_TIMEOUT)
    except RuntimeError as error:
        raise ValueError(
            f"torchrun does not answer at {address}:{port}, it seems to have ended; start the "
            f"run again"
        ) from error


def rank():
    """Number of this process in the run, from 0."""
    return torch.distributed.get_rank() if is_distributed_initialized() else 0


def world_size():
    """Processes of the run."""
    return torch.distributed.get_world_size() if is_distributed_initialized() else 1


def control_group():
    """A group for small messages between CPUs: it never waits for a GPU.

    Made on first use, which has to be at the same place on every rank.
    """
    default = torch.distributed.group.WORLD
    if default not in _control_groups:
        gloo = torch.distributed.get_backend() == "gloo"
        _control_groups[default] = default if gloo else torch.distributed.new_group(backend="gloo")
    return _control_groups[default]


def add_over_ranks(*numbers):
    """Sums of whole numbers over ranks; a collective, so every rank has to call it.

    Example
    -------
    >>> add_over_ranks(1, False, 5)
    [1, 0, 5]
    """
    numbers = torch.tensor([int(number) for number in numbers])
    if world_size() > 1:
        torch.distributed.all_reduce(numbers, group=control_group())
    return numbers.tolist()


def gather_over_ranks(value):
    """What each rank has, in the order of ranks; a collective, so every rank has to call it.

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
    values = [None] * world_size()
    torch.distributed.all_gather_object(values, value, group=control_group())
    return values


def on_main_process(function):
    """Calls a function on the main process; every rank gets its result, or raises its error.

    (Where the function raises, SpeechBrain 1.1.2's ``main_process_only`` lets the others wait for
    ever.)

    Arguments
    ---------
    function : callable
        Called without arguments. It may call what is ``main_process_only`` itself.

    Returns
    -------
    result : object
        What the function gave; can be pickled.

    Raises
    ------
    Exception
        On the main process, as it is. On the others a ValueError of one text is the same there,
        and any other error a RuntimeError that quotes it.

    Example
    -------
    >>> on_main_process(lambda: 5)
    5
    """
    errors = []

    @main_process_only
    def attempt():
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


def leave_group():
    """Waits for all ranks and ends their group: ranks that just exit make gloo abort others."""
    if is_distributed_initialized():
        torch.distributed.barrier()
        _control_groups.clear()
        torch.distributed.destroy_process_group()
