"""ToySpeech: synthesised English with exact phone times; nothing is downloaded."""

from .preparation import prepare_toy_speech

__all__ = ["prepare_toy_speech"]
