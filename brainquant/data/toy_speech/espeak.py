"""Speech synthesis with espeak-ng: text becomes samples and the times of their phones.

espeak-ng and its voices come in the wheel of the PyPI package ``espeakng-loader``. This file
imports nothing from brainquant: `synthesise_apart` runs it as the script of a small process.
"""

import ctypes
import functools
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

SILENCE = "SIL"

# Samples (int16), sample rate, and phones: start and end in seconds, and the name
Utterance = tuple[np.ndarray, int, list[tuple[float, float, str]]]

_SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT
_PHONEME_EVENTS, _PHONEME_IPA, _DONT_EXIT = 1, 2, 0x8000  # the options of espeak_Initialize
_RATE, _PITCH, _RANGE = 1, 3, 4  # espeak_PARAMETER
_UTF8 = 1
_END_OF_LIST, _PHONEME = 0, 7  # espeak_EVENT_TYPE
_STOPS = ("p", "b", "t", "d", "k", "ɡ", "ʔ")  # affricates begin with one of these
_QUIET = 0.005  # of an utterance's peak: quieter samples are a closure or a pause


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_void_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # whole milliseconds
        ("sample", ctypes.c_int),  # the same moment, exact
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


def espeak_paths() -> tuple[str, str]:
    """The paths of espeak-ng's shared library and of its voice data.

    An ImportError is raised if the package `espeakng-loader` is missing.

    Example
    -------
    >>> library, data = espeak_paths()
    >>> os.path.isfile(os.path.join(data, "voices", "!v", "f1"))
    True
    """
    try:
        import espeakng_loader
    except ImportError as error:
        raise ImportError(
            'ToySpeech needs espeak-ng: pip install "brainquant[demo]", '
            'or pip install -e ".[demo]" in a clone of the repository'
        ) from error
    return espeakng_loader.get_library_path(), espeakng_loader.get_data_path()


@functools.cache
def _initialised() -> tuple[ctypes.CDLL, int, str]:
    """The library, its rate and its data folder. It must be initialised once in a process."""
    library_path, data_path = espeak_paths()
    library = ctypes.CDLL(library_path)
    options = _PHONEME_EVENTS | _PHONEME_IPA | _DONT_EXIT
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, os.fsencode(data_path), options)
    if rate <= 0:
        raise RuntimeError(
            f"espeak-ng could not read its voices in {data_path} (espeak_Initialize gave {rate}); "
            "reinstall espeakng-loader, in a folder whose path is shorter than 150 characters"
        )
    return library, rate, data_path


class Espeak:
    """espeak-ng in this process.

    espeak-ng has one global state: use it from one thread. The state (wobble, noise) continues from
    one utterance to the next, so the samples of a text depend on the texts before it. Each
    `synthesise_apart` starts with a new state.

    Example
    -------
    >>> samples, rate, phones = Espeak().synthesise("Speak.", voice="en-us+m3")
    >>> [phone for _, _, phone in phones if phone != "SIL"]
    ['s', 'p', 'iː', 'k']
    >>> round(phones[-1][1] * rate) == len(samples)
    True
    """

    def __init__(self):
        self._library, self.sample_rate, self._data_path = _initialised()

    def synthesise(
        self,
        text: str,
        *,
        voice: str = "en-us",
        rate: int = 160,
        pitch: int = 50,
        pitch_range: int = 50,
    ) -> Utterance:
        """Speaks a text.

        Arguments
        ---------
        text : str
        voice : str
            A language of espeak-ng, perhaps with "+" and a variant, such as "en-us+f1".
        rate : int
            Words per minute, 80 to 450.
        pitch : int
            0 to 99; 50 is the voice's own.
        pitch_range : int
            0 (monotone) to 99; 50 is the voice's own.

        Returns
        -------
        samples : numpy.ndarray
            The audio, int16, of shape (samples,).
        sample_rate : int
            espeak-ng's own rate in Hz.
        phones : list of tuple
            (start, end, phone) in seconds, without gaps from 0 to the end of the samples. The names
            are IPA without stress marks; a pause is "SIL". A stop begins with its closure. An "l"
            that closes a syllable has no time in espeak-ng: it is one phone with its vowel ("ɛl").

        Raises
        ------
        ValueError
            If an argument is out of range or espeak-ng has no such voice.
        """
        self._set_voice(voice)
        for key, value, number, low, high in (
            ("rate", rate, _RATE, 80, 450),
            ("pitch", pitch, _PITCH, 0, 99),
            ("pitch_range", pitch_range, _RANGE, 0, 99),
        ):
            if not low <= value <= high:
                raise ValueError(f"{key} must be from {low} to {high}, got {key}={value}")
            self._library.espeak_SetParameter(number, int(value), 0)

        blocks, events = [np.zeros(0, np.int16)], []

        def receive(samples: Any, count: int, event: Any) -> int:
            if samples and count > 0:
                blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
            index = 0
            while event[index].type != _END_OF_LIST:
                if event[index].type == _PHONEME:
                    name = event[index].id.string.decode("utf-8", "ignore")
                    events.append((event[index].sample, name.lstrip("ˈˌ").replace(":", "ː")))
                index += 1
            return 0

        callback = _Callback(receive)  # the name keeps it alive while C calls it
        self._library.espeak_SetSynthCallback(callback)
        data = text.encode("utf-8") + b"\0"
        status = self._library.espeak_Synth(data, len(data), 0, 1, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        samples = np.concatenate(blocks)
        if status != 0 or not samples.size:
            raise ValueError(f"text must have something to speak, got text={text!r}")
        phones = [
            (start / self.sample_rate, end / self.sample_rate, name)
            for start, end, name in _phones(samples, events)
        ]
        return samples, self.sample_rate, phones

    def _set_voice(self, voice: str) -> None:
        # If a variant does not exist, espeak-ng takes the plain voice without a warning.
        _, plus, variant = voice.partition("+")
        known = not plus or variant in os.listdir(os.path.join(self._data_path, "voices", "!v"))
        if not known or self._library.espeak_SetVoiceByName(voice.encode("utf-8")) != 0:
            raise ValueError(
                f"voice must be a voice of espeak-ng, got voice={voice!r}; "
                "use one such as 'en-us', 'en' (British) or 'en-us+f1'"
            )


def _phones(samples: np.ndarray, events: list[tuple[int, str]]) -> list[list[Any]]:
    """Phones as [start, end, name] in samples, from the (start, name) that espeak-ng reports."""
    loud = np.abs(samples.astype(np.int32)) > _QUIET * np.abs(samples.astype(np.int32)).max()
    starts = [min(start, len(samples)) for start, _ in events] + [len(samples)]
    if loud[: starts[0]].any():  # the first phone is reported a little late
        starts[0] = 0
    phones = [[0, starts[0], SILENCE]]
    for (_, name), start, end in zip(events, starts, starts[1:], strict=False):
        if end <= start:
            continue
        silent = not loud[start:end].any()
        before = phones[-1]
        if name == "" and silent:  # a pause
            name = SILENCE
        if name == before[2] == SILENCE or name == "":  # a longer pause, or a glide in a vowel
            before[1] = end
        elif name == "l" and silent and before[2] != SILENCE:  # its sound is in the vowel before
            before[1], before[2] = end, before[2] + "l"
        else:
            if name.startswith(_STOPS) and before[2] != SILENCE:  # reported at its burst
                sounding = np.flatnonzero(loud[before[0] : start])
                if sounding.size:
                    start = before[1] = before[0] + int(sounding[-1]) + 1
            phones.append([start, end, name])
    return [phone for phone in phones if phone[1] > phone[0]]


def synthesise_apart(
    texts: Iterable[str],
    *,
    voice: str = "en-us",
    rate: int = 160,
    pitch: int = 50,
    pitch_range: int = 50,
) -> list[Utterance]:
    """`Espeak.synthesise` for several texts, in a new process: samples depend on nothing else.

    Example
    -------
    >>> first = synthesise_apart(["Good morning."])
    >>> again = synthesise_apart(["Good morning.", "Good night."])
    >>> bool((first[0][0] == again[0][0]).all())
    True
    """
    espeak_paths()  # raises here if it is missing
    speaker = {"voice": voice, "rate": rate, "pitch": pitch, "pitch_range": pitch_range}
    request = {"texts": list(texts), "speaker": speaker}
    answer = subprocess.run(
        [sys.executable, os.path.abspath(__file__)],
        input=json.dumps(request).encode("ascii"),
        capture_output=True,
    )
    if answer.returncode != 0:
        raise RuntimeError(
            f"espeak-ng could not speak {len(request['texts'])} texts with {request['speaker']}; "
            f"its process ended with {answer.returncode}:\n{answer.stderr.decode(errors='replace')}"
        )
    with np.load(io.BytesIO(answer.stdout)) as arrays:
        said = json.loads(arrays["said"].tobytes())
        return [
            (arrays[str(index)], sample_rate, [tuple(phone) for phone in phones])
            for index, (sample_rate, phones) in enumerate(said)
        ]


def _answer() -> None:
    """The process of `synthesise_apart`: a request on stdin, arrays on stdout."""
    request = json.load(sys.stdin.buffer)
    espeak = Espeak()
    utterances = [espeak.synthesise(text, **request["speaker"]) for text in request["texts"]]
    arrays: dict[str, Any] = {
        str(index): samples for index, (samples, _, _) in enumerate(utterances)
    }
    said = json.dumps([(sample_rate, phones) for _, sample_rate, phones in utterances])
    buffer = io.BytesIO()
    np.savez(buffer, said=np.frombuffer(said.encode("ascii"), np.uint8), **arrays)
    sys.stdout.buffer.write(buffer.getvalue())


if __name__ == "__main__":
    _answer()
