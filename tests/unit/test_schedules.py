"""Schedules by step are functions of the step; others are refused."""

import copy
import functools
import inspect
import re
from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.nnet import schedulers as sb
from torch.optim import lr_scheduler as lrs

from brainquant.errors import RunError
from brainquant.training.optimisers import make_optimizer
from brainquant.training.schedules import Schedule

ROOT = Path(__file__).resolve().parents[2]
LR, STEPS = 0.01, 12
BY_CALL = {
    "WarmAndExpDecay": sb.WarmAndExpDecayLRSchedule(LR, 3, 12),
    "LinearWarmup": sb.LinearWarmupScheduler(LR, 3, 12),
    "Noam": sb.NoamScheduler(LR, 3),
    "NoamInterval": sb.NoamIntervalScheduler(LR, 3, [6], [0.5]),
    "LinearNoam": sb.LinearNoamScheduler(LR, 3, 2),
    "CyclicCosine": sb.CyclicCosineScheduler(3, LR, 12),
    "CyclicCosine from the last rate": sb.CyclicCosineScheduler(3, None, 12),
    "Interval": sb.IntervalScheduler([{"steps": 4, "lr": 0.005}, {"steps": 9, "lr": 0.001}]),
    "InverseSquareRoot": sb.InverseSquareRootScheduler(3),
    "CyclicLR": sb.CyclicLRScheduler(0.001, LR, 3),
}
BY_STEP = {
    "WarmCoolDecay": sb.WarmCoolDecayLRSchedule(LR, 3, 3, 12),
    "TriStage": sb.TriStageLRSchedule(LR, 3, 3, 6, 12),
}
TORCH = {
    "LambdaLR": {"lr_lambda": lambda step: 0.9**step},
    "MultiplicativeLR": {"lr_lambda": lambda step: 0.9},
    "StepLR": {"step_size": 4},
    "MultiStepLR": {"milestones": [3, 7]},
    "ConstantLR": {"factor": 0.5, "total_iters": 4},
    "LinearLR": {"start_factor": 0.1, "total_iters": 4},
    "ExponentialLR": {"gamma": 0.9},
    "PolynomialLR": {"total_iters": 9},
    "CosineAnnealingLR": {"T_max": 12},
    "CosineAnnealingWarmRestarts": {"T_0": 5},
    "CyclicLR": {"base_lr": 0.001, "max_lr": LR, "step_size_up": 3},
    "OneCycleLR": {"max_lr": LR, "total_steps": STEPS},
}
REFUSED = {
    "NewBob": sb.NewBobScheduler(LR),
    "Linear": sb.LinearScheduler(LR, 0.0, 12),
    "Step": sb.StepScheduler(LR),
    "ReduceLROnPlateau": sb.ReduceLROnPlateau(),
    "torch's ReduceLROnPlateau": functools.partial(lrs.ReduceLROnPlateau, patience=2),
    "no schedule": 0.001,
}


def adam():
    weights = [torch.nn.Parameter(torch.ones(2, 2)) for _ in range(2)]
    groups = [{"params": weights[:1]}, {"params": weights[1:], "lr_scale": 0.5}]
    return torch.optim.AdamW(groups, lr=LR)


def rates(schedule, optimizer, steps):
    """Rates of both groups at some steps."""
    made = Schedule(schedule, optimizer)
    result = []
    for step in steps:
        made.set_rates(step)
        result.append([group["lr"] for group in optimizer.param_groups])
    return result


def torch_factory(name):
    make = functools.partial(getattr(lrs, name), **TORCH[name])
    return lambda optimizer: make(optimizer)


def test_every_schedule_of_speechbrain_and_torch_is_known_here():
    """A new schedule of another version needs a line above."""
    known = {type(s).__name__ for s in [*BY_CALL.values(), *BY_STEP.values(), *REFUSED.values()]}
    of_speechbrain = {
        n for n, c in vars(sb).items() if inspect.isclass(c) and c.__module__ == sb.__name__
    }
    assert of_speechbrain - {"ScheduledLoss"} <= known
    of_torch = {
        n for n, c in vars(lrs).items() if inspect.isclass(c) and issubclass(c, lrs.LRScheduler)
    }
    composed = {"SequentialLR", "ChainedScheduler", "ReduceLROnPlateau"}
    assert of_torch - {"LRScheduler", "_LRScheduler"} - composed == TORCH.keys()


@pytest.mark.parametrize("name", BY_CALL)
def test_a_schedule_that_counts_gives_the_rates_of_its_calls(name):
    ours, theirs, optimizer = adam(), copy.deepcopy(BY_CALL[name]), adam()
    expected = []
    for _ in range(STEPS):
        theirs.on_batch_end(optimizer) if name == "CyclicLR" else theirs(optimizer)
        expected.append(optimizer.param_groups[0]["lr"])
    seen = rates(BY_CALL[name], ours, range(1, STEPS + 1))
    assert seen == [[rate, 0.5 * rate] for rate in expected]


@pytest.mark.parametrize("name", TORCH)
def test_a_schedule_of_torch_gives_the_rates_between_its_steps(name):
    optimizer = adam()
    scheduler = getattr(lrs, name)(optimizer, **TORCH[name])
    expected = []
    for _ in range(STEPS):
        expected.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    ours = rates(functools.partial(getattr(lrs, name), **TORCH[name]), adam(), range(1, STEPS + 1))
    assert ours == [[first, 0.5 * second] for first, second in expected]


EVERY = {**BY_CALL, **BY_STEP, **{name: torch_factory(name) for name in TORCH}, "null": None}


@pytest.mark.parametrize("name", EVERY)
def test_rates_are_those_of_the_step_wherever_a_run_goes_on(name):
    whole = rates(EVERY[name], adam(), range(1, STEPS + 1))
    assert rates(EVERY[name], adam(), range(8, STEPS + 1)) == whole[7:]
    assert len({tuple(pair) for pair in whole}) > 1 or name == "null"


def test_schedules_of_torch_are_composed_in_the_yaml():
    def of(name, **keys):
        return functools.partial(getattr(lrs, name), **keys)

    warmup = of("LinearLR", start_factor=0.25, total_iters=3)
    composed = of(
        "SequentialLR", schedulers=[warmup, of("CosineAnnealingLR", T_max=9)], milestones=[3]
    )
    seen = [first for first, _ in rates(composed, adam(), range(1, 13))]
    assert seen[:4] == pytest.approx([0.0025, 0.005, 0.0075, 0.01]) and seen[8] < 0.006
    chained = of("ChainedScheduler", schedulers=[of("ExponentialLR", gamma=0.9), of("ConstantLR")])
    assert rates(chained, adam(), [1])[0][0] == pytest.approx(LR / 3)


@pytest.mark.parametrize("name", REFUSED)
def test_a_schedule_that_is_not_by_step_is_refused_by_name(name):
    named = "float" if name == "no schedule" else name.split()[-1]
    with pytest.raises(RunError, match=f"lr_schedule: {named}.* by the step"):
        Schedule(REFUSED[name], adam())


@pytest.mark.parametrize(
    "schedule, message",
    [
        (sb.NoamScheduler, "NoamScheduler is a class; write !new:"),
        (lrs.StepLR(adam(), 2), "StepLR is already made, for another optimiser; write !name:"),
        (lambda optimizer: None, "has to return a scheduler of torch, got NoneType"),
        (
            functools.partial(lrs.StepLR, size=2),
            "StepLR fails at step 1.*'size'.*lr_schedule: null",
        ),
        (functools.partial(lrs.OneCycleLR, max_lr=1, total_steps=9), "fails at step 11 .*total"),
        (
            sb.WarmCoolDecayLRSchedule(LR, 3, 3, 9),
            "-0.00.* at step 12; set its steps to optimizer_s",
        ),
        (lambda optimizer, step: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_what_cannot_be_a_schedule_ends_the_run_before_its_first_step(schedule, message):
    weights = [torch.nn.Parameter(torch.ones(2, 2))]
    with pytest.raises(RunError, match=f"lr_schedule: .*{message}"):
        make_optimizer(functools.partial(torch.optim.AdamW, lr=LR), weights, schedule, STEPS)


def test_the_schedules_of_the_documentation_are_what_it_says():
    text = (ROOT / "docs/how_to/schedules_and_optimisers.md").read_text("utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    head = f"lr: {LR}\nwarmup_steps: 3\noptimizer_step_limit: {STEPS}\n"
    peaks = []
    for block in blocks:
        schedule = load_hyperpyyaml(head + block)["lr_schedule"]
        seen = [first for first, _ in rates(schedule, adam(), range(1, STEPS + 1))]
        assert max(seen) == pytest.approx(LR) and seen[0] < seen[1] > 0 and seen[-1] < LR
        peaks.append(seen.index(max(seen)) + 1)
    assert peaks == [3, 4]  # the warm-up of torch ends a step later
