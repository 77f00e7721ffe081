"""Matrix products in full float32."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Matrix products in float32: without autocast and without CUDA's TensorFloat-32.

    ``import speechbrain.core`` allows TF32 for every product of the process. Codes would then
    depend on the device and on the imports. torch.compile cannot change that setting inside a
    graph: there only autocast is off.
    """
    if torch.compiler.is_compiling():
        with torch.autocast(device.type, enabled=False):
            yield
        return
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):
        key, full = "fp32_precision", "ieee"
    else:  # torch < 2.9
        key, full = "allow_tf32", False
    before = getattr(matmul, key)
    setattr(matmul, key, full)
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        setattr(matmul, key, before)
