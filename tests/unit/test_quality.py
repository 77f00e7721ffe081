"""When the quality of a run's encoder is measured, on what, and that this changes nothing."""

import types

import pytest
import torch
from tiny_encoders import best_rq, wav2vec2
from tiny_huggingface import make_model

from brainquant.data.workers import LeftOutClip
from brainquant.huggingface import HuggingFaceEncoder
from brainquant.huggingface.bert_encoder import W2vBertEncoder
from brainquant.models import InputNormalization
from brainquant.monitoring.quality import LAYER_NUMBERS
from brainquant.training.quality import SPARSE, Quality, check_what_keeps_the_best


class Clips(list):
    """A dataset of clips of so many seconds."""

    def __init__(self, *seconds):
        draw = torch.Generator().manual_seed(0)
        super().__init__(
            {"id": str(n), "sig": torch.randn(int(16000 * s), generator=draw).cumsum(0) / 100}
            for n, s in enumerate(seconds)
        )
        self.data = {str(n): {"duration": str(s)} for n, s in enumerate(seconds)}


def loader(*seconds, batches=1):
    sampler = types.SimpleNamespace(total=batches)
    return types.SimpleNamespace(dataset=Clips(*seconds), batch_sampler=sampler)


def held():
    return HuggingFaceEncoder(make_model("Wav2Vec2Model"))


def held_bert():
    return W2vBertEncoder(make_model("Wav2Vec2BertModel"))


def globally_normalised():
    encoder = best_rq(normalize=InputNormalization(norm_type="global"))
    encoder.train().quantiser_inputs(torch.randn(1, 16000), torch.tensor([16000]))
    return encoder


@pytest.mark.parametrize("make", [best_rq, globally_normalised, wav2vec2, held, held_bert])
def test_it_measures_every_layer_and_changes_nothing(make):
    encoder, clips = make().train(), Clips(2, 3)
    encoder.layers[0].eval()  # not the mode of the others
    modes = [module.training for module in encoder.modules()]
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    torch.manual_seed(1)
    drawn = torch.rand(3)
    torch.manual_seed(1)
    numbers = Quality(1.0, seed=0).measure(encoder, clips, 5)
    assert torch.equal(torch.rand(3), drawn)
    assert [module.training for module in encoder.modules()] == modes
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    for name in LAYER_NUMBERS:
        assert len(numbers[name]) == len(encoder.layers)
        assert numbers[f"mean_{name}"] == pytest.approx(sum(numbers[name]) / len(numbers[name]))
    assert -1 < numbers["mean_units_repeat"] < 1 < numbers["mean_effective_rank"]
    assert Quality(1.0, seed=0).measure(encoder, clips, 5) == numbers


def test_it_reads_some_seconds_of_several_clips_and_skips_what_cannot_be_read():
    encoder, clips = wav2vec2(), Clips(25, 4, 4, 4, 4)
    clips[1] = LeftOutClip("1", "1.wav: cannot be read")
    quality = Quality(0.35, seed=0)  # 21 s
    read = quality.read_clips(clips, encoder)
    lengths = [len(wav_L) for wav_L, _ in read]
    assert sum(lengths) == 21 * 16000 and max(lengths) <= 10 * 16000
    assert all(len(other) == -(-10 * len(wav_L) // 9) for wav_L, other in read)
    assert quality.read_clips(None, encoder) is read  # every time the same


def test_a_layer_that_is_not_finite_is_null_and_too_little_speech_gives_nothing(caplog):
    encoder = wav2vec2()
    last = encoder.layers[1]
    last.register_forward_hook(lambda module, inputs, output: (output[0] * torch.nan, None))
    numbers = Quality(1.0, seed=0).measure(encoder, Clips(2, 3), 5)
    assert numbers["units_repeat"][1] is None
    assert numbers["mean_units_repeat"] == numbers["units_repeat"][0]
    quality = Quality(1.0, seed=0)
    with caplog.at_level("INFO"):
        quality.keep_start(quality.measure(encoder, Clips(0.1), 0))
    assert quality.start == {} and "valid_csv has too little speech" in caplog.text


def test_it_is_measured_after_so_many_times_as_much_speech_and_at_the_end():
    quality, train = Quality(1.0, seed=0), loader(*[12] * 50, batches=100)  # 6 s in a batch
    quality.prepare(wav2vec2(), train, loader(*[10] * 12), batches_per_step=2)
    assert quality.interval == SPARSE["cpu"] * 60 / 12 == 550
    assert [quality.is_due(step) for step in (0, 549, 550)] == [False, False, True]
    quality.measure(wav2vec2(), Clips(1), 550)
    assert [quality.is_due(step) for step in (550, 1099, 1100)] == [False, False, True]
    assert quality.is_due(551, is_last=True) and not quality.is_due(550, is_last=True)
    small = Quality(1.0, seed=0)  # the validation set has less than a minute
    small.prepare(wav2vec2(), train, loader(6, 6), batches_per_step=2)
    assert small.interval == 110 * 12 / 12


def test_it_is_never_measured_for_no_minutes_or_an_encoder_without_layers(caplog):
    none, odd = Quality(0.0, seed=0), Quality(1.0, seed=0)
    none.prepare(wav2vec2(), loader(12), loader(12), 1)
    encoder = wav2vec2()
    encoder.transformer = torch.nn.Linear(1, 1)
    with caplog.at_level("INFO"):
        odd.prepare(encoder, loader(12), loader(12), 1)
    assert "no part of Linear has an attribute layers" in caplog.text
    for quality in (none, odd):
        assert not quality.is_wanted and not quality.is_due(10**9, is_last=True)


def test_a_checkpoint_has_the_start_and_the_last_step_and_older_ones_have_none():
    quality, resumed = Quality(1.0, seed=0), Quality(1.0, seed=0)
    quality.keep_start(quality.measure(wav2vec2(), Clips(2), 0))
    quality.measure(wav2vec2(), Clips(2), 7)
    resumed.load_state_dict(quality.state_dict())
    assert resumed.start == quality.start and list(resumed.start) == [
        "start_effective_rank", "start_units_repeat",
        "start_mean_effective_rank", "start_mean_units_repeat",
    ]  # fmt: skip
    assert resumed.last_step == 7
    resumed.load_state_dict(Quality.without_state)
    assert resumed.start == {} and resumed.last_step == 0


@pytest.mark.parametrize(
    "changes, named", [({"quality_minutes": 0}, "quality_minutes"), ({"valid_csv": None}, "valid_")]
)
def test_what_is_not_measured_keeps_no_checkpoint(changes, named):
    hparams = {"keep_best_by": "units", "quality_minutes": 1.0, "valid_csv": "a.csv"}
    check_what_keeps_the_best(types.SimpleNamespace(**hparams))
    check_what_keeps_the_best(
        types.SimpleNamespace(**{**hparams, **changes, "keep_best_by": "loss"})
    )
    with pytest.raises(ValueError, match=f"keep_best_by is units.*but {named}.*keep_best_by: loss"):
        check_what_keeps_the_best(types.SimpleNamespace(**{**hparams, **changes}))
