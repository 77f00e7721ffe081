import sys

import numpy as np
import pytest

pytest.importorskip("espeakng_loader")

from brainquant.data.toy_speech.espeak import Espeak, espeak_paths, synthesise_apart

SENTENCE = "The captain measured a big bottle, and the judge gave thanks."


@pytest.fixture(scope="module")
def spoken():
    return synthesise_apart([SENTENCE], voice="en-us+m3")[0]


def test_the_phones_are_those_of_the_sentence(spoken):
    _, _, phones = spoken
    names = [name for _, _, name in phones][1:]  # without the silence before
    pause = names.index("SIL")
    assert names[:pause] == "ð ə k æ p t ɪ n m ɛ ʒ ɚ d ɐ b ɪ ɡ b ɑː ɾ əl".split()
    assert names[pause + 1 : -1] == "æ n d ð ə dʒ ʌ dʒ ɡ eɪ v θ æ ŋ k s".split()


def test_the_phones_cover_the_samples_without_gaps(spoken):
    samples, rate, phones = spoken
    assert samples.dtype == np.int16 and samples.ndim == 1
    assert phones[0][0] == 0 and round(phones[-1][1] * rate) == len(samples)
    assert all(end == start for (_, end, _), (start, _, _) in zip(phones, phones[1:], strict=False))
    assert all(end > start for start, end, _ in phones)


def test_pauses_are_silent_and_vowels_are_loud(spoken):
    samples, rate, phones = spoken
    parts = [(name, samples[round(s * rate) : round(e * rate)]) for s, e, name in phones]
    rms = [(name, np.sqrt(np.mean(part.astype(float) ** 2))) for name, part in parts]
    loudest = max(value for _, value in rms)
    assert all(value < 0.01 * loudest for name, value in rms if name == "SIL")
    assert all(value > 0.1 * loudest for name, value in rms if name[0] in "æɛɪɑeʌ")


def test_a_stop_begins_with_its_closure(spoken):
    samples, rate, phones = spoken
    start, end, _ = next(phone for phone in phones if phone[2] == "k")
    stop = np.abs(samples[round(start * rate) : round(end * rate)].astype(int))
    assert stop[: int(0.02 * rate)].max() < 0.02 * np.abs(samples).max() < stop.max()


def test_pitch_and_rate_do_what_they_say():
    def period(samples, rate):
        middle = samples[len(samples) // 4 : len(samples) // 4 + rate // 4].astype(float)
        spectrum = np.abs(np.fft.rfft(middle, 2 * len(middle))) ** 2
        similarity = np.fft.irfft(spectrum)
        shortest = rate // 400
        return shortest + np.argmax(similarity[shortest : rate // 60])

    low, high = (
        synthesise_apart(["Aaaah."], voice="en-us+m3", pitch=pitch, pitch_range=0)[0]
        for pitch in (20, 80)
    )
    assert period(*low[:2]) > 1.3 * period(*high[:2])
    slow, fast = (synthesise_apart([SENTENCE], rate=rate)[0] for rate in (120, 240))
    assert len(slow[0]) > 1.5 * len(fast[0])


def test_in_a_new_process_a_text_always_sounds_the_same(spoken):
    again = synthesise_apart([SENTENCE, "And so on."], voice="en-us+m3")[0]
    assert np.array_equal(spoken[0], again[0]) and spoken[2] == again[2]


@pytest.mark.parametrize(
    "argument",
    [{"voice": "xx"}, {"voice": "en-us+nobody"}, {"rate": 5}, {"pitch": 100}, {"pitch_range": -1}],
)
def test_a_wrong_argument_is_named(argument):
    ((key, value),) = argument.items()
    with pytest.raises(ValueError, match=f"{key} must be .*{key}='?{str(value)[:2]}"):
        Espeak().synthesise("Hello.", **argument)


def test_a_failure_in_the_other_process_is_told():
    with pytest.raises(RuntimeError, match="voice must be a voice of espeak-ng, got voice='xx'"):
        synthesise_apart(["Hello."], voice="xx")


def test_without_the_extra_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(ImportError, match=r'pip install "brainquant\[demo\]".*-e "\.\[demo\]"'):
        espeak_paths()
