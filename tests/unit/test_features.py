"""From waveforms to what is quantised and encoded."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.convolution import ConvolutionFrontEnd
from speechbrain.lobes.models.wav2vec import W2VLatentExtractor
from speechbrain.processing.features import InputNormalization, make_padding_mask

from brainquant import RandomProjectionQuantizer
from brainquant.models.features import (
    ScaleGradient,
    Wav2Vec2Extractor,
    normalise_utterances,
    pad_to_stacks,
    relative_lengths,
    stack_frames,
    stacks_ahead,
)

SMALL = {"out_channels": [6] * 3, "kernel_sizes": [5, 3, 3], "strides": [4, 2, 2]}


def clips(*lengths):
    """Tones with noise, some of them quiet."""
    generator = torch.Generator().manual_seed(0)
    for index, length in enumerate(lengths):
        tone = torch.sin(torch.arange(length) * (0.05 + 0.04 * index))
        noise = torch.randn(length, generator=generator)
        yield 10.0**-index * (tone + 0.3 * noise)


def batched(wavs):
    return torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True), torch.tensor([*map(len, wavs)])


def test_the_codes_of_a_clip_do_not_depend_on_the_clips_beside_it():
    fbank, normalize = Fbank(n_mels=40), InputNormalization(norm_type="sentence")
    quantiser = RandomProjectionQuantizer(160, 16, 512, seed=0)

    def codes(wavs):
        wavs_BL, lengths_B = batched(wavs)
        feats_BTF = fbank(wavs_BL)
        frames_B = lengths_B // fbank.compute_STFT.hop_length + 1
        feats_BTF = normalize(feats_BTF, relative_lengths(frames_B, feats_BTF.shape[1]))
        feats_BTF = pad_to_stacks(feats_BTF, frames_B, 4)
        return quantiser(stack_frames(feats_BTF, 4)), -(-frames_B // 4)

    # 101 frames beside 152: 101 / 152 * 152 is more than 101 in float32.
    wavs = list(clips(16000, 9111, 24160, 480))
    together_BS, stacks_B = codes(wavs)
    for wav, codes_S, stacks in zip(wavs, together_BS, stacks_B, strict=True):
        alone_1S, _ = codes([wav])
        assert alone_1S.shape[1] == stacks
        assert torch.equal(alone_1S[0], codes_S[:stacks])
    assert together_BS.unique().numel() > 50


@pytest.mark.parametrize("num_frames", [1, 20, 152, 1499, 3000])
def test_relative_lengths_give_speechbrains_masks_the_right_frames(num_frames):
    lengths_B = torch.arange(1, num_frames + 1, 1 + num_frames // 100)
    feats = torch.zeros(len(lengths_B), num_frames, 1)
    mask = make_padding_mask(feats, relative_lengths(lengths_B, num_frames))
    assert torch.equal(mask.sum((1, 2)), lengths_B)


def test_padding_is_zeros_on_the_right_up_to_whole_stacks():
    feats_BTF = torch.ones(2, 5, 3)
    padded_BTF = pad_to_stacks(feats_BTF, torch.tensor([5, 2]), 4)
    assert padded_BTF.shape == (2, 8, 3)
    assert padded_BTF[..., 0].tolist() == [[1] * 5 + [0] * 3, [1] * 2 + [0] * 6]
    assert pad_to_stacks(feats_BTF[:, :4], torch.tensor([4, 4]), 4).shape == (2, 4, 3)


def test_a_stack_is_its_frames_side_by_side():
    feats_BTF = torch.arange(24.0).view(1, 6, 4)
    stacks_BSF = stack_frames(feats_BTF, 3)
    assert stacks_BSF.shape == (1, 2, 12)
    for s in range(2):
        assert stacks_BSF[0, s].tolist() == torch.cat([*feats_BTF[0, 3 * s : 3 * s + 3]]).tolist()


@given(st.lists(st.integers(2, 50), min_size=1, max_size=4))
def test_each_waveform_is_normalised_over_its_own_samples(lengths):
    wavs = list(clips(*lengths))
    normalised_BL = normalise_utterances(*batched(wavs))
    for wav, row in zip(wavs, normalised_BL, strict=True):
        expected = F.layer_norm(wav, wav.shape, eps=1e-10)
        torch.testing.assert_close(row[: len(wav)], expected, rtol=1e-4, atol=1e-4)
        assert not row[len(wav) :].any()


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_each_channel_is_normalised_over_the_frames_of_its_utterance(lengths):
    x_BTC = 3 + torch.randn(len(lengths), 9, 4)
    normalised_BTC = normalise_utterances(x_BTC, torch.tensor(lengths))
    for x_TC, seen_TC, length in zip(x_BTC, normalised_BTC, lengths, strict=True):
        for c in range(4):
            expected_TC = normalise_utterances(x_TC[None, :length, c], torch.tensor([length]))[0]
            torch.testing.assert_close(seen_TC[:length, c], expected_TC)
        assert not seen_TC[length:].any()


def test_silence_stays_finite():
    assert not normalise_utterances(torch.zeros(2, 9), torch.tensor([9, 0])).any()
    assert not normalise_utterances(torch.ones(2, 9, 3), torch.tensor([9, 0])).any()


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


@pytest.mark.parametrize(
    "kernels, layers, expected", [([3, 3], 1, 0), ([5, 7], 1, 2), ([3, 3], 3, 2)]
)
def test_stacks_ahead_are_those_that_the_last_step_reads(kernels, layers, expected):
    front_end = ConvolutionFrontEnd(
        (1, 8, 20), num_blocks=2, num_layers_per_block=layers, out_channels=[4, 4], strides=[2, 2],
        kernel_sizes=kernels, residuals=[False, False],
    ).eval()  # fmt: skip
    ahead = stacks_ahead(front_end, 20, 4)
    assert ahead == expected
    feats_BTF = torch.zeros(1, 160, 20)
    feats_BTF[:, :80] = torch.randn(80, 20)
    whole = front_end(feats_BTF)[:, :20]
    assert torch.allclose(front_end(feats_BTF[:, : 80 + 4 * ahead])[:, :20], whole, atol=1e-5)
    assert torch.allclose(front_end(feats_BTF[:, :80]), whole, atol=1e-5) == (ahead == 0)


def test_a_front_end_that_sees_the_whole_batch_is_refused():
    class Mean(torch.nn.Module):
        def forward(self, x_BTF):
            return (x_BTF - x_BTF.mean(1, keepdim=True)).unflatten(1, (-1, 4))

    with pytest.raises(ValueError, match="front_end: .* depends on the clips beside it"):
        stacks_ahead(Mean(), 20, 4)
