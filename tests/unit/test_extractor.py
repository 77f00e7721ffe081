"""The extractor of wav2vec 2.0: SpeechBrain's outputs, and a penalty and gradients of our own."""

import pytest
import torch
from speechbrain.lobes.models.wav2vec import W2VLatentExtractor
from tones import batched, clips

from brainquant.models.extractor import ScaleGradient, Wav2Vec2Extractor
from brainquant.models.features import normalise_utterances

SMALL = {"out_channels": [6] * 3, "kernel_sizes": [5, 3, 3], "strides": [4, 2, 2]}


def test_scaled_gradient():
    x = torch.tensor([2.0, 3.0], requires_grad=True)
    y = ScaleGradient.apply(x, 0.1)
    (y * torch.tensor([1.0, 5.0])).sum().backward()
    assert torch.equal(y, x)
    torch.testing.assert_close(x.grad, torch.tensor([0.1, 0.5]))


@pytest.fixture
def extractor():
    torch.manual_seed(0)
    return Wav2Vec2Extractor(**SMALL)


def test_extractor_is_speechbrains_for_clips_without_padding(extractor):
    stock = W2VLatentExtractor(**SMALL)
    stock.load_state_dict(extractor.state_dict(), strict=True)
    (wav,) = clips(900)
    latents, _ = extractor(wav[None], torch.tensor([900]))
    torch.testing.assert_close(latents, stock(wav[None]), rtol=1e-3, atol=1e-3)


def test_extractor_with_dropout_is_speechbrains():
    extractor = Wav2Vec2Extractor(**SMALL, dropout=0.5)
    wavs, lengths = batched(list(clips(900)))
    torch.manual_seed(1)
    latents, _ = extractor(wavs, lengths)
    torch.manual_seed(1)
    before = extractor.extractor(normalise_utterances(wavs, lengths)[..., None])
    assert torch.equal(latents, extractor.norm(before))
    assert not torch.equal(latents, extractor(wavs, lengths)[0])


def test_latents_and_penalty_ignore_padding(extractor):
    wavs = list(clips(900, 400))
    latents_BTC, penalty = extractor(*batched(wavs))
    alone = [extractor(wav[None], torch.tensor([len(wav)])) for wav in wavs]
    frames = [latents.shape[1] for latents, _ in alone]
    for row, (latents, _) in zip(latents_BTC, alone, strict=True):
        torch.testing.assert_close(row[: latents.shape[1]], latents[0], rtol=1e-4, atol=1e-5)
    mean = sum(n * p.item() for n, (_, p) in zip(frames, alone, strict=True)) / sum(frames)
    assert penalty.item() == pytest.approx(mean, rel=1e-4)
    assert frames == extractor.get_output_lengths(torch.tensor([900, 400])).tolist()


def test_penalty_is_the_mean_square_before_the_norm(extractor):
    wavs, lengths = batched(list(clips(900)))
    before = extractor.extractor(normalise_utterances(wavs, lengths)[..., None])
    assert extractor(wavs, lengths)[1].item() == pytest.approx(before.square().mean().item())


def test_convolutions_get_a_gradient_that_is_scaled_and_the_norm_the_whole(extractor):
    gradients = {}
    for scale in (1.0, 0.1):
        extractor.gradient_scale = scale
        extractor.zero_grad()
        latents, penalty = extractor(*batched(list(clips(900, 400))))
        (latents.square().mean(-1).sum() + latents[..., 0].sum() + penalty).backward()
        gradients[scale] = {name: p.grad.clone() for name, p in extractor.named_parameters()}
    for name, whole in gradients[1.0].items():
        factor = 1.0 if name.startswith("norm.") else 0.1
        torch.testing.assert_close(gradients[0.1][name], factor * whole, rtol=1e-4, atol=1e-6)


def test_a_clip_that_is_shorter_than_a_frame_adds_no_penalty(extractor):
    wavs = list(clips(900, 3))
    _, penalty = extractor(*batched(wavs))
    _, alone = extractor(wavs[0][None], torch.tensor([900]))
    assert penalty.item() == pytest.approx(alone.item(), rel=1e-5)


@pytest.mark.parametrize("scale", [-1, float("nan"), "abc", None])
def test_a_gradient_scale_that_climbs_or_is_no_number_is_refused(scale):
    with pytest.raises(ValueError, match=f"gradient_scale must be .* got {scale!r}; set"):
        Wav2Vec2Extractor(gradient_scale=scale, out_channels=[8] * 7)


def test_clips_that_are_all_shorter_than_a_frame_are_refused(extractor):
    assert extractor.field_and_stride() == (29, 16)
    assert extractor(torch.randn(1, 29), torch.tensor([29]))[0].shape[1] == 1
    with pytest.raises(ValueError, match="sees 29 samples, but the longest clip has 28"):
        extractor(torch.randn(2, 28), torch.tensor([28, 9]))
