"""Learning rates: SpeechBrain's and torch's schedules as functions of the step."""

import copy
import functools
import inspect
import math
import warnings

from speechbrain.nnet.schedulers import CyclicLRScheduler
from torch.optim import lr_scheduler

from ..errors import RunError

# What the parameters of a schedule are called that knows epochs or losses, and no steps.
NOT_BY_STEP = ("epoch", "loss", "metric")
ROUNDING = 1e-12  # SpeechBrain's WarmCoolDecayLRSchedule may end that much below 0


class Schedule:
    """Sets the learning rates of a step, whatever kind of schedule the YAML names.

    The rates are a function of the step. A schedule that counts its calls is called once for each
    step, and again for each of them after a resume: nothing of it is in a checkpoint, and a step
    that was left out counts. The kinds, for ``lr_schedule:``

    - null: the rates are those of the optimiser;
    - what is called with the optimiser and the step, from 1: SpeechBrain's
      ``WarmCoolDecayLRSchedule`` and ``TriStageLRSchedule``, or a function;
    - what is called with the optimiser, and counts: SpeechBrain's ``NoamScheduler`` and others;
    - torch's schedulers, by ``!name:``. Those in ``schedulers:`` of a ``SequentialLR`` or a
      ``ChainedScheduler`` are by ``!name:``, too. A function that makes a scheduler of torch from
      the optimiser is as good.

    Each group's rate is then multiplied with its ``lr_scale``, where it has one.

    Arguments
    ---------
    lr_schedule : callable or None
        ``lr_schedule`` of the YAML; not changed.
    optimizer : torch.optim.Optimizer
        Whose rates are set. Its present ones are those that torch's schedulers start from.

    Raises
    ------
    RunError
        Where the schedule cannot be one by step, fails, or gives no learning rate.

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

    def __init__(self, lr_schedule, optimizer):
        self.optimizer = optimizer
        self.name = name_of(lr_schedule)
        self.step = 0  # whose rates are set
        self.rates = [group["lr"] for group in optimizer.param_groups]  # before lr_scale
        self.scheduler = None  # of torch, from the first step on
        self.call, self.counts_calls = self._kind(lr_schedule)

    def set_rates(self, step):
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
            group["lr"] = rate  # some schedules go on from the rate that they have set
        try:
            self.call()
        except RunError:
            raise
        except Exception as error:  # of code that is not ours
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
        """What to call for each step, and whether it has to be called for all before it."""
        if given is None:
            return (lambda: None), False
        if isinstance(given, lr_scheduler.LRScheduler):
            raise RunError(
                f"lr_schedule: {self.name} is made already, of another optimiser; say !name: in "
                f"the place of !new: in your YAML"
            )
        made_by = given.func if isinstance(given, functools.partial) else given
        is_class = inspect.isclass(made_by)
        if is_class and not issubclass(made_by, lr_scheduler.LRScheduler):
            raise RunError(
                f"lr_schedule: {self.name} is a class; say !new: in the place of !name: in your "
                f"YAML, with its arguments below"
            )
        if is_class and issubclass(made_by, lr_scheduler.ReduceLROnPlateau):
            raise self._not_by_step()
        if is_class:
            return functools.partial(self._torch_step, given), True
        if isinstance(given, CyclicLRScheduler):  # which is called by epoch otherwise
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
        """A step of torch's scheduler, which sets the first rates when it is made."""
        if self.scheduler is not None:
            self.scheduler.step()
            return
        # A step that is not finite calls no optimiser; torch warns of that.
        warnings.filterwarnings("ignore", "Detected call of .lr_scheduler.step", UserWarning)
        self.scheduler = make_torch_scheduler(make, self.optimizer)
        if not hasattr(self.scheduler, "step"):
            raise TypeError(
                f"a function of the optimiser alone has to give a scheduler of torch, got "
                f"{type(self.scheduler).__name__}"
            )

    def _not_by_step(self):
        return RunError(
            f"lr_schedule: {self.name} follows epochs or losses, and the learning rate is set by "
            f"the step here; take one by step in your YAML, such as "
            f"!new:speechbrain.nnet.schedulers.NoamScheduler, or null for a constant rate"
        )


def make_torch_scheduler(make, optimizer):
    """A scheduler of torch from a ``!name:`` node, and those that it holds.

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


def required_parameters(function):
    """Names of what a callable has to be given; two where it takes any number."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # not callable, or written in C
        return []
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return ["optimizer", "step"]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in parameters if p.kind in positional and p.default is p.empty]


def name_of(thing):
    """The name of the class or function that something in a YAML is of.

    Example
    -------
    >>> name_of(functools.partial(lr_scheduler.StepLR, step_size=2))
    'StepLR'
    """
    thing = thing.func if isinstance(thing, functools.partial) else thing
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        thing = type(thing)
    return thing.__qualname__
