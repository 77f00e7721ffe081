"""k-means quantiser, beside scikit-learn's own labels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from sklearn.cluster import KMeans, MiniBatchKMeans

from brainquant import KMeansQuantizer


@pytest.fixture
def centroids():
    return torch.randn(16, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def file(tmp_path, centroids):
    save_file({"centroids": centroids}, tmp_path / "centroids.safetensors")
    return str(tmp_path / "centroids.safetensors")


@given(
    estimator=st.sampled_from([KMeans, MiniBatchKMeans]),
    clusters=st.integers(1, 40),
    dim=st.integers(1, 40),
    scale=st.sampled_from([0.01, 1.0, 300.0]),
    offset=st.sampled_from([0.0, 5.0]),
    seed=st.integers(0, 2**31),
)
def test_codes_are_the_labels_of_scikit_learn(estimator, clusters, dim, scale, offset, seed):
    rng = np.random.default_rng(seed)
    train, test = (scale * (rng.normal(size=(n, dim)) + offset) for n in (50, 120))
    train, test = train.astype(np.float32), test.astype(np.float32)
    kmeans = estimator(clusters, n_init=1, random_state=0).fit(train)
    codes = KMeansQuantizer.from_estimator(kmeans)(torch.from_numpy(test)[None])[0].numpy()
    # Where float32 can tell the two best apart; scikit-learn computes with squares.
    exact = np.linalg.norm(test[:, None].astype(float) - kmeans.cluster_centers_, axis=-1) ** 2
    best = np.sort(exact, axis=1)[:, :2]
    clear = (best[:, -1] - best[:, 0] > 1e-5 * (test**2).sum(1)) | (clusters == 1)
    assert clear.mean() > 0.5
    assert (codes == kmeans.predict(test))[clear].all()


def test_a_fitted_estimator_may_go_on_without_the_quantiser():
    rng = np.random.default_rng(0)
    kmeans = MiniBatchKMeans(4, random_state=0).partial_fit(rng.normal(size=(50, 3)))
    quantiser = KMeansQuantizer.from_estimator(kmeans)
    before = quantiser.centroids.clone()
    kmeans.partial_fit(rng.normal(size=(50, 3)) + 9)
    assert torch.equal(quantiser.centroids, before)
    assert not torch.equal(before, torch.tensor(kmeans.cluster_centers_).float())


def test_the_file_the_tensor_and_the_checkpoint_give_the_same_codes(file, centroids):
    x = torch.randn(3, 50, 12, generator=torch.Generator().manual_seed(1))
    codes = torch.cdist(x, centroids).argmin(-1)
    quantiser = KMeansQuantizer(12, file)
    assert list(quantiser.state_dict()) == ["centroids"] and not list(quantiser.parameters())
    assert (quantiser.num_codebooks, quantiser.codebook_size, quantiser.vq_dim) == (1, 16, None)
    resumed = KMeansQuantizer(12, torch.zeros(16, 12))
    resumed.load_state_dict(quantiser.state_dict())
    for q in (quantiser, resumed, KMeansQuantizer(12, centroids)):
        assert torch.equal(q(x), codes) and torch.equal(q.encode(x), codes[..., None])


def test_a_table_in_half_precision_is_taken_as_float32(tmp_path, centroids):
    save_file({"centroids": centroids.half()}, tmp_path / "half.safetensors")
    quantiser = KMeansQuantizer(12, tmp_path / "half.safetensors")
    assert quantiser.centroids.dtype == torch.float32


def test_a_frame_that_is_not_finite_has_no_code(file):
    x = torch.zeros(1, 3, 12)
    x[0, 1, 5], x[0, 2, 0] = float("nan"), float("inf")
    assert (KMeansQuantizer(12, file).encode(x)[0, :, 0] >= 0).tolist() == [True, False, False]


def no_file(path):
    path.unlink()


def other_tensor(path):
    save_file({"centres": load_file(path)["centroids"]}, path)


def broken(path):
    path.write_bytes(path.read_bytes()[:20])


@pytest.mark.parametrize(
    "spoil, fault",
    [
        (no_file, "does not exist"),
        (other_tensor, "has no tensor 'centroids'"),
        (broken, "cannot be read"),
    ],
)
def test_a_file_that_is_not_one_of_centroids_is_named_with_the_command(file, spoil, fault):
    spoil(Path(file))
    with pytest.raises(ValueError) as error:
        KMeansQuantizer(12, file)
    for part in (f"centroids: the file {file} {fault}", "brainquant kmeans", f"--output {file}"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(16, 12), (11,), (2, 16, 11)])
def test_centroids_of_another_size_are_named(shape):
    message = rf"\(clusters, 11\) for input_dim=11, got .*{shape[-1]}.*brainquant kmeans"
    with pytest.raises(ValueError, match=message):
        KMeansQuantizer(11, torch.zeros(shape))


@pytest.mark.parametrize("value", [0, -2, 1.5, "4"])
def test_a_wrong_input_dim_is_named(value, centroids):
    with pytest.raises(ValueError, match=f"input_dim must be .*got {value!r}; set input_dim:"):
        KMeansQuantizer(value, centroids)


def test_frames_of_another_size_are_named_beside_input_dim(file):
    with pytest.raises(ValueError, match=r"\(batch, time, 12\), got \(2, 5, 13\).*input_dim:"):
        KMeansQuantizer(12, file)(torch.zeros(2, 5, 13))


@pytest.fixture
def speech():
    """Frames that vary in a few directions, in clouds of unequal sizes, as those of speech do."""
    generator = torch.Generator().manual_seed(3)
    clouds = torch.randn(40, 5, generator=generator) * 3
    which = torch.randint(40, (4000,), generator=generator).square() // 40
    frames = clouds[which] + torch.randn(4000, 5, generator=generator)
    return frames @ torch.randn(5, 12, generator=generator)


def inertia(frames, centroids):
    return torch.cdist(frames.double(), centroids.double()).square().amin(1).mean().item()


def test_a_fit_is_about_as_good_as_the_best_of_several_k_means(speech):
    quantiser = KMeansQuantizer(12, clusters=40)
    assert quantiser.frames_to_fit == 4000 and quantiser.codebook_size == 40
    before = speech.clone()
    quantiser.fit(speech)
    assert quantiser.frames_to_fit == 0 and torch.equal(speech, before)
    best = KMeans(40, n_init=5, random_state=0).fit(speech.numpy()).cluster_centers_
    assert inertia(speech, quantiser.centroids) < 1.05 * inertia(speech, torch.from_numpy(best))
    codes = quantiser.encode(speech[None])[0, :, 0]
    assert torch.equal(codes, torch.cdist(speech, quantiser.centroids).argmin(1))


def test_the_seed_decides_and_the_state_says_that_it_is_fitted(speech, untouched_global_rng):
    one, same, other = (KMeansQuantizer(12, clusters=8, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.centroids, same.centroids)
    assert not torch.equal(one.centroids, other.centroids)
    with untouched_global_rng():
        for quantiser in (one, same, other):
            quantiser.fit(speech)
    assert torch.equal(one.centroids, same.centroids)
    assert not torch.equal(one.centroids, other.centroids)
    resumed = KMeansQuantizer(12, clusters=8)
    resumed.load_state_dict(one.state_dict())
    assert resumed.frames_to_fit == 0 and torch.equal(resumed(speech[None]), one(speech[None]))


def test_frames_too_few_or_too_much_alike_are_named_with_the_key():
    quantiser = KMeansQuantizer(12, clusters=8)
    for frames, fault in (
        (torch.eye(7, 12), "7 frames, of which 7 differ, are too few for 8 clusters; set clusters"),
        (torch.eye(3, 12).repeat(50, 1), "150 frames, of which 3 differ, are too few for 8"),
    ):
        with pytest.raises(ValueError, match=fault):
            quantiser.fit(frames)
    assert quantiser.frames_to_fit > 0


@pytest.mark.parametrize("arguments", [{}, {"clusters": 8, "centroids": torch.eye(8, 12)}])
def test_either_clusters_or_centroids(arguments):
    with pytest.raises(ValueError, match="either clusters or centroids .*set the other one"):
        KMeansQuantizer(12, **arguments)


@pytest.mark.parametrize("value", [0, 2.5, True, "many"])
def test_a_wrong_number_of_clusters_is_named(value):
    with pytest.raises(ValueError, match=f"clusters must be a pos.*got {value!r}; set clusters:"):
        KMeansQuantizer(12, clusters=value)


def test_centroids_of_a_file_are_not_fitted(centroids, speech):
    quantiser = KMeansQuantizer(12, centroids)
    assert quantiser.frames_to_fit == 0
    with pytest.raises(ValueError, match="clusters must be given .*set clusters: and centroids: n"):
        quantiser.fit(speech)
    assert torch.equal(quantiser.centroids, centroids)
