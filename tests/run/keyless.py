"""A Sigstore of one's own, in memory: an authority of moments, its log of certificates, and a log of signatures."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

DER = serialization.Encoding.DER
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo
ISSUER, IDENTITY = "https://accounts.example.org", "ann@example.org"
_USAGE = dict.fromkeys(
    ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"),
    False,
)


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(DER, SPKI)


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def sign(key: ec.EllipticCurvePrivateKey, content: bytes) -> bytes:
    return key.sign(content, ec.ECDSA(hashes.SHA256()))


@dataclass
class Sigstore:
    """The services and their keys; ``at``: when it signs."""

    authority: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    certificates: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    log: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    at: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0) - timedelta(days=90))
    root: x509.Certificate = field(init=False)

    def __post_init__(self) -> None:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(self.authority.public_key())
        made = made.serial_number(1).not_valid_before(self.at - timedelta(9)).not_valid_after(self.at + timedelta(999))
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        usage = x509.KeyUsage(digital_signature=False, key_cert_sign=True, crl_sign=True, **_USAGE)
        made = made.add_extension(usage, critical=True)
        own = x509.SubjectKeyIdentifier.from_public_key(self.authority.public_key())
        self.root = made.add_extension(own, critical=False).sign(self.authority, hashes.SHA256())

    def trusted_root(self) -> dict[str, Any]:
        since = {"start": f"{self.at - timedelta(9):%Y-%m-%dT%H:%M:%SZ}"}

        def log(key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
            public = {"rawBytes": b64(spki(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": since}
            named = {"keyId": b64(hashlib.sha256(spki(key)).digest())}
            return {
                "baseUrl": "https://log.example.org", "hashAlgorithm": "SHA2_256", "publicKey": public, "logId": named,
            }  # fmt: skip

        chain = {"certificates": [{"rawBytes": b64(self.root.public_bytes(DER))}]}
        named = {"organization": "example.org", "commonName": "authority"}
        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log(self.log)],
            "ctlogs": [log(self.certificates)],
            "certificateAuthorities": [
                {"subject": named, "uri": "https://ca.example.org", "certChain": chain, "validFor": since}
            ],
            "timestampAuthorities": [],
        }

    def certificate(self, key: ec.EllipticCurvePrivateKey, identity: str, issuer: str) -> x509.Certificate:
        """A certificate of ten minutes, with the promise of the log of certificates in it."""
        serial = x509.random_serial_number()

        def made(promise: bytes) -> x509.Certificate:
            built = x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(self.root.subject)
            built = built.public_key(key.public_key()).serial_number(serial)
            built = built.not_valid_before(self.at).not_valid_after(self.at + timedelta(minutes=10))
            usage = x509.KeyUsage(digital_signature=True, key_cert_sign=False, crl_sign=False, **_USAGE)
            built = built.add_extension(usage, critical=True)
            built = built.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            above = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.authority.public_key())
            built = built.add_extension(above, critical=False)
            built = built.add_extension(x509.SubjectAlternativeName([x509.RFC822Name(identity)]), critical=True)
            for oid, value in (("57264.1.1", issuer.encode()), ("11129.2.4.2", promise)):
                own = x509.UnrecognizedExtension(ObjectIdentifier(f"1.3.6.1.4.1.{oid}"), value)
                built = built.add_extension(own, critical=False)
            return built.sign(self.authority, hashes.SHA256())

        when = int(self.at.timestamp() * 1000)
        # What is promised leaves the promise out, so that one without any stands for it.
        logged = made(self._promise(b"", when)).tbs_precertificate_bytes
        entry = hashlib.sha256(spki(self.authority)).digest() + len(logged).to_bytes(3, "big") + logged
        content = struct.pack("!BBQH", 0, 0, when, 1) + entry + struct.pack("!H", 0)
        return made(self._promise(sign(self.certificates, content), when))

    def _promise(self, signature: bytes, when: int) -> bytes:
        one = b"\0" + hashlib.sha256(spki(self.certificates)).digest() + struct.pack("!QHBB", when, 0, 4, 3)
        one += struct.pack("!H", len(signature)) + signature
        listed = struct.pack("!HH", len(one) + 2, len(one)) + one
        return b"\x04" + (bytes([len(listed)]) if len(listed) < 128 else bytes([0x81, len(listed)])) + listed

    def bundle(self, said: dict[str, Any], identity: str = IDENTITY, issuer: str = ISSUER) -> dict[str, Any]:
        """A keyless signature of a statement."""
        key, payload, kind = new_key(), json.dumps(said).encode(), "application/vnd.in-toto+json"
        leaf = self.certificate(key, identity, issuer)
        signature = sign(key, b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload))
        pem = leaf.public_bytes(serialization.Encoding.PEM)
        listed = [{"signature": b64(signature), "verifier": b64(pem)}]
        envelope = {
            "payload": b64(payload), "payloadType": kind, "signatures": [{"sig": b64(signature), "keyid": ""}],
        }  # fmt: skip
        spec = {
            "envelopeHash": _sha256(json.dumps(envelope).encode()), "payloadHash": _sha256(payload),
            "signatures": listed,
        }  # fmt: skip
        body = json.dumps({"apiVersion": "0.0.1", "kind": "dsse", "spec": spec}).encode()
        return {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "certificate": {"rawBytes": b64(leaf.public_bytes(DER))},
                "tlogEntries": [self.entry(body)],
            },
            "dsseEnvelope": envelope,
        }

    def entry(self, body: bytes) -> dict[str, Any]:
        """The only entry of the log of signatures."""
        name, root, moment = hashlib.sha256(spki(self.log)).digest(), hashlib.sha256(b"\0" + body).digest(), self.at
        note = f"log.example.org\n1\n{b64(root)}\n"
        checkpoint = f"{note}\n\u2014 log.example.org {b64(name[:4] + sign(self.log, note.encode()))}\n"
        when = int(moment.timestamp()) + 60
        promised = {"body": b64(body), "integratedTime": when, "logID": name.hex(), "logIndex": 0}
        promise = sign(self.log, json.dumps(promised, separators=(",", ":")).encode())
        return {
            "logIndex": "0", "logId": {"keyId": b64(name)}, "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(when), "inclusionPromise": {"signedEntryTimestamp": b64(promise)},
            "inclusionProof": {
                "logIndex": "0", "rootHash": b64(root), "treeSize": "1", "hashes": [],
                "checkpoint": {"envelope": checkpoint},
            },
            "canonicalizedBody": b64(body),
        }  # fmt: skip


def _sha256(content: bytes) -> dict[str, str]:
    return {"algorithm": "sha256", "value": hashlib.sha256(content).hexdigest()}
