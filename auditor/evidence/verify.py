"""Checks an evidence bundle without the model: container, digests, chain, signature, and every number anew."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from auditor.drawing.earlier_figures import figures_as_before
from auditor.errors import AuditorError, DataError
from auditor.evidence.archive import differing_part, read_archive, unpack
from auditor.evidence.bundle import statement_of
from auditor.evidence.history.looks import misspent
from auditor.evidence.log import broken_links, events
from auditor.evidence.manifest import (
    ASKED,
    LOG,
    MANIFEST,
    RECORD,
    REDACTABLE,
    REQUEST,
    RESULTS,
    ROWS,
    SIGNATURE,
    TABLES,
    Asked,
    Manifest,
    canonical,
    code_digests,
)
from auditor.evidence.registration import ROLES
from auditor.evidence.signing import open_envelope
from auditor.finding.judging import judge
from auditor.finding.measurement import Measurement, ProbeResult
from auditor.finding.policy import load_policies, pack_names
from auditor.record.audit_report import AuditReport
from auditor.record.controls import with_policies
from auditor.run import __version__
from auditor.run.answers import Answers, StoredModel, read_head, read_rows
from auditor.run.audit import ask, assemble, generator_for

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from auditor.data.counts import GroupCounts
    from auditor.run.probe import Probe

State = Literal["ok", "wrong", "not checked"]
# Numbers are computed on another machine, perhaps with another version of a library.
RELATIVE = 1e-6
_MOST_BYTES = 32 << 20
# A table of so many classes has more cells than a bundle should make anybody fill.
_MOST_CLASSES = 1_000
# What a finding says whatever the rules by which outcomes follow from what was measured.
_OF_NO_RULE = {
    "id", "probe", "method", "pillar", "metric", "group", "sensitive", "at", "value", "n_samples", "estimate",
}  # fmt: skip
# What a check of a rule pack is called, before the pack's own name.
RULE_PACK = "rule pack "
_PARTS = (RECORD, RESULTS, REQUEST, TABLES, LOG, MANIFEST)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was checked: ``name`` says what, ``detail`` what was found."""

    name: str
    state: State
    detail: str


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What became of a bundle: its checks in order, and the record where it could be read.

    ``from_rows``, ``from_tables``: ids of findings whose statistics were counted anew from stored rows or tables; all
    others were recomputed from the statistics that the bundle holds of them.
    """

    checks: tuple[Check, ...]
    report: AuditReport | None
    from_rows: frozenset[str] = frozenset()
    from_tables: frozenset[str] = frozenset()

    @property
    def wrong(self) -> bool:
        """Whether anything did not agree."""
        return any(check.state == "wrong" for check in self.checks)

    @property
    def incomplete(self) -> bool:
        """Whether something was not checked."""
        return any(check.state == "not checked" for check in self.checks)


Remake = Callable[[str, Mapping[str, Any]], "Probe | None"]


def verify_bundle(path: Path, make_probe: Remake, *, trusted: Sequence[Ed25519PublicKey] = ()) -> Verified:
    """Every check that the bundle allows.

    ``make_probe``: a probe by name and options, where its numbers follow from answers, decisions and groups alone;
    None for all others. ``trusted``: keys of whom the reader expects the signature. Raises UsageError where there is
    no file, DataError where it is no bundle at all; everything else is a check that came out wrong.
    """
    data = read_archive(path)
    entries = unpack(data, path.name)
    for name, content in entries.items():
        if name != ROWS and len(content) > _MOST_BYTES:
            raise DataError(f"{path.name!r}: the part {name[:60]!r} is larger than any audit makes it.")
    if MANIFEST not in entries:
        raise DataError(f"{path.name!r} has no {MANIFEST}: it is no evidence bundle, or that part was taken out.")
    checks = [_container(data, entries)]
    try:
        manifest = Manifest.read(entries[MANIFEST])
    except DataError as error:
        return Verified(checks=(*checks, Check(name="manifest", state="wrong", detail=str(error))), report=None)
    checks += _digests(entries, manifest)
    code = _code(entries)
    checks += [_log(entries, manifest), code]
    report, said = _read(RECORD, entries, lambda content: AuditReport.model_validate_json(content))
    asked, more = _read(RESULTS, entries, lambda content: ASKED.validate_json(content))
    checks += said + more
    checks.append(_signature(entries, manifest, report, trusted))
    if report is None or asked is None:
        return Verified(checks=tuple(checks), report=report)
    other_code = code.detail.startswith(_OTHER_CODE)
    try:
        checks += _judged(report, asked, other_code=other_code)
        checks += _told(entries, report, asked)
        remake = _Remade(make_probe, other_code)
        found, from_rows, from_tables = _answered(entries, manifest, asked, report, remake)
    except (ArithmeticError, LookupError, TypeError, ValueError, MemoryError) as error:
        # Whatever no audit writes: numbers beyond all bounds, places that are not there.
        detail = f"its numbers cannot be recomputed: {type(error).__name__}"
        return Verified(checks=(*checks, Check(name="numbers", state="wrong", detail=detail)), report=report)
    return Verified(checks=(*checks, *found), report=report, from_rows=from_rows, from_tables=from_tables)


def _container(data: bytes, entries: Mapping[str, bytes]) -> Check:
    where = differing_part(data, entries)
    if where:
        return Check(name="container", state="wrong", detail=f"bytes around the contents were changed: {where}")
    return Check(name="container", state="ok", detail="every byte of the archive follows from its contents")


def _digests(entries: Mapping[str, bytes], manifest: Manifest) -> list[Check]:
    checks = []
    for name, entry in manifest.files.items():
        content = entries.get(name)
        if content is None and name in REDACTABLE:
            checks.append(Check(name=name, state="not checked", detail="left out; its digest is kept"))
        elif content is None:
            checks.append(Check(name=name, state="wrong", detail="is not in the bundle"))
        elif (hashlib.sha256(content).hexdigest(), len(content)) != (entry.sha256, entry.size):
            checks.append(Check(name=name, state="wrong", detail="is not what it was: its digest differs"))
        else:
            checks.append(Check(name=name, state="ok", detail=f"digest {entry.sha256[:16]}..."))
    known = {*manifest.files, MANIFEST, SIGNATURE}
    checks += [
        Check(name=name[:200], state="wrong", detail="is in the bundle, and the manifest does not name it")
        for name in entries
        if name not in known
    ]
    checks += [
        Check(name=name, state="wrong", detail="is not named by the manifest")
        for name in _PARTS
        if name != MANIFEST and name not in manifest.files
    ]
    return checks


def _log(entries: Mapping[str, bytes], manifest: Manifest) -> Check:
    problems = broken_links(entries.get(LOG, b""), manifest.log_head, manifest.log_lines)
    if problems:
        return Check(name="log chain", state="wrong", detail="; ".join(problems[:3]))
    return Check(name="log chain", state="ok", detail=f"{manifest.log_lines} lines, each following on the one before")


_OTHER_CODE = "measured by other code"


def _code(entries: Mapping[str, bytes]) -> Check:
    """Which code measured: that it is not the code installed here is no fault, and worth knowing."""
    said = next((e.get("digests") for e in events(entries.get(LOG, b"")) if e.get("event") == "code"), None)
    digests = {str(k): str(v) for k, v in said.items()} if isinstance(said, dict) else {}
    own = digests.pop("responsible-auditor", None)
    if own is None:
        return Check(name="code", state="not checked", detail="the log does not say which code measured")
    here = code_digests()["responsible-auditor"]
    detail = (
        "measured by the very code that is installed here"
        if own == here
        else f"{_OTHER_CODE} ({own[:16]}...) than is installed here ({here[:16]}...)"
    )
    users = [f"{name} ({digest[:16]})" for name, digest in digests.items()]
    return Check(name="code", state="ok", detail=f"{detail}; and by {', '.join(users)}" if users else detail)


def _read(name: str, entries: Mapping[str, bytes], parse: Callable[[bytes], Any]) -> tuple[Any, list[Check]]:
    content = entries.get(name)
    if content is None:
        return None, []  # said already, by the manifest's check
    try:
        return parse(content), []
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "its text"
        return None, [Check(name=name, state="wrong", detail=f"cannot be read: {where}: {first['msg']}")]
    except (DataError, ValueError, RecursionError) as error:
        return None, [Check(name=name, state="wrong", detail=f"cannot be read: {str(error)[:200]}")]


def _signature(
    entries: Mapping[str, bytes], manifest: Manifest, report: AuditReport | None, trusted: Sequence[Ed25519PublicKey]
) -> Check:
    content = entries.get(SIGNATURE)
    if content is None:
        if trusted:
            return Check(name="signature", state="wrong", detail="it is not signed, and a key was expected")
        return Check(name="signature", state="not checked", detail="it is not signed: who made it is not known")
    try:
        signed = open_envelope(content, trusted)
    except AuditorError as error:
        return Check(name="signature", state="wrong", detail=str(error))
    if report is None or signed.statement != statement_of(manifest, report):
        return Check(name="signature", state="wrong", detail="what was signed is not this bundle")
    whose = f"key {signed.fingerprint[:16]}..."
    if not signed.trusted:
        return Check(
            name="signature",
            state="not checked",
            detail=f"it fits the {whose} that the bundle itself encloses; whose that is, only --key FILE can tell",
        )
    return Check(name="signature", state="ok", detail=f"signed with the {whose} that you trust")


def _judged(report: AuditReport, asked: Asked, *, other_code: bool) -> list[Check]:
    """Judges all answers anew and compares every number and outcome with the record's.

    ``other_code``: another version of the toolkit measured, which may have drawn other figures.
    """
    judgements, family = judge(asked.results, asked.criteria, asked.family)
    again = assemble(
        asked.results,
        asked.criteria,
        judged=(judgements, family),
        model=report.model,
        data=report.data,
        environment=report.environment,
        refusal=report.refusal,
        allow_inconclusive=report.allow_inconclusive,
        duration_s=report.duration_s,
    )
    checks = []
    # What an earlier rule made of the numbers only an earlier auditor can tell; the numbers themselves are checked.
    same_rule = report.family.rule == again.family.rule
    fields = None if same_rule else _OF_NO_RULE
    mine = {f.id: f.model_dump(mode="json", include=fields) for f in again.findings}
    theirs = {f.id: f.model_dump(mode="json", include=fields) for f in report.findings}
    ids = [f.id for f in report.findings]
    twice = sorted({name for name in ids if ids.count(name) > 1}) if len(set(ids)) < len(ids) else []
    checks += [Check(name=name, state="wrong", detail="is in the record more than once") for name in twice]
    for name in [*theirs, *(n for n in mine if n not in theirs)]:
        if name not in mine or name not in theirs:
            detail = "is not among what was measured" if name not in mine else "was measured, and is not in the record"
            checks.append(Check(name=name, state="wrong", detail=detail))
        elif where := difference(theirs[name], mine[name]):
            checks.append(Check(name=name, state="wrong", detail=where))
    parts = ("family", "summary", "exit_code") if same_rule else ()
    parts = ("criteria", *parts, "figures", "definitions")
    if other_code and report.figures != again.figures:
        again = again.model_copy(update={"figures": tuple(figures_as_before(judgements, asked.results))})
    said, found = (r.model_dump(mode="json", include=set(parts)) for r in (report, again))
    for part in parts:
        # Definitions are left out of a record that has none.
        if where := difference(said.get(part, []), found.get(part, [])):
            drawn_otherwise = part == "figures" and other_code
            state: State = "not checked" if drawn_otherwise else "wrong"
            checks.append(Check(name=part, state=state, detail=where))
    if not same_rule:
        detail = (
            f"outcomes and intervals follow rule {report.family.rule} of an earlier auditor, this one judges by rule "
            f"{again.family.rule}: verify them with the auditor that made them (version {report.tool.get('version')})"
        )
        checks.append(Check(name="numbers", state="not checked", detail=detail))
    elif not any(check.state == "wrong" for check in checks):
        n = sum(f.value is not None for f in report.findings)
        detail = f"{n:,} numbers, their intervals, p-values and outcomes recomputed from their statistics"
        checks.append(Check(name="numbers", state="ok", detail=detail))
    return checks


def _told(entries: Mapping[str, bytes], report: AuditReport, asked: Asked) -> list[Check]:
    """What the log and the request say of the audit, held against its record."""
    checks = []
    said = next((e for e in reversed(events(entries.get(LOG, b""))) if e.get("event") == "recorded"), None)
    if said is None:
        checks.append(Check(name="log", state="not checked", detail="it does not say what was recorded"))
    else:
        found = {
            "exit_code": report.exit_code,
            "created": report.created,
            "seed": report.environment.seed,
            "model": report.model.sha256,
            "data": report.data.sha256,
            "summary": report.summary.model_dump(by_alias=True),
            "answers": {result.probe: len(result.measurements) for result in asked.results},
        }
        if where := difference({name: said.get(name) for name in found}, found):
            checks.append(Check(name="log", state="wrong", detail=f"it is of another audit than the record: {where}"))
    options = _request(entries.get(REQUEST, b"{}"))
    allowed = bool(options.get("allow_inconclusive", False))
    if allowed is not report.allow_inconclusive or options.get("seed", 0) != report.environment.seed:
        detail = "it does not ask for what the record says was asked (seed, --allow-inconclusive)"
        checks.append(Check(name=REQUEST, state="wrong", detail=detail))
    if (options.get("cluster"), options.get("weight")) != (report.data.cluster, report.data.weight):
        detail = "it does not ask for what the record says of the rows (--cluster, --weight)"
        checks.append(Check(name=REQUEST, state="wrong", detail=detail))
    try:
        head, _ = read_head(entries.get(TABLES, b""))
    except DataError:
        head = None  # said where the tables are read
    if head is not None and report.data.n_rows != head.n:
        detail = f"the record speaks of {report.data.n_rows} rows, the stored answers of {head.n}"
        checks.append(Check(name="rows", state="wrong", detail=detail))
    outcomes = {f.id: f.outcome.value for f in report.findings}
    checks += [Check(name="looks", state="wrong", detail=detail) for detail in misspent(report)]
    checks += _roles_as_asked(entries.get(REQUEST, b"{}"), report) + _packs(report)
    wrong = [c.id for c in report.controls for cell in c.cells if any(f not in outcomes for f in cell.findings)]
    if wrong:
        checks.append(Check(name="controls", state="wrong", detail=f"{wrong[0]} rests on a finding that is not there"))
    return checks


def _roles_as_asked(request: bytes, report: AuditReport) -> list[Check]:
    try:
        asked = json.loads(request).get(ROLES)
    except (ValueError, AttributeError, RecursionError):
        return []
    said = None if report.roles is None else report.roles.model_dump(mode="json")
    if asked == said:
        return []
    return [
        Check(name=REQUEST, state="wrong", detail="it does not ask for what the record says of the columns ([roles])")
    ]


def _packs(report: AuditReport) -> list[Check]:
    """Of each rule pack whose text is at hand, its digest and its cells anew; of an earlier record, nothing."""
    checks = []
    for policy in report.policies:
        if not policy.sha256:
            continue
        name = f"{RULE_PACK}{policy.name}"
        own, _ = load_policies([policy.name]) if policy.name in pack_names() else ([], [])
        if not own or own[0].sha256 != policy.sha256:
            detail = "its text is not among the packs of this auditor: SHA-256 " + policy.sha256[:16]
            checks.append(Check(name=name, state="not checked", detail=detail))
            continue
        again = with_policies(report, own, date.fromisoformat(policy.as_of))
        mine = [c.model_dump(mode="json") for c in again.controls]
        said = [c.model_dump(mode="json") for c in report.controls if c.policy == policy.name]
        where = difference([policy.model_dump(mode="json"), said], [again.policies[0].model_dump(mode="json"), mine])
        detail = where or f"SHA-256 of its text, and {len(mine)} controls held against the findings anew"
        # How cells follow from findings is of the code that drew them.
        state: State = "ok" if not where else "wrong" if report.tool.get("version") == __version__ else "not checked"
        checks.append(Check(name=name, state=state, detail=detail))
    return checks


def difference(said: object, found: object, where: str = "") -> str:
    """The first place where two values of JSON differ by more than rounding, in words; "" where none does."""
    if isinstance(said, bool) or isinstance(found, bool) or said is None or found is None:
        same = said is found
    elif isinstance(said, (int, float)) and isinstance(found, (int, float)):
        same = math.isclose(said, found, rel_tol=RELATIVE, abs_tol=1e-12)
    elif isinstance(said, Mapping) and isinstance(found, Mapping):
        if said.keys() != found.keys():
            return f"{where or 'it'} has other keys"
        return next((d for key in said if (d := difference(said[key], found[key], f"{where}.{key}".strip(".")))), "")
    elif isinstance(said, (list, tuple)) and isinstance(found, (list, tuple)):
        if len(said) != len(found):
            return f"{where or 'it'} has {len(said)} entries, recomputed {len(found)}"
        pairs = enumerate(zip(said, found, strict=True))
        return next((d for i, (a, b) in pairs if (d := difference(a, b, f"{where}[{i}]"))), "")
    else:
        same = said == found
    return "" if same else f"{where or 'it'} says {_shown(said)}, recomputed {_shown(found)}"


def _shown(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:80]


def _answered(
    entries: Mapping[str, bytes], manifest: Manifest, asked: Asked, report: AuditReport, remade: _Remade
) -> tuple[list[Check], frozenset[str], frozenset[str]]:
    """Counts the tables anew from the rows, and the statistics of probes that need no more than both."""
    try:
        head, counts = read_head(entries.get(TABLES, b""))
        table = None if counts is None else counts.counts()
        answers = None if head is None or ROWS not in entries else read_rows(entries[ROWS], head, counts)
    except DataError as error:
        return [Check(name=TABLES, state="wrong", detail=str(error))], frozenset(), frozenset()
    checks = []
    if column := report.data.cluster or report.data.weight:
        detail = f"the bundle does not hold the column {column!r}, which the numbers rest on"
        return [Check(name="rows", state="not checked", detail=detail)], frozenset(), frozenset()
    if head is None and report.refusal is None and report.data.n_rows:
        checks.append(Check(name="rows", state="not checked", detail="the bundle holds no answers of the model by row"))
    elif ROWS in manifest.files and answers is None and head is not None:
        checks.append(
            Check(name="rows", state="not checked", detail="left out: what follows from them cannot be recomputed")
        )
    if answers is not None and table is not None and counts is not None:
        checks.append(_recounted(answers, table))
    said = {result.probe: result for result in asked.results}
    if len(said) < len(asked.results):
        checks.append(Check(name=RESULTS, state="wrong", detail="it holds the answer of one probe twice"))
    options = _options(entries.get(REQUEST, b"{}"))
    from_rows: set[str] = set()
    from_tables: set[str] = set()
    for name, result in said.items():
        try:
            found, whence, wrong = remade.measured(result, options.get(name, {}), answers, table)
        except AuditorError as error:
            checks.append(Check(name=name, state="wrong", detail=f"its options in {REQUEST} are none: {error}"))
            continue
        if found is None:
            continue
        if not result.measurements and found.measurements:
            # An audit may have run out of its limits; nobody's answers make a question inapplicable.
            state: State = "not checked" if result.not_run else "wrong"
            detail = f"the record has no number of it, and the {whence} give {len(found.measurements)}"
            checks.append(Check(name=name, state=state, detail=detail))
        if not result.measurements:
            continue
        checks += [Check(name=f"{name} from {whence}", state="wrong", detail=detail) for detail in wrong[:20]]
        if not wrong:
            detail = f"{len(found.measurements):,} statistics counted anew from the {whence}"
            checks.append(Check(name=name, state="ok", detail=detail))
        ids = {f.id for f in report.findings if f.probe == name}
        (from_rows if whence == "rows" else from_tables).update(ids)
    return checks, frozenset(from_rows), frozenset(from_tables)


def _request(content: bytes) -> Mapping[str, Any]:
    try:
        return dict(json.loads(content)["options"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}


def _options(content: bytes) -> Mapping[str, Mapping[str, Any]]:
    try:
        found = json.loads(content)["probe_options"]
        return {str(k): dict(v) for k, v in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _recounted(answers: Answers, table: GroupCounts) -> Check:
    if len(table.classes) > _MOST_CLASSES:
        detail = f"it has more than {_MOST_CLASSES:,} classes, which are not counted anew"
        return Check(name="group table", state="not checked", detail=detail)
    anew = answers.recount()
    if anew is not None:
        mine, theirs = (
            {g: t.tolist() for g, t in zip(c.groups, c.table, strict=True)} for c in (anew.by(table.features), table)
        )
        wrong = next((g for g in {*mine, *theirs} if mine.get(g) != theirs.get(g)), None)
        if wrong is not None:
            detail = f"the rows of {', '.join(wrong)} do not come to what the table says"
            return Check(name="group table", state="wrong", detail=detail)
        return Check(name="group table", state="ok", detail=f"{len(table.groups)} groups counted anew from the rows")
    if not np.array_equal(answers.crossed(), table.table.sum(axis=0)):
        return Check(name="group table", state="wrong", detail="the rows do not come to the table's sums")
    return Check(
        name="group table",
        state="ok",
        detail=f"its sums over {len(table.groups)} groups are those of the rows, which do not say their group",
    )


@dataclass(frozen=True)
class _Remade:
    """Probes made anew, ``make``; ``other_code``: those that measured are of another version of the toolkit."""

    make: Remake
    other_code: bool

    def measured(
        self, said: ProbeResult, options: Mapping[str, Any], answers: Answers | None, table: GroupCounts | None
    ) -> tuple[ProbeResult | None, str, list[str]]:
        """What a probe measures anew, of what, and where that differs from what is said; None where it cannot.

        Where another version measured, the probe may do as its earlier versions did. Raises AuditorError for options
        that are none.
        """
        probe = self.make(said.probe, options)
        if probe is None:
            return None, "", []
        found, whence = _measure_again(probe, answers, table)
        wrong = [] if found is None else _other_statistics(said, found, other_code=self.other_code)
        earlier: Mapping[str, Any] = getattr(probe, "earlier", {})
        if not (wrong and earlier and self.other_code):
            return found, whence, wrong
        as_it_was = self.make(said.probe, {**earlier, **options})
        then = None if as_it_was is None else _measure_again(as_it_was, answers, table)[0]
        if then is not None and not _other_statistics(said, then, other_code=True):
            return then, whence, []
        return found, whence, wrong


def _measure_again(probe: Probe, answers: Answers | None, table: GroupCounts | None) -> tuple[ProbeResult | None, str]:
    from auditor.run.audit import attempt
    from auditor.run.probe import counts_suffice

    if counts_suffice(probe) and table is not None:
        measure = probe.measure_counts
        return attempt(probe, lambda: measure(table)), "tables"
    if answers is not None and answers.groups:
        stand_in: Any = StoredModel(answers)
        return ask(probe, stand_in, answers.data(), generator_for(0, probe.name)), "rows"
    return None, ""


def _other_statistics(said: ProbeResult, found: ProbeResult, *, other_code: bool) -> list[str]:
    if found.not_run or found.not_applicable:
        return [found.not_run or found.not_applicable]
    if len({_key(m) for m in said.measurements}) < len(said.measurements):
        return ["one of its numbers is there twice"]
    mine, theirs = ({_key(m): m for m in result.measurements} for result in (found, said))
    wrong = [f"{_label(m)} is not what these data come to" for key, m in theirs.items() if key not in mine]
    if not other_code:  # a later version may measure more
        wrong += [f"{_label(m)} is missing" for key, m in mine.items() if key not in theirs]
    for key in mine.keys() & theirs.keys():
        a, b = (
            _MEASUREMENT.dump_python(replace(m, figure=None), mode="json")
            for m in (theirs[key], _as_told(theirs[key], mine[key], other_code=other_code))
        )
        if where := difference(a, b):
            wrong.append(f"{_label(theirs[key])}: {where}")
    return sorted(wrong)


_MEASUREMENT: TypeAdapter[Measurement] = TypeAdapter(Measurement)


def _as_told(said: Measurement, found: Measurement, *, other_code: bool) -> Measurement:
    """Evidence from before numbers said what they rest on does not say it, and need not.

    What another version says beside the number, in words and of how many rows, it may say otherwise.
    """
    if other_code:
        found = replace(found, n_samples=said.n_samples, detail=said.detail, smallest=said.smallest)
    if said.ideal_when_same is None and said.chance is None:
        return replace(found, ideal_when_same=None, chance=None, skill_of=None)
    return found


def _key(m: Measurement) -> bytes:
    return canonical([m.metric, m.method, list(m.sensitive), dict(m.group), dict(m.at)])


def _label(m: Measurement) -> str:
    where = [*(f"{k} = {v}" for k, v in m.group.items()), *(f"{k} = {v}" for k, v in m.at.items())]
    return ", ".join([m.metric, *(["by " + " x ".join(m.sensitive)] if m.sensitive else []), *where])
