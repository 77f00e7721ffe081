"""Sets the learning rates: SpeechBrain's and torch's schedules as functions of the step."""

import copy
import functools
import inspect
import math
import warnings
from typing import Any

import torch
from speechbrain.nnet.schedulers import CyclicLRScheduler
from torch.optim import lr_scheduler

from ..errors import RunError

# A schedule with such a word in the name of a parameter follows epochs or losses, not steps.
NOT_BY_STEP = ("epoch", "loss", "metric")
ROUNDING = 1e-12  # SpeechBrain's WarmCoolDecayLRSchedule may end this far below 0


class Schedule:
    """Sets the learning rates of a step, for every kind of schedule that a YAML can name.

    The rates are a function of the step. Some schedules count their calls: this class calls them
    once for each step, and after a resume again for each earlier step. So no checkpoint holds the
    state of a schedule, and a step that was left out counts. The kinds of ``lr_schedule:`` are

    - null: the rates of the optimiser stay;
    - a function of the optimiser and the step, from 1, such as SpeechBrain's
      ``WarmCoolDecayLRSchedule`` and ``TriStageLRSchedule``;
    - an object that is called with the optimiser and counts its calls, such as SpeechBrain's
      ``NoamScheduler``;
    - a scheduler of torch, by ``!name:``. The ``schedulers:`` of a ``SequentialLR`` or a
      ``ChainedScheduler`` are by ``!name:``, too. A function that makes a scheduler of torch from
      the optimiser works as well.

    The rate of each group is then multiplied by its ``lr_scale``, if the group has one.

    Arguments
    ---------
    lr_schedule : callable or None
        ``lr_schedule:`` of the YAML; not changed.
    optimizer : torch.optim.Optimizer
        The optimiser whose rates are set. torch's schedulers start from its present rates.

    Raises
    ------
    RunError
        If the schedule cannot be called by step, fails, or gives no learning rate. Or if the
        optimiser has no learning rate.

    Example
    -------
    >>> import torch
    >>> from speechbrain.nnet.schedulers import NoamScheduler
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    >>> schedule = Schedule(NoamScheduler(lr_initial=1.0, n_warmup_steps=4), optimizer)
    >>> schedule.set_rates(2)
    >>> optimizer.param_groups[0]["lr"]
    0.5
    """

    def __init__(self, lr_schedule: Any, optimizer: torch.optim.Optimizer):
        if any("lr" not in group for group in optimizer.param_groups):
            raise RunError(
                f"optimizer: {name_of(optimizer)} has no lr in its groups of parameters, and the "
                f"learning rate of each step is set there; take another one in your YAML, such as "
                f"!name:torch.optim.AdamW"
            )
        self.optimizer = optimizer
        self.name = name_of(lr_schedule)
        self.step = 0  # the step that the rates belong to
        self.rates = [group["lr"] for group in optimizer.param_groups]  # before lr_scale
        self.scheduler: Any = None  # torch's scheduler, from the first step on
        self.call, self.counts_calls = self._kind(lr_schedule)

    def set_rates(self, step: int) -> None:
        """Sets the learning rates of a step.

        Arguments
        ---------
        step : int
            Number of the step, from 1.
        """
        first = self.step + 1 if self.counts_calls else step
        for self.step in range(first, step + 1):
            self._set(self.optimizer.param_groups)

    def _set(self, groups):
        for group, rate in zip(groups, self.rates):
            group["lr"] = rate  # some schedules continue from the rate that they set last
        try:
            self.call()
        except RunError:
            raise
        except Exception as error:  # the code of the schedule is not ours
            text = " ".join(str(error).split())
            raise RunError(
                f"lr_schedule: {self.name} fails at step {self.step} "
                f"({type(error).__name__}: {text}); correct it in your YAML, or set "
                f"lr_schedule: null for a constant rate"
            ) from error
        self.rates = [group["lr"] for group in groups]
        for group, rate in zip(groups, self.rates):
            if not -ROUNDING <= rate < math.inf:
                raise RunError(
                    f"lr_schedule: {self.name} gives the learning rate {float(rate):g} at step "
                    f"{self.step}; set its steps to optimizer_step_limit: in your YAML"
                )
            group["lr"] = rate * group.get("lr_scale", 1.0)

    def _kind(self, given):
        """Returns what to call for a step, and whether all earlier steps need a call, too."""
        if given is None:
            return (lambda: None), False
        if isinstance(given, lr_scheduler.LRScheduler):
            raise RunError(
                f"lr_schedule: {self.name} is already made, for another optimiser; write !name: "
                f"instead of !new: in your YAML"
            )
        made_by = given.func if isinstance(given, functools.partial) else given
        is_class = inspect.isclass(made_by)
        if is_class and not issubclass(made_by, lr_scheduler.LRScheduler):
            raise RunError(
                f"lr_schedule: {self.name} is a class; write !new: instead of !name: in your YAML, "
                f"with its arguments below"
            )
        if is_class and issubclass(made_by, lr_scheduler.ReduceLROnPlateau):
            raise self._not_by_step()
        if is_class:
            return functools.partial(self._torch_step, given), True
        if isinstance(given, CyclicLRScheduler):  # calling it would count epochs
            counter = copy.deepcopy(given)
            return (lambda: counter.on_batch_end(self.optimizer)), True
        parameters = required_parameters(given)
        if any(word in name for name in parameters for word in NOT_BY_STEP):
            raise self._not_by_step()
        if len(parameters) == 2:
            return (lambda: given(self.optimizer, self.step)), False
        if len(parameters) != 1:
            raise self._not_by_step()
        if inspect.isroutine(made_by):
            return functools.partial(self._torch_step, given), True
        counter = copy.deepcopy(given)
        return (lambda: counter(self.optimizer)), True

    def _torch_step(self, make):
        """Steps torch's scheduler. The first call makes it, and this sets the first rates."""
        if self.scheduler is not None:
            self.scheduler.step()
            return
        # A step with a non-finite loss does not call the optimiser, and torch warns about that.
        warnings.filterwarnings("ignore", "Detected call of .lr_scheduler.step", UserWarning)
        self.scheduler = make_torch_scheduler(make, self.optimizer)
        if not hasattr(self.scheduler, "step"):
            raise TypeError(
                f"a function of the optimiser alone has to return a scheduler of torch, got "
                f"{type(self.scheduler).__name__}"
            )

    def _not_by_step(self):
        return RunError(
            f"lr_schedule: {self.name} follows epochs or losses, but here the learning rate is set "
            f"by the step; take one by step in your YAML, such as "
            f"!new:speechbrain.nnet.schedulers.NoamScheduler, or null for a constant rate"
        )


def ema_decay(step: int, start: float, end: float, steps: int) -> float:
    """The decay of a moving average, which goes from ``start`` to ``end`` in the first ``steps``.

    Example
    -------
    >>> [round(ema_decay(step, 0.9, 0.99, 100), 3) for step in (0, 50, 100, 200)]
    [0.9, 0.945, 0.99, 0.99]
    """
    return start + (end - start) * (min(step / steps, 1.0) if steps else 1.0)


def make_torch_scheduler(make: Any, optimizer: torch.optim.Optimizer) -> Any:
    """Makes a scheduler of torch from a ``!name:`` node, and the schedulers inside it.

    Example
    -------
    >>> import torch
    >>> of = lambda name, **keys: functools.partial(getattr(lr_scheduler, name), **keys)
    >>> parts = [of("LinearLR", start_factor=0.5, total_iters=2), of("ConstantLR", factor=1.0)]
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    >>> _ = make_torch_scheduler(of("SequentialLR", schedulers=parts, milestones=[2]), optimizer)
    >>> optimizer.param_groups[0]["lr"]
    0.5
    """
    parts = getattr(make, "keywords", {}).get("schedulers")
    if parts is None:
        return make(optimizer)
    parts = [make_torch_scheduler(part, optimizer) for part in parts]
    return make.func(optimizer=optimizer, **{**make.keywords, "schedulers": parts})


def required_parameters(function: Any) -> list[str]:
    """Names of the required arguments of a callable; two names if it takes any number."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # not callable, or written in C
        return []
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return ["optimizer", "step"]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in parameters if p.kind in positional and p.default is p.empty]


def name_of(thing: Any) -> str:
    """The name of the class or function behind a value of a YAML.

    Example
    -------
    >>> name_of(functools.partial(lr_scheduler.StepLR, step_size=2))
    'StepLR'
    """
    thing = thing.func if isinstance(thing, functools.partial) else thing
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        thing = type(thing)
    return thing.__qualname__
