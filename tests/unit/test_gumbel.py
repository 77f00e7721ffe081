"""Gumbel quantiser, beside that of the installed SpeechBrain."""

import copy
import pickle

import pytest
import speechbrain.nnet.quantisers as stock
import torch
from speechbrain.lobes.models.wav2vec import W2VTargetQuantiser

import brainquant
from brainquant import GumbelVectorQuantizer

TEMPERATURES = (2.0, 0.25, 0.99)
ARGUMENTS = (12, 10, TEMPERATURES, 2, 8)
KEYS = {"num_vars", "temp", "code_perplexity", "prob_perplex", "x"}


@pytest.fixture
def quantiser():
    torch.manual_seed(0)
    return GumbelVectorQuantizer(*ARGUMENTS)


@pytest.fixture
def x():
    return torch.randn(3, 7, 12, generator=torch.Generator().manual_seed(1))


def seeded(module, seed=7):
    torch.manual_seed(seed)
    return module.GumbelVectorQuantizer(*ARGUMENTS)


def results_and_gradients(quantiser, x):
    """What a quantiser gives, and the gradients of something that uses all of it."""
    x = x.clone().requires_grad_()
    torch.manual_seed(11)  # of the Gumbel noise
    output = quantiser(x)
    (output["x"].square().sum() + output["prob_perplex"]).backward()
    return output, [x.grad, *(parameter.grad for parameter in quantiser.parameters())]


def assert_alike(ours, theirs, x):
    (output, gradients), (expected, expected_gradients) = (
        results_and_gradients(quantiser, x) for quantiser in (ours, theirs)
    )
    assert set(output) == set(expected) == KEYS
    assert (output["num_vars"], output["temp"]) == (expected["num_vars"], expected["temp"])
    for key in ("x", "code_perplexity", "prob_perplex"):
        torch.testing.assert_close(output[key], expected[key])
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("steps", [0, 60, 1000])
def test_values_and_gradients_are_speechbrains(x, training, steps):
    ours, theirs = (seeded(module).train(training) for module in (brainquant, stock))
    for quantiser in (ours, theirs):
        quantiser.update_temp(steps)
    assert_alike(ours, theirs, x)


def test_the_same_seed_gives_speechbrains_parameters():
    ours, theirs = seeded(brainquant).state_dict(), seeded(stock).state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_state_dict_goes_both_ways(x):
    ours, theirs = seeded(brainquant, 8), seeded(stock, 8)
    ours.load_state_dict(seeded(stock).state_dict(), strict=True)
    theirs.load_state_dict(seeded(brainquant).state_dict(), strict=True)
    assert_alike(ours, theirs, x)


def test_temperature_is_speechbrains_after_any_number_of_steps():
    ours, theirs = seeded(brainquant), seeded(stock)
    for steps in (0, 1, 17, 206, 207, 208, 10**6):
        ours.update_temp(steps), theirs.update_temp(steps)
        assert ours.curr_temp == theirs.curr_temp


def test_speechbrains_docstring_example():
    quantiser = GumbelVectorQuantizer(128, 100, (2.0, 0.25, 0.999995), 2, 50)
    assert quantiser(torch.rand(10, 12, 128))["x"].shape == (10, 12, 50)


def test_speechbrains_w2v_target_quantiser_takes_it(x):
    outputs = []
    for module in (brainquant, stock):
        torch.manual_seed(3)
        wrapper = W2VTargetQuantiser(12, 8, module.GumbelVectorQuantizer, 10, TEMPERATURES)
        outputs.append(wrapper(x))
    (targets, meta), (expected, expected_meta) = outputs
    torch.testing.assert_close(targets, expected)
    assert meta.keys() == expected_meta.keys()
    for key in meta:
        torch.testing.assert_close(meta[key], expected_meta[key])


@pytest.mark.parametrize("training", [True, False])
def test_codes_are_those_of_encode_and_the_chosen_ones_make_x(quantiser, x, training):
    output = quantiser.train(training)(x, return_codes=True)
    assert set(output) == KEYS | {"codes", "chosen_codes", "aux_loss"}
    assert output["aux_loss"].item() == pytest.approx(1 - output["prob_perplex"].item() / 20)
    assert torch.equal(output["codes"], quantiser.encode(x))
    assert torch.equal(output["chosen_codes"], output["codes"]) != training
    rows = quantiser.vars.view(2, 10, 4)
    for b in range(3):
        for t in range(7):
            first, second = output["chosen_codes"][b, t]
            vector = torch.cat([rows[0, first], rows[1, second]])
            assert torch.equal(output["x"][b, t], vector)


def test_encode_is_the_best_score_of_each_group(quantiser, x):
    scores = quantiser.weight_proj(x)
    expected = torch.stack([scores[..., :10].argmax(-1), scores[..., 10:].argmax(-1)], -1)
    codes = quantiser.train().encode(x)
    assert torch.equal(codes, expected) and not codes.requires_grad
    assert (quantiser.num_codebooks, quantiser.codebook_size) == (2, 10)


def test_a_generator_gives_the_noise_and_the_global_one_rests(quantiser, x, untouched_global_rng):
    def chosen(seed):
        generator = torch.Generator().manual_seed(seed)
        return quantiser(x, generator=generator, return_codes=True)["chosen_codes"]

    with untouched_global_rng():
        first, again, other = chosen(4), chosen(4), chosen(5)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_noise_chooses_codes_by_their_probabilities():
    quantiser = GumbelVectorQuantizer(1, 3, (1.0, 1.0, 1.0), 1, 1)
    shares = torch.tensor([0.6, 0.3, 0.1])
    quantiser.weight_proj.bias.data = shares.log()
    generator = torch.Generator().manual_seed(0)
    output = quantiser(torch.zeros(1, 20000, 1), generator=generator, return_codes=True)
    counts = output["chosen_codes"].flatten().bincount(minlength=3)
    torch.testing.assert_close(counts / 20000, shares, atol=0.015, rtol=0)


def test_codes_and_values_do_not_change_under_autocast(quantiser):
    x = torch.randn(2, 500, 12, generator=torch.Generator().manual_seed(2))
    plain, codes = quantiser.eval()(x), quantiser.encode(x)
    with torch.autocast("cpu", torch.bfloat16):
        output = quantiser(x, return_codes=True)
        assert torch.equal(quantiser.encode(x), codes)
        low = quantiser.weight_proj(x).view(2, 500, 2, 10).argmax(-1)
    assert not torch.equal(low, codes)  # the frames are many enough to tell
    assert torch.equal(output["codes"], codes)
    assert output["x"].dtype == torch.float32 and torch.equal(output["x"], plain["x"])


def test_a_tie_goes_to_the_lowest_index(quantiser):
    torch.nn.init.zeros_(quantiser.weight_proj.weight)
    quantiser.weight_proj.bias.data = torch.tensor([0.0, 1, 0, 1, 0, 0, 0, 0, 0, 1] * 2)
    assert quantiser.encode(torch.randn(1, 4, 12)).tolist() == [[[1, 1]] * 4]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_frame_that_is_not_finite_has_no_code_and_no_vector(quantiser, x, training, value):
    expected = quantiser.encode(x)
    x[1, 2, 3] = value
    expected[1, 2] = -1
    output = quantiser.train(training)(x, return_codes=True)
    assert torch.equal(quantiser.encode(x), expected)
    assert torch.equal(output["codes"], expected)
    assert output["chosen_codes"][1, 2].tolist() == [-1, -1]
    assert torch.equal(output["x"].isnan().any(-1), (expected == -1).all(-1))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(0, 5), (1, 0)])
def test_no_frames_give_no_codes_and_finite_numbers(quantiser, shape, training):
    x = torch.zeros(*shape, 12, requires_grad=True)
    output = quantiser.train(training)(x, return_codes=True)
    assert output["x"].shape == (*shape, 8)
    for codes in (output["codes"], output["chosen_codes"], quantiser.encode(x)):
        assert codes.shape == (*shape, 2)
    assert output["code_perplexity"] == output["prob_perplex"] == 2  # one of each group
    (output["x"].sum() + output["prob_perplex"]).backward()
    assert all(p.grad.isfinite().all() for p in quantiser.parameters() if p.requires_grad)


MEMORY = """
import torch
from brainquant import GumbelVectorQuantizer
quantiser = GumbelVectorQuantizer(512, 320, (2.0, 0.5, 0.999995), 2, 256)

def train(frames):
    x = torch.randn(1, frames, 512, requires_grad=True)
    output = quantiser(x)
    (output["x"].sum() + output["prob_perplex"]).backward()

train(300)  # what libraries take once
"""


def test_forward_and_backward_of_4000_frames_take_at_most_80_mb(extra_mb):
    """The frames themselves are 8 MB; SpeechBrain takes 2.6 GB."""
    assert extra_mb(MEMORY, "train(4000)") <= 80


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda q: pickle.loads(pickle.dumps(q))])
def test_copies_and_pickles(quantiser, x, clone):
    quantiser.update_temp(10)
    copied = clone(quantiser)
    assert copied.curr_temp == quantiser.curr_temp < 2.0
    assert torch.equal(copied.eval()(x)["x"], quantiser.eval()(x)["x"])


@pytest.mark.parametrize("key", ["input_dim", "num_vars", "groups", "vq_dim"])
@pytest.mark.parametrize("value", [0, -2, 1.5, "4"])
def test_a_wrong_size_is_named(key, value):
    sizes = {"input_dim": 4, "num_vars": 4, "groups": 2, "vq_dim": 4, key: value}
    with pytest.raises(ValueError, match=rf"{key} .*got {value!r}; set {key}:"):
        GumbelVectorQuantizer(temp_tuple=TEMPERATURES, **sizes)


def test_a_vq_dim_that_groups_do_not_divide_is_named():
    with pytest.raises(ValueError, match="got vq_dim=50, groups=3; set vq_dim:"):
        GumbelVectorQuantizer(8, 10, TEMPERATURES, 3, 50)


@pytest.mark.parametrize(
    "temp_tuple",
    [
        (0.25, 2.0, 0.99),  # start below stop
        (2.0, 0.0, 0.99),
        (2.0, -1.0, 0.99),
        (2.0, 0.25, 0.0),
        (2.0, 0.25, 1.01),
        (float("nan"), 0.25, 0.99),
        (float("inf"), 0.25, 0.99),
        (2.0, 0.25),
        (2.0, 0.25, 0.99, 1.0),
        ("2.0", "0.25", "0.99"),
        "211",
        2.0,
        None,
    ],
)
def test_wrong_temperatures_are_named(temp_tuple):
    with pytest.raises(ValueError) as error:
        GumbelVectorQuantizer(8, 10, temp_tuple, 2, 8)
    for part in (f"got {temp_tuple!r}", "start >= stop > 0 and 0 < decay <= 1", "set temp_tuple:"):
        assert part in str(error.value)


def test_a_constant_temperature_and_a_list_from_yaml_are_fine():
    assert GumbelVectorQuantizer(8, 10, [1, 1, 1], 2, 8).curr_temp == 1.0


def test_frames_of_another_size_are_named_beside_input_dim(quantiser):
    for call in (quantiser, quantiser.encode):
        with pytest.raises(ValueError, match=r"\(batch, time, 12\), got \(2, 5, 13\).*input_dim:"):
            call(torch.zeros(2, 5, 13))


def test_gradients_in_float64_are_those_of_finite_differences():
    torch.manual_seed(0)
    quantiser = GumbelVectorQuantizer(3, 4, TEMPERATURES, 2, 4).double().eval()
    x = torch.randn(2, 3, 3, dtype=torch.double, requires_grad=True)
    parameters = [parameter for parameter in quantiser.parameters() if parameter.requires_grad]

    def differentiable(x, *parameters):
        names = [name for name, value in quantiser.named_parameters() if value.requires_grad]
        arguments = dict(zip(names, parameters))
        output = torch.func.functional_call(quantiser, arguments, (x,), {"return_codes": True})
        return output["x"], output["prob_perplex"], output["aux_loss"]

    assert torch.autograd.gradcheck(differentiable, (x, *parameters))


def test_combined_groups_choose_from_one_codebook(x):
    quantiser = GumbelVectorQuantizer(*ARGUMENTS, combine_groups=True)
    assert quantiser.vars.shape == (1, 10, 4) and quantiser.codebook_size == 10
    output = quantiser(x, return_codes=True)
    for group in range(2):
        rows = quantiser.vars[0][output["chosen_codes"][..., group]]
        assert torch.equal(output["x"][..., 4 * group : 4 * group + 4], rows)
    assert output["num_vars"] == 20  # as in fairseq, the codes that are scored


def test_a_deeper_projection_scores_the_output_of_its_hidden_layers(x):
    quantiser = GumbelVectorQuantizer(*ARGUMENTS, weight_proj_depth=3, weight_proj_factor=2)
    names = [name for name, _ in quantiser.weight_proj.named_parameters()]
    # fairseq's names, so that its state_dict fits
    assert names == [
        f"{layer}.{kind}" for layer in ("0.0", "1.0", "2") for kind in ("weight", "bias")
    ]
    assert quantiser.weight_proj[1][0].weight.shape == (24, 24)
    scores = quantiser.weight_proj(x).view(3, 7, 2, 10)
    assert torch.equal(quantiser.encode(x), scores.argmax(-1))
    quantiser.update_temp(50)
    loss = quantiser(x)["x"].square().sum()
    loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in quantiser.weight_proj.parameters())


@pytest.mark.parametrize("key", ["weight_proj_depth", "weight_proj_factor"])
def test_a_wrong_depth_or_factor_is_named(key):
    with pytest.raises(ValueError, match=f"{key} must be a positive integer, got 0"):
        GumbelVectorQuantizer(*ARGUMENTS, **{key: 0})
