"""Every quantiser keeps the contract: each fragment, in small, and the classes by themselves."""

from functools import partial

import pytest
from fragments import OF_INPUTS

from brainquant import GumbelVectorQuantizer, RandomProjectionQuantizer
from brainquant.testing import PROMISES, check_quantiser, check_ranks

INPUT_DIM = 12
TEMPERATURES = (2.0, 0.25, 0.99)
# What a fragment needs beside its own keys to be small; other fragments are checked as they are.
SMALL = {
    "finite_scalar": {"levels": [4, 3, 3], "vq_dim": 8},
    "gumbel": {"num_vars": 10, "vq_dim": 8},
    "kmeans": {"clusters": 16},
    "lookup_free": {"codebook_size": 16, "vq_dim": 8},
    "random_projection": {"cb_dim": 4, "cb_vocab": 16},
    "random_projection_multi": {"cb_dim": 4, "cb_vocab": 16},
    "refined_projection": {"cb_dim": 4, "cb_vocab": 16},
    "whitened_projection": {"cb_dim": 4, "cb_vocab": 16},
    "online_codebooks": {"num_vars": 10, "groups": 2},
    "residual": {"codebook_size": 16, "num_quantizers": 3, "vq_dim": 8},
    "vector": {"num_vars": 10, "vq_dim": 8},
}


@pytest.mark.parametrize("name", [path.stem for path in OF_INPUTS])
def test_a_fragment_keeps_the_contract(name, make_from_fragment):
    check_quantiser(make_from_fragment(name, **SMALL.get(name, {})), INPUT_DIM)


def test_centroids_of_a_file_keep_the_contract(make_from_fragment, centroids_file):
    make = make_from_fragment("kmeans", clusters=None, centroids=centroids_file)
    for check in PROMISES:
        if check is not check_ranks:  # the fragment is checked on ranks as it is
            check(make, INPUT_DIM)


@pytest.mark.parametrize(
    "make",
    [
        partial(GumbelVectorQuantizer, num_vars=6, temp_tuple=TEMPERATURES, groups=1, vq_dim=5),
        partial(GumbelVectorQuantizer, num_vars=5, temp_tuple=TEMPERATURES, groups=3, vq_dim=9),
        partial(GumbelVectorQuantizer, num_vars=1, temp_tuple=TEMPERATURES, groups=2, vq_dim=4),
        partial(RandomProjectionQuantizer, cb_dim=3, cb_vocab=300),
        partial(RandomProjectionQuantizer, cb_dim=1, cb_vocab=2),
        partial(RandomProjectionQuantizer, cb_dim=3, cb_vocab=9, num_codebooks=3, seed=0),
        partial(
            GumbelVectorQuantizer,
            num_vars=6,
            temp_tuple=TEMPERATURES,
            groups=2,
            vq_dim=4,
            combine_groups=True,
            weight_proj_depth=2,
            weight_proj_factor=3,
        ),
    ],
    ids=["one group", "three groups", "one code", "many codes", "one dim", "three", "deep"],
)
@pytest.mark.parametrize("input_dim", [1, 7])
def test_small_and_odd_sizes_keep_the_contract(make, input_dim):
    for check in PROMISES:
        if check is not check_ranks:  # sizes make no difference to it, and it starts processes
            check(make, input_dim)
