"""Random numbers that depend on where a run is, not on what was drawn before."""

import hashlib
import random

import numpy as np
import torch


def derived_generator(device, *keys):
    """A generator for one purpose at one place of a run.

    Arguments
    ---------
    device : str or torch.device
        Where it draws.
    *keys : int or str
        The seed and the place: stage, epoch, number of the batch.

    Returns
    -------
    generator : torch.Generator

    Example
    -------
    >>> draw = lambda *keys: torch.rand(1, generator=derived_generator("cpu", *keys)).item()
    >>> draw(1234, "TRAIN", 1, 0) == draw(1234, "TRAIN", 1, 0) != draw(1234, "TRAIN", 1, 1)
    True
    """
    return torch.Generator(device).manual_seed(_derived_seed(*keys))


def seed_global_generators(*keys):
    """Seeds what draws from the global generators (dropout, layer drop) at one place of a run.

    So nothing of them has to be in a checkpoint, and several ranks draw what one rank draws that
    accumulates the same batches.

    Arguments
    ---------
    *keys : int or str
        The seed and the place, as for ``derived_generator``.

    Example
    -------
    >>> seed_global_generators(1234, 1, 0)
    >>> first = torch.rand(1), random.random(), np.random.rand()
    >>> seed_global_generators(1234, 1, 0)
    >>> first == (torch.rand(1), random.random(), np.random.rand())
    True
    """
    seed = _derived_seed(*keys)
    # Of the devices that are in use: torch.manual_seed takes 200 us for those that are not.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def _derived_seed(*keys):
    text = "/".join(str(key) for key in keys).encode()
    # A hash whose bits are all good: the generator of a CPU takes the lowest 32 only.
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
