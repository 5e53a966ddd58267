"""The statistics of a bundle counted anew from its rows and tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter

from auditor.errors import AuditorError, DataError
from auditor.evidence.manifest import REQUEST, RESULTS, ROWS, TABLES, Asked, Manifest, canonical
from auditor.finding.measurement import Measurement, ProbeResult
from auditor.record.audit_report import AuditReport
from auditor.run.answers import Answers, StoredModel, read_head, read_rows
from auditor.run.audit import ask, generator_for
from auditor.verifying.checks import Check, State
from auditor.verifying.difference import difference

if TYPE_CHECKING:
    from auditor.data.counts import GroupCounts
    from auditor.run.probe import Probe


# A table of so many classes has more cells than a bundle should make anybody fill.
_MOST_CLASSES = 1_000
Remake = Callable[[str, Mapping[str, Any]], "Probe | None"]


def counted(
    entries: Mapping[str, bytes], manifest: Manifest, asked: Asked, report: AuditReport, remade: Remade
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
class Remade:
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
