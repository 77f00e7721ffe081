"""Small pictures as PNG, which a page shows on a light and on a dark ground."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

INK = 0x2F, 0x86, 0xC9  # a blue that is seen on white and on black


def picture(strength: np.ndarray, *, bits: int = 8) -> str:
    """The data URI of a picture in one colour: 0 is transparent, 1 is full.

    Arguments
    ---------
    strength : np.ndarray
        From 0 to 1, shape (height, width).
    bits : int
        4 for sixteen levels, or 8.

    Returns
    -------
    uri : str

    Example
    -------
    >>> picture(np.array([[0.0, 1.0]]))[:30]
    'data:image/png;base64,iVBORw0K'
    """
    levels = 2**bits - 1
    values = np.round(np.clip(np.nan_to_num(strength), 0, 1) * levels).astype(np.uint8)
    height, width = values.shape
    if bits == 4:
        values = np.pad(values, ((0, 0), (0, width % 2)))
        values = values[:, ::2] << 4 | values[:, 1::2]
    rows = np.pad(values, ((0, 0), (1, 0)))  # each row begins with its filter: none
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 3, 0, 0, 0)),
        (b"PLTE", bytes(INK) * (levels + 1)),
        (b"tRNS", bytes(round(255 * level / levels) for level in range(levels + 1))),
        (b"IDAT", zlib.compress(rows.tobytes(), 9)),
        (b"IEND", b""),
    ]
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )
    return "data:image/png;base64," + base64.b64encode(png).decode()
