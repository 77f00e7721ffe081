"""Objectives of pretraining on quantised targets."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from speechbrain.nnet.losses import ContrastiveLoss

from brainquant.losses import code_cross_entropy, contrastive_loss, sample_negatives
from brainquant.monitoring.counts import code_statistics
from brainquant.monitoring.health import health_warnings


def contrastive_case(seed, counts, K, D=4, V=3, dtype=torch.float32):
    """Vectors, codes and negatives, with zeros after the last masked frame of an utterance."""
    generator = torch.Generator().manual_seed(seed)
    counts_B = torch.tensor(counts)
    B, M = len(counts), max(counts)
    inside_BM1 = (torch.arange(M) < counts_B[:, None])[..., None]
    context, targets = (
        (torch.randn(B, M, D, generator=generator, dtype=dtype) * inside_BM1).requires_grad_()
        for _ in range(2)
    )
    codes_BMG = torch.randint(V, (B, M, 2), generator=generator)
    negatives_BMK = sample_negatives(counts_B, M, K, generator=generator)
    return context, targets, codes_BMG, counts_B, negatives_BMK


def slow_contrastive(context, targets, codes, counts, negatives, temperature, leave_out=False):
    """Equation 3 of the paper, frame by frame; the accuracy leaves equal codes out."""
    loss, correct, frames = 0.0 * (context.sum() + targets.sum()), 0, 0
    for b, count in enumerate(counts.tolist()):
        for m in range(count if count > 1 else 0):
            drawn = negatives[b, m].tolist()
            logits = torch.stack(
                [torch.cosine_similarity(context[b, m], targets[b, k], dim=0) for k in [m, *drawn]]
            )
            kept = [0] + [
                n
                for n, k in enumerate(drawn, start=1)
                if not (leave_out and codes[b, k].tolist() == codes[b, m].tolist())
            ]
            loss = loss - torch.log_softmax(logits[kept] / temperature, dim=0)[0]
            others = [
                logit
                for k, logit in zip(drawn, logits[1:])
                if codes[b, k].tolist() != codes[b, m].tolist()
            ]
            correct += bool(others) and all(logits[0] > logit for logit in others)
            frames += 1
    return loss, correct, frames


@given(
    st.integers(0, 2**31),
    st.lists(st.integers(0, 5), min_size=1, max_size=3),
    st.integers(1, 4),
    st.sampled_from(["keep", "leave_out"]),
)
def test_contrastive_loss_is_the_slow_one_in_value_and_gradient(seed, counts, K, same):
    context, targets, *case = contrastive_case(seed, counts, K)
    loss, correct, frames = contrastive_loss(context, targets, *case, 0.3, same_code_negatives=same)
    slow, slow_correct, slow_frames = slow_contrastive(
        context, targets, *case, 0.3, leave_out=same == "leave_out"
    )
    assert (int(correct), int(frames)) == (slow_correct, slow_frames)
    torch.testing.assert_close(loss, slow, rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad(value, [context, targets]) for value in (loss, slow)]
    assert all(gradient.isfinite().all() for gradient in gradients[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-4)


def test_contrastive_loss_is_speechbrains_where_no_vector_is_there_twice():
    context, targets, _, counts, negatives = contrastive_case(0, [6, 6], 5)
    codes = torch.arange(12).view(2, 6, 1)
    loss, correct, frames = contrastive_loss(context, targets, codes, counts, negatives, 0.1)
    negatives_KBMD = torch.stack([targets[b][negatives[b]] for b in range(2)]).permute(2, 0, 1, 3)
    expected, accuracy = ContrastiveLoss(0.1)(context, targets, negatives_KBMD)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(correct / frames, accuracy)


def test_negatives_with_the_codes_of_the_positive_are_left_out_as_by_speechbrain():
    context, _, codes, counts, negatives = contrastive_case(0, [9, 9], 5)
    table = torch.randn(3, 3, 4, generator=torch.Generator().manual_seed(1))
    targets = table[codes[..., 0], codes[..., 1]]  # equal vectors for equal codes
    negatives_KBMD = torch.stack([targets[b][negatives[b]] for b in range(2)]).permute(2, 0, 1, 3)
    expected, _ = ContrastiveLoss(0.1)(context, targets, negatives_KBMD)
    case = (context, targets, codes, counts, negatives, 0.1)
    torch.testing.assert_close(
        contrastive_loss(*case, same_code_negatives="leave_out")[0], expected
    )
    assert contrastive_loss(*case)[0] > expected + 1
    with pytest.raises(ValueError, match="must be one of keep, leave_out, got 'drop'"):
        contrastive_loss(*case, same_code_negatives="drop")


def test_contrastive_loss_builds_no_tensor_of_negatives_and_dim(largest_tensor):
    B, M, K, D = 2, 40, 30, 64
    context, targets, *case = contrastive_case(0, [M] * B, K, D)
    with largest_tensor() as measured:
        contrastive_loss(context, targets, *case, 0.1)[0].backward()
    assert measured.elements <= B * M * max(M, K + 1, D) < B * M * K * D / 10


@pytest.mark.parametrize("counts", [[1, 0], [0]])
def test_utterances_without_negatives_add_nothing(counts):
    context, targets, *case = contrastive_case(0, counts, 3)
    loss, correct, frames = contrastive_loss(context, targets, *case, 0.1)
    loss.backward()
    assert (loss.item(), int(correct), int(frames)) == (0.0, 0, 0)
    assert not context.grad.any() and not targets.grad.any()


def test_contrastive_loss_is_float32_under_autocast():
    context, targets, *case = contrastive_case(0, [5, 3], 4)
    plain = contrastive_loss(context, targets, *case, 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(contrastive_loss(context, targets, *case, 0.1), plain)


def test_equal_targets_are_chance_no_success_and_are_warned_of():
    context, targets, codes, counts, negatives = contrastive_case(0, [6, 6], 5)
    codes, targets = torch.ones_like(codes), torch.ones_like(targets)
    loss, correct, frames = contrastive_loss(context, targets, codes, counts, negatives, 0.1)
    assert (int(correct), int(frames)) == (0, 12)
    assert loss.item() == pytest.approx(12 * math.log(6))
    record = {"step": 1, "loss": loss.item() / 12, "accuracy": 0.0}
    record |= code_statistics(torch.tensor([[0, 12, 0], [0, 12, 0]]))
    assert "collapse" in health_warnings(record, 3)


@given(st.integers(0, 2**31), st.lists(st.integers(0, 9), max_size=4), st.integers(1, 20))
def test_negatives_are_others_of_the_same_utterance(seed, counts, K):
    M = max(counts, default=0)
    generator = torch.Generator().manual_seed(seed)
    counts_B = torch.tensor(counts, dtype=torch.long)
    negatives_BMK = sample_negatives(counts_B, M, K, generator=generator)
    assert negatives_BMK.shape == (len(counts), M, K)
    assert ((negatives_BMK >= 0) & (negatives_BMK < max(M, 1))).all()  # can be gathered with
    for b, count in enumerate(counts):
        for m in range(count if count > 1 else 0):
            assert (negatives_BMK[b, m] < count).all() and (negatives_BMK[b, m] != m).all()


def test_negatives_are_uniform_over_the_others():
    generator = torch.Generator().manual_seed(0)
    negatives_BMK = sample_negatives(torch.tensor([5]), 8, 4000, generator=generator)
    for m in range(5):
        counts = negatives_BMK[0, m].bincount(minlength=8).tolist()
        assert all(abs(counts[k] - 1000) < 130 for k in range(5) if k != m)


def test_cross_entropy_is_the_slow_one_and_leaves_out_frames_without_code():
    logits = torch.randn(6, 2, 5, generator=torch.Generator().manual_seed(0))
    codes = torch.tensor([[0, 1], [2, -1], [-1, -1], [4, 4], [3, 0], [1, 2]])
    loss, correct, targets = code_cross_entropy(logits, codes)
    slow, slow_correct = 0.0, 0
    for n, g in [(n, g) for n in range(6) for g in range(2) if codes[n, g] >= 0]:
        slow -= math.log(float(torch.softmax(logits[n, g].double(), 0)[codes[n, g]]))
        slow_correct += int(logits[n, g].argmax() == codes[n, g])
    assert float(loss) == pytest.approx(slow, rel=1e-5)
    assert (int(correct), int(targets)) == (slow_correct, 9)


def test_cross_entropy_of_no_frames_is_zero_with_a_gradient():
    logits = torch.zeros(0, 2, 5, requires_grad=True)
    loss, correct, targets = code_cross_entropy(logits, torch.zeros(0, 2).long())
    loss.backward()
    assert (loss.item(), int(correct), int(targets)) == (0.0, 0, 0)
