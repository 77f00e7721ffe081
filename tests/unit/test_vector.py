"""Vector quantiser with EMA codebooks: against the slow and obvious, and over its steps."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from brainquant import VectorQuantizer

BUFFERS = {"codebook", "counts", "sums", "updates"}


@pytest.fixture
def quantiser():
    return make()


@pytest.fixture
def x():
    return frames(0)


def make(num_vars=10, seed=0, **options):
    torch.manual_seed(0)  # of the projection
    return VectorQuantizer(12, num_vars, 2, 8, seed=seed, **options)


def frames(seed, batch=3, time=40):
    return torch.randn(batch, time, 12, generator=torch.Generator().manual_seed(seed))


def projected(quantiser, x):
    """Parts of the projected frames, shape (groups, frames, dim)."""
    return quantiser.proj(x).detach().unflatten(2, (2, 4)).flatten(0, 1).transpose(0, 1)


def state(quantiser):
    return {name: buffer.clone() for name, buffer in quantiser.named_buffers()}


def assert_same_state(quantiser, expected):
    for name, buffer in quantiser.named_buffers():
        assert torch.equal(buffer, expected[name]), name


def clusters(num_clusters, per_cluster, seed=0):
    """Frames around so many points, far from one another."""
    generator = torch.Generator().manual_seed(seed)
    points = 20 * torch.randn(num_clusters, 1, 12, generator=generator)
    noise = 0.01 * torch.randn(num_clusters, per_cluster, 12, generator=generator)
    return (points + noise).view(1, -1, 12)


@given(st.integers(0, 1000), st.integers(0, 3))
def test_codes_are_the_nearest_in_euclidean_distance(seed, steps):
    quantiser, x = make(), frames(seed)
    for step in range(steps):
        quantiser(frames(step))
    distances = torch.cdist(projected(quantiser, x).double(), quantiser.codebook.double())
    expected = distances.argmin(-1).T.view(3, 40, 2)
    assert torch.equal(quantiser.encode(x), expected)


@pytest.mark.parametrize("training", [True, False])
def test_vectors_are_rows_and_their_gradient_is_that_of_the_projection(quantiser, x, training):
    quantiser(x)
    rows = quantiser.codebook.clone()
    output = quantiser.train(training)(x.requires_grad_(), return_codes=True)
    first, second = output["chosen_codes"].unbind(-1)
    assert torch.equal(output["codes"], output["chosen_codes"])
    assert torch.equal(output["x"], torch.cat([rows[0, first], rows[1, second]], -1))
    weights = torch.randn(3, 40, 8)
    (grad,) = torch.autograd.grad((weights * output["x"]).sum(), x)
    torch.testing.assert_close(grad, weights @ quantiser.proj.weight)


def test_the_aux_loss_is_the_mean_square_of_projection_less_code(quantiser, x):
    quantiser(x)
    rows = quantiser.codebook.clone()
    output = quantiser(x, return_codes=True)
    vectors = torch.stack([rows[g, output["codes"][..., g].flatten()] for g in range(2)])
    expected = (projected(quantiser, x) - vectors).square().mean()
    torch.testing.assert_close(output["aux_loss"].detach(), expected)
    output["aux_loss"].backward()
    before = float(output["aux_loss"].detach())
    quantiser.proj.weight.data -= 0.1 * quantiser.proj.weight.grad
    moved = (projected(quantiser, x) - vectors).square().mean()
    assert moved < before  # towards the codes, which stay


def test_the_codebooks_start_from_k_means():
    quantiser, x = make(num_vars=6), clusters(6, 20)
    quantiser(x)
    for codes, parts in zip(quantiser.codebook, projected(quantiser, x)):
        fitted = KMeans(6, random_state=0).fit(parts.numpy())
        expected = torch.from_numpy(fitted.cluster_centers_)
        assert torch.cdist(codes, expected).min(1).values.max() < 1e-3
        assert torch.cdist(codes, expected).argmin(1).unique().numel() == 6


def test_k_means_sees_a_bounded_number_of_frames(quantiser, monkeypatch):
    sizes = []
    fit = KMeans.fit
    monkeypatch.setattr(KMeans, "fit", lambda self, x: sizes.append(len(x)) or fit(self, x))
    quantiser(frames(0, time=1000))
    assert sizes == [640, 640]  # 64 frames for each of 10 codes, once for each group


def test_fewer_frames_than_codes_are_all_codes(quantiser):
    x = frames(0, batch=1, time=4)
    quantiser(x)
    output = quantiser(x, return_codes=True)
    assert output["aux_loss"] < 1e-9
    assert all(codes.unique().numel() == 4 for codes in output["codes"][0].T)


def test_codes_are_the_averages_of_their_frames_over_steps():
    quantiser = make(decay=0.8, revive_below=0)
    quantiser(frames(0))  # the clusters of k-means, which hold all of its frames
    sums, counts = quantiser.sums.clone(), quantiser.counts.clone()
    torch.testing.assert_close(counts.sum(1), torch.tensor([24.0, 24.0]))
    torch.testing.assert_close(sums.sum(1), 0.2 * projected(quantiser, frames(0)).sum(1))
    for step in range(1, 5):
        x = frames(step)
        codes = quantiser(x, return_codes=True)["codes"].flatten(0, 1)
        sums, counts = 0.8 * sums, 0.8 * counts
        for g, parts in enumerate(projected(quantiser, x)):
            for part, code in zip(parts, codes[:, g]):
                sums[g, code] += 0.2 * part
                counts[g, code] += 0.2
    torch.testing.assert_close(quantiser.counts, counts)
    torch.testing.assert_close(quantiser.codebook, sums / counts[..., None], rtol=1e-3, atol=1e-4)


def test_a_dead_code_becomes_a_frame_of_the_batch_and_a_used_one_stays():
    quantiser = make(num_vars=6, decay=0.5)
    quantiser(clusters(6, 20))
    x = clusters(6, 20)[:, :60]  # the last three are spoken no more
    before = quantiser.encode(clusters(6, 20))[0, 60:]
    for _ in range(10):
        kept = quantiser.codebook.clone()
        quantiser(x)
        dead = (quantiser.codebook - kept).norm(dim=-1) > 1
        if dead.any():
            break
    for g, parts in enumerate(projected(quantiser, x)):
        assert set(dead[g].nonzero().flatten().tolist()) == set(before[:, g].tolist())
        revived = quantiser.codebook[g, dead[g]]
        assert (revived[:, None] - parts).norm(dim=-1).amin(1).max() < 1e-5
        assert revived.unique(dim=0).shape == (3, 4)  # three frames


def test_without_revival_a_dead_code_stays_where_it_is():
    quantiser = make(num_vars=6, decay=0.5, revive_below=0)
    quantiser(clusters(6, 20))
    kept = quantiser.codebook.clone()
    for _ in range(10):
        quantiser(clusters(6, 20)[:, :60])
    torch.testing.assert_close(quantiser.codebook, kept, rtol=1e-2, atol=1e-2)


def test_most_codes_are_in_use_after_some_steps():
    """Without revival, and without k-means, most of them never are."""
    used = {}
    for revive_below in (0.1, 0):
        quantiser = make(num_vars=64, decay=0.9, revive_below=revive_below)
        quantiser(clusters(3, 30))  # a start that knows three places only
        for step in range(60):
            x = frames(step)
            quantiser(x)
        codes = quantiser.encode(torch.cat([frames(step) for step in range(20)]))
        used[revive_below] = min(c.unique().numel() for c in codes.flatten(0, 1).T)
    assert used[0.1] > 50 > 2 * used[0]


def test_a_resumed_quantiser_goes_on_to_the_last_bit():
    quantiser, resumed = make(num_vars=40), make(num_vars=40)
    for step in range(6):
        quantiser(frames(step))
        if step == 2:
            saved = copy.deepcopy(quantiser.state_dict())
    assert BUFFERS < set(saved)
    resumed.load_state_dict(saved)
    for step in range(3, 6):
        resumed(frames(step))
    assert_same_state(resumed, state(quantiser))


def test_a_state_of_before_the_start_is_started_again(quantiser, x):
    fresh = copy.deepcopy(quantiser.state_dict())
    quantiser(frames(1))
    quantiser.load_state_dict(fresh)
    quantiser(x)
    expected = make()
    expected(x)
    assert_same_state(quantiser, state(expected))


def test_the_seed_draws_everything_and_the_global_numbers_rest(untouched_global_rng):
    made = [make(num_vars=200, seed=seed) for seed in (4, 4, 5)]
    for quantiser in made:
        with untouched_global_rng():
            for step in range(3):
                quantiser(frames(step))
    assert_same_state(made[1], state(made[0]))
    assert not torch.equal(made[2].codebook, made[0].codebook)
    assert not torch.equal(make(seed=5).codebook, make(seed=4).codebook)


def test_only_a_forward_in_training_changes_state(quantiser, x):
    for _ in range(2):
        before = state(quantiser)
        quantiser.train().encode(x)
        quantiser.eval()(x, return_codes=True)
        assert_same_state(quantiser, before)
        quantiser.train()(x)  # from k-means in the second round


def test_frames_that_are_not_finite_are_in_no_statistics(quantiser, x):
    other = copy.deepcopy(quantiser)
    x[1] = x[1, :1]
    spoilt = torch.cat([x, torch.full((1, 40, 12), torch.nan)])
    spoilt[3, 0] = torch.inf
    for _ in range(3):
        quantiser(x), other(spoilt)
    assert_same_state(other, state(quantiser))


def test_no_frames_change_nothing(quantiser, x):
    for start in (x[:0], x[:, :0], torch.full_like(x, torch.nan)):
        before = state(quantiser)
        output = quantiser(start.requires_grad_(), return_codes=True)
        assert output["aux_loss"] == 0
        output["aux_loss"].backward()
        assert_same_state(quantiser, before)
        quantiser(x)


@pytest.mark.parametrize("key", ["decay", "revive_below"])
@pytest.mark.parametrize("value", [-0.1, 1, 1.5, "0.9", None, float("nan")])
def test_a_wrong_share_is_named(key, value):
    with pytest.raises(ValueError, match=rf"{key} must be .*got {value!r}; set {key}:"):
        make(**{key: value})


@pytest.mark.parametrize("key", ["input_dim", "num_vars", "groups", "vq_dim"])
@pytest.mark.parametrize("value", [0, -2, 1.5, "4"])
def test_a_wrong_size_is_named(key, value):
    sizes = {"input_dim": 4, "num_vars": 4, "groups": 2, "vq_dim": 4, key: value}
    with pytest.raises(ValueError, match=rf"{key} .*got {value!r}; set {key}:"):
        VectorQuantizer(**sizes)


def test_a_vq_dim_that_groups_do_not_divide_is_named():
    with pytest.raises(ValueError, match="got vq_dim=50, groups=3; set vq_dim:"):
        VectorQuantizer(8, 10, 3, 50)
