"""Signatures of models by the OpenSSF Model Signing specification 1.0, checked offline with what the user trusts.

A signature is a Sigstore bundle around a DSSE envelope of an in-toto statement with the digest of every file. It is
read as data; of a model no more than its bytes.

Source: https://github.com/ossf/model-signing-spec (sections 4 to 8).
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, JsonValue, ValidationError

from auditor.core.errors import MissingExtraError, ModelError, UsageError
from auditor.core.files import is_utf8, printable_name, regular_file

_NAMES = ("model.sig", "model.sigstore.json", "model.sigstore")
_NOT_SIGNED = (".git", ".gitignore", ".gitattributes", ".github")
_MEDIA_TYPE = re.compile(r"application/vnd\.dev\.sigstore\.bundle(\+json;version=0\.[123]|\.v0\.3\+json)")
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_LARGEST, _MOST_FILES = 64 << 20, 100_000
_HASHES: dict[str, Callable[[], Any]] = {"sha256": hashlib.sha256, "blake2b": hashlib.blake2b}


class _Resource(BaseModel):
    name: Annotated[str, Field(min_length=1, max_length=4_096)]
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64,128}$")]
    algorithm: str


class _Serialization(BaseModel):
    method: str
    hash_type: str
    allow_symlinks: bool
    ignore_paths: tuple[str, ...] = ()


class _Predicate(BaseModel):
    resources: Annotated[tuple[_Resource, ...], Field(min_length=1)]
    serialization: _Serialization


class _Subject(BaseModel):
    digest: dict[str, str]


class _Statement(BaseModel):
    kind: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")]
    subject: Annotated[tuple[_Subject, ...], Field(min_length=1, max_length=1)]
    predicateType: Literal["https://model_signing/signature/v1.0"]
    predicate: _Predicate


class _OldSubject(BaseModel):
    name: Annotated[str, Field(min_length=1, max_length=4_096)]
    digest: dict[Literal["sha256"], Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]


class _OldStatement(BaseModel):
    """As version 0.2 of the reference implementation signed models, of which there are still some."""

    kind: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")]
    subject: Annotated[tuple[_OldSubject, ...], Field(min_length=1)]
    predicateType: Literal["https://model_signing/Digests/v0.1"]

    def renewed(self) -> _Statement:
        listed = [(each.name, each.digest["sha256"]) for each in sorted(self.subject, key=lambda each: each.name)]
        how = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
        resources = [{"name": name, "digest": digest, "algorithm": "sha256"} for name, digest in listed]
        subject = [{"digest": {"sha256": _root(digest for _, digest in listed)}}]
        said = {"resources": resources, "serialization": how}
        kind = {"_type": self.kind, "predicateType": "https://model_signing/signature/v1.0"}
        return _Statement.model_validate(kind | {"subject": subject, "predicate": said})


class _Signature(BaseModel):
    sig: str


class _Envelope(BaseModel):
    payload: str
    payloadType: Literal["application/vnd.in-toto+json"]
    signatures: Annotated[tuple[_Signature, ...], Field(min_length=1, max_length=1)]


class _Certificate(BaseModel):
    rawBytes: str


class _Chain(BaseModel):
    certificates: Annotated[tuple[_Certificate, ...], Field(min_length=1, max_length=10)]


class _Material(BaseModel):
    publicKey: JsonValue = None
    x509CertificateChain: _Chain | None = None
    certificate: JsonValue = None


class _Bundle(BaseModel):
    mediaType: str
    verificationMaterial: _Material
    dsseEnvelope: _Envelope


@dataclass(frozen=True)
class Trusted:
    """What the user trusts: public keys, certificates of authorities, or a Sigstore trusted root for one signer.

    ``signer``: the issuer and the identity that a keyless signature has to be of.
    """

    keys: Sequence[Any] = ()
    certificates: Sequence[Any] = ()
    root: Any = None
    signer: tuple[str, str] = ("", "")


def read_trusted(path: str, signer: str | None = None) -> Trusted:
    """The public keys or certificates (PEM), or the Sigstore trusted root (JSON), in a file.

    ``signer``: ISSUER=IDENTITY, for a trusted root and nothing else. Raises UsageError where they do not fit.
    """
    try:
        from cryptography import x509
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
    except ImportError:
        raise MissingExtraError(
            "--trust-anchors needs the package cryptography: pip install 'responsible-auditor[evidence]'."
        ) from None
    content = regular_file(path, "file of --trust-anchors").read_bytes()[: 1 << 20]
    if content.lstrip().startswith(b"{"):
        return Trusted(root=_trusted_root(path, content), signer=_issuer_and_identity(signer))
    if signer is not None:
        raise UsageError(
            f"--model-signer is for keyless signatures, and --trust-anchors {path!r} is no trusted root: leave it out."
        )
    try:
        if b"-----BEGIN CERTIFICATE" in content:
            return Trusted(certificates=x509.load_pem_x509_certificates(content))
        return Trusted(keys=(serialization.load_pem_public_key(content),))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UsageError(f"--trust-anchors {path!r} holds no public key and no certificate in PEM.") from None


def _trusted_root(path: str, content: bytes) -> Any:
    try:
        from sigstore.models import ClientTrustConfig, TrustedRoot
    except ImportError:
        raise MissingExtraError(
            f"--trust-anchors {path!r} is JSON, as a trusted root of Sigstore, which needs the package sigstore: "
            "pip install 'responsible-auditor[evidence]'."
        ) from None
    try:
        if b'"trustedRoot"' in content:
            return ClientTrustConfig.from_json(content.decode()).trusted_root
        return TrustedRoot.from_file(path)
    except Exception:
        raise UsageError(f"--trust-anchors {path!r} holds no trusted root of Sigstore.") from None


def _issuer_and_identity(signer: str | None) -> tuple[str, str]:
    issuer, _, identity = (signer or "").partition("=")
    if not issuer.startswith(("https://", "http://")) or not identity:
        raise UsageError(
            "With a trusted root anybody can sign: add --model-signer ISSUER=IDENTITY, such as "
            "--model-signer https://accounts.google.com=ann@example.org."
        )
    return issuer, identity


def signature_beside(model: Path) -> Path | None:
    """The signature of a model: ``model.sig`` in a folder, or ``NAME.sig`` or ``model.sig`` beside it."""
    names = [model.with_name(f"{model.name}{Path(name).suffix}") for name in _NAMES]
    names = [*(model / name for name in _NAMES if model.is_dir()), *names, *(model.with_name(name) for name in _NAMES)]
    return next((path for path in names if path.is_file()), None)


@dataclass(frozen=True)
class SignatureNote:
    """A note on a model's signature; ``file_sha256`` of a single file that is signed, ``root`` of a signed folder."""

    notes: tuple[str, ...] = ()
    file_sha256: str | None = None
    root: str | None = None


def check_signature(model: Path, trusted: Trusted) -> SignatureNote:
    """Check the signature beside a model; return what it proves.

    Raises ModelError with the first file that is not as it was signed, or why the signature is not valid.
    """
    place = signature_beside(model)
    if place is None:
        raise signature_error(
            f"there is no {_NAMES[0]} in or beside {model.name!r}, and --trust-anchors wants one checked"
        )
    try:
        with place.open("rb") as file:
            content = file.read(_LARGEST)
        bundle = _Bundle.model_validate_json(content)
        envelope = bundle.dsseEnvelope
        payload, signature = _decoded(envelope.payload), _decoded(envelope.signatures[0].sig)
    except (ValidationError, ValueError, OSError):
        raise signature_error(f"{place.name!r} is no Sigstore bundle of one signed statement") from None
    if not _MEDIA_TYPE.fullmatch(bundle.mediaType):
        raise signature_error(f"{place.name!r} is of the type {printable_name(bundle.mediaType)!r}, which is not known")
    if trusted.root is not None:
        whose, payload = _keyless_signer(content, trusted)
    else:
        whose = _signer(bundle.verificationMaterial, trusted, payload, signature)
    statement = _statement(payload, place)
    _compare(model, place, statement)
    root = statement.subject[0].digest["sha256"]
    notes = (f"Signature valid: {place.name!r}, by {whose}, on the root digest {root}.",)
    if model.is_dir():
        return SignatureNote(notes, root=root)
    return SignatureNote(notes, file_sha256=_digest(model, "sha256"))


def signature_note(path: str | None, trust_anchors: str | None, signer: str | None = None) -> SignatureNote:
    """What is to be noted of the signature beside a model.

    Raises ModelError where it is not valid and there are ``trust_anchors``, UsageError without a file.
    """
    if trust_anchors is not None:
        if path is None:
            raise UsageError("--trust-anchors checks the signature of a model's file or folder: name it as MODEL.")
        return check_signature(Path(path), read_trusted(trust_anchors, signer))
    if signer is not None:
        raise UsageError("--model-signer needs --trust-anchors FILE, the trusted root that its signature leads to.")
    place = None if path is None else signature_beside(Path(path))
    if place is None:
        return SignatureNote()
    return SignatureNote(
        (f"Signature not checked: {place.name!r} needs --trust-anchors FILE, the key or authority to trust.",)
    )


def root_digest(path: str | None) -> str | None:
    """The SHA-256 over the digests of a folder's files in the order of their names, as a signature names a model.

    None for what is no folder of regular files.
    """
    if path is None or not os.path.isdir(path):
        return None
    try:
        files = dict(_files(Path(path), _NOT_SIGNED, signature_beside(Path(path)), follow=True))
        return _root(_digest(files[name], "sha256") for name in sorted(files))
    except (ModelError, OSError):
        return None


def _root(digests: Iterable[str]) -> str:
    whole = hashlib.sha256()
    for digest in digests:
        whole.update(bytes.fromhex(digest))
    return whole.hexdigest()


def signature_error(why: str) -> ModelError:
    """The refusal of a model whose signature is not valid, in a sentence without its full stop."""
    return ModelError(f"Signature not valid: {why}.", code="AUD-LOAD-SIGNATURE")


def _statement(payload: bytes, place: Path) -> _Statement:
    with suppress(ValidationError):
        return _Statement.model_validate_json(payload)
    with suppress(ValidationError):
        return _OldStatement.model_validate_json(payload).renewed()
    raise signature_error(f"{place.name!r} signs no statement of OpenSSF Model Signing 1.0 on a model")


def _decoded(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _signer(material: _Material, trusted: Trusted, payload: bytes, signature: bytes) -> str:
    """Who signed, in words."""
    if material.publicKey is not None:
        for key in trusted.keys:
            if _fits(key, signature, payload):
                return f"the key {_fingerprint(key)[:16]}... that you trust"
        raise signature_error(
            "the key that you trust did not sign it" if trusted.keys else "a key signed it, and you trust none"
        )
    if material.x509CertificateChain is None:
        raise signature_error("it is keyless, and --trust-anchors is no trusted root of Sigstore")
    if not trusted.certificates:
        raise signature_error("a certificate signed it, and you trust a key")
    leaf = _trusted_leaf(material.x509CertificateChain, trusted)
    if not _fits(leaf.public_key(), signature, payload):
        raise signature_error("its certificate's key did not sign this")
    return f"the certificate of {printable_name(leaf.subject.rfc4514_string())!r} from an authority that you trust"


def _keyless_signer(content: bytes, trusted: Trusted) -> tuple[str, bytes]:
    """Who signed, in words, and what: as the library read it, which checks signature, certificate, time and log."""
    from sigstore.models import Bundle
    from sigstore.verify import Verifier
    from sigstore.verify.policy import Identity

    issuer, identity = trusted.signer
    try:
        kind, payload = Verifier(trusted_root=trusted.root).verify_dsse(
            Bundle.from_json(content), Identity(identity=identity, issuer=issuer)
        )
    # Beside errors of its own the library lets those of what it reads with through.
    except Exception as error:
        why = printable_name(" ".join(str(error).split()))
        raise signature_error(f"it is not of {identity!r} by {issuer!r} and the trusted root ({why})") from None
    if kind != _PAYLOAD_TYPE:
        raise signature_error(f"it signs {printable_name(kind)!r}, which is no statement")
    return f"{identity!r}, whom {issuer!r} vouched for", payload


def _fingerprint(key: Any) -> str:
    from cryptography.hazmat.primitives import serialization

    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.DER, form)).hexdigest()


def _fits(key: Any, signature: bytes, payload: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    kinds = {256: hashes.SHA256, 384: hashes.SHA384, 521: hashes.SHA512}
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.key_size not in kinds:
        raise signature_error("its key is none of the curves P-256, P-384 and P-521")
    signed = b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD_TYPE), _PAYLOAD_TYPE.encode(), len(payload), payload)
    # Version 0.2 of the reference implementation signed Python's literal of the bytes, with SHA-256 by any key.
    old = f"DSSEV1 {len(_PAYLOAD_TYPE)} {_PAYLOAD_TYPE} {len(payload)} {payload!r}".encode()
    for content, kind in ((signed, kinds[key.curve.key_size]), (old, hashes.SHA256)):
        with suppress(InvalidSignature):
            key.verify(signature, content, ec.ECDSA(kind()))
            return True
    return False


def _trusted_leaf(chain: _Chain, trusted: Trusted) -> Any:
    """The certificate that signed, after a check of its chain, its purpose and that it is valid today."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.x509 import verification as path
    from cryptography.x509.oid import ExtendedKeyUsageOID

    try:
        leaf, *others = [x509.load_der_x509_certificate(_decoded(each.rawBytes)) for each in chain.certificates]
        purposes = [each.value for each in leaf.extensions]
        leaf.public_key()
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        raise signature_error("its certificates cannot be read") from None
    now = datetime.now(UTC)
    since, until = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if not since <= now <= until:
        raise signature_error(f"its certificate is valid from {since:%Y-%m-%d} to {until:%Y-%m-%d}, and so not today")
    signs = [each.digital_signature for each in purposes if isinstance(each, x509.KeyUsage)]
    signs += [ExtendedKeyUsageOID.CODE_SIGNING in each for each in purposes if isinstance(each, x509.ExtendedKeyUsage)]
    if not any(signs):
        raise signature_error("its certificate is not for signatures")
    if leaf in trusted.certificates:
        return leaf
    anything = path.ExtensionPolicy.permit_all()
    authority = anything.require_present(x509.BasicConstraints, path.Criticality.AGNOSTIC, _is_authority)
    rules = path.PolicyBuilder().store(path.Store(trusted.certificates)).time(now)
    rules = rules.extension_policies(ca_policy=authority, ee_policy=anything)
    try:
        rules.build_client_verifier().verify(leaf, others)
    except (path.VerificationError, ValueError):
        raise signature_error("no authority that you trust issued its certificate") from None
    return leaf


def _is_authority(policy: Any, certificate: Any, constraints: Any) -> None:
    if not constraints.ca:
        raise ValueError("this certificate may issue none")


def _compare(model: Path, place: Path, statement: _Statement) -> None:
    signed, how = statement.predicate.resources, statement.predicate.serialization
    if how.method != "files" or how.hash_type not in _HASHES:
        raise signature_error(
            f"it lists {printable_name(how.method)!r} by {printable_name(how.hash_type)!r}, which is not read"
        )
    expected = {each.name: each.digest for each in signed}
    if len(expected) != len(signed) or {each.algorithm for each in signed} != {how.hash_type}:
        raise signature_error("its list of files contradicts itself")
    if statement.subject[0].digest.get("sha256") != _root(each.digest for each in signed):
        raise signature_error("its root digest is not that of its list of files")
    if model.is_dir():
        found = dict(_files(model, (*_NOT_SIGNED, *how.ignore_paths), place, follow=how.allow_symlinks))
    else:
        found = {model.name: model}
        # Beside a file may lie the signature of the folder that it came in; the reference signer calls a file ".".
        alone = expected.get(".") if len(expected) == 1 else None
        digest = expected.get(model.name, alone)
        expected = {} if digest is None else {model.name: digest}
    differs = [f"{name!r} is not signed" for name in sorted(set(found) - set(expected))]
    differs += [f"{name!r} is missing" for name in sorted(set(expected) - set(found))]
    differs += [
        f"{name!r} was changed"
        for name in sorted(set(found) & set(expected))
        if _digest(found[name], how.hash_type) != expected[name]
    ]
    if differs:
        more = f", and {len(differs) - 1} more" if differs[1:] else ""
        raise signature_error(f"{printable_name(differs[0])}{more}")


def _files(model: Path, left_out: Sequence[str], place: Path | None, *, follow: bool) -> Iterator[tuple[str, Path]]:
    """Every file of a folder by its name in it. Raises ModelError for a link where none is followed, or an odd name."""
    count = 0
    for folder, folders, names in os.walk(model, followlinks=follow):
        for name in (*folders, *names):
            path = Path(folder) / name
            within = path.relative_to(model).as_posix()
            if any(within == each or within.startswith(f"{each}/") for each in left_out) or path == place:
                if name in folders:
                    folders.remove(name)
                continue
            if path.is_symlink() and not follow:
                raise signature_error(f"{printable_name(within)!r} is a link, and links are not signed")
            if name in names:
                count += 1
                if count > _MOST_FILES:
                    raise signature_error(f"the folder has more than {_MOST_FILES:,} files")
                if not is_utf8(within) or not path.is_file():
                    raise signature_error(f"{printable_name(within)!r} is no regular file with a name in UTF-8")
                yield within, path


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, _HASHES[kind]).hexdigest()
