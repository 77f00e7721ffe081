"""In a Brain, codebooks that follow the frames move once a step, unless it is left out."""

import pytest
import torch
from tiny_run import build, fit, run

from brainquant import LibraryQuantizer, RefinedProjectionQuantizer

STEPS = 4


def options(fragment, more="--normalise_targets=True"):
    """A run of a few steps of two batches each."""
    swap = f"--make_quantiser=!include:../../../hparams/quantisers/{fragment}.yaml"
    return {
        "run_options": f"{swap} {more}", "num_workers": 0, "batch_clips": 4,
        "grad_accumulation_factor": 2, "optimizer_step_limit": STEPS,
    }  # fmt: skip


@pytest.mark.parametrize("nan_at", [(1,), (3,)], ids=["first", "second"])
def test_an_accumulated_step_is_one_update_and_a_bad_one_is_none(corpus, tmp_path, nan_at):
    brain, _ = run("wav2vec2", corpus, tmp_path, nan_at=nan_at, **options("vector"))
    quantiser = brain.raw("quantiser")
    assert brain.optimizer_step == STEPS
    assert int(quantiser.updates) == STEPS - len(nan_at)
    assert quantiser.gathered == [] and not quantiser.in_step
    assert quantiser.codebook.isfinite().all() and (quantiser.counts > 0).any()


def test_residual_codebooks_move_once_a_step(corpus, tmp_path, monkeypatch):
    moves, move = [], LibraryQuantizer.move

    def counted(self, gathered):
        moves.append(len(gathered))
        move(self, gathered)

    monkeypatch.setattr(LibraryQuantizer, "move", counted)
    brain, _ = run("wav2vec2", corpus, tmp_path, **options("residual"))
    assert moves == [2, 2, 1, 2]  # batches: the last step of an epoch has what is left
    assert all(layer._codebook.initted for layer in brain.raw("quantiser").library.layers)


def test_a_frozen_quantiser_stays_through_a_run(corpus, tmp_path):
    brain, hparams = build("wav2vec2", corpus, tmp_path, **options("vector"))
    quantiser = brain.raw("quantiser").requires_grad_(False)
    before = {name: value.clone() for name, value in quantiser.state_dict().items()}
    fit(brain, hparams)
    assert brain.optimizer_step == STEPS
    assert all(torch.equal(value, before[n]) for n, value in quantiser.state_dict().items())


def test_a_refinement_counts_the_valid_stacks_of_good_steps_only(corpus, tmp_path, monkeypatch):
    moves, move = [], RefinedProjectionQuantizer.move

    def counted(self, gathered):
        move(self, gathered)
        frames = sum(int(batch.valid_N.sum()) for batch in gathered)
        moves.append((len(gathered), frames, int(self.refined), int(self.counts.sum())))

    monkeypatch.setattr(RefinedProjectionQuantizer, "move", counted)
    tweak = '{"cb_vocab":32,"refine_steps":[2]}'
    brain, trace = run(  # the second step, of batches 3 and 4, is left out
        "best_rq", corpus, tmp_path, nan_at=(3,), **options("refined_projection", tweak)
    )
    batches, frames, refined, counts = zip(*moves)
    assert batches[:2] == (2, 2) and refined == (0, 1, 1)  # none moves after the last refinement
    assert counts == (frames[0], 0, 0) and brain.quantiser.refined == 1
    encoder, samples = brain.raw("encoder"), {c["id"]: len(c["sig"]) for c in brain.train_clips}
    stacks = {n: encoder.count_feature_frames(s) // encoder.stack for n, s in samples.items()}
    for step in range(2):
        ids = [clip for batch in trace[2 * step : 2 * step + 2] for clip in batch[2]]
        assert frames[step] == sum(stacks[clip] for clip in ids) > 100
