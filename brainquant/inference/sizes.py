"""The sizes of a model before it is built: no memory is taken for them.

Shape suffixes: B batch, L samples, T frames, F features, D dim.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from speechbrain.nnet import attention
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..models import BestRQEncoder, InputNormalization, Wav2Vec2Encoder
from ..models.features import STACKS_PROBED

Shapes = Mapping[str, tuple[int, ...]]


class Limit(TorchDispatchMode):
    """Ends what makes more tensors, or more elements, than a model of a known size needs.

    Arguments
    ---------
    shapes : Mapping of str to tuple of int
        The tensors of the model.
    """

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        stored = sum(torch.Size(shape).numel() for shape in shapes.values())
        self.operations = 10_000 + 50 * len(shapes)
        self.elements = 2**28 + 20 * stored

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            return 1  # the number is not known without memory; sizes do not depend on it
        self.operations -= 1
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.elements -= leaf.numel()
        if self.operations < 0 or self.elements < 0:
            raise ValueError("the architecture is far larger than the tensors of its file")
        return result


def check_sizes(make_parts: Callable[[], Mapping[str, Any]], shapes: Shapes) -> None:
    """Checks that a model has tensors of these names and shapes, and that it is not larger.

    Arguments
    ---------
    make_parts : callable
        Makes the parts of the model by name. It is called in a mode where tensors have sizes, but
        no memory.
    shapes : Mapping of str to tuple of int
        The tensors of the file.

    Raises
    ------
    ValueError
        If the model has other tensors, or if building and trying it needs more memory than a model
        of this size does.

    Example
    -------
    >>> make = lambda: {"encoder": torch.nn.Linear(10**9, 10**6)}
    >>> check_sizes(make, {"encoder.weight": (2, 3)})
    Traceback (most recent call last):
    ValueError: the architecture is far larger than the tensors of its file
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    without_memory = FakeTensorMode(allow_non_fake_inputs=True)
    with _no_logs(), same_positions(), without_memory, Limit(shapes), torch.no_grad():
        parts = make_parts()
        model = torch.nn.Module()
        for name, part in parts.items():
            model.add_module(name, part)
        for name, part in model.named_modules():
            shape = shapes.get(f"{name}.glob_mean")
            if isinstance(part, InputNormalization) and shape:
                part.allocate(shape[0])
        expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        compare(expected, shapes)


@contextmanager
def _no_logs() -> Iterator[None]:
    """Keeps torch and SpeechBrain from logging a traceback before an error says the same."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def same_positions() -> Iterator[None]:
    """Keeps tensors without memory out of the table of positions that all models share.

    SpeechBrain 1.1.2 remembers the sines of rotary positions (RoPE) in a module.
    """
    memo = attention._get_precomputed_values.memo
    before = dict(memo)
    try:
        yield
    finally:
        memo.clear()
        memo.update(before)


def compare(expected: Shapes, shapes: Shapes) -> None:
    """Raises a ValueError that names the first tensor that is missing or does not fit.

    Example
    -------
    >>> compare({"a": (2, 3)}, {"a": (2, 4)})
    Traceback (most recent call last):
    ValueError: a has the shape (2, 4), but the architecture needs (2, 3)
    """
    for name in sorted({*expected, *shapes}):
        if name not in shapes:
            raise ValueError(f"the tensor {name} is missing")
        if name not in expected:
            raise ValueError(f"the tensor {name:.100} belongs to no part of the architecture")
        if expected[name] != tuple(shapes[name]):
            raise ValueError(
                f"{name} has the shape {tuple(shapes[name])}, but the architecture needs "
                f"{expected[name]}"
            )


def skeleton(encoder_class: type[torch.nn.Module], arguments: Any) -> torch.nn.Module:
    """The parts of an encoder under its names, after a trial of their sizes.

    The constructors of encoders try their parts on two seconds of silence and look at the result.
    Tensors without memory have no values to look at, so this function tries the same.
    """
    signature = inspect.signature(encoder_class)
    if isinstance(arguments, list):
        bound = signature.bind(*arguments)
    else:
        bound = signature.bind(**arguments)
    bound.apply_defaults()
    parts = bound.arguments
    encoder = torch.nn.Module()
    for name, part in parts.items():
        if isinstance(part, torch.nn.Module):
            encoder.add_module(name, part)
    encoder.eval()
    if encoder_class is BestRQEncoder:
        stack, num_samples = parts["stack"], 2 * parts["compute_features"].compute_STFT.sample_rate
        feats_BTF = parts["compute_features"](torch.zeros(1, num_samples))
        num_frames = max(feats_BTF.shape[1] + stack, 2 * STACKS_PROBED * stack)
        feats_BTF = F.pad(feats_BTF, (0, 0, 0, num_frames - feats_BTF.shape[1]))
        parts["transformer"](parts["front_end"](feats_BTF).flatten(2))
    elif encoder_class is Wav2Vec2Encoder:
        field, _ = parts["extractor"].field_and_stride()
        num_samples = max(2 * parts["sample_rate"], field)
        wavs_BL, lengths_B = torch.zeros(1, num_samples), torch.tensor([num_samples])
        latents_BTC, _ = parts["extractor"](wavs_BL, lengths_B)
        parts["transformer"](latents_BTC)
    return encoder
