"""The contract of a quantiser, and what all of them are built with."""

from functools import partial

import pytest
import torch

from brainquant import RandomProjectionQuantizer
from brainquant.functional.precision import full_precision
from brainquant.quantisers import Quantiser, make_quantiser


def test_make_quantiser_adds_the_sizes_of_the_model():
    make = partial(RandomProjectionQuantizer, cb_dim=4, cb_vocab=32, seed=1)
    made = make_quantiser(make, input_dim=40)
    direct = RandomProjectionQuantizer(40, 4, 32, seed=1)
    assert torch.equal(made.P, direct.P) and torch.equal(made.CB, direct.CB)


@pytest.mark.parametrize(
    "bound, named", [({"cb_dim": 4}, "cb_vocab"), ({"cb_dim": 4, "cb_vocab": 8, "odd": 1}, "odd")]
)
def test_make_quantiser_names_the_key_that_is_missing_or_unknown(bound, named):
    with pytest.raises(ValueError, match=rf"{named}.*correct them in its fragment"):
        make_quantiser(partial(RandomProjectionQuantizer, **bound), input_dim=40)


def test_make_quantiser_leaves_the_errors_of_the_class_alone():
    with pytest.raises(ValueError, match="^cb_vocab must be a positive integer, got 0"):
        make_quantiser(partial(RandomProjectionQuantizer, cb_dim=4, cb_vocab=0), input_dim=40)


def test_a_quantiser_that_anneals_nothing_takes_update_temp():
    quantiser = Quantiser()
    assert quantiser.update_temp(100) is None and quantiser.vq_dim is None


def test_full_precision_turns_tf32_off_and_back(tf32_allowed):
    matmul = torch.backends.cuda.matmul
    with pytest.raises(KeyError), full_precision(torch.device("cpu")):
        assert getattr(matmul, "fp32_precision", "ieee") == "ieee"  # torch >= 2.9
        assert hasattr(matmul, "fp32_precision") or not matmul.allow_tf32
        raise KeyError
    assert matmul.allow_tf32
