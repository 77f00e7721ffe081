"""Each promise is kept by check_quantiser: a quantiser that breaks it fails, and fails there."""

import sys
from functools import partial

import pytest
import torch
from broken_quantisers import BROKEN, Codes, SilentCode, Vectors

from brainquant import RandomProjectionQuantizer
from brainquant.testing import PROMISES, check_quantiser, check_ranks

INPUT_DIM = 12
CHECKS = {check.__name__: check for check in PROMISES}


def test_every_promise_has_a_quantiser_that_breaks_it():
    assert {kind.breaks for kind in BROKEN} == set(CHECKS)


@pytest.mark.parametrize("make", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_quantiser_fails_where_it_is_broken_and_only_there(make):
    failed = {}
    for name, check in CHECKS.items():
        if name != "check_ranks" or make.breaks == name:  # it starts processes
            try:
                check(make, INPUT_DIM)
            except AssertionError as error:
                failed[name] = str(error)
    assert set(failed) == {make.breaks, *make.also}
    for name, message in failed.items():
        assert message.startswith(f"{name}: expected ") and ", saw " in message
        assert "; " in message and "\n" not in message


def test_all_broken_promises_are_named_at_once_one_a_line():
    class TwoFaults(SilentCode):
        def update_temp(self, steps):
            self.curr_temp = 1.0 + steps

    with pytest.raises(AssertionError) as error:
        check_quantiser(TwoFaults, INPUT_DIM)
    names = [line.split(":")[0] for line in str(error.value).splitlines()]
    # Nothing local to a function can be pickled, the quantiser itself included.
    assert names == ["check_not_finite", "check_temperature", "check_pickle", "check_ranks"]


def test_a_lambda_makes_a_quantiser_as_well():
    check_ranks(lambda input_dim: Codes(input_dim), INPUT_DIM)


def test_a_quantiser_that_cannot_be_built_is_told_by_its_own_error():
    with pytest.raises(ValueError, match="cb_vocab"):
        check_quantiser(partial(RandomProjectionQuantizer, cb_dim=4, cb_vocab=0), INPUT_DIM)


def test_without_hypothesis_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(ImportError, match=r'pip install "brainquant\[test\]"'):
        check_quantiser(Codes, INPUT_DIM)


@pytest.mark.parametrize("make", [Codes, Vectors])
def test_a_good_one_passes_and_random_numbers_and_threads_are_left_as_they_were(make):
    rng, threads = torch.get_rng_state(), torch.get_num_threads()
    check_quantiser(make, INPUT_DIM)
    assert torch.equal(torch.get_rng_state(), rng) and torch.get_num_threads() == threads
