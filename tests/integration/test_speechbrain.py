"""SpeechBrain's own code keeps working with one word of its YAML changed."""

from functools import partial

import pytest
import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.lobes.models.BESTRQ import brq_mask_collate_fn

STOCK_TARGET_QUANTISER = """
target_quantiser: !new:speechbrain.lobes.models.wav2vec.W2VTargetQuantiser
    in_dim: 24
    out_dim: 16
    num_vars: 20
    quantiser: !name:{package}.GumbelVectorQuantizer
"""

# The models of SpeechBrain's BEST-RQ recipe, smaller.
STOCK_BEST_RQ = """
CNN: !new:speechbrain.lobes.models.convolution.ConvolutionFrontEnd
    input_shape: [8, 10, 80]
    num_blocks: 2
    num_layers_per_block: 1
    out_channels: [8, 8]
    kernel_sizes: [3, 3]
    strides: [2, 2]
    residuals: [False, False]
Transformer: !new:speechbrain.lobes.models.transformer.TransformerASR.TransformerASR
    input_size: 160
    tgt_vocab: 1
    d_model: 16
    nhead: 2
    num_encoder_layers: 1
    num_decoder_layers: 0
    d_ffn: 32
    encoder_module: conformer
    attention_type: RelPosMHAXL
    normalize_before: True
    causal: False
wrapper: !new:speechbrain.lobes.models.transformer.TransformerASR.EncoderWrapper
    transformer: !ref <Transformer>
Quantizer: !new:{package}.RandomProjectionQuantizer
    input_dim: 320
    cb_dim: 16
    cb_vocab: 64
normalize: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
linear: !new:speechbrain.nnet.linear.Linear
    input_size: 16
    n_neurons: 64
modules:
    CNN: !ref <CNN>
    wrapper: !ref <wrapper>
    Quantizer: !ref <Quantizer>
    normalize: !ref <normalize>
    linear: !ref <linear>
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: 80
"""


class StockBestRQ(sb.Brain):
    """The calls of SpeechBrain's BEST-RQ recipe, in its order."""

    def compute_forward(self, batch, stage):
        wavs, wav_lens, mask = batch
        feats = self.modules.normalize(self.hparams.compute_features(wavs), wav_lens)
        feats = torch.nn.functional.pad(feats, (0, 0, -feats.shape[1] % 4, 0))
        mask_idx = mask[::4] // 4
        targets = self.modules.Quantizer(feats.view(len(feats), -1, 320)[:, mask_idx, :])
        feats[:, mask, :] = 0.1 * torch.randn(len(feats), len(mask), 80)
        logits = self.modules.linear(self.modules.wrapper(self.modules.CNN(feats), wav_lens))
        return logits[:, mask_idx, :].flatten(0, 1), targets.flatten()

    def compute_objectives(self, predictions, batch, stage):
        loss = torch.nn.functional.cross_entropy(*predictions)
        self.losses = [*getattr(self, "losses", []), loss.item()]
        return loss


@pytest.mark.parametrize("training", [True, False])
def test_w2v_target_quantiser_gives_the_same(training):
    outputs = []
    for package in ("speechbrain.nnet.quantisers", "brainquant"):
        torch.manual_seed(0)
        hparams = load_hyperpyyaml(STOCK_TARGET_QUANTISER.format(package=package))
        module = hparams["target_quantiser"].train(training)
        targets, meta = module(torch.randn(2, 30, 24, generator=torch.manual_seed(1)))
        targets.sum().backward()
        outputs.append([targets, *map(torch.as_tensor, meta.values()), module.quantiser.vars.grad])
    for stock, ours in zip(*outputs):
        torch.testing.assert_close(ours, stock)


def test_best_rq_trains_as_with_the_stock_quantiser(corpus):
    losses = []
    for package in ("speechbrain.nnet.quantisers", "brainquant"):
        sb.utils.seed.seed_everything(0)
        hparams = load_hyperpyyaml(STOCK_BEST_RQ.format(package=package))
        dataset = sb.dataio.dataset.DynamicItemDataset.from_csv(
            f"{corpus}/valid.csv", replacements={"data_root": str(corpus)}
        )
        dataset.add_dynamic_item(sb.dataio.dataio.read_audio, takes="wav", provides="sig")
        dataset.set_output_keys(["id", "sig"])
        collate = partial(
            brq_mask_collate_fn,
            get_out_len_fn=lambda samples: samples // 160 + 1,
            mask_prob=0.15,
            mask_length=4,
            n_mels=80,
        )
        brain = StockBestRQ(
            hparams["modules"], partial(torch.optim.AdamW, lr=1e-3), hparams, {"device": "cpu"}
        )
        loader = {"batch_size": 2, "collate_fn": collate}
        brain.fit(range(1), dataset, train_loader_kwargs=loader, progressbar=False)
        losses.append(brain.losses)
    assert len(losses[0]) >= 2 and losses[1] == pytest.approx(losses[0], abs=1e-5)
