"""Activation checkpointing: less memory in training for a second forward of each layer."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def checkpoint_activations(modules: Iterable[torch.nn.Module]) -> None:
    """Makes modules keep only their inputs for the backward, which computes the rest again.

    Outputs and gradients are the same; on a CPU to the last bit, dropout included. Parameters,
    ``state_dict``, classes and hooks stay as they are, and evaluation does. (Chen et al.,
    https://arxiv.org/abs/1604.06174)

    Arguments
    ---------
    modules : iterable of torch.nn.Module
        Such as the layers of a Transformer. Changed in place.

    Raises
    ------
    ValueError
        If a module holds a batch norm, which would count each batch twice.

    Example
    -------
    >>> layer = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5))
    >>> x = torch.ones(3, 2, requires_grad=True)
    >>> def gradient():
    ...     _ = torch.manual_seed(0)
    ...     return torch.autograd.grad(layer(x).sum(), x)[0]
    >>> before = gradient()
    >>> checkpoint_activations([layer])
    >>> torch.equal(gradient(), before)
    True
    """
    for module in modules:
        if any(isinstance(m, _BatchNorm) and m.track_running_stats for m in module.modules()):
            raise ValueError(
                f"activation_checkpointing: {type(module).__name__} holds a batch norm, whose "
                f"running statistics would count each batch twice; use a layer norm, or set "
                f"activation_checkpointing: False"
            )
        # Of the instance, so that no class changes and hooks run once; a copy has its own.
        module.forward = partial(_forward, module)


def _forward(module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
    forward = type(module).forward
    if not (module.training and torch.is_grad_enabled()):
        return forward(module, *args, **kwargs)
    return checkpoint(forward, module, *args, use_reentrant=False, **kwargs)
