"""The encoder of wav2vec 2.0 as a module: no Brain is needed."""

import copy
import pickle

import pytest
import torch
from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder

from brainquant.models import MaskingEncoder, Wav2Vec2Encoder, Wav2Vec2Extractor, quicken


def make_encoder(seed=0, **changes):
    torch.manual_seed(seed)
    conformer = ConformerEncoder(2, 16, 32, 2, attention_type="regularMHA")
    transformer = MaskingEncoder(8, 16, conformer, dropout_encoder_input=0.0)
    encoder = Wav2Vec2Encoder(Wav2Vec2Extractor(out_channels=[8] * 7), transformer, **changes)
    quicken(encoder)
    return encoder


def two_clips(seed=1):
    wavs_BL = torch.randn(2, 20000, generator=torch.manual_seed(seed))
    wavs_BL[1, 9000:] = 0.0
    return wavs_BL, torch.tensor([20000, 9000])


@pytest.mark.parametrize("normalise", [False, True])
def test_a_clip_is_encoded_alike_alone_and_in_a_batch(normalise):
    encoder, (wavs_BL, lengths_B) = make_encoder(normalise_targets=normalise).eval(), two_clips()
    together = encoder(wavs_BL, lengths_B)
    alone = encoder(wavs_BL[1:, :9000], lengths_B[1:])
    frames = int(together.frames_B[1])
    assert together.frames_B.tolist() == [encoder.count_frames(n) for n in lengths_B.tolist()]
    assert alone.hidden_BTD.shape[1] == frames == alone.frames_B[0]
    for ours, expected in zip(together[::2], alone[::2]):  # outputs, inputs of the quantiser
        torch.testing.assert_close(ours[1, :frames], expected[0], rtol=0, atol=1e-5)
    inputs_BTC, frames_B = encoder.quantiser_inputs(wavs_BL, lengths_B)
    assert torch.equal(inputs_BTC, together.inputs_BTI)
    assert torch.equal(frames_B, together.frames_B)


def test_frames_and_their_times_are_those_of_the_convolutions():
    encoder = make_encoder()
    field, stride = encoder.extractor.field_and_stride()
    for num_samples in (1, field - 1, field, field + stride - 1, field + stride, 16000):
        starts = [n for n in range(0, num_samples, stride) if n + field <= num_samples]
        assert encoder.count_frames(num_samples) == len(starts)
        middles = [(start + field / 2) / 16000 for start in starts]
        assert encoder.frame_times(len(starts)).tolist() == pytest.approx(middles)
    shortest = encoder.eval()(torch.randn(1, field), torch.tensor([field]))
    assert encoder.min_samples == field and shortest.frames_B.tolist() == [1]


def test_gradients_reach_all_parameters_if_masked_and_all_but_the_mask_otherwise():
    encoder, (wavs_BL, lengths_B) = make_encoder(), two_clips()
    mask_BT = torch.zeros(2, encoder.count_frames(20000), dtype=torch.bool)
    mask_BT[0, 10:20] = True
    encoder(wavs_BL, lengths_B, mask_BT).hidden_BTD.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in encoder.parameters())
    encoder.zero_grad()
    encoder.prepare_finetuning()(wavs_BL, lengths_B).hidden_BTD.square().sum().backward()
    without = {name for name, p in encoder.named_parameters() if p.grad is None}
    frozen = {name for name, p in encoder.named_parameters() if not p.requires_grad}
    assert without == frozen == {"transformer.mask_emb"}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_a_copy_encodes_alike(copied):
    encoder = make_encoder().eval()
    one, same = (e(*two_clips()).hidden_BTD for e in (encoder, copied(encoder)))
    assert torch.equal(one, same)


def test_layers_are_those_of_the_conformer():
    encoder = make_encoder().eval()
    assert list(encoder.layers) == list(encoder.transformer.latent_encoder.layers)
    assert len(encoder.parameters_by_layer()) == 3
    assert len(encoder.layer_outputs(*two_clips())) == 2


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="extractor and transformer: the sizes do not fit"):
        Wav2Vec2Encoder(Wav2Vec2Extractor(out_channels=[4] * 7), make_encoder().transformer)
