"""Clips and steps that training leaves out."""

import json

import pytest
from small_run import ranks

from brainquant.errors import RunError
from brainquant.monitoring.run_log import RunLog
from brainquant.training.left_out import LeftOut


def make(folder, share=0.5, num_clips=4):
    left_out = LeftOut(RunLog(str(folder), []), share)
    left_out.num_clips = num_clips
    return left_out


def lines(folder):
    return [
        json.loads(line) for line in (folder / "left_out.jsonl").read_text("utf-8").splitlines()
    ]


def test_each_clip_is_written_once_with_its_reason(tmp_path, caplog):
    left_out = make(tmp_path)
    for step in (3, 4):
        left_out.note([("a", "a.wav: cannot be read")])
        left_out.exchange(step)
    left_out.write_step(5, 2, "the loss", [["b", "c"]])
    clip = {"kind": "clip", "step": 3, "id": "a", "reason": "a.wav: cannot be read"}
    step = {"kind": "step", "step": 5, "epoch": 2, "reason": "the loss is not finite",
            "ids": [["b", "c"]]}  # fmt: skip
    assert lines(tmp_path) == [clip, step]
    assert caplog.messages.count("clip 'a' left out: a.wav: cannot be read") == 1


def test_more_than_the_allowed_share_end_the_run(tmp_path):
    left_out = make(tmp_path, share=0.3)  # 1.2 clips, rounded up
    left_out.note([("a", "no"), ("b", "no")])
    left_out.exchange(1)
    left_out.note([("c", "its end is missing")])
    with pytest.raises(RunError, match="3 of 4 clips.*max_bad_audio: 0.3.*'c': its end is missing"):
        left_out.exchange(2)


def test_a_checkpoint_keeps_the_clips(tmp_path):
    left_out = make(tmp_path)
    left_out.note([("a", "no")])
    left_out.exchange(1)
    again = make(tmp_path)
    again.load_state_dict(left_out.state_dict())
    again.note([("a", "no")])
    assert again.clips == {"a": "no"} and not again.new
    with pytest.raises(ValueError, match="clips left out are a list"):
        again.load_state_dict({"clips": ["a"]})


def test_all_ranks_know_the_clips_of_each(tmp_path):
    def rank(number):
        left_out = make(tmp_path)
        left_out.note([("abc"[number], "no")] * (number == 1))
        left_out.exchange(1)
        return left_out.clips

    assert ranks(rank) == [{"b": "no"}] * 2
    assert [line["id"] for line in lines(tmp_path)] == ["b"]
