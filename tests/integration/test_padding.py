"""What an encoder gives for a clip does not depend on the clips beside it."""

import functools
from pathlib import Path

import pytest
import torch
from speechbrain.utils.seed import seed_everything
from torch.nn.utils.rnn import pad_sequence

from brainquant.training.hparams import load_hparams, parse_arguments

ROOT = Path(__file__).resolve().parents[2]
RECIPES = {
    f"{path.parts[-3]}/{path.stem}": path
    for path in sorted(ROOT.glob("recipes/*/hparams/*.yaml"))
    # Theirs are of other runs: see test_huggingface_encoders.py for public models.
    if path.stem != "finetune_ctc" and not path.stem.startswith("continue_")
}
# Encoders that are one word of the YAML away.
SHORT_CHUNKS = {"chunk_size_max": 9, "left_context_chunks_max": 2, "chunkwise_prob": 1.0}
SHORT_CHUNKS |= {"limited_left_context_prob": 1.0, "valid_config": {"left_context_size": 1}}
OTHERS = {
    "causal": {"transformer": {"causal": True}},
    "regularMHA": {"transformer": {"attention_type": "regularMHA"}},
    "RoPEMHA": {"transformer": {"attention_type": "RoPEMHA"}},
    "hypermixing": {"transformer": {"attention_type": "hypermixing"}},
    "transformer": {"transformer": {"encoder_module": "transformer"}},
    "branchformer": {"transformer": {"encoder_module": "branchformer"}},
    "wide kernels": {"front_end": {"kernel_sizes": [5, 7]}},
    "deep front end": {"front_end": {"num_layers_per_block": 3, "residuals": [True, True]}},
    "chunks": {"chunks": SHORT_CHUNKS},
    "chunks, regularMHA": {"chunks": SHORT_CHUNKS, "transformer": {"attention_type": "regularMHA"}},
}
ENCODERS = [*RECIPES, *OTHERS]
# Samples: one is eight times as long as another, and none is a whole number of frames.
LENGTHS = (4011, 32088, 9777)


@functools.cache
def make_brain(name):
    """The Brain of a recipe with small sizes and without dropout."""
    path = RECIPES.get(name, RECIPES["ToySpeech/best_rq"])
    if "chunks" in name:
        path = RECIPES["LibriSpeech/best_rq_streaming"]
    small = {"num_layers": 2, "d_model": 16, "channels": 16, "d_ffn": 32, "dropout": 0.0}
    small["num_target_layers"] = 2
    text = path.read_text("utf-8")
    changes = {key: value for key, value in small.items() if f"\n{key}:" in text}
    if "front_end" in text:
        changes["front_end"] = {"out_channels": [8, 32], "dropout": 0.0}
    else:
        changes["extractor"] = {"out_channels": [16] * 7}
    for key, value in OTHERS.get(name, {}).items():
        changes[key] = changes.get(key, {}) | value
    changes |= {"source": "none"} if "\nsource:" in text else {}
    changes |= {"data_folder": "none", "output_folder": "none", "checkpointer": None}
    hparams_file, run_opts, _ = parse_arguments([str(path), "--noprogressbar"])
    seed_everything(0)
    hparams = load_hparams(hparams_file, {**changes, "train_loggers": [], "precision": "fp32"})
    brain = hparams["brain_class"](
        hparams["modules"], hparams["optimizer"], hparams, run_opts, hparams["checkpointer"]
    )
    for module in brain.modules.modules():
        if hasattr(module, "layerdrop_prob"):
            module.layerdrop_prob = 0.0
    return brain


@pytest.fixture(autouse=True)
def no_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # a Brain may make its output_folder


def clips():
    generator = torch.manual_seed(0)
    return [torch.randn(length, generator=generator) for length in LENGTHS]


def encode(brain, wavs):
    """Outputs of all layers and of the encoder."""
    encoder, outputs = brain.modules["encoder"], []
    hook = encoder.register_forward_hook(lambda _, __, encoded: outputs.append(encoded.hidden_BTD))
    torch.manual_seed(3)  # draws the chunks of a streaming encoder
    wavs_BL, lengths_B = pad_sequence(wavs, batch_first=True), torch.tensor([*map(len, wavs)])
    layers = encoder.layer_outputs(wavs_BL, lengths_B)
    hook.remove()
    return [*layers, *outputs]


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_a_clip_has_the_same_hidden_states_alone_and_in_any_batch(name, training):
    brain, wavs = make_brain(name), clips()
    brain.modules.train(training)
    alone = [encode(brain, [wav]) for wav in wavs]
    assert len(alone[0]) == 3
    for order in [(0, 1, 2), (2, 0, 1), (2, 0)]:
        together = encode(brain, [wavs[index] for index in order])
        for place, index in enumerate(order):
            frames = brain.modules["encoder"].count_frames(LENGTHS[index])
            for ours, expected in zip(together, alone[index], strict=True):
                assert ours.isfinite().all() and expected.shape[1] == frames
                difference = (ours[place, :frames] - expected[0]).abs().max()
                assert difference <= 1e-5, f"clip {index} of {order}"


@pytest.mark.parametrize("name", [n for n in RECIPES if "online" not in n])  # theirs are of layers
@torch.no_grad()
def test_a_clip_has_the_same_codes_alone_and_in_any_batch(name):
    brain, wavs = make_brain(name), clips()
    brain.modules.eval()
    encoder = brain.modules["encoder"]
    together_BSI, frames_B = encoder.quantiser_inputs(
        pad_sequence(wavs, batch_first=True), torch.tensor(LENGTHS)
    )
    for index, wav in enumerate(wavs):
        x_1SI, (frames,) = brain.modules["encoder"].quantiser_inputs(
            wav[None], torch.tensor([len(wav)])
        )
        assert frames == frames_B[index]
        ours, expected = together_BSI[index, :frames], x_1SI[0, :frames]
        assert (ours - expected).abs().max() <= 1e-5
        codes, expected = (brain.quantiser.encode(x_SI[None]) for x_SI in (ours, expected))
        assert torch.equal(codes, expected)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_gradients_of_a_clip_are_the_same_alone_and_in_a_batch(name):
    brain, wavs = make_brain(name), clips()
    brain.modules.train()
    parameters = [*brain.modules["encoder"].parameters()]

    def gradients(wavs):
        output = encode(brain, wavs)[-1][0, : brain.modules["encoder"].count_frames(LENGTHS[0])]
        return torch.autograd.grad(output.sin().sum(), [*parameters, *wavs], allow_unused=True)

    beside = [wav.requires_grad_() for wav in wavs]
    *ours, of_clip, of_second, of_third = gradients(beside)
    *expected, of_clip_alone = gradients(beside[:1])
    assert not of_second.any() and not of_third.any() and of_clip.any()
    for gradient, same in zip([*ours, of_clip], [*expected, of_clip_alone], strict=True):
        assert (gradient is None) == (same is None)
        if gradient is not None:
            torch.testing.assert_close(gradient, same, rtol=1e-3, atol=1e-4)
