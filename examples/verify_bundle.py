"""A second check of an evidence bundle, by docs/bundle.md alone: verify_bundle.py audit.zip [auditor.key.pub ...]

It shares no code with auditor; it needs Python and cryptography. Exit codes: 0 all fits and a key that you named signed
it, 1 something does not, 2 nothing to check, 3 who signed is not known, 4 no audit's bundle. The rest:
auditor evidence verify.
"""

import base64
import contextlib
import hashlib
import io
import json
import re
import struct
import sys
import zipfile
import zlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MANIFEST, SIGNATURE, TIMESTAMP = "manifest.json", "signature.dsse.json", "timestamp.tsr"
RECORD, LOG, REQUEST, REDACTABLE = "record.json", "log.jsonl", "request.json", ("rows.csv", "membership.csv")
ALWAYS = (RECORD, LOG, "results.json", REQUEST, "tables.json")
PAYLOAD_TYPE, RESULT = "application/vnd.in-toto+json", {0: "PASSED", 3: "WARNED"}
DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RecursionError, InvalidSignature)


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def fingerprint(key):
    return sha256(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))


def read(data):
    """The parts of a bundle by name. Raises an error where it is none."""
    parts = {}
    for info in zipfile.ZipFile(io.BytesIO(data)).infolist():
        if info.compress_type or info.flag_bits & 1 or info.filename in parts or info.compress_size != info.file_size:
            raise ValueError("it holds what no bundle holds")
        start = info.header_offset + 30 + sum(struct.unpack_from("<HH", data, info.header_offset + 26))
        parts[info.filename] = data[start : start + info.file_size]
        if len(parts[info.filename]) < info.file_size:
            raise ValueError("it ends within a part")
    if b'"kind":"' in parts[MANIFEST]:
        raise ValueError("it is the evidence of something else than an audit")
    return parts


def packed(parts):
    """The one archive of these parts, byte for byte."""
    local, central = b"", b""
    for name in sorted(parts):
        content, n = parts[name], name.encode()
        fields = struct.pack("<HHHHIIIHH", 0, 0, 0, 33, zlib.crc32(content), len(content), len(content), len(n), 0)
        central += struct.pack("<IBBH", 0x02014B50, 20, 3, 20) + fields
        central += struct.pack("<HHHII", 0, 0, 0, 0o644 << 16, len(local)) + n
        local += struct.pack("<IH", 0x04034B50, 20) + fields + n + content
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, len(parts), len(parts), len(central), len(local), 0)
    return local + central + end


def manifest_of(content):
    """The manifest. Raises ValueError where it has not its one form."""
    found = json.loads(content)
    form = json.dumps(found, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    keys = {"format", "files", "log_head", "log_lines"}
    if form != content or found["format"] != "auditor-evidence/1" or set(found) != keys:
        raise ValueError("it is not in its one form, or of another format")
    for e in [{"sha256": found["log_head"], "size": found["log_lines"]}, *found["files"].values()]:
        whole = type(e["size"]) is int and e["size"] >= 0
        if set(e) != {"sha256", "size"} or not re.fullmatch("[0-9a-f]{64}", e["sha256"]) or not whole:
            raise ValueError("an entry is none")
    return found


def chain_holds(content, manifest):
    (*lines, last), previous = content.split(b"\n"), "0" * 64
    for i, line in enumerate(lines):
        if (json.loads(line)["n"], json.loads(line)["previous"]) != (i, previous):
            return False
        previous = sha256(line)
    return last == b"" and (len(lines), previous) == (manifest["log_lines"], manifest["log_head"])


def unnamed(parts):
    """The parts that nothing names: they are no audit's, and neither the record nor the request speaks of them."""
    record, understood = json.loads(parts[RECORD]), json.loads(parts[REQUEST]).get("understood") or {"files": []}
    named = {MANIFEST, SIGNATURE, TIMESTAMP, *ALWAYS, *REDACTABLE, *(file["part"] for file in understood["files"])}
    named |= {"registration.json"} if record["registration"] else set()
    said = {decision["entry"] for decision in record["decisions"]}
    more = {n: n.startswith("decisions/") and json.loads(parts[n])["number"] in said for n in parts if n not in named}
    return [n for n, decides in more.items() if not decides]


def statement(parts, of_manifest_alone=False):
    """What is signed of an audit: the digests of manifest, model and data, and what was found of them."""
    record = json.loads(parts[RECORD])
    by = {"passedTests": ["PASS"], "warnedTests": ["INCONCLUSIVE", "NOT_RUN"], "failedTests": ["FAIL"]}
    tests = {k: sorted(f["id"] for f in record["findings"] if f["outcome"] in v) for k, v in by.items()}
    about = {name: record[name]["sha256"] for name in ("model", "data")} | {"train": record["data"]["train_sha256"]}
    configuration = [{"name": k, "digest": {"sha256": v}} for k, v in about.items() if v is not None]
    named = about | {"model": record["model"].get("root_sha256") or about["model"]}
    subjects = {MANIFEST: sha256(parts[MANIFEST])} | ({} if of_manifest_alone else named)
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": k, "digest": {"sha256": v}} for k, v in sorted(subjects.items()) if v is not None],
        "predicateType": "https://in-toto.io/attestation/test-result/v0.1",
        "predicate": {"result": RESULT.get(record["exit_code"], "FAILED"), "configuration": configuration, **tests},
    }


def signer(parts):
    """The fingerprint of the key that signed the statement. Raises an error where none did."""
    found = json.loads(parts[SIGNATURE])
    texts = [found["payload"], *(found["signatures"][0][name] for name in ("sig", "public_key"))]
    payload, signature, raw = (base64.b64decode(text, validate=True) for text in texts)
    key = Ed25519PublicKey.from_public_bytes(raw)
    key.verify(signature, b"DSSEv1 %d %s %d " % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload)) + payload)
    texts = [base64.b64encode(b).decode() for b in (payload, signature, raw)]
    form = {"payloadType": PAYLOAD_TYPE, "payload": texts[0]}
    described = {"keytype": "ed25519", "keyval": {"public": raw.hex()}, "scheme": "ed25519"}
    keyid = sha256(json.dumps(described, sort_keys=True, separators=(",", ":")).encode())
    # Bundles of earlier versions name the key by its fingerprint, and sign the manifest alone.
    only = [{"keyid": each, "sig": texts[1], "public_key": texts[2]} for each in (keyid, fingerprint(key))]
    forms = [json.dumps(form | {"signatures": [each]}, indent=2).encode() + b"\n" for each in only]
    signed = [json.dumps(statement(parts, old), sort_keys=True, ensure_ascii=False).encode() for old in (False, True)]
    if parts[SIGNATURE] not in forms or payload not in signed:
        raise ValueError("the envelope is not in its one form, or about something else")
    return fingerprint(key)


def attempt(what, *given):
    with contextlib.suppress(*DAMAGE):
        return what(*given)


def check(data, trusted=()):
    """What does not fit, by name, and whose key signed; ``trusted``: fingerprints. Raises where it is no bundle."""
    wrong = ["container"] * (packed(parts := read(data)) != data)
    if not (manifest := attempt(manifest_of, parts[MANIFEST])):
        return [*wrong, "manifest"], None
    files, of = manifest["files"], {n: {"sha256": sha256(c), "size": len(c)} for n, c in parts.items()}
    wrong += [n for n in files if of.get(n, files[n]) != files[n] or n not in of and n not in REDACTABLE]
    wrong += [n for n in parts if n not in {*files, MANIFEST, SIGNATURE, TIMESTAMP}]
    wrong += [n for n in ALWAYS if n not in files]
    wrong += [n for n in attempt(unnamed, parts) or () if n not in wrong]
    chained = attempt(chain_holds, parts.get(LOG, b""), manifest)
    by = attempt(signer, parts)
    unsigned = by not in trusted if trusted else SIGNATURE in parts and by is None
    return wrong + ["log chain"] * (not chained) + ["signature"] * unsigned, by


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(print(__doc__) or 2)
    try:
        keys = [fingerprint(serialization.load_pem_public_key(open(name, "rb").read())) for name in sys.argv[2:]]
        wrong, by = check(open(sys.argv[1], "rb").read(), keys)
    except Exception as error:
        sys.exit(print(f"it is no bundle, or a key is none: {type(error).__name__}: {ascii(str(error))}") or 4)
    whose = f"signed with {by}, {'a key that you named' if keys else 'by whom only a key from them tells'}"
    print(f"wrong: {', '.join(map(ascii, wrong))}" if wrong else f"container, digests and chain fit; {by and whose}")
    sys.exit(1 if wrong else 0 if keys else 3)
