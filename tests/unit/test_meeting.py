"""The meeting of the ranks after each step, without a Brain."""

import signal

import pytest
from small_run import ranks

from brainquant.monitoring.run_log import RunLog
from brainquant.processes.signals import Stopped
from brainquant.training.left_out import LeftOut
from brainquant.training.meeting import Meeting
from brainquant.training.watchdog import Watchdog


def make(folder):
    left_out = LeftOut(RunLog(str(folder), []), max_bad_audio=1.0)
    left_out.num_clips = 1
    return Meeting(left_out, Watchdog(0))


def test_all_ranks_stop_and_save_together_and_know_what_was_left_out(tmp_path):
    def rank(number):
        meeting = make(tmp_path)
        seen = [meeting.meet(1, save_due=number == 1)]  # only the clock of rank 0 counts
        seen.append(meeting.meet(2, save_due=number == 0))
        meeting.left_out.note([("a", "no")] * number)
        with meeting.signals:
            if number == 1:
                signal.raise_signal(signal.SIGTERM)
            seen.append(meeting.meet(3))
        return seen, meeting.left_out.clips

    expected = [(False, False), (False, True), (True, False)], {"a": "no"}
    assert ranks(rank) == [expected, expected]


def test_the_end_names_the_signal_and_what_is_saved(tmp_path, caplog):
    meeting = make(tmp_path)
    with meeting.signals:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped) as end:
            meeting.end(7, "saved in CKPT+7")
    assert end.value.code == 128 + signal.SIGTERM
    assert "Stopped by SIGTERM after step 7: saved in CKPT+7" in caplog.text
