"""What the checks are made of: a quantiser, frames that vary, errors that help.

Shape suffixes: B batch, T time, I input dim, G codebooks.
"""

import contextlib
import functools
import sys
from unittest import mock

import torch

from ..quantisers import make_quantiser


def promise(check):
    """Makes a check repeat itself exactly, and gives its errors its name."""

    @functools.wraps(check)
    def named(make, input_dim):
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
                    f"{lines[-1]}; {check.__name__} called by itself shows where"
                ) from error

    return named


def expect(kept, expected, seen, remedy):
    """Raises what every broken promise reads like."""
    if not kept:
        raise AssertionError(f"expected {expected}, saw {seen}; {remedy}")


def expect_same(seen, reference, expected, remedy):
    """Two tensors that have to be equal, NaN where NaN; says how many differ and the first."""
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


def shape(tensor):
    """A tensor's shape in an error."""
    return f"{tuple(tensor.shape)}"


def build(make, input_dim, *, seed=0, started=True):
    """A quantiser in eval mode, the same for the same seed.

    ``started`` gives one training step to those that train, since a codebook may start from
    the first frames that it sees.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        quantiser = make_quantiser(make, input_dim=input_dim)
    if started and gives_vectors(quantiser):
        run(quantiser.train(), draw_frames(input_dim, 4, 50, seed=99))
    return quantiser.eval()


def gives_vectors(quantiser):
    """Whether the forward gives vectors, as opposed to codes only."""
    return quantiser.vq_dim is not None


def run(quantiser, x_BTI, *, seed=1):
    """The forward, with noise that a seed determines."""
    return quantiser(x_BTI, generator=torch.Generator().manual_seed(seed), return_codes=True)


def snapshot(quantiser):
    """A copy of the state_dict, which may hold things that are no tensors."""
    return {
        name: value.detach().clone() if isinstance(value, torch.Tensor) else value
        for name, value in quantiser.state_dict().items()
    }


def expect_same_state(quantiser, before, what, remedy):
    """The state_dict has to be that of a snapshot."""
    for name, value in quantiser.state_dict().items():
        if isinstance(value, torch.Tensor):
            expect_same(value, before[name], f"{what} to leave {name} as it was", remedy)


def draw_frames(input_dim, batch, time, *, seed=0, scale=1.0):
    """Normal frames, shape (batch, time, input_dim)."""
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(batch, time, input_dim, generator=generator)


def for_many_frames(test, input_dim):
    """Calls test(x_BTI) with batches of many sizes and scales, the same in every run."""
    try:
        from hypothesis import HealthCheck, Phase, given, settings
        from hypothesis import strategies as st
    except ImportError as error:
        raise ImportError(
            "the checks vary their frames with hypothesis, which is not installed; "
            'pip install "brainquant[test]"'
        ) from error
    frames = st.builds(
        functools.partial(draw_frames, input_dim),
        st.integers(1, 4),
        st.integers(1, 9),
        seed=st.integers(0, 2**32 - 1),
        scale=st.sampled_from([1e-3, 1.0, 1e3]),
    )
    quick = settings(
        max_examples=10,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    with unloaded_speechbrain():
        quick(given(frames)(test))()


def unloaded_speechbrain():
    """Keeps SpeechBrain's lazy modules from loading, and failing, when they are looked at.

    hypothesis asks each module of the process for its file.
    """
    imported = sys.modules.get("speechbrain.utils.importutils")
    if imported is None:
        return contextlib.nullcontext()
    return mock.patch.object(imported.LazyModule, "__file__", None, create=True)
