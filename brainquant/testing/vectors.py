"""Promises about the results of forward, and about the statistics of codes.

Shape suffixes: B batch, T time, N = B * T frames, I input dim, D vq_dim, G codebooks, V codes.
"""

import torch

from .promise import (
    Make,
    build,
    draw_frames,
    expect,
    expect_same,
    expect_same_state,
    gives_vectors,
    promise,
    run,
    shape,
    snapshot,
)


@promise
def check_forward(make: Make, input_dim: int) -> None:
    """forward returns vectors, the codes of encode and the chosen codes; or only codes."""
    quantiser, x_BTI = build(make, input_dim), draw_frames(input_dim, 3, 40)
    codes_BTG = quantiser.encode(x_BTI)
    if not gives_vectors(quantiser):
        seen = quantiser(x_BTI)
        remedy = "return encode's codes from forward, or set vq_dim if it gives vectors"
        expect(seen.numel() == codes_BTG.numel(), "the codes of encode", shape(seen), remedy)
        expect_same(seen.view_as(codes_BTG), codes_BTG, "the codes of encode", remedy)
        return

    expected = (*x_BTI.shape[:2], quantiser.vq_dim)
    plain = quantiser(x_BTI)["x"]
    for training in (False, True):
        output = run(quantiser.train(training), x_BTI)
        x_BTD, chosen_BTG = output["x"], output["chosen_codes"]
        remedy = "return vectors of (batch, time, vq_dim) in float32"
        expect(x_BTD.shape == expected, f"x of {expected}", shape(x_BTD), remedy)
        expect(x_BTD.dtype == torch.float32, "x in float32", f"{x_BTD.dtype}", remedy)
        remedy = "return the codes of the state before the step, without noise"
        expect_same(output["codes"], codes_BTG, "the codes of encode", remedy)
        valid = (chosen_BTG >= 0) & (chosen_BTG < quantiser.codebook_size)
        expect(
            chosen_BTG.shape == codes_BTG.shape and bool(valid.all()),
            f"chosen_codes of {shape(codes_BTG)} from 0 to {quantiser.codebook_size - 1}",
            f"{shape(chosen_BTG)} from {chosen_BTG.min()} to {chosen_BTG.max()}",
            "return the codes that the vectors are made of",
        )
        if not training:
            remedy = "keep noise out of eval()"
            expect_same(chosen_BTG, codes_BTG, "chosen_codes equal to codes in eval()", remedy)
            expect_same(plain, x_BTD, "the same x in eval() without return_codes", remedy)


@promise
def check_vectors(make: Make, input_dim: int) -> None:
    """A vector depends only on its chosen codes, apart from rounding."""
    quantiser = build(make, input_dim)
    if not gives_vectors(quantiser):
        return
    x_BTI = draw_frames(input_dim, 2, 400)
    x_BTI[1] = 1.001 * x_BTI[0]  # other frames, mostly with the same codes
    for training in (False, True):
        output = run(quantiser.train(training), x_BTI)
        vectors_ND = output["x"].detach().flatten(0, 1)
        chosen_NG = output["chosen_codes"].flatten(0, 1)
        _, kinds_N = chosen_NG.unique(dim=0, return_inverse=True)
        first_N = torch.full_like(kinds_N, len(kinds_N))
        first_N.scatter_reduce_(0, kinds_N, torch.arange(len(kinds_N)), "amin")
        expected_ND = vectors_ND[first_N[kinds_N]]
        wrong_N = ~torch.isclose(vectors_ND, expected_ND, rtol=1e-5, atol=1e-5).all(-1)
        expect(
            not wrong_N.any(),
            f"equal vectors for equal chosen codes with training={training}",
            f"other vectors for {int(wrong_N.sum())} of {len(wrong_N)} frames",
            "make the forward value of x the code's vector: x + (vector - x).detach()",
        )


@promise
def check_perplexity(make: Make, input_dim: int) -> None:
    """Perplexities lie between 1 and their cap, and counts add up over chunks and ranks."""
    # Imported here: the processes of check_ranks import this package, but need no SpeechBrain.
    from ..monitoring.counts import CodeMonitor, code_statistics

    quantiser, x_BTI = build(make, input_dim), draw_frames(input_dim, 4, 50)
    V, G = quantiser.codebook_size, quantiser.num_codebooks

    def counts(*codes):
        monitor = CodeMonitor(G, V)
        for codes_NG in codes:
            monitor.update(codes_NG)
        return monitor.counts

    codes_NG = quantiser.encode(x_BTI).flatten(0, 1)
    whole_GV = counts(codes_NG)
    remedy = "return codes of (batch, time, num_codebooks), frame by frame"
    expect_same(counts(*codes_NG.split(7)), whole_GV, "counts to add up over chunks", remedy)
    first_GV, second_GV = (counts(quantiser.encode(x).flatten(0, 1)) for x in x_BTI.split(2))
    expect_same(first_GV + second_GV, whole_GV, "counts to add up over ranks", remedy)
    statistics = code_statistics(whole_GV)
    remedy = "count codes of finite frames, each from 0 to codebook_size - 1"
    for value in statistics["code_perplexity"]:
        expect_between(value, 1, statistics["perplexity_cap"], "code perplexity", remedy)
    uniform_VG = torch.arange(V)[:, None].expand(V, G)
    for value in code_statistics(counts(uniform_VG))["code_perplexity"]:
        expect_between(value, V, V, "code perplexity of uniform use", remedy)

    if gives_vectors(quantiser):
        remedy = "sum exp(entropy) over codebooks"
        for training in (False, True):
            output = run(quantiser.train(training), x_BTI)
            for name in {"code_perplexity", "prob_perplex"} & output.keys():
                expect_between(
                    float(output[name].detach()), G, G * V, f"{name} of the forward", remedy
                )


def expect_between(value: float, low: float, high: float, name: str, remedy: str) -> None:
    """Expects a number between two others, apart from rounding."""
    kept = low * (1 - 1e-4) <= value <= high * (1 + 1e-4)
    expect(kept, f"{name} from {low} to {high}", f"{value:g}", remedy)


@promise
def check_temperature(make: Make, input_dim: int) -> None:
    """The temperature depends only on the steps and never rises; update_temp changes no state."""
    quantiser = build(make, input_dim)
    before = snapshot(quantiser)

    def temperature(steps):
        result = quantiser.update_temp(steps)
        expect(result is None, "update_temp to return None", f"{result!r}", "set curr_temp")
        return quantiser.curr_temp

    schedule = [0, 1, 2, 10, 100, 1000, 10**4, 10**5, 10**6]
    seen = [temperature(steps) for steps in schedule]
    remedy = "compute it from the steps, between a start and a stop above 0, or leave it at None"
    if any(value is not None for value in seen):
        positive = all(isinstance(value, float) and 0 < value < float("inf") for value in seen)
        kept = positive and seen == sorted(seen, reverse=True)
        expect(kept, "a positive curr_temp that never rises", f"{seen} at {schedule}", remedy)
    again = [temperature(steps) for steps in reversed(schedule)][::-1]
    expect(again == seen, "the same curr_temp at the same steps again", f"{again}", remedy)
    expect_same_state(quantiser, before, "update_temp", "set curr_temp, which must not be a buffer")
