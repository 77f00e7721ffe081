"""Promises about codebooks that follow the frames: when they move, and how far."""

import torch

from .promise import (
    Make,
    build,
    draw_frames,
    expect,
    expect_same_state,
    gives_vectors,
    promise,
    run,
    snapshot,
)


@promise
def check_steps(make: Make, input_dim: int) -> None:
    """All batches of a step move the state once, as one batch of all their frames would.

    A step begins at begin_step and ends at end_step.
    """
    for started in (False, True):
        whole = build(make, input_dim, started=started)
        if not gives_vectors(whole):
            return
        parts, x_BTI = build(make, input_dim, started=started), draw_frames(input_dim, 6, 40)
        run(whole.train(), x_BTI)
        before, generator = snapshot(parts), torch.Generator().manual_seed(1)
        parts.train().begin_step()
        for part_BTI in x_BTI.split(2):
            parts.begin_step()
            parts(part_BTI, generator=generator, return_codes=True)
        remedy = "only collect statistics in forward, and move the state in end_step"
        expect_same_state(parts, before, "a forward before end_step", remedy)
        parts.end_step()
        for name, value in snapshot(whole).items():
            if isinstance(value, torch.Tensor):
                seen = parts.state_dict()[name]
                kept = torch.allclose(seen.double(), value.double(), rtol=1e-4, atol=1e-5)
                expected = f"the {name} of one batch of all frames after three batches of a step"
                worst = float((seen.double() - value.double()).abs().max())
                expect(kept, expected, f"a difference of {worst:g}", remedy)
        moved = snapshot(parts)
        parts.begin_step()
        parts.end_step()
        expect_same_state(parts, moved, "a step without a batch", remedy)


@promise
def check_frozen(make: Make, input_dim: int) -> None:
    """After requires_grad_(False) a step of training changes no state."""
    quantiser = build(make, input_dim)
    if not gives_vectors(quantiser):
        return
    quantiser.requires_grad_(False).train()
    before = snapshot(quantiser)
    run(quantiser, draw_frames(input_dim, 3, 40).requires_grad_())
    quantiser.end_step()
    remedy = "move the state only if a parameter requires a gradient"
    expect_same_state(quantiser, before, "training after requires_grad_(False)", remedy)
