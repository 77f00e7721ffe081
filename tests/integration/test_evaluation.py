"""Probes of real runs, from the command and after a training: what they read, and of what."""

import io
import json
import shutil
import wave

import numpy as np
import pytest
import torch
from tiny_run import HPARAMS, build
from tiny_run import run as train

from brainquant.cli import main
from brainquant.evaluation.frozen import quantise, untrained
from brainquant.evaluation.probing import probe
from brainquant.evaluation.progress import progress_bar
from brainquant.recipe import load_run
from brainquant.training.resolve import write_hparams

NAMES = ["log-mel", "untrained front end", "untrained encoder", "pretrained encoder"]


@pytest.fixture(scope="module")
def make_run(corpus, tmp_path_factory):
    """Folder of a run, as a training leaves it; it is made once."""
    made = {}

    def make(name):
        if name not in made:
            made[name] = folder = tmp_path_factory.mktemp(name)
            overrides = {"num_layers": 2}
            brain, hparams = build(name, corpus, folder, **overrides)
            overrides |= {key: hparams[key] for key in ("data_folder", "output_folder", "d_model")}
            if name == "wav2vec2":
                overrides |= {"channels": hparams["channels"]}
            else:
                overrides |= {"cb_vocab": hparams["cb_vocab"]}
            write_hparams(str(folder), str(HPARAMS / f"{name}.yaml"), overrides)
            with torch.no_grad():
                for parameter in brain.modules["encoder"].parameters():
                    parameter.mul_(1.5)  # what training has done
            brain.checkpointer.save_checkpoint()
        return made[name]

    return make


@pytest.fixture(scope="module")
def loudness(tmp_path_factory):
    """Noise, loud and soft, in 8 kHz: manifests whose column `level` is to be read."""
    folder, rng = tmp_path_factory.mktemp("loudness"), np.random.default_rng(0)
    for split, count in {"train": 24, "valid": 8, "test": 8}.items():
        rows = ["ID,duration,wav,level"]
        for index in range(count):
            level = ("loud", "soft")[index % 2]
            samples = rng.normal(size=4000) * (6000 if level == "loud" else 60)
            with wave.open(str(folder / f"{split}{index}.wav"), "wb") as file:
                file.setparams((1, 2, 8000, 4000, "NONE", ""))
                file.writeframes(samples.astype("<i2").tobytes())
            rows.append(f"{split}{index},0.5,$data_root/{split}{index}.wav,{level}")
        (folder / f"{split}.csv").write_text("\n".join(rows))
    return folder


def manifests(folder):
    return {split: f"{folder}/{split}.csv" for split in ("train", "valid", "test")}


def command(run, folder, *arguments):
    options = [part for split, path in manifests(folder).items() for part in (f"--{split}", path)]
    main(["probe", str(run), *options, "--data_folder", str(folder), *map(str, arguments)])


@pytest.mark.parametrize("name", ["best_rq", "wav2vec2"])
def test_a_run_is_probed_for_phones_from_its_folder(name, make_run, corpus, capsys):
    run = make_run(name)
    command(run, corpus, "--alignments", corpus / "phones", "--seeds", 2, "--train_minutes", 0.5)
    shown = capsys.readouterr().out
    assert all(text in shown for text in [*NAMES, "PNMI", "effective rank"])
    table = json.loads((run / "probe_phones.json").read_text("utf-8"))
    assert (run / "probe_phones.png").read_bytes()[1:4] == b"PNG"
    for representation in NAMES:
        row = table["accuracies"][representation]
        layers = 2 if "encoder" in representation else 1
        assert np.shape(row["layers"]) == np.shape(row["valid_layers"]) == (2, layers)
    assert table["accuracies"]["log-mel"]["mean"] > table["majority"] + 0.1
    for ranks in table["effective_rank"].values():
        assert len(ranks) == 2 and all(1 <= rank <= 16 for rank in ranks)
    inputs = {row: table["accuracies"][row]["inputs"] for row in NAMES}
    front_end = 640 if name == "best_rq" else 16
    assert inputs["untrained front end"] == 3 * front_end and inputs["untrained encoder"] == 3 * 16
    codes = table["codes"]
    assert codes["pnmi"] > codes["shuffled"]["pnmi"] and codes["code_perplexity"] > 1


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_probe_shows_how_far_it_is_on_a_terminal_and_in_the_log(
    make_run, loudness, caplog, monkeypatch
):
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    options = ["--label", "level", "--seeds", 2, "--output", loudness / "levels"]
    command(make_run("best_rq"), loudness, *options)
    told = [record.getMessage() for record in caplog.records]
    for manifest in manifests(loudness).values():
        assert told.count(f"Probe: reading {manifest}") == 1
    encoders = ["untrained encoder 1 of 2", "untrained encoder 2 of 2", "pretrained encoder"]
    for stage in ["log-mel", *encoders]:
        assert told.count(f"Probe: {stage}") == 1
        for part in ("train", "test", "classifiers"):
            assert f"{stage}, {part}: " in terminal.getvalue()
    assert not any("Linear probe" in line for line in told)  # the command prints it


def test_no_bar_is_drawn_where_nobody_sees_it(monkeypatch):
    for terminal, hidden in ((io.StringIO(), False), (Terminal(), True)):
        monkeypatch.setattr("sys.stderr", terminal)
        bar = progress_bar(hidden, range(3), "reading", " clips")
        assert list(bar) == [0, 1, 2] and terminal.getvalue() == ""


def test_a_label_is_read_from_the_mean_over_time(make_run, loudness, caplog):
    run, name = make_run("best_rq"), "levels"
    shutil.copy(loudness / "test0.wav", loudness / "nameless.wav")
    with open(loudness / "test.csv", "a", encoding="utf-8") as file:
        file.write("\nnameless,0.5,$data_root/nameless.wav,\nbroken,0.5,$data_root/test.csv,loud")
    command(run, loudness, "--label", "level", "--seeds", 1, "--output", loudness / name)
    table = json.loads((loudness / "levels.json").read_text("utf-8"))
    # Log-mel keeps the level; the features of the encoder are normalised over the utterance.
    assert table["accuracies"]["log-mel"]["mean"] == 1.0
    assert table["accuracies"]["pretrained encoder"]["mean"] < 1.0
    assert table["majority"] == 0.5 and "codes" not in table
    assert set(table["left_out"]) == {"nameless", "broken"} and table["utterances"]["test"] == 8
    (warning,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    for part in ("2 of 10 utterances left out", "nameless: has no level", "broken: "):
        assert part in warning


def test_utterances_without_alignment_are_left_out_and_an_error_if_none_is_left(
    make_run, corpus, tmp_path, caplog
):
    run, folder = make_run("best_rq"), tmp_path / "phones"
    shutil.copytree(corpus / "phones", folder)
    gone = sorted((folder / "valid").iterdir())
    gone[0].write_text("start\tend\tphone\n")
    gone[1].unlink()
    brain, hparams = load_run(run)
    options = {"data_folder": corpus, "alignments": folder, "num_seeds": 1, "train_minutes": 0.2,
               "name": str(tmp_path / "probe"), **manifests(corpus)}  # fmt: skip
    table = probe(brain, hparams, **options)
    assert table["left_out"] == {gone[0].stem: "its alignment is empty",
                                 gone[1].stem: "has no alignment"}  # fmt: skip
    assert f"2 of {len(gone)} utterances left out" in caplog.text
    rows = (corpus / "train.csv").read_text("utf-8").splitlines()[1:]
    seconds = sorted(float(row.split(",")[1]) for row in rows)
    assert 12 / seconds[-1] <= table["utterances"]["train"] <= 12 / seconds[0] + 1 < len(rows)
    for path in gone[2:]:
        path.unlink()
    with pytest.raises(ValueError, match="valid.csv: .* left out: .*; nothing is left"):
        probe(brain, hparams, **options)


@pytest.mark.parametrize("name", ["best_rq", "wav2vec2"])
def test_each_seed_has_another_untrained_encoder(name, make_run):
    brain, hparams = load_run(make_run(name))
    encoder = brain.raw("encoder")
    trained = {key: value.clone() for key, value in encoder.state_dict().items()}
    # From the recipe, and from the copy in the run's folder, where the seed is not a reference.
    sizes = {key: hparams[key] for key in ("num_layers", "d_model", "output_folder")}
    sizes |= {"channels": 16} if name == "wav2vec2" else {"cb_vocab": 32}
    recipe = {**hparams, "hparams_file": HPARAMS / f"{name}.yaml", "overrides": sizes}
    first, again, other = (
        untrained(encoder, source, seed).state_dict()
        for source, seed in ((recipe, 0), (hparams, 0), (hparams, 1))
    )
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    for key, value in encoder.state_dict().items():
        assert torch.equal(value, trained[key])


def test_what_has_no_parameters_stays_in_the_untrained_encoder(make_run):
    brain, hparams = load_run(make_run("best_rq"))
    encoder = brain.raw("encoder")
    fresh = untrained(encoder, hparams, 3)
    assert fresh.normalize is encoder.normalize and fresh.transformer is not encoder.transformer


@pytest.mark.parametrize("name", ["best_rq", "wav2vec2"])
def test_codes_are_those_of_the_whole_frames(name, make_run):
    brain, _ = load_run(make_run(name))
    sig, encoder = torch.randn(16000, generator=torch.manual_seed(0)), brain.raw("encoder")
    codes = quantise(encoder, brain.quantiser, sig)
    # 101 frames of log-mel are 25 stacks of 4, and one that is padded.
    num_frames = 25 if name == "best_rq" else encoder.count_frames(len(sig))
    assert codes.shape == (num_frames, brain.quantiser.num_codebooks)


@pytest.mark.parametrize("real", [True, False], ids=["fastabx", "stand-in"])
def test_abx_errors_of_all_that_is_compared(real, make_run, corpus, tmp_path, monkeypatch, capsys):
    if real:
        pytest.importorskip("fastabx", reason="needs Python 3.12")
    else:
        monkeypatch.setattr("brainquant.evaluation.probing.import_fastabx", lambda: None)

        def count(frames, phones, frame_times):
            """A number that says whether frames and phones are those of the test utterances."""
            assert {phone.utterance for phone in phones} == {*range(len(frames))}
            ends = [frame_times(len(frames_TD))[-1] for frames_TD in frames]
            assert all(phone.start < ends[phone.utterance] + 0.1 for phone in phones)
            return {"within": len(frames) / 100, "across": None}

        monkeypatch.setattr("brainquant.evaluation.comparison.abx_errors", count)
    options = ["--seeds", 2, "--train_minutes", 0.3, "--abx", "--output", tmp_path / "probe"]
    command(make_run("best_rq"), corpus, "--alignments", corpus / "phones", *options)
    assert "ABX error in %" in capsys.readouterr().out
    table = json.loads((tmp_path / "probe.json").read_text("utf-8"))
    abx = table["abx"]
    assert abx["within"].keys() == {*NAMES, "codes"}
    for name, errors in abx["within"].items():
        assert len(errors) == (2 if "encoder" in name else 1) and all(0 < e < 0.6 for e in errors)
    if real:
        assert abx["across"].keys() == abx["within"].keys() and abx["within"]["log-mel"][0] < 0.3
    else:
        assert abx["across"] is None and {*abx["within"]["codes"]} == {
            table["utterances"]["test"] / 100
        }


def test_a_python_without_fastabx_ends_the_command_with_one_line(
    make_run, corpus, monkeypatch, tmp_path
):
    monkeypatch.setattr("brainquant.evaluation.abx.LOWEST_PYTHON", (4, 0))
    options = ["--alignments", corpus / "phones", "--abx", "--output", tmp_path / "probe"]
    with pytest.raises(SystemExit, match="^[^\n]*ABX needs fastabx, which needs Python 3.12 or"):
        command(make_run("best_rq"), corpus, *options)


@pytest.fixture(scope="module")
def three_steps(corpus, tmp_path_factory):
    """Folder of a run of three steps that has kept the checkpoint of each."""
    folder = tmp_path_factory.mktemp("three steps")
    keys = {"ckpt_interval_steps": 1, "ckpt_interval_minutes": 0, "keep_checkpoints": 4}
    keys |= {"optimizer_step_limit": 3, "lr": 0.01}
    brain, _ = train("best_rq", corpus, folder, num_layers=2, **keys)
    sizes = {"num_layers": 2, "d_model": 16, "cb_vocab": 32, "output_folder": str(folder)}
    write_hparams(str(folder), str(HPARAMS / "best_rq.yaml"), {**sizes, "data_folder": str(corpus)})
    return folder


PHONES = ["--seeds", 1, "--train_minutes", 0.2]


def test_the_steps_of_a_run_are_probed_as_each_of_them_alone(three_steps, corpus, capsys):
    phones = [*PHONES, "--alignments", corpus / "phones"]
    checkpoints = sorted((three_steps / "save").glob("CKPT*"))
    assert len(checkpoints) == 4  # the last step twice: at its interval and at the end
    command(three_steps, corpus, *phones, "--checkpoint", "all")
    shown = capsys.readouterr().out
    table = json.loads((three_steps / "probe_phones_all.json").read_text("utf-8"))
    assert (three_steps / "probe_phones_all.png").read_bytes()[1:4] == b"PNG"
    assert [row["step"] for row in table["steps"]] == [1, 2, 3] and "chosen layer" in shown
    assert [*table["accuracies"]] == NAMES[:-1] and max(map(len, shown.splitlines()[:-1])) <= 80
    command(three_steps, corpus, *phones, "--checkpoint", 1)
    command(three_steps, corpus, *phones)
    alone = [json.loads((three_steps / f"probe_phones{end}.json").read_text("utf-8"))
             for end in ("_1", "")]  # fmt: skip
    for row, one in zip(table["steps"][::2], alone):
        assert row["accuracy"] == one["accuracies"]["pretrained encoder"]
        assert row["effective_rank"] == one["effective_rank"]["pretrained encoder"]
        assert table["accuracies"]["untrained encoder"] == one["accuracies"]["untrained encoder"]
    assert alone[0]["effective_rank"] != alone[1]["effective_rank"]
    with open(next(checkpoints[0].glob("encoder*")), "r+b") as file:
        file.write(b"damaged")
    command(three_steps, corpus, *phones, "--checkpoint", "all")
    table = json.loads((three_steps / "probe_phones_all.json").read_text("utf-8"))
    assert [row["step"] for row in table["steps"]] == [2, 3]


def test_a_checkpoint_that_is_not_there_is_named(three_steps, corpus, exported):
    phones = [*PHONES, "--alignments", corpus / "phones"]
    with pytest.raises(SystemExit, match="--checkpoint 9: .* has no such .* steps .*2, 3"):
        command(three_steps, corpus, *phones, "--checkpoint", 9)
    with pytest.raises(SystemExit, match="--checkpoint: .* is not the folder of a run; leave"):
        command(exported("best_rq"), corpus, *phones, "--checkpoint", "all")


WRONG = {
    "ABX of a label": (
        {"label": "spk_id", "abx": True},
        "abx: compares phones, got label='spk_id'",
    ),
    "both": ({"label": "spk_id", "alignments": "{corpus}/phones"}, "either a label: or alignments"),
    "neither": ({}, "either a label: or alignments"),
    "speakers of the test are new": (
        {"label": "spk_id"},
        "valid has labels that training lacks, .* 100.0% of",
    ),
    "a column that is not there": ({"label": "mood"}, "lacks the column 'mood'"),
    "no seed": ({"label": "spk_id", "num_seeds": 0}, "num_seeds must be at least 1, got 0"),
    "no speech": ({"label": "spk_id", "train_minutes": 0}, "train_minutes must be more than 0"),
    "one label": ({"label": "spk_id", "train_minutes": 1e-6}, "have one label only"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_named(case, make_run, corpus):
    options, message = WRONG[case]
    options = {key: value.format(corpus=corpus) if isinstance(value, str) else value
               for key, value in options.items()}  # fmt: skip
    run = make_run("best_rq")
    with pytest.raises(ValueError, match=message):
        probe(*load_run(run), data_folder=corpus, **manifests(corpus), **options)


def test_a_recipe_probes_after_its_training_on_two_ranks(run_recipe, tmp_path):
    done = run_recipe("best_rq", "--debug", evaluate="{num_seeds: 1, train_minutes: 0.2}", ranks=2)
    shown = done.stdout + done.stderr
    assert shown.count("Linear probe of phones") == 1 and all(name in shown for name in NAMES)
    for ending in ("json", "png"):
        assert (tmp_path / "run" / "debug" / f"phones.{ending}").exists()
