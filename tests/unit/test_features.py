"""From waveforms to what is quantised and encoded."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.convolution import ConvolutionFrontEnd
from speechbrain.processing.features import InputNormalization, make_padding_mask
from tones import batched, clips

from brainquant import RandomProjectionQuantizer
from brainquant.models.features import (
    normalise_utterances,
    pad_to_stacks,
    relative_lengths,
    stack_frames,
    stacks_ahead,
)


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

    with pytest.raises(ValueError, match="front_end: .* depend on the clips beside it"):
        stacks_ahead(Mean(), 20, 4)
