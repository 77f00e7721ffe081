"""Generators that depend on where a run is, not on what was drawn before."""

import hashlib

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
    text = "/".join(str(key) for key in keys).encode()
    # A hash whose bits are all good: the generator of a CPU takes the lowest 32 only.
    seed = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
    return torch.Generator(device).manual_seed(seed)
