"""Audio of any length: files, waveforms and streams, encoded in bounded memory.

What a model computes from all of a recording (levels, means and variances) is measured over all of
it; only what a frame attends to is limited to a window. docs/how_to/long_audio.md shows by how
much that changes the hidden states.

Shape suffixes: L samples, T encoder frames, D dim, G codebooks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from ..functional.pieces import Blocks
from ..models import SpeechEncoder
from ..models.long_features import FramesInPieces
from ..quantisers import Quantiser
from .sources import Audio, as_waveform, blocks_of, read_short
from .window_encoder import encode_windows, make_plan

WHOLE_SECONDS = 30.0  # recordings up to this length are encoded as a whole
LATENCY_SECONDS = 1.0  # of chunks that an encoder of dynamic chunk training reads at once
STREAM_SECONDS = 0.5  # of a stream whose features are made at once


class Stretch(NamedTuple):
    """Hidden states of a part of a stream."""

    hidden: Any  # (frames, dim); a list of such tensors if layers were asked for
    start: int  # its first frame, counted from the start of the stream


@torch.no_grad()
def encode_long(
    encoder: SpeechEncoder,
    audio: Audio,
    *,
    layers: Sequence[int] | None = None,
    context_seconds: float | None = None,
) -> Any:
    """Hidden states of a recording of any length, on the CPU.

    Up to 30 s they are those of ``encoder`` itself. A longer recording is encoded in windows: the
    memory that this needs beside the result does not depend on its length. Encoders of dynamic
    chunk training with a limited left context give what they give for the whole.

    Arguments
    ---------
    encoder : SpeechEncoder
        In evaluation mode.
    audio : torch.Tensor, str or os.PathLike
        A waveform at the encoder's sample rate, shape (samples,), or a file. A file of another rate
        is resampled, and its channels are mixed; the log says so once.
    layers : sequence of int or None
        k is the output of layer k, from 1; 0 is the input of the quantiser. None: the output of the
        encoder.
    context_seconds : float or None
        Audio on both sides of a window that is encoded with it; twice as much is kept of each
        window. None: ``encoder.context_seconds``.

    Returns
    -------
    hidden : torch.Tensor or list of torch.Tensor
        Shape (frames, dim); a list if there are ``layers``, in their order.

    Raises
    ------
    ValueError
        If the file cannot be read, or there is no such layer.
    """
    _check_layers(encoder, layers)
    plan = make_plan(encoder, context_seconds)
    make_blocks = blocks_of(audio, encoder.sample_rate)
    if (wav_L := _read_short(make_blocks(), encoder)) is not None:
        return _encode_whole(encoder, wav_L, layers)
    front = encoder.in_pieces()
    num_samples = front.measure(make_blocks, inputs=layers is not None and 0 in layers)
    results: list[torch.Tensor] = []
    for tensors, start in encode_windows(encoder, front, front.pieces(make_blocks()), plan, layers):
        if not results:  # one allocation: a list of windows would need the memory twice
            total = encoder.count_frames(num_samples)
            results = [tensor.new_empty(total, tensor.shape[1]) for tensor in tensors]
        for result, tensor in zip(results, tensors, strict=True):
            result[start : start + len(tensor)] = tensor
    return results[0] if layers is None else results


@torch.no_grad()
def codes_long(encoder: SpeechEncoder, quantiser: Quantiser, audio: Audio) -> torch.Tensor:
    """Codes of a recording of any length: those of the whole, to rounding.

    Arguments
    ---------
    encoder, audio : object
        As in ``encode_long``.
    quantiser : Quantiser
        The quantiser of the encoder.

    Returns
    -------
    codes_TG : torch.Tensor
        LongTensor of shape (frames, codebooks) on the CPU.

    Raises
    ------
    ValueError
        If the file cannot be read.
    """
    make_blocks = blocks_of(audio, encoder.sample_rate)
    if (wav_L := _read_short(make_blocks(), encoder)) is not None:
        inputs_BTI, frames_B = _quantiser_inputs(encoder, wav_L)
        return quantiser.encode(inputs_BTI)[0, : int(frames_B[0])].cpu()
    front = encoder.in_pieces()
    front.measure(make_blocks)
    codes = [
        quantiser.encode(front.inputs(raw_TF)[None, : len(raw_TF) // front.stack])[0].cpu()
        for raw_TF in front.pieces(make_blocks())
    ]
    return torch.cat(codes)


def encode_stream(
    encoder: SpeechEncoder,
    blocks: Iterable[Any],
    *,
    layers: Sequence[int] | None = None,
    context_seconds: float | None = None,
    statistics: FramesInPieces | None = None,
) -> Iterator[Stretch]:
    """Hidden states of a stream, as soon as what follows them has come.

    A frame waits for up to three times the context; with dynamic chunk training and a limited left
    context, for about a second. The levels, means and variances are those of the stream so far. The
    results do not depend on where the stream is cut into blocks.

    Arguments
    ---------
    encoder, layers, context_seconds : object
        As in ``encode_long``.
    blocks : iterable of torch.Tensor or numpy.ndarray
        Pieces of the waveform of any length, one-dimensional, of floats at the encoder's sample
        rate.
    statistics : FramesInPieces or None
        What ``measure`` gives for another recording of this microphone: the stream is normalised as
        that recording, from its first frame.

    Returns
    -------
    stretches : iterator of Stretch
        The next hidden states, and the number of their first frame.

    Raises
    ------
    ValueError
        If there is no such layer; from the iterator, if a block is not a part of a waveform.
    """
    _check_layers(encoder, layers)
    plan = make_plan(encoder, context_seconds, LATENCY_SECONDS)
    front = encoder.in_pieces() if statistics is None else statistics
    pieces = front.pieces(map(as_waveform, blocks), STREAM_SECONDS)
    return (
        Stretch(tensors[0] if layers is None else tensors, start)
        for tensors, start in encode_windows(encoder, front, pieces, plan, layers)
    )


@torch.no_grad()
def measure(encoder: SpeechEncoder, audio: Audio) -> FramesInPieces:
    """Measures the levels, means and variances of a recording, for a stream."""
    front = encoder.in_pieces()
    front.measure(blocks_of(audio, encoder.sample_rate))
    return front


def _check_layers(encoder: SpeechEncoder, layers: Sequence[int] | None) -> None:
    number = len(encoder.layers)
    for layer in layers or ():
        if not 0 <= layer <= number:
            raise ValueError(
                f"there is no layer {layer}; the encoder has the layers 1 to {number}, and 0 is "
                f"what its quantiser reads"
            )


def _read_short(blocks: Blocks, encoder: SpeechEncoder) -> torch.Tensor | None:
    return read_short(blocks, round(WHOLE_SECONDS * encoder.sample_rate))


def _batch_of_one(encoder: SpeechEncoder, wav_L: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Waveform and length, with zeros after it if it is too short for a frame."""
    padding = max(0, encoder.min_samples - len(wav_L))
    wav_L = wav_L.to(next(encoder.parameters()).device)
    return torch.nn.functional.pad(wav_L, (0, padding))[None], torch.tensor([len(wav_L)])


def _quantiser_inputs(
    encoder: SpeechEncoder, wav_L: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return encoder.quantiser_inputs(*_batch_of_one(encoder, wav_L))


def _encode_whole(encoder: SpeechEncoder, wav_L: torch.Tensor, layers: Sequence[int] | None) -> Any:
    batch, total = _batch_of_one(encoder, wav_L), encoder.count_frames(len(wav_L))
    if layers is None:
        return encoder(*batch).hidden_BTD[0, :total].cpu()
    above = [layer for layer in layers if layer]
    outputs = iter(encoder.layer_outputs(*batch, above) if above else [])
    inputs_BTI = encoder.quantiser_inputs(*batch)[0] if 0 in layers else None
    return [
        (next(outputs) if layer else inputs_BTI)[0, :total].cpu()  # pyright: ignore
        for layer in layers
    ]
