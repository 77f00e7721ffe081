"""Your own speech: a folder of audio files, or a manifest in one of many forms."""

from .preparation import prepare_own_speech

__all__ = ["prepare_own_speech"]
