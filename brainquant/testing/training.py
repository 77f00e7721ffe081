"""Promises about a step of training: its noise, its gradients, and batches without frames.

``gradcheck`` needs float64, but a quantiser may always compute in float32. So the checks compare
gradients with slopes. A slope says how much a loss changes when a tensor moves along its gradient;
it is measured by central differences.

Shape suffixes: B batch, T time, I input dim, D vq_dim, G codebooks.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from .promise import (
    Make,
    build,
    draw_frames,
    expect,
    expect_same,
    gives_vectors,
    promise,
    run,
    shape,
    snapshot,
)


@promise
def check_generator(make: Make, input_dim: int) -> None:
    """In training all noise comes from the generator; the global generator is not used."""
    quantiser, x_BTI = build(make, input_dim).train(), draw_frames(input_dim, 3, 40)
    if not gives_vectors(quantiser):
        return
    state, rng = snapshot(quantiser), torch.get_rng_state()
    first = run(quantiser, x_BTI)
    remedy = "pass the generator to everything that draws"
    expect_same(torch.get_rng_state(), rng, "an unchanged global generator", remedy)
    torch.rand(1)
    quantiser.load_state_dict(state)
    second = run(quantiser, x_BTI)
    for name in ("x", "chosen_codes", "aux_loss"):
        expect_same(second[name], first[name], f"the same {name} from the same generator", remedy)


@promise
def check_straight_through(make: Make, input_dim: int) -> None:
    """In training x gives the frames a finite gradient; it is not zero if there is a choice."""
    quantiser, x_BTI = build(make, input_dim).train(), draw_frames(input_dim, 3, 40)
    if not gives_vectors(quantiser):
        return
    x_BTD = run(quantiser, x_BTI.requires_grad_())["x"]
    remedy = "give the hard choice a soft gradient: x + (vector - x).detach(), or a softmax's"
    expect(x_BTD.requires_grad, "a gradient of x", "x without any", remedy)
    (grad_BTI,) = torch.autograd.grad((x_BTD * weights(x_BTD)).sum(), x_BTI, allow_unused=True)
    seen = "none" if grad_BTI is None else f"a norm of {float(grad_BTI.norm()):g}"
    kept = grad_BTI is not None and bool(grad_BTI.isfinite().all())
    kept = kept and (quantiser.codebook_size == 1 or float(grad_BTI.norm()) > 0)
    expect(kept, "a gradient that reaches the frames", seen, remedy)


@promise
def check_aux_loss(make: Make, input_dim: int) -> None:
    """aux_loss is a finite scalar that changes along its gradient at least as fast as its norm.

    Faster is allowed, because commitment losses stop a part of their gradient on purpose.
    """
    quantiser, x_BTI = build(make, input_dim).train(), draw_frames(input_dim, 2, 6)
    if not gives_vectors(quantiser):
        return
    loss = run(quantiser, x_BTI.clone().requires_grad_())["aux_loss"]
    remedy = "give a tensor of one number that depends on the frames or parameters, or is zero"
    kept = isinstance(loss, torch.Tensor) and loss.dim() == 0
    expect(kept, "aux_loss to be a scalar tensor", f"{loss!r}", remedy)
    kept = bool(loss.isfinite()) and (loss.requires_grad or float(loss.detach()) == 0)
    expect(kept, "aux_loss to be finite, and zero or with a gradient", f"{loss!r}", remedy)
    for name, norm, slopes in slopes_along_gradients(quantiser, x_BTI, lambda out: out["aux_loss"]):
        expect(
            max(slopes) >= 0.95 * norm,
            f"aux_loss to change along its gradient to {name} at {norm:.4g} or faster",
            f"{max(slopes):.4g}",
            "let autograd derive it, or test your own backward with gradcheck",
        )


@promise
def check_gradients(make: Make, input_dim: int) -> None:
    """In eval() the gradients of the vectors equal their slopes, except at a hard choice."""
    quantiser, x_BTI = build(make, input_dim), draw_frames(input_dim, 2, 6)
    if not gives_vectors(quantiser):
        return

    def weighted(output):
        return (output["x"].double() * weights(output["x"])).sum()

    for name, norm, slopes in slopes_along_gradients(quantiser, x_BTI, weighted):
        flat = any(abs(slope) < 0.01 * norm for slope in slopes)
        expect(
            flat or any(abs(slope - norm) < 0.05 * norm for slope in slopes),
            f"x to change along its gradient to {name} at {norm:.4g}, or not at all",
            " or ".join(f"{slope:.4g}" for slope in slopes),
            "let autograd derive it, or test your own backward with gradcheck",
        )


def slopes_along_gradients(
    quantiser: Any, x_BTI: torch.Tensor, measure: Callable[[dict[str, torch.Tensor]], torch.Tensor]
) -> Iterator[tuple[str, float, list[float]]]:
    """For the frames and each parameter: its name, the norm of its gradient, slopes along it.

    There are slopes for several lengths of the move, because a long move is bent by curvature.
    Moves that change a code are left out, and moves that are lost in the rounding of float32.
    """
    state = snapshot(quantiser)

    def loss_and_codes(x_BTI, **changed):
        quantiser.load_state_dict({**state, **changed})
        output = run(quantiser, x_BTI)
        return measure(output), output["chosen_codes"]

    frames_BTI = x_BTI.clone().requires_grad_()
    leaves = {"the frames": frames_BTI}
    leaves.update((name, p) for name, p in quantiser.named_parameters() if p.requires_grad)
    loss, codes_BTG = loss_and_codes(frames_BTI)
    if not loss.requires_grad:
        return
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    for name, grad in zip(leaves, grads):
        norm = 0.0 if grad is None else float(grad.norm())
        remedy = "keep roots and divisions by zero out of the loss"
        expect(math.isfinite(norm), f"a finite gradient to {name}", f"{norm}", remedy)
        slopes = []
        for step in (1e-1, 1e-2, 1e-3, 1e-4):
            if step * norm <= 1e-5 * abs(float(loss.detach())):
                break
            ends = []
            for move in (step * grad / norm, -step * grad / norm):
                if name == "the frames":
                    ends.append(loss_and_codes(x_BTI + move))
                else:
                    ends.append(loss_and_codes(x_BTI, **{name: state[name] + move}))
            if all(torch.equal(codes, codes_BTG) for _, codes in ends):
                slopes.append(float((ends[0][0] - ends[1][0]).detach()) / (2 * step))
        if slopes:
            yield name, norm, slopes


def weights(x_BTD: torch.Tensor) -> torch.Tensor:
    """Fixed weights that turn vectors into a loss."""
    return torch.linspace(-1, 2, x_BTD.numel()).view_as(x_BTD)


@promise
def check_no_frames(make: Make, input_dim: int) -> None:
    """Without utterances or frames, results are empty, and numbers and gradients are finite."""
    remedy = "divide by max(frames, 1), and do not update statistics without frames"
    for empty in ((0, 5), (1, 0)):
        for started in (False, True):
            quantiser = build(make, input_dim, started=started)
            x_BTI = torch.zeros(*empty, input_dim, requires_grad=True)
            codes_BTG = quantiser.encode(x_BTI)
            expected = (*empty, quantiser.num_codebooks)
            expect(codes_BTG.shape == expected, f"codes of {expected}", shape(codes_BTG), remedy)
            if not gives_vectors(quantiser):
                continue
            for training in (False, True):
                output = run(quantiser.train(training), x_BTI)
                expected = (*empty, quantiser.vq_dim)
                x_BTD, loss = output["x"], output["aux_loss"]
                expect(x_BTD.shape == expected, f"x of {expected}", shape(x_BTD), remedy)
                expect(bool(loss.isfinite()), "a finite aux_loss", f"{loss:g}", remedy)
                if (total := x_BTD.sum() + loss).requires_grad:
                    total.backward()
                for name, parameter in quantiser.named_parameters():
                    finite = parameter.grad is None or bool(parameter.grad.isfinite().all())
                    expect(finite, f"a finite gradient of {name}", "a non-finite one", remedy)
            expect_finite_state(quantiser, "no frames", remedy)


@promise
def check_not_finite_vectors(make: Make, input_dim: int) -> None:
    """Only a frame with NaN or Inf has a vector of NaN; the state stays finite."""
    for value in (torch.nan, torch.inf):
        for started in (False, True):
            quantiser, x_BTI = build(make, input_dim, started=started), draw_frames(input_dim, 4, 9)
            if not gives_vectors(quantiser):
                return
            x_BTI[2, 7, 0] = value
            expected_BT = torch.zeros(4, 9, dtype=torch.bool)
            expected_BT[2, 7] = True
            for training in (False, True):
                try:
                    output = run(quantiser.train(training), x_BTI)
                except ValueError:  # check_not_finite checks its text
                    break
                seen_BT = output["x"].isnan().any(-1)
                remedy = "fill only the vectors of frames that are not finite with NaN"
                expect_same(seen_BT, expected_BT, f"NaN for the frame with {value} only", remedy)
                remedy = "fill only the chosen codes of frames that are not finite with -1"
                seen_BT = (output["chosen_codes"] == -1).all(-1)
                expect_same(seen_BT, expected_BT, f"-1 for the frame with {value} only", remedy)
            remedy = "leave frames that are not finite out of statistics"
            expect_finite_state(quantiser, f"a frame with {value}", remedy)


def expect_finite_state(quantiser: Any, what: str, remedy: str) -> None:
    """Expects a state_dict without NaN."""
    for name, tensor in snapshot(quantiser).items():
        finite = not isinstance(tensor, torch.Tensor) or not tensor.isnan().any()
        expect(finite, f"no NaN in {name} after {what}", "NaN", remedy)
