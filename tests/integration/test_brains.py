"""The Brains: annealing, safe steps, masks by place, and errors before the first step."""

import functools
import json
import math
from types import SimpleNamespace

import pytest
import torch
from speechbrain import Stage
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.lobes.models.transformer.Conformer import ConvolutionModule
from speechbrain.utils.checkpoints import Checkpointer
from tiny_run import build, fit, run

from brainquant.data.batches import AudioBatch, make_loaders
from brainquant.errors import RunError
from brainquant.models import BestRQEncoder


@pytest.fixture
def make_brain(corpus, tmp_path):
    """Builds the Brain of a recipe, with a tiny model, and its hyperparameters."""
    return lambda name, *args, **overrides: build(name, corpus, tmp_path, *args, **overrides)


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


@pytest.mark.parametrize("quick", [True, False])
def test_layers_stay_speechbrains_where_asked(make_brain, quick):
    brain, _ = make_brain("best_rq", quick_layers=quick)
    kinds = {type(part) for part in brain.modules.modules()}
    assert (ConvolutionModule in kinds) == (not quick)


@pytest.mark.parametrize("normalise", [True, False])
def test_targets_are_normalised_over_each_utterance_where_asked(make_brain, normalise):
    brain, _ = make_brain("wav2vec2", normalise_targets=normalise)
    brain.modules.eval()
    batch, seen = noise(0, 16000, 12000), []
    x_BTC, frames_B = brain.raw("encoder").quantiser_inputs(*brain.waveforms(batch))
    assert frames_B[1] < frames_B[0]
    for x_TC, frames in zip(x_BTC, frames_B):
        mean_C, std_C = x_TC[:frames].mean(0), x_TC[:frames].std(0, unbiased=False)
        zero, one = torch.zeros_like(mean_C), torch.ones_like(std_C)
        assert torch.allclose(mean_C, zero, atol=1e-4) == normalise
        assert torch.allclose(std_C, one, atol=0.01) == normalise
    brain.modules["quantiser"].register_forward_pre_hook(lambda _, args: seen.append(args[0][0]))
    brain.compute_forward(batch, Stage.VALID)
    distances_NM = torch.cdist(seen[0].double(), x_BTC.flatten(0, 1).double())
    assert len(seen[0]) and distances_NM.min(1).values.max() < 1e-3  # in training the same


def test_wav2vec_takes_clips_beyond_the_table_of_positions(make_brain):
    brain, _ = make_brain("wav2vec2", channels=4, extractor={"out_channels": [4] * 7})
    batch = noise(0, 51 * 16000)
    assert (
        brain.raw("encoder").count_frames(51 * 16000)
        > brain.modules["encoder"].transformer.positional_encoding.max_len
    )
    loss = brain.compute_objectives(brain.compute_forward(batch, Stage.VALID), batch, Stage.VALID)
    loss.backward()
    assert loss.isfinite()


@pytest.mark.parametrize("name, samples", [("best_rq", 100), ("best_rq", 1), ("wav2vec2", 100)])
def test_a_clip_of_a_few_samples_has_a_frame_or_is_refused(make_brain, name, samples):
    brain, _ = make_brain(name)
    brain.modules.eval()
    wavs_BL, lengths_B = torch.randn(1, samples), torch.tensor([samples])
    if brain.raw("encoder").count_frames(samples) > 0:
        assert brain.modules.encoder(wavs_BL, lengths_B).hidden_BTD.isfinite().all()
    else:
        with pytest.raises(ValueError, match="sees 641 samples, but the longest clip has 100"):
            brain.modules.encoder(wavs_BL, lengths_B)


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
    brain.on_optimizer_step()
    assert stock.curr_temp == pytest.approx(2.0 * 0.9**5)
    assert brain.quantiser.curr_temp == pytest.approx(2.0 * 0.999**5)


@pytest.mark.parametrize(
    "name, keys",
    [
        ("best_rq", "quantiser head"),
        pytest.param("best_rq", "quantiser encoder head", marks=pytest.mark.slow),
        pytest.param("wav2vec2", "quantiser target_proj context_proj", marks=pytest.mark.slow),
    ],
)
def test_compiled_modules_train_as_those_that_are_not(corpus, tmp_path, monkeypatch, name, keys):
    # Without a C++ compiler; what the graphs hold is what the default backend gets.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    losses = []
    for options in ("", f"--compile_using_dynamic_shape_tracing --compile_module_keys {keys}"):
        folder = tmp_path / str(len(losses))
        brain, trace = run(name, corpus, folder, run_options=options, optimizer_step_limit=2)
        losses.append([loss for *_, loss in trace])
    compiled = [name for name, module in brain.modules.items() if hasattr(module, "_orig_mod")]
    assert sorted(compiled) == sorted(keys.split()) and len(losses[1]) == 2
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("what", ["the loss", "a gradient"])
def test_what_is_not_finite_never_reaches_parameters_or_buffers(make_brain, tmp_path, what):
    brain, hparams = make_brain("best_rq", optimizer_step_limit=50, nonfinite_patience=2)
    brain.modules["norm"] = norm = torch.nn.BatchNorm1d(1)
    objectives, clips = brain.compute_objectives, []

    def breaking(predictions, batch, stage):
        loss = objectives(predictions, batch, stage)
        if brain.optimizer_step < 1:
            return loss
        clips.append(batch.id)
        norm(torch.full((2, 1), math.nan))
        if what == "the loss":
            return loss + torch.tensor(math.inf)  # whose gradients alone would be finite
        return loss + (loss - loss.detach()).abs().sqrt()  # infinite gradient

    brain.compute_objectives = breaking
    with pytest.raises(RunError, match=f"{what} is not finite.*nonfinite_patience 2.*Try a lower"):
        fit(brain, hparams)
    assert brain.steps.nonfinite_in_a_row == 3
    assert all(torch.isfinite(t).all() for t in brain.modules.state_dict().values())
    lines = (tmp_path / "left_out.jsonl").read_text("utf-8").splitlines()
    # They are told of when they are read; the third ends the run, whatever came after it.
    assert [json.loads(line)["ids"] for line in lines] == [[ids] for ids in clips[:3]]
    assert [json.loads(line)["step"] for line in lines] == [2, 3, 4]
    assert {json.loads(line)["reason"] for line in lines} == {f"{what} is not finite"}


def test_the_end_of_an_epoch_is_given_the_mean_loss_of_its_batches(make_brain, monkeypatch):
    brain, hparams = make_brain("best_rq", number_of_epochs=2, batch_seconds=8)
    losses, given, objectives = [[]], [], brain.compute_objectives
    on_stage_end = brain.on_stage_end

    def kept(predictions, batch, stage):
        loss = objectives(predictions, batch, stage)
        if stage == Stage.TRAIN:
            losses[-1].append(loss.item())
        # The loss of the second batch counts for nothing.
        return loss if len(losses[-1]) != 2 else loss * math.nan

    def ended(stage, stage_loss, epoch=None):
        if stage == Stage.TRAIN:
            given.append(stage_loss)
            losses.append([])
        on_stage_end(stage, stage_loss, epoch)

    monkeypatch.setattr(brain, "compute_objectives", kept)
    monkeypatch.setattr(brain, "on_stage_end", ended)
    fit(brain, hparams)
    finite = [[loss for i, loss in enumerate(of_epoch) if i != 1] for of_epoch in losses[:-1]]
    assert len(given) == 2 and all(map(len, finite))
    assert given == pytest.approx([sum(of_epoch) / len(of_epoch) for of_epoch in finite])


def test_only_steps_in_a_row_that_are_not_finite_end_a_run(make_brain):
    brain, hparams = make_brain("best_rq", optimizer_step_limit=6, nonfinite_patience=1)
    objectives, count = brain.compute_objectives, 0

    def every_second(predictions, batch, stage):
        nonlocal count
        count += 1
        return objectives(predictions, batch, stage) * (math.nan if count % 2 else 1.0)

    brain.compute_objectives = every_second
    fit(brain, hparams)
    assert brain.optimizer_step == 6


def test_fp16_finding_its_scale_is_no_fault_but_a_loss_is(make_brain, tmp_path):
    brain, hparams = make_brain("best_rq", optimizer_step_limit=3, nonfinite_patience=1)
    # 2 to the power of 130 is beyond float32: the first gradients overflow, not the losses.
    brain.scaler = torch.GradScaler("cpu", init_scale=2.0**126, backoff_factor=2.0**-30)
    brain.compute_objectives = scaled(brain.compute_objectives, 2.0**10)
    fit(brain, hparams)
    assert brain.optimizer_step == 3 and brain.scaler.get_scale() < 2.0**126
    assert not (tmp_path / "left_out.jsonl").exists()
    brain, hparams = make_brain("best_rq", optimizer_step_limit=6, nonfinite_patience=1)
    brain.scaler = torch.GradScaler("cpu", init_scale=2.0**16)
    brain.compute_objectives = scaled(brain.compute_objectives, math.inf)
    with pytest.raises(RunError, match="the loss is not finite"):
        fit(brain, hparams)


def scaled(objectives, factor):
    return lambda predictions, batch, stage: objectives(predictions, batch, stage) * factor


@pytest.mark.parametrize("name", ["best_rq", "wav2vec2", "online_codebooks"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_batch_without_clips_and_silence_leave_everything_finite(make_brain, name, precision):
    brain, hparams = make_brain(name, precision=precision)
    nothing = AudioBatch([], placeholder_samples=16000)
    brain.place.sampler, brain.step = SimpleNamespace(start=0, total=1), 1
    hparams["epoch_counter"].current = 1
    brain.setup = None  # no fit
    brain.init_optimizers()
    before = [p.clone() for p in brain.modules.parameters()]
    brain.optimizer.param_groups[0]["weight_decay"] = 0.0
    assert torch.isfinite(brain.fit_batch(nothing))
    brain.steps.read()
    assert brain.steps.grad_norm == 0.0 and brain.optimizer_step == 1
    assert all(map(torch.equal, before, brain.modules.parameters()))
    assert all(float(v) == 0 for v in brain.tally.window.values.values())
    silence = AudioBatch([{"id": "s", "sig": torch.zeros(48000)}], placeholder_samples=1)
    assert torch.isfinite(brain.fit_batch(silence))
    brain.steps.read()
    assert math.isfinite(brain.steps.grad_norm) and brain.optimizer_step == 2
    assert all(p.isfinite().all() for p in brain.modules.parameters())


def test_masks_differ_by_batch_and_epoch_and_are_drawn_again_alike(make_brain):
    brain, hparams = make_brain("best_rq")
    draws = {}
    for epoch, step in [(1, 1), (1, 2), (2, 1), (1, 1)]:
        hparams["epoch_counter"].current, brain.step = epoch, step
        brain.place.sampler = SimpleNamespace(start=0)
        draws.setdefault((epoch, step), []).append(
            torch.rand(4, generator=brain.generators(Stage.TRAIN)[0]).tolist()
        )
    assert draws[1, 1][0] == draws[1, 1][1]
    assert len({tuple(values[0]) for values in draws.values()}) == 3
    # Validation draws the same in each epoch.
    valid = torch.rand(4, generator=brain.generators(Stage.VALID)[0])
    hparams["epoch_counter"].current = 7
    assert torch.equal(valid, torch.rand(4, generator=brain.generators(Stage.VALID)[0]))


def test_codes_of_a_clip_do_not_depend_on_the_clips_beside_it(make_brain):
    brain, _ = make_brain("best_rq")
    lengths = [16000, 40000, 23456, 40017]
    codes = {}
    for group in ([0], [1], [2], [3], [0, 1, 2, 3]):
        clips = [noise(i, lengths[i]).sig.data[0] for i in group]
        batch = PaddedBatch([{"sig": clip} for clip in clips])
        feats, frames = brain.modules.encoder.features(*brain.waveforms(batch))
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
        (masked, unmasked), seen = predictions
        valid = sum(n // 160 + 1 for n in lengths)
        whole = sum((n // 160 + 1) // 4 for n in lengths)
        assert [len(x) for x in masked] == [int(seen["masked"]) // 4] * 2
        assert [len(x) for x in unmasked] == [whole - len(masked[0])] * 2
    else:
        seen, counts = predictions["seen"], predictions["counts_B"]
        assert predictions["context_BMD"].shape[:2] == (2, int(counts.max()))
        valid = sum(brain.raw("encoder").count_frames(n) for n in lengths)
    assert int(seen["valid"]) == valid
    assert int(seen["masked"]) / valid == pytest.approx(hparams["mask_ratio"], abs=0.05)


def test_negatives_with_the_codes_of_their_target_are_left_out_where_asked(make_brain):
    records, batch = {}, noise(0, 48000, 16000)
    for same in ("keep", "leave_out"):
        only = {"aux_weight": 0, "penalty_weight": 0, "make_quantiser": {"num_vars": 2}}
        brain, _ = make_brain("wav2vec2", same_code_negatives=same, **only)
        brain.step = 1
        predictions = brain.compute_forward(batch, Stage.VALID)
        loss = brain.compute_objectives(predictions, batch, Stage.VALID)
        records[same] = record = brain.tally.end(Stage.VALID, 1)
        assert record["loss"] == pytest.approx(loss.item(), rel=1e-5)
    keep, leave_out = records["keep"], records["leave_out"]
    assert keep["chance_loss"] == math.log(11)
    assert leave_out["loss"] < keep["loss"] and leave_out["chance_loss"] < math.log(11) - 0.1
    assert leave_out["accuracy"] == keep["accuracy"]
    # With equal scores the loss is chance.
    predictions["context_BMD"] = torch.zeros_like(predictions["context_BMD"])
    loss = brain.compute_objectives(predictions, batch, Stage.VALID)
    assert loss.item() == pytest.approx(leave_out["chance_loss"], rel=1e-5)


def test_the_weight_adds_the_loss_of_the_codes_that_are_seen(make_brain):
    def objective(weight):
        brain, _ = make_brain("best_rq", unmasked_weight=weight)
        batch = noise(0, 48000, 16000)
        brain.step = 1
        predictions = brain.compute_forward(batch, Stage.VALID)
        loss = brain.compute_objectives(predictions, batch, Stage.VALID)
        return loss, *predictions[0], brain.tally.end(Stage.VALID, 1)

    plain, (logits, codes), record = objective(0)
    masked = torch.nn.functional.cross_entropy(logits[:, 0], codes[:, 0])
    torch.testing.assert_close(plain, masked)
    assert "unmasked_loss" not in record

    loss, _, (logits, codes), weighted = objective(0.25)
    unmasked = torch.nn.functional.cross_entropy(logits[:, 0], codes[:, 0])
    torch.testing.assert_close(loss, masked + 0.25 * unmasked)
    assert weighted["unmasked_loss"] == pytest.approx(unmasked.item(), rel=1e-5)
    # Loss, accuracy and codes that are logged are those of masked frames, whatever the weight.
    same = {"loss", "accuracy", "code_perplexity_sum", "unigram_loss"}
    assert all(weighted[key] == pytest.approx(record[key], rel=1e-5, nan_ok=True) for key in same)


@pytest.mark.parametrize(
    "name, overrides, message",
    [
        ("best_rq", {"quantiser": {"input_dim": 80}}, "80 features x stack 4 = 320.*is 80"),
        ("best_rq", {"stack": 2}, "front_end and stack do not fit"),
        ("best_rq", {"head": {"n_neurons": 7}}, "7 scores for 1 x 32 codes"),
        ("best_rq", {"mask_ratio": 1.5}, "mask_ratio must be"),
        ("best_rq", {"unmasked_weight": -1}, "unmasked_weight must be a number from 0 up, got -1"),
        ("best_rq", {"max_bad_audio": "0.1 %"}, "max_bad_audio must be a number from 0 to 1"),
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


def test_a_quantiser_is_fitted_to_the_corpus_once_before_the_first_step(make_brain, tmp_path):
    brain, hparams = make_brain("best_rq", optimizer_step_limit=1)
    before = brain.quantiser.CB.clone()
    assert brain.quantiser.frames_to_fit
    fit(brain, hparams)
    loader, _ = make_loaders(hparams, min_samples=brain.min_samples)
    brain.modules.eval()
    frames = []
    for clip in loader.dataset:
        x_BTI, frames_B = brain.raw("encoder").quantiser_inputs(
            *brain.waveforms(PaddedBatch([clip]))
        )
        frames.append(x_BTI[0, : frames_B[0]])
    white = torch.cat(frames) @ brain.quantiser.P + brain.quantiser.shift
    torch.testing.assert_close(white.mean(0), torch.zeros(8), atol=1e-3, rtol=0)
    torch.testing.assert_close(white.T.cov(), torch.eye(8), atol=1e-2, rtol=0)
    assert torch.equal(brain.quantiser.CB, before)

    again, hparams = make_brain("best_rq", optimizer_step_limit=2)
    again.quantiser.fit = None  # what the checkpoint has is taken
    fit(again, hparams)
    assert torch.equal(again.quantiser.P, brain.quantiser.P)


def test_a_corpus_that_a_quantiser_cannot_be_fitted_to_is_named(make_brain, monkeypatch):
    brain, hparams = make_brain("best_rq", make_quantiser={"cb_dim": 300}, noise_std=0.0)
    monkeypatch.setattr(
        BestRQEncoder, "quantiser_inputs", lambda *_: (torch.ones(1, 9, 320), torch.tensor([9]))
    )
    with pytest.raises(RunError, match="cannot be fitted to train_csv: .* frames are all equal"):
        fit(brain, hparams)


def test_a_checkpointer_that_a_kill_can_break_is_refused(make_brain, tmp_path):
    brain, hparams = make_brain("best_rq")
    stock = Checkpointer(tmp_path)
    with pytest.raises(ValueError, match="checkpointer: speechbrain.*!new:brainquant.training"):
        type(brain)(hparams["modules"], hparams["optimizer"], hparams, {}, stock)
