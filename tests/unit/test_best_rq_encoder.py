"""The encoder of BEST-RQ as a module: no Brain is needed."""

import pytest
import torch
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.convolution import ConvolutionFrontEnd
from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR
from speechbrain.processing import features as speechbrain_features

from brainquant.models import BestRQEncoder, InputNormalization, quicken


def transformer(**changes):
    sizes = {"input_size": 16, "d_model": 16, "nhead": 2, "num_encoder_layers": 2, "d_ffn": 32}
    kind = {"encoder_module": "conformer", "attention_type": "RelPosMHAXL"}
    kind |= {"normalize_before": True, "causal": False, "dropout": 0.0}
    return TransformerASR(tgt_vocab=1, num_decoder_layers=0, **{**sizes, **kind, **changes})


def front_end(strides=(2, 2)):
    return ConvolutionFrontEnd(
        (1, 8, 16), num_blocks=2, num_layers_per_block=1, out_channels=[4, 4],
        strides=list(strides), residuals=[False, False], dropout=0.0,
    )  # fmt: skip


def make_encoder(seed=0, norm_type="sentence", **changes):
    torch.manual_seed(seed)
    parts = {
        "compute_features": Fbank(n_mels=16),
        "normalize": InputNormalization(norm_type=norm_type),
        "front_end": front_end(),
        "transformer": transformer(),
    }
    encoder = BestRQEncoder(**{**parts, **changes})
    quicken(encoder)
    return encoder


def two_clips(seed=1):
    wavs_BL = torch.randn(2, 20000, generator=torch.manual_seed(seed))
    wavs_BL[1, 9000:] = 0.0
    return wavs_BL, torch.tensor([20000, 9000])


@pytest.mark.parametrize("norm_type", ["sentence", "global"])
def test_a_clip_is_encoded_alike_alone_and_in_a_batch(norm_type):
    encoder = make_encoder(norm_type=norm_type)
    wavs_BL, lengths_B = two_clips()
    encoder(wavs_BL, lengths_B)
    encoder.eval()
    together = encoder(wavs_BL, lengths_B)
    alone = encoder(wavs_BL[1:, :9000], lengths_B[1:])
    frames = int(together.frames_B[1])
    assert together.frames_B.tolist() == [encoder.count_frames(n) for n in lengths_B.tolist()]
    assert alone.hidden_BTD.shape[1] == frames == alone.frames_B[0]
    torch.testing.assert_close(
        together.hidden_BTD[1, :frames], alone.hidden_BTD[0], rtol=0, atol=1e-5
    )
    whole = 9000 // 160 + 1  # frames; a stack that is not full may hold a frame of zeros
    torch.testing.assert_close(
        together.inputs_BTI[1, : whole // 4], alone.inputs_BTI[0, : whole // 4]
    )


def test_frames_and_their_times_are_those_of_the_stacks():
    encoder = make_encoder()
    for num_samples in (1, 159, 160, 639, 640, 16000, 16001):
        centres = [n * 0.01 for n in range(10**6 // 160) if n * 160 <= num_samples]
        stacks = [centres[n : n + 4] for n in range(0, len(centres), 4)]
        assert encoder.count_frames(num_samples) == len(stacks)
        assert encoder.count_frames(torch.tensor([num_samples])).tolist() == [len(stacks)]
        for stack, time in zip(stacks, encoder.frame_times(len(stacks))):
            assert time == pytest.approx(stack[0] + 0.015)
    shortest = encoder.eval()(torch.randn(1, encoder.min_samples), torch.tensor([1]))
    assert shortest.frames_B.tolist() == [1] and shortest.hidden_BTD.isfinite().all()


def test_noise_replaces_masked_frames_and_the_inputs_of_the_quantiser_stay():
    encoder, (wavs_BL, lengths_B) = make_encoder().eval(), two_clips()
    shape = (2, 4 * encoder.count_frames(20000), encoder.num_features)
    mask_BT, noise_BTF = torch.zeros(shape[:2], dtype=torch.bool), torch.randn(shape)
    plain, unmasked = encoder(wavs_BL, lengths_B), encoder(wavs_BL, lengths_B, mask_BT, noise_BTF)
    assert torch.equal(plain.hidden_BTD, unmasked.hidden_BTD)
    mask_BT[0, 40:60] = True
    masked = encoder(wavs_BL, lengths_B, mask_BT, noise_BTF)
    assert torch.equal(masked.inputs_BTI, plain.inputs_BTI)
    assert not torch.allclose(masked.hidden_BTD[0], plain.hidden_BTD[0])
    assert torch.allclose(masked.hidden_BTD[1], plain.hidden_BTD[1], atol=1e-6)
    feats_BTF, _ = encoder.features(wavs_BL, lengths_B)
    feats_BTF[0, 40:60] = noise_BTF[0, 40:60]
    expected_BSD = encoder.encode_features(feats_BTF, lengths_B // 160 + 1)
    assert torch.equal(masked.hidden_BTD, expected_BSD)


@pytest.mark.parametrize("prepared", [False, True])
def test_gradients_reach_all_parameters(prepared):
    encoder = make_encoder()
    encoder = encoder.prepare_finetuning() if prepared else encoder
    encoder(*two_clips()).hidden_BTD.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in encoder.parameters())


def test_layers_and_their_outputs_are_those_of_the_transformer():
    encoder, (wavs_BL, lengths_B) = make_encoder().eval(), two_clips()
    assert list(encoder.layers) == list(encoder.transformer.transformer.encoder.layers)
    outputs = encoder.layer_outputs(wavs_BL, lengths_B)
    assert [output.shape for output in outputs] == [(2, 32, 16)] * 2
    norm = encoder.transformer.transformer.encoder.norm
    assert torch.equal(norm(outputs[-1]), encoder(wavs_BL, lengths_B).hidden_BTD)


def test_global_statistics_are_speechbrains_and_go_through_a_state_dict():
    encoder, stock = make_encoder(norm_type="global"), speechbrain_features.InputNormalization()
    for seed in (1, 2, 3):
        wavs_BL, lengths_B = two_clips(seed)
        encoder(wavs_BL, lengths_B)
        stock(encoder.compute_features(wavs_BL), (lengths_B // 160 + 0.5) / (20000 // 160 + 1))
    assert torch.equal(encoder.normalize.glob_mean, stock.glob_mean)
    assert torch.equal(encoder.normalize.glob_std, stock.glob_std)
    assert int(encoder.normalize.count) == stock.count
    other = make_encoder(seed=5, norm_type="global")
    other.load_state_dict(encoder.state_dict())
    one, same = (e.eval()(wavs_BL, lengths_B).hidden_BTD for e in (encoder, other))
    assert torch.equal(one, same)


def test_speechbrains_files_of_statistics_can_be_loaded(tmp_path):
    stock, ours = speechbrain_features.InputNormalization(), InputNormalization()
    stock(torch.randn(2, 5, 3))
    stock._save(tmp_path / "normalize.ckpt")
    ours._load(tmp_path / "normalize.ckpt")
    assert torch.equal(ours.glob_mean, stock.glob_mean) and int(ours.count) == stock.count


def test_fine_tuning_keeps_the_statistics():
    encoder = make_encoder(norm_type="global")
    encoder(*two_clips())
    before = encoder.normalize.glob_mean.clone()
    encoder.prepare_finetuning().train()(*two_clips(2))
    assert torch.equal(encoder.normalize.glob_mean, before) and encoder.front_end.training


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"stack": 2}, "front_end and stack do not fit"),
        ({"front_end": front_end((2, 1))}, "front_end and stack do not fit"),
        ({"transformer": transformer(input_size=7)}, "front_end and transformer: the sizes do not"),
        (
            {"normalize": speechbrain_features.InputNormalization()},
            "set normalize: !new:brainquant.models.InputNormalization",
        ),
    ],
)
def test_parts_that_do_not_fit_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        make_encoder(**changes)


def test_speechbrains_normalisation_of_each_sentence_is_the_same():
    stock = speechbrain_features.InputNormalization(norm_type="sentence")
    ours, theirs = make_encoder().eval(), make_encoder(normalize=stock).eval()
    one, same = (e(*two_clips()).hidden_BTD for e in (ours, theirs))
    assert torch.equal(one, same)
