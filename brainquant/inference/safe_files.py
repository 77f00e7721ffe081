"""Files of strangers: JSON and safetensors that are checked before anything is made of them."""

from __future__ import annotations

import json
import math
import os
import stat
import struct
from typing import Any, NoReturn

MOST_CONFIG_BYTES = 2**20
MOST_HEADER_BYTES = 2**24
BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
    "BOOL": 1,
}  # fmt: skip
REMEDY = "download or export it again"


def read_json(path: str) -> dict[str, Any]:
    """A JSON file with an object, of a size that a description has.

    Raises
    ------
    ValueError
        If it is missing, too large, or not plain JSON: a key twice, a NaN, too much nesting.

    Example
    -------
    >>> path = getfixture("tmp_path") / "config.json"
    >>> _ = path.write_text('{"step": NaN}')
    >>> read_json(str(path))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: ...config.json is not JSON (NaN is no number); download or export it again
    """
    size = _size(path)
    if size > MOST_CONFIG_BYTES:
        raise ValueError(f"{path} has {size} bytes, more than any config.json; {REMEDY}")
    with open(path, "rb") as file:
        return _parse(path, file.read(MOST_CONFIG_BYTES + 1))


def read_header(path: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Data type and shape of each tensor of a .safetensors file, after a check of its header.

    Arguments
    ---------
    path : str
        The file.

    Returns
    -------
    tensors : dict
        For instance ``{"encoder.weight": ("F32", (2, 3))}``.

    Raises
    ------
    ValueError
        If the header does not describe the file to the last byte.

    Example
    -------
    >>> from safetensors.torch import save_file
    >>> import torch
    >>> path = str(getfixture("tmp_path") / "model.safetensors")
    >>> save_file({"weight": torch.zeros(2, 3)}, path)
    >>> read_header(path)
    {'weight': ('F32', (2, 3))}
    """
    size = _size(path)
    with open(path, "rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > min(MOST_HEADER_BYTES, size - 8):
            raise ValueError(
                f"{path} is not safetensors: its header of {length} bytes does not fit into the "
                f"{size} bytes of the file; pickles are refused, {REMEDY}"
            )
        header = _parse(path, file.read(length))
    header.pop("__metadata__", None)
    end, tensors = 0, {}
    entries = sorted(_entry(path, name, entry) for name, entry in header.items())
    for begin, stop, name, dtype, shape in entries:
        if begin != end or stop - begin != math.prod(shape) * BYTES[dtype]:
            raise ValueError(
                f"{path}: the header says that {name[:100]!r} is {dtype} of shape {list(shape)} in "
                f"the bytes {begin} to {stop}, which does not fit; {REMEDY}"
            )
        tensors[name], end = (dtype, shape), stop
    if 8 + length + end != size:
        raise ValueError(
            f"{path} has {size} bytes, but its header describes {8 + length + end}; {REMEDY}"
        )
    return tensors


def _entry(path: str, name: str, entry: Any) -> tuple[int, int, str, str, tuple[int, ...]]:
    """Where a tensor begins and ends, its name, data type and shape."""
    try:
        dtype, shape, (begin, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
        numbers = [begin, stop, *shape]
        whole = all(type(number) is int and 0 <= number < 2**48 for number in numbers)
        if set(entry) != {"dtype", "shape", "data_offsets"} or dtype not in BYTES or not whole:
            raise ValueError(f"got {str(entry)[:100]}")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: the header describes the tensor {name[:100]!r} wrongly ({error!s:.150}); "
            f"{REMEDY}"
        ) from error
    return begin, stop, name, dtype, tuple(shape)


def _size(path: str) -> int:
    try:
        status = os.stat(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); {REMEDY}") from error
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is not a file; {REMEDY}")
    return status.st_size


def _parse(path: str, text: bytes) -> dict[str, Any]:
    try:
        content = json.loads(
            text.decode("utf-8"), object_pairs_hook=_each_key_once, parse_constant=_no_number
        )
        if not isinstance(content, dict):
            raise ValueError("an object is needed")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error!s:.150}); {REMEDY}") from error
    return content


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key stands twice")
    return content


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")
