"""Random numbers that depend on the place of a run, not on earlier draws."""

import hashlib
import random

import numpy as np
import torch


def derived_generator(device: str | torch.device, *keys: int | str) -> torch.Generator:
    """Makes a generator for one purpose at one place of a run.

    Arguments
    ---------
    device : str or torch.device
        The device that it draws on.
    *keys : int or str
        The seed, the purpose or stage, and the place: epoch and number of the batch.

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


def seed_global_generators(*keys: int | str) -> None:
    """Seeds the global generators, which dropout and layer drop use, at one place of a run.

    So no checkpoint has to hold their state. And several ranks draw the same numbers as one rank
    that accumulates the same batches.

    Arguments
    ---------
    *keys : int or str
        As for ``derived_generator``.

    Example
    -------
    >>> seed_global_generators(1234, 1, 0)
    >>> first = torch.rand(1), random.random(), np.random.rand()
    >>> seed_global_generators(1234, 1, 0)
    >>> first == (torch.rand(1), random.random(), np.random.rand())
    True
    """
    seed = _derived_seed(*keys)
    # Only devices in use: torch.manual_seed spends 200 us on the others.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def _derived_seed(*keys):
    text = "/".join(str(key) for key in keys).encode()
    # A hash, because all its bits are random: a CPU generator uses only the lowest 32.
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
