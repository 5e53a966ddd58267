"""Images of a table: read at the model's size, from the table's folder only, and refused by name where damaged."""

from __future__ import annotations

import builtins
import io
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from auditor.core.errors import AuditorError, DataError, MissingExtraError, ModelError
from auditor.data.preprocessing import ImagePreprocessing
from auditor.loading.rows.media_files import load_images
from auditor.models.audited_model import AuditedModel
from tests.toys.words import fit_text

PIL_Image = pytest.importorskip("PIL.Image", reason="the extra 'images' is not installed")


def model(height: int = 6, width: int = 8, channels: int = 3) -> AuditedModel:
    preprocessing = ImagePreprocessing(size=(height, width), mean=(0.5,) * channels, std=(0.5,) * channels)
    return AuditedModel(lambda X: np.zeros(len(X)), classes=["a", "b"], preprocessing=preprocessing)


def picture(height: int = 6, width: int = 8) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def put(path: Path, pixels: npt.NDArray[np.uint8], **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL_Image.fromarray(pixels).save(path, **options)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm", "webp"])
def test_pixels_are_exact_at_the_models_size(suffix: str, tmp_path: Path) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    put(tmp_path / f"deep/a.{suffix}", picture(), **options)
    images = load_images(tmp_path, [f"deep/a.{suffix}"] * 2, model())
    assert (images.shape, images.dtype) == ((2, 6, 8, 3), np.uint8)
    np.testing.assert_array_equal(images, np.stack([picture()] * 2))


def test_resized_and_recoloured(tmp_path: Path) -> None:
    put(tmp_path / "a.png", np.full((40, 20, 3), 200, np.uint8))
    np.testing.assert_array_equal(load_images(tmp_path, ["a.png"], model()), np.full((1, 6, 8, 3), 200))
    np.testing.assert_array_equal(load_images(tmp_path, ["a.png"], model(channels=1)), np.full((1, 6, 8, 1), 200))
    assert load_images(tmp_path, ["a.png"], model(channels=4))[0, 0, 0].tolist() == [200, 200, 200, 255]
    assert load_images(tmp_path, [], model()).shape == (0, 6, 8, 3)


def test_orientation_is_obeyed(tmp_path: Path) -> None:
    exif = PIL_Image.Exif()
    exif[0x0112] = 3  # upside down
    put(tmp_path / "a.png", picture(), exif=exif)
    np.testing.assert_array_equal(load_images(tmp_path, ["a.png"], model())[0], picture()[::-1, ::-1])


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg", picture(), format="PNG")
    np.testing.assert_array_equal(load_images(tmp_path, ["a.jpg"], model())[0], picture())


def refused(folder: Path, names: Sequence[str]) -> str:
    with pytest.raises(AuditorError) as caught:
        load_images(folder, list(names), model())
    assert isinstance(caught.value, DataError)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_paths_may_not_leave_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "table"
    put(tmp_path / "secret.png", picture())
    put(folder / "own.png", picture())
    (folder / "out.png").symlink_to(tmp_path / "secret.png")
    (folder / "way").symlink_to(tmp_path)
    (folder / "within.png").symlink_to(folder / "own.png")
    for name in ("../secret.png", str(tmp_path / "secret.png"), "x/../../secret.png", "out.png", "way/secret.png"):
        message = refused(folder, [name])
        assert "lies outside" in message and name in message
    assert load_images(folder, ["within.png", "./own.png"], model()).shape == (2, 6, 8, 3)
    assert "lies outside" in refused(folder, [str(folder / "own.png")])


def test_what_is_no_image_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    assert "not a regular file" in refused(tmp_path, ["fifo.png"])
    assert "not a regular file" in refused(tmp_path, ["folder.png"])
    assert "'absent.png' cannot be read: No such file" in refused(tmp_path, ["absent.png"])
    for name in ("empty.png", "text.png"):
        assert f"{name!r} cannot be decoded" in refused(tmp_path, [name])
    assert "loop.png" in refused(tmp_path, ["loop.png"])
    for name in ("", " ", "a\0b", None, float("nan")):
        assert "no path" in refused(tmp_path, [name])  # type: ignore[list-item]
    assert "\x1b" not in refused(tmp_path, ["\x1b[31m.png"])


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "TIFF"])
def test_truncated_files_are_named(form: str, tmp_path: Path) -> None:
    whole = io.BytesIO()
    PIL_Image.fromarray(picture(64, 64)).save(whole, form)
    (tmp_path / "cut.img").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    assert "'cut.img' cannot be decoded" in refused(tmp_path, ["cut.img"])


def png(width: int, height: int, pixels: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 16_000, 60_000, 2**31 - 1])
def test_decompression_bombs_are_refused_before_they_unpack(side: int, tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png(side, side, zlib.compress(bytes(1 << 20))))
    message = refused(tmp_path, ["bomb.png"])
    assert "'bomb.png'" in message and "pixels" in message


def test_metadata_bomb(tmp_path: Path) -> None:
    whole = png(6, 8, zlib.compress(bytes(8 * 7)))
    text = b"zTXt" + b"Comment\0\0" + zlib.compress(bytes(1 << 27), 9)
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    (tmp_path / "text.png").write_bytes(whole[:33] + chunk + whole[33:])
    assert "'text.png' cannot be decoded" in refused(tmp_path, ["text.png"])


def test_formats_that_start_programs_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    assert "'a.eps' cannot be decoded" in refused(tmp_path, ["a.eps"])


def test_sixteen_bits_are_said(tmp_path: Path) -> None:
    PIL_Image.fromarray(np.zeros((6, 8), np.uint16)).save(tmp_path / "deep.png")
    assert "more than 8 bits" in refused(tmp_path, ["deep.png"])


def test_models_that_take_no_images(tmp_path: Path) -> None:
    text = AuditedModel(lambda X: np.zeros(len(X)), classes=["a", "b"])
    with pytest.raises(ModelError, match="takes no images"):
        load_images(tmp_path, ["a.png"], text)
    text.preprocessing = fit_text(["some words"])
    with pytest.raises(ModelError, match="takes no images"):
        load_images(tmp_path, ["a.png"], text)
    with pytest.raises(ModelError, match="2 channels"):
        load_images(tmp_path, ["a.png"], model(channels=2))


def test_missing_pillow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *rest: Any, **options: Any) -> Any:
        if name.startswith("PIL"):
            raise ImportError(name)
        return original(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'responsible-auditor\[images\]'"):
        load_images(tmp_path, ["a.png"], model())
