"""Quantisers of vector-quantize-pytorch: what the library gives, under the contract."""

import copy
import sys

import pytest
import torch
from vector_quantize_pytorch import FSQ, LFQ, ResidualVQ

from brainquant import LibraryQuantizer

KINDS = {
    "FSQ": {"name": "FSQ", "levels": [5, 5, 3]},
    "LFQ": {"name": "LFQ", "codebook_size": 32},
    "LFQ, two codebooks": {"name": "LFQ", "codebook_size": 16, "num_codebooks": 2},
    "ResidualVQ": {"name": "ResidualVQ", "codebook_size": 11, "num_quantizers": 3},
    "ResidualVQ, started and revived": {
        "name": "ResidualVQ", "codebook_size": 11, "num_quantizers": 3,
        "kmeans_init": True, "threshold_ema_dead_code": 1,
    },
    "VectorQuantize": {"name": "VectorQuantize", "codebook_size": 11, "heads": 2},
}  # fmt: skip
every_kind = pytest.mark.parametrize("kind", KINDS)


def make(kind):
    torch.manual_seed(0)
    return LibraryQuantizer(12, 8, **KINDS[kind])


def frames(seed=0, batch=3, time=40):
    return torch.randn(batch, time, 12, generator=torch.Generator().manual_seed(seed))


def train(quantiser, steps, first=0):
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        output = quantiser.train()(frames(step), generator=generator, return_codes=True)
    return output


def state(quantiser):
    return {name: value.clone() for name, value in quantiser.state_dict().items()}


def assert_same_state(quantiser, expected):
    for name, value in quantiser.state_dict().items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("FSQ", (1, 75)),
        ("LFQ", (1, 32)),
        ("LFQ, two codebooks", (2, 16)),
        ("ResidualVQ", (3, 11)),
        ("VectorQuantize", (2, 11)),
    ],
)
def test_sizes_are_the_librarys(kind, sizes):
    quantiser = make(kind)
    assert (quantiser.num_codebooks, quantiser.codebook_size) == sizes
    assert quantiser.encode(frames()).shape == (3, 40, sizes[0])


@pytest.mark.parametrize("kind", ["FSQ", "LFQ", "ResidualVQ"])
@pytest.mark.parametrize("training", [True, False])
def test_codes_vectors_and_loss_are_the_librarys(kind, training):
    library = {
        "FSQ": lambda: FSQ(levels=[5, 5, 3], dim=8),
        "LFQ": lambda: LFQ(codebook_size=32, dim=8),
        "ResidualVQ": lambda: ResidualVQ(codebook_size=11, num_quantizers=3, dim=8),
    }[kind]().train(training)
    quantiser = make(kind).train(training)
    library.load_state_dict(quantiser.library.state_dict())
    x = frames()
    vectors, codes, *losses = library(quantiser.proj(x).view(1, 120, 8))
    output = quantiser(x, return_codes=True)
    torch.testing.assert_close(output["x"], vectors.view(3, 40, 8))
    assert torch.equal(output["chosen_codes"].flatten(), codes.flatten())
    expected = losses[0].sum() if losses else torch.tensor(0.0)
    torch.testing.assert_close(output["aux_loss"], expected)
    for name, value in library.state_dict().items():
        torch.testing.assert_close(quantiser.library.state_dict()[name], value)


@every_kind
def test_the_gradient_reaches_the_frames_in_training(kind):
    quantiser, x = make(kind), frames().requires_grad_()
    train(quantiser, 1)
    (grad,) = torch.autograd.grad(quantiser(x)["x"].square().sum(), x)
    assert torch.isfinite(grad).all() and grad.norm() > 0


@every_kind
def test_only_a_forward_in_training_changes_state(kind, untouched_global_rng):
    quantiser, x = make(kind), frames()
    for _ in range(2):
        before = state(quantiser)
        with untouched_global_rng():
            codes = quantiser.train().encode(x)
            output = quantiser.eval()(x, return_codes=True)
        assert torch.equal(output["codes"], codes)
        assert_same_state(quantiser, before)
        train(quantiser, 1)  # from k-means in the second round, where there is one
    assert quantiser.train().encode(x).shape == codes.shape and quantiser.library.training


@every_kind
def test_a_generator_makes_training_repeat_itself(kind, untouched_global_rng):
    made = [make(kind), make(kind)]
    torch.manual_seed(1)
    with untouched_global_rng():
        outputs = [train(quantiser, 4) for quantiser in made]
    for key, value in outputs[0].items():
        assert torch.equal(outputs[1][key], value), key
    assert_same_state(made[1], state(made[0]))


@every_kind
def test_a_resumed_quantiser_goes_on_to_the_last_bit(kind):
    quantiser, resumed = make(kind), make(kind)
    train(quantiser, 2)
    resumed.load_state_dict(copy.deepcopy(quantiser.state_dict()))
    train(quantiser, 2, first=2), train(resumed, 2, first=2)
    assert_same_state(resumed, state(quantiser))


@every_kind
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_library_never_sees_frames_that_are_not_finite(kind, value):
    quantiser, other = make(kind), make(kind)
    x = frames(batch=1)
    spoilt = torch.cat([x[:, :3], torch.full((1, 2, 12), value), x[:, 3:]], dim=1)
    for _ in range(2):
        outputs = [
            q.train()(frames_BTI, generator=torch.Generator(), return_codes=True)
            for q, frames_BTI in ((quantiser, x), (other, spoilt))
        ]
    assert_same_state(other, state(quantiser))
    assert torch.equal(outputs[0]["aux_loss"], outputs[1]["aux_loss"])
    assert outputs[1]["x"][:, 3:5].isnan().all()
    for codes in (outputs[1]["codes"], outputs[1]["chosen_codes"], other.encode(spoilt)):
        assert (codes[:, 3:5] == -1).all() and (codes[:, 5:] >= 0).all()


@every_kind
def test_no_frames_give_a_loss_of_zero_and_change_nothing(kind):
    quantiser = make(kind)
    for _ in range(2):
        before = state(quantiser)
        output = quantiser.train()(frames()[:, :0], return_codes=True)
        assert output["aux_loss"] == 0 and output["x"].shape == (3, 0, 8)
        assert output["codes"].shape == (3, 0, quantiser.num_codebooks)
        assert_same_state(quantiser, before)
        train(quantiser, 1)


@every_kind
def test_codes_do_not_depend_on_autocast_or_batch(kind):
    quantiser, x = make(kind), frames(batch=2, time=500)
    train(quantiser, 2)
    codes = quantiser.eval().encode(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantiser.encode(x), codes)
        projected = quantiser.proj(x)
        low = quantiser.library(projected)[1]
    assert not torch.equal(low.flatten(), codes.flatten())  # the frames are many enough to tell
    one_by_one = [quantiser.encode(x[:1, t : t + 1]) for t in range(500)]
    assert torch.equal(torch.cat(one_by_one, dim=1), codes[:1])


def test_a_codebook_that_the_library_drops_has_no_chosen_code():
    torch.manual_seed(0)
    quantiser = LibraryQuantizer(
        12, 8, "ResidualVQ", codebook_size=11, num_quantizers=3, quantize_dropout=True
    )
    output = [quantiser(frames(), return_codes=True) for _ in range(10)]
    assert {int((o["chosen_codes"] == -1).sum()) for o in output} == {0, 120, 240}
    assert all((o["codes"] >= 0).all() for o in output)


def test_a_missing_library_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "vector_quantize_pytorch", None)
    with pytest.raises(ImportError, match=r'FSQ .*pip install "brainquant\[vq\]"'):
        make("FSQ")


def test_a_class_that_the_library_lacks_is_named():
    with pytest.raises(ValueError, match="no 'FSX'; set name:.* FSQ, LFQ or ResidualVQ"):
        LibraryQuantizer(12, 8, "FSX")


def test_arguments_that_the_library_refuses_are_named():
    with pytest.raises(ValueError, match="LFQ .*power of 2.*got {'codebook_size': 30}"):
        LibraryQuantizer(12, 8, "LFQ", codebook_size=30)


@pytest.mark.parametrize("key", ["input_dim", "vq_dim"])
@pytest.mark.parametrize("value", [0, -2, 1.5, "4"])
def test_a_wrong_size_is_named(key, value):
    sizes = {"input_dim": 4, "vq_dim": 4, key: value}
    with pytest.raises(ValueError, match=rf"{key} .*got {value!r}; set {key}:"):
        LibraryQuantizer(**sizes, **KINDS["FSQ"])


def test_frames_of_another_size_are_named_beside_input_dim():
    quantiser = make("FSQ")
    for call in (quantiser, quantiser.encode):
        with pytest.raises(ValueError, match=r"\(batch, time, 12\), got \(2, 5, 13\).*input_dim:"):
            call(torch.zeros(2, 5, 13))
