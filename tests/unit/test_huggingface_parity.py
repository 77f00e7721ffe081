"""A held wav2vec 2.0 computes what transformers computes, from the same masks and negatives.

Shape suffixes: B batch, L samples, T frames, M masked frames of an utterance, N masked frames of
all utterances, K negatives, D dim, E codes of all groups.
"""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from speechbrain import Stage
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.epoch_loop import EpochCounter
from tiny_huggingface import save_model

import brainquant.quantisers.gumbel
from brainquant.brains import Wav2Vec2Brain
from brainquant.huggingface import load_wav2vec2

# Public models are of the first two kinds; configs allow the others, too.
VARIANTS = {
    "base": {"norm": "group"},
    "XLS-R": {"norm": "layer"},
    "group norm, biases, norms before layers": {
        "norm": "group", "conv_bias": True, "do_stable_layer_norm": True,
    },
    "layer norm, no biases, norms after layers": {
        "norm": "layer", "conv_bias": False, "do_stable_layer_norm": False,
    },
}  # fmt: skip
# Their gradients are zero in exact arithmetic: all keys get the same from the first, and a group
# norm of single channels subtracts the second.
ZERO_GRADIENTS = {"layer": ("k_proj.bias",), "group": ("k_proj.bias", "conv_layers.0.conv.bias")}
OURS = {  # prefixes of names
    "wav2vec2.": "encoder.model.",
    "quantizer.codevectors": "quantiser.vars",
    "quantizer.": "quantiser.",
    "project_q.": "target_proj.",
    "project_hid.": "context_proj.",
}


@pytest.fixture(params=VARIANTS)
def held(request, tmp_path):
    """A model of transformers, and the Brain that holds what was saved of it."""
    variant = VARIANTS[request.param]
    model = save_model(tmp_path / "model", **variant)
    with torch.no_grad():  # norms and biases are ones and zeros; the same frames would be alike
        for number, parameter in enumerate(model.parameters()):
            generator = torch.Generator().manual_seed(number)
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(tmp_path / "model")
    return SimpleNamespace(model=model, brain=make_brain(tmp_path), norm=variant["norm"])


def make_brain(folder, **changes):
    parts = load_wav2vec2(str(folder / "model"), temp_tuple=[0.7, 0.5, 0.999])
    hparams = {
        "train_csv": "none.csv", "valid_csv": None, "output_folder": str(folder / "run"),
        "lr_schedule": None, "train_loggers": [], "warmup_steps": 0,
        "epoch_counter": EpochCounter(1), "mask_length": 3, "num_negatives": 7,
        "same_code_negatives": "leave_out", "penalty_weight": 0, **changes,
    }  # fmt: skip
    brain = Wav2Vec2Brain(parts._asdict(), torch.optim.SGD, hparams, {})
    hparams["epoch_counter"].current = brain.step = 1
    brain.place.sampler = SimpleNamespace(start=0)
    return brain


def make_batch(*lengths):
    """Tones whose pitch and loudness jump, so that latents differ and choose several codes."""
    generator = torch.Generator().manual_seed(3)
    clips = []
    for length in lengths:
        steps_S, loudness_S = torch.rand(2, length // 500 + 1, generator=generator)
        steps_L, loudness_L = (x_S.repeat_interleave(500)[:length] for x_S in (steps_S, loudness_S))
        clips.append({"sig": torch.sin(torch.cumsum(2 * steps_L, 0)) * loudness_L + 0.1})
    return PaddedBatch(clips)


def ours(brain, batch, stage, monkeypatch):
    """The Brain's predictions and loss, with the mask and the noise that it has drawn."""
    brain.modules.train(stage == Stage.TRAIN)
    drawn = SimpleNamespace(noise_NE=None)
    draw_mask, gumbel_rows = brain.draw_mask, brainquant.quantisers.gumbel.gumbel_rows

    def note_mask(*arguments):
        drawn.mask_BT = draw_mask(*arguments)
        return drawn.mask_BT

    def note_noise(*arguments):
        drawn.noise_NE = arguments[4]
        return gumbel_rows(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(brain, "draw_mask", note_mask)
        patch.setattr(brainquant.quantisers.gumbel, "gumbel_rows", note_noise)
        predictions = brain.compute_forward(batch, stage)
    drawn.loss = brain.compute_objectives(predictions, batch, stage)
    vars(drawn).update(predictions)
    # What is logged: of an epoch, since the tally has no other batch.
    drawn.record = brain.tally.end(stage, 1)
    return drawn


def theirs(model, brain, batch, stage, drawn, monkeypatch, *, padded):
    """transformers' own forward, with our mask, negatives and noise."""
    model.train(stage == Stage.TRAIN)
    model.set_gumbel_temperature(brain.quantiser.curr_temp)
    wavs_BL, lengths_B = brain.waveforms(batch)
    rows = []
    for wav_L, length in zip(wavs_BL, lengths_B):  # as Wav2Vec2FeatureExtractor does
        wav_L = wav_L[:length]
        wav_L = (wav_L - wav_L.mean()) / torch.sqrt(wav_L.var(unbiased=False) + 1e-7)
        rows.append(torch.nn.functional.pad(wav_L, (0, wavs_BL.shape[1] - length)))
    attention_BL = torch.arange(wavs_BL.shape[1]) < lengths_B[:, None]
    # Indices among the masked frames of an utterance become indices of all frames.
    B, T = drawn.mask_BT.shape
    negatives_BTK = torch.zeros(B, T, drawn.negatives_BMK.shape[2], dtype=torch.long)
    for b, mask_T in enumerate(drawn.mask_BT):
        places_M = mask_T.nonzero()[:, 0]
        negatives_MK = drawn.negatives_BMK[b, : len(places_M)]
        negatives_BTK[b, places_M] = b * T + places_M[negatives_MK]
    with monkeypatch.context() as patch:
        if drawn.noise_NE is not None:
            patch.setattr(torch.nn.functional, "gumbel_softmax", with_noise(drawn))
        return model(
            torch.stack(rows),
            attention_mask=attention_BL.long() if padded else None,
            mask_time_indices=drawn.mask_BT,
            sampled_negative_indices=negatives_BTK,
        )


def with_noise(drawn):
    """torch's gumbel_softmax with our noise: transformers quantises all frames, we masked ones."""

    def gumbel_softmax(logits, tau, hard):
        assert hard
        noise_BTE = torch.ones(*drawn.mask_BT.shape, drawn.noise_NE.shape[1])
        noise_BTE[drawn.mask_BT] = drawn.noise_NE
        soft = torch.softmax((logits - noise_BTE.view_as(logits).log()) / tau, dim=-1)
        hard = torch.zeros_like(soft).scatter_(-1, soft.argmax(-1, keepdim=True), 1.0)
        return hard - soft.detach() + soft

    return gumbel_softmax


def assert_close(name, one, other, tolerance):
    """Compares two tensors, relative to the norm of the second."""
    one, other = one.detach(), other.detach()
    error, size = float((one - other).norm()), float(other.norm())
    assert size > 0 and error <= tolerance * size, f"{name}: {error:.2g} of {size:.2g}"


@pytest.mark.parametrize("stage", [Stage.TRAIN, Stage.VALID], ids=["train", "eval"])
def test_vectors_losses_and_gradients_are_those_of_transformers(held, stage, monkeypatch):
    model, brain = held.model, held.brain
    # transformers' group norm depends on the padding; ours does not, see below.
    lengths = (9000, 9000) if held.norm == "group" else (9000, 7123)
    batch = make_batch(*lengths)
    mine = ours(brain, batch, stage, monkeypatch)
    padded = held.norm == "layer"
    other = theirs(model, brain, batch, stage, mine, monkeypatch, padded=padded)

    num_masked = int(mine.mask_BT.sum())
    assert num_masked > 10 and mine.counts_B.tolist() == mine.mask_BT.sum(1).tolist()
    in_utterance_BM = torch.arange(mine.context_BMD.shape[1]) < mine.counts_B[:, None]
    context_ND, targets_ND = mine.context_BMD[in_utterance_BM], mine.targets_BMD[in_utterance_BM]
    assert_close("context", context_ND, other.projected_states[mine.mask_BT], 1e-6)
    assert_close("targets", targets_ND, other.projected_quantized_states[mine.mask_BT], 1e-6)
    contrastive = mine.record["loss"] * num_masked
    assert contrastive == pytest.approx(other.contrastive_loss.item(), rel=1e-5)
    # Some negatives are left out, and some are not: the test is of both.
    assert 0.3 < mine.record["chance_loss"] / math.log(8) < 0.99
    # transformers gives the perplexity of probabilities in training, and of codes in evaluation.
    name = "prob_perplexity" if stage == Stage.TRAIN else "code_perplexity_sum"
    perplexity = other.codevector_perplexity.item()
    assert mine.record[name] == pytest.approx(perplexity, rel=1e-4)

    # In evaluation transformers' diversity has no gradient, and ours has one.
    loss, wanted = mine.loss, other.loss
    if stage == Stage.VALID:
        loss = loss - brain.hparams.aux_weight * mine.aux_loss
        wanted = other.contrastive_loss
    loss.backward()
    (wanted / num_masked).backward()
    found = dict(brain.modules.named_parameters())
    del found["quantiser.max_ent"]  # which is no parameter of transformers
    for name, parameter in model.named_parameters():
        prefix = next(prefix for prefix in OURS if name.startswith(prefix))
        grad = found.pop(name.replace(prefix, OURS[prefix], 1)).grad
        if name.endswith(ZERO_GRADIENTS[held.norm]):
            assert float(grad.norm()) < 1e-5
        elif parameter.grad is None:  # scores of codes, in evaluation
            assert stage == Stage.VALID and "weight_proj" in name and not grad.any()
        else:
            assert_close(name, grad, parameter.grad, 1e-4)
    assert not found


def test_a_clip_gets_the_same_beside_a_longer_one(held):
    brain = held.brain
    brain.modules.eval()
    encoder, batch = brain.raw("encoder"), make_batch(7123, 30000)
    wavs_BL, lengths_B = brain.waveforms(batch)
    with torch.no_grad():
        alone = encoder(wavs_BL[:1, :7123], lengths_B[:1])
        beside = encoder(wavs_BL, lengths_B)
    frames = int(alone.frames_B)
    assert_close("outputs", beside.hidden_BTD[0, :frames], alone.hidden_BTD[0], 1e-5)
    assert_close("inputs", beside.inputs_BTI[0, :frames], alone.inputs_BTI[0], 1e-5)
    assert float(beside.hidden_BTD[0, :frames].std()) > 0.01


def test_transformers_draws_no_masks_of_its_own(tmp_path, monkeypatch):
    masks = {"mask_time_prob": 0.5, "mask_feature_prob": 0.5, "mask_feature_length": 2}
    model = save_model(tmp_path / "model", **masks)
    brain, batch = make_brain(tmp_path), make_batch(9000, 8000)
    np.random.seed(0)
    before = np.random.get_state()[1].tolist()
    mine = ours(brain, batch, Stage.TRAIN, monkeypatch)
    assert np.random.get_state()[1].tolist() == before
    # No feature is masked: the vectors are those of a model that masks none.
    model.config.mask_feature_prob = 0.0
    other = theirs(model, brain, batch, Stage.TRAIN, mine, monkeypatch, padded=True)
    in_utterance_BM = torch.arange(mine.context_BMD.shape[1]) < mine.counts_B[:, None]
    context_ND = mine.context_BMD[in_utterance_BM]
    assert_close("context", context_ND, other.projected_states[mine.mask_BT], 1e-6)
