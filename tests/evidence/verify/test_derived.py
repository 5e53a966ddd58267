"""Evidence of comparisons, mitigations and sweeps: conclusions are made anew, and a forger with the key is named."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from auditor.evidence.comparison_evidence import comparison_evidence, mitigation_evidence
from auditor.evidence.container import pack, unpack
from auditor.evidence.derived_evidence import Derived, EnclosedAudit, statement_of_derived, write_derived
from auditor.evidence.manifest import MANIFEST, RECORD, REQUEST, SIGNATURE, Manifest, code_digests
from auditor.evidence.signing import load_private_key, load_public_key, make_key, sign
from auditor.evidence.tradeoff_evidence import TRIED, SweepEvidence, inputs_digest, tradeoff_evidence
from auditor.evidence.verify import bundle_parts, dispatch
from auditor.evidence.verify import verify_derived as audits
from auditor.evidence.verify.checks import Verified
from auditor.evidence.verify.dispatch import verify_evidence
from auditor.evidence.verify.remeasure import Remake
from auditor.judging.measurement import Measurement
from auditor.report.comparing import tradeoff_of_audits
from auditor.report.comparing.compare_audits import Comparison, compare
from auditor.report.comparing.tradeoff_of_audits import AuditedPoint, weigh_audits
from auditor.report.record.audit_report import AuditReport
from auditor.statistics.changes import GapChange, RateChange
from cli.commands import app
from cli.verify import stored_probe
from tests.evidence.derived import audit, enclosed, forged, model, rows
from tests.quantifiers import none_of


@pytest.fixture(scope="module", autouse=True)
def _each_audit_once() -> Iterator[None]:
    """An enclosed audit is verified once for all tests, and two are compared once: they say all there is to say."""
    real, known = audits.verify_bytes, dict[bytes, Verified]()

    def once(data: bytes, called: str, make_probe: Remake) -> Verified:
        return known.setdefault(data, known.get(data) or real(data, called, make_probe))

    both = dict[tuple[str, str, str], Comparison]()

    def compared_once(before: AuditReport, after: AuditReport, **how: float) -> Comparison:
        key = (before.model_dump_json(), after.model_dump_json(), str(how))
        if key not in both:
            both[key] = compare(before, after, **how)
        return both[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audits, "verify_bytes", once)
        patch.setattr(bundle_parts, "code_digests", cache(code_digests))
        for module in (dispatch, tradeoff_of_audits):
            patch.setattr(module, "compare", compared_once)
        yield


Bend = Callable[[dict[str, Any]], object]
SETTINGS: tuple[dict[str, Any], ...] = ({"alpha": 0.5}, {"alpha": 1.0})
NAMES = ("alpha=0.5", "alpha=1.0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of every kind a signed bundle, and the keys."""
    folder = tmp_path_factory.mktemp("derived")
    make_key(folder / "k")
    made = _made(folder)
    for name, derived in made.items():
        write_derived(folder / f"{name}.zip", derived, key=load_private_key(folder / "k"))
    return folder


def _made(folder: Path) -> dict[str, Derived]:
    data, old = rows(), model(0.5)
    present = audit(old, data, "out/unmitigated/model.pt", old)
    points = [audit(model(h), data, f"out/{n}/model.pt", old) for n, h in zip(NAMES, (0.25, 0.0), strict=True)]
    audits = [enclosed(each, folder) for each in (present, *points)]
    before, after = present.report, points[1].report
    comparison = compare(before, after)
    mitigated = replace(comparison, made_by=("reweighing", "a note"))
    inputs = {
        name: {"mitigation": "correlation_remover", "options": json.dumps(own, sort_keys=True), "seed": "0"}
        for name, own in zip(NAMES, SETTINGS, strict=True)
    }
    tradeoff = weigh_audits(
        before,
        [
            AuditedPoint(name=name, settings=own, report=each.report)
            for name, own, each in zip(NAMES, SETTINGS, points, strict=True)
        ],
        made_by="correlation_remover",
        metric="accuracy",
        disparity="demographic_parity_difference",
        tolerance=0.05,
        error_rate=0.05,
        n_tried=2,
    ).tradeoff
    sweep = SweepEvidence(
        tradeoff=tradeoff,
        present=audits[0],
        points=dict(zip(NAMES, audits[1:], strict=True)),
        sweep={"alpha": [0.5, 1.0]},
        fixed={},
        tried=[inputs_digest(each) for each in inputs.values()],
        made=inputs,
    )
    return {
        "comparison": comparison_evidence(comparison, audits[0], audits[2]),
        "mitigation": mitigation_evidence(mitigated, audits[0], audits[2], "reweighing", {"n": 1}),
        "tradeoff": tradeoff_evidence(sweep),
        "records": comparison_evidence(comparison, EnclosedAudit(report=before), EnclosedAudit(report=after)),
    }


def checked(path: Path, folder: Path) -> Verified:
    return verify_evidence(path, stored_probe, trusted=[load_public_key(folder / "k.pub")])


def wrong(found: Verified) -> dict[str, str]:
    return {check.name: check.detail for check in found.checks if check.state == "wrong"}


@pytest.mark.parametrize("kind", ["comparison", "mitigation", "tradeoff"])
def test_what_a_command_wrote_agrees(folder: Path, kind: str) -> None:
    found = checked(folder / f"{kind}.zip", folder)
    assert wrong(found) == {} and none_of(check.state == "not checked" for check in found.checks)
    said = {check.name: check.detail for check in found.checks}
    changed = "points/002.zip: change" if kind == "tradeoff" else "after.zip: change"
    assert "counted anew over the rows of both" in said[changed]
    assert "signed with the key" in said["signature"] and "recomputed" in said["record"]
    assert sum("verified as an audit" in detail for detail in said.values()) == (3 if kind == "tradeoff" else 2)
    entries = unpack((folder / f"{kind}.zip").read_bytes(), kind)
    assert Manifest.from_bytes(entries[MANIFEST]).kind == kind


def signed_statement(path: Path) -> dict[str, Any]:
    envelope = json.loads(unpack(path.read_bytes(), path.name)[SIGNATURE])
    found: dict[str, Any] = json.loads(base64.b64decode(envelope["payload"]))
    return found


def test_the_signed_statement_names_models_and_data_as_subjects(folder: Path) -> None:
    models = {"comparison": ("model before", "model after"), "mitigation": ("model before", "model after")}
    for kind, names in (models | {"tradeoff": ("present model",)}).items():
        entries = unpack((folder / f"{kind}.zip").read_bytes(), kind)
        record = json.loads(entries[RECORD])
        subjects = {s["name"]: s["digest"]["sha256"] for s in signed_statement(folder / f"{kind}.zip")["subject"]}
        sides = (record["before"], record["after"]) if "before" in record else (record,)
        expected = {name: side["model"]["sha256"] for name, side in zip(names, sides, strict=True)}
        assert subjects == expected | {MANIFEST: hashlib.sha256(entries[MANIFEST]).hexdigest()}
    data = "c" * 64
    present = EnclosedAudit(
        report=AuditReport.from_json(unpack((folder / "records.zip").read_bytes(), "r")["after.json"])
    )
    present = replace(
        present,
        report=present.report.model_copy(update={"data": present.report.data.model_copy(update={"sha256": data})}),
    )
    same = compare(present.report, present.report)
    write_derived(folder / "data.zip", comparison_evidence(same, present, present), key=load_private_key(folder / "k"))
    assert {"name": "data", "digest": {"sha256": data}} in signed_statement(folder / "data.zip")["subject"]


def test_a_statement_of_an_earlier_version_is_read_and_one_about_another_model_is_not(
    folder: Path, tmp_path: Path
) -> None:
    entries = unpack((folder / "comparison.zip").read_bytes(), "comparison")
    manifest, record = Manifest.from_bytes(entries[MANIFEST]), json.loads(entries[RECORD])
    about = json.loads(entries[REQUEST])["about"]
    payload = statement_of_derived(manifest, record, about)
    earlier = statement_of_derived(manifest, record, about, with_subjects=False)
    assert [each["name"] for each in json.loads(earlier)["subject"]] == [MANIFEST]
    for said, fits in ((earlier, True), (payload.replace(about["model after"].encode(), b"0" * 64, 1), False)):
        assert said != payload
        path = tmp_path / "a.zip"
        path.write_bytes(pack({**entries, SIGNATURE: sign(said, load_private_key(folder / "k"))}))
        assert ("signature" not in wrong(checked(path, folder))) is fits


def test_of_a_folder_the_statement_names_the_root_digest(folder: Path) -> None:
    entries = unpack((folder / "records.zip").read_bytes(), "records")
    before, after = (AuditReport.from_json(entries[f"{name}.json"]) for name in ("before", "after"))
    rooted = after.model_copy(update={"model": after.model.model_copy(update={"root_sha256": "d" * 64})})
    made = comparison_evidence(compare(before, rooted), EnclosedAudit(report=before), EnclosedAudit(report=rooted))
    assert made.about["model after"] == "d" * 64 and made.about["model before"] == before.model.sha256


def test_of_a_folder_an_earlier_version_named_the_files_digest(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bundle is not wrong; a digest of anything else is, and so is the old one by the code that names the root."""
    entries = unpack((folder / "records.zip").read_bytes(), "records")
    before, after = (AuditReport.from_json(entries[f"{name}.json"]) for name in ("before", "after"))
    after = after.model_copy(update={"model": after.model.model_copy(update={"root_sha256": "d" * 64})})
    made = comparison_evidence(compare(before, after), EnclosedAudit(report=before), EnclosedAudit(report=after))
    for digest, state in ((after.model.sha256, 3), (before.model.sha256, 1), ("d" * 64, 3)):
        path = tmp_path / f"{digest}.zip"
        write_derived(
            path, replace(made, about={**made.about, "model after": digest}), key=load_private_key(folder / "k")
        )
        own = checked(path, folder)
        assert (REQUEST in wrong(own)) is (digest != "d" * 64)
        with monkeypatch.context() as patch:
            patch.setattr(bundle_parts, "code_digests", lambda: {"responsible-auditor": "0" * 64})
            found = checked(path, folder)
        assert found.exit_code() == state and (REQUEST in wrong(found)) is (state == 1)


def test_the_models_that_were_not_counted_are_named_as_unproven(folder: Path) -> None:
    found = checked(folder / "tradeoff.zip", folder)
    assert ["record.json: n_tried"] == [each.where for each in found.open if each.needs == "registration"]
    assert found.exit_code() == 3 and found.exit_code(("signature",)) == 0


def test_records_without_their_evidence_are_unproven(folder: Path) -> None:
    found = checked(folder / "records.zip", folder)
    assert wrong(found) == {} and found.exit_code() == 3
    assert {each.where for each in found.open} == {"before.json: *", "after.json: *"}


def _set(*path: Any, to: Any) -> Bend:
    """Another value at a place."""

    def bend(record: dict[str, Any]) -> None:
        at: Any = record
        for key in path[:-1]:
            at = at[key]
        assert at[path[-1]] != to, "nothing is bent"
        at[path[-1]] = to

    return bend


BENT: list[tuple[str, str, Bend, str]] = [
    ("tradeoff", "front", lambda r: _flip(r["points"][0]), "on_front"),
    ("tradeoff", "verdict", _set("points", 2, "verdict", to="costs more than the tolerance"), "verdict"),
    ("tradeoff", "headline", _set("headline", to="There is no alternative."), "headline"),
    ("tradeoff", "interval", _set("points", 1, "performance_change", "interval", 0, to=-0.9), "performance_change"),
    ("tradeoff", "dominated_by", _set("points", 2, "dominated_by", to="alpha=0.5"), "dominated_by"),
    ("tradeoff", "standing", _set("points", 2, "features", 0, "standing", to="more"), "standing"),
    ("tradeoff", "n_tried", _set("n_tried", to=1), "n_tried"),
    ("tradeoff", "tolerance", _set("tolerance", to=0.5), "tolerance"),
    ("tradeoff", "settings", _set("points", 1, "settings", "alpha", to=0.75), "sweep"),
    ("tradeoff", "dropped", lambda r: r["points"].pop(), "sweep"),
    ("tradeoff", "exit_code", _set("exit_code", to=1), "exit_code"),
    ("comparison", "conclusion", _set("conclusion", to="No success."), "conclusion"),
    ("comparison", "verdict", _set("rows", 0, "verdict", to="worse"), "rows"),
    ("comparison", "interval", _set("rows", 0, "interval", to=[0.0, 0.5]), "rows"),
    ("comparison", "crossed", _set("crossed", to=["accuracy, 0.5"]), "crossed"),
    ("comparison", "created", _set("before", "created", to="2099-01-01T00:00:00+00:00"), "before"),
    ("comparison", "digest", _set("after", "model", "sha256", to="0" * 64), "after"),
    ("comparison", "made_by", _set("made_by", to=["nobody"]), "made_by"),
    ("comparison", "added", _set("usefulness", "standing", to="failed"), "usefulness"),
    ("mitigation", "mitigation", _set("made_by", 0, to="another"), "record.json"),
    ("mitigation", "verdict", _set("usefulness", "rows", 0, "verdict", to="worse"), "usefulness"),
    ("mitigation", "exit_code", _set("exit_code", to=3), "exit_code"),
]


def test_words_of_other_code_are_no_conclusion_that_is_proven(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version may have put it otherwise; that it did, only that version can tell."""
    path = forged(folder / "records.zip", tmp_path / "f.zip", folder / "k", record=_set("conclusion", to="A success."))
    assert "conclusion" in wrong(checked(path, folder))
    monkeypatch.setattr(bundle_parts, "code_digests", lambda: {"responsible-auditor": "0" * 64})
    found = checked(path, folder)
    assert wrong(found) == {} and found.lacks(()) == ("outcomes",) and found.exit_code(("signature",)) == 3
    assert checked(folder / "records.zip", folder).exit_code(("signature",)) == 0


@pytest.mark.parametrize(
    ("part", "bend"),
    [
        ("record", _set("error_rate", to=10**400)),
        ("request", _set("about", to={"before": "\ud800"})),
        ("record", _set("error_rate", to=float("nan"))),
    ],
)
def test_numbers_and_text_that_are_none_are_wrong_and_no_error_of_the_tools(
    folder: Path, tmp_path: Path, part: str, bend: Bend
) -> None:
    entries = unpack((folder / "records.zip").read_bytes(), "records.zip")
    value = json.loads(entries[f"{part}.json"])
    bend(value)
    path = tmp_path / "f.zip"
    path.write_bytes(pack(entries | {f"{part}.json": json.dumps(value).encode()}))
    assert wrong(checked(path, folder))[f"{part}.json"]


def _flip(point: dict[str, Any]) -> None:
    point["on_front"] = not point["on_front"]


@pytest.mark.grid
@pytest.mark.parametrize(("kind", "what", "bend", "named"), BENT, ids=[f"{k}-{w}" for k, w, _, _ in BENT])
def test_a_bent_conclusion_is_named_though_the_right_key_signed_it(
    folder: Path, tmp_path: Path, kind: str, what: str, bend: Bend, named: str
) -> None:
    path = forged(folder / f"{kind}.zip", tmp_path / "f.zip", folder / "k", record=bend)
    found = checked(path, folder)
    said = wrong(found)
    assert found.exit_code() == 1 and any(named in f"{name}: {detail}" for name, detail in said.items()), said
    # The signature itself is right: it is the content that convicts.
    assert "signature" not in said and "log" not in said and "container" not in said


@pytest.mark.parametrize("kind", ["tradeoff", "comparison", "mitigation"])
@pytest.mark.parametrize("name", ["error_rate", "tolerance", "margin", "mitigation", "sweep", "about", "more"])
def test_another_request_is_not_what_the_record_answers(folder: Path, tmp_path: Path, kind: str, name: str) -> None:
    request = json.loads(unpack((folder / f"{kind}.zip").read_bytes(), kind)["request.json"])
    if name not in (*request, "more"):
        pytest.skip(f"a {kind} is not asked for with {name}")
    other = {"sweep": {"alpha": [0.5]}, "mitigation": "another", "about": {}, "more": 1}.get(name, 0.011)

    def change(request: dict[str, Any]) -> None:
        request[name] = other

    found = checked(forged(folder / f"{kind}.zip", tmp_path / "f.zip", folder / "k", request=change), folder)
    assert found.exit_code() == 1 and wrong(found)


def _bent_audit(audit: bytes, folder: Path) -> bytes:
    """An enclosed audit whose first outcome is another, with its own digests made to fit."""
    from tests.evidence.test_evidence import repacked

    record = json.loads(unpack(audit, "a")[RECORD])
    judged = next(f for f in record["findings"] if f["outcome"] in ("FAIL", "INCONCLUSIVE", "PASS"))
    judged["outcome"] = "FAIL" if judged["outcome"] == "PASS" else "PASS"
    (folder / "a.zip").write_bytes(audit)
    return repacked(folder / "a.zip", folder / "b.zip", record__json=json.dumps(record).encode()).read_bytes()


@pytest.mark.parametrize(
    ("kind", "part"), [("comparison", "before"), ("mitigation", "after"), ("tradeoff", "points/001")]
)
def test_each_enclosed_audit_is_verified_as_one(folder: Path, tmp_path: Path, kind: str, part: str) -> None:
    name = f"{part}.zip"
    bent = _bent_audit(unpack((folder / f"{kind}.zip").read_bytes(), kind)[name], tmp_path)
    found = checked(forged(folder / f"{kind}.zip", tmp_path / "f.zip", folder / "k", {name: bent}), folder)
    assert found.exit_code() == 1 and any(check.startswith(f"{name}: ") for check in wrong(found))


def test_audits_cannot_change_places(folder: Path, tmp_path: Path) -> None:
    entries = unpack((folder / "tradeoff.zip").read_bytes(), "t")
    one, two = entries["points/001.zip"], entries["points/002.zip"]
    swapped = {"points/001.zip": two, "points/002.zip": one}
    found = checked(forged(folder / "tradeoff.zip", tmp_path / "f.zip", folder / "k", swapped), folder)
    assert {"alpha=0.5", "alpha=1.0"} <= wrong(found).keys()


def test_a_point_without_its_audit_and_an_audit_without_its_point_are_named(folder: Path, tmp_path: Path) -> None:
    out = forged(folder / "tradeoff.zip", tmp_path / "f.zip", folder / "k", {"points/002.zip": None})
    assert "points" in wrong(checked(out, folder))
    more = unpack((folder / "tradeoff.zip").read_bytes(), "t")["present.zip"]
    out = forged(folder / "tradeoff.zip", tmp_path / "g.zip", folder / "k", {"points/003.zip": more})
    assert "is nothing that the evidence" in wrong(checked(out, folder))["points/003.zip"]


@pytest.mark.parametrize("what", ["uncounted", "other mitigation", "other options", "no point", "twice"])
def test_what_was_tried_is_held_against_the_points(folder: Path, tmp_path: Path, what: str) -> None:
    content = json.loads(unpack((folder / "tradeoff.zip").read_bytes(), "t")[TRIED])
    first = content["made"][NAMES[0]]
    if what == "uncounted":
        content["tried"].pop(0)
    elif what == "twice":
        content["tried"].append(content["tried"][0])
    elif what == "no point":
        content["made"]["alpha=7"] = copy.deepcopy(first)
    else:
        first["mitigation" if what == "other mitigation" else "options"] = "else"
        content["tried"][0] = inputs_digest(first)
    out = forged(folder / "tradeoff.zip", tmp_path / "f.zip", folder / "k", {TRIED: json.dumps(content).encode()})
    assert TRIED in wrong(checked(out, folder))


def test_a_kind_cannot_pass_for_another(folder: Path, tmp_path: Path) -> None:
    entries = unpack((folder / "comparison.zip").read_bytes(), "c")
    (tmp_path / "inner.zip").write_bytes(entries["before.zip"])
    inner = verify_evidence(tmp_path / "inner.zip", stored_probe)
    assert wrong(inner) == {}  # an enclosed audit stands by itself
    out = forged(
        folder / "comparison.zip",
        tmp_path / "f.zip",
        folder / "k",
        {"before.zip": (folder / "comparison.zip").read_bytes()},
    )
    assert any("an audit was expected" in detail for detail in wrong(checked(out, folder)).values())


@pytest.mark.parametrize("flag", ["--db", "--dossier", "--report"])
def test_what_is_asked_of_audits_alone_is_refused_of_others(folder: Path, flag: str) -> None:
    result = CliRunner().invoke(
        app, ["evidence", "verify", str(folder / "comparison.zip"), flag, str(folder / "k.pub")]
    )
    assert result.exit_code == 2 and "is the evidence of a comparison" in result.output, result.output
    drawn = CliRunner().invoke(app, ["report", str(folder / "tradeoff.zip")])
    assert drawn.exit_code == 2 and "is the evidence of a tradeoff and not of an audit" in drawn.output


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"{" * 50_000, b'{"exit_code": NaN}', b"\xff"])
@pytest.mark.parametrize("part", ["record.json", "request.json", TRIED])
def test_what_no_command_writes_is_wrong_and_no_crash(folder: Path, tmp_path: Path, part: str, content: bytes) -> None:
    from auditor.evidence.container import pack
    from auditor.evidence.manifest import FileEntry

    entries = unpack((folder / "tradeoff.zip").read_bytes(), "t") | {part: content}
    old = Manifest.from_bytes(entries[MANIFEST])
    files = {name: FileEntry.from_content(entries[name]) for name in old.files}
    entries[MANIFEST] = old.model_copy(update={"files": files}).to_bytes()
    (tmp_path / "f.zip").write_bytes(pack(entries))
    assert checked(tmp_path / "f.zip", folder).wrong


def _fewer(measurement: Measurement) -> Measurement:
    """As large a change, by fewer rows that went either way: a narrower interval."""
    estimate = measurement.estimate
    if isinstance(estimate, RateChange) and measurement.metric == "accuracy_change" and not measurement.group:
        k = min(estimate.gained, estimate.lost)
        assert k > 0
        fewer = estimate.model_copy(update={"gained": estimate.gained - k, "lost": estimate.lost - k})
        return replace(measurement, estimate=fewer)
    return measurement


def _fewer_by_group(measurement: Measurement) -> Measurement:
    estimate = measurement.estimate
    if not isinstance(estimate, GapChange):
        return measurement
    rates = []
    for rate in estimate.rates:
        k = [min(gained, lost) for gained, lost in zip(rate.gained, rate.lost, strict=True)]
        gained, lost = ([n - less for n, less in zip(own, k, strict=True)] for own in (rate.gained, rate.lost))
        rates.append(rate.model_copy(update={"gained": tuple(gained), "lost": tuple(lost)}))
    return replace(measurement, estimate=estimate.model_copy(update={"rates": tuple(rates)}))


def _better(measurement: Measurement) -> Measurement:
    estimate = measurement.estimate
    if isinstance(estimate, RateChange) and measurement.metric == "accuracy_change" and not measurement.group:
        return replace(measurement, estimate=estimate.model_copy(update={"gained": estimate.gained + 3}))
    return measurement


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> EnclosedAudit:
    return enclosed(audit(model(0.5), rows(), "old.pt", model(0.5)), tmp_path_factory.mktemp("before"))


@pytest.mark.parametrize("bent", [_fewer, _fewer_by_group, _better])
def test_a_change_that_an_audit_invents_is_counted_over_the_rows_of_both(
    before: EnclosedAudit, tmp_path: Path, bent: Callable[[Measurement], Measurement]
) -> None:
    """The later audit agrees with itself, and with the comparison that is drawn from it."""
    after = enclosed(audit(model(0.1), rows(), "new.pt", model(0.5), bent), tmp_path)
    write_derived(tmp_path / "c.zip", comparison_evidence(compare(before.report, after.report), before, after))
    assert set(wrong(verify_evidence(tmp_path / "c.zip", stored_probe))) == {"after.zip: change"}
