"""Promises about copies and files: they keep codes, vectors and temperature."""

import copy
import io
import pickle
import tempfile
from pathlib import Path

import safetensors.torch
import torch

from .promise import build, draw_frames, expect, expect_same, gives_vectors, promise

STEPS = 1000


def expect_alike(copied, quantiser, input_dim, how, remedy):
    """A copy has to have the codes, the temperature and the vectors of what it copies."""
    x_BTI = draw_frames(input_dim, 3, 40)
    expected = f"the codes to survive {how}"
    expect_same(copied.encode(x_BTI), quantiser.encode(x_BTI), expected, remedy)
    ours, theirs = quantiser.curr_temp, copied.curr_temp
    expect(ours == theirs, f"curr_temp to survive {how}", f"{theirs} for {ours}", remedy)
    if gives_vectors(quantiser):
        expected = f"the vectors to survive {how}"
        expect_same(copied.eval()(x_BTI)["x"], quantiser.eval()(x_BTI)["x"], expected, remedy)


def built_and_annealed(make, input_dim, **options):
    """A quantiser in the middle of its training."""
    quantiser = build(make, input_dim, **options)
    quantiser.update_temp(STEPS)
    return quantiser


@promise
def check_state_dict(make, input_dim):
    """A fresh one takes a saved state_dict and has the same codes; update_temp does the rest."""
    quantiser = built_and_annealed(make, input_dim)
    fresh = built_and_annealed(make, input_dim, seed=1, started=False)
    file = io.BytesIO()
    torch.save(quantiser.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    remedy = "register all that shapes codes as parameters or buffers, scalars included"
    expect_alike(fresh, quantiser, input_dim, "a state_dict", remedy)


@promise
def check_deepcopy(make, input_dim):
    """copy.deepcopy keeps codes, vectors and temperature."""
    quantiser = built_and_annealed(make, input_dim)
    remedy = "hold tensors and plain values, and leave __deepcopy__ to torch"
    expect_alike(copy.deepcopy(quantiser), quantiser, input_dim, "deepcopy", remedy)


@promise
def check_pickle(make, input_dim):
    """pickle keeps codes, vectors and temperature."""
    quantiser = built_and_annealed(make, input_dim)
    copied = pickle.loads(pickle.dumps(quantiser))
    remedy = "hold tensors and plain values: no lambdas, open files or generators"
    expect_alike(copied, quantiser, input_dim, "pickle", remedy)


@promise
def check_safetensors(make, input_dim):
    """A safetensors file of the module keeps codes and vectors; update_temp does the rest."""
    quantiser = built_and_annealed(make, input_dim)
    fresh = built_and_annealed(make, input_dim, seed=1, started=False)
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder, "model.safetensors"))
        safetensors.torch.save_model(quantiser, file)
        safetensors.torch.load_model(fresh, file)
    remedy = "keep the state_dict to tensors, and register all that shapes codes"
    expect_alike(fresh, quantiser, input_dim, "safetensors", remedy)
