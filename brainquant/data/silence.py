"""Refuses a corpus that is digital silence."""

import torch

from .workers import LeftOutClip, ReadableClips

MOST_CLIPS = 100  # that are read: in a corpus with sound, the first one or two are enough


def check_sound(clips: ReadableClips, generator: torch.Generator) -> None:
    """Reads clips, drawn from a corpus, until one has sound.

    In digital silence all samples are equal. All frames are equal then, so they have no directions
    to whiten, no clusters, and one code.

    The generator draws the clips. A ValueError names some of them if all that were read are silent.

    Example
    -------
    >>> class Clips(list):
    ...     data = {"a": {"wav": "a.wav"}}
    >>> check_sound(Clips([{"id": "a", "sig": torch.tensor([0.0, 0.1])}]), torch.Generator())
    >>> silence = Clips([{"id": "a", "sig": torch.zeros(16000)}])
    >>> check_sound(silence, torch.Generator())  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: all 1 clips that were read, of 1, are digital silence ... a.wav; ...
    """
    silent = []
    for index in torch.randperm(len(clips), generator=generator).tolist():
        clip = clips[index]
        if isinstance(clip, LeftOutClip):
            continue
        if (clip["sig"] != clip["sig"][0]).any():
            return
        silent.append(clips.data[clip["id"]]["wav"])
        if len(silent) == MOST_CLIPS:
            break
    if silent:
        raise ValueError(
            f"all {len(silent)} clips that were read, of {len(clips)}, are digital silence "
            f"(every sample has the same value), for instance {', '.join(silent[:3])}; listen to "
            f"them, mend the recording or the conversion, and set train_csv: to audio with sound"
        )
