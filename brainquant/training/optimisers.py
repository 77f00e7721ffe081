"""The optimiser of a run: tried before the first step, and as the YAML has it after a resume."""

import torch

from ..errors import RunError
from .schedules import Schedule, name_of


def make_optimizer(opt_class, groups, lr_schedule, last_step=None):
    """The optimiser of the YAML, after a trial of it and of the learning rates.

    The trial makes a step with small parameters in each group and goes through the schedule to its
    end: what cannot work ends the run before its first step.

    Arguments
    ---------
    opt_class : callable
        Makes the optimiser from parameters or groups of them.
    groups : iterable
        Parameters or groups.
    lr_schedule : callable or None
        ``lr_schedule`` of the YAML, see ``Schedule``.
    last_step : int or None
        Of the run, where it is known.

    Returns
    -------
    optimizer : torch.optim.Optimizer
        Whose ``load_state_dict`` keeps the options of the YAML, see ``keep_options``.

    Raises
    ------
    RunError
        Where the optimiser or the schedule cannot work.

    Example
    -------
    >>> weights = [torch.nn.Parameter(torch.zeros(2, 2))]
    >>> make_optimizer(torch.optim.SparseAdam, weights, None)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    brainquant.errors.RunError: optimizer: SparseAdam cannot train here (SparseAdam does...
    """
    try:
        optimizer = opt_class(groups)
        trial = _small_copy(opt_class, optimizer)
        before = _options(trial)
        for group in trial.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.ones_like(parameter)
        trial.step()
    except Exception as error:  # of code that is not ours
        text = " ".join(str(error).split())
        if "closure" in text:
            text = "it asks for the loss several times in a step, by a closure"
        raise RunError(
            f"optimizer: {name_of(opt_class)} cannot train here ({text}); correct it in your "
            f"YAML, or take another one, such as !name:torch.optim.AdamW"
        ) from error
    schedule = Schedule(lr_schedule, _small_copy(opt_class, optimizer))
    schedule.set_rates(1)
    schedule.set_rates(last_step or 1)
    state_names = {name for state in trial.state.values() for name in state}
    keep_options(optimizer, state_names, learns_options=_options(trial) != before)
    return optimizer


def _small_copy(opt_class, optimizer):
    """An optimiser with the same groups, of small parameters.

    Each group has one parameter for each number of dimensions in it: Adafactor, for one, keeps
    other things for a matrix than for a vector.
    """
    groups = []
    for group in optimizer.param_groups:
        device = next((parameter.device for parameter in group["params"]), "cpu")
        dims = sorted({parameter.dim() for parameter in group["params"]})
        small = [torch.zeros([2] * dim, device=device, requires_grad=True) for dim in dims]
        groups.append({**group, "params": small})
    return opt_class(groups)


def _options(optimizer):
    """What the groups of an optimiser have besides their parameters."""
    return [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]


def keep_options(optimizer, state_names, *, learns_options=False):
    """Keeps the options of the YAML through ``load_state_dict``.

    torch takes ``param_groups`` from the checkpoint, and with them its weight decay, betas and
    all other options.

    Arguments
    ---------
    optimizer : torch.optim.Optimizer
        As the YAML makes it.
    state_names : set of str
        What it keeps for a parameter.
    learns_options : bool
        Whether a step changes its options, as some optimisers of other packages count and learn
        there. The options of the checkpoint are kept then, but for the learning rate.

    Example
    -------
    >>> weights = [torch.nn.Parameter(torch.zeros(2))]
    >>> then = torch.optim.AdamW(weights, weight_decay=0.1).state_dict()
    >>> now = torch.optim.AdamW(weights, weight_decay=0.5)
    >>> keep_options(now, {"step", "exp_avg", "exp_avg_sq"})
    >>> now.load_state_dict(then)
    >>> now.param_groups[0]["weight_decay"]
    0.5
    """
    options = _options(optimizer)
    if learns_options:
        options = [{"lr": group["lr"]} for group in options if "lr" in group]
    sizes = [len(group["params"]) for group in optimizer.param_groups]

    def put_back(optimizer, state_dict):
        groups = state_dict["param_groups"]
        saved_sizes = [len(group["params"]) for group in groups]
        if saved_sizes != sizes:
            raise RunError(
                f"the optimiser of the checkpoint has {_described(saved_sizes)}, that of the YAML "
                f"{_described(sizes)}; go back to the YAML that the checkpoint was made with, or "
                f"begin in a new output_folder: (a pretraining with begin_from: this one)"
            )
        saved_names = {name for state in state_dict["state"].values() for name in state}
        if saved_names and saved_names != state_names:
            raise RunError(
                f"the optimiser of the checkpoint keeps {', '.join(sorted(saved_names))}, that of "
                f"the YAML {', '.join(sorted(state_names)) or 'nothing'}: a run cannot change its "
                f"optimiser; go back to the one of then, or begin in a new output_folder: (a "
                f"pretraining with begin_from: this one)"
            )
        kept = [{**group, **now} for group, now in zip(groups, options)]
        for group in kept:
            group.pop("initial_lr", None)  # of a schedule of torch, which starts anew
        return {**state_dict, "param_groups": kept}

    optimizer.register_load_state_dict_pre_hook(put_back)


def _described(sizes):
    return f"{len(sizes)} group(s) of {', '.join(map(str, sizes))} parameters"
