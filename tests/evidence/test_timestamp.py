"""Timestamps: what an authority says of a bundle is held to the bundle, and its clock to the roots a reader trusts."""

from __future__ import annotations

import copy
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import keys, pem, tsp
from asn1crypto import x509 as asn1_x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from pyhanko.sign.timestamps.dummy_client import DummyTimeStamper
from typer.testing import CliRunner

from auditor.core.errors import DataError, UsageError
from auditor.evidence.container import pack, unpack
from auditor.evidence.evidence_bundle import Evidence, write_bundle
from auditor.evidence.manifest import MANIFEST, SIGNATURE, TIMESTAMP
from auditor.evidence.signing import load_private_key, make_key
from auditor.evidence.timestamp import (
    NoTimestampError,
    authorities_of,
    check_authority,
    holds,
    is_of,
    read_token,
    timestamp_of,
)
from auditor.evidence.verify.checks import Verified
from auditor.evidence.verify.verify_bundle import verify_bundle
from cli.commands import app
from cli.verify import stored_probe
from tests.evidence.authority import POLICY, Authority, authority, serving
from tests.evidence.test_evidence import evidence
from tests.quantifiers import all_of


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("tsa") / "own")


@pytest.fixture(scope="module")
def made() -> Evidence:
    return evidence(n=60, names=("group_fairness",))


@contextmanager
def stamped(clock: Authority, made: Evidence, folder: Path, **how: Any) -> Iterator[Path]:
    with serving(clock.answer) as url:
        write_bundle(folder / "audit.zip", fresh(made), timestamp=url, **how)
    yield folder / "audit.zip"


def fresh(made: Evidence) -> Evidence:
    """The same with a log of its own, since writing a bundle ends it."""
    return replace(made, log=copy.deepcopy(made.log))


@pytest.fixture(scope="module")
def bundle(clock: Authority, made: Evidence, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stamped")
    make_key(folder / "key")
    with stamped(clock, made, folder, key=load_private_key(folder / "key")) as path:
        return path


def verified(path: Path, *roots: Path, policy: str | None = None) -> Verified:
    return verify_bundle(path, stored_probe, authorities=authorities_of(roots, policy))


def said(found: Verified) -> tuple[str, str]:
    ((state, detail),) = [(c.state, c.detail) for c in found.checks if c.name == "timestamp"]
    return state, detail


def changed(bundle: Path, path: Path, **parts: bytes | None) -> Path:
    entries = {**unpack(bundle.read_bytes(), "audit.zip"), **parts_of(parts)}
    path.write_bytes(pack({name: content for name, content in entries.items() if content is not None}))
    return path


def parts_of(parts: Mapping[str, bytes | None]) -> dict[str, bytes | None]:
    names = {"timestamp": TIMESTAMP, "signature": SIGNATURE, "manifest": MANIFEST}
    return {names[name]: content for name, content in parts.items()}


def token_in(bundle: Path) -> bytes:
    return unpack(bundle.read_bytes(), "audit.zip")[TIMESTAMP]


def answer_of(clock: Authority, content: bytes, at: datetime | None = None) -> bytes:
    """A token of a server that stamps whatever its certificate is for, with any time."""

    def answer(request: bytes) -> bytes:
        certificate = asn1_x509.Certificate.load(pem.unarmor((clock.folder / "tsa.pem").read_bytes())[2])
        key = keys.PrivateKeyInfo.load(pem.unarmor((clock.folder / "tsa.key").read_bytes())[2])
        made = DummyTimeStamper(certificate, key, fixed_dt=at).request_tsa_response(tsp.TimeStampReq.load(request))
        content: bytes = made.dump()
        return content

    with serving(answer) as url:
        return timestamp_of(content, url)


def test_a_timestamp_proves_that_the_signed_bundle_was_there(bundle: Path, clock: Authority) -> None:
    found = verified(bundle, clock.root)
    state, detail = said(found)
    assert state == "ok" and "A clock of tests" in detail and POLICY in detail
    assert datetime.now(UTC).isoformat()[:10] in detail
    assert "timestamp" in found.there and "timestamp" in found.proven
    assert verified(bundle, clock.root, policy=POLICY).proven == found.proven
    assert not found.wrong


def test_openssl_finds_the_same(bundle: Path, clock: Authority, tmp_path: Path) -> None:
    import subprocess

    entries = unpack(bundle.read_bytes(), "audit.zip")
    for name in (SIGNATURE, TIMESTAMP):
        (tmp_path / name).write_bytes(entries[name])
    words = ["openssl", "ts", "-verify", "-data", SIGNATURE, "-in", TIMESTAMP, "-CAfile", str(clock.root)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "Verification: OK" in done.stdout + done.stderr


def needing(found: Verified) -> set[str]:
    """What only a timestamp could prove, by its place."""
    return {each.where for each in found.unproven if each.needs == "timestamp"}


def test_without_roots_a_timestamp_is_open_and_without_one_dates_are_the_signers_word(
    bundle: Path, clock: Authority, tmp_path: Path
) -> None:
    found = verified(bundle)
    state, detail = said(found)
    assert state == "not checked" and "--tsa-root" in detail
    assert {"timestamp", "record.json: created"} <= needing(found) and "timestamp" not in found.there
    bare = changed(bundle, tmp_path / "bare.zip", timestamp=None)
    plain = verified(bare)
    assert not [c for c in plain.checks if c.name == "timestamp"]
    (dates,) = [each for each in plain.unproven if each.where == "record.json: created"]
    assert dates.needs == "timestamp" and "signer's word" in dates.why
    assert said(verified(bare, clock.root)) == ("wrong", "it has no timestamp, and one was expected")


def test_a_timestamp_proves_the_records_date_and_no_earlier_one(bundle: Path, clock: Authority) -> None:
    found = verified(bundle, clock.root)
    assert not needing(found)
    (bounds,) = [each for each in found.unproven if each.where == "record.json: criteria.set_at"]
    assert bounds.needs is None and "by when the bundle was there" in bounds.why


def test_a_record_dated_back_before_its_timestamp_is_open(clock: Authority, made: Evidence, tmp_path: Path) -> None:
    """The signer says last week, and the authority was asked today."""
    for hours, proven in ((0.9, True), (1.1, False)):
        back = (datetime.now(UTC) - timedelta(hours=hours)).isoformat(timespec="seconds")
        folder = tmp_path / str(hours)
        folder.mkdir()
        with stamped(clock, replace(made, report=made.report.model_copy(update={"created": back})), folder) as path:
            found = verified(path, clock.root)
        assert said(found)[0] == "ok" and ("timestamp" in found.proven) is proven
        assert ("record.json: created" in needing(found)) is not proven


def test_the_signature_is_what_is_stamped_so_that_a_stolen_key_cannot_sign_an_old_bundle(
    clock: Authority, made: Evidence, bundle: Path, tmp_path: Path
) -> None:
    with stamped(clock, made, tmp_path) as unsigned:
        entries = unpack(unsigned.read_bytes(), "audit.zip")
        assert said(verified(unsigned, clock.root))[0] == "ok"
    assert is_of(read_token(entries[TIMESTAMP]), entries[MANIFEST])
    signature = unpack(bundle.read_bytes(), "audit.zip")[SIGNATURE]
    later = changed(unsigned, tmp_path / "later.zip", signature=signature)
    assert said(verified(later, clock.root)) == ("wrong", "it is about something else than this bundle")
    stripped = changed(bundle, tmp_path / "stripped.zip", signature=None)
    assert said(verified(stripped, clock.root)) == ("wrong", "it is about something else than this bundle")


def test_another_bundles_timestamp_is_wrong_with_and_without_roots(
    clock: Authority, made: Evidence, bundle: Path, tmp_path: Path
) -> None:
    with stamped(clock, made, tmp_path) as other:
        forged = changed(bundle, tmp_path / "forged.zip", timestamp=token_in(other))
    outcomes = [said(verified(forged, *roots)) for roots in ((), (clock.root,))]
    assert outcomes == [("wrong", "it is about something else than this bundle")] * 2


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"ended": True}, "certificate has expired"),
        ({"usage": ExtendedKeyUsageOID.CODE_SIGNING}, "unsuitable certificate purpose"),
        ({"critical": False}, "unsuitable certificate purpose"),
    ],
)
def test_a_certificate_that_is_past_or_for_something_else_gives_no_time(
    how: dict[str, Any], why: str, bundle: Path, tmp_path: Path
) -> None:
    clock = authority(tmp_path / "tsa", **how)
    token = answer_of(clock, unpack(bundle.read_bytes(), "audit.zip")[SIGNATURE])
    state, detail = said(verified(changed(bundle, tmp_path / "a.zip", timestamp=token), clock.root))
    assert state == "wrong" and why in detail


def test_another_root_and_another_policy_do_not_hold(bundle: Path, clock: Authority, tmp_path: Path) -> None:
    stranger = authority(tmp_path / "stranger")
    state, detail = said(verified(bundle, stranger.root))
    assert state == "wrong" and "does not hold under the roots that you trust" in detail
    assert said(verified(bundle, stranger.root, clock.root))[0] == "ok"
    assert "Policy" in said(verified(bundle, clock.root, policy="1.2.3.4.9"))[1]


def test_dates_after_the_timestamp_are_wrong_beyond_what_clocks_differ_by(
    clock: Authority, made: Evidence, tmp_path: Path
) -> None:
    for minutes, state in ((4, "ok"), (6, "wrong")):
        later = (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat(timespec="seconds")
        dated = replace(made, report=made.report.model_copy(update={"created": later}))
        folder = tmp_path / str(minutes)
        folder.mkdir()
        with stamped(clock, dated, folder) as path:
            found = said(verified(path, clock.root))
        assert found[0] == state
        if state != "ok":
            assert found[1].startswith("the record is of ")
    log_of_later = unpack(path.read_bytes(), "audit.zip")
    yesterday = datetime.now(UTC) - timedelta(days=1)
    log_of_later[TIMESTAMP] = answer_of(clock, log_of_later[MANIFEST], yesterday)
    path.write_bytes(pack(log_of_later))
    assert said(verified(path, clock.root))[0] == "wrong"


def test_no_token_however_damaged_ends_in_anything_but_a_sentence(bundle: Path, clock: Authority) -> None:
    content = unpack(bundle.read_bytes(), "audit.zip")
    token, about = content[TIMESTAMP], content[SIGNATURE]
    roots = authorities_of([clock.root])
    assert roots is not None
    when = read_token(token).at
    survivors = []
    for i in range(len(token)):
        for damaged in (token[:i], token[:i] + bytes([token[i] ^ 1]) + token[i + 1 :]):
            try:
                found = read_token(damaged)
            except DataError:
                continue
            if is_of(found, about) and not holds(found, about, roots):
                survivors.append((len(damaged) < len(token), found.at, found.policy))
    # What the authority did not sign, such as a number of CMS's version, says nothing; time and policy are as signed.
    assert len(survivors) < 40
    assert all_of(survivor == (False, when, POLICY) for survivor in survivors)


def replayed(request: bytes, kept: dict[str, bytes], clock: Authority) -> bytes:
    return kept.setdefault("first", clock.answer(request))


def test_an_answer_to_another_request_or_about_something_else_is_none(clock: Authority) -> None:
    kept: dict[str, bytes] = {}
    with serving(lambda request: replayed(request, kept, clock)) as url:
        timestamp_of(b"these bytes", url)
        with pytest.raises(NoTimestampError, match="answer is to another request"):
            timestamp_of(b"these bytes", url)

    def about_something_else(request: bytes) -> bytes:
        asked = tsp.TimeStampReq.load(request)
        asked["message_imprint"]["hashed_message"] = bytes(32)
        return clock.answer(asked.dump(force=True))

    with serving(about_something_else) as url, pytest.raises(NoTimestampError, match="something else"):
        timestamp_of(b"these bytes", url)


def test_a_huge_a_slow_and_a_strange_answer_end_in_a_sentence(clock: Authority) -> None:
    for answer, status, why in (
        (lambda _: bytes(10 << 20), 200, "larger than 64 KiB"),
        (lambda _: b"<html>", 200, "is no timestamp"),
        (lambda _: b"", 200, "is no timestamp"),
        (lambda _: b"", 302, "status 302"),
        (lambda _: b"", 503, "status 503"),
        (lambda request: clock.answer(request[:-9]), 200, "no timestamp"),
    ):
        with serving(answer, status=status) as url, pytest.raises(NoTimestampError, match=why):
            timestamp_of(b"x", url)
    with serving(lambda _: time.sleep(9) or b"") as url:
        # Its own answer, once it comes, would be called none.
        with pytest.raises(NoTimestampError, match=r"within 0.3 s"):
            timestamp_of(b"x", url, seconds=0.3)
    with pytest.raises(NoTimestampError, match="refused"):
        timestamp_of(b"x", "http://127.0.0.1:9/")


@pytest.mark.parametrize("late", [TimeoutError("timed out"), urllib.error.URLError(TimeoutError("timed out"))])
def test_an_authority_that_is_too_slow_is_told_of_in_one_way(late: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_slow(*_: object, **__: object) -> None:
        raise late

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", too_slow)
    with pytest.raises(NoTimestampError, match=r"within 0.3 s"):
        timestamp_of(b"x", "http://tsa.example/", seconds=0.3)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://a/b", "tsa.example", "http://", "http://a:b c/", "http://a:99999"]
)
def test_what_is_no_url_of_an_authority_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="no http or https URL"):
        check_authority(url)


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        check_authority("https://ann:secret@tsa.example/")
    assert "secret" not in str(caught.value)


def test_what_is_no_root_and_no_policy_is_refused(clock: Authority, tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("none")
    for roots, policy, why in (
        ([tmp_path / "no.pem"], None, "no certificate in PEM"),
        ([tmp_path / "missing.pem"], None, "cannot be read"),
        ([clock.root], "mine", "no object identifier"),
        ([], "1.2.3", "--tsa-root"),
    ):
        with pytest.raises(UsageError, match=why):
            authorities_of(roots, policy)


def test_where_no_authority_answers_the_bundle_is_there_and_says_nothing_of_a_time(
    made: Evidence, tmp_path: Path
) -> None:
    path = tmp_path / "audit.zip"
    with serving(lambda _: b"", status=500) as url, pytest.raises(NoTimestampError, match="status 500"):
        write_bundle(path, fresh(made), timestamp=url)
    assert TIMESTAMP not in unpack(path.read_bytes(), "audit.zip")
    assert not verified(path).wrong


def test_verification_without_the_extra_says_what_is_missing(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rfc3161_client", None)
    state, detail = said(verified(bundle))
    assert state == "not checked" and "responsible-auditor[timestamp]" in detail


def test_a_comparison_is_stamped_as_an_audit_is_and_told_before_a_refusal(
    clock: Authority, made: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report.json").write_text(made.report.to_json())
    words = ["compare", "report.json", "report.json", "--bundle", "c.zip", "--timestamp"]
    required = ["evidence", "verify", "c.zip", "--require", "timestamp", "--tsa-root", str(clock.root)]
    for answer, code, state in ((clock.answer, 0, "it was there at"), (lambda _: b"", 1, "it has no timestamp")):
        with serving(answer) as url:
            compared = CliRunner().invoke(app, [*words, url])
        told = " ".join(compared.output.split())
        assert "c.zip" in told
        assert (compared.exit_code == 2) is (code == 1) and ("signer's word" in told) is (code == 1), told
        checked = CliRunner().invoke(app, required)
        assert checked.exit_code == code and state in " ".join(checked.output.split()), checked.output
    assert CliRunner().invoke(app, ["compare", "report.json", "report.json", "--timestamp", "http://a"]).exit_code == 2
