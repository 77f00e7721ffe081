"""A device, compiled module or wrapped module that cannot work gives one line."""

import functools
from types import SimpleNamespace

import pytest
import torch
from small_run import ranks
from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder
from speechbrain.utils.run_opts import RunOptions

from brainquant.errors import RunError
from brainquant.training.device_options import (
    check_device,
    check_module_keys,
    drops_layers,
    given_options,
    module_errors,
)


@pytest.mark.parametrize(
    "given, message",
    [
        ("--device cuda:99", "--device cuda:99: torch .* sees \\d+ devices .*--device cpu"),
        ("--device gpu", "--device gpu: torch knows no such device; use cpu, cuda"),
        ("--device mps", "--device mps: it has no float64, .*--device cpu"),
        ("--data_parallel_backend", "--data_parallel_backend: .* by torchrun only"),
    ],
)
def test_a_device_that_is_not_there_is_refused_by_name(given, message):
    _, run_opts, _ = RunOptions.from_command_line_args(["x.yaml", *given.split()])
    with pytest.raises(ValueError, match=message):
        check_device({"device": "cpu", **given_options(run_opts)})


def test_mps_is_refused_where_it_is_the_default_too(monkeypatch):
    """No machine with MPS is at hand: torch only says that it has one."""
    accelerator = torch.device("mps")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **options: accelerator)
    for device in (None, "mps:0"):
        with pytest.raises(ValueError, match="no float64"):
            check_device({"device": device})
    check_device({"device": "cpu"})


def brain(**options):
    modules = torch.nn.ModuleDict({"encoder": torch.nn.Linear(2, 2), "head": torch.nn.Linear(2, 2)})
    return SimpleNamespace(modules=modules, **{**vars(RunOptions()), **options})


@pytest.mark.parametrize("option", ["compile", "jit"])
def test_keys_of_modules_count_by_themselves_and_unknown_ones_are_named(option):
    known = brain(**{f"{option}_module_keys": ["head"]})
    check_module_keys(known)
    assert getattr(known, option) and getattr(known, f"{option}_module_keys") == ["head"]
    one = brain(**{f"{option}_module_keys": "head"})  # as a YAML may have it
    check_module_keys(one)
    assert getattr(one, f"{option}_module_keys") == ["head"]
    with pytest.raises(RunError, match=f"{option}_module_keys: .*'heads'; .* encoder, head"):
        check_module_keys(brain(**{f"{option}_module_keys": ["heads"]}))


def test_layers_are_dropped_where_the_share_is_not_0():
    make = functools.partial(ConformerEncoder, num_layers=1, d_model=8, d_ffn=8, nhead=2)
    assert drops_layers(torch.nn.ModuleDict({"encoder": make(layerdrop_prob=0.1)}))
    assert not drops_layers(torch.nn.ModuleDict({"encoder": make()}))
    held = torch.nn.Module()  # as transformers names it
    held.config = SimpleNamespace(layerdrop=0.05)
    assert drops_layers(held)


def test_a_module_that_cannot_be_compiled_is_named():
    def refuse(graph, inputs):
        raise NotImplementedError("no such instruction")

    modules = torch.nn.ModuleDict({"front": torch.nn.Linear(2, 2)})
    modules["head"] = torch.compile(torch.nn.Linear(2, 2), backend=refuse)
    with pytest.raises(RunError, match="compile: head .*no such instruction.*compile_module_keys"):
        with module_errors(modules):
            modules["head"](modules["front"](torch.zeros(1, 2)))


class Branch(torch.nn.Module):
    """Uses only one of its two layers."""

    def __init__(self):
        super().__init__()
        self.used, self.left = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)

    def forward(self, x):
        return self.used(x)


def test_parameters_without_a_gradient_are_named_on_every_rank():
    def on_rank(rank):
        wrapped = torch.nn.parallel.DistributedDataParallel(Branch())
        modules = torch.nn.ModuleDict({"encoder": wrapped})
        try:
            with module_errors(modules):
                for _ in range(2):
                    modules["encoder"](torch.ones(1, 2)).sum().backward()
        except RunError as error:
            return str(error)

    for text in ranks(on_rank):
        assert "encoder: 2 of its parameters take no part" in text and "left.weight" in text
        assert "find_unused_parameters: True" in text
