"""Hard choices with soft gradients."""

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from brainquant.functional.straight_through import StraightThroughGather, gather_rows


def slow_straight_through(logits_NGV, codebook_GVD, temperature):
    """The product of straight-through one-hot vectors with the codebook, as it is defined."""
    soft_NGV = torch.softmax(logits_NGV / temperature, dim=-1)
    hard_NGV = F.one_hot(logits_NGV.argmax(-1), logits_NGV.shape[-1])
    return ((hard_NGV - soft_NGV.detach() + soft_NGV)[..., None] * codebook_GVD).sum(-2)


@given(
    st.integers(0, 2**31),
    st.integers(0, 6),
    st.integers(1, 3),
    st.integers(1, 6),
    st.floats(0.25, 2.0),
)
def test_value_and_gradients_are_those_of_the_product(seed, N, G, V, temperature):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(N, G, V), (G, V, 3), (N, G, 3)]
    logits, codebook, weights = (
        torch.randn(shape, generator=generator, dtype=torch.double) for shape in shapes
    )
    logits.requires_grad_(), codebook.requires_grad_()
    fast, codes_NG = StraightThroughGather.apply(logits, codebook, temperature)
    slow = slow_straight_through(logits, codebook, temperature)
    assert torch.equal(codes_NG, logits.argmax(-1))
    torch.testing.assert_close(fast, slow)
    # A function of the output that is not linear, so that each row's gradient differs.
    gradients = [
        torch.autograd.grad((weights * output.sin()).sum(), [logits, codebook])
        for output in (fast, slow)
    ]
    torch.testing.assert_close(gradients[0], gradients[1])


def test_a_codebook_alone_gets_its_gradient():
    codebook = torch.zeros(1, 3, 2, requires_grad=True)
    logits = torch.tensor([[[0.0, 1.0, 0.0]], [[0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]])
    StraightThroughGather.apply(logits, codebook, 1.0)[0].sum().backward()
    assert codebook.grad.tolist() == [[[0, 0], [2, 2], [1, 1]]]


def test_no_tensor_of_frames_codes_and_dim(largest_tensor):
    N, G, V, D = 50, 2, 40, 30
    logits = torch.randn(N, G, V, requires_grad=True)
    codebook = torch.randn(G, V, D, requires_grad=True)
    with largest_tensor() as measured:
        StraightThroughGather.apply(logits, codebook, 1.0)[0].sum().backward()
    assert measured.elements <= max(N * G * V, N * G * D, G * V * D)


def test_rows_come_from_the_codebook_of_their_group():
    codebook = torch.arange(2 * 3 * 2.0).view(2, 3, 2)
    rows = gather_rows(codebook, torch.tensor([[0, 2], [1, 0]]))
    assert rows.tolist() == [[[0, 1], [10, 11]], [[2, 3], [6, 7]]]
