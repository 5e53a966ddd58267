"""Input data of the PDF template: the text of every page as values, never as markup."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from auditor.judging.criterion import CriterionRecord
from auditor.judging.measurement import Outcome
from auditor.report import report_view
from auditor.report.first_page import FirstPage
from auditor.report.html import moment, title_of
from auditor.report.pdf_figures import figures_of, narrow, worded
from auditor.report.record import number_text, summary_lines
from auditor.report.record.audit_report import AuditReport, DataRecord, ModelRecord
from auditor.report.record.finding_text import question_text
from auditor.report.record.glossary import definitions_of, definitions_of_judged
from auditor.report.record.summary_lines import worth_of
from auditor.report.record.translations import ENGLISH, Catalogue
from auditor.report.remediation import Remediation, remediation_of
from auditor.report.report_figures import pillars_of, sources_of
from auditor.report.report_view import Row
from auditor.report.rule_pack_view import ShownCell, ShownControl, ShownPolicy, policies_of
from auditor.report.scope_page import Scope, scope_of

_IN_LIST = 8
_LONGEST_REASON = 150
_LONGEST_WHY = 2000  # a finding stays on one page
_LONGEST_DETAIL = 250
# A record of thousands of findings is read by a program; on paper the gravest are told, and the rest is counted.
MOST_TOLD, MOST_FOLDED, MOST_REMEDIES = 250, 600, 40
_TOLD = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.NOT_RUN, Outcome.PASS)
_HEADS = ("id", "what", "value", "interval", "must_be", "outcome", "rows", "applies", "metric")
_TITLES = ("control", "numbers", "figures", "methods", "criteria", "packs", "provenance", "limits", "promise")
_MORE = ("notes", "definitions", "deviations", "no_criterion")
_LISTS = ("not_run", "not_measured", "all_ran", "refused", "none_lacked")
_OTHERS = {
    "rest": ("note_well", "alone", "packs_ask_paper", "packs_control", "packs_asks", "packs_there"),
    "column": ("method", "grades", "why"),
    "limit": ("no_advice", "states"),
    "worth": ("title",),
}
_SIGNING = ("signed", "name", "signature", "date", "risk_accepted")


def paper_of(report: AuditReport, page: FirstPage, folder: Path) -> dict[str, object]:
    """All values for the template; figures are written into ``folder`` as SVG."""
    say = page.say
    rows = report_view.shown_rows(report, say)
    by_outcome = {o: [r for r in rows if r.outcome is o] for o in Outcome}
    policies = policies_of(report, rows)
    pillars = pillars_of(report, say)
    made: dict[str, object] = {
        "title": worded(title_of(report)),
        "author": worded(f"auditor {report.tool.get('version', '')}".strip()),
        "id": report_view.document_id(report),
        "created": worded(moment(report.created, say)),
        "front": _front(report, page),
        "words": {name: worded(say.say(f"paper.{name}")) for name in (*_HEADS, *_TITLES, *_MORE, *_LISTS, *_SIGNING)}
        | {name: worded(say.say(f"{section}.{name}")) for section, names in _OTHERS.items() for name in names},
        "counts": [
            {"slug": c.outcome.slug, "name": c.outcome.words, "n": say.count(c.n), "meaning": worded(c.meaning)}
            for c in report_view.counts_of(report, say)
        ],
        "scope": _scope(scope_of(report, say)),
        "remedies": _remedies(remediation_of(report, say), say),
        "control": _control(report, say),
        "refused": report.refusal is not None,
        "not_run": _listed(say, _by_reason(by_outcome[Outcome.NOT_RUN], say)),
        "not_measured": _listed(
            say,
            [
                *_by_reason([r for r in by_outcome[Outcome.NOT_APPLICABLE] if not r.finding.other_kind], say),
                *_asked_for(policies),
            ],
        ),
        "deviations": [worded(d) for d in (report.registration.deviations if report.registration else ())],
        "rows_for_all": worded(summary_lines.describe_rows_for_all(report)),
        "open": bool(by_outcome[Outcome.INCONCLUSIVE]),
        "promise": worded(report_view.promise_of(report, say)),
        "figures": figures_of(report, say, pillars, folder),
        "numbers": _numbers(report, say, rows),
        "methods": [
            {
                "probe": worded(s.probe),
                "methods": worded(f" ({s.methods})" if s.methods else ""),
                "citation": worded(s.citation),
            }
            for s in sources_of(rows)
            if s.citation
        ],
        "policies": [_policy(p, say) for p in policies],
        "criteria": _criteria(report, say),
        "definitions": _definitions(report, say),
        "provenance": _provenance(report, say),
        "limits": [worded(limit) for limit in report_view.limits_of(say)],
        "recorded": worded(say.say("limit.recorded")) if page.language != ENGLISH else "",
        "page_of": _parts(say.say("rest.page_of", page="{page}", of="{of}")),
        "document_of": _parts(say.say("page.document", id="{id}")),
        "fonts_note": "",
        "fonts_said": worded(say.say("rest.fonts", code="\\u4e2d")),
    }
    # Known once every phrase was said.
    return made | {
        "retold": worded(page.retold),
        "fallback": worded(page.fallback),
        "own_words": worded(page.own_words),
    }


def _parts(phrase: str) -> list[str]:
    """A phrase taken apart at places that the template fills."""
    return [worded(part) for part in re.split(r"(\{\w+\})", phrase) if part]


# ---- the first three pages -----------------------------------------------------------------------------------------


def _front(report: AuditReport, page: FirstPage) -> dict[str, object]:
    """The first page, its words as values."""
    say = page.say
    worth = worth_of(report, say)
    names = (
        *(f"page.{name}" for name in ("question", "about", "found", "axis", "outcome", "shown", "next")),
        *("page.nothing_shown", "page.nothing_next", "page.signature", "next.due"),
        *("page.prepared", "page.reviewed", "page.approved"),
    )
    return {
        "language": page.language,
        "organisation": worded(page.organisation),
        "document": worded(page.document),
        "title": worded(page.title),
        "subtitle": worded(" · ".join(page.subtitle)),
        "slug": page.outcome.slug,
        "headline": worded(page.headline),
        "effect": worded(page.effect),
        "exit_code": worded(say.say("counted.exit", code=report.exit_code)),
        "worth": None
        if worth is None
        else {"slug": worth.outcome.slug, "line": worded(worth.line), "skill": worded(worth.skill)},
        "refusal": None
        if report.refusal is None
        else {"code": worded(report.refusal.printed_code), "reason": worded(report.refusal.reason)},
        "warnings": [worded(w) for w in report_view.warnings_of(report, say)],
        "lines": [
            {
                "question": worded(line.question),
                "about": worded(line.about),
                "found": worded(line.found),
                "interval": worded(line.interval),
                "slug": line.outcome.slug,
                "verdict": worded(line.verdict),
                "small": worded(line.small),
                "allowed": worded(line.allowed),
                "axis": None if line.axis is None else {**asdict(line.axis), "alt": worded(line.axis.alt)},
            }
            for line in page.lines
        ],
        "more": worded(say.say("page.more", n=say.count(page.more_lines))) if page.more_lines else "",
        "shown": [worded(told.sentence) for told in page.shown],
        "actions": [
            {"sentence": worded(a.sentence), "by": worded(a.by), "command": worded(a.command)} for a in page.actions
        ],
        "last": worded(" · ".join(page.last)),
        "words": {name.replace(".", "_"): worded(say.say(name)) for name in names},
    }


def _scope(scope: Scope) -> dict[str, object]:
    """What was audited, for whom and on which rows; what nobody stated is a line to fill in."""
    return {
        "title": worded(scope.title),
        "lead": worded(scope.lead),
        "sections": [
            {
                "title": worded(part.title),
                "rows": [
                    {"label": worded(line.label), "value": worded(line.value), "key": line.key} for line in part.lines
                ],
            }
            for part in scope.sections
        ],
        "groups_title": worded(scope.groups_title),
        "heads": [worded(head) for head in scope.heads],
        "groups": [
            {
                "rows": [{"group": worded(g.group), "n": g.n, "said": worded(g.said)} for g in own.lines],
                "more": worded(f"{own.feature}: {own.more}") if own.more else "",
            }
            for own in scope.groups
        ],
        "notes": [worded(note) for note in scope.notes],
    }


def _remedies(remediation: Remediation, say: Catalogue) -> dict[str, object]:
    """What is to be done about each finding, by whom and until when."""
    left_out = len(remediation.lines) - MOST_REMEDIES
    return {
        "title": worded(remediation.title),
        "rule": worded(remediation.rule),
        "nothing": "" if remediation.lines else worded(remediation.nothing),
        "heads": [worded(head) for head in remediation.heads],
        "rows": [
            {
                "slug": line.outcome.slug,
                "question": worded(line.question),
                "about": worded(line.about),
                "found": worded(line.found + (f" ({line.interval})" if line.interval else "")),
                "allowed": worded(line.allowed),
                "id": worded(line.id),
                "severity": worded(line.severity),
                "owner": worded(line.owner),
                "due": worded(line.due),
                "said": worded(line.said),
            }
            for line in remediation.lines[:MOST_REMEDIES]
        ],
        "more": worded(say.say("remedy.more", n=say.count(left_out))) if left_out > 0 else "",
        "retest_title": worded(remediation.retest_title),
        "retest": worded(remediation.retest) if remediation.lines else "",
    }


def _control(report: AuditReport, say: Catalogue) -> list[tuple[str, str]]:
    plan = report.registration
    told = {
        "document": say.say(
            "rest.document_line",
            id=report_view.document_id(report),
            digest="SHA-256",
            file="report.json",
            schema=report.schema_version,
        ),
        "dates": say.say("rest.dates"),
        "groups": ", ".join(report.data.sensitive) or say.say("rest.no_groups"),
        "plan": say.say("rest.plan_none") if plan is None else plan.describe(),
        "review": " ",
    }
    return _pairs(*((say.say(f"paper.control_{name}"), value) for name, value in told.items()))


def _by_reason(rows: Sequence[Row], say: Catalogue) -> list[tuple[str, str, int]]:
    """Rows that share a reason, once: a name, the reason, how many they are."""
    gathered: dict[str, list[str]] = {}
    for row in rows:
        gathered.setdefault(row.finding.reason, []).append(row.name)
    return [
        (
            " ".join([names[0], *([say.say("rest.more", n=len(names) - 1)] if len(names) > 1 else [])]),
            reason,
            len(names),
        )
        for reason, names in gathered.items()
    ]


def _asked_for(policies: Sequence[ShownPolicy]) -> list[tuple[str, str, int]]:
    """What rule packs ask for and nothing here measured."""
    return [
        (f"{shown.policy.name}, {control.control.id}", cell.cell.what, 1)
        for shown in policies
        for control in shown.controls
        for cell in control.cells
        if cell.cell.kind == "not measured"
    ]


def _listed(say: Catalogue, items: Sequence[tuple[str, str, int]]) -> dict[str, object]:
    hidden = sum(n for _, _, n in items[_IN_LIST:])
    return {
        "total": say.count(sum(n for _, _, n in items)),
        "rows": [
            {"name": worded(name), "reason": worded(number_text.shortened(reason, _LONGEST_REASON))}
            for name, reason, _ in items[:_IN_LIST]
        ],
        "more": worded(say.say("page.more", n=say.count(hidden))) if hidden else "",
    }


def _pairs(*pairs: tuple[str, str]) -> list[tuple[str, str]]:
    return [(name, worded(value)) for name, value in pairs if value]


# ---- every number --------------------------------------------------------------------------------------------------


@dataclass
class _Notes:
    """What several numbers share is said once, below the table, and numbered."""

    words: list[str] = field(default_factory=list)

    def mark(self, words: str) -> str:
        if not words:
            return ""
        if words not in self.words:
            self.words.append(words)
        return str(self.words.index(words) + 1)


def _numbers(report: AuditReport, say: Catalogue, rows: Sequence[Row]) -> dict[str, object]:
    """The one table: what was judged or lost with its reason, then what nobody bounded, folded by question."""
    told = sorted((r for r in rows if r.outcome in _TOLD), key=lambda r: r.rank)
    unjudged = sorted(
        (r for r in rows if r.outcome is Outcome.NOT_JUDGED), key=lambda r: report_view.is_detail(r.finding)
    )
    folded = unjudged[:MOST_FOLDED]
    absent = [r for r in rows if r.outcome is Outcome.NOT_APPLICABLE]
    lacking: dict[str, list[str]] = {}
    for row in absent:
        if not row.finding.other_kind:
            lacking.setdefault(row.finding.reason, []).append(f"{row.name} {row.where}".strip())
    elsewhere = dict.fromkeys(r.name for r in absent if r.finding.other_kind)
    notes = _Notes()
    return {
        "told": [_row(say, r, notes) for r in told[:MOST_TOLD]],
        "told_more": _left_out(say, told[MOST_TOLD:]),
        "lacking": [
            {"names": [worded(name) for name in dict.fromkeys(names)], "reason": worded(reason)}
            for reason, names in lacking.items()
            if len(lacking) > _IN_LIST or len(names) > 1 or len(reason) > _LONGEST_REASON
        ],
        "folded_title": worded(say.count_text("paper.folded", len(unjudged))) if unjudged else "",
        "folded_how": worded(say.say("paper.folded_how")),
        "folded": [_fold(say, question, own, notes) for question, own in _by_question(report, say, folded)],
        "folded_more": _left_out(say, unjudged[MOST_FOLDED:]),
        "notes": [worded(number_text.shortened(note, _LONGEST_WHY)) for note in notes.words],
        "elsewhere": worded(say.say("paper.elsewhere", probes=", ".join(elsewhere))) if elsewhere else "",
    }


def _left_out(say: Catalogue, rows: Sequence[Row]) -> str:
    """How many findings of which outcome stand only in the record."""
    if not rows:
        return ""
    tally = ", ".join(
        f"{say.count(n)} {o.words}" for o in report_view.ORDER for n in [sum(r.outcome is o for r in rows)] if n
    )
    return worded(say.say("paper.only_in_record", tally=tally))


def _row(say: Catalogue, row: Row, notes: _Notes) -> dict[str, str]:
    f = row.finding
    why = [f.reason.removesuffix(f.tried).strip()]
    why += [f.detail] * (f.detail != f.reason and len(f.detail) <= _LONGEST_DETAIL)
    if f.n_required is not None:
        why.append(say.say("paper.needs", n=say.count(f.n_required), has=row.n or "0"))
    level = say.say("form.level", level=row.confidence) if row.confidence and row.interval else ""
    shared = (f.tried if f.reason.endswith(f.tried) else "", f.detail if len(f.detail) > _LONGEST_DETAIL else "")
    return {
        "id": worded(f.id),
        "name": narrow(row.name),
        "place": worded(row.where),
        "value": row.value if f.metric is not None else "",
        "interval": " ".join(part for part in (row.interval, level) if part),
        "must_be": row.must_be,
        "n": row.n,
        "outcome": row.outcome.words,
        "slug": row.outcome.slug,
        "why": worded(number_text.shortened(" ".join(_ended(part) for part in why if part), _LONGEST_WHY)),
        "notes": ", ".join(notes.mark(words) for words in shared if words),
    }


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith((".", "!", "?")) else sentence + "."


def _by_question(report: AuditReport, say: Catalogue, rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Numbers by their question, in the order of the record."""
    asked: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda r: int(r.anchor.rpartition("-")[2])):
        asked.setdefault(question_text(report, row.finding.probe, row.finding.metric, say), []).append(row)
    return list(asked.items())


def _fold(say: Catalogue, question: str, rows: Sequence[Row], notes: _Notes) -> dict[str, object]:
    """The numbers of a question: ids that begin alike are told by what they end on."""
    stems: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        f = row.finding
        stem, rest = stem_of(f.id)
        stems.setdefault(stem, []).append(
            {
                "id": worded(rest),
                "value": row.value,
                "interval": row.interval,
                "note": notes.mark(f.reason),
            }
        )
    return {
        "question": worded(question),
        "n": say.count(len(rows)),
        "stems": [{"stem": worded(stem), "rows": own} for stem, own in stems.items()],
    }


def stem_of(name: str) -> tuple[str, str]:
    """An id's probe and method, and its remaining part."""
    parts = name.split("/")
    n = 2 if len(parts) > 2 else len(parts) - 1
    return "/".join(parts[:n]) + "/" * (n > 0), "/".join(parts[n:])


def _definitions(report: AuditReport, say: Catalogue) -> dict[str, object]:
    """What each metric here means, by the probe that measures it, and the terms that are used.

    Of those that nobody set a bound for only formula, range and ideal: how to read them is a look-up away.
    """
    known, (judged, n_others) = definitions_of(report, say), definitions_of_judged(report, say)
    by_probe: dict[str, list[dict[str, str]]] = {}
    for metric in known.metrics:
        own = metric.definition
        short = own is not None and metric not in judged.metrics
        said = f"{own.formula}. {known.span(own)}" if own is not None and short else known.meaning(metric)
        by_probe.setdefault(metric.probe, []).append({"name": narrow(metric.name), "said": worded(said)})
    return {
        "probes": [{"probe": worded(probe), "metrics": rows} for probe, rows in by_probe.items()],
        "terms": [{"name": worded(term.name), "meaning": worded(term.meaning)} for term in known.terms],
        "terms_title": worded(known.label("terms")),
        "more": worded(say.count_text("paper.defined", n_others)) if n_others else "",
    }


def _criteria(report: AuditReport, say: Catalogue) -> list[dict[str, object]]:
    """Criteria by whoever set them, when, and from which source: those that held something here, then the others."""
    used = [f.criterion for f in report.findings if f.criterion is not None]
    by_source: dict[tuple[str, str, str], list[CriterionRecord]] = {}
    for c in report.criteria:
        by_source.setdefault((c.source, c.set_by, c.set_at), []).append(c)
    made: list[dict[str, object]] = []
    for (source, set_by, set_at), own in by_source.items():
        idle = [c for c in own if c not in used]
        told = "; ".join(f"{c.metric} {say.required(c)}" + (f" ({c.probe})" if c.probe else "") for c in idle)
        made.append(
            {
                "source": worded(say.say("paper.set_by", source=source, who=set_by, day=set_at)),
                "idle": worded(say.say("paper.idle", criteria=told)) if idle else "",
                "rows": [
                    {
                        "metric": narrow(c.metric),
                        "must_be": say.required(c),
                        "applies": worded(report_view.applies_to(c, say)),
                    }
                    for c in own
                    if c in used
                ],
            }
        )
    return made


# ---- rule packs and provenance -------------------------------------------------------------------------------------


def _policy(policy_view: ShownPolicy, say: Catalogue) -> dict[str, object]:
    p = policy_view.policy
    return {
        "title": worded(p.title),
        "about": worded(
            " ".join(part for part in (policy_view.origin, policy_view.tally, policy_view.held_to, p.old) if part)
        ),
        "notes": [worded(n) for n in p.notes],
        "cells": [
            _cell(say, control, cell, p.as_of, i == 0)
            for control in policy_view.controls
            for i, cell in enumerate(control.cells)
        ],
    }


def _cell(say: Catalogue, control: ShownControl, cell: ShownCell, as_of: str, first: bool) -> dict[str, str]:
    c, own = control.control, cell.cell
    match own.kind:
        case "evidence":
            names = ", ".join(f"{row.name} {row.where}".strip() for row in cell.rows)
            said = f" ({cell.tally}): {names}" if cell.outcomes else ":"
            said += f" {say.say('rest.more', n=cell.left_out)}" if cell.left_out else ""
            said += f" {own.said}" if own.said else ""
            said += "".join(f". {tried}" for tried in own.tried)
        case "attestation needed":
            said = f" {say.say('rest.packs_from', role=own.role)}"
        case "not measured":
            said = f": {own.reason} {own.how}".replace(":  ", ": ")
        case _:
            said = f": {own.reason}"
    return {
        "id": worded(c.id),
        "title": worded(c.title) if first else "",
        # What the whole control rests on is said once, with its title.
        "source": worded(f"{control.cited}, {c.certainty}") if first else "",
        "force": "" if c.in_force or not first else say.say("rest.packs_idle", day=as_of),
        "asks": worded(own.what),
        "cited": worded(control.cited_apart(cell)),
        "slug": cell.slug,
        "state": cell.state.upper(),
        "said": worded(said),
    }


def _provenance(report: AuditReport, say: Catalogue) -> list[dict[str, object]]:
    return [_model_section(report.model, say), _data_section(report.data, say), _environment_section(report, say)]


def _model_section(m: ModelRecord, say: Catalogue) -> dict[str, object]:
    word = say.section("rest")
    return {
        "title": worded(word["model_loaded"]),
        "rows": _pairs(
            (word["file"], m.path or word["in_memory"]),
            (word["format"], m.format),
            (word["loaded_by"], m.loaded_by),
            ("SHA-256", m.sha256 or word["not_known"]),
            (word["parameters"], "" if m.n_parameters is None else say.count(m.n_parameters)),
            (word["dtype"], m.dtype or ""),
            (word["size"], "" if m.size_bytes is None else say.say("rest.bytes", n=say.count(m.size_bytes))),
            (word["classes"], ", ".join(m.classes)),
        ),
        "notes": [worded(n) for n in m.notes],
    }


def _data_section(data: DataRecord, say: Catalogue) -> dict[str, object]:
    word = say.section("rest")
    return {
        "title": worded(word["data_read"]),
        "rows": _pairs(
            (word["data"], data.path or word["none_given" if data.n_rows is None else "in_memory"]),
            (word["n_rows"], "" if data.n_rows is None else say.count(data.n_rows)),
            ("SHA-256", data.sha256 or ""),
            (word["target"], data.target or ""),
            (word["favourable"], data.positive or ""),
            (word["training"], data.train_path or ""),
            (say.say("rest.training_digest", digest="SHA-256"), data.train_sha256 or ""),
        ),
        "notes": [worded(n) for n in data.notes],
    }


def _environment_section(report: AuditReport, say: Catalogue) -> dict[str, object]:
    e, word = report.environment, say.section("rest")
    packages = ", ".join(f"{k} {v}" for k, v in e.packages.items())
    ran_on = say.say("rest.ran_on", platform=e.platform, python=e.python, device=e.device, seed=e.seed)
    return {
        "title": worded(word["environment"]),
        "rows": _pairs(
            (word["command"], e.command or ""),
            *((say.say("obeyed.title"), file.told_whole(say)) for file in report.obeyed),
            (word["platform"], ran_on),
            (word["limits_set"], ", ".join(f"{k} {v}" for k, v in e.limits.items()) or word["none"]),
            (word["sandbox"], "" if e.sandbox is None else e.sandbox.describe()),
            (word["history"], "" if report.looks is None else f"{word['entered_after']} {report.looks.head}"),
            (word["packages"], packages or word["not_recorded"]),
            (word["duration"], f"{say.spelled(f'{report.duration_s:.1f}')} s"),
        ),
        "notes": [],
    }
