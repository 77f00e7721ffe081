"""References of a probe: log-mel of the same stretch of time, and the front end."""

import numpy as np
import pytest
import tiny_encoders
import torch
from tiny_huggingface import make_model

from brainquant.evaluation.frozen import encode, encode_with_front_end, log_mel_windows
from brainquant.huggingface.bert_encoder import W2vBertEncoder
from brainquant.huggingface.encoder import HuggingFaceEncoder

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


def steps(encoder, wavs_BL, lengths_B):
    return encoder.steps(encoder.features(wavs_BL, lengths_B)[0])


FRONT_ENDS = {
    "best_rq": (tiny_encoders.best_rq, steps),
    "best_rq in chunks": (lambda: tiny_encoders.best_rq(chunks=(4, 1)), steps),
    "wav2vec2": (tiny_encoders.wav2vec2, lambda e, *clips: e.extractor(*clips)[0]),
    "hubert": (lambda: HuggingFaceEncoder(make_model("HubertModel")),
               lambda e, *clips: e.norm(e.convolve(*clips))),
    "w2v-bert": (lambda: W2vBertEncoder(make_model("Wav2Vec2BertModel")),
                 lambda e, *clips: e.features(*clips)[0]),
}  # fmt: skip


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_the_front_end_is_what_the_transformer_reads(name):
    make, front_end = FRONT_ENDS[name]
    encoder, sig = make().eval(), torch.randn(16000, generator=torch.manual_seed(0))
    read_TC, layers = encode_with_front_end(encoder, sig)
    with torch.no_grad():
        expected_BTC = front_end(encoder, sig[None], torch.tensor([16000]))
    assert np.array_equal(read_TC, expected_BTC[0].numpy())
    assert len(read_TC) == encoder.count_frames(16000)
    alone = encode(encoder, sig)  # and no hook is left
    assert len(layers) == 2 and all(map(np.array_equal, layers, alone))
