"""Makes the optimiser: tries it before the first step; keeps the YAML's options at a resume."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from ..errors import RunError
from .schedules import Schedule, name_of


def make_optimizer(
    opt_class: Callable[..., torch.optim.Optimizer],
    groups: Iterable[Any],
    lr_schedule: Any,
    last_step: int | None = None,
) -> torch.optim.Optimizer:
    """Makes the optimiser of the YAML, after a trial of it and of the learning rates.

    The trial makes a step with small parameters in each group and runs the schedule to its end. So
    an optimiser or schedule that cannot work ends the run before its first step.

    Arguments
    ---------
    opt_class : callable
        Makes the optimiser from parameters or groups of them.
    groups : iterable
        Parameters or groups.
    lr_schedule : callable or None
        ``lr_schedule:`` of the YAML, see ``Schedule``.
    last_step : int or None
        The last step of the run, if it is known.

    Returns
    -------
    optimizer : torch.optim.Optimizer
        Its ``load_state_dict`` keeps the options of the YAML, see ``keep_options``.

    Raises
    ------
    RunError
        If the optimiser or the schedule cannot work.

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
    except Exception as error:  # the code of the optimiser is not ours
        text = " ".join(str(error).split())
        if "closure" in text:
            text = "it computes the loss several times in a step, by a closure"
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
    """Makes an optimiser with the same groups, but small parameters.

    A group gets one parameter for each number of dimensions in it, because some optimisers, such
    as Adafactor, keep a different state for a matrix than for a vector.
    """
    groups = []
    for group in optimizer.param_groups:
        device = next((parameter.device for parameter in group["params"]), "cpu")
        dims = sorted({parameter.dim() for parameter in group["params"]})
        small = [torch.zeros([2] * dim, device=device, requires_grad=True) for dim in dims]
        groups.append({**group, "params": small})
    return opt_class(groups)


def _options(optimizer):
    """Everything in the groups of an optimiser except their parameters."""
    return [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]


def keep_options(
    optimizer: torch.optim.Optimizer, state_names: set[str], *, learns_options: bool = False
) -> None:
    """Makes ``load_state_dict`` keep the options of the YAML.

    torch would take all options, such as weight decay and betas, from the checkpoint.

    Arguments
    ---------
    optimizer : torch.optim.Optimizer
        As the YAML makes it.
    state_names : set of str
        Names of the state that it keeps for a parameter.
    learns_options : bool
        Whether a step changes the options: some optimisers of other packages count or learn there.
        In that case only the learning rate comes from the YAML.

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
        options = [{"lr": group["lr"]} for group in options]
    sizes = [len(group["params"]) for group in optimizer.param_groups]

    def put_back(optimizer, state_dict):
        groups = state_dict["param_groups"]
        saved_sizes = [len(group["params"]) for group in groups]
        if saved_sizes != sizes:
            raise RunError(
                f"the optimiser has {_described(saved_sizes)} in the checkpoint, but with the YAML "
                f"{_described(sizes)}; go back to the YAML that the checkpoint was made with, or "
                f"begin in a new output_folder: (a pretraining can begin_from: this one)"
            )
        saved_names = {name for state in state_dict["state"].values() for name in state}
        if saved_names and saved_names != state_names:
            raise RunError(
                f"the optimiser keeps {', '.join(sorted(saved_names))} in the checkpoint, but with "
                f"the YAML {', '.join(sorted(state_names)) or 'nothing'}: a run cannot change its "
                f"optimiser; go back to the former one, or begin in a new output_folder: (a "
                f"pretraining can begin_from: this one)"
            )
        kept = [{**group, **now} for group, now in zip(groups, options)]
        for group in kept:
            group.pop("initial_lr", None)  # torch's schedule starts anew
        return {**state_dict, "param_groups": kept}

    optimizer.register_load_state_dict_pre_hook(put_back)


def _described(sizes):
    return f"{len(sizes)} group(s) of {', '.join(map(str, sizes))} parameters"
