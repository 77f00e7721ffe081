"""Audio files: what they hold, and how a clip becomes a waveform."""

from .files import BadAudio
from .reader import AudioReader

__all__ = ["AudioReader", "BadAudio"]
