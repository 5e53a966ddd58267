"""Format detection by magic bytes."""

from __future__ import annotations

import re

BOOSTED_TREES = ("XGBoost", "LightGBM", "CatBoost")


_ONNX_FIELDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26})
MAGIC = {
    b"GGUF": "GGUF",
    b"\x89HDF\r\n\x1a\n": "HDF5",
    b"\x93NUMPY": "numpy file",
    b"\x1f\x8b": "compressed file",
    b"BZh": "compressed file",
    b"\xfd7zXZ\x00": "compressed file",
    b"]\x00\x00": "compressed file",
    b"\x04\x22\x4d\x18": "compressed file",
}


def is_safetensors(data: bytes) -> bool:
    """Whether the bytes begin as a safetensors file does."""
    # A length of 8 bytes that is plausible even where the file was cut short, then a JSON object.
    return data[8:9] == b"{" and int.from_bytes(data[:8], "little") < (1 << 32)


def is_tar(data: bytes) -> bool:
    """Whether the first block has the checksum of a tar archive's."""
    header = data[:512]
    if len(header) < 512:
        return False
    stated = header[148:156].strip(b" \0")
    if not stated or not all(c in b"01234567" for c in stated):
        return False
    return int(stated, 8) == sum(header[:148]) + 8 * 32 + sum(header[156:])


def is_onnx(data: bytes) -> bool:
    """Whether the top-level fields are those of an ONNX model, including its version and its graph."""
    place, seen = 0, set()
    for _ in range(1000):
        if place >= len(data):
            break
        key, place = _varint(data, place)
        field, kind = key >> 3, key & 7
        if field not in _ONNX_FIELDS or kind not in (0, 2):
            return False
        value, place = _varint(data, place)
        seen.add((field, kind))
        place += value if kind == 2 else 0
    return (1, 0) in seen and (7, 2) in seen


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(data) and shift < 64:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            break
    return value, place


def boosted_kind(data: bytes) -> str:
    """The member of ``BOOSTED_TREES`` whose format the bytes have, or ""."""
    if data[:4] == b"CBM1":
        return "CatBoost"
    if data[:5] == b"tree\n" and b"\nversion=" in data[:200]:
        return "LightGBM"
    # Universal binary JSON of one object, or JSON: XGBoost's has a learner first, or its version.
    start = data[:64].lstrip()
    binary = start[:2] == b"{L" and (b"learner" in start or b"version" in start)
    text = re.match(rb'\{\s*"(learner|version)"', start) is not None and b'"gradient_booster"' in data
    return "XGBoost" if binary or text else ""
