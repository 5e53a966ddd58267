"""Small images as PNG in one strict format, so that an image in a record contains pixels and nothing else.

The form: 8 bits a channel, grey or RGB, not interlaced, every row filtered by ``up``, one IHDR, IDAT and IEND chunk
each and none besides. Every viewer reads it; what is read back here cannot be a decompression bomb, carry text or reach
a decoder's odd corners.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPE = {1: 0, 3: 2}
_CHANNELS = {kind: n for n, kind in _COLOUR_TYPE.items()}
_UP = 2
_FORM = "a picture must be a PNG as auditor.judging.png.encode writes it"


def encode(pixels: Pixels) -> bytes:
    """The bytes of a PNG file of uint8 pixels (height, width) in grey or (height, width, 3) in RGB.

    Raises ValueError for other shapes and types, and for pictures without pixels.
    """
    a = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if a.dtype != np.uint8 or a.ndim != 3 or a.shape[2] not in _COLOUR_TYPE or not a.size:
        raise ValueError(f"pixels must be uint8 (height, width) or (height, width, 3), not {a.dtype} {pixels.shape}")
    height, width, channels = a.shape
    flat = np.ascontiguousarray(a).reshape(height, width * channels)
    above = np.concatenate([np.zeros_like(flat[:1]), flat[:-1]])
    rows = np.concatenate([np.full((height, 1), _UP, np.uint8), flat - above], axis=1)
    head = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPE[channels], 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(name, body) for name, body in parts)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def decode(data: bytes, most: int) -> Pixels:
    """Pixels (height, width) or (height, width, 3) of a file that :func:`encode` wrote, at most ``most`` on a side.

    Raises ValueError for everything else, without inflating more than the size its head states.
    """
    head = _body(data, len(_SIGNATURE), b"IHDR")
    if not data.startswith(_SIGNATURE) or len(head) != 13:
        raise ValueError(_FORM)
    width, height, depth, kind, compression, filtering, interlace = struct.unpack(">IIBBBBB", head)
    if depth != 8 or kind not in _CHANNELS or compression or filtering or interlace:
        raise ValueError(_FORM)
    if not 1 <= width <= most or not 1 <= height <= most:
        raise ValueError(f"a picture must have at most {most} x {most} pixels, not {width} x {height}")
    at = len(_SIGNATURE) + 12 + len(head)
    packed = _body(data, at, b"IDAT")
    end = at + 12 + len(packed)
    if _body(data, end, b"IEND") or end + 12 != len(data):
        raise ValueError(_FORM)
    channels = _CHANNELS[kind]
    size = height * (1 + width * channels)
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(packed, size)
        # What is exactly full has its checksum still to be read, and may not go on.
        surplus = b"" if inflater.eof else inflater.decompress(inflater.unconsumed_tail, 1)
    except zlib.error:
        raise ValueError(_FORM) from None
    rows = np.frombuffer(raw, np.uint8)
    if surplus or not inflater.eof or inflater.unused_data or rows.size != size:
        raise ValueError(_FORM)
    rows = rows.reshape(height, -1)
    if (rows[:, 0] != _UP).any():
        raise ValueError(_FORM)
    # Undoing "up" is a running sum down each column, modulo 256.
    flat = np.cumsum(rows[:, 1:], axis=0, dtype=np.uint8)
    return flat if channels == 1 else flat.reshape(height, width, channels)


def _body(data: bytes, offset: int, name: bytes) -> bytes:
    """The body of the chunk that begins at ``offset``, which must be ``name`` and sound."""
    if len(data) < offset + 12:
        raise ValueError(_FORM)
    (size,) = struct.unpack_from(">I", data, offset)
    body, end = data[offset + 8 : offset + 8 + size], offset + 8 + size
    sound = len(data) >= end + 4 and data[offset + 4 : offset + 8] == name
    if not sound or struct.unpack_from(">I", data, end)[0] != zlib.crc32(name + body):
        raise ValueError(_FORM)
    return body
