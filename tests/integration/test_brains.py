"""The Brains: annealing, safe steps, masks by place, and errors before the first step."""

import json
import math
from pathlib import Path

import pytest
import torch
from speechbrain import Stage
from speechbrain.dataio.batch import PaddedBatch

from brainquant.data.manifests import make_loaders
from brainquant.training.hparams import load_hparams, parse_arguments

RECIPES = Path(__file__).resolve().parents[2] / "recipes/ToySpeech/hparams"
TINY = {
    "best_rq": {"num_layers": 1, "d_model": 16, "cb_vocab": 32},
    "wav2vec2": {"num_layers": 1, "d_model": 16, "channels": 16, "num_negatives": 10},
}


@pytest.fixture
def make_brain(corpus, tmp_path):
    """Builds the Brain of a recipe, with a tiny model, and its hyperparameters."""

    def make(name, run_options="", **overrides):
        argv = [str(RECIPES / f"{name}.yaml"), "--noprogressbar", *run_options.split()]
        hparams_file, run_opts, from_command_line = parse_arguments(argv)
        overrides = {
            "data_folder": str(corpus), "output_folder": str(tmp_path), "train_loggers": [],
            "batch_seconds": 8, "num_buckets": 4, "warmup_steps": 2, **TINY[name], **overrides,
            **from_command_line,
        }  # fmt: skip
        hparams = load_hparams(hparams_file, overrides)
        brain = hparams["brain_class"](
            hparams["modules"], hparams["optimizer"], hparams, run_opts, hparams["checkpointer"]
        )
        return brain, hparams

    return make


def fit(brain, hparams):
    train_loader, valid_loader = make_loaders(hparams)
    brain.fit(hparams["epoch_counter"], train_loader, valid_loader)


def noise(seed, *lengths):
    generator = torch.manual_seed(seed)
    return PaddedBatch([{"sig": torch.randn(n, generator=generator)} for n in lengths])


@pytest.mark.parametrize(
    "name, fragment, num_codebooks",
    [
        ("best_rq", "random_projection_multi", 4),
        ("best_rq", "gumbel", 2),
        ("best_rq", "lookup_free", 1),
        ("wav2vec2", "vector", 2),
        ("wav2vec2", "finite_scalar", 1),
        ("wav2vec2", "lookup_free", 1),
        ("wav2vec2", "residual", 4),
    ],
)
def test_a_brain_trains_with_any_fragment_by_one_word(make_brain, name, fragment, num_codebooks):
    swap = f"--make_quantiser=!include:../../../hparams/quantisers/{fragment}.yaml"
    brain, hparams = make_brain(name, swap, optimizer_step_limit=3, log_interval=1)
    before = [parameter.clone() for parameter in brain.modules.parameters()]
    fit(brain, hparams)
    assert any(not torch.equal(old, new) for old, new in zip(before, brain.modules.parameters()))
    records = [json.loads(line) for line in open(brain.run_log.metrics_file, encoding="utf-8")]
    for record in records:
        assert len(record["code_perplexity"]) == num_codebooks and math.isfinite(record["loss"])
    if name == "best_rq":
        assert brain.raw("head").w.out_features == brain.quantiser.num_scores
    else:  # its own loss is part of what is minimised, and logged
        assert all(math.isfinite(record["aux_loss"]) for record in records)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_temperature_follows_optimiser_steps_only(make_brain, accumulation):
    brain, hparams = make_brain(
        "wav2vec2", optimizer_step_limit=3, grad_accumulation_factor=accumulation
    )
    seen = []
    forward = brain.quantiser.forward
    brain.quantiser.forward = lambda *a, **k: (
        seen.append((brain.optimizer_step, brain.quantiser.curr_temp)) or forward(*a, **k)
    )
    fit(brain, hparams)
    seen = seen[: 3 * accumulation]  # what follows is validation
    assert [step for step, _ in seen] == [i // accumulation for i in range(3 * accumulation)]
    assert [temp for _, temp in seen] == [2.0 * 0.999**step for step, _ in seen]


def test_update_temp_reaches_every_quantiser_among_the_modules(make_brain):
    brain, _ = make_brain("wav2vec2")

    class Holder(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.module = inner  # as DistributedDataParallel names what it wraps

    from speechbrain.nnet.quantisers import GumbelVectorQuantizer

    stock = GumbelVectorQuantizer(8, 4, (2.0, 0.25, 0.9), 2, 4)
    brain.modules["other"] = Holder(stock)
    brain.optimizer_step = 5
    brain.on_fit_batch_start(None, True)
    assert stock.curr_temp == pytest.approx(2.0 * 0.9**5)
    assert brain.quantiser.curr_temp == pytest.approx(2.0 * 0.999**5)


def test_all_parameter_groups_are_clipped_and_no_limit_means_none(make_brain):
    for limit, expected in [(0.5, 0.5), (0.0, 5.0), (-1, 5.0)]:
        brain, hparams = make_brain("best_rq", max_grad_norm=limit)
        first, second = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
        brain.optimizer = torch.optim.SGD([{"params": [first]}, {"params": [second]}], lr=1.0)
        hparams["lr_schedule"].base_lr = brain.hparams.lr_schedule.warmup = 1.0
        first.grad, second.grad = torch.tensor([3.0]), torch.tensor([4.0])
        brain.optimizers_step()
        assert brain.grad_norm == pytest.approx(5.0)
        moved = torch.cat([first, second]).detach()
        torch.testing.assert_close(moved.norm().item(), expected, rtol=1e-4, atol=0)
        assert (moved < 0).all()  # down the gradient


def test_a_gradient_that_is_not_finite_never_reaches_the_parameters(make_brain):
    brain, hparams = make_brain("best_rq", optimizer_step_limit=50, nonfinite_patience=2)
    objectives = brain.compute_objectives
    brain.compute_objectives = lambda *arguments: (
        objectives(*arguments) * (math.nan if brain.optimizer_step >= 1 else 1.0)
    )
    with pytest.raises(ValueError, match="nonfinite_patience 2.*Try a lower lr"):
        fit(brain, hparams)
    assert brain.optimizer_step == 1
    assert all(torch.isfinite(p).all() for p in brain.modules.parameters())


def test_masks_differ_by_batch_and_epoch_and_are_drawn_again_alike(make_brain):
    brain, hparams = make_brain("best_rq")
    draws = {}
    for epoch, step in [(1, 1), (1, 2), (2, 1), (1, 1)]:
        hparams["epoch_counter"].current, brain.step = epoch, step
        draws.setdefault((epoch, step), []).append(
            torch.rand(4, generator=brain.generator(Stage.TRAIN)).tolist()
        )
    assert draws[1, 1][0] == draws[1, 1][1]
    assert len({tuple(values[0]) for values in draws.values()}) == 3
    # Validation draws the same in each epoch.
    valid = torch.rand(4, generator=brain.generator(Stage.VALID))
    hparams["epoch_counter"].current = 7
    assert torch.equal(valid, torch.rand(4, generator=brain.generator(Stage.VALID)))


def test_codes_of_a_clip_do_not_depend_on_the_clips_beside_it(make_brain):
    brain, _ = make_brain("best_rq")
    lengths = [16000, 40000, 23456, 40017]
    codes = {}
    for group in ([0], [1], [2], [3], [0, 1, 2, 3]):
        clips = [noise(i, lengths[i]).sig.data[0] for i in group]
        batch = PaddedBatch([{"sig": clip} for clip in clips])
        feats, frames = brain.features(*brain.waveforms(batch))
        found = brain.quantiser.encode(feats.unflatten(1, (-1, 4)).flatten(2))
        for row, index in enumerate(group):
            codes.setdefault(index, []).append(found[row, : frames[row] // 4, 0])
    for alone, beside in codes.values():
        assert torch.equal(alone, beside)


@pytest.mark.parametrize("name", ["best_rq", "wav2vec2"])
def test_logits_are_for_masked_frames_of_valid_speech_only(make_brain, name):
    brain, hparams = make_brain(name)
    batch, lengths = noise(0, 80000, 24000), (80000, 24000)
    brain.step = 1
    predictions = brain.compute_forward(batch, Stage.VALID)
    if name == "best_rq":
        logits, codes, seen = predictions
        assert len(logits) == len(codes) == int(seen["masked"]) // 4
        valid = sum(n // 160 + 1 for n in lengths)
    else:
        seen, counts = predictions["seen"], predictions["counts_B"]
        assert predictions["context_BMD"].shape[:2] == (2, int(counts.max()))
        valid = sum(brain.count_frames(n) for n in lengths)
    assert int(seen["valid"]) == valid
    assert int(seen["masked"]) / valid == pytest.approx(hparams["mask_ratio"], abs=0.05)


@pytest.mark.parametrize(
    "name, overrides, message",
    [
        ("best_rq", {"quantiser": {"input_dim": 80}}, "80 features x stack 4 = 320.*is 80"),
        ("best_rq", {"stack": 2}, "front_end and stack do not fit"),
        ("best_rq", {"head": {"n_neurons": 7}}, "7 scores for 1 x 32 codes"),
        ("best_rq", {"mask_ratio": 1.5}, "mask_ratio must be"),
        ("wav2vec2", {"quantiser": {"input_dim": 80}}, "gives 16 channels.*is 80"),
        ("wav2vec2", {"target_proj": {"in_features": 3}}, "vq_dim is 128, in_features.*3"),
        ("wav2vec2", {"make_quantiser": {"vq_dim": 33}}, "vq_dim must be a multiple of groups"),
        ("wav2vec2", {"make_quantiser": {"temp_tuple": [0.5, 2.0, 0.9]}}, "start >= stop > 0"),
        (
            "wav2vec2",
            {"quantiser": None, "target_proj": {"in_features": 128}},
            "must be a brainquant Quantiser, got NoneType",
        ),
        ("wav2vec2", {"quantiser": None}, "no attribute 'vq_dim'"),
    ],
)
def test_sizes_that_do_not_fit_are_named_before_the_first_step(
    make_brain, name, overrides, message
):
    with pytest.raises(ValueError, match=message):
        make_brain(name, **overrides)


def test_an_accumulation_longer_than_an_epoch_is_refused(make_brain):
    brain, hparams = make_brain("best_rq", grad_accumulation_factor=1000)
    with pytest.raises(ValueError, match="grad_accumulation_factor is 1000, but an epoch has"):
        fit(brain, hparams)
