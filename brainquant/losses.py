"""Objectives of pretraining on quantised targets.

Shape suffixes: B batch, M masked frames of an utterance, N masked frames of all utterances,
K negatives, D dim, G codebooks, V codes.
"""

import torch
import torch.nn.functional as F

SAME_CODE_NEGATIVES = "keep", "leave_out"


def code_cross_entropy(
    logits_NGV: torch.Tensor, codes_NG: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cross-entropy of predicted codes, summed over masked frames.

    Arguments
    ---------
    logits_NGV : torch.Tensor
        Scores, shape (frames, codebooks, codes).
    codes_NG : torch.Tensor
        LongTensor, shape (frames, codebooks); -1 is ignored.

    Returns
    -------
    loss_sum : torch.Tensor
        Sum over frames and codebooks, in nats, float32.
    num_correct : torch.Tensor
        Number of codes whose score is the highest.
    num_targets : torch.Tensor
        Number of codes that are not -1.

    Example
    -------
    >>> loss, correct, targets = code_cross_entropy(torch.zeros(3, 1, 8), torch.zeros(3, 1).long())
    >>> round(float(loss / targets), 4)  # ln 8
    2.0794
    """
    logits, codes = logits_NGV.flatten(0, 1).float(), codes_NG.flatten()
    loss_sum = F.cross_entropy(logits, codes, ignore_index=-1, reduction="sum")
    num_correct = (logits.detach().argmax(-1) == codes).sum()
    return loss_sum, num_correct, (codes >= 0).sum()


def sample_negatives(
    counts_B: torch.Tensor,
    num_masked: int,
    num_negatives: int,
    *,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Draws other masked frames of the same utterance for each masked frame, with replacement.

    (SpeechBrain 1.1.2 offsets utterances by T - 1 instead of T. So its negatives may come from
    another utterance, or be the positive itself.)

    Arguments
    ---------
    counts_B : torch.Tensor
        Masked frames of each utterance, LongTensor of shape (batch,).
    num_masked : int
        Size of the padded dimension of masked frames.
    num_negatives : int
        Negatives of each frame.
    generator : torch.Generator or None
        On the device of ``counts_B``; None is the global generator.

    Returns
    -------
    negatives_BMK : torch.Tensor
        LongTensor of indices among the utterance's masked frames, never the frame's own index.
        Meaningless if the utterance has fewer than two masked frames.

    Example
    -------
    >>> negatives = sample_negatives(torch.tensor([2]), 2, 5)
    >>> negatives[0, 0].unique(), negatives[0, 1].unique()
    (tensor([1]), tensor([0]))
    """
    B, M, K = len(counts_B), num_masked, num_negatives
    device = counts_B.device
    others_B11 = (counts_B - 1).clamp(min=1)[:, None, None]
    draws_BMK = torch.rand(B, M, K, generator=generator, device=device)
    draws_BMK = torch.minimum((draws_BMK * others_B11).long(), others_B11 - 1)
    own_M1 = torch.arange(M, device=device)[:, None]
    return (draws_BMK + (draws_BMK >= own_M1)).clamp(max=M - 1)


def contrastive_loss(
    context_BMD: torch.Tensor,
    targets_BMD: torch.Tensor,
    codes_BMG: torch.Tensor,
    counts_B: torch.Tensor,
    negatives_BMK: torch.Tensor,
    temperature: float,
    *,
    same_code_negatives: str = "keep",
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Contrastive loss of wav2vec 2.0 (https://arxiv.org/abs/2006.11477, equation 3), summed.

    One matrix product gives all similarities of an utterance, and the logits are gathered from it:
    there is no tensor of (negatives, batch, time, dim).

    "keep" is the paper's loss: a negative with the same codes as the positive stays in it. If all
    codes are equal, the loss is chance, ln(negatives + 1). "leave_out" drops such negatives, as
    fairseq, transformers and SpeechBrain 1.1.2 do, so the loss can be compared with that of a
    model which they have trained. It rewards collapse: fewer codes leave fewer negatives and give a
    lower loss, 0 if all codes are equal. The accuracy always ignores such a negative, since it is
    as right as the positive.

    Arguments
    ---------
    context_BMD : torch.Tensor
        Projected outputs of the encoder at masked frames, packed to the left, shape (batch,
        masked, dim).
    targets_BMD : torch.Tensor
        Projected quantised vectors of the same frames.
    codes_BMG : torch.Tensor
        The codes of these vectors.
    counts_B : torch.Tensor
        Masked frames of each utterance.
    negatives_BMK : torch.Tensor
        Indices from ``sample_negatives``.
    temperature : float
        Divides the cosine similarities.
    same_code_negatives : str
        "keep" or "leave_out": what becomes of negatives with the codes of the positive.

    Returns
    -------
    loss_sum : torch.Tensor
        Sum over masked frames, in nats, float32. An utterance with fewer than two masked frames
        has no negatives and adds nothing.
    num_correct : torch.Tensor
        Number of frames whose positive is more similar than all negatives with other codes;
        there must be such a negative.
    num_targets : torch.Tensor
        Number of frames in the sum.

    Example
    -------
    >>> x = torch.eye(4)[None]
    >>> counts, codes = torch.tensor([4]), torch.arange(4).view(1, 4, 1)
    >>> negatives = sample_negatives(counts, 4, 10)
    >>> loss, correct, targets = contrastive_loss(x, x, codes, counts, negatives, 0.1)
    >>> int(correct), int(targets), round(float(loss / targets), 4)  # ln(1 + 10 exp(-10))
    (4, 4, 0.0005)
    >>> options = {"same_code_negatives": "leave_out"}  # here all codes are equal
    >>> float(contrastive_loss(x, x, 0 * codes, counts, negatives, 0.1, **options)[0])
    0.0
    """
    if same_code_negatives not in SAME_CODE_NEGATIVES:
        raise ValueError(
            f"same_code_negatives must be one of {', '.join(SAME_CODE_NEGATIVES)}, got "
            f"{same_code_negatives!r}"
        )
    with torch.autocast(context_BMD.device.type, enabled=False):
        context_BMD = F.normalize(context_BMD.float(), dim=-1)
        targets_BMD = F.normalize(targets_BMD.float(), dim=-1)
        logits_BMM = torch.bmm(context_BMD, targets_BMD.mT) / temperature
    negative_logits_BMK = logits_BMM.gather(2, negatives_BMK)
    positive_BM = logits_BMM.diagonal(dim1=1, dim2=2)
    in_utterance_BM = torch.arange(logits_BMM.shape[1], device=counts_B.device)
    counted_BM = (in_utterance_BM < counts_B[:, None]) & (counts_B > 1)[:, None]
    same_BMK = has_same_codes(codes_BMG, negatives_BMK)
    others_BMK = negative_logits_BMK.detach().masked_fill(same_BMK, -torch.inf)
    if same_code_negatives == "leave_out":
        negative_logits_BMK = negative_logits_BMK.masked_fill(same_BMK, -torch.inf)
    all_BMK = torch.cat([positive_BM[..., None], negative_logits_BMK], dim=-1)
    loss_BM = torch.logsumexp(all_BMK, dim=-1) - positive_BM
    loss_sum = torch.where(counted_BM, loss_BM, 0.0).sum()

    hardest_BM = others_BMK.amax(-1)
    correct_BM = (positive_BM > hardest_BM) & (hardest_BM > -torch.inf) & counted_BM
    return loss_sum, correct_BM.sum(), counted_BM.sum()


def has_same_codes(codes_BMG: torch.Tensor, negatives_BMK: torch.Tensor) -> torch.Tensor:
    """Whether a negative has all codes of its positive.

    Arguments
    ---------
    codes_BMG : torch.Tensor
        The codes of masked frames, shape (batch, masked, codebooks).
    negatives_BMK : torch.Tensor
        Indices from ``sample_negatives``.

    Returns
    -------
    same_BMK : torch.Tensor
        BoolTensor of the shape of the negatives.

    Example
    -------
    >>> codes = torch.tensor([[[5, 1], [5, 2], [5, 1]]])
    >>> has_same_codes(codes, torch.tensor([[[1, 2], [0, 2], [0, 1]]]))[0].tolist()
    [[False, True], [False, False], [True, False]]
    """
    B, M, _ = codes_BMG.shape
    same_BMM = torch.ones(B, M, M, dtype=torch.bool, device=codes_BMG.device)
    for codes_BM in codes_BMG.unbind(-1):
        same_BMM &= codes_BM[:, :, None] == codes_BM[:, None, :]
    return same_BMM.gather(2, negatives_BMK)
