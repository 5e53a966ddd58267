"""Whatever a record says is made again from what its audit went by: a forger who holds the right key is found out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from auditor.core.errors import UsageError
from auditor.evidence.container import pack
from auditor.evidence.evidence_bundle import REGISTRATION, Enclosed
from auditor.evidence.manifest import ASKED, LOG, RECORD, REQUEST, RESULTS, canonical, code_digests, events
from auditor.evidence.manifest import in_order as spelled
from auditor.evidence.registration import Plan
from auditor.evidence.verify import bundle_parts
from auditor.evidence.verify.checks import NEEDS, required_of
from auditor.evidence.verify.enclosed_inputs import read_inputs
from auditor.evidence.verify.request_and_log import as_given
from auditor.judging.budgets import Family
from auditor.judging.criterion import Criterion
from auditor.judging.input_files import ObeyedFile
from auditor.judging.policy import load_policies, parse_policy
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.controls import with_policies
from auditor.run.run_audit import assemble
from tests.evidence.verify.whole import Whole, whole
from tests.quantifiers import all_of, none_of

Record = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def _digested_once() -> Iterator[None]:
    """The code that is installed here does not change meanwhile."""
    here = code_digests()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle_parts, "code_digests", lambda: here)
        yield


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return whole(tmp_path_factory.mktemp("whole"))


def test_a_whole_bundle_agrees_and_says_what_is_left(bundle: Whole) -> None:
    found = bundle.verified(own=True)
    assert not [check for check in found.checks if check.state == "wrong"]
    assert {"rows", "registration", "decisions", "packs", "configuration", "request", "signature"} <= set(found.proven)
    assert "timestamp" not in found.proven and found.exit_code() == 3
    assert found.exit_code(("rows", "registration", "decisions")) == 0
    assert found.exit_code(("rows", "timestamp")) == 3
    assert all_of(each.why and each.where for each in found.unproven)
    assert none_of(each.needs in ("rows", "packs", "configuration", "request") for each in found.open)
    assert "Cara Chief" in json.dumps(json.loads(bundle.entries[RECORD])["decisions"])


def test_whose_registration_and_decisions_those_are_only_a_key_can_tell(bundle: Whole) -> None:
    found = bundle.verified()
    open_ = {each.where: each.why for each in found.open}
    assert "which you did not name" in open_["record.json: registration.by"]
    assert "which you did not name" in open_["record.json: decisions.2.*"]
    assert found.lacks(("registration", "decisions")) == ("registration", "decisions")


def evidence_everywhere(record: Record) -> None:
    passed = next(f["id"] for f in record["findings"] if f["value"] is not None)
    for control in record["controls"]:
        for cell in control["cells"]:
            cell |= {"kind": "evidence", "findings": [passed], "outcomes": {"PASS": 1}, "how": "", "reason": ""}


def controls_deleted(record: Record) -> None:
    record["controls"] = record["controls"][:2]


def own_control_deleted(record: Record) -> None:
    record["controls"] = [c for c in record["controls"] if (c["policy"], c["id"]) != ("house", "2")]


def packs_deleted(record: Record) -> None:
    record["policies"], record["controls"] = [], []


def another_author(record: Record) -> None:
    record["registration"] |= {"by": "The European Commission", "registered": "2019-01-31T09:00:00+00:00"}


def another_person(record: Record) -> None:
    record["decisions"][0] |= {"by": "Somebody Else", "expires": "2099-12-31"}


def another_value(record: Record) -> None:
    decided = record["decisions"][0]["decided"][0]
    decided |= {"value": 0.9, "high": 0.9}


def decision_erased(record: Record) -> None:
    record["decisions"] = []


def before_its_registration(record: Record) -> None:
    record["created"] = "2020-01-01T00:00:00+00:00"


def in_another_name(record: Record) -> None:
    record["about"]["organisation"]["name"] = "Another Bank"


def another_role(record: Record) -> None:
    record["roles"]["columns"] = {"race_ethnicity": "g"}


def found_and_not_given(record: Record) -> None:
    record["configuration"]["files"][0]["origin"] = "found"


def other_groups(record: Record) -> None:
    record["data"]["groups"]["g"]["a"] += 10


FORGED: list[tuple[Callable[[Record], None], str]] = [
    (evidence_everywhere, "rule pack house"),
    (controls_deleted, "rule pack house"),
    (own_control_deleted, "rule pack house"),
    (packs_deleted, "rule pack house"),
    (another_author, "registration"),
    (another_person, "decisions"),
    (another_value, "decisions"),
    (decision_erased, "decisions"),
    (before_its_registration, "dates"),
    (in_another_name, "configuration"),
    (another_role, "configuration"),
    (found_and_not_given, REQUEST),
    (other_groups, "shared numbers"),
]


@pytest.mark.grid
@pytest.mark.parametrize(("change", "name"), FORGED, ids=lambda each: getattr(each, "__name__", ""))
def test_a_forger_with_the_right_key_is_found_out(
    bundle: Whole, tmp_path: Path, change: Callable[[Record], None], name: str
) -> None:
    assert name in bundle.wrong(bundle.forged(tmp_path / "forged.zip", change))


def test_what_is_forged_and_signed_anew_would_agree_but_for_the_forgery(bundle: Whole, tmp_path: Path) -> None:
    assert bundle.wrong(bundle.forged(tmp_path / "same.zip")) == {}


def test_deviations_cannot_be_erased(bundle: Whole, tmp_path: Path) -> None:
    """Another threshold than was registered is a deviation, and the record says that there is none."""
    request = json.loads(bundle.entries[REQUEST])
    request["understood"]["plan"]["settings"]["threshold"] = 0.9
    request["options"]["threshold"] = 0.9
    wrong = bundle.wrong(bundle.forged(tmp_path / "a.zip", **{REQUEST: canonical(request)}))
    assert "deviations" in wrong["registration"]

    def confess(record: Record) -> None:
        record["registration"]["deviations"] = ["--threshold: nothing registered, 0.9 in this run."]

    told = bundle.wrong(bundle.forged(tmp_path / "b.zip", confess, **{REQUEST: canonical(request)}))
    assert "registration" not in told


def test_a_bound_that_was_moved_afterwards_is_in_none_of_the_files(bundle: Whole, tmp_path: Path) -> None:
    """Record, answers, plan and every outcome judged anew by 0.5: the configuration still says 0.1."""
    entries = bundle.entries
    results, request = json.loads(entries[RESULTS]), json.loads(entries[REQUEST])
    for criterion in (results["criteria"][0], request["understood"]["plan"]["criteria"][0]):
        criterion["bound"] = 0.5
    moved = [Criterion.model_validate(c) for c in results["criteria"]]
    report = _judged(bundle, moved, Family())

    def change(record: Record) -> None:
        for part in ("findings", "criteria", "figures", "summary", "exit_code", "family"):
            record[part] = report[part]

    changed = {RESULTS: spelled(results), REQUEST: canonical(request)}
    wrong = bundle.wrong(bundle.forged(tmp_path / "forged.zip", change, **changed))
    assert wrong["configuration"] == "results.json: criteria[0].bound says 0.5, recomputed 0.1"
    assert "deviations" in wrong["registration"]
    assert wrong.keys() == {"configuration", "registration", "rule pack eu-ai-act", "rule pack house"} & wrong.keys()


def _judged(bundle: Whole, criteria: list[Criterion], family: Family) -> Record:
    entries = bundle.entries
    said, asked = AuditReport.from_json(entries[RECORD]), ASKED.validate_json(entries[RESULTS])
    made = assemble(
        asked.results, criteria, model=said.model, data=said.data, environment=said.environment, family=family
    )
    return made.model_dump(mode="json")


def test_an_audit_is_not_dated_before_its_own_log(bundle: Whole, tmp_path: Path) -> None:
    """Log, request and record of one day before the registration: the registration tells."""
    request = json.loads(bundle.entries[REQUEST])
    request["understood"]["began"] = "2025-12-01T08:59:59+00:00"
    lines = [json.loads(line) | {"at": "2025-12-01T09:00:00.000+00:00"} for line in bundle.entries[LOG].splitlines()]
    log = b"".join(json.dumps(line).encode() + b"\n" for line in lines)

    def change(record: Record) -> None:
        record["created"] = "2025-12-01T09:00:00+00:00"

    wrong = bundle.wrong(bundle.forged(tmp_path / "forged.zip", change, **{REQUEST: canonical(request), LOG: log}))
    assert "registration" in wrong and "dates" in wrong


@pytest.mark.parametrize("part", [REGISTRATION, "decisions/0.json"])
def test_a_part_that_is_taken_out_is_open_and_no_longer_proven(bundle: Whole, tmp_path: Path, part: str) -> None:
    entries = bundle.entries
    del entries[part]
    kept = Whole(tmp_path / "kept.zip", bundle.keys)
    kept.path.write_bytes(pack(entries))
    found = bundle.verified(kept.forged(tmp_path / "forged.zip"), own=True)
    needs = "registration" if part == REGISTRATION else "decisions"
    assert not found.wrong and needs not in found.proven
    assert any(each.needs == needs and "not enclosed" in each.why for each in found.open)


def test_a_rule_pack_of_ones_own_cannot_have_another_text(bundle: Whole, tmp_path: Path) -> None:
    part = next(name for name in bundle.entries if name.endswith("house.toml"))
    text = bundle.entries[part].replace(b"EU declaration", b"EU declarations")
    wrong = bundle.wrong(bundle.forged(tmp_path / "forged.zip", **{part: text}))
    assert "its digest differs" in wrong[part]


def test_a_rule_pack_of_ones_own_does_not_go_by_the_name_of_a_shipped_one(bundle: Whole, tmp_path: Path) -> None:
    entries = bundle.entries
    part = next(name for name in entries if name.endswith("house.toml"))
    text = entries[part].replace(b'name = "house"', b'name = "nyc-ll144"')
    request = entries[REQUEST].decode().replace(sha256(entries[part]).hexdigest(), sha256(text).hexdigest())

    def renamed(record: Record) -> None:
        for file in record["configuration"]["files"]:
            if file["path"].endswith("house.toml"):
                file["sha256"] = sha256(text).hexdigest()
        pack = parse_policy(text.decode(), "house.toml")
        for policy in record["policies"]:
            if policy["name"] == "house":
                policy |= {"name": pack.name, "sha256": pack.sha256}
        for control in record["controls"]:
            if control["policy"] == "house":
                control["policy"] = pack.name

    wrong = bundle.wrong(bundle.forged(tmp_path / "forged.zip", renamed, **{part: text, REQUEST: request.encode()}))
    assert "goes by the name of a rule pack that comes with the tool" in wrong[REQUEST]
    assert not [name for name in wrong if name.startswith("rule pack")]


def test_on_which_day_packs_were_to_be_in_force_only_the_request_tells(bundle: Whole, tmp_path: Path) -> None:
    request = json.loads(bundle.entries[REQUEST])
    del request["understood"]
    entries = {n: c for n, c in bundle.entries.items() if not n.startswith(("configuration/", "packs/"))}
    kept = Whole(tmp_path / "kept.zip", bundle.keys)
    kept.path.write_bytes(pack(entries | {REQUEST: canonical(request)}))

    def of_another_day(record: Record) -> None:
        report = AuditReport.model_validate_json(json.dumps(record))
        packs, _ = load_policies(["eu-ai-act"])
        record |= with_policies(report, packs, date(2020, 1, 1)).model_dump(mode="json")

    found = kept.verified(kept.forged(tmp_path / "forged.zip", of_another_day), own=True)
    assert not found.wrong and "packs" not in found.proven
    assert [each.needs for each in found.open if each.where == "record.json: policies.as_of"] == ["packs"]


def test_a_file_that_is_called_as_a_folder_has_the_registered_digest_or_is_open(bundle: Whole, tmp_path: Path) -> None:
    request = json.loads(bundle.entries[REQUEST])
    assert request["understood"]["plan"]["files"]["data"] is not None
    request["options"]["data"] = "rows"

    digest = "ab" * 32

    def other_rows(record: Record) -> None:
        record["data"] |= {"path": "rows", "sha256": digest}

    log = bundle.entries[LOG].replace(b'"data": null', f'"data": "{digest}"'.encode())
    forged = bundle.forged(tmp_path / "forged.zip", other_rows, **{REQUEST: canonical(request), LOG: log})
    found = bundle.verified(forged, own=True)
    assert not found.wrong and "registration" not in found.proven
    assert "request.json: understood.plan.files.data" in [each.where for each in found.open]


def test_a_part_that_nothing_names_is_wrong(bundle: Whole, tmp_path: Path) -> None:
    more = bundle.forged(tmp_path / "forged.zip", **{"approval.txt": b"approved by the authority"})
    assert "nothing names it" in bundle.wrong(more)["approval.txt"]


def test_a_line_of_the_log_is_what_the_chain_says_it_is() -> None:
    within = b'{"n": 0, "more":\r{"event": "recorded", "exit_code": 0}\r, "event": "started"}\n'
    assert [event["event"] for event in events(within)] == ["started"]


def test_no_secret_of_a_configuration_is_enclosed(tmp_path: Path) -> None:
    files = [
        ObeyedFile("audit.toml", "configuration", "given", b'[audit]\ndb = "postgresql://ann:se/cret@h/d"\n'),
        ObeyedFile("b.toml", "configuration", "given", b'password = "hunter2"\n'),
        ObeyedFile("../x/c.toml", "configuration", "given", b"[labels]\n"),
    ]
    request = json.loads(whole(tmp_path).entries[REQUEST])["understood"]
    enclosed = Enclosed(began="2026-01-01T00:00:00+00:00", plan=_plan(request), obeyed=files)
    assert list(enclosed.parts()) == ["configuration/2-c.toml"]
    assert [file.part is None for file in enclosed.files()] == [True, True, False]
    assert all_of(len(file.sha256) == 64 for file in enclosed.files())


def _plan(request: Record) -> Any:
    return Plan.model_validate(request["plan"])


def test_each_thing_that_can_be_required_is_known(bundle: Whole) -> None:
    assert required_of("signature, rows") == ("signature", "rows")
    assert all_of(required_of(name) == (name,) for name in NEEDS)
    with pytest.raises(UsageError, match="did you mean 'rows'|rows"):
        required_of("row")
    with pytest.raises(UsageError, match="names nothing"):
        required_of(" , ")


def test_the_look_of_a_campaign_is_asked_for_at_its_own_level(bundle: Whole) -> None:
    """The plan has the campaign and its whole rate, the request what it is run again with: neither contradicts."""
    report = AuditReport.from_json(bundle.entries[RECORD])
    at_level = report.model_copy(update={"family": report.family.model_copy(update={"error_rate": 0.01})})
    request = json.loads(bundle.entries[REQUEST])

    def disagree(said: AuditReport) -> list[str]:
        return [check.name for check in as_given(read_inputs({REQUEST: canonical(request)})[0], said)]

    assert not disagree(report)
    request["options"]["error_rate"] = 0.01
    request["understood"]["plan"]["settings"] |= {"campaign": "spring", "campaign_looks": 5}
    assert not disagree(at_level)
    assert disagree(report) == [REQUEST]


def test_a_model_that_is_a_function_has_no_path_to_agree_with(bundle: Whole, tmp_path: Path) -> None:
    request = json.loads(bundle.entries[REQUEST])

    def another_path(record: Record) -> None:
        record["model"]["path"] = "another.pt"

    def wrong() -> dict[str, str]:
        return bundle.wrong(bundle.forged(tmp_path / "a.zip", another_path, **{REQUEST: canonical(request)}))

    assert "model.path says another.pt" in wrong()[REQUEST]
    del request["options"]["model"]
    assert wrong() == {}
