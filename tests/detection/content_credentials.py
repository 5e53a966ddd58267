"""Files with Content Credentials for tests: a certificate authority of the moment, a signer, signed pictures."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pytest

SYNTHETIC = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_DAY = datetime.timedelta(days=1)
_USES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


@dataclass(frozen=True)
class Signing:
    """A signer and the authority it leads to, ``root`` in PEM."""

    signer: Any
    root: str


def signing(
    common_name: str = "Test Camera", organisation: str = "Camera Works", *, clock: str | None = None
) -> Signing:
    """A fresh authority and a signer below it; skips the test where the packages for it are not installed.

    ``clock``: the URL of an authority that stamps the time of each signature.
    """
    c2pa = pytest.importorskip("c2pa", reason="the extra 'provenance' is not installed")
    pytest.importorskip("cryptography", reason="cryptography is not installed")
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(common: str) -> x509.Name:
        return x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
                x509.NameAttribute(NameOID.COMMON_NAME, common),
            ]
        )

    def certificate(subject: str, key: Any, by: Any, *, ca: bool) -> Any:
        now = datetime.datetime.now(datetime.UTC)
        use = ("key_cert_sign", "crl_sign") if ca else ("digital_signature",)
        built = (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("Test Authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + 30 * _DAY)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**{u: u in use for u in _USES}), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        if not ca:
            built = built.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
            authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key())
            built = built.add_extension(authority, critical=False)
        return built.sign(by, SHA256())

    above, below = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = certificate("Test Authority", above, above, ca=True).public_bytes(Encoding.PEM)
    leaf = certificate(common_name, below, above, ca=False).public_bytes(Encoding.PEM)
    key = below.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    signer = c2pa.Signer.from_info(
        c2pa.C2paSignerInfo(b"es256", leaf + root, key, None if clock is None else clock.encode())
    )
    return Signing(signer, root.decode())


def signed(content: bytes, mime: str, by: Signing, *, source: str = SYNTHETIC, remote: str | None = None) -> bytes:
    """The content with credentials that say it was created, from such a source; ``remote``: only linked to."""
    import c2pa

    created = {"action": "c2pa.created", "digitalSourceType": source, "softwareAgent": {"name": "Dream Machine"}}
    manifest = {
        "claim_generator_info": [{"name": "test_maker", "version": "1.0"}],
        "title": "a picture",
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [created]}}],
    }
    context = c2pa.Context(c2pa.Settings.from_dict({"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}))
    builder = c2pa.Builder(json.dumps(manifest), context=context)
    if remote is not None:
        builder.set_no_embed()
        builder.set_remote_url(remote)
    out = BytesIO()
    builder.sign(by.signer, mime, BytesIO(content), out)
    return out.getvalue()
