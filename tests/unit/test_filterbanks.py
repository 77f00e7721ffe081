"""The inputs of w2v-BERT 2.0 are those of transformers, for each clip of a batch."""

import pytest
import torch

from brainquant.huggingface.filterbanks import Filterbanks

transformers = pytest.importorskip("transformers")


def tones(seconds, seed):
    """Tones with noise that come and go, so the features vary as those of speech do."""
    generator = torch.Generator().manual_seed(seed)
    time_L = torch.arange(int(seconds * 16000)) / 16000
    wav_L = 0.01 * torch.randn(len(time_L), generator=generator)
    for hertz in (150, 700, 1900, 4200):
        wav_L += 0.2 * torch.sin(6.2832 * hertz * time_L) * torch.sin(hertz / 99 * time_L) ** 2
    return wav_L


@pytest.mark.parametrize("n_mels", [80, 20])
def test_each_clip_has_the_inputs_that_transformers_gives_it_alone(n_mels):
    extractor = transformers.SeamlessM4TFeatureExtractor(feature_size=n_mels, num_mel_bins=n_mels)
    # 400 samples make one frame; an odd frame is left over in the first clips.
    lengths_B = torch.tensor([16000 + 160, 16000, 9001, 720, 560, 400, 399])
    clips = [tones(2, seed)[:length] for seed, length in enumerate(lengths_B.tolist())]
    wavs_BL = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    filterbanks = Filterbanks(n_mels=n_mels)
    feats_BSI = filterbanks(wavs_BL, lengths_B)
    frames_B = filterbanks.count_frames(lengths_B) // 2
    assert feats_BSI.dtype == torch.float32 and feats_BSI.shape[1] == frames_B.max()
    for clip_L, feats_SI, frames in zip(clips, feats_BSI, frames_B.tolist()):
        assert (feats_SI[frames:] == 0).all()
        if len(clip_L) < 560:  # without whole frames, or with one, whose variance is not defined
            assert frames < 2 and (feats_SI[:frames] == 0).all()
            continue
        made = extractor(clip_L.numpy(), sampling_rate=16000, return_tensors="pt")
        assert int(made["attention_mask"].sum()) == frames
        torch.testing.assert_close(
            feats_SI[:frames], made["input_features"][0, :frames], rtol=0, atol=1e-4
        )


def test_autocast_and_what_follows_a_clip_change_nothing():
    filterbanks, wav_L = Filterbanks(), tones(1, 0)
    alone_SI = filterbanks(wav_L[None], torch.tensor([16000]))[0]
    wavs_BL = torch.nn.functional.pad(wav_L, (0, 5000), value=0.3)[None]
    with torch.autocast("cpu", torch.bfloat16):
        longer_SI = filterbanks(wavs_BL, torch.tensor([16000]))[0]
    torch.testing.assert_close(longer_SI[:49], alone_SI, rtol=0, atol=1e-5)
    assert "mel_weights" not in filterbanks.state_dict()
