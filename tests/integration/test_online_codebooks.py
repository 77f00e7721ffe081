"""Online codebooks: targets of a teacher that follows the encoder, against the slow and obvious."""

import json
import logging
import re

import pytest
import torch
from speechbrain import Stage
from speechbrain.dataio.batch import PaddedBatch
from tiny_run import MODELS, assert_equal_runs, build, fit, hparams_of, run, run_on_ranks, state

from brainquant import load_pretrained
from brainquant.brains.masked_codes import mask_batch
from brainquant.errors import RunError
from brainquant.publishing.export import export
from brainquant.training.resolve import write_hparams
from brainquant.training.schedules import ema_decay

NAMES = ["online_codebooks", "online_codebooks_waveform"]
PLAIN = {"batch_clips": 4, "num_workers": 0}


@pytest.fixture
def make_brain(corpus, tmp_path):
    """Builds the Brain of a recipe, with a tiny model, and its hyperparameters."""
    return lambda name=NAMES[0], *args, **keys: build(name, corpus, tmp_path, *args, **keys)


def noise(*lengths):
    generator = torch.manual_seed(0)
    return PaddedBatch([{"sig": torch.randn(n, generator=generator)} for n in lengths])


def tensors(brain, *names):
    """Copies of what modules hold, by name."""
    modules = {name: brain.raw(name).state_dict() for name in names}
    return {f"{n} {key}": t.clone() for n, held in modules.items() for key, t in held.items()}


@pytest.mark.parametrize("name", NAMES)
def test_targets_are_the_nearest_codes_of_the_teachers_normalised_layers(make_brain, name):
    brain, hparams = make_brain(name, num_layers=3, optimizer_step_limit=2)
    fit(brain, hparams)
    with torch.no_grad():
        check_targets(brain, every_frame=name == NAMES[1])


def check_targets(brain, every_frame):
    lengths = [24000, 48000]
    batch = noise(*lengths)
    brain.modules.eval()
    brain.step = 1
    encoder = brain.raw("encoder")
    # The teacher, slowly: the whole encoder with its weights, on each clip alone.
    encoded = encoder(*brain.waveforms(batch))
    teacher = {n: p for n, p in brain.raw("teacher").encoder.named_parameters()}
    before = {n: p.clone() for n, p in encoder.named_parameters()}
    assert any(not torch.equal(p, before[n]) for n, p in teacher.items())
    for n, p in encoder.named_parameters():
        p.copy_(teacher.get(n, p))
    expected = []
    for clip, length in zip(batch.sig.data, lengths):
        whole = encoder.count_feature_frames(length) // encoder.stack
        outputs = encoder.layer_outputs(clip[None, :length], torch.tensor([length]), [2, 3])
        codes = torch.full((encoder.count_frames(max(lengths)), 2), -1)
        for k, output in enumerate(outputs):
            x = output[0, :whole].double()
            x = (x - x.mean(0)) / x.std(0, unbiased=False)
            codes[:whole, k] = torch.cdist(x, brain.quantiser.codebook[k].double()).argmin(1)
        expected.append(codes)
    for n, p in encoder.named_parameters():
        p.copy_(before[n])

    masked = mask_batch(brain, batch, Stage.VALID)
    assert torch.equal(brain.codes(encoded, masked), torch.cat(expected))
    [(_, of_masked), (_, of_unmasked)], seen = brain.compute_forward(batch, Stage.VALID)
    assert len(of_masked) and len(of_unmasked) and (of_masked >= 0).all()
    together = torch.cat([of_masked, of_unmasked]).unique(dim=0, return_counts=True)
    valid = torch.cat(expected)[masked.valid_BS.flatten()]
    if every_frame:  # is masked or unmasked
        for one, other in zip(together, valid.unique(dim=0, return_counts=True)):
            assert torch.equal(one, other)


def test_a_teacher_is_the_moving_average_of_its_encoder_and_a_bad_step_is_none(make_brain):
    keys = {"ema_decay": 0.5, "ema_decay_end": 0.9, "ema_steps": 2, "optimizer_step_limit": 5}
    brain, hparams = make_brain(dropout=0.1, grad_accumulation_factor=2, **PLAIN, **keys)
    steps, objectives = [], brain.compute_objectives
    hook = brain.on_optimizer_step
    names = "encoder", "teacher", "codebooks"
    brain.on_optimizer_step = lambda: (steps.append(tensors(brain, *names)), hook())

    def objective(predictions, batch, stage):
        loss = objectives(predictions, batch, stage)
        return loss * float("nan") if brain.optimizer_step == 3 else loss

    brain.compute_objectives = objective
    fit(brain, hparams)
    assert brain.optimizer_step == 5 and len(steps) == 6
    average = {n: t.double() for n, t in steps[0].items() if n.startswith("encoder")}
    for n, t in steps[0].items():
        if n.startswith("teacher"):
            assert torch.equal(t, steps[0][n.replace("teacher encoder.", "encoder ")]), n
    for number, now in enumerate(steps[1:]):
        if number == 3:
            assert all(torch.equal(t, steps[3][n]) for n, t in now.items())
            continue
        decay = [0.5, 0.7, 0.9, None, 0.9][number]
        for n in average:
            average[n] = decay * average[n] + (1 - decay) * now[n].double()
        for n, t in now.items():
            if n.startswith("teacher") and t.is_floating_point():
                slow = average[n.replace("teacher encoder.", "encoder ")]
                torch.testing.assert_close(t.double(), slow, atol=1e-6, rtol=1e-5, msg=n)
    assert int(brain.quantiser.updates) == 4
    assert not brain.raw("teacher").training and brain.modules.training is False
    assert not any(p.requires_grad for p in brain.raw("teacher").parameters())


@pytest.mark.parametrize("student_layers", ["each", "last"])
def test_codes_are_predicted_from_the_layers_that_the_key_says(make_brain, student_layers):
    brain, _ = make_brain(student_layers=student_layers)
    brain.step, hidden = 1, []
    brain.raw("head").register_forward_pre_hook(lambda _, inputs: hidden.append(inputs[0]))
    [(logits_NGV, codes_NG), _], _ = brain.compute_forward(noise(48000), Stage.VALID)
    loss = torch.nn.functional.cross_entropy(logits_NGV[:, 0], codes_NG[:, 0])
    loss.backward()
    layers = brain.raw("encoder").layers
    reached = [
        any(p.grad is not None and bool(p.grad.any()) for p in layer.parameters())
        for layer in layers
    ]
    assert reached == [True, True, student_layers == "last"]
    assert hidden[0].shape[1] == (2 if student_layers == "each" else 1)


def test_a_run_goes_on_to_the_last_bit_and_logs_every_layer(corpus, tmp_path):
    options = {"name": NAMES[0], "corpus": corpus, "dropout": 0.1, "log_interval": 1, **PLAIN}
    options |= {"grad_accumulation_factor": 2, "normalize": {"norm_type": "global"}}
    options |= {"number_of_epochs": 2, "optimizer_step_limit": 5, "ema_decay": 0.9}
    whole, trace = run(output_folder=tmp_path / "whole", **options)
    stop = {**options, "output_folder": tmp_path / "stopped", "interrupt": "SIGTERM", "at": 3}
    _, before = run(**stop)
    resumed, after = run(output_folder=tmp_path / "stopped", **options)
    assert before + after == trace and len(before) == 4  # a step is two batches
    assert_equal_runs(state(resumed), state(whole))
    records = [json.loads(line) for line in open(whole.run_log.metrics_file, encoding="utf-8")]
    assert all(len(record["code_perplexity"]) == 2 for record in records)
    assert records[0]["ema_decay"] == pytest.approx(ema_decay(1, 0.9, 0.999, 2))


def test_two_ranks_learn_what_one_learns_that_accumulates(corpus, tmp_path):
    options = {"name": NAMES[0], "corpus": corpus, "optimizer_step_limit": 3, "log_interval": 1}
    options |= {**PLAIN, "ema_decay": 0.5, "quality_minutes": 0.1}
    [ranks] = run_on_ranks(2, [{**options, "output_folder": tmp_path / "ranks"}])
    assert_equal_runs(ranks[0][1], ranks[1][1])  # the label-free quality, too
    assert len(ranks[0][1]["log"][-1]["units_repeat"]) == MODELS[NAMES[0]]["num_layers"]
    options |= {"grad_accumulation_factor": 2, "quality_minutes": 0}
    alone, _ = run(output_folder=tmp_path / "alone", **options)
    ours = tensors(alone, "teacher", "codebooks", "encoder")
    # A rank wraps what it trains.
    theirs = {re.sub(r"^(\w+)\.module\.", r"\1.", n): t for n, t in ranks[0][1]["tensors"].items()}
    assert int(ours["codebooks updates"]) == 3
    for n, t in ours.items():
        torch.testing.assert_close(theirs[n.replace(" ", ".", 1)], t, atol=2e-4, rtol=1e-3, msg=n)


def test_a_run_that_begins_with_weights_gives_them_to_its_teacher(corpus, tmp_path, caplog):
    options = {"optimizer_step_limit": 2, **PLAIN}
    run(NAMES[0], corpus, tmp_path / "then", **options)
    brain, hparams = build(NAMES[0], corpus, tmp_path / "now", begin_from=str(tmp_path / "then"))
    brain._fit_train = brain._fit_valid = lambda **_: None
    with caplog.at_level(logging.INFO):
        fit(brain, hparams)
    ours = tensors(brain, "encoder")
    for n, t in tensors(brain, "teacher").items():
        assert torch.equal(t, ours[n.replace("teacher encoder.", "encoder ")]), n
    assert "teacher (a copy of the encoder)" in caplog.text


def test_the_encoder_of_a_run_is_exported_without_teacher_or_codes(corpus, tmp_path):
    options = {"optimizer_step_limit": 1, **PLAIN}
    brain, hparams = build(NAMES[0], corpus, tmp_path / "run", **options)
    fit(brain, hparams)
    changes = {**MODELS[NAMES[0]], "data_folder": str(corpus)}
    changes |= {"output_folder": str(tmp_path / "run"), "train_loggers": []}
    write_hparams(tmp_path / "run", str(hparams_of(NAMES[0])), changes)
    export(str(tmp_path / "run"), str(tmp_path / "exported"))
    wavs, lengths = torch.randn(1, 16000), torch.tensor([16000])
    brain.modules.eval()
    with torch.no_grad():
        expected = brain.raw("encoder")(wavs, lengths).hidden_BTD
    for folder in ("run", "exported"):
        encoder = load_pretrained(tmp_path / folder)
        with torch.no_grad():
            assert torch.equal(encoder(wavs, lengths).hidden, expected)
        with pytest.raises(ValueError, match="has no quantiser, so it has no codes"):
            encoder.codes(wavs, lengths)


@pytest.mark.parametrize(
    "name, keys, message",
    [
        (NAMES[0], {"num_target_layers": 4}, "groups is 4.*has 3 layers; set num_target_layers"),
        (NAMES[0], {"codebooks": {"input_dim": 20}}, "2 layers of 16 are 32.*input_dim is 20"),
        (NAMES[0], {"head": {"codebook_size": 9}}, r"scores of \(2, 9\) for 2 x 8 codes"),
        (NAMES[0], {"transformer": {"layerdrop_prob": 0.1}}, "student_layers is each, but"),
        (NAMES[0], {"mask_length": 2}, "mask_length is 2 frames, but a target has stack: 4"),
        (NAMES[0], {"student_layers": "all"}, "student_layers must be"),
        (NAMES[1], {"encoder": {"normalise_targets": True}}, "a teacher needs the features"),
        (NAMES[1], {"num_target_layers": 0}, "num_target_layers must be"),
    ],
)
def test_what_does_not_fit_is_named_before_the_first_step(make_brain, name, keys, message):
    with pytest.raises(ValueError, match=message):
        make_brain(name, **keys)


def test_codebooks_that_do_not_move_are_refused(make_brain):
    swap = "--make_quantiser=!include:../../../hparams/quantisers/random_projection.yaml"
    with pytest.raises((ValueError, RunError), match="those of RandomProjectionQuantizer do not"):
        make_brain(NAMES[0], swap, make_quantiser={"cb_vocab": 8})
