"""Log-mel as a reference: it sees the same stretch of time as the encoder."""

import numpy as np
import pytest
import torch

from brainquant.evaluation.frozen import log_mel_windows

TIMES = 0.02 + 0.04 * np.arange(25)  # of a second, in encoder frames of 40 ms


@pytest.mark.parametrize("context", [0, 1, 3])
def test_log_mel_sees_an_encoder_frame_and_its_context(context):
    sig = torch.zeros(16000)
    sig[8000] = 1.0  # a click after half a second
    windows = log_mel_windows(sig, 16000, TIMES, context)
    assert windows.shape == (25, (2 * context + 1) * 4 * 80)
    heard = windows.max(1) > windows.max() / 2
    far = np.abs(TIMES - 0.5) - 0.02 * (2 * context + 1)  # below 0 where it is inside
    assert heard[far < -0.005].all() and not heard[far > 0.025].any()  # a window is 25 ms long


def test_a_louder_recording_has_the_same_log_mel():
    sig = torch.randn(16000, generator=torch.manual_seed(0))
    soft, loud = (log_mel_windows(x, 16000, TIMES, 1) for x in (sig, 10 * sig))
    assert np.abs(soft - loud).max() < 0.01
