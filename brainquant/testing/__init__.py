"""Checks that a quantiser keeps the contract of ``brainquant.quantisers.Quantiser``.

The contract is a list of promises. Each promise has a function ``check_<promise>(make,
input_dim)``; the first line of its docstring states the promise.
"""

from .codes import (
    check_attributes,
    check_autocast,
    check_codes,
    check_extremes,
    check_independence,
    check_modes,
    check_no_trace,
    check_not_finite,
    check_threads,
    check_ties,
)
from .copies import check_deepcopy, check_pickle, check_safetensors, check_state_dict
from .promise import Make, build
from .ranks import check_ranks
from .steps import check_frozen, check_steps
from .training import (
    check_aux_loss,
    check_generator,
    check_gradients,
    check_no_frames,
    check_not_finite_vectors,
    check_straight_through,
)
from .vectors import check_forward, check_perplexity, check_temperature, check_vectors

PROMISES = (
    check_attributes,
    check_codes,
    check_independence,
    check_threads,
    check_autocast,
    check_modes,
    check_no_trace,
    check_ties,
    check_not_finite,
    check_extremes,
    check_no_frames,
    check_forward,
    check_vectors,
    check_perplexity,
    check_temperature,
    check_generator,
    check_straight_through,
    check_aux_loss,
    check_gradients,
    check_not_finite_vectors,
    check_steps,
    check_frozen,
    check_state_dict,
    check_deepcopy,
    check_pickle,
    check_safetensors,
    check_ranks,
)


def check_quantiser(make: Make, input_dim: int) -> None:
    """Checks every promise of the contract; takes a few seconds.

    The last check starts two processes. So a script has to call this function under
    ``if __name__ == "__main__":``. Small sizes are quicker. Choose a codebook size that no other
    dimension has: the check of ties finds the tables of codes by this size.

    Arguments
    ---------
    make : callable
        Builds the quantiser by ``make(input_dim=...)``: its class, a ``functools.partial`` of it,
        or the value of a ``!name:`` node of a YAML.
    input_dim : int
        Size of a frame.

    Raises
    ------
    AssertionError
        If promises are broken. Each has a line: the name of its check, what was expected, what
        was seen and how to repair it.
    ValueError
        If ``make`` cannot build the quantiser.
    ImportError
        If hypothesis, which varies the frames, is not installed.

    Example
    -------
    >>> from brainquant import RandomProjectionQuantizer
    >>> class Restless(RandomProjectionQuantizer):
    ...     def encode(self, x):
    ...         return super().encode(x) * self.training
    >>> from functools import partial
    >>> check_modes(partial(Restless, cb_dim=4, cb_vocab=16), 6)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    AssertionError: check_modes: expected the same codes in train() as in eval(), saw ...
    """
    build(make, input_dim, started=False)
    broken = []
    for promise in PROMISES:
        try:
            promise(make, input_dim)
        except AssertionError as error:
            broken.append(str(error))
    if broken:
        raise AssertionError("\n".join(broken))
