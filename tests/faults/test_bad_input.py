"""Runs with bad audio, and with wrong manifests."""

import functools
import logging

import pytest
from bad_corpus import (
    BAD,
    FINE,
    USABLE,
    check_left_out,
    check_too_many,
    check_traces,
    left_out,
    make_bad_corpus,
)
from tiny_run import assert_equal_runs, build, run, run_on_ranks, state

from brainquant.data.batches import make_loaders

pytestmark = pytest.mark.faults

COMMON = {
    "name": "best_rq", "number_of_epochs": 2, "optimizer_step_limit": 1000, "log_interval": 2,
}  # fmt: skip
BATCHES = {
    "one clip a batch": {"batch_clips": 1},
    "3 clips a batch": {"batch_clips": 3},
    "dynamic batches": {},
}


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", ["best_rq", "wav2vec2"])
def test_each_kind_of_bad_clip_is_left_out(corpus, tmp_path, fault, name, ranks):
    runs, corpora, described = [], [], []
    for workers, batches in zip([0, 2, 0, 2], [*BATCHES, "one clip a batch"]):
        bad = make_bad_corpus(corpus, tmp_path / f"{batches} {workers}")
        corpora.append(bad)
        described.append(f"{name}, {batches}, {workers} workers, {ranks} rank(s)")
        runs.append({
            **COMMON, **BATCHES[batches], "name": name, "corpus": bad.folder,
            "num_workers": workers, "output_folder": bad.folder / "run", "max_bad_audio": 1.0,
            "after_preflight": bad.remove_missing,
        })  # fmt: skip
    for bad, results, text in zip(corpora, run_on_ranks(ranks, runs), described):
        empty = check_traces([trace for trace, _ in results], bad.good)
        for _, end in results[1:]:
            assert_equal_runs(end, results[0][1])
        check_left_out(bad.folder / "run", bad.bad)
        assert empty >= 2 * len(BAD) or "one clip" not in text
        fault(
            injected=f"{len(bad.bad)} bad clips of {len(BAD)} kinds ({text})",
            expected="each left out once with its reason, ranks in step, losses finite, every "
            "other clip once an epoch",
            seen=f"that, in {sum(len(trace) for trace, _ in results)} batches, {empty} of them "
            f"empty",
        )


def test_what_the_yaml_allows_is_resampled_and_mixed_down(corpus, tmp_path, fault):
    bad = make_bad_corpus(corpus, tmp_path / "corpus")
    _, trace = run(
        **COMMON, corpus=bad.folder, output_folder=tmp_path / "run", max_bad_audio=1.0,
        after_preflight=bad.remove_missing, resample=True, mix_down=True,
    )  # fmt: skip
    check_traces([trace], bad.good | USABLE)
    check_left_out(tmp_path / "run", {k: v for k, v in bad.bad.items() if k not in USABLE})
    fault(
        injected="clips of 8000 samples per second and of 2 channels, resample: and mix_down: True",
        expected="they are trained on",
        seen="each once an epoch",
    )


def test_odd_clips_that_are_fine_are_trained_on(corpus, tmp_path, fault, caplog):
    caplog.set_level(logging.INFO)
    bad = make_bad_corpus(corpus, tmp_path / "corpus", bad=[], bad_in_valid=[])
    brain, trace = run(
        **COMMON, corpus=bad.folder, output_folder=tmp_path / "run", batch_clips=1,
        min_seconds=0.0, max_bad_audio=0.0,
    )  # fmt: skip
    assert check_traces([trace], bad.good) == 0 and brain.left_out.clips == {}
    assert all(parameter.isfinite().all() for parameter in brain.modules.parameters())
    for manifest, clips in (("train", 25), ("valid", 7)):
        text = f"{manifest}.csv: 1 of {clips} clips left out, 1 below min_seconds"
        assert text in caplog.text
    fault(
        injected=f"clips of {', '.join(FINE)}, and one that lasts 5 ms",
        expected="finite losses, each seen once an epoch; the short one left out with a count",
        seen=f"{len(trace)} finite losses; 1 of 25 clips left out",
    )


@pytest.mark.parametrize("ranks", [1, 2])
def test_too_many_bad_clips_end_the_run_on_all_ranks(corpus, tmp_path, fault, ranks):
    one = make_bad_corpus(corpus, tmp_path / "one", bad=["nan"], bad_in_valid=[])
    two = make_bad_corpus(corpus, tmp_path / "two", bad=["nan"], bad_in_valid=["text"])
    options = {**COMMON, "batch_clips": 2}
    none, tolerated, ended, again = run_on_ranks(ranks, [
        {**options, "corpus": one.folder, "output_folder": tmp_path / "none",
         "max_bad_audio": 0.0},
        {**options, "corpus": one.folder, "output_folder": tmp_path / "tolerated"},
        {**options, "corpus": two.folder, "output_folder": tmp_path / "ended"},
        {**options, "corpus": two.folder, "output_folder": tmp_path / "ended"},
    ])  # fmt: skip
    check_too_many(none, one.bad, share=0.0, count=1)
    check_traces([trace for trace, _ in tolerated], one.good)
    check_left_out(tmp_path / "tolerated", one.bad)
    check_too_many(ended, two.bad, share=0.001, count=2)
    check_too_many(again, two.bad, share=0.001, count=2)
    check_left_out(tmp_path / "ended", two.bad)
    fault(
        injected=f"1 bad clip with max_bad_audio 0 and 0.001, 2 with 0.001, of 31 and 32 clips "
        f"({ranks} rank(s))",
        expected="0.001 tolerates one; else one error on every rank names share, clip and reason",
        seen=f"{none[-1][0]}".replace(str(tmp_path), "<folder>"),
    )


@pytest.mark.parametrize("interrupt", ["SIGTERM", "death"])
def test_a_resumed_run_keeps_the_count(corpus, tmp_path, fault, interrupt):
    bad = make_bad_corpus(corpus, tmp_path / "corpus", bad=[*BAD][1:])
    options = {
        **COMMON, "corpus": bad.folder, "batch_clips": 3, "max_bad_audio": 1.0,
        "run_options": "--ckpt_interval_steps 2",
    }  # fmt: skip
    brain, trace = run(output_folder=tmp_path / "whole", **options)
    whole, lines = state(brain), left_out(tmp_path / "whole")
    stops = range(1, len(trace), 3)
    for at in stops:
        folder = tmp_path / f"stopped {at}"
        run(output_folder=folder, interrupt=interrupt, at=at, **options)
        resumed, _ = run(output_folder=folder, **options)
        assert_equal_runs(state(resumed), whole)
        assert left_out(folder) == lines and resumed.left_out.clips == brain.left_out.clips
    fault(
        injected=f"{interrupt} at {len(stops)} points of a run that leaves out {len(lines)} clips",
        expected="the resumed run's left_out.jsonl and last bit are those of the whole run",
        seen=f"{len(stops)} of {len(stops)} equal",
    )


ROW = "a,3.0,$data_root/a.wav\n"
HEADER = "ID,duration,wav\n"
MANIFESTS = {
    "no file": (None, "the manifest .* cannot be read"),
    "no rows": (HEADER, "has no rows: add a line"),
    "no column duration": ("ID,wav\na,a.wav\n", "lacks the column 'duration'"),
    "a missing ID": (HEADER + ",3.0,$data_root/a.wav\n", "line 2, ID '': the column ID is empty"),
    "a doubled ID": (HEADER + ROW + ROW, "line 3, ID 'a': line 2 has the same ID"),
    "a file that does not exist": (HEADER + ROW.replace("a.wav", "b.wav"), "b.wav"),
    **{
        f"the duration {text!r}": (HEADER + ROW.replace("3.0", text), f"line 2, ID 'a': .*{text}")
        for text in ("-3", "0", "nan", "inf", "long")
    },
}


def test_manifests_that_are_not_right_end_the_run_before_its_first_step(corpus, tmp_path, fault):
    bad = make_bad_corpus(corpus, tmp_path / "corpus", bad=[], bad_in_valid=[])
    (bad.folder / "a.wav").write_bytes((bad.folder / "bad" / "silence.wav").read_bytes())
    brain, hparams = build("best_rq", bad.folder, tmp_path / "run")
    load = functools.partial(make_loaders, hparams, min_samples=brain.min_samples)
    for key in ("train_csv", "valid_csv"):
        manifest = hparams[key] = str(tmp_path / key)
        for what, (content, message) in MANIFESTS.items():
            (tmp_path / key).unlink(missing_ok=True)
            if content is not None:
                (tmp_path / key).write_text(content)
            with pytest.raises(ValueError, match=message) as error:
                load()
            text = str(error.value)
            assert manifest in text and "\n" not in text
            if key == "train_csv":
                seen = text.replace(str(tmp_path), "<folder>")
                fault(injected=f"a manifest with {what}", expected="one line", seen=seen)
        (tmp_path / key).write_text("\ufeff" + HEADER + ROW, "utf-8")
    train, _ = load()
    assert list(train.dataset.data_ids) == ["a"]
    fault(
        injected="a manifest with a byte-order mark",
        expected="it is no part of the first column's name",
        seen="the clip is loaded",
    )
