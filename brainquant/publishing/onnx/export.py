"""Writes a trained encoder as one ONNX file, after a comparison of the two."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ... import __version__
from ...functional.imports import import_late
from ...huggingface.describing import is_held
from .check import MOST_UNEQUAL_CODES, TOLERANCE, Difference, difference, make_batches
from .traced import TracedEncoder

if TYPE_CHECKING:
    from ...inference import PretrainedEncoder

# The first with GELU as one operator. The version of the file format is what such a file needs.
OPSET, IR_VERSION = 20, 10
LARGEST_FILE = 2**31 - 2**20  # a protobuf has less than 2 GiB; the operators need some of it


def export_onnx(encoder: PretrainedEncoder, path: str | os.PathLike[str]) -> list[str]:
    """Writes an encoder as ONNX: waveforms in, features included.

    The inputs of the model are ``wavs``, float32 (batch, samples), and ``lengths``, int64 (batch,),
    the samples of each clip. Its outputs are ``hidden``, (batch, frames, dim); ``frames``, the
    valid frames of each clip; and ``codes``, (batch, frames, codebooks), if ONNX can search for
    them. Batch and samples may be of any size. As from ``PretrainedEncoder``, a clip gets the same
    from any batch; zeros and -1 follow its end.

    ONNX Runtime runs the model on batches of several shapes before it is written.

    Arguments
    ---------
    encoder : PretrainedEncoder
        What ``load_pretrained`` gives.
    path : str or os.PathLike
        The file to write, ``model.onnx``.

    Returns
    -------
    notes : list of str
        What the user should know about this file.

    Raises
    ------
    ValueError
        If ``brainquant[onnx]`` is not installed, if the encoder has a part that cannot be exported,
        if it is too large for one file, or if the two differ by more than 1e-3.
    """
    if is_held(encoder.encoder):
        raise refusal("it is a model of transformers")
    onnx, runtime = import_onnx()
    check_size(sum(tensor.nbytes for tensor in encoder.state_dict().values()))
    traced = TracedEncoder(encoder)
    notes = []
    if traced.search is None and encoder.quantiser is not None:
        notes.append(
            f"the file gives no codes: {type(encoder.quantiser).__name__} has no form in ONNX"
        )
    model = trace(traced, encoder.sample_rate, encoder.min_samples)
    found = compare(encoder, model, runtime)
    if found.codes > MOST_UNEQUAL_CODES:
        notes.append(
            f"the file gives no codes: {found.codes:.1%} of them differ from those of "
            f"{type(encoder.quantiser).__name__}"
        )
        traced.search = None
        model = trace(traced, encoder.sample_rate, encoder.min_samples)
        found = compare(encoder, model, runtime)
    if not found.hidden <= TOLERANCE:
        raise refusal(f"hidden states would differ by {found.hidden:.2g}, more than {TOLERANCE}")
    describe(model, encoder, traced.search is not None, onnx)
    write(model, Path(path))
    return notes


def import_onnx() -> tuple[Any, Any]:
    """onnx and ONNX Runtime; a ValueError says how to install them."""
    try:
        import_late("onnxscript")
        return import_late("onnx"), import_late("onnxruntime")
    except ImportError as error:
        raise ValueError(
            f"the export to ONNX needs {error.name}, which is not installed; "
            f'pip install "brainquant[onnx]"'
        ) from error


def check_size(num_bytes: int) -> None:
    """Raises a ValueError if so many bytes of weights do not fit into one file.

    Example
    -------
    >>> check_size(2**30)
    >>> check_size(2**31)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: the encoder has 2.0 GiB of weights, but an ONNX file holds less than 2 GiB; ...
    """
    if num_bytes > LARGEST_FILE:
        raise ValueError(
            f"the encoder has {num_bytes / 2**30:.1f} GiB of weights, but an ONNX file holds less "
            f"than 2 GiB; use the exported folder with torch"
        )


def trace(traced: TracedEncoder, sample_rate: int, min_samples: int) -> Any:
    """The ONNX model of a module, without the places in the code that torch adds to operators."""
    longest = max(2 * sample_rate, min_samples) + 123
    lengths_B = torch.tensor([longest, longest // 2])
    wavs_BL = torch.zeros(2, int(lengths_B[0]))
    any_size = torch.export.Dim.DYNAMIC
    outputs = ["hidden", "frames", "codes"][: 2 if traced.search is None else 3]
    try:
        with quiet_exporter(), torch.no_grad():
            program = torch.onnx.export(
                traced, (wavs_BL, lengths_B), dynamo=True, verbose=False, opset_version=OPSET,
                input_names=["wavs", "lengths"], output_names=outputs,
                dynamic_shapes={"wavs": {0: any_size, 1: any_size}, "lengths": {0: any_size}},
            )  # fmt: skip
    except ImportError as error:
        raise ValueError(
            f"the export to ONNX needs a newer onnxscript for torch {torch.__version__} ({error}); "
            f"pip install --upgrade onnxscript"
        ) from error
    except Exception as error:  # of torch.export, of the exporter, of SpeechBrain's layers
        reason = one_line(error.__cause__ or error)
        raise refusal(f"one of its layers has no form there ({reason})") from error
    assert program is not None
    model = program.model_proto
    strip(model.graph)
    model.ir_version = min(model.ir_version, IR_VERSION)
    for value, sizes in zip(
        [*model.graph.input, *model.graph.output],
        [["batch", "samples"], ["batch"], ["batch", "frames"], ["batch"], ["batch", "frames"]],
    ):
        for dimension, size in zip(value.type.tensor_type.shape.dim, sizes):
            dimension.dim_param = size
    return model


def strip(graph: Any) -> None:
    """Removes from a graph what holds paths and lines of code, and inferred shapes."""
    del graph.value_info[:], graph.metadata_props[:]
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                strip(inner)


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Keeps from the screen what the exporter says, which a user can do nothing about."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def compare(encoder: PretrainedEncoder, model: Any, runtime: Any) -> Difference:
    """Runs a model with ONNX Runtime, and compares it with the encoder."""
    batches, options = make_batches(encoder), runtime.SessionOptions()
    options.log_severity_level = 4  # its errors are in the exception, too
    try:
        session = runtime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        outputs = [session.run(None, batch.inputs) for batch in batches]
    except Exception as error:
        reason = f"ONNX Runtime cannot run one of its layers ({one_line(error)})"
        raise refusal(reason) from error
    return difference(encoder, batches, outputs)


def refusal(reason: str) -> ValueError:
    """The error of an encoder that cannot be exported."""
    return ValueError(
        f"the encoder cannot be exported to ONNX: {reason}; use the exported folder with torch"
    )


def one_line(error: BaseException) -> str:
    """The beginning of an error of many lines."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def describe(model: Any, encoder: PretrainedEncoder, has_codes: bool, onnx: Any) -> None:
    """Writes into a model what a program that runs it has to know."""
    properties = {
        "sample_rate": encoder.sample_rate,
        "frame_rate": encoder.frame_rate,
        "dim": encoder.dim,
        "min_samples": encoder.min_samples,
        "brainquant_version": __version__,
        "fingerprint": encoder.fingerprint(),
    }
    if has_codes:
        properties |= {
            "num_codebooks": encoder.num_codebooks,
            "codebook_size": encoder.codebook_size,
        }
    onnx.helper.set_model_props(model, {key: str(value) for key, value in properties.items()})


def write(model: Any, path: Path) -> None:
    """Writes a model under another name first, so that there is never a half file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_bytes(model.SerializeToString())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
