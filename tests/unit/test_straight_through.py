"""Hard choices with soft gradients."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from brainquant.functional import straight_through
from brainquant.functional.straight_through import gather_rows, gumbel_rows


def draw(seed, N, input_dim, G, V, D, dtype=torch.double):
    """Frames, weight, bias and codebooks that want a gradient, and noise."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(N, input_dim), (G * V, input_dim), (G * V,), (G, V, D)]
    tensors = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    noise = torch.empty(N, G * V, dtype=dtype).exponential_(generator=generator)
    return [tensor.requires_grad_() for tensor in tensors], noise


def slow_rows(x_NI, weight_EI, bias_E, codebook_GVD, noise_NE, temperature):
    """The product of straight-through one-hot vectors with the codebook, as it is defined."""
    scores_NE = x_NI @ weight_EI.T + bias_E
    scores_NGV = scores_NE.view(len(x_NI), *codebook_GVD.shape[:2])
    probs_GV = torch.softmax(scores_NGV, -1).sum(0) / max(len(x_NI), 1)
    codes_NG = scores_NGV.argmax(-1)
    hard_NGV = F.one_hot(codes_NG, scores_NGV.shape[-1]).to(x_NI.dtype)
    if noise_NE is not None:
        noisy_NGV = scores_NGV - noise_NE.log().view_as(scores_NGV)
        soft_NGV = torch.softmax(noisy_NGV / temperature, dim=-1)
        hard_NGV = F.one_hot(noisy_NGV.argmax(-1), scores_NGV.shape[-1]) - soft_NGV.detach()
        hard_NGV = hard_NGV + soft_NGV
    return (hard_NGV[..., None] * codebook_GVD).sum(-2), codes_NG, probs_GV


@given(
    seed=st.integers(0, 2**31),
    N=st.integers(0, 9),
    input_dim=st.integers(1, 4),
    G=st.integers(1, 3),
    V=st.integers(1, 6),
    temperature=st.floats(0.25, 2.0),
    noisy=st.booleans(),
)
def test_value_and_gradients_are_those_of_the_product(seed, N, input_dim, G, V, temperature, noisy):
    inputs, noise = draw(seed, N, input_dim, G, V, D=3)
    noise = noise if noisy else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(straight_through, "CHUNK", 4)
        rows, chosen, codes, probs, _ = gumbel_rows(*inputs, noise, temperature)
        # A function of the output that is not linear, so that each row's gradient differs.
        fast = torch.autograd.grad(rows.sin().sum() + probs.square().sum(), inputs)
    slow_output, slow_codes, slow_probs = slow_rows(*inputs, noise, temperature)
    loss = slow_output.sin().sum() + slow_probs.square().sum()
    slow = torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)
    torch.testing.assert_close((rows, probs), (slow_output, slow_probs))
    torch.testing.assert_close(fast, slow)
    assert torch.equal(codes, slow_codes) and torch.equal(rows, gather_rows(inputs[3], chosen))


def test_gradients_without_noise_are_those_of_finite_differences():
    inputs, _ = draw(0, N=5, input_dim=3, G=2, V=4, D=3)

    def differentiable(*inputs):
        rows, _, _, probs, _ = gumbel_rows(*inputs, None, 1.0)
        return rows, probs

    assert torch.autograd.gradcheck(differentiable, inputs)


@pytest.mark.parametrize("noisy", [True, False])
def test_the_operator_is_what_it_says_to_torch_compile(noisy):
    inputs, noise = draw(0, N=5, input_dim=3, G=2, V=4, D=3, dtype=torch.float)
    torch.library.opcheck(gumbel_rows, (*inputs, noise if noisy else None, 0.5))


def test_a_frame_that_is_not_finite_leaves_the_others_alone():
    inputs, noise = draw(0, N=4, input_dim=3, G=2, V=4, D=3)
    expected = gumbel_rows(*inputs, noise, 1.0)
    broken = inputs[0].detach().clone()
    broken[2, 1] = torch.nan
    rows, chosen, codes, *_ = gumbel_rows(broken, *inputs[1:], noise, 1.0)
    for found, whole in zip((chosen, codes), expected[1:]):
        assert (found[2] == -1).all() and torch.equal(found[[0, 1, 3]], whole[[0, 1, 3]])
    assert rows[2].isnan().all() and torch.equal(rows[[0, 1, 3]], expected[0][[0, 1, 3]])


def test_a_codebook_shared_by_groups_gets_the_gradient_of_all():
    inputs, noise = draw(0, N=6, input_dim=3, G=2, V=4, D=3)
    shared = inputs[3][:1].detach().requires_grad_()
    gumbel_rows(*inputs[:3], shared.expand(2, -1, -1), noise, 1.0)[0].sum().backward()
    apart = shared.detach().repeat(2, 1, 1).requires_grad_()
    gumbel_rows(*inputs[:3], apart, noise, 1.0)[0].sum().backward()
    torch.testing.assert_close(shared.grad[0], apart.grad.sum(0))


def test_rows_come_from_the_codebook_of_their_group():
    codebook = torch.arange(2 * 3 * 2.0).view(2, 3, 2)
    rows = gather_rows(codebook, torch.tensor([[0, 2], [1, 0]]))
    assert rows.tolist() == [[[0, 1], [10, 11]], [[2, 3], [6, 7]]]
