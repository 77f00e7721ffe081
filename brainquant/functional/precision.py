"""Products in full float32."""

from contextlib import contextmanager

import torch


@contextmanager
def full_precision(device):
    """Matrix products in float32: no autocast, and none of the TensorFloat-32 of CUDA.

    ``import speechbrain.core`` allows TF32 for every product of the process, so that labels
    would depend on the device and on what was imported. A graph that torch.compile makes cannot
    change that setting: there it stays as it is, and only autocast is off.
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
