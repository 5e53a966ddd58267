"""Forgeries of audits of logs and of rows without a model, and of what is signed of any: none is as it is required."""

from __future__ import annotations

import base64
import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from auditor.core.errors import AuditorError
from auditor.evidence.container import pack, unpack
from auditor.evidence.manifest import ASKED, LOG, RECORD, REQUEST, RESULTS, SIGNATURE, TABLES, TIMESTAMP, Asked
from auditor.evidence.manifest import in_order as spelled
from auditor.evidence.signing import load_private_key, make_key, sign
from auditor.evidence.verify.checks import Needs
from auditor.judging.measurement import ProbeResult
from auditor.report.record.audit_report import AuditReport
from auditor.run.run_audit import assemble
from cli import reproduce
from tests import ROOT
from tests.evidence.verify.forged import code_of_once  # noqa: F401
from tests.evidence.verify.test_joint_changes import SCANS, Parts, Subject, scanned, signed_anew, written

Change = Callable[[Any], object]
REQUIRED: tuple[Needs, ...] = ("signature", "outcomes", "configuration", "request")


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Subject]:
    folder = tmp_path_factory.mktemp("newer")
    make_key(folder / "auditor.key")
    made = {name: scanned(folder, name, stories=False).read_bytes() for name in SCANS if name != "streamed"}
    return {name: Subject(name, "audit", unpack(data, name), folder, ("auditor.key",)) for name, data in made.items()}


def exits(subject: Subject, data: bytes, path: Path) -> int:
    path.write_bytes(data)
    try:
        return subject.verified(path).exit_code(REQUIRED)
    except AuditorError:
        return 4


def test_what_was_written_is_as_it_is_required(subjects: dict[str, Subject], tmp_path: Path) -> None:
    for subject in subjects.values():
        assert exits(subject, pack(subject.parts), tmp_path / "a.zip") == 0
        assert exits(subject, signed_anew(subject, dict(subject.parts), follows=True), tmp_path / "a.zip") == 0


# ---- the record ------------------------------------------------------------------------------------------------------


def of(metric: str, /, **changed: Any) -> Change:
    """The first finding of a metric, of a group where there are any, with other fields."""

    def change(record: Any) -> None:
        own = [f for f in record["findings"] if f["metric"] == metric]
        finding = next((f for f in own if f["group"]), own[0])
        assert any(finding[name] != value for name, value in changed.items())
        finding |= changed

    return change


def at(*way: Any, to: Any) -> Change:
    def change(record: Any) -> None:
        for key in way[:-1]:
            record = record[key]
        if isinstance(record, dict):
            assert record.get(way[-1]) != to
        record[way[-1]] = to

    return change


def without(metric: str) -> Change:
    return lambda record: record.update(findings=[f for f in record["findings"] if f["metric"] != metric])


EVERY: dict[str, Change] = {
    "made earlier": at("created", to="2019-02-28T00:00:00+00:00"),
    "made at no time": at("created", to="yesterday"),
    "exit code": lambda r: r.update(exit_code=0 if r["exit_code"] else 1),
    "counts": lambda r: r["summary"].update({"pass": 99}),
    "rate of errors": at("family", "error_rate", to=0.2),
    "size of the family": at("family", "m", to=7),
    "rule": at("family", "rule", to=2),
    "bound": at("criteria", 0, "bound", to=0.001),
    "criterion dropped": lambda r: r["criteria"].pop(),
    "criterion doubled": lambda r: r["criteria"].append(r["criteria"][0]),
    "findings turned round": lambda r: r["findings"].reverse(),
    "finding doubled": lambda r: r["findings"].append(r["findings"][-1]),
    "figure redrawn": lambda r: r["figures"][0]["series"][0].update(y=[0.99] * len(r["figures"][0]["series"][0]["y"])),
    "groups of another size": lambda r: next(iter(r["data"]["groups"].values())).update({"en": 1, "f": 1}),
    "groups of another column": lambda r: r["data"].update(sensitive=["race"]),
    "a decision": at("decisions", to=[{"entry": 1, "by": "Ann", "decision": "accept"}]),
    "a role": at("roles", to={"columns": {"race_ethnicity": "lang"}, "given": []}),
    "a policy": at("policies", to=[{"name": "eu-ai-act", "title": "t", "source": "s", "as_of": "2026-01-01"}]),
    "seed": at("environment", "seed", to=9),
    "a registration": at("registration", to={"path": "plan.json", "sha256": "0" * 64}),
    "a look of a campaign": at("looks", to={"look": 1, "of": 3}),
}
OF_RECORD: dict[str, dict[str, Change]] = {
    "logged": {
        "value": of("accuracy", value=0.99),
        "interval": of("accuracy", interval=[0.79, 0.81]),
        "confidence": of("accuracy", confidence=0.5),
        "outcome": of("accuracy", outcome="PASS"),
        "rows": of("accuracy", n_samples=6_000),
        "group": of("accuracy", group={"lang": "fr"}),
        "no group": of("accuracy", group={}),
        "name of the number": of("accuracy", metric="exact_match"),
        "ideal": of("accuracy", ideal=0.0),
        "method": of("accuracy", method="counted"),
        "probe": of("accuracy", probe="performance"),
        "what is in it": of("accuracy", detail="The log reports the same."),
        "another id": of("accuracy", id="recorded_evaluation/log/accuracy"),
        "favourable": lambda r: r["data"].update(positive="x"),
        "labels": lambda r: r["data"].update(target="y"),
        "unscored": without("unscored_entries"),
        "contradicted": without("contradicted_metrics"),
        "contradictions": of("contradicted_metrics", value=-1.0),
        "difference": of("accuracy_difference", value=0.0, interval=[0.0, 0.01]),
        "source": of("accuracy", citation="Nobody, 2026"),
        "reason": of("accuracy", reason="It is a PASS."),
    },
    "rows_alone": {
        "value": of("group_share", value=0.5),
        "interval": of("group_share", interval=[0.0, 1.0]),
        "group": of("group_share", group={"sex": "x"}),
        "rows": of("group_share", n_samples=5),
        "smallest group": of("smallest_group_rows", value=1_000.0),
        "no missing values": of("missing_rate_difference", outcome="NOT_JUDGED"),
        "rows needed": of("rows_needed", value=1.0),
        "copies": of("excess_overlap_rate", value=0.0, interval=[0.0, 0.01], outcome="PASS"),
        "the same": without("overlap_rate"),
        "personal data": of("personal_data_rate", value=0.5),
        "recognised": without("recognised_rate"),
        "conflicts": of("label_conflict_rate", n_samples=1),
        "feature that tells": of("strongest_feature_auc", value=0.5, interval=[0.5, 0.5]),
        "target": lambda r: r["data"].update(target="a"),
    },
}
RECORDS = [(name, what) for name in OF_RECORD for what in (*OF_RECORD[name], *EVERY)]


@pytest.mark.grid(every=6)
@pytest.mark.parametrize(("name", "what"), RECORDS, ids=[f"{name}, {what}" for name, what in RECORDS])
def test_a_record_that_says_otherwise_is_not_what_its_answers_come_to(
    subjects: dict[str, Subject], tmp_path: Path, name: str, what: str
) -> None:
    subject = subjects[name]
    record = json.loads(subject.parts[RECORD])
    (OF_RECORD[name].get(what) or EVERY[what])(record)
    for follows in (False, True):
        parts = {**subject.parts, RECORD: written(record)}
        if what in ("exit code", "counts") and follows:
            continue  # they would be set right
        assert exits(subject, signed_anew(subject, parts, follows=follows), tmp_path / "a.zip") != 0


def test_which_label_is_favourable_is_listed_where_only_the_rows_can_tell(
    subjects: dict[str, Subject], tmp_path: Path
) -> None:
    """No option of scan-data says it, and no answer rests on it: every number of a label names its own."""
    subject, path = subjects["rows_alone"], tmp_path / "a.zip"
    record = json.loads(subject.parts[RECORD])
    own = [f["detail"] for f in record["findings"] if f["metric"] == "conditional_label_difference"]
    assert set(own) == {"label 1"} and record["data"]["positive"] == "1"
    record["data"]["positive"] = "0"
    path.write_bytes(signed_anew(subject, {**subject.parts, RECORD: written(record)}, follows=True))
    (found,) = [each for each in subject.verified(path).open if each.where == "record.json: data.positive"]
    assert found.needs == "rows" and "which label is favourable was read from the rows" in found.why
    honest, forged = (AuditReport.model_validate(json.loads(c)) for c in (subject.parts[RECORD], written(record)))
    assert reproduce._other_circumstances(forged, honest) == ["the favourable label: 0 then, 1 now"]
    assert subject.verified(path).exit_code((*REQUIRED, "rows")) == subject.verified(path).exit_code() == 3


def test_a_favourable_label_that_was_asked_for_is_that_of_the_request(
    subjects: dict[str, Subject], tmp_path: Path
) -> None:
    subject = subjects["rows_alone"]
    request = json.loads(subject.parts[REQUEST])
    request["options"]["positive"] = request["understood"]["plan"]["settings"]["positive"] = "0"
    parts = {**subject.parts, REQUEST: json.dumps(request, sort_keys=True, separators=(",", ":")).encode()}
    (tmp_path / "a.zip").write_bytes(signed_anew(subject, parts, follows=True))
    found = [check.detail for check in subject.verified(tmp_path / "a.zip").checks if check.state == "wrong"]
    assert any("data.positive" in detail for detail in found)


# ---- the answers, and a record that follows from them ----------------------------------------------------------------


def reassembled(parts: Parts, change: Callable[[Asked], Asked]) -> Parts:
    """The parts with other answers, and a record as an audit would make it of them."""
    asked, said = change(ASKED.validate_json(parts[RESULTS])), AuditReport.model_validate_json(parts[RECORD])
    made = assemble(
        asked.results, asked.criteria, model=said.model, data=said.data, environment=said.environment,
        family=asked.family,
    )  # fmt: skip
    kept = ("created", "about", "roles", "configuration", "energy", "duration_s")
    made = made.model_copy(update={name: getattr(said, name) for name in kept})
    return parts | {
        RESULTS: spelled(ASKED.dump_python(asked, mode="json")),
        RECORD: spelled(made.model_dump(mode="json")),
    }


def each_result(change: Callable[[ProbeResult], ProbeResult | None]) -> Callable[[Asked], Asked]:
    def changed(asked: Asked) -> Asked:
        results = tuple(found for found in map(change, asked.results) if found is not None)
        assert results != asked.results
        return asked.model_copy(update={"results": results})

    return changed


def answered(**changed: Any) -> Callable[[Asked], Asked]:
    """All probes that answered, with other fields."""
    return each_result(lambda result: replace(result, **changed) if result.measurements else result)


ANSWERS: dict[str, Callable[[Asked], Asked]] = {
    "looser bounds": lambda a: a.model_copy(
        update={"criteria": tuple(c.model_copy(update={"bound": 0.0}) for c in a.criteria)}
    ),
    "no criteria": lambda a: a.model_copy(update={"criteria": ()}),
    "half of the criteria": lambda a: a.model_copy(update={"criteria": a.criteria[::2]}),
    "another rate of errors": lambda a: a.model_copy(update={"family": replace(a.family, error_rate=0.4)}),
    "no correction": lambda a: a.model_copy(update={"family": replace(a.family, multiplicity="none")}),
    "an answer less": lambda a: a.model_copy(update={"results": a.results[:-1]}),
    "an answer twice": lambda a: a.model_copy(update={"results": (*a.results, a.results[-1])}),
    "an answer without numbers": answered(measurements=()),
    "another pillar": answered(pillar="robustness"),
    "another source": answered(citation="Nobody, 2026"),
    "other questions": answered(questions=()),
    "code of the user's": answered(by_code=True),
    "asked for by name": answered(probe="accuracy"),
}


@pytest.mark.grid(every=6)
@pytest.mark.parametrize("what", ANSWERS)
@pytest.mark.parametrize("name", ["logged", "rows_alone"])
def test_answers_that_nobody_gave_are_not_as_it_is_required_though_the_record_follows_from_them(
    subjects: dict[str, Subject], tmp_path: Path, name: str, what: str
) -> None:
    subject = subjects[name]
    assert exits(subject, pack_of(subject, reassembled(subject.parts, lambda asked: asked)), tmp_path / "a.zip") == 0
    parts = reassembled(subject.parts, ANSWERS[what])
    assert exits(subject, pack_of(subject, parts), tmp_path / "a.zip") != 0


def pack_of(subject: Subject, parts: Parts) -> bytes:
    return signed_anew(subject, parts, follows=True)


# ---- request, log and tables -----------------------------------------------------------------------------------------


def option(**changed: Any) -> Callable[[Parts], Parts]:
    def change(parts: Parts) -> Parts:
        request = json.loads(parts[REQUEST])
        for name, value in changed.items():
            request["options"][name] = value
        return parts | {REQUEST: json.dumps(request, sort_keys=True, separators=(",", ":")).encode()}

    return change


def logged_line(event: str, **changed: Any) -> Callable[[Parts], Parts]:
    def change(parts: Parts) -> Parts:
        lines = [json.loads(line) for line in parts[LOG].splitlines()]
        for line in lines:
            line.update(changed if line["event"] == event else {})
        return parts | {LOG: b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)}

    return change


def file_of_criteria(parts: Parts) -> Parts:
    name = next(name for name in parts if name.startswith("configuration/"))
    return parts | {name: parts[name].replace(b"bound = 0.1", b"bound = 0.9") + b"\n"}


OTHERS: dict[str, Callable[[Parts], Parts]] = {
    "other probes asked": option(probes=["performance"]),
    "another seed": option(seed=5),
    "another rate": option(error_rate=0.5),
    "another correction": option(multiplicity="none"),
    "an option that there is none of": option(approved_by="the authority"),
    "an option of another scan": option(allow_inconclusive=["fairness"], error_rate=0.3),
    "criteria of another text": file_of_criteria,
    "no start": lambda parts: parts | {LOG: parts[LOG].partition(b"\n")[2]},
    "another start": logged_line("started", seed=8),
    "other counts": logged_line("judged", **{"pass": 40}),
    "tables of rows": lambda parts: parts | {TABLES: b'{"rows":null,"groups":{"a":1}}'},
    "a letter in the tables": lambda parts: parts | {TABLES: parts[TABLES][:-1] + b',"letter":"approved"}'},
    "rows that nobody stored": lambda parts: parts | {"rows.csv": b"truth,predicted\n1,1\n"},
    "scores that nobody stored": lambda parts: parts | {"membership.csv": b"member,score\n1,1\n"},
}


@pytest.mark.grid(every=6)
@pytest.mark.parametrize("what", OTHERS)
@pytest.mark.parametrize("name", ["logged", "rows_alone"])
def test_another_request_log_or_table_is_not_that_of_the_audit(
    subjects: dict[str, Subject], tmp_path: Path, name: str, what: str
) -> None:
    subject = subjects[name]
    assert exits(subject, pack_of(subject, OTHERS[what](dict(subject.parts))), tmp_path / "a.zip") != 0


# ---- what is signed --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("second_check", ROOT / "examples" / "verify_bundle.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def statement(change: Change) -> Callable[[Subject], bytes]:
    """The envelope of another statement, signed by the right key."""

    def forged(subject: Subject) -> bytes:
        said = json.loads(base64.b64decode(json.loads(subject.parts[SIGNATURE])["payload"]))
        before = json.dumps(said, sort_keys=True)
        change(said)
        assert json.dumps(said, sort_keys=True) != before
        content = json.dumps(said, sort_keys=True, ensure_ascii=False).encode()
        return sign(content, load_private_key(subject.folder / "auditor.key"))

    return forged


def envelope(change: Change) -> Callable[[Subject], bytes]:
    def forged(subject: Subject) -> bytes:
        said = json.loads(subject.parts[SIGNATURE])
        change(said)
        return json.dumps(said, indent=2).encode() + b"\n"

    return forged


ENVELOPES: dict[str, Callable[[Subject], bytes]] = {
    "another subject's digest": statement(lambda s: s["subject"][0]["digest"].update(sha256="0" * 64)),
    "a subject more": statement(lambda s: s["subject"].append({"name": "model", "digest": {"sha256": "0" * 64}})),
    "a subject less": statement(lambda s: s["subject"].pop(0)),
    "subjects in another order": statement(lambda s: s["subject"].reverse()),
    "another name": statement(lambda s: s["subject"][0].update(name="model")),
    "a digest in capitals": statement(
        lambda s: s["subject"][0]["digest"].update(sha256=s["subject"][0]["digest"]["sha256"].upper())
    ),
    "a digest of another kind beside it": statement(lambda s: s["subject"][0]["digest"].update(sha512="0" * 128)),
    "another result": statement(lambda s: s["predicate"].update(result="PASSED")),
    "a test that passed": statement(lambda s: s["predicate"]["passedTests"].append("a")),
    "another kind of statement": statement(lambda s: s.update(predicateType="https://slsa.dev/provenance/v1")),
    "a field more": statement(lambda s: s.update(approved="by the authority")),
    "signed twice": envelope(lambda e: e["signatures"].append(e["signatures"][0])),
    "another key's name": envelope(lambda e: e["signatures"][0].update(keyid="0" * 64)),
    "no key's name": envelope(lambda e: e["signatures"][0].pop("keyid")),
    "another type": envelope(lambda e: e.update(payloadType="application/json")),
    "a field more around it": envelope(lambda e: e.update(note="approved")),
    "another key": lambda subject: sign(
        base64.b64decode(json.loads(subject.parts[SIGNATURE])["payload"]), other_key(subject.folder)
    ),
    "spelled otherwise": lambda subject: json.dumps(json.loads(subject.parts[SIGNATURE])).encode(),
}


def other_key(folder: Path) -> Any:
    if not (folder / "other").exists():
        make_key(folder / "other")
    return load_private_key(folder / "other")


@pytest.mark.parametrize("what", ENVELOPES)
def test_what_was_signed_is_this_bundle_by_both_verifiers(
    subjects: dict[str, Subject], example: ModuleType, tmp_path: Path, what: str
) -> None:
    from auditor.evidence.signing import fingerprint, load_public_key

    subject = subjects["rows_alone"]
    keys = [fingerprint(load_public_key(subject.folder / "auditor.key.pub"))]
    assert example.check(pack(subject.parts), keys)[0] == []
    data = pack({**subject.parts, SIGNATURE: ENVELOPES[what](subject)})
    assert exits(subject, data, tmp_path / "a.zip") == 1
    assert example.check(data, keys)[0] == ["signature"]


@pytest.mark.parametrize("token", [b"", b"\x30\x03\x02\x01\x00", b"0" * 4_000, b"\xff" * 64])
def test_a_timestamp_that_is_none_is_wrong_and_no_error(
    subjects: dict[str, Subject], tmp_path: Path, token: bytes
) -> None:
    subject = subjects["logged"]
    assert exits(subject, pack({**subject.parts, TIMESTAMP: token}), tmp_path / "a.zip") in (1, 4)
