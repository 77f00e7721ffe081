"""Tools of the checks: building a quantiser, drawing frames, raising helpful errors.

Shape suffixes: B batch, T time, I input dim, G codebooks.
"""

import contextlib
import functools
import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch

from ..quantisers import Quantiser, make_quantiser

Make = Callable[..., Any]  # builds a quantiser from input_dim=
Check = Callable[[Make, int], None]


def promise(check: Check) -> Check:
    """Makes a check repeatable, and puts its name at the start of its errors."""

    @functools.wraps(check)
    def named(make: Make, input_dim: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                check(make, input_dim)
            except AssertionError as error:
                raise AssertionError(f"{check.__name__}: {error}") from error
            except ImportError:
                raise
            except Exception as error:
                lines = str(error).strip().splitlines() or [""]
                raise AssertionError(
                    f"{check.__name__}: expected no error, saw {type(error).__name__}: "
                    f"{lines[-1]}; call {check.__name__} alone to see where"
                ) from error

    return named


def expect(kept: bool, expected: str, seen: str, remedy: str) -> None:
    """Raises the error of a broken promise, unless it is kept."""
    if not kept:
        raise AssertionError(f"expected {expected}, saw {seen}; {remedy}")


def expect_same(seen: torch.Tensor, reference: torch.Tensor, expected: str, remedy: str) -> None:
    """Expects equal tensors, where NaN equals NaN. Says how many values differ, and the first."""
    expect(seen.shape == reference.shape, expected, f"{shape(seen)} for {shape(reference)}", remedy)
    differ = (seen != reference) & ~(seen.isnan() & reference.isnan())
    if differ.any():
        first = tuple(differ.nonzero()[0].tolist())
        expect(
            False,
            expected,
            f"{int(differ.sum())} of {differ.numel()} differ, the first at {first}: "
            f"{seen[first].item():g} for {reference[first].item():g}",
            remedy,
        )


def shape(tensor: torch.Tensor) -> str:
    """A tensor's shape, for an error."""
    return f"{tuple(tensor.shape)}"


def build(make: Make, input_dim: int, *, seed: int = 0, started: bool = True) -> Any:
    """Builds a quantiser in eval mode. The same seed gives the same quantiser.

    ``started`` trains it for one step if it gives vectors, because a codebook may start from the
    first frames that it gets.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        quantiser = make_quantiser(make, input_dim=input_dim)
    if started and gives_vectors(quantiser):
        run(quantiser.train(), draw_frames(input_dim, 4, 50, seed=99))
    return quantiser.eval()


def gives_vectors(quantiser: Quantiser) -> bool:
    """Whether the forward gives vectors, not only codes."""
    return quantiser.vq_dim is not None


def run(quantiser: Quantiser, x_BTI: torch.Tensor, *, seed: int = 1) -> dict[str, torch.Tensor]:
    """Calls the forward with noise from a seed."""
    return quantiser(x_BTI, generator=torch.Generator().manual_seed(seed), return_codes=True)


def snapshot(quantiser: Quantiser) -> dict[str, Any]:
    """Copies the state_dict; it may hold other things than tensors."""
    return {
        name: value.detach().clone() if isinstance(value, torch.Tensor) else value
        for name, value in quantiser.state_dict().items()
    }


def expect_same_state(quantiser: Quantiser, before: dict[str, Any], what: str, remedy: str) -> None:
    """Expects the state_dict of a snapshot."""
    for name, value in quantiser.state_dict().items():
        if isinstance(value, torch.Tensor):
            expect_same(value, before[name], f"{what} to leave {name} as it was", remedy)


def draw_frames(
    input_dim: int, batch: int, time: int, *, seed: int = 0, scale: float = 1.0
) -> torch.Tensor:
    """Draws frames from a normal distribution, shape (batch, time, input_dim)."""
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(batch, time, input_dim, generator=generator)


def for_many_frames(test: Callable[[torch.Tensor], None], input_dim: int) -> None:
    """Calls test(x_BTI) with batches of many sizes and scales, the same ones in every run."""
    try:
        from hypothesis import HealthCheck, Phase, given, settings
        from hypothesis import strategies as st
    except ImportError as error:
        raise ImportError(
            "the checks vary their frames with hypothesis, which is not installed; "
            'pip install "brainquant[test]"'
        ) from error

    def frames(scale: float) -> st.SearchStrategy[torch.Tensor]:
        draw = functools.partial(draw_frames, input_dim, scale=scale)
        return st.builds(draw, st.integers(1, 4), st.integers(1, 9), seed=st.integers(0, 2**32 - 1))

    quick = settings(
        max_examples=4,  # of each scale
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        # The type hints of hypothesis do not know what iterating over HealthCheck gives.
        suppress_health_check=list(HealthCheck),  # pyright: ignore[reportArgumentType]
    )
    with unloaded_speechbrain():
        for scale in (1e-3, 1.0, 1e3):
            quick(given(frames(scale))(test))()


def unloaded_speechbrain() -> contextlib.AbstractContextManager:
    """Keeps SpeechBrain's lazy modules from loading, which may fail.

    hypothesis reads ``__file__`` of each module in the process, and this would load them.
    """
    imported = sys.modules.get("speechbrain.utils.importutils")
    if imported is None:
        return contextlib.nullcontext()
    return mock.patch.object(imported.LazyModule, "__file__", None, create=True)
