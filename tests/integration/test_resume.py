"""A run that was interrupted equals one that was not, to the last bit."""

import functools

import pytest
import torch
from speechbrain.nnet.schedulers import NoamScheduler
from tiny_run import assert_equal_runs, build, fit, run, run_on_ranks, state
from torch.optim import lr_scheduler

from brainquant.errors import RunError
from brainquant.training.checkpoint_folder import write_manifest

EPOCHS = {"number_of_epochs": 2, "optimizer_step_limit": 1000, "log_interval": 2}
PLAIN = {"batch_clips": 4}
SGD = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)
# A schedule of torch that goes on from the rates and betas that it has set.
ONE_CYCLE = functools.partial(lr_scheduler.OneCycleLR, max_lr=0.002, total_steps=1000)
FRAGMENTS = "--make_quantiser=!include:../../../hparams/quantisers"
KMEANS = f'{FRAGMENTS}/kmeans.yaml {{"clusters":32}}'
REFINED = f'{FRAGMENTS}/refined_projection.yaml {{"cb_vocab":32,"refine_steps":[2,5]}}'
# Dropout, layer norms, Gumbel noise, accumulation and workers all have a say in the last bit, and
# so have schedules that count their steps.
RUNS = {
    "best_rq": (
        "best_rq",
        {"dropout": 0.1, "num_workers": 0, "objects": {"lr_schedule": NoamScheduler(0.001, 3)}},
    ),
    "best_rq_accumulated": (
        "best_rq",
        {
            "dropout": 0.1,
            "num_workers": 2,
            "grad_accumulation_factor": 4,
            "run_options": KMEANS,
            **PLAIN,
        },
    ),
    "wav2vec2": ("wav2vec2", {"num_workers": 0, "objects": {"lr_schedule": ONE_CYCLE}, **PLAIN}),
}


@pytest.fixture(scope="module", params=list(RUNS))
def whole(request, corpus, tmp_path_factory):
    """A run that nothing interrupts: its name, options, trace and end."""
    name, options = RUNS[request.param]
    options = {**EPOCHS, **options}
    brain, trace = run(name, corpus, tmp_path_factory.mktemp("whole"), **options)
    return name, options, trace, state(brain)


@pytest.mark.parametrize("interrupt", ["SIGTERM", "death"])
@pytest.mark.parametrize("place", ["training", "validation"])
def test_an_interrupted_run_is_the_uninterrupted_one(whole, corpus, tmp_path, interrupt, place):
    name, options, trace, end = whole
    options = dict(options)
    batches = sum(epoch == 1 for epoch, *_ in trace)
    at = {"training": batches // 2, "validation": batches + 1}[place]
    more = f"--ckpt_interval_steps 2 {options.pop('run_options', '')}"
    options = {**options, "run_options": more}
    _, before = run(name, corpus, tmp_path, interrupt=interrupt, at=at, **options)
    assert len(before) < len(trace)
    brain, after = run(name, corpus, tmp_path, **{**options, "num_workers": 0})
    assert_equal_runs(state(brain), end)
    if interrupt == "SIGTERM":
        assert before + after == trace
    else:  # what came after the last checkpoint is done again, alike
        assert before == trace[: len(before)] and after == trace[-len(after) :]


def test_each_clip_is_seen_once_an_epoch_in_other_batches(whole):
    _, _, trace, _ = whole
    epochs = [[ids for epoch, _, ids, _ in trace if epoch == number] for number in (1, 2)]
    clips = [sorted(sum(map(list, epoch), [])) for epoch in epochs]
    assert clips[0] == clips[1] and len(set(clips[0])) == len(clips[0])
    assert epochs[0] != epochs[1]


def test_two_ranks_go_on_where_they_were_stopped(corpus, tmp_path):
    run("best_rq", corpus, tmp_path / "before", **{**EPOCHS, "optimizer_step_limit": 1})
    options = {"name": "best_rq", "corpus": corpus, **EPOCHS, "dropout": 0.1}
    # Half of the layers have no gradient in a step; and all begin with weights of another run.
    options |= {"transformer": {"layerdrop_prob": 0.5}, "begin_from": str(tmp_path / "before")}
    # The model as it came is validated after the resume, before step 4.
    options |= {"freeze_steps": 3, "layer_decay": 0.5, "pull_to_start": 50.0}
    options["run_options"] = REFINED  # in the step before the ranks are stopped, and after it
    stop = {**options, "interrupt": "SIGTERM", "at": 3}
    whole, stopped, resumed, _ = run_on_ranks(
        2,
        [
            {**options, "output_folder": tmp_path / "whole"},
            {**stop, "output_folder": tmp_path / "stopped"},
            {**options, "output_folder": tmp_path / "stopped"},
            {**stop, "output_folder": tmp_path / "fewer"},
        ],
    )
    for rank in range(2):
        assert_equal_runs(resumed[rank][1], whole[rank][1])
        assert stopped[rank][0] + resumed[rank][0] == whole[rank][0]
    seen = [c for trace, _ in whole for epoch, _, batch, _ in trace if epoch == 1 for c in batch]
    assert len(seen) == len(set(seen)) > 8
    assert whole[0][1]["tensors"]["quantiser.refined"] == 2

    # Another number of ranks with the same steps takes the very next batch.
    options = {**options, "grad_accumulation_factor": 2}
    alone, trace = run(output_folder=tmp_path / "alone", **options)
    fewer, rest = run(output_folder=tmp_path / "fewer", **options)
    assert [batch[:3] for batch in rest] == [batch[:3] for batch in trace[6:]]
    assert state(fewer)["log"][-1]["loss"] == pytest.approx(state(alone)["log"][-1]["loss"], 1e-4)
    for one, other in (
        (alone, fewer.quantiser.CB),
        (fewer, whole[0][1]["tensors"]["quantiser.CB"]),
    ):
        torch.testing.assert_close(one.quantiser.CB, other)


def test_a_finished_run_started_again_changes_nothing(corpus, tmp_path):
    options = {"number_of_epochs": 1, "log_interval": 2}
    brain, _ = run("best_rq", corpus, tmp_path, **options)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again, trace = run("best_rq", corpus, tmp_path, **options)
    assert trace == [] and again.optimizer_step == brain.optimizer_step
    assert files == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("batch_seconds", 6, "batch_seconds: 8 then, 6 now.*resume_with_changes"),
        ("max_seconds", 3.0, "train_csv: .* clips, .* then, .* now"),
        ("grad_accumulation_factor", 2, "batches_per_step: 1 then, 2 now.*ranks x accumulation"),
    ],
)
def test_a_changed_setup_is_refused_by_name_or_allowed(corpus, tmp_path, key, value, message):
    run("best_rq", corpus, tmp_path, interrupt="SIGTERM", at=2, **EPOCHS)
    brain, hparams = build("best_rq", corpus, tmp_path, **{**EPOCHS, key: value})
    with pytest.raises(RunError, match=message):
        fit(brain, hparams)
    allowed = {**EPOCHS, key: value, "resume_with_changes": True}
    brain, trace = run("best_rq", corpus, tmp_path, **allowed)
    first = trace[0][1]
    assert first == (2 if key == "grad_accumulation_factor" else 0)
    assert all(map(lambda record: record["loss"] > 0, state(brain)["log"]))


@pytest.fixture(scope="module")
def stopped(corpus, tmp_path_factory):
    """The folder of a run that was stopped in its first epoch."""
    folder = tmp_path_factory.mktemp("stopped")
    run("best_rq", corpus, folder, interrupt="SIGTERM", at=2, **EPOCHS)
    return folder


def resume(corpus, folder, run_options="", objects=None, **overrides):
    """Loads the checkpoint as ``fit`` does, and trains on no batch."""
    options = {**EPOCHS, **overrides}
    brain, hparams = build("best_rq", corpus, folder, run_options, objects, **options)
    brain._fit_train = brain._fit_valid = lambda **_: None
    fit(brain, hparams)
    return brain


def test_the_checkpoint_of_another_model_is_refused_with_its_key(corpus, stopped):
    message = "is not of this YAML .d_model: 16 then, 32 now.*new output_folder"
    with pytest.raises(RunError, match=message):
        resume(corpus, stopped, d_model=32)


def test_keys_that_change_are_listed_and_their_new_values_count(corpus, stopped, caplog):
    assert "Resuming with other keys" not in caplog.text + str(
        resume(corpus, stopped).setup.changed
    )
    optimizer = {"weight_decay": 0.5, "betas": (0.8, 0.9), "fused": False}
    changed = {"lr": 0.002, "optimizer": {**optimizer, "betas": [0.8, 0.9]}, "mask_ratio": 0.4}
    brain = resume(corpus, stopped, "--precision bf16", **changed)
    (line,) = [text for text in caplog.messages if "Resuming with other keys" in text]
    for expected in (
        "lr: 0.0005 then, 0.002 now", "precision: fp32 then, bf16 now",
        "mask_ratio: 0.5 then, 0.4 now", "optimizer.weight_decay: 0.01 then, 0.5 now",
        "optimizer.betas: [0.9, 0.98] then, [0.8, 0.9] now",
    ):  # fmt: skip
        assert expected in line
    assert "lr_schedule.lr" not in line  # which refers to lr
    (group,) = brain.optimizer.param_groups
    assert {key: group[key] for key in optimizer} == optimizer
    assert group["lr"] == 0.002  # of the last step, after a warm-up of two
    assert brain.optimizer.state  # the moments are those of the checkpoint
    assert "learning rate was 0.0005 at step 2; the YAML now gives 0.002 for" in caplog.text


@pytest.mark.parametrize(
    "change, message",
    [
        ({"make_quantiser": {"seed": 7}}, "make_quantiser.seed: 1234 then, 7 now.*tables"),
        ({"objects": {"optimizer": SGD}}, "keeps exp_avg, exp_avg_sq, step.*momentum_buffer"),
        ({"run_options": "--remove_vector_weight_decay"}, r"has 1 group\(s\).*the YAML 2 group"),
    ],
)
def test_a_change_that_would_not_count_is_refused_by_name(corpus, stopped, change, message):
    with pytest.raises(RunError, match=message):
        resume(corpus, stopped, **change)


def test_the_tables_of_a_checkpoint_can_be_kept(corpus, stopped):
    options = {"make_quantiser": {"seed": 7}, "resume_with_changes": True}
    kept, same = resume(corpus, stopped, **options), resume(corpus, stopped)
    assert torch.equal(kept.quantiser.CB, same.quantiser.CB)


def test_more_steps_for_a_finished_run_come_with_its_learning_rates(corpus, tmp_path, caplog):
    options = {"number_of_epochs": 3, "log_interval": 2}
    run("best_rq", corpus, tmp_path, **options, optimizer_step_limit=4)
    run("best_rq", corpus, tmp_path, **options, optimizer_step_limit=8)
    (line,) = [text for text in caplog.messages if "learning rate was" in text]
    assert "The learning rate was 0 at step 4; the YAML now gives 0.0005 for" in line
    assert f"with begin_from: {tmp_path}/save/CKPT+" in line and "warmup_steps:" in line


def test_a_module_that_recoverables_forget_is_saved_all_the_same(corpus, stopped, tmp_path):
    brain = resume(corpus, stopped)
    head = brain.checkpointer.recoverables.pop("head")  # as a YAML may leave it out
    again, hparams = build("best_rq", corpus, stopped, **EPOCHS)
    del hparams["checkpointer"].recoverables["head"]
    again = type(again)(
        hparams["modules"], hparams["optimizer"], hparams, {}, hparams["checkpointer"]
    )
    again._fit_train = again._fit_valid = lambda **_: None
    torch.nn.init.zeros_(again.raw("head").w.weight)
    fit(again, hparams)
    assert torch.equal(again.raw("head").w.weight, head.w.weight)


def test_the_checkpoint_of_an_earlier_version_is_refused_in_one_line(corpus, tmp_path):
    run("best_rq", corpus, tmp_path, interrupt="SIGTERM", at=2, **EPOCHS)
    (checkpoint,) = (tmp_path / "save").glob("CKPT+*")
    torch.save({"optimizer_step": 2, "batches_done": 2}, checkpoint / "brain.ckpt")
    (checkpoint / "SHA256SUMS").unlink()
    write_manifest(checkpoint)
    with pytest.raises(RunError, match="of an earlier version of brainquant.*new output_folder:"):
        run("best_rq", corpus, tmp_path, **EPOCHS)


@pytest.mark.parametrize("interruption", [{}, {"interrupt": "SIGTERM", "at": 3}])
def test_fewer_steps_than_a_run_has_made_leave_nothing_to_train(corpus, tmp_path, interruption):
    run("best_rq", corpus, tmp_path, optimizer_step_limit=4, **interruption)
    brain, trace = run("best_rq", corpus, tmp_path, optimizer_step_limit=2)
    assert trace == [] and brain.optimizer_step > 2


def test_ranks_with_other_codebooks_are_refused_before_the_first_step(corpus, tmp_path):
    options = {"name": "best_rq", "corpus": corpus, "output_folder": tmp_path / "run"}
    ((first, second),) = run_on_ranks(2, [{**options, "seed_by_rank": True}])
    for error, _ in (first, second):
        assert "quantiser of rank 1 is not that of rank 0" in str(error)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
