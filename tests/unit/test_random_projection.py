"""Random-projection quantiser, beside that of the installed SpeechBrain."""

import copy
import pickle

import pytest
import speechbrain.nnet.quantisers as stock
import torch
import torch.nn.functional as F

import brainquant
from brainquant import RandomProjectionQuantizer

SIZES = (24, 6, 50)


@pytest.fixture
def quantiser():
    return RandomProjectionQuantizer(*SIZES, seed=0)


@pytest.fixture
def x():
    return torch.randn(4, 30, SIZES[0], generator=torch.Generator().manual_seed(1))


def seeded(module, seed=7):
    """The class of a module, built from the global generator."""
    torch.manual_seed(seed)
    return module.RandomProjectionQuantizer(*SIZES)


def margins(quantiser, x):
    """By how much the best score of each frame exceeds the second."""
    scores = F.normalize(x @ quantiser.P, dim=-1) @ quantiser.CB.T
    best = scores.topk(2, dim=-1).values
    return best[..., 0] - best[..., 1]


def test_the_same_seed_gives_speechbrains_tables_and_the_same_draws_after_them():
    ours, after_ours = seeded(brainquant), torch.rand(3)
    theirs, after_theirs = seeded(stock), torch.rand(3)
    assert torch.equal(ours.P, theirs.P) and torch.equal(ours.CB, theirs.CB)
    assert torch.equal(after_ours, after_theirs)


def test_codes_are_speechbrains_wherever_the_best_is_clear(x):
    x = torch.cat([x, 1e-3 * x, 1e3 * x])
    ours, theirs = seeded(brainquant), seeded(stock)
    clear = margins(ours, x) > 2e-6
    assert clear.float().mean() > 0.99
    assert torch.equal(ours(x)[clear], theirs(x)[clear])
    assert ours(x).dtype == theirs(x).dtype


def test_state_dict_goes_both_ways(x):
    ours, theirs = seeded(brainquant), seeded(stock)
    other_ours, other_theirs = seeded(brainquant, 8), seeded(stock, 8)
    other_ours.load_state_dict(theirs.state_dict(), strict=True)
    other_theirs.load_state_dict(ours.state_dict(), strict=True)
    assert torch.equal(other_ours(x), ours(x))
    assert torch.equal(other_theirs(x), theirs(x))


def test_speechbrains_docstring_example():
    assert RandomProjectionQuantizer(16, 16, 32)(torch.rand(10, 12, 16)).shape == (10, 12)


def test_encode_adds_the_dimension_of_codebooks(quantiser, x):
    assert torch.equal(quantiser.encode(x), quantiser(x)[..., None])
    assert (quantiser.num_codebooks, quantiser.codebook_size, quantiser.vq_dim) == (1, 50, None)
    assert quantiser.update_temp(3) is None


def test_seed_is_a_generator_of_its_own(untouched_global_rng):
    torch.manual_seed(1)
    first = RandomProjectionQuantizer(*SIZES, seed=5)
    torch.manual_seed(2)
    with untouched_global_rng():
        again = RandomProjectionQuantizer(*SIZES, seed=5)
    other = RandomProjectionQuantizer(*SIZES, seed=6)
    assert torch.equal(first.P, again.P) and torch.equal(first.CB, again.CB)
    assert not torch.equal(first.P, other.P) and not torch.equal(first.CB, other.CB)


def test_codes_do_not_change_under_autocast(quantiser):
    x = torch.randn(2, 500, SIZES[0], generator=torch.Generator().manual_seed(2))
    plain = quantiser(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantiser(x), plain)
        assert torch.equal(quantiser.encode(x)[..., 0], plain)
        low = (F.normalize(x @ quantiser.P, dim=-1) @ quantiser.CB.T).argmax(-1)
    assert not torch.equal(low, plain)  # the frames are many enough to tell


def test_a_frame_has_its_code_in_any_batch_and_order_beside_any_padding(quantiser, x):
    codes = quantiser(x)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    assert torch.equal(quantiser(x[:, order]), codes[:, order])
    assert torch.equal(quantiser(x.flip(0)), codes.flip(0))
    assert torch.equal(quantiser(F.pad(x, (0, 0, 0, 9), value=1e4))[:, :30], codes)
    for frame in range(30):
        assert torch.equal(quantiser(x[:1, frame : frame + 1]), codes[:1, frame : frame + 1])


def test_a_zero_frame_has_code_0_and_a_broken_one_none(quantiser, x):
    expected = quantiser(x)
    for frame, value in {3: 0.0, 5: float("nan"), 7: float("inf")}.items():
        x[1, frame, 2 if value else slice(None)] = value
    expected[1, 3], expected[1, 5], expected[1, 7] = 0, -1, -1
    assert torch.equal(quantiser(x), expected)
    assert torch.equal(quantiser.encode(x)[..., 0], expected)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0)])
def test_an_empty_batch_gives_no_codes(quantiser, shape):
    assert quantiser(torch.zeros(*shape, SIZES[0])).shape == shape
    assert quantiser.encode(torch.zeros(*shape, SIZES[0])).shape == (*shape, 1)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda q: pickle.loads(pickle.dumps(q))])
def test_copies_and_pickles(quantiser, x, clone):
    assert torch.equal(clone(quantiser)(x), quantiser(x))


def test_nothing_is_trained(quantiser, x):
    assert not list(quantiser.parameters())
    assert not quantiser(x.requires_grad_()).requires_grad


@pytest.mark.parametrize("key", ["input_dim", "cb_dim", "cb_vocab", "num_codebooks"])
@pytest.mark.parametrize("value", [0, -3, 2.5, "8"])
def test_a_wrong_size_is_named(key, value):
    sizes = {"input_dim": 8, "cb_dim": 4, "cb_vocab": 16, key: value}
    with pytest.raises(ValueError, match=rf"{key} .*got {value!r}; set {key}:"):
        RandomProjectionQuantizer(**sizes)


@pytest.mark.parametrize("shape", [(2, 5, 23), (5, 24)])
def test_frames_of_another_size_are_named_beside_input_dim(quantiser, shape):
    with pytest.raises(ValueError) as error:
        quantiser(torch.zeros(shape))
    assert "24" in str(error.value) and str(shape) in str(error.value)
    assert "set input_dim:" in str(error.value)


def test_several_codebooks_are_as_many_quantisers_side_by_side(x):
    quantiser = RandomProjectionQuantizer(*SIZES, num_codebooks=3, seed=2)
    codes = quantiser(x)
    assert codes.shape == (4, 30, 3) and torch.equal(codes, quantiser.encode(x))
    assert quantiser.P.shape == (3, 24, 6) and quantiser.CB.shape == (3, 50, 6)
    for codebook in range(3):
        single = RandomProjectionQuantizer(*SIZES)
        tables = {"P": quantiser.P[codebook], "CB": quantiser.CB[codebook]}
        single.load_state_dict(tables)
        assert torch.equal(single(x), codes[..., codebook])
    assert not torch.equal(codes[..., 0], codes[..., 1])


def test_the_first_of_several_codebooks_is_the_only_one_of_one(x):
    one, several = (
        RandomProjectionQuantizer(*SIZES, num_codebooks=number, seed=2) for number in (1, 3)
    )
    assert torch.equal(several(x)[..., 0], one(x))


@pytest.fixture
def frames():
    """Frames that vary in some directions much more than in others, around another point than 0."""
    generator = torch.Generator().manual_seed(4)
    directions = torch.randn(SIZES[0], SIZES[0], generator=generator) * torch.logspace(0, -2, 24)
    return torch.randn(2000, 24, generator=generator) @ directions.T + 3.0


@pytest.mark.parametrize("num_codebooks", [1, 2])
def test_whitening_makes_all_directions_of_the_corpus_alike(frames, num_codebooks):
    sizes = {"num_codebooks": num_codebooks, "seed": 0}
    quantiser = RandomProjectionQuantizer(*SIZES, whiten=True, **sizes)
    assert torch.equal(quantiser.CB, RandomProjectionQuantizer(*SIZES, **sizes).CB)
    assert quantiser.frames_to_fit > 10_000
    quantiser.fit(frames)
    assert quantiser.frames_to_fit == 0
    for P in quantiser.P.view(-1, 24, 6):
        white = frames @ P + quantiser.shift
        torch.testing.assert_close(white.mean(0), torch.zeros(6), atol=1e-4, rtol=0)
        torch.testing.assert_close(white.T.cov(), torch.eye(6), atol=1e-3, rtol=0)
    # What it lets through is most of the variance, and the codes are used more evenly.
    kept = torch.linalg.lstsq(F.pad(white, (0, 1), value=1.0), frames).solution
    residual = frames - F.pad(white, (0, 1), value=1.0) @ kept
    assert residual.var(0).sum() < 0.2 * frames.var(0).sum()
    random = RandomProjectionQuantizer(*SIZES, **sizes)
    used = [q.encode(frames[None])[..., 0].unique().numel() for q in (quantiser, random)]
    assert used[0] > 1.5 * used[1]

    again = RandomProjectionQuantizer(*SIZES, whiten=True, **sizes)
    again.load_state_dict(quantiser.state_dict(), strict=True)
    assert again.frames_to_fit == 0
    assert torch.equal(again.encode(frames[None]), quantiser.encode(frames[None]))


def test_what_cannot_be_whitened_is_named(frames):
    quantiser = RandomProjectionQuantizer(*SIZES, whiten=True)
    with pytest.raises(ValueError, match="2000 frames vary in 3 directions only, got cb_dim=6"):
        quantiser.fit(frames[:, :3] @ torch.ones(3, 24).triu())
    assert quantiser.frames_to_fit > 0


def test_a_cross_entropy_of_one_s_own_leaves_frames_without_a_code_out():
    quantiser, x = RandomProjectionQuantizer(12, 4, 32, seed=0), torch.randn(2, 10, 12)
    x[1, 3] = torch.nan
    codes, logits = quantiser(x).flatten(), torch.randn(20, 32)
    with pytest.raises((IndexError, RuntimeError), match="Target -1 is out of bounds"):
        torch.nn.functional.cross_entropy(logits, codes)
    seen = torch.nn.functional.cross_entropy(logits, codes, ignore_index=-1)
    kept = torch.arange(20) != 13
    assert torch.equal(seen, torch.nn.functional.cross_entropy(logits[kept], codes[kept]))
    assert "ignore_index=-1" in RandomProjectionQuantizer.forward.__doc__


def test_frames_that_are_all_equal_are_named_as_silence():
    quantiser = RandomProjectionQuantizer(12, 4, 32, seed=0, whiten=True)
    with pytest.raises(ValueError, match="the 50 frames are all equal, as frames of silence"):
        quantiser.fit(torch.full((50, 12), 0.3))


def test_only_a_quantiser_that_whitens_can_be_fitted():
    quantiser = RandomProjectionQuantizer(12, 4, 32, seed=0)
    before = quantiser.P.clone()
    with pytest.raises(ValueError, match="whiten must be True .*set whiten: True"):
        quantiser.fit(torch.randn(50, 12))
    assert torch.equal(quantiser.P, before)
