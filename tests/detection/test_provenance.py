"""What files say of their own making: signed credentials validated offline, unsigned metadata, and hostile files."""

from __future__ import annotations

import builtins
import json
import socket
import struct
import sys
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from auditor.detection.examine_file import Examination
from auditor.detection.file_kinds import FileKind, container_facts, kind_of
from auditor.detection.provenance.provenance_record import FileProvenance, Statement, origin_of, short_type
from auditor.detection.provenance.read_provenance import _time_stamp, points_to, read_provenance
from tests.detection.content_credentials import SYNTHETIC, signed, signing
from tests.evidence.authority import authority, serving
from tests.quantifiers import all_of
from tests.toys.media_files import image_detector

PIL_Image = pytest.importorskip("PIL.Image", reason="the extra 'images' is not installed")
PngInfo = pytest.importorskip("PIL.PngImagePlugin").PngInfo

A1111 = "a castle\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512"


def picture(form: str = "PNG", **options: Any) -> bytes:
    out = BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)
    PIL_Image.fromarray(pixels).save(out, form, **options)
    return out.getvalue()


def provenance(content: bytes, anchors: str | None = None) -> FileProvenance:
    return read_provenance(content, kind_of(content), anchors)


def said(content: bytes) -> dict[str, Statement]:
    return {f"{s.where} {s.name}": s for s in provenance(content).statements}


# ---- signed --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "mime"), [("PNG", "image/png"), ("JPEG", "image/jpeg")])
def test_credentials_say_who_signed_what_and_whether_he_is_trusted(form: str, mime: str) -> None:
    by = signing()
    content = signed(picture(form), mime, by)
    found = provenance(content).credentials
    assert found is not None
    assert (found.state, found.standing, found.anchored) == ("Valid", "intact, signer unknown", False)
    assert (found.time_stamp, found.declares_generation) == ("none", True)
    assert (found.signer, found.issuer) == ("Test Camera", "Camera Works")
    assert found.claim_generator == "test_maker 1.0"
    (action,) = found.actions
    assert (action.action, action.software) == ("c2pa.created", "Dream Machine")
    assert (action.digital_source_type, action.origin) == ("trainedAlgorithmicMedia", "synthetic")
    assert found.failures == ("signingCredential.untrusted: signing certificate untrusted",)
    trusted = provenance(content, by.root).credentials
    assert trusted is not None
    assert (trusted.standing, trusted.anchored, trusted.failures) == ("trusted", True, ())
    stranger = provenance(content, signing().root).credentials
    assert stranger is not None and stranger.standing == "intact, signer unknown"


def test_a_camera_that_anybody_says_to_be_is_a_signer_unknown() -> None:
    """A certificate made a moment ago names a camera maker and says that the picture was taken."""
    by = signing("A Camera", "A Camera Maker")
    capture = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
    found = provenance(signed(picture("JPEG"), "image/jpeg", by, source=capture)).credentials
    assert found is not None and found.actions[0].origin == "captured"
    assert found.standing == "intact, signer unknown" and not found.declares_generation


def test_a_time_stamp_is_trusted_where_its_authority_is(tmp_path: Path) -> None:
    clock = authority(tmp_path / "clock")
    with serving(clock.answer) as url:
        by = signing(clock=url)
        content = signed(picture("JPEG"), "image/jpeg", by)
    stands = {
        anchors: found.time_stamp
        for anchors in (None, by.root, by.root + clock.root.read_text())
        if (found := provenance(content, anchors).credentials) is not None and found.signed_at
    }
    assert list(stands.values()) == ["intact, authority unknown", "intact, authority unknown", "trusted"]


def test_a_time_without_a_stamp_that_holds_is_not_valid() -> None:
    informational = [{"code": "timeStamp.mismatch"}]
    told = {"validation_results": {"activeManifest": {"success": [], "informational": informational}}}
    assert _time_stamp(told, timed=True) == "not valid"
    assert _time_stamp({}, timed=True) == "not valid" and _time_stamp({}, timed=False) == "none"


def test_a_file_that_was_changed_after_it_was_signed_is_invalid() -> None:
    content = bytearray(signed(picture("JPEG"), "image/jpeg", signing()))
    content[-30] ^= 0xFF
    found = provenance(bytes(content)).credentials
    assert found is not None and (found.state, found.standing) == ("Invalid", "not valid")
    assert any(failure.startswith("assertion.dataHash.mismatch") for failure in found.failures)


def test_credentials_that_lie_elsewhere_are_named_and_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    content = signed(picture(), "image/png", signing(), remote="https://example.invalid/manifest.c2pa")
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("something was fetched"))
    found = provenance(content)
    assert found.credentials is None
    assert "https://example.invalid/manifest.c2pa" in found.credentials_unread
    assert "nothing is fetched" in found.credentials_unread


@pytest.mark.parametrize("cut", [60, 400, 5_000])
def test_damaged_credentials_are_said_to_be_so(cut: int) -> None:
    pytest.importorskip("c2pa", reason="the extra 'provenance' is not installed")
    content = signed(picture(), "image/png", signing())[:cut]
    found = provenance(content)
    assert found.credentials is None and found.credentials_unread


def test_a_file_without_credentials_has_none_and_no_complaint() -> None:
    pytest.importorskip("c2pa", reason="the extra 'provenance' is not installed")
    found = provenance(picture())
    assert (found.credentials, found.credentials_unread, found.statements) == (None, "", ())


@pytest.mark.parametrize(
    ("module", "extra"), [("c2pa", "responsible-auditor[provenance]"), ("PIL", "responsible-auditor[images]")]
)
def test_a_missing_package_is_said_with_its_extra(module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = picture()
    real = builtins.__import__

    def without(
        name: str, globals: Any = None, locals: Any = None, fromlist: Sequence[str] = (), level: int = 0
    ) -> Any:
        if name == module or name.startswith(f"{module}."):
            raise ImportError(name)
        return real(name, globals, locals, fromlist, level)

    monkeypatch.setattr(builtins, "__import__", without)
    found = provenance(content)
    assert extra in (found.credentials_unread if module == "c2pa" else found.statements_unread)


# ---- unsigned ------------------------------------------------------------------------------------------------------


def test_generation_settings_in_png_text_are_recognised() -> None:
    info = PngInfo()
    info.add_text("parameters", A1111)
    info.add_itxt("workflow", json.dumps({"nodes": [{"type": "KSampler"}]}))
    info.add_text("prompt", json.dumps({"3": {"class_type": "KSampler"}}), zip=True)
    info.add_text("Software", "GIMP 2.10")
    found = said(picture(pnginfo=info))
    assert "Stable Diffusion" in found["PNG text parameters"].points_to
    assert "ComfyUI" in found["PNG text workflow"].points_to and "ComfyUI" in found["PNG text prompt"].points_to
    assert (found["PNG text Software"].value, found["PNG text Software"].points_to) == ("GIMP 2.10", "")
    assert all_of(s.origin is None for s in found.values())


def test_exif_of_a_camera_and_of_a_generator() -> None:
    exif = PIL_Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0131] = "Canon", "EOS 5D", "Adobe Firefly 3"
    inner = exif.get_ifd(0x8769)
    inner[0x9286] = b"UNICODE\0" + A1111.encode("utf-16-be")
    found = said(picture("JPEG", exif=exif))
    assert found["EXIF Make"].value == "Canon" and found["EXIF Make"].points_to == ""
    assert found["EXIF Software"].points_to == "it names Adobe Firefly"
    assert "Stable Diffusion" in found["EXIF UserComment"].points_to


@pytest.mark.parametrize(
    "form",
    [
        'Iptc4xmpExt:DigitalSourceType="{}"',
        "><Iptc4xmpExt:DigitalSourceType>{}</Iptc4xmpExt:DigitalSourceType",
        '><Iptc4xmpExt:DigitalSourceType rdf:resource="{}"/',
    ],
)
def test_the_digital_source_type_of_xmp_is_read(form: str) -> None:
    packet = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description {form.format(SYNTHETIC)}></x:xmpmeta>'
    for content in (picture("JPEG", xmp=packet.encode()), picture("WEBP", xmp=packet.encode())):
        found = said(content)["XMP DigitalSourceType"]
        assert (found.value, found.origin) == ("trainedAlgorithmicMedia", "synthetic")


def test_source_types_mean_what_the_vocabulary_says() -> None:
    base = "http://cv.iptc.org/newscodes/digitalsourcetype/"
    assert origin_of(base + "digitalCapture") == "captured"
    assert origin_of(base + "compositeWithTrainedAlgorithmicMedia") == "partly synthetic"
    assert origin_of(base + "digitalArt") == "other"
    assert short_type("digsrctype:trainedAlgorithmicMedia") == "trainedAlgorithmicMedia"


def test_container_tags_of_sound() -> None:
    av = pytest.importorskip("av", reason="the extra 'media' is not installed")
    out = BytesIO()
    with av.open(out, "w", format="flac", options={"fflags": "+bitexact"}) as container:
        container.metadata.update({"comment": "made with ElevenLabs", "title": "hello"})
        stream = container.add_stream("flac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.ones((1, 4_000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 16_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    found = said(out.getvalue())
    assert found["container comment"].points_to == "it names ElevenLabs"
    assert found["container title"].value == "hello"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("parameters", "a note on the steps", ""),
        ("prompt", "what is your name?", ""),
        ("Software", "DALL·E 3", "it names DALL·E"),
        ("Software", "Midjourney", "it names Midjourney"),
        ("Credit", "Made with Google AI", "it names Made with Google AI"),
        ("Artist", "Firefly Studios", ""),
        ("encoder", "Lavf60.3", ""),
    ],
)
def test_marks_point_only_at_what_they_name(name: str, value: str, expected: str) -> None:
    assert points_to(name, value) == expected


# ---- kinds and hostile files ---------------------------------------------------------------------------------------


def test_what_a_file_is_its_content_says_and_not_its_name() -> None:
    kind = kind_of(picture("JPEG"))
    assert kind == FileKind("image", "JPEG")
    assert kind.misnamed("photo.png") and not kind.misnamed("photo.JPG") and not kind.misnamed("photo.bin")
    assert kind_of(b"GIF89a") == FileKind("image", "GIF")
    assert kind_of(b"RIFF\0\0\0\0WAVEfmt ") == FileKind("audio", "WAV")
    assert kind_of(b"\xff\xfb\x90\x00") == FileKind("audio", "MP3")
    assert kind_of(b"\0\0\0\x18ftypheic") == FileKind("image", "HEIF")
    assert kind_of(b"\0\0\0\x18ftypavif") == FileKind("image", "AVIF")
    assert kind_of(b"\x80\x81") == kind_of(b"") == kind_of(b"\0P6") == FileKind(None, "")
    # Documents are told what they are, and no more.
    for content, form in ((b"%PDF-1.7\n", "PDF"), ("# ä\n".encode(), "text"), (b"PK\x03\x04", "ZIP")):
        assert kind_of(content) == FileKind(None, form)


@pytest.mark.parametrize("form", ["AVIF", "HEIF"])
def test_pictures_of_phones_are_read_with_their_metadata(form: str, tmp_path: Path) -> None:
    if form == "HEIF":
        pytest.importorskip("pillow_heif", reason="the extra 'heic' is not installed").register_heif_opener()
    exif = PIL_Image.Exif()
    exif[0x0131] = "Midjourney"
    (tmp_path / "p").write_bytes(picture(form, exif=exif))
    found = Examination(detector=image_detector()).examine_file(tmp_path / "p")
    assert (
        (found.form, found.error) == (form, "") and found.verdict is not None and found.verdict.probability is not None
    )
    assert [s.points_to for s in found.provenance.statements] == ["it names Midjourney"]
    assert found.facts == (f"{form} RGB", "32 x 24", "metadata exif")


def test_heic_without_its_reader_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "p.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    found = Examination(detector=image_detector()).examine_file(tmp_path / "p.heic")
    assert found.medium == "image" and "pip install 'responsible-auditor[heic]'" in found.error
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7\n")
    assert (
        Examination(detector=None)
        .examine_file(tmp_path / "a.pdf")
        .error.startswith("It is a file of PDF, and no image")
    )


def test_the_facts_of_a_container_tell_how_a_file_was_saved_and_not_what_it_shows() -> None:
    def facts(content: bytes) -> tuple[str, ...]:
        return container_facts(content, kind_of(content))

    assert facts(picture("JPEG", quality=80)) != facts(picture("JPEG", quality=81))
    turned = BytesIO()
    PIL_Image.new("RGB", (24, 32)).save(turned, "JPEG", quality=80)
    assert facts(turned.getvalue()) == facts(picture("JPEG", quality=80))
    assert facts(picture())[0] == "PNG RGB" and facts(b"%PDF-1.7") == facts(picture("JPEG")[:20]) == ()


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def test_text_that_inflates_without_end_is_refused() -> None:
    bomb = b"parameters\0\0" + zlib.compress(b"A" * (64 << 20), 9)
    plain = picture()
    content = plain[:33] + _chunk(b"zTXt", bomb) + plain[33:]
    found = provenance(content)
    assert sum(len(s.value) for s in found.statements) <= 500
    assert found.statements_unread


def test_long_and_many_statements_are_cut_and_pointers_stay() -> None:
    info = PngInfo()
    for i in range(200):
        info.add_text(f"key{i}", "x" * 5_000)
    info.add_text("parameters", A1111)
    found = provenance(picture(pnginfo=info))
    assert len(found.statements) == 60 and max(len(s.value) for s in found.statements) == 500
    assert found.statements[0].name == "parameters"


def test_no_pixel_is_decoded_for_metadata(tmp_path: Path) -> None:
    head = struct.pack(">IIBBBBB", 13_000, 13_000, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"tEXt", b"Software\0Midjourney")
    content += _chunk(b"IDAT", zlib.compress(b"\0" * 1_000)) + _chunk(b"IEND", b"")
    assert said(content)["PNG text Software"].points_to == "it names Midjourney"
