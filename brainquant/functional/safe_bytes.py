"""The bytes of a .safetensors file, the same for the same content."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from safetensors.torch import save


def safetensors_bytes(tensors: dict[str, torch.Tensor], metadata: Mapping[str, str]) -> bytes:
    """The content of a .safetensors file with tensors and metadata.

    ``safetensors.torch.save`` writes the metadata in an order that differs from process to
    process, so the hash of the file would differ, too. Here they are sorted.

    Example
    -------
    >>> from safetensors.torch import load
    >>> content = safetensors_bytes({"a": torch.ones(2)}, {"layer": "2", "frames": "90"})
    >>> load(content), content[8:62]
    ({'a': tensor([1., 1.])}, b'{"__metadata__": {"frames": "90", "layer": "2"}, "a": ')
    """
    plain = save(tensors)
    end = 8 + int.from_bytes(plain[:8], "little")
    header = {"__metadata__": dict(sorted(metadata.items())), **json.loads(plain[8:end])}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text + plain[end:]
