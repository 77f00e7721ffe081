"""Promises about a step of training: its noise, its gradients, and frames that are not there.

A quantiser may compute in float32 whatever comes in, so ``gradcheck``, which needs float64, cannot
be asked of all. Gradients are held instead against slopes: how much a loss changes, measured by
central differences, when a tensor moves along its gradient.

Shape suffixes: B batch, T time, I input dim, D vq_dim, G codebooks.
"""

import math

import torch

from .promise import (
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
def check_generator(make, input_dim):
    """In training the noise comes from the generator: the same again, the global one at rest."""
    quantiser, x_BTI = build(make, input_dim).train(), draw_frames(input_dim, 3, 40)
    if not gives_vectors(quantiser):
        return
    state, rng = snapshot(quantiser), torch.get_rng_state()
    first = run(quantiser, x_BTI)
    remedy = "pass the generator to everything that draws"
    expect_same(torch.get_rng_state(), rng, "the global generator at rest", remedy)
    torch.rand(1)
    quantiser.load_state_dict(state)
    second = run(quantiser, x_BTI)
    for name in ("x", "chosen_codes", "aux_loss"):
        expect_same(second[name], first[name], f"the same {name} from the same generator", remedy)


@promise
def check_straight_through(make, input_dim):
    """In training a finite gradient, not zero where codes are chosen, goes from x to the frames."""
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
def check_aux_loss(make, input_dim):
    """aux_loss is a finite scalar that falls along its gradient at least as fast as that says.

    Faster is fine, since losses of commitment stop a part of their gradient on purpose.
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
            "let autograd derive it, or hold your own backward against gradcheck",
        )


@promise
def check_gradients(make, input_dim):
    """In eval() the gradients of the vectors are their slopes, but where a hard choice has none."""
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
            "let autograd derive it, or hold your own backward against gradcheck",
        )


def slopes_along_gradients(quantiser, x_BTI, measure):
    """Name, norm of the gradient, and slopes along it, of the frames and of each parameter.

    There is a slope for each of several lengths of the step, since a long one meets curvature.
    Left out are steps on which a code changes, and those that drown in the rounding of float32.
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


def weights(x_BTD):
    """Fixed weights that make a loss of vectors."""
    return torch.linspace(-1, 2, x_BTD.numel()).view_as(x_BTD)


@promise
def check_no_frames(make, input_dim):
    """No utterances, or no frames, give empty results, and finite numbers and gradients."""
    remedy = "divide by max(frames, 1), and leave statistics alone where there are none"
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
                    expect(finite, f"a finite gradient of {name}", "one that is not", remedy)
            expect_finite_state(quantiser, "no frames", remedy)


@promise
def check_not_finite_vectors(make, input_dim):
    """A frame that is not finite has a vector of NaN, others keep theirs, the state is finite."""
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
                except ValueError:  # check_not_finite reads it
                    break
                seen_BT = output["x"].isnan().any(-1)
                remedy = "fill the vectors of frames that are not finite with NaN, and no others"
                expect_same(seen_BT, expected_BT, f"NaN for the frame with {value} only", remedy)
                remedy = "fill the chosen codes of frames that are not finite with -1"
                seen_BT = (output["chosen_codes"] == -1).all(-1)
                expect_same(seen_BT, expected_BT, f"-1 for the frame with {value} only", remedy)
            remedy = "leave frames that are not finite out of statistics"
            expect_finite_state(quantiser, f"a frame with {value}", remedy)


def expect_finite_state(quantiser, what, remedy):
    """Nothing in the state_dict may be NaN."""
    for name, tensor in snapshot(quantiser).items():
        finite = not isinstance(tensor, torch.Tensor) or not tensor.isnan().any()
        expect(finite, f"no NaN in {name} after {what}", "NaN", remedy)
