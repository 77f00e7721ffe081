"""A run of SpeechBrain's own recipes is continued: with its weights, its tables, its statistics."""

import os
import shutil

import pytest
import torch
import torch.nn.functional as F
from speechbrain import Stage
from speechbrain.dataio.batch import PaddedBatch
from tiny_continue import start
from tiny_run import assert_equal_runs, build, run, state
from tiny_speechbrain import RECIPES, save_run

from brainquant.inference import load_pretrained
from brainquant.publishing.export import export
from brainquant.recipe import load_encoder, load_run

CLIP = torch.randn(160 * 99, generator=torch.Generator().manual_seed(1))  # 100 feature frames
BATCH = PaddedBatch([{"id": "clip", "sig": CLIP}])
OPTIONS = {
    "continue_best_rq": {"noise_std": 0.0, "noise_mean": 0.3},
    "continue_speechbrain_wav2vec2": {
        "aux_weight": 0.0, "num_negatives": 10, "same_code_negatives": "leave_out",
    },
}  # fmt: skip


def validate(brain, mask_T):
    """What the Brain predicts of the clip with a mask, and its loss."""
    brain.modules.eval()
    brain.draw_mask = lambda *_, **__: mask_T[None]
    with torch.no_grad():
        predictions = brain.compute_forward(BATCH, Stage.VALID)
        return predictions, brain.compute_objectives(predictions, BATCH, Stage.VALID)


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("norm_type", ["sentence", "global"])
def test_the_first_loss_of_best_rq_is_that_of_the_recipe(corpus, tmp_path, norm_type, streaming):
    """The forward of the recipe's train.py, which pads on the left; this clip needs no padding."""
    name = "continue_best_rq"
    stock = save_run(tmp_path / "then", name, norm_type, streaming)
    mask = torch.tensor([*range(8, 20), *range(40, 48)])
    feats = stock["normalize"](stock["compute_features"](CLIP[None]), torch.ones(1), epoch=3)
    mask_idx = mask[::4] // 4
    targets = stock["Quantizer"](feats.view(1, 25, 320)[:, mask_idx])
    feats[:, mask] = 0.3
    chunks = stock["dynchunktrain_config_sampler"](Stage.VALID) if streaming else None
    encoded = stock["wrapper"](stock["CNN"](feats), torch.ones(1), dynchunktrain_config=chunks)
    logits = stock["linear"](encoded)[:, mask_idx]
    loss = F.cross_entropy(logits[0], targets[0])

    brain, _ = build(name, corpus, tmp_path / "now", model=str(tmp_path / "then"), **OPTIONS[name])
    (((ours_NGV, codes_NG),), _), our_loss = validate(
        brain, torch.zeros(100).index_fill(0, mask, 1) > 0
    )
    torch.testing.assert_close(ours_NGV[:, 0], logits[0], atol=1e-5, rtol=1e-4)
    assert torch.equal(codes_NG[:, 0], targets[0])
    torch.testing.assert_close(our_loss, loss, atol=1e-5, rtol=1e-5)


def test_the_first_loss_of_wav2vec2_is_that_of_the_recipe(corpus, tmp_path):
    """The forward of the recipe's train_sb_wav2vec2.py, with our negatives."""
    name = "continue_speechbrain_wav2vec2"
    stock = save_run(tmp_path / "then", name)
    brain, _ = build(name, corpus, tmp_path / "now", model=str(tmp_path / "then"), **OPTIONS[name])
    modules = stock["modules"]
    with torch.no_grad():
        latents = modules["latent_extractor"](F.layer_norm(CLIP, CLIP.shape)[None], False)
        mask = torch.zeros(latents.shape[:2], dtype=torch.bool)
        mask[:, 5:25] = True
        results = modules["latent_encoder"](latents, mask=mask, wav_lens=torch.ones(1))
        embeddings = modules["feat_proj"](results["embeddings"][mask])[None]
        targets, _ = modules["target_quantiser"](latents[mask][None])
        ours, our_loss = validate(brain, mask[0])
        # SpeechBrain drops negatives that equal the positive, to the last bit.
        same_NN = torch.cdist(targets[0], targets[0]) < 1e-5
        targets = targets[:, same_NN.int().argmax(1)]
        negatives = targets[0][ours["negatives_BMK"][0]].permute(1, 0, 2)[:, None]
        loss, _ = stock["loss"](embeddings, targets, negatives)
    torch.testing.assert_close(ours["context_BMD"], embeddings, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours["targets_BMD"], targets, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(our_loss, loss / 20, atol=1e-4, rtol=1e-4)
    assert brain.quantiser.curr_temp == 0.25
    brain.quantiser.update_temp(10**6)
    assert brain.quantiser.curr_temp == 0.25


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_goes_on_to_the_last_bit_when_the_first_one_is_gone(corpus, tmp_path, name):
    save_run(then := tmp_path / "then", name)
    steps = {"optimizer_step_limit": 4, "min_seconds": 0.5, "valid_csv": None}
    whole, trace = run(name, corpus, tmp_path / "whole", model=str(then), **steps)
    folder = tmp_path / "now"
    _, before = start(name, then, corpus, folder, interrupt="SIGTERM", at=2, **steps)
    shutil.rmtree(then)
    brain, after = run(name, corpus, folder, model=str(then), **steps)
    assert before + after == trace and len(before) == 2
    assert_equal_runs(state(brain), state(whole))

    moved, _ = load_run(shutil.move(folder, folder := tmp_path / "moved"))
    clip = CLIP[None], torch.tensor([len(CLIP)])
    hidden_BTD = moved.modules["encoder"](*clip).hidden_BTD
    exported = export(folder, tmp_path / "exported")
    assert torch.equal(exported(*clip).hidden, hidden_BTD)
    assert torch.equal(
        exported.codes(*clip).codes_BTG, load_pretrained(folder).codes(*clip).codes_BTG
    )
    assert torch.equal(load_encoder(folder).eval()(*clip).hidden_BTD, hidden_BTD)


def test_global_statistics_and_the_tables_stay_in_training(corpus, tmp_path):
    stock = save_run(tmp_path / "then", "continue_best_rq", "global")
    options = {"optimizer_step_limit": 1, "model": str(tmp_path / "then")}
    brain, _ = run("continue_best_rq", corpus, tmp_path / "now", warmup_steps=1, **options)
    normalize, quantiser = brain.raw("encoder").normalize, brain.quantiser
    assert torch.equal(normalize.glob_mean, stock["normalize"].glob_mean)
    assert torch.equal(normalize.glob_std, stock["normalize"].glob_std)
    assert int(normalize.count) == stock["normalize"].count > 0
    assert torch.equal(quantiser.P, stock["Quantizer"].P)
    assert torch.equal(quantiser.CB, stock["Quantizer"].CB)


@pytest.mark.parametrize("name", RECIPES)
def test_a_checkpoint_that_was_cut_short_is_passed_over(corpus, tmp_path, name, caplog):
    stock = save_run(then := tmp_path / "then", name)

    def weights():
        modules = build(name, corpus, tmp_path / "now", model=str(then))[1]["modules"]
        return torch.cat([p.detach().flatten() for p in modules["encoder"].parameters()])

    expected = weights()
    with torch.no_grad():
        for module in stock["modules"].values():
            for parameter in module.parameters():
                parameter.zero_()
    newest = stock["checkpointer"].save_checkpoint(name="cut")
    assert not weights().any()
    last = "linear" if name == "continue_best_rq" else "target_quantiser"
    path = newest.paramfiles[last]
    os.truncate(path, path.stat().st_size // 2)
    assert torch.equal(weights(), expected)
    assert f"CKPT+cut is no whole checkpoint ({last}.ckpt" in caplog.text
    shutil.rmtree(then / "save" / "CKPT+good")
    with pytest.raises(ValueError, match="no whole checkpoint in .*then/save"):
        weights()


@pytest.mark.parametrize("name", RECIPES)
def test_another_folder_is_one_line(corpus, tmp_path, name, pretrained_run):
    with pytest.raises(ValueError, match="model: .*nowhere is not the folder of .* no hyperparams"):
        build(name, corpus, tmp_path / "now", model=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="modules: have no .* begin_from: for a run of brainquant"):
        build(name, corpus, tmp_path / "now", model=str(pretrained_run("best_rq")))
    (other,) = set(RECIPES) - {name}
    save_run(tmp_path / "then", other)
    with pytest.raises(ValueError, match="model: .*then is not the folder of a run of SpeechBrain"):
        build(name, corpus, tmp_path / "now", model=str(tmp_path / "then"))


@pytest.mark.parametrize("frozen", [True, False])
def test_the_extractor_can_be_frozen(corpus, tmp_path, frozen):
    name = "continue_speechbrain_wav2vec2"
    save_run(tmp_path / "then", name)
    options = {"freeze_extractor": frozen, "gradient_scale": 0.5}
    brain, _ = build(name, corpus, tmp_path / "now", model=str(tmp_path / "then"), **options)
    extractor = brain.raw("encoder").extractor
    assert all(p.requires_grad is not frozen for p in extractor.parameters())
    assert extractor.gradient_scale == 0.5
