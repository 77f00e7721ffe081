"""Promises about codes.

Shape suffixes: B batch, T time, I input dim, G codebooks, V codes of a codebook.
"""

import torch
import torch.nn.functional as F

from ..quantisers import Quantiser
from .promise import (
    Make,
    build,
    draw_frames,
    expect,
    expect_same,
    expect_same_state,
    for_many_frames,
    promise,
    shape,
    snapshot,
)


@promise
def check_attributes(make: Make, input_dim: int) -> None:
    """It is a Quantiser with its sizes as positive ints; vq_dim is None if it gives no vectors."""
    quantiser = build(make, input_dim, started=False)
    kind = type(quantiser)
    expect(
        isinstance(quantiser, Quantiser),
        "a brainquant.quantisers.Quantiser",
        f"{kind.__mro__[1].__name__} as the base of {kind.__name__}",
        "derive the class from Quantiser",
    )
    for name in ("input_dim", "num_codebooks", "codebook_size", "vq_dim"):
        value = getattr(quantiser, name, None)
        expect(
            (type(value) is int and value > 0) or (name == "vq_dim" and value is None),
            f"{name} to be a positive int",
            f"{value!r}",
            f"set self.{name} in __init__",
        )
    expect(
        quantiser.input_dim == input_dim,
        f"input_dim to be the {input_dim} it was built with",
        f"{quantiser.input_dim}",
        "set self.input_dim = input_dim in __init__",
    )


@promise
def check_codes(make: Make, input_dim: int) -> None:
    """Codes are a LongTensor (batch, time, codebooks) from 0 to size - 1, without a gradient."""
    quantiser = build(make, input_dim)
    size = quantiser.codebook_size

    def test(x_BTI):
        codes_BTG = quantiser.encode(x_BTI.requires_grad_())
        remedy = "return indices from encode, as argmax does, under torch.no_grad()"
        expected = (*x_BTI.shape[:2], quantiser.num_codebooks)
        expect(codes_BTG.shape == expected, f"codes of {expected}", shape(codes_BTG), remedy)
        expect(codes_BTG.dtype == torch.long, "int64 codes", f"{codes_BTG.dtype}", remedy)
        expect(not codes_BTG.requires_grad, "codes without gradient", "a gradient", remedy)
        low, high = int(codes_BTG.min()), int(codes_BTG.max())
        expect(
            0 <= low and high < size,
            f"codes from 0 to {size - 1}",
            f"{low} to {high}",
            "make codebook_size the number of codes, and give each finite frame one of them",
        )

    for_many_frames(test, input_dim)


@promise
def check_independence(make: Make, input_dim: int) -> None:
    """A frame has the same code in any order, batch size and chunk, and beside any padding."""
    quantiser = build(make, input_dim)
    encode = quantiser.encode
    remedy = "compute each frame's codes from that frame alone"

    def test(x_BTI):
        B, T, _ = x_BTI.shape
        frames_N1I = x_BTI.flatten(0, 1).unsqueeze(1)
        codes_BTG = encode(x_BTI)
        others = {
            "in reverse": encode(x_BTI.flip(0, 1)).flip(0, 1),
            "one by one": torch.cat([encode(x[None]) for x in frames_N1I]).view_as(codes_BTG),
            "in two halves": torch.cat([encode(half) for half in x_BTI.chunk(2, dim=1)], dim=1),
            "in one line": encode(x_BTI.reshape(1, B * T, -1)).view_as(codes_BTG),
            "in other strides": encode(x_BTI.mT.contiguous().mT),
        }
        for value in (0.0, -1.0, 1e30):
            padded = F.pad(x_BTI, (0, 0, 2, 30, 0, 1), value=value)
            others[f"beside padding of {value:g}"] = encode(padded)[:B, 2 : 2 + T]
        for how, seen_BTG in others.items():
            expect_same(seen_BTG, codes_BTG, f"the same codes for frames {how}", remedy)

    for_many_frames(test, input_dim)


@promise
def check_threads(make: Make, input_dim: int) -> None:
    """A frame has the same code whatever the number of threads."""
    quantiser, x_BTI = build(make, input_dim), draw_frames(input_dim, 4, 125)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        codes_BTG = quantiser.encode(x_BTI)
        torch.set_num_threads(2)
        seen_BTG = quantiser.encode(x_BTI)
    finally:
        torch.set_num_threads(before)
    remedy = "give each frame to one thread, whole"
    expect_same(seen_BTG, codes_BTG, "the same codes with 2 threads as with 1", remedy)


@promise
def check_autocast(make: Make, input_dim: int) -> None:
    """Codes are computed in float32 under any autocast, from frames of any type."""
    quantiser, x_BTI = build(make, input_dim), draw_frames(input_dim, 4, 1000)
    remedy = "compute under brainquant.functional.precision.full_precision, from x.float()"
    for dtype in (torch.bfloat16, torch.float16):
        for frames_BTI in (x_BTI, x_BTI.to(dtype)):
            codes_BTG = quantiser.encode(frames_BTI.float())
            with torch.autocast("cpu", dtype):
                seen_BTG = quantiser.encode(frames_BTI)
            what = f"the codes of float32 under autocast to {dtype}, for {frames_BTI.dtype} frames"
            expect_same(seen_BTG, codes_BTG, what, remedy)


@promise
def check_modes(make: Make, input_dim: int) -> None:
    """A frame has the same code in train() and eval()."""
    quantiser, x_BTI = build(make, input_dim), draw_frames(input_dim, 3, 40)
    codes_BTG = quantiser.eval().encode(x_BTI)
    seen_BTG = quantiser.train().encode(x_BTI)
    remedy = "keep dropout, noise and batch statistics out of encode"
    expect_same(seen_BTG, codes_BTG, "the same codes in train() as in eval()", remedy)


@promise
def check_no_trace(make: Make, input_dim: int) -> None:
    """encode changes no state in any mode, no frames and no random numbers."""
    for started in (False, True):
        quantiser, x_BTI = build(make, input_dim, started=started), draw_frames(input_dim, 3, 40)
        state, frames_BTI, rng = snapshot(quantiser), x_BTI.clone(), torch.get_rng_state()
        for training in (False, True):
            quantiser.train(training).encode(x_BTI)
        expect_same_state(quantiser, state, "encode", "change state in a training forward only")
        expect_same(x_BTI, frames_BTI, "encode to leave its frames", "work on a copy")
        remedy = "draw nothing in encode, or from a generator of its own"
        expect_same(torch.get_rng_state(), rng, "encode to leave the global generator", remedy)


@promise
def check_ties(make: Make, input_dim: int) -> None:
    """A tie goes to the lowest index.

    The check makes all codes tie: it gives every table equal entries. A table is a tensor of the
    state_dict with a dimension of codebook_size or num_codebooks * codebook_size. The check first
    makes sure that they are tables: if their entries are reversed, the codes have to be reversed,
    too. Codes without tables, as in finite scalar quantisation, have no such ties.
    """
    quantiser, x_BTI = build(make, input_dim), draw_frames(input_dim, 3, 40)
    V, G = quantiser.codebook_size, quantiser.num_codebooks
    state, codes_BTG = snapshot(quantiser), quantiser.encode(x_BTI)
    tables = {}
    for name, tensor in state.items():
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
            dims = [dim for dim, size in enumerate(tensor.shape) if size in (V, G * V)]
            tables.update({name: dims[0]} if dims else {})

    def reversed_entries(tensor, dim):
        return tensor.unflatten(dim, (-1, V)).flip(dim + 1).flatten(dim, dim + 1)

    def tied(tensor, dim):
        others = [other for other in range(tensor.dim()) if other != dim]
        if not others:
            return torch.ones_like(tensor)
        # A single 1 among zeros: the scores are exact in any order of addition.
        return torch.zeros_like(tensor).index_fill(others[-1], torch.tensor(0), 1.0)

    def encode_with(changed, frames_BTI):
        changes = {name: changed(state[name], dim) for name, dim in tables.items()}
        quantiser.load_state_dict({**state, **changes})
        return quantiser.encode(frames_BTI)

    if torch.equal(encode_with(reversed_entries, x_BTI), V - 1 - codes_BTG):
        for frames_BTI in (x_BTI, torch.zeros_like(x_BTI)):
            seen_BTG = encode_with(tied, frames_BTI)
            remedy = "take argmax or argmin, the first of the best"
            expect_same(seen_BTG, torch.zeros_like(codes_BTG), "code 0 where all tie", remedy)


@promise
def check_not_finite(make: Make, input_dim: int) -> None:
    """Only a frame with NaN or Inf has code -1; or a ValueError says where the frame is."""
    for started in (False, True):
        quantiser, x_BTI = build(make, input_dim, started=started), draw_frames(input_dim, 4, 9)
        codes_BTG = quantiser.encode(x_BTI)
        codes_BTG[2, 7] = -1
        for value in (torch.nan, torch.inf, -torch.inf):
            x_BTI[2, 7, 1 % input_dim] = value
            try:
                seen_BTG = quantiser.encode(x_BTI)
            except ValueError as error:
                named = "2" in str(error) and "7" in str(error)
                expect(named, "an error that names utterance 2, frame 7", f"{error}", "name them")
                continue
            what = f"-1 for the frame with {value}, and the others' codes as they are"
            remedy = "fill the codes of frames that are not finite with -1, and no others"
            expect_same(seen_BTG, codes_BTG, what, remedy)


@promise
def check_extremes(make: Make, input_dim: int) -> None:
    """Zeros, denormals and values of 1e30 have valid codes, the same ones each time."""
    quantiser = build(make, input_dim)
    units_TI = draw_frames(input_dim, 1, 20)[0].sign()
    for value in (0.0, 1e-40, 1e30):
        x_BTI = torch.stack([value * units_TI, value * torch.eye(20, input_dim)])
        codes_BTG = quantiser.encode(x_BTI)
        low, high = int(codes_BTG.min()), int(codes_BTG.max())
        expect(
            0 <= low and high < quantiser.codebook_size,
            f"valid codes for finite frames of {value:g}",
            f"{low} to {high}",
            "scale, clamp or normalise before the squares overflow",
        )
        remedy = "compute each frame's codes from that frame alone, with rules for ties"
        expect_same(quantiser.encode(x_BTI), codes_BTG, "the same codes again", remedy)
        alone_BTG = torch.cat([quantiser.encode(x_BTI[:, t : t + 1]) for t in range(20)], dim=1)
        expect_same(alone_BTG, codes_BTG, f"the same codes one by one at {value:g}", remedy)
