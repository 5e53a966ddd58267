"""A PDF that is signed inside: another library finds the signature whole, and one changed byte breaks it."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID
from typer.testing import CliRunner

from auditor.core.errors import MissingExtraError, UsageError
from auditor.evidence.signing import load_seal
from auditor.report.document_files import render_pdf
from cli.commands import app
from tests.report.samples import refused_report

pytest.importorskip("typst", reason="the extra `pdf` is not installed")
pytest.importorskip("pyhanko", reason="the extra `pdf-sign` is not installed")
_KEY = ec.generate_private_key(ec.SECP256R1())


def _certificate(key: ec.EllipticCurvePrivateKey = _KEY, days: int = 30) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Jane Auditor")])
    now = datetime.now(UTC)
    usage = x509.KeyUsage(True, True, False, False, False, False, False, False, False)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=60))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )


def _pem(password: bytes | None = None, certificate: x509.Certificate | None = None) -> bytes:
    protection: Any = serialization.NoEncryption()
    if password is not None:
        protection = serialization.BestAvailableEncryption(password)
    key = _KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    return key + (certificate or _certificate()).public_bytes(serialization.Encoding.PEM)


def _file(folder: Path, content: bytes, name: str = "jane.pem") -> Path:
    path = folder / name
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def _status(pdf: bytes, certificate: x509.Certificate) -> Any:
    """What pyHanko's own validation says, trusting this certificate alone."""
    from asn1crypto import x509 as asn1
    from pyhanko.pdf_utils.reader import PdfFileReader
    from pyhanko.sign.validation import validate_pdf_signature
    from pyhanko_certvalidator import ValidationContext

    root = asn1.Certificate.load(certificate.public_bytes(serialization.Encoding.DER))
    (signature,) = PdfFileReader(BytesIO(pdf)).embedded_signatures
    return validate_pdf_signature(signature, signer_validation_context=ValidationContext(trust_roots=[root]))


@pytest.fixture(scope="module")
def plain() -> bytes:
    """A PDF that nobody signed."""
    return render_pdf(refused_report())


def test_a_signed_pdf_is_valid_covers_all_of_it_and_begins_with_what_was_signed(plain: bytes, tmp_path: Path) -> None:
    certificate = _certificate()
    signed = load_seal(_file(tmp_path, _pem(certificate=certificate))).sign(plain)
    assert signed.startswith(plain) and b"ETSI.CAdES.detached" in signed
    status = _status(signed, certificate)
    assert status.bottom_line and status.intact and status.valid and status.trusted
    assert status.coverage.name == "ENTIRE_FILE"


def test_one_changed_byte_breaks_it(plain: bytes, tmp_path: Path) -> None:
    certificate = _certificate()
    signed = load_seal(_file(tmp_path, _pem(certificate=certificate))).sign(plain)
    place = signed.index(b"<pdfaid:part>2") + len(b"<pdfaid:part>")
    changed = signed[:place] + b"3" + signed[place + 1 :]
    status = _status(changed, certificate)
    assert not status.intact and not status.bottom_line


def test_somebody_elses_certificate_is_not_trusted(plain: bytes, tmp_path: Path) -> None:
    signed = load_seal(_file(tmp_path, _pem())).sign(plain)
    status = _status(signed, _certificate(ec.generate_private_key(ec.SECP256R1())))
    assert status.intact and not status.trusted and not status.bottom_line


def test_a_signed_pdf_is_still_archivable_and_accessible(plain: bytes, tmp_path: Path) -> None:
    pdfua = pytest.importorskip("pdfua", reason="the test group is not installed: pdfua")
    signed = load_seal(_file(tmp_path, _pem())).sign(plain)
    path = tmp_path / "report.pdf"
    path.write_bytes(signed)
    assert [finding.message for finding in pdfua.validate(path).findings] == []
    # What it declares of itself is what it declared.
    metadata = plain[plain.index(b"<x:xmpmeta") : plain.index(b"</x:xmpmeta>")]
    assert b"<pdfaid:part>2</pdfaid:part>" in metadata
    assert signed.count(b"<x:xmpmeta") == 1 and metadata in signed


def test_a_password_comes_from_the_environment(plain: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = _certificate()
    protection = serialization.BestAvailableEncryption(b"open sesame")
    bag = pkcs12.serialize_key_and_certificates(b"jane", _KEY, certificate, None, protection)
    for path in (_file(tmp_path, bag, "jane.p12"), _file(tmp_path, _pem(b"open sesame", certificate))):
        monkeypatch.setenv("PDF_PASSWORD", "open sesame")
        assert _status(load_seal(path, "PDF_PASSWORD").sign(plain), certificate).bottom_line
        with pytest.raises(UsageError, match="without a password"):
            load_seal(path)
        monkeypatch.setenv("PDF_PASSWORD", "wrong")
        with pytest.raises(UsageError, match="with this password"):
            load_seal(path, "PDF_PASSWORD")
        monkeypatch.delenv("PDF_PASSWORD")
        with pytest.raises(UsageError, match="'PDF_PASSWORD' is not set"):
            load_seal(path, "PDF_PASSWORD")


def test_what_cannot_sign_is_refused_in_one_sentence(tmp_path: Path) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    refused = {
        "no certificate of its private key": _pem(certificate=_certificate(other)),
        "and so not today": _pem(certificate=_certificate(days=-1)),
        "cannot be read without a password": b"-----BEGIN NOTHING-----",
        "cannot be read": b"\x30\x82nonsense",
    }
    for said, content in refused.items():
        with pytest.raises(UsageError, match=said):
            load_seal(_file(tmp_path, content))
    readable = _file(tmp_path, _pem())
    readable.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        load_seal(readable)
    with pytest.raises(UsageError, match="cannot be read"):
        load_seal(tmp_path / "none.pem")


def test_without_pyhanko_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyhanko.sign", None)
    with pytest.raises(MissingExtraError, match=r"responsible-auditor\[pdf-sign\]"):
        load_seal(_file(tmp_path, _pem()))


def test_the_command_signs_the_pdf_and_nothing_else(tmp_path: Path, plain: bytes) -> None:
    certificate = _certificate()
    (tmp_path / "report.json").write_text(refused_report().to_json())
    pem = str(_file(tmp_path, _pem(certificate=certificate)))
    report = ("report", str(tmp_path), "--out", str(tmp_path / "out"))
    done = CliRunner().invoke(app, [*report, "--format", "pdf,markdown", "--pdf-certificate", pem])
    assert done.exit_code == 0, done.output
    signed = (tmp_path / "out" / "report.pdf").read_bytes()
    assert signed.startswith(plain) and _status(signed, certificate).bottom_line
    assert b"ETSI" not in (tmp_path / "out" / "report.md").read_bytes()
    # The unsigned one is what it was.
    assert CliRunner().invoke(app, [*report, "--format", "pdf", "--force"]).exit_code == 0
    assert (tmp_path / "out" / "report.pdf").read_bytes() == plain


@pytest.mark.parametrize("flags", [["--pdf-certificate", "jane.pem"], ["--pdf-password-env", "P", "--format", "pdf"]])
def test_flags_that_sign_nothing_are_refused(tmp_path: Path, flags: list[str]) -> None:
    (tmp_path / "report.json").write_text(refused_report().to_json())
    assert CliRunner().invoke(app, ["report", str(tmp_path), *flags]).exit_code != 0
    assert not (tmp_path / "report.html").exists() and not (tmp_path / "report.pdf").exists()
