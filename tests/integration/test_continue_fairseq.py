"""A checkpoint of fairseq is continued, and its run goes on when the checkpoint is gone."""

import os
import shutil

import pytest
import tiny_fairseq
import torch
from tiny_continue import build, start

from brainquant.huggingface.library import import_transformers
from brainquant.recipe import load_run


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_a_run_begins_with_the_weights_and_goes_on_without_the_file(corpus, tmp_path, norm):
    content = tiny_fairseq.make_checkpoint("wav2vec2", norm, normalize=False)
    torch.save(content, path := tmp_path / "checkpoint.pt")
    run = tmp_path / "run"
    brain, hparams, _ = build("continue_wav2vec2", path, corpus, run)
    state, modules = content["model"], hparams["modules"]
    assert torch.equal(modules["quantiser"].vars, state["quantizer.vars"])
    assert torch.equal(modules["context_proj"].weight, state["final_proj.weight"])
    assert torch.equal(modules["encoder"].model.masked_spec_embed, state["mask_emb"])
    assert not modules["encoder"].do_normalize
    assert start("continue_wav2vec2", path, corpus, run).optimizer_step == 1
    os.remove(path)
    transformers = import_transformers()
    kept = next((run / "needed").glob("*/"))
    assert transformers.AutoConfig.from_pretrained(kept).num_hidden_layers == 2
    assert not transformers.AutoFeatureExtractor.from_pretrained(kept).do_normalize
    brain = start("continue_wav2vec2", path, corpus, run, optimizer_step_limit=2)
    assert brain.optimizer_step == 2
    moved, _ = load_run(shutil.move(run, tmp_path / "moved"))
    for name, tensor in brain.modules.state_dict().items():
        assert torch.equal(moved.modules.state_dict()[name], tensor), name
    assert not moved.modules["encoder"].do_normalize


def test_a_finetuned_checkpoint_has_no_quantiser_to_continue_with(corpus, tmp_path):
    torch.save(tiny_fairseq.make_finetuned(), path := tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match=f"{path} has no quantiser, as after fine-tuning"):
        build("continue_wav2vec2", path, corpus, tmp_path / "run")


def test_a_tensor_of_another_size_is_one_line(corpus, tmp_path):
    content = tiny_fairseq.make_checkpoint()
    content["model"]["project_q.weight"] = torch.zeros(5, 4)
    torch.save(content, path := tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match=f"of {path} do not fit.*: project_q.weight") as refused:
        build("continue_wav2vec2", path, corpus, tmp_path / "run")
    assert "\n" not in str(refused.value)
