"""Checks how modules run: on a device, compiled, on several ranks. Errors are one line."""

import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from speechbrain.utils.logger import get_logger
from speechbrain.utils.run_opts import RunOptions

from ..errors import RunError

logger = get_logger(__name__)

COMPILERS = ("torch._dynamo", "torch._inductor", "torch._functorch")
# The names that encoders of SpeechBrain, BEATs and transformers use for the share of layers that
# they drop.
LAYER_DROPS = ("layerdrop_prob", "layerdrop")


def given_options(run_opts: RunOptions | Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The run options of the command line, without those that only have their default."""
    if isinstance(run_opts, RunOptions):
        return {name: run_opts[name] for name in run_opts.overridden_args}
    return run_opts or {}


def check_device(options: Mapping[str, Any]) -> None:
    """Raises a ValueError if this machine does not have the device of the options.

    Arguments
    ---------
    options : dict
        May have ``device``, as torch names it (None: the best device of the machine), and
        ``data_parallel_backend``.

    Example
    -------
    >>> check_device({"device": "cpu"})
    >>> check_device({"device": "gpu"})
    Traceback (most recent call last):
    ValueError: --device gpu: torch knows no such device; use cpu, cuda or cuda:0
    """
    device = options.get("device")
    if str(device or torch.accelerator.current_accelerator(check_available=True)).startswith("mps"):
        raise ValueError("--device mps: it has no float64, which codes need; use --device cpu")
    if options.get("data_parallel_backend"):
        raise ValueError(
            "--data_parallel_backend: the Brains here use several GPUs by torchrun only; start "
            "train.py with torchrun --nproc-per-node=<GPUs>, without this option"
        )
    if device is None:
        return
    try:
        kind, number = torch.device(device).type, torch.device(device).index
    except RuntimeError as error:
        raise ValueError(
            f"--device {device}: torch knows no such device; use cpu, cuda or cuda:0"
        ) from error
    if kind == "cpu":
        return
    available = torch.get_device_module(kind).is_available() if hasattr(torch, kind) else False
    count = torch.get_device_module(kind).device_count() if available else 0
    if (number or 0) >= count:
        raise ValueError(
            f"--device {device}: torch {torch.__version__} sees {count} devices of this kind; use "
            f"--device cpu, or correct the driver or the build of torch"
        )


def check_module_keys(brain: Any) -> None:
    """Checks ``compile_module_keys`` and ``jit_module_keys``, and turns their option on.

    (SpeechBrain 1.1.2 ignores the keys unless ``compile`` or ``jit`` is given, too.)

    Arguments
    ---------
    brain : speechbrain.Brain
        Before its modules are compiled.

    Raises
    ------
    RunError
        If a key names no module.
    """
    for option in ("compile", "jit"):
        keys = getattr(brain, f"{option}_module_keys")
        if keys is None:
            continue
        keys = [keys] if isinstance(keys, str) else list(keys)
        if unknown := [key for key in keys if key not in brain.modules]:
            raise RunError(
                f"{option}_module_keys: there is no module {unknown[0]!r}; the modules are "
                f"{', '.join(brain.modules)}"
            )
        setattr(brain, f"{option}_module_keys", keys)
        setattr(brain, option, True)
    if brain.compile and not brain.compile_using_dynamic_shape_tracing:
        logger.warning(
            "compile: batches have many lengths, and torch compiles the modules again for each of "
            "the first few; add --compile_using_dynamic_shape_tracing"
        )


@contextmanager
def compile_errors(brain: Any) -> Iterator[None]:
    """Names the modules that cannot be compiled, in place of torch's error.

    Arguments
    ---------
    brain : RunBrain
        Compiles its modules in this context.

    Raises
    ------
    RunError
        If a module cannot be scripted.
    """
    check_module_keys(brain)
    names = brain.jit_module_keys or [*brain.modules]
    try:
        yield
    except Exception as error:  # of torch.jit
        reason = " ".join(str(error).split())[:200]
        raise RunError(
            f"jit_module_keys: one of {', '.join(names)} cannot be scripted ({reason}); name other "
            f"modules, or say compile_module_keys:"
        ) from error


def drops_layers(modules: torch.nn.Module) -> bool:
    """Whether an encoder leaves out layers at random. Their parameters then have no gradient.

    Example
    -------
    >>> from speechbrain.lobes.models.transformer.Transformer import TransformerEncoder
    >>> drops_layers(TransformerEncoder(1, 2, 8, d_model=8, layerdrop_prob=0.1))
    True
    """
    holders = [holder for m in modules.modules() for holder in (m, getattr(m, "config", None))]
    shares = [getattr(holder, name, 0) for holder in holders for name in LAYER_DROPS]
    return any(isinstance(share, (int, float)) and share > 0 for share in shares)


@contextmanager
def module_errors(modules: torch.nn.ModuleDict) -> Iterator[None]:
    """Explains in one line why torch cannot compile a module, or train it on several ranks.

    Arguments
    ---------
    modules : torch.nn.ModuleDict
        The modules of the Brain, with their compiled or distributed wrappers.

    Raises
    ------
    RunError
        For these two errors; it names the module. Other errors are not changed.
    """
    try:
        yield
    except Exception as error:
        text = str(error)
        if type(error).__module__.startswith(COMPILERS):
            reason = " ".join(text.split())[:200]
            raise RunError(
                f"compile: {_name_of_failed(modules, error)} cannot be compiled "
                f"({type(error).__name__}: {reason}); name other modules in compile_module_keys:, "
                f"or run without it"
            ) from error
        if isinstance(error, RuntimeError) and "find_unused_parameters=True" in text:
            name = _name_of_failed(modules, error)
            trained = [n for n, p in modules[name].named_parameters() if p.requires_grad]
            numbers = re.search(r"did not receive grad for rank \d+: ([\d ]+)", text)
            unused = [trained[int(n)] for n in numbers.group(1).split()] if numbers else trained
            raise RunError(
                f"{name}: {len(unused)} of its parameters take no part in the loss of a step, such "
                f"as {unused[0].removeprefix('module.')}, but the ranks wait for their gradients; "
                f"set find_unused_parameters: True in your YAML, or requires_grad_(False) for them"
            ) from error
        raise


def _name_of_failed(modules, error):
    """The name of the innermost module whose code raised an error."""
    names, found = {id(module): name for name, module in modules.items()}, "a module"
    for frame, _ in traceback.walk_tb(error.__traceback__):
        found = names.get(id(frame.f_locals.get("self")), found)
    return found
