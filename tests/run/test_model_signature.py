"""Signatures of models: the cases of the OpenSSF Model Signing conformance suite, signed here."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from auditor.core.errors import MissingExtraError, ModelError, UsageError
from auditor.run.model_signature import SignatureNote, check_signature, read_trusted, root_digest, signature_note
from cli.commands import app
from tests.run.keyless import IDENTITY, ISSUER, Sigstore, b64

HASHES: dict[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512(),
}  # fmt: skip
GIT = [".git", ".gitattributes", ".github", ".gitignore", "model.sig"]
FILES = {"config.json": b"{}", "weights.bin": b"0123456789" * 100, "subdir/adapter.bin": b"adapter", "empty": b""}


@dataclass
class Authority:
    """A root, an authority below it, and the key and certificate of a signer."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    days: tuple[int, int] = (-1, 30)
    signs: bool = True

    def chain(self) -> list[x509.Certificate]:
        root, middle = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
        top = certificate("root", root, "root", root, ca=True)
        between = certificate("middle", middle, "root", root, ca=True)
        return [certificate("signer", self.key, "middle", middle, days=self.days, signs=self.signs), between, top]


def certificate(
    name: str, key: Any, issuer: str, by: Any, *, ca: bool = False, days: tuple[int, int] = (-1, 30), signs: bool = True
) -> x509.Certificate:
    def called(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(called(name)).issuer_name(called(issuer)).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number())
    made = made.not_valid_before(now + timedelta(days[0])).not_valid_after(now + timedelta(days[1]))
    made = made.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
         "decipher_only"), False,
    )  # fmt: skip
    made = made.add_extension(
        x509.KeyUsage(digital_signature=signs and not ca, key_cert_sign=ca, crl_sign=ca, **usage), critical=True
    )
    return made.sign(by, hashes.SHA384())


def pem(*parts: Any) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return b"".join(
        part.public_bytes(serialization.Encoding.PEM)
        if isinstance(part, x509.Certificate)
        else part.public_key().public_bytes(serialization.Encoding.PEM, form)
        for part in parts
    )


def statement(model: Path, left_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """What is signed of a folder or a file, the slow obvious way."""
    files = [model] if model.is_file() else [path for path in model.rglob("*") if path.is_file()]
    base = model.parent if model.is_file() else model
    resources = [
        {"name": path.relative_to(base).as_posix(), "algorithm": "sha256",
         "digest": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in files if path.name not in ("model.sig", *left_out)
    ]  # fmt: skip
    resources.sort(key=lambda each: each["name"])
    root = hashlib.sha256(b"".join(bytes.fromhex(each["digest"]) for each in resources)).hexdigest()
    how = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": [*GIT, *left_out]}
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": model.name, "digest": {"sha256": root}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {"resources": resources, "serialization": how},
    }


def signed(said: dict[str, Any], key: Any, chain: list[x509.Certificate] | None = None) -> dict[str, Any]:
    payload, kind = json.dumps(said).encode(), b"application/vnd.in-toto+json"
    what = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    signature = key.sign(what, ec.ECDSA(HASHES[key.curve.name]))
    material: dict[str, Any] = {"publicKey": {"hint": hashlib.sha256(pem(key)).hexdigest()}}
    if chain is not None:
        raw = [base64.b64encode(c.public_bytes(serialization.Encoding.DER)).decode() for c in chain]
        material = {"x509CertificateChain": {"certificates": [{"rawBytes": each} for each in raw]}}
    return {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": material | {"tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(), "payloadType": kind.decode(),
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }  # fmt: skip


@dataclass
class Scene:
    model: Path
    trust: Path
    key: ec.EllipticCurvePrivateKey

    def sign(self, said: dict[str, Any] | None = None, change: Callable[[dict[str, Any]], None] | None = None) -> None:
        bundle = signed(said or statement(self.model), self.key)
        if change is not None:
            change(bundle)
        (self.model / "model.sig").write_text(json.dumps(bundle))

    def check(self) -> str:
        return check_signature(self.model, read_trusted(str(self.trust))).notes[0]

    def why(self) -> str:
        with pytest.raises(ModelError) as refused:
            self.check()
        assert refused.value.code == "AUD-LOAD-SIGNATURE"
        return str(refused.value)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    model = tmp_path / "m"
    for name, content in FILES.items():
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_bytes(content)
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "key.pub").write_bytes(pem(key))
    return Scene(model, tmp_path / "key.pub", key)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_a_folder_signed_with_a_key_is_valid(scene: Scene, curve: ec.EllipticCurve) -> None:
    scene.key = ec.generate_private_key(curve)
    scene.trust.write_bytes(pem(scene.key))
    scene.sign()
    said = statement(scene.model)
    assert scene.check().startswith("Signature valid: 'model.sig'")
    assert root_digest(str(scene.model)) == said["subject"][0]["digest"]["sha256"] and root_digest("no") is None


@pytest.mark.parametrize("name", sorted(FILES))
def test_one_flipped_byte_of_any_file_is_named(scene: Scene, name: str) -> None:
    scene.sign()
    content = bytearray((scene.model / name).read_bytes() or b"\0")
    content[-1] ^= 1
    (scene.model / name).write_bytes(content)
    assert f"'{name}' was changed" in scene.why()


def test_missing_and_added_files_and_links_are_named(scene: Scene) -> None:
    scene.sign()
    (scene.model / "subdir" / ".git").write_text("x")
    assert "'subdir/.git' is not signed" in scene.why()
    (scene.model / "subdir" / ".git").unlink()
    (scene.model / ".gitignore").write_text("x")
    scene.check()
    (scene.model / "config.json").rename(scene.model / "moved.json")
    assert "'moved.json' is not signed, and 1 more" in scene.why()
    (scene.model / "moved.json").unlink()
    assert "'config.json' is missing" in scene.why()
    (scene.model / "config.json").symlink_to("weights.bin")
    assert "'config.json' is a link" in scene.why()


def test_files_that_the_signer_left_out_are_left_out_by_their_whole_path(scene: Scene) -> None:
    (scene.model / "ignored").write_text("x")
    scene.sign(statement(scene.model, ("ignored",)))
    scene.check()
    (scene.model / "subdir" / "ignored").write_text("x")
    assert "'subdir/ignored' is not signed" in scene.why()


def test_a_single_file_has_its_signature_beside_it(tmp_path: Path, scene: Scene) -> None:
    one = scene.model / "weights.bin"
    of_reference = statement(one)
    of_reference["predicate"]["resources"][0]["name"] = "."
    for name, said in (
        ("weights.bin.sig", statement(one)),
        ("weights.bin.sig", of_reference),
        ("model.sig", statement(scene.model)),
    ):
        place = scene.model / name
        place.write_text(json.dumps(signed(said, scene.key)))
        found = check_signature(one, read_trusted(str(scene.trust)))
        assert repr(name) in found.notes[0] and found.file_sha256 == hashlib.sha256(FILES["weights.bin"]).hexdigest()
        place.unlink()
    two = statement(scene.model, ("weights.bin",))
    (scene.model / "weights.bin.sig").write_text(json.dumps(signed(two, scene.key)))
    with pytest.raises(ModelError, match=r"'weights\.bin' is not signed"):
        check_signature(one, read_trusted(str(scene.trust)))


def test_a_statement_of_version_0_2_is_read(scene: Scene) -> None:
    """Its subjects are the files, and what was signed is Python's literal of the bytes, always with SHA-256."""
    scene.key = ec.generate_private_key(ec.SECP384R1())
    scene.trust.write_bytes(pem(scene.key))
    now, kind = statement(scene.model), "application/vnd.in-toto+json"
    subjects = [{"name": r["name"], "digest": {"sha256": r["digest"]}} for r in now["predicate"]["resources"]]
    old = now | {"subject": subjects[::-1], "predicateType": "https://model_signing/Digests/v0.1", "predicate": {}}
    payload = json.dumps(old, indent=2).encode()
    content = f"DSSEV1 {len(kind)} {kind} {len(payload)} {payload}".encode()
    signature = b64(scene.key.sign(content, ec.ECDSA(hashes.SHA256())))
    change = {"payload": b64(payload), "signatures": [{"sig": signature, "keyid": None}]}
    scene.sign(change=lambda bundle: bundle["dsseEnvelope"].update(change))
    assert now["subject"][0]["digest"]["sha256"] in scene.check()
    (scene.model / "added").write_text("x")
    assert "'added' is not signed" in scene.why()
    (scene.model / "added").unlink()
    (scene.model / "weights.bin").write_text("x")
    assert "'weights.bin' was changed" in scene.why()


def test_a_certificate_counts_below_an_authority_that_is_trusted(scene: Scene) -> None:
    mine, other = Authority(scene.key), Authority(scene.key)
    chain = mine.chain()
    (scene.model / "model.sig").write_text(json.dumps(signed(statement(scene.model), scene.key, chain[:2])))
    for trusted in (chain[2], chain[1], chain[0]):
        scene.trust.write_bytes(pem(trusted))
        assert "CN=signer" in scene.check()
    scene.trust.write_bytes(pem(other.chain()[2]))
    assert "no authority that you trust" in scene.why()
    scene.trust.write_bytes(pem(scene.key))
    assert "you trust a key" in scene.why()


@pytest.mark.parametrize(
    ("authority", "why"), [(Authority(days=(-9, -1)), "not today"), (Authority(signs=False), "not for signatures")]
)
def test_a_certificate_counts_for_signatures_and_in_its_time(scene: Scene, authority: Authority, why: str) -> None:
    chain = authority.chain()
    scene.trust.write_bytes(pem(chain[2]))
    (scene.model / "model.sig").write_text(json.dumps(signed(statement(scene.model), authority.key, chain[:2])))
    assert why in scene.why()


def test_a_signers_certificate_issues_none(scene: Scene) -> None:
    """A certificate of the trusted authority, but of no authority itself, has signed another one."""
    mine = Authority()
    chain = mine.chain()
    forged = certificate("signer", scene.key, "signer", mine.key)
    scene.trust.write_bytes(pem(chain[2]))
    (scene.model / "model.sig").write_text(json.dumps(signed(statement(scene.model), scene.key, [forged, *chain[:2]])))
    assert "no authority that you trust" in scene.why()


def of_statement(change: Callable[[dict[str, Any]], None]) -> Callable[[Scene], None]:
    def make(scene: Scene) -> None:
        said = statement(scene.model)
        change(said)
        scene.sign(said)

    return make


def of_bundle(change: Callable[[dict[str, Any]], None]) -> Callable[[Scene], None]:
    return lambda scene: scene.sign(change=change)


def by_another(scene: Scene) -> None:
    scene.key = ec.generate_private_key(ec.SECP256R1())
    scene.sign()


def by_a_key_and_not_a_certificate(scene: Scene) -> None:
    scene.sign()
    scene.trust.write_bytes(pem(Authority().chain()[2]))


# By their names in the suite.
NEGATIVE: dict[str, Callable[[Scene], object]] = {
    "key-simple-wrong-key": by_another,
    "key-simple-no-signature": of_bundle(lambda b: b["dsseEnvelope"].update(signatures=[])),
    "two signatures": of_bundle(lambda b: b["dsseEnvelope"].update(signatures=b["dsseEnvelope"]["signatures"] * 2)),
    "key-simple-corrupted-bundle": of_bundle(lambda b: b["dsseEnvelope"]["signatures"][0].update(sig="MEUCIQ==")),
    "key-simple-wrong-mediatype": of_bundle(lambda b: b.update(mediaType="application/json")),
    "key-simple-wrong-payload-type": of_bundle(lambda b: b["dsseEnvelope"].update(payloadType="text/plain")),
    "malformed-missing-envelope": of_bundle(lambda b: b.pop("dsseEnvelope")),
    "malformed-empty-bundle": lambda scene: (scene.model / "model.sig").write_text(""),
    "key-simple-truncated-bundle": lambda scene: (scene.model / "model.sig").write_text('{"mediaType": "a'),
    "key-verify-as-certificate": by_a_key_and_not_a_certificate,
    "keyless": of_bundle(lambda b: b.update(verificationMaterial={"certificate": {"rawBytes": "AA=="}})),
    "malformed-wrong-predicate": of_statement(lambda s: s.update(predicateType="https://example.org/signature/v1.0")),
    "the earlier type about one digest alone": of_statement(
        lambda s: s.update(predicateType="https://model_signing/Digests/v0.1")
    ),
    "key-simple-wrong-statement-type": of_statement(lambda s: s.update(_type="https://in-toto.io/Statement/v0.1")),
    "key-simple-empty-resources": of_statement(lambda s: s["predicate"].update(resources=[])),
    "key-simple-missing-serialization": of_statement(lambda s: s["predicate"].pop("serialization")),
    "shards": of_statement(lambda s: s["predicate"]["serialization"].update(method="shards")),
    "unknown hash": of_statement(lambda s: s["predicate"]["serialization"].update(hash_type="md5")),
    "a name twice": of_statement(lambda s: s["predicate"]["resources"].append(s["predicate"]["resources"][0])),
    "another root": of_statement(lambda s: s["subject"][0]["digest"].update(sha256="0" * 64)),
    "a payload changed": of_bundle(
        lambda b: b["dsseEnvelope"].update(payload=base64.b64encode(b"{}").decode())
    ),
    "no signature file": lambda scene: None,
}  # fmt: skip


@pytest.mark.parametrize("name", NEGATIVE)
def test_what_is_no_valid_signature_is_not_valid(scene: Scene, name: str) -> None:
    NEGATIVE[name](scene)
    assert scene.why().startswith("Signature not valid: ")


def test_what_nobody_asked_to_check_is_not_checked(scene: Scene) -> None:
    assert signature_note(str(scene.model), None) == SignatureNote()
    scene.sign()
    found = signature_note(str(scene.model), None)
    assert found.notes[0].startswith("Signature not checked: 'model.sig'") and found.root is None
    with pytest.raises(UsageError, match="--trust-anchors"):
        signature_note(None, str(scene.trust))


@pytest.mark.parametrize("content", [b"", b"[]", b"-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n"])
def test_what_is_neither_key_nor_certificate_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UsageError, match="--trust-anchors"):
        read_trusted(str(tmp_path / "x"))


# ---- keyless signatures ----------------------------------------------------------------------------------------------

SIGNER = f"{ISSUER}={IDENTITY}"


@dataclass
class Keyless:
    model: Path
    trust: Path
    service: Sigstore

    def put(self, bundle: dict[str, Any]) -> None:
        (self.model / "model.sig").write_text(json.dumps(bundle))

    def check(self, signer: str = SIGNER) -> str:
        return check_signature(self.model, read_trusted(str(self.trust), signer)).notes[0]

    def why(self, signer: str = SIGNER) -> str:
        with pytest.raises(ModelError) as refused:
            self.check(signer)
        assert refused.value.code == "AUD-LOAD-SIGNATURE"
        return str(refused.value)


@pytest.fixture
def keyless(scene: Scene, tmp_path: Path) -> Keyless:
    pytest.importorskip("sigstore", reason="sigstore is not installed")
    service = Sigstore()
    trust = tmp_path / "trusted_root.json"
    trust.write_text(json.dumps(service.trusted_root()))
    made = Keyless(scene.model, trust, service)
    made.put(service.bundle(statement(scene.model)))
    return made


def test_a_keyless_signature_is_valid_of_its_signer_without_a_network(
    keyless: Keyless, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("connects")

    monkeypatch.setattr(socket.socket, "connect", connect)
    said = keyless.check()
    assert said.startswith("Signature valid: 'model.sig'") and IDENTITY in said and ISSUER in said
    # As the reference signer names a root: within a client's configuration.
    whole = {
        "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
        "trustedRoot": keyless.service.trusted_root(),
        "signingConfig": {"mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json"},
    }
    keyless.trust.write_text(json.dumps(whole))
    assert keyless.check() == said
    (keyless.model / "weights.bin").write_bytes(b"x")
    assert "'weights.bin' was changed" in keyless.why()


@pytest.mark.parametrize(
    "signer",
    [
        f"{ISSUER}=bob@example.org",
        f"https://other.example.org={IDENTITY}",
        f"{ISSUER}/={IDENTITY}",
        f"{ISSUER}=example.org",
    ],
)
def test_a_keyless_signature_of_another_signer_is_not_valid(keyless: Keyless, signer: str) -> None:
    assert "it is not of" in keyless.why(signer)


@pytest.mark.parametrize("signer", [None, "", IDENTITY, ISSUER, f"{ISSUER}=", f"={IDENTITY}", f"{IDENTITY}={ISSUER}"])
def test_a_trusted_root_needs_an_identity_and_its_issuer(keyless: Keyless, signer: str | None) -> None:
    with pytest.raises(UsageError, match="--model-signer ISSUER=IDENTITY"):
        read_trusted(str(keyless.trust), signer)


def test_what_is_no_trusted_root_is_refused(keyless: Keyless) -> None:
    for content in ("{", "{}", json.dumps(keyless.service.trusted_root() | {"mediaType": "x"}), '{"trustedRoot": 1}'):
        keyless.trust.write_text(content)
        with pytest.raises(UsageError, match="no trusted root"):
            read_trusted(str(keyless.trust), SIGNER)


def _material(bundle: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = bundle["verificationMaterial"]
    return found


def _logged(bundle: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = _material(bundle)["tlogEntries"][0]
    return found


def _of_other(name: str) -> Callable[[Keyless], object]:
    """A bundle in which one of the three services is another's."""

    def make(keyless: Keyless) -> None:
        own = {"authority": keyless.service.authority, "certificates": keyless.service.certificates}
        own |= {"log": keyless.service.log}
        del own[name]
        keyless.put(Sigstore(**own, at=keyless.service.at).bundle(statement(keyless.model)))

    return make


def _changed(change: Callable[[dict[str, Any]], object]) -> Callable[[Keyless], object]:
    def make(keyless: Keyless) -> None:
        bundle = keyless.service.bundle(statement(keyless.model))
        change(bundle)
        keyless.put(bundle)

    return make


def _of_another_statement(keyless: Keyless) -> None:
    """The entry, certificate or envelope of another signature of the same signer."""
    one, two = (keyless.service.bundle(statement(keyless.model)) for _ in range(2))
    one["verificationMaterial"]["tlogEntries"] = two["verificationMaterial"]["tlogEntries"]
    keyless.put(one)


def _late(keyless: Keyless) -> None:
    """A log that says it saw the signature an hour after the certificate ended."""
    made = keyless.service.bundle(statement(keyless.model))
    later = Sigstore(log=keyless.service.log, at=keyless.service.at + timedelta(hours=1))
    body = base64.b64decode(_logged(made)["canonicalizedBody"])
    _material(made)["tlogEntries"] = [later.entry(body)]
    keyless.put(made)


def _by_a_key(keyless: Keyless) -> None:
    keyless.put(signed(statement(keyless.model), ec.generate_private_key(ec.SECP256R1())))


def _of_a_stolen_certificate(keyless: Keyless) -> None:
    """The certificate of Ann beside a signature by another key."""
    one = keyless.service.bundle(statement(keyless.model))
    two = keyless.service.bundle(statement(keyless.model), "bob@example.org")
    two["verificationMaterial"]["certificate"] = one["verificationMaterial"]["certificate"]
    keyless.put(two)


FORGED_KEYLESS: dict[str, Callable[[Keyless], object]] = {
    "another authority": _of_other("authority"),
    "another log of certificates": _of_other("certificates"),
    "another log of signatures": _of_other("log"),
    "seen after the certificate ended": _late,
    "an entry of another signature": _of_another_statement,
    "another's certificate": _of_a_stolen_certificate,
    "signed by a key": _by_a_key,
    "a time moved": _changed(lambda b: _logged(b).update(integratedTime=str(int(_logged(b)["integratedTime"]) + 1))),
    "no time": _changed(lambda b: _logged(b).pop("inclusionPromise")),
    "no entry": _changed(lambda b: _material(b).update(tlogEntries=[])),
    "no certificate": _changed(lambda b: _material(b).pop("certificate")),
    "a certificate of nothing": _changed(lambda b: _material(b)["certificate"].update(rawBytes="AA==")),
    "an entry of nothing": _changed(lambda b: _logged(b).update(canonicalizedBody="AA==")),
    "a payload changed": _changed(lambda b: b["dsseEnvelope"].update(payload=b64(b"{}"))),
    "another type": _changed(lambda b: b["dsseEnvelope"].update(payloadType="text/plain")),
    "no signature": _changed(lambda b: b["dsseEnvelope"].update(signatures=[])),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED_KEYLESS)
def test_a_keyless_signature_that_is_not_so_is_not_valid(keyless: Keyless, name: str) -> None:
    FORGED_KEYLESS[name](keyless)
    assert keyless.why().startswith("Signature not valid: ")


def test_a_keyless_signature_is_not_valid_by_a_key_or_an_authority(keyless: Keyless, scene: Scene) -> None:
    assert "it is keyless" in scene.why()
    scene.trust.write_bytes(pem(keyless.service.root))
    assert "it is keyless" in scene.why()
    with pytest.raises(UsageError, match="--model-signer"):
        read_trusted(str(scene.trust), SIGNER)
    with pytest.raises(UsageError, match="--trust-anchors"):
        signature_note(str(scene.model), None, SIGNER)


def test_the_roots_that_the_library_brings_are_read(keyless: Keyless) -> None:
    """As one who takes the public service's own trusted root would name it."""
    import sigstore

    roots = list((Path(sigstore.__file__).parent / "_store").rglob("trusted_root.json"))
    assert len(roots) >= 1
    for root in roots:
        keyless.trust = root
        assert "it is not of" in keyless.why()


def test_without_the_library_a_trusted_root_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sigstore.models", None)
    (tmp_path / "root.json").write_text(json.dumps(Sigstore().trusted_root()))
    with pytest.raises(MissingExtraError, match=r"responsible-auditor\[evidence\]"):
        read_trusted(str(tmp_path / "root.json"), SIGNER)


def test_a_scan_says_whether_the_signature_is_valid_and_loads_no_model_whose_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=60), "y": rng.integers(2, size=60)})
    frame.to_csv("d.csv", index=False)
    joblib.dump(LogisticRegression().fit(frame[["a"]], frame["y"]), "m.joblib")
    key = ec.generate_private_key(ec.SECP256R1())
    Path("k.pub").write_bytes(pem(key))
    words = ["scan", "m.joblib", "--data", "d.csv", "--target", "y", "--probes", "performance", "--out", "out"]

    def scanned(*more: str) -> tuple[int, dict[str, Any]]:
        result = CliRunner().invoke(app, [*words, "--quiet", *more])
        return result.exit_code, json.loads(Path("out/report.json").read_text())

    code, record = scanned("--trust-anchors", "k.pub")
    assert code == 4 and record["refusal"]["reason_code"] == "AUD-LOAD-SIGNATURE"
    Path("m.joblib.sig").write_text(json.dumps(signed(statement(Path("m.joblib")), key)))
    code, record = scanned()
    assert code != 4 and any(note.startswith("Signature not checked") for note in record["model"]["notes"])
    code, record = scanned("--trust-anchors", "k.pub")
    assert code != 4 and any(note.startswith("Signature valid") for note in record["model"]["notes"])
    content = bytearray(Path("m.joblib").read_bytes())
    content[-9] ^= 1
    Path("m.joblib").write_bytes(content)
    code, record = scanned("--trust-anchors", "k.pub")
    assert code == 4 and "'m.joblib' was changed" in record["refusal"]["reason"] and record["findings"] == []


def test_a_scan_checks_a_keyless_signature(keyless: Keyless, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.csv").write_text("x")
    words = ["scan", "m", "--data", "m.csv", "--target", "x", "--trust-anchors", "trusted_root.json", "--quiet"]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2 and "--model-signer" in refused.output
    CliRunner().invoke(app, [*words, "--model-signer", f"{ISSUER}=bob@example.org"])
    record = json.loads(Path("audit-report/report.json").read_text())
    assert record["refusal"]["reason_code"] == "AUD-LOAD-SIGNATURE" and "bob@example.org" in record["refusal"]["reason"]
