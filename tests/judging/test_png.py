"""Pictures of a record: what is written is what any reader sees, and nothing else is read back."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.judging import png

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 7, 3)).astype(np.uint8)


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (3, 5, 3), (224, 224, 3), (2, 3, 1)])
def test_another_reader_sees_the_same_pixels(shape: tuple[int, ...]) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    pixels = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    data = png.encode(pixels)
    seen = np.asarray(image.open(io.BytesIO(data)))
    assert (seen.reshape(shape) == pixels).all()
    assert (png.decode(data, 224).reshape(shape) == pixels).all()


@pytest.mark.parametrize("pixels", [np.zeros((2, 2)), np.zeros((0, 2), np.uint8), np.zeros((2, 2, 4), np.uint8)])
def test_other_arrays_are_no_pictures(pixels: png.Pixels) -> None:
    with pytest.raises(ValueError, match="pixels must be uint8"):
        png.encode(pixels)


def _file(head: bytes, body: bytes, extra: bytes = b"") -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def _head(width: int, height: int, *, depth: int = 8, kind: int = 0, interlace: int = 0) -> bytes:
    return struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlace)


ROWS = b"\x02\x00\x00" * 2
TEXT = struct.pack(">I", 3) + b"tEXthey" + struct.pack(">I", zlib.crc32(b"tEXthey"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        png.encode(PIXELS)[:-1],
        png.encode(PIXELS) + b"\n",
        png.encode(PIXELS).replace(b"IDAT", b"IDAZ"),
        bytes([0]) + png.encode(PIXELS)[1:],
        _file(_head(2, 2), zlib.compress(ROWS), TEXT),
        _file(_head(2, 2), zlib.compress(ROWS * 2)),
        _file(_head(2, 2), zlib.compress(ROWS[:-1])),
        _file(_head(2, 2), zlib.compress(ROWS)[:-2]),
        _file(_head(2, 2), zlib.compress(ROWS) + b"x"),
        _file(_head(2, 2), b"not compressed"),
        _file(_head(2, 2), zlib.compress(ROWS.replace(b"\x02", b"\x01"))),
        _file(_head(2, 2, depth=16), zlib.compress(ROWS)),
        _file(_head(2, 2, kind=3), zlib.compress(ROWS)),
        _file(_head(2, 2, interlace=1), zlib.compress(ROWS)),
        _file(_head(0, 2), zlib.compress(b"")),
    ],
)
def test_nothing_else_is_read(data: bytes) -> None:
    with pytest.raises(ValueError, match="picture"):
        png.decode(data, 224)


def test_the_form_that_the_refusals_above_break_is_read() -> None:
    assert png.decode(_file(_head(2, 2), zlib.compress(ROWS)), 2).tolist() == [[0, 0], [0, 0]]


def test_a_bomb_is_not_inflated() -> None:
    with pytest.raises(ValueError, match="at most 224 x 224"):
        png.decode(_file(_head(50_000, 50_000), zlib.compress(bytes(1 << 20))), 224)
    bomb = _file(_head(2, 2), zlib.compress(bytes(200 << 20)))
    assert len(bomb) < 1 << 20
    with pytest.raises(ValueError, match="picture"):
        png.decode(bomb, 224)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(png.encode(PIXELS)) - 1), st.integers(1, 255))
def test_a_changed_byte_is_seen(at: int, by: int) -> None:
    data = bytearray(png.encode(PIXELS))
    data[at] ^= by
    with pytest.raises(ValueError, match="picture"):
        png.decode(bytes(data), 224)
