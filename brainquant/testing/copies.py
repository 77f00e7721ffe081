"""Promises about copies and files of a quantiser: they keep codes, vectors and temperature."""

import copy
import io
import pickle
import tempfile
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from .promise import Make, build, draw_frames, expect, expect_same, gives_vectors, promise

STEPS = 1000


def expect_alike(copied: Any, quantiser: Any, input_dim: int, how: str, remedy: str) -> None:
    """Expects that a copy has the codes, the temperature and the vectors of its original."""
    x_BTI = draw_frames(input_dim, 3, 40)
    expected = f"the codes to survive {how}"
    expect_same(copied.encode(x_BTI), quantiser.encode(x_BTI), expected, remedy)
    ours, theirs = quantiser.curr_temp, copied.curr_temp
    expect(ours == theirs, f"curr_temp to survive {how}", f"{theirs} for {ours}", remedy)
    if gives_vectors(quantiser):
        expected = f"the vectors to survive {how}"
        expect_same(copied.eval()(x_BTI)["x"], quantiser.eval()(x_BTI)["x"], expected, remedy)


def built_and_annealed(make: Make, input_dim: int, **options: Any) -> Any:
    """Builds a quantiser with the temperature of the middle of a training."""
    quantiser = build(make, input_dim, **options)
    quantiser.update_temp(STEPS)
    return quantiser


@promise
def check_state_dict(make: Make, input_dim: int) -> None:
    """A new quantiser has the same codes after load_state_dict and update_temp."""
    quantiser = built_and_annealed(make, input_dim)
    fresh = built_and_annealed(make, input_dim, seed=1, started=False)
    file = io.BytesIO()
    torch.save(quantiser.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    remedy = "register everything that codes depend on as parameters or buffers, scalars too"
    expect_alike(fresh, quantiser, input_dim, "a state_dict", remedy)


@promise
def check_deepcopy(make: Make, input_dim: int) -> None:
    """copy.deepcopy keeps codes, vectors and temperature."""
    quantiser = built_and_annealed(make, input_dim)
    remedy = "hold tensors and plain values, and leave __deepcopy__ to torch"
    expect_alike(copy.deepcopy(quantiser), quantiser, input_dim, "deepcopy", remedy)


@promise
def check_pickle(make: Make, input_dim: int) -> None:
    """pickle keeps codes, vectors and temperature."""
    quantiser = built_and_annealed(make, input_dim)
    copied = pickle.loads(pickle.dumps(quantiser))
    remedy = "hold tensors and plain values: no lambdas, open files or generators"
    expect_alike(copied, quantiser, input_dim, "pickle", remedy)


@promise
def check_safetensors(make: Make, input_dim: int) -> None:
    """A new quantiser has the same codes after a safetensors file and update_temp."""
    quantiser = built_and_annealed(make, input_dim)
    fresh = built_and_annealed(make, input_dim, seed=1, started=False)
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder, "model.safetensors"))
        safetensors.torch.save_model(quantiser, file)
        safetensors.torch.load_model(fresh, file)
    remedy = "keep only tensors in the state_dict, and register everything that codes depend on"
    expect_alike(fresh, quantiser, input_dim, "safetensors", remedy)
