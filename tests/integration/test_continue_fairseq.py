"""A checkpoint of fairseq is continued, and its run goes on when the checkpoint is gone."""

import os
import shutil

import pytest
import tiny_fairseq
import torch
from tiny_continue import start
from tiny_run import build

from brainquant.huggingface.library import import_transformers
from brainquant.publishing.to_transformers import export_to_transformers
from brainquant.recipe import load_run

ONE_STEP = {"optimizer_step_limit": 1, "warmup_steps": 1, "cooldown_steps": 1, "num_workers": 0}
TWO_STEPS = {**ONE_STEP, "optimizer_step_limit": 2}


def test_a_run_begins_with_the_weights_and_goes_on_without_the_file(corpus, tmp_path):
    content = tiny_fairseq.make_checkpoint("wav2vec2", normalize=False)
    torch.save(content, path := tmp_path / "checkpoint.pt")
    run = tmp_path / "run"
    _, hparams = build("continue_wav2vec2", corpus, run, model=str(path))
    state, modules = content["model"], hparams["modules"]
    assert torch.equal(modules["quantiser"].vars, state["quantizer.vars"])
    assert torch.equal(modules["context_proj"].weight, state["final_proj.weight"])
    assert torch.equal(modules["encoder"].model.masked_spec_embed, state["mask_emb"])
    assert not modules["encoder"].do_normalize
    brain, _ = start("continue_wav2vec2", path, corpus, run, **ONE_STEP)
    assert brain.optimizer_step == 1
    os.remove(path)
    transformers = import_transformers()
    kept = next((run / "needed").glob("*/"))
    assert transformers.AutoConfig.from_pretrained(kept).num_hidden_layers == 2
    assert not transformers.AutoFeatureExtractor.from_pretrained(kept).do_normalize
    brain, _ = start("continue_wav2vec2", path, corpus, run, **TWO_STEPS)
    assert brain.optimizer_step == 2
    moved, _ = load_run(run := shutil.move(run, tmp_path / "moved"))
    for name, tensor in brain.modules.state_dict().items():
        assert torch.equal(moved.modules.state_dict()[name], tensor), name
    assert not moved.modules["encoder"].do_normalize
    export_to_transformers(run, back := tmp_path / "back")
    model = transformers.Wav2Vec2ForPreTraining.from_pretrained(back)
    assert torch.equal(model.project_q.weight, brain.raw("target_proj").weight)
    assert not transformers.AutoFeatureExtractor.from_pretrained(back).do_normalize


@pytest.mark.parametrize(
    ("make", "layer"), [(tiny_fairseq.make_checkpoint, None), (tiny_fairseq.make_finetuned, 1)]
)
def test_masked_prediction_begins_with_hubert_and_goes_on_without_the_file(
    corpus, tmp_path, make, layer
):
    torch.save(make("hubert", normalize=False), path := tmp_path / "checkpoint.pt")
    targets = {"target_layer": layer, "make_quantiser": {"cb_dim": 4}}
    folder = tmp_path / "run"
    brain, _ = start("continue_masked", path, corpus, folder, **targets, **ONE_STEP)
    assert brain.optimizer_step == 1 and not brain.raw("encoder").do_normalize
    os.remove(path)
    brain, _ = start("continue_masked", path, corpus, folder, **targets, **TWO_STEPS)
    moved, _ = load_run(shutil.move(folder, tmp_path / "moved"))
    for name, tensor in brain.modules.state_dict().items():
        assert torch.equal(moved.modules.state_dict()[name], tensor), name
    assert brain.optimizer_step == 2 and not moved.modules["encoder"].do_normalize


def test_a_finetuned_checkpoint_has_no_quantiser_to_continue_with(corpus, tmp_path):
    torch.save(tiny_fairseq.make_finetuned(), path := tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match=f"{path} has no quantiser, as after fine-tuning"):
        build("continue_wav2vec2", corpus, tmp_path / "run", model=str(path))


def test_a_tensor_of_another_size_is_one_line(corpus, tmp_path):
    content = tiny_fairseq.make_checkpoint()
    content["model"]["project_q.weight"] = torch.zeros(5, 4)
    torch.save(content, path := tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match=f"of {path} do not fit.*: project_q.weight") as refused:
        build("continue_wav2vec2", corpus, tmp_path / "run", model=str(path))
    assert "\n" not in str(refused.value)
