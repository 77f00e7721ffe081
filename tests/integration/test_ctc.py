"""Fine-tuning with CTC: what is minimised, what is counted, and that it goes on as it was."""

import csv
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from speechbrain import Stage
from speechbrain.dataio.encoder import CTCTextEncoder
from tiny_ctc import FINETUNE, build_ctc, fit_ctc, log_of, manifests, options, pretrain
from tiny_run import Died

from brainquant.brains import write_error_rates
from brainquant.data.batches import AudioBatch
from brainquant.errors import RunError

WHOLE = {"number_of_epochs": 2, "layer_decay": 0.5, "log_interval": 3}
RECIPE = FINETUNE.parents[1] / "finetune_ctc.py"


@pytest.fixture(scope="module")
def pretrained(corpus, tmp_path_factory):
    """The folder of a run of BEST-RQ, whose encoder has dropout."""
    return pretrain("best_rq", corpus, tmp_path_factory.mktemp("pretrained"), dropout=0.1)


@pytest.fixture
def make(pretrained, corpus, tmp_path):
    """Builds the Brain of a fine-tuning and its hyperparameters."""
    paths = manifests(corpus, tmp_path)

    def build(**overrides):
        return build_ctc(pretrained, corpus, paths, tmp_path / "run", **overrides)

    return build


@pytest.fixture(scope="module")
def trained(pretrained, corpus, tmp_path_factory):
    """A fine-tuning of two epochs that nothing interrupts."""
    folder = tmp_path_factory.mktemp("trained")
    paths = manifests(corpus, folder)
    brain, hparams = build_ctc(pretrained, corpus, paths, folder / "run", **WHOLE)
    fit_ctc(brain, hparams)
    return brain, hparams, log_of(folder / "run")


def batch_of(*clips):
    """A batch of seconds of noise and texts."""
    generator = torch.manual_seed(1)
    items = [
        {"id": text, "sig": torch.randn(int(16000 * seconds), generator=generator), "wrd": text}
        for seconds, text in clips
    ]
    return AudioBatch(items, placeholder_samples=16000, columns=["wrd"])


def losses(brain, batch):
    with torch.no_grad():
        brain.modules.eval()
        brain.on_stage_start(Stage.VALID)
        predictions = brain.compute_forward(batch, Stage.VALID)
        return predictions, brain.compute_objectives(predictions, batch, Stage.VALID)


def test_the_loss_is_the_likelihood_per_character_of_clips_that_have_an_alignment(trained):
    brain, *_ = trained
    # A second has 26 frames: "A" * 13 takes 13 and the 12 blanks between, "A" * 14 one too many.
    clips = [(1.0, "A" * 13), (2.0, "SEE THE TEA"), (1.0, "A" * 14), (1.0, ""), (1.5, "7 A")]
    (log_probs_BTV, frames_B, _), loss = losses(brain, batch_of(*clips))
    total, characters = 0.0, 0
    for log_probs_TV, frames, (_, text) in zip(log_probs_BTV, frames_B, clips):
        target = [brain.characters.lab2ind[c] for c in text if c != "7"]  # not in ToySpeech
        single = torch.nn.functional.ctc_loss(
            log_probs_TV[:frames], torch.tensor(target), frames, torch.tensor(len(target)),
            reduction="sum",
        )  # fmt: skip
        assert torch.isinf(single) == (text == "A" * 14)
        if not torch.isinf(single):
            total, characters = total + single, characters + len(target)
    torch.testing.assert_close(loss, total / characters)
    seen = brain.tally.validation.read()
    assert (seen["characters"], seen["samples"]) == (characters, 6.5 * 16000)
    assert seen["clips_too_short"] == 1


def test_a_clip_is_scored_alike_in_any_batch_of_its_length(trained):
    brain, *_ = trained
    _, together = losses(brain, batch_of((1.0, "SEE"), (1.0, "TEA")))
    one = batch_of((1.0, "SEE"), (1.0, "TEA"))
    separate = [
        AudioBatch(
            [{"id": text, "sig": one.sig.data[n], "wrd": text}],
            placeholder_samples=16000,
            columns=["wrd"],
        )
        for n, text in enumerate(("SEE", "TEA"))
    ]
    alone = sum(losses(brain, batch)[1] for batch in separate) / 2
    torch.testing.assert_close(together, alone)


def test_a_placeholder_counts_for_nothing(trained):
    brain, *_ = trained
    _, loss = losses(brain, AudioBatch([], placeholder_samples=16000, columns=["wrd"]))
    assert torch.isfinite(loss) and not brain.tally.validation.values and not brain.tally.wer.ids


def test_greedy_decoding_joins_repeats_and_drops_blanks_and_outputs_without_a_character(trained):
    brain, *_ = trained
    number = brain.characters.lab2ind
    said = [*[number["T"]] * 3, 0, *[number["E"]] * 2, 0, number["E"], 29, number[" "], number["A"]]
    assert 29 not in number.values()
    log_probs_BTV = torch.nn.functional.one_hot(torch.tensor([[*said, number["S"]]])).float().log()
    assert brain.decode(log_probs_BTV, torch.tensor([len(said)])) == ["TEE A"]


def test_errors_are_those_of_words_whatever_stands_between_them(trained):
    brain, *_ = trained
    brain.on_stage_start(Stage.TEST)
    brain.tally.count_errors(["a", "b"], [" THE  SEA", ""], ["THE SEA", "I SEE"])
    assert brain.tally.wer.summarize("error_rate") == 50.0
    assert brain.tally.cer.summarize("error_rate") == pytest.approx(100 * 5 / 12)


def test_it_learns_and_writes_down_what(trained):
    brain, _, log = trained
    train = [record["loss"] for record in log if record["stage"] == "train"]
    valid = [record for record in log if record["stage"] == "valid"]
    assert train[-1] < 0.95 * train[0] and len(valid) == 2
    assert valid[1]["loss"] == pytest.approx(train[-1], rel=0.15)
    characters = CTCTextEncoder()
    characters.load(os.path.join(brain.run_log.folder, "characters.txt"))
    assert characters.lab2ind == brain.characters.lab2ind and characters.get_blank_index() == 0


def test_learning_rates_fall_from_the_head_to_the_lowest_layer(trained):
    brain, hparams, log = trained
    last = SimpleNamespace(param_groups=[{}])
    hparams["lr_schedule"](last, brain.optimizer_step)
    lr = last.param_groups[0]["lr"]
    rates = [group["lr"] for group in brain.optimizer.param_groups]
    assert rates == pytest.approx([0.5 * lr, lr, lr * hparams["lr_head"] / hparams["lr"]])
    assert sum(len(g["params"]) for g in brain.optimizer.param_groups) == sum(
        p.requires_grad for p in brain.modules.parameters()
    )


def test_masks_are_spans_of_the_audio_drawn_anew_in_each_epoch(trained):
    brain, hparams, _ = trained
    hparams = brain.hparams
    hparams.mask_ratio, hparams.mask_length = 0.5, 10
    ones_BL, lengths_B = torch.ones(2, 48050), torch.tensor([48050, 16000])
    first, again = (brain.mask(ones_BL, lengths_B) for _ in range(2))
    hparams.epoch_counter.current += 1
    other = brain.mask(ones_BL, lengths_B)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert (first == 0).sum(1).tolist() == [24000, 8000] and first[1, 16000:].all()
    edges = first[0].diff().nonzero().flatten() + 1
    assert set((edges % 160).tolist()) == {0} and (edges.diff() >= 160).all()


def test_the_encoder_is_frozen_for_the_first_steps(make):
    brain, hparams = make(freeze_steps=2, optimizer_step_limit=4, batch_clips=4)
    snapshots = []

    def keep(*arguments):
        snapshots.append([parameter.detach().clone() for parameter in brain.modules.parameters()])

    of_encoder = [name.startswith("encoder") for name, _ in brain.modules.named_parameters()]
    keep()
    brain.on_fit_batch_end = keep
    fit_ctc(brain, hparams)
    changed = [[not torch.equal(*pair) for pair in zip(*snapshots[n : n + 2])] for n in range(3)]
    for number, of_step in enumerate(changed):
        encoder = [c for c, inside in zip(of_step, of_encoder) if inside]
        head = [c for c, inside in zip(of_step, of_encoder) if not inside]
        assert all(head) and (any(encoder) if number == 2 else not any(encoder))


# The first dies with step 3 in its log, and step 2, of an interval that is not over, saved.
@pytest.mark.parametrize("batches", [4, 12])
def test_an_interrupted_run_is_the_uninterrupted_one(make, trained, tmp_path, batches):
    def start():
        return make(**WHOLE, run_options="--ckpt_interval_steps 2")

    brain, hparams = start()
    objectives, seen = brain.compute_objectives, []

    def until(*arguments):
        seen.append(objectives(*arguments))
        if len(seen) == batches:
            raise Died
        return seen[-1]

    brain.compute_objectives = until
    with pytest.raises(Died):
        fit_ctc(brain, hparams)
    again, hparams = start()
    fit_ctc(again, hparams)
    whole, _, log = trained
    assert log_of(tmp_path / "run") == log
    for name, tensor in whole.modules.state_dict().items():
        assert torch.equal(tensor, again.modules.state_dict()[name]), name


def test_a_test_is_read_with_the_checkpoint_of_the_lowest_word_error_rate(make, tmp_path):
    brain, hparams = make(number_of_epochs=3, max_seconds=3.0)
    count, epoch = brain.tally.count_errors, hparams["epoch_counter"]

    def better_in_epoch_2(ids, texts, references):
        count(ids, references if epoch.current == 2 else texts, references)

    brain.tally.count_errors = better_in_epoch_2
    fit_ctc(brain, hparams)
    rates = write_error_rates(brain, hparams, **hparams["evaluate"].keywords)
    valid = [record for record in log_of(tmp_path / "run") if record["stage"] == "valid"]
    (test,) = (record for record in log_of(tmp_path / "run") if record["stage"] == "test")
    assert [record["wer"] for record in valid] == [100.0, 0.0, 100.0]
    assert rates == {"test": 0.0} and test["step"] == brain.optimizer_step == valid[1]["step"]
    with open(hparams["test_csv"][0], encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert max(float(row["duration"]) for row in rows) > 3  # none is left out
    errors = (tmp_path / "run" / "wer_test.txt").read_text("utf-8")
    assert all(row["ID"] in errors for row in rows) and f"Scored {len(rows)} sentences" in errors


def test_a_test_with_a_clip_that_cannot_be_read_is_none(make, tmp_path):
    brain, hparams = make(optimizer_step_limit=1, max_seconds=4.0)
    fit_ctc(brain, hparams)
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    (tmp_path / "bad.csv").write_text(f"ID,duration,wav,wrd\nx,1.0,{tmp_path}/bad.wav,A\n")
    with pytest.raises(RunError, match="clip 'x' of the test bad cannot be used"):
        write_error_rates(brain, hparams, test_csv=str(tmp_path / "bad.csv"))


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"layer_decay": 0}, "layer_decay must be a number above 0"),
        ({"mask_ratio": 1.0}, "mask_ratio must be"),
        ({"sample_rate": 8000}, "pretrained on 16000 Hz"),
        ({"run_options": "--remove_vector_weight_decay"}, "remove_vector_weight_decay has no"),
    ],
)
def test_what_cannot_be_is_said_before_the_first_step(make, overrides, message):
    with pytest.raises(ValueError, match=message):
        fit_ctc(*make(**overrides))


def test_a_head_with_too_few_outputs_ends_the_program_with_one_line(make):
    with pytest.raises(RunError, match="head has 5 outputs.*set out_features: 29"):
        fit_ctc(*make(output={"out_features": 5}))


def test_other_characters_are_another_run(make, tmp_path):
    fit_ctc(*make(optimizer_step_limit=1))
    path = tmp_path / "train.csv"
    path.write_text(path.read_text("utf-8").replace("A", "9"), "utf-8")
    with pytest.raises(RunError, match="characters: .* then, .*9.* now"):
        fit_ctc(*make(optimizer_step_limit=2))


def test_two_ranks_take_the_steps_of_one_that_accumulates(corpus, tmp_path):
    folder = pretrain("wav2vec2", corpus, tmp_path / "pretrained")
    paths = manifests(corpus, tmp_path)
    few = {"optimizer_step_limit": 3, "freeze_steps": 1, "log_interval": 1}
    arguments = []
    for name, value in options(folder, corpus, paths, tmp_path / "two", **few).items():
        text = f"[{', '.join(value)}]" if isinstance(value, list) else value
        arguments += [f"--{name}", "null" if value is None else str(text)]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    process = subprocess.run(
        [*command, str(RECIPE), str(FINETUNE), *arguments, "--noprogressbar"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(RECIPE.parents[2])},
        cwd=tmp_path,
        text=True,
        capture_output=True,
    )
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-4000:]
    brain, hparams = build_ctc(
        folder, corpus, paths, tmp_path / "one", grad_accumulation_factor=2, **few
    )
    fit_ctc(brain, hparams)
    write_error_rates(brain, hparams, **hparams["evaluate"].keywords)
    two, one = log_of(tmp_path / "two"), log_of(tmp_path / "one")
    assert [record["stage"] for record in one] == ["train"] * 3 + ["valid", "test"]
    for of_two, of_one in zip(two, one, strict=True):
        assert of_two.keys() == of_one.keys()
        for name, value in of_one.items():
            expected = pytest.approx(value, rel=1e-4) if isinstance(value, float) else value
            assert of_two[name] == expected, name
    assert "Scored" in (tmp_path / "two" / "wer_test.txt").read_text("utf-8")
