"""A run leaves out what it cannot train on and says so; tests/faults has all of it."""

from bad_corpus import check_left_out, check_too_many, check_traces, make_bad_corpus
from tiny_run import run_on_ranks


def test_two_ranks_leave_out_each_bad_clip_once_or_end_at_the_first(corpus, tmp_path):
    bad = make_bad_corpus(corpus, tmp_path / "corpus")
    few = make_bad_corpus(corpus, tmp_path / "few", bad=["nan"], bad_in_valid=[])
    options = {
        "name": "best_rq", "batch_clips": 1, "number_of_epochs": 1, "optimizer_step_limit": 1000,
    }  # fmt: skip
    survived, ended = run_on_ranks(2, [
        {**options, "corpus": bad.folder, "output_folder": tmp_path / "survived",
         "max_bad_audio": 1.0, "after_preflight": bad.remove_missing},
        {**options, "corpus": few.folder, "output_folder": tmp_path / "ended",
         "max_bad_audio": 0.0},
    ])  # fmt: skip
    empty = check_traces([trace for trace, _ in survived], bad.good)
    assert empty >= sum(not clip.startswith("valid") for clip in bad.bad)
    check_left_out(tmp_path / "survived", bad.bad)
    check_too_many(ended, few.bad, share=0.0, count=1)
