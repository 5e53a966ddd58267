"""What the template of the PDF is given: every page's words as values, never as markup."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from auditor.finding.criterion import CriterionRecord
from auditor.finding.display import GradedMethod, GradeTable
from auditor.finding.measurement import Outcome
from auditor.record import rows_for_all, text
from auditor.record.audit_report import INTAKE, AuditReport
from auditor.record.catalogue import Catalogue
from auditor.record.questions import question_of
from auditor.record.worth import worth_of
from auditor.report import view
from auditor.report.first_page import FirstPage
from auditor.report.html import moment, title_of
from auditor.report.pictures import front_and_rest
from auditor.report.pillars import pillars_of, sources_of
from auditor.report.svg import as_file, draw_svg
from auditor.report.view import Row

_IN_LIST = 8
_LONGEST_REASON = 150
_LONGEST_WHY = 2000  # a finding stays on one page
_LONGEST_DETAIL = 250
_LONGEST_RUN = 22
# A record of thousands of findings is read by a program; on paper the gravest are told, and the rest is counted.
MOST_TOLD, MOST_FOLDED = 250, 600
_PAGE_WIDTH, _COLUMN_WIDTH = 493.0, 238.0  # of the text, in points
_TALLEST = 600.0
_SCALE, _NARROW = 0.66, 400.0
_TITLE_LINE, _CAPTION_LINE = 44, 70  # letters on a line of a column
_LONGEST_REPEATED = 80
BREAK = "\N{ZERO WIDTH SPACE}"
_RUN = re.compile(rf"\S{{{_LONGEST_RUN},}}")
_TOLD = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.NOT_RUN, Outcome.PASS)
_HEADS = ("id", "what", "value", "interval", "must_be", "outcome", "rows", "applies", "metric")
_TITLES = ("control", "numbers", "figures", "methods", "criteria", "packs", "provenance", "limits", "promise", "notes")
_LISTS = ("not_run", "not_measured", "all_ran", "refused", "none_lacked", "deviations", "no_criterion")
_SIGNING = ("signed", "name", "signature", "date", "risk_accepted")


def breaking(words: str) -> str:
    """Words that may break after an underscore or a slash, and anywhere at last, so that no cell overflows."""

    def run(match: re.Match[str]) -> str:
        parts = re.sub(r"([_/=,.+-])", rf"\1{BREAK}", match.group()).split(BREAK)
        pieces = [p[i : i + _LONGEST_RUN] for p in parts for i in range(0, len(p), _LONGEST_RUN)]
        return BREAK.join(pieces)

    return _RUN.sub(run, words)


def paper_of(report: AuditReport, page: FirstPage, folder: Path) -> dict[str, object]:
    """Everything that the template sets; figures are written into ``folder`` as SVG."""
    rows = view.shown_rows(report)
    by_outcome = {o: [r for r in rows if r.outcome is o] for o in Outcome}
    policies = view.policies_of(report, rows)
    pillars = pillars_of(report, rows)
    say = page.say
    front = [view.drawn_as(i, figure) for i, figure in front_and_rest(report)[0]]
    figures = [(say.say("picture.heading"), front), *((pillar_title(p.name), p.figures) for p in pillars)]
    made: dict[str, object] = {
        "title": _t(title_of(report)),
        "author": _t(f"auditor {report.tool.get('version', '')}".strip()),
        "id": view.document_id(report),
        "created": _t(moment(report.created)),
        "front": _front(report, page),
        "words": {name: _t(say.say(f"paper.{name}")) for name in (*_HEADS, *_TITLES, *_LISTS, *_SIGNING)},
        "counts": [
            {"slug": _slug(c.outcome), "name": _words(c.outcome), "n": text.count(c.n), "meaning": c.meaning}
            for c in view.counts_of(report)
        ],
        "control": _control(report, say),
        "refused": report.refusal is not None,
        "not_run": _listed(say, _by_reason(by_outcome[Outcome.NOT_RUN])),
        "not_measured": _listed(
            say,
            [
                *_by_reason([r for r in by_outcome[Outcome.NOT_APPLICABLE] if not r.finding.other_kind]),
                *_asked_for(policies),
            ],
        ),
        "deviations": [_t(d) for d in (report.registration.deviations if report.registration else ())],
        "rows_for_all": _t(rows_for_all.said(report)),
        "open": bool(by_outcome[Outcome.INCONCLUSIVE]),
        "promise": _t(view.promise_of(report)),
        "figures": [_figures(say, name, drawn, folder) for name, drawn in figures if drawn],
        "numbers": _numbers(say, rows),
        "methods": [
            {"probe": _t(s.probe), "methods": _t(f" ({s.methods})" if s.methods else ""), "citation": _t(s.citation)}
            for s in sources_of(rows)
            if s.citation
        ],
        "policies": [_policy(p) for p in policies],
        "criteria": _criteria(report, say),
        "provenance": _provenance(report),
        "limits": list(view.LIMITS),
        "fonts_note": "",
    }
    # Known once every phrase was said.
    return made | {"retold": _t(page.retold), "fallback": _t(page.fallback), "own_words": _t(page.own_words)}


# ---- words ---------------------------------------------------------------------------------------------------------


def _t(words: str | None) -> str:
    return breaking(text.visible(words or ""))


def _name(words: str) -> str:
    """A name in narrow columns: it may break after every underscore."""
    return re.sub(r"(?<=_)(?=[^_])", BREAK, _t(words).replace(BREAK, "")) if len(words) < _LONGEST_RUN else _t(words)


def _slug(outcome: Outcome) -> str:
    return outcome.value.lower().replace("_", "-")


def _words(outcome: Outcome) -> str:
    return outcome.value.replace("_", " ")


def _pairs(*pairs: tuple[str, str]) -> list[tuple[str, str]]:
    return [(name, _t(value)) for name, value in pairs if value]


# ---- the first three pages -----------------------------------------------------------------------------------------


def _front(report: AuditReport, page: FirstPage) -> dict[str, object]:
    """The first page, its words as values."""
    say = page.say
    worth = worth_of(report)
    names = (
        *(f"page.{name}" for name in ("question", "about", "found", "axis", "outcome", "shown", "next")),
        *("page.nothing_shown", "page.nothing_next", "page.signature", "next.due"),
        *("page.prepared", "page.reviewed", "page.approved"),
    )
    return {
        "language": page.language,
        "organisation": _t(page.organisation),
        "document": _t(page.document),
        "title": _t(page.title),
        "subtitle": _t(" · ".join(page.subtitle)),
        "slug": _slug(page.outcome),
        "headline": _t(page.headline),
        "effect": _t(page.effect),
        "exit_code": str(report.exit_code),
        "worth": None
        if worth is None
        else {"slug": _slug(worth.outcome), "line": _t(worth.line), "skill": _t(worth.skill)},
        "refusal": None
        if report.refusal is None
        else {"code": _t(report.refusal.shown), "reason": _t(report.refusal.reason)},
        "warnings": [_t(w) for w in view.warnings_of(report)],
        "lines": [
            {
                "question": _t(line.question),
                "about": _t(line.about),
                "found": _t(line.found),
                "interval": _t(line.interval),
                "slug": _slug(line.outcome),
                "verdict": _t(line.verdict),
                "small": _t(line.small),
                "allowed": _t(line.allowed),
                "axis": None if line.axis is None else {**asdict(line.axis), "alt": _t(line.axis.alt)},
            }
            for line in page.lines
        ],
        "more": _t(say.say("page.more", n=say.count(page.more_lines))) if page.more_lines else "",
        "shown": [_t(told.sentence) for told in page.shown],
        "actions": [{"sentence": _t(a.sentence), "by": _t(a.by), "command": _t(a.command)} for a in page.actions],
        "last": _t(" · ".join(page.last)),
        "words": {name.replace(".", "_"): _t(say.say(name)) for name in names},
    }


def _control(report: AuditReport, say: Catalogue) -> list[tuple[str, str]]:
    digest = view.document_id(report)
    labels = report.about.labels if report.about is not None else {}
    plan = report.registration
    told = {
        "document": f"{digest[:16]}, from report.json with SHA-256 {digest}",
        "created": moment(report.created),
        "model": _file(report.model.path, report.model.sha256),
        "data": _file(report.data.path, report.data.sha256, report.data.n_rows),
        "groups": ", ".join(report.data.sensitive) or "none was named",
        "labels": ", ".join(f"{key} “{word}”" for key, word in labels.items()),
        "tool": f"auditor {report.tool.get('version', '')}, record schema {report.schema_version}",
        "plan": "none: nothing shows that criteria were set before results were seen"
        if plan is None
        else plan.describe(),
        "review": " ",
    }
    return _pairs(*((say.say(f"paper.control_{name}"), value) for name, value in told.items()))


def _file(path: str | None, sha256: str | None, n_rows: int | None = None) -> str:
    if path is None and sha256 is None and n_rows is None:
        return "none was given, or in memory"
    parts = [path or "in memory", "" if n_rows is None else view.plural(n_rows, "row")]
    return ", ".join([*filter(None, parts), f"SHA-256 {sha256 or 'not known'}"])


def _by_reason(rows: Sequence[Row]) -> list[tuple[str, str, int]]:
    """Rows that share a reason, once: a name, the reason, how many they are."""
    gathered: dict[str, list[str]] = {}
    for row in rows:
        gathered.setdefault(row.finding.reason, []).append(row.name)
    return [
        (names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else ""), reason, len(names))
        for reason, names in gathered.items()
    ]


def _asked_for(policies: Sequence[view.ShownPolicy]) -> list[tuple[str, str, int]]:
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
        "total": text.count(sum(n for _, _, n in items)),
        "rows": [
            {"name": _t(name), "reason": _t(text.shortened(reason, _LONGEST_REASON))}
            for name, reason, _ in items[:_IN_LIST]
        ],
        "more": _t(say.say("page.more", n=say.count(hidden))) if hidden else "",
    }


# ---- figures -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Figure:
    """A drawn figure and about how tall it stands with its title and caption, in points."""

    shown: dict[str, object]
    height: float


def _figures(say: Catalogue, title: str, drawings: Sequence[view.Drawn], folder: Path) -> dict[str, object]:
    """The figures under a heading: wide ones first and alone, narrow ones in two columns of about the same height."""
    captions: dict[str, str] = {}
    wide: list[dict[str, object]] = []
    columns: tuple[list[_Figure], list[_Figure]] = ([], [])
    for drawn in drawings:
        caption, called = drawn.figure.caption, drawn.figure.title
        if len(caption) > _LONGEST_REPEATED and captions.setdefault(caption, called) != called:
            caption = say.say("paper.read_as", title=captions[caption])
        made = _figure(drawn, caption, folder)
        if drawn.figure.table is not None or not made.shown["narrow"]:
            wide.append(made.shown)
        else:
            min(columns, key=lambda column: sum(f.height for f in column)).append(made)
    shown = [[f.shown for f in column] for column in columns]
    return {"title": _t(title), "wide": wide, "columns": shown}


def pillar_title(name: str) -> str:
    """A pillar as a heading."""
    return "The file itself" if name == INTAKE else name.capitalize()


def _figure(drawn: view.Drawn, caption: str, folder: Path) -> _Figure:
    name = f"{drawn.dom_id}.svg"
    markup = as_file(draw_svg(drawn.figure, dom_id=drawn.dom_id)).replace("system-ui, sans-serif", "DejaVu Sans")
    (folder / name).write_text(markup, encoding="utf-8")
    drawing = ElementTree.fromstring(markup).attrib
    width, height = float(drawing["width"]), float(drawing["height"])
    narrow = width <= _NARROW
    scale = min(_SCALE, (_COLUMN_WIDTH if narrow else _PAGE_WIDTH) / width, _TALLEST / height)
    lines = -(-len(drawn.figure.title) // _TITLE_LINE) * 13.0 + -(-len(caption) // _CAPTION_LINE) * 10.0
    shown: dict[str, object] = {
        "file": name,
        "narrow": narrow,
        "title": _t(drawn.figure.title),
        "alt": text.visible(drawn.figure.alt) or "A figure without description.",
        "caption": _t(caption),
        "grades": _grades(drawn.figure.table),
        "width": width * scale,
    }
    return _Figure(shown, height * scale + lines + 20.0)


def _grades(table: GradeTable | None) -> list[dict[str, object]]:
    """A table of grades with a row per method, since its many columns are wider than a page."""
    if table is None:
        return []
    return [
        {
            "method": _name(m.method),
            "standing": view.STANDINGS[m.standing],
            "reason": _t(m.reason),
            "grades": [_t(told) for told in _graded(table, m)],
        }
        for m in table.methods
    ]


def _graded(table: GradeTable, method: GradedMethod) -> Iterator[str]:
    """Each grade with its interval, then those that were not measured together."""
    absent: dict[str, list[str]] = {}
    for name, own in zip((name.replace("_", " ") for name in table.grades), method.grades, strict=True):
        if own.value is None:
            absent.setdefault(text.grade(own), []).append(name)
        else:
            bounds = text.grade_interval(own)
            yield f"{name} {text.grade(own)}" + (f" ({bounds})" if bounds else "")
    for why, names in absent.items():
        yield f"{why}: {', '.join(names)}"


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


def _numbers(say: Catalogue, rows: Sequence[Row]) -> dict[str, object]:
    """The one table: what was judged or lost with its reason, then what nobody bounded, folded by question."""
    told = sorted((r for r in rows if r.outcome in _TOLD), key=lambda r: r.rank)
    unjudged = sorted((r for r in rows if r.outcome is Outcome.NOT_JUDGED), key=lambda r: view.is_detail(r.finding))
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
            {"names": [_t(name) for name in dict.fromkeys(names)], "reason": _t(reason)}
            for reason, names in lacking.items()
            if len(lacking) > _IN_LIST or len(names) > 1 or len(reason) > _LONGEST_REASON
        ],
        "folded_title": _t(say.counted("paper.folded", len(unjudged))) if unjudged else "",
        "folded_how": _t(say.say("paper.folded_how")),
        "folded": [_fold(say, question, own, notes) for question, own in _asked(say, folded)],
        "folded_more": _left_out(say, unjudged[MOST_FOLDED:]),
        "notes": [_t(text.shortened(note, _LONGEST_WHY)) for note in notes.words],
        "elsewhere": _t(say.say("paper.elsewhere", probes=", ".join(elsewhere))) if elsewhere else "",
    }


def _left_out(say: Catalogue, rows: Sequence[Row]) -> str:
    """How many findings of which outcome stand only in the record."""
    if not rows:
        return ""
    tally = ", ".join(
        f"{say.count(n)} {_words(o)}" for o in view.ORDER for n in [sum(r.outcome is o for r in rows)] if n
    )
    return _t(say.say("paper.only_in_record", tally=tally))


def _row(say: Catalogue, row: Row, notes: _Notes) -> dict[str, str]:
    f = row.finding
    why = [f.reason.removesuffix(f.tried).strip()]
    why += [f.detail] * (f.detail != f.reason and len(f.detail) <= _LONGEST_DETAIL)
    if f.n_required is not None:
        why.append(say.say("paper.needs", n=say.count(f.n_required), has=row.n or "0"))
    shared = (f.tried if f.reason.endswith(f.tried) else "", f.detail if len(f.detail) > _LONGEST_DETAIL else "")
    return {
        "id": _t(f.id),
        "name": _name(row.name),
        "place": _t(row.where),
        "value": row.value if f.metric is not None else "",
        "interval": f"{row.interval} at {row.confidence}" if row.confidence and row.interval else row.interval,
        "must_be": row.must_be,
        "n": row.n,
        "outcome": _words(row.outcome),
        "slug": _slug(row.outcome),
        "why": _t(text.shortened(" ".join(_ended(part) for part in why if part), _LONGEST_WHY)),
        "notes": ", ".join(notes.mark(words) for words in shared if words),
    }


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith((".", "!", "?")) else sentence + "."


def _asked(say: Catalogue, rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Numbers by their question, in the order of the record."""
    asked: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda r: int(r.anchor.rpartition("-")[2])):
        f = row.finding
        question = question_of(f.probe, f.metric)
        name = say.say(f"question.{question.id}") if question else f.probe.replace("_", " ")
        asked.setdefault(name, []).append(row)
    return list(asked.items())


def _fold(say: Catalogue, question: str, rows: Sequence[Row], notes: _Notes) -> dict[str, object]:
    """The numbers of a question: ids that begin alike are told by what they end on."""
    stems: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        f = row.finding
        stem, rest = stem_of(f.id)
        stems.setdefault(stem, []).append(
            {
                "id": _t(rest),
                "value": row.value,
                "interval": row.interval,
                "note": notes.mark(f.reason),
            }
        )
    return {
        "question": _t(question),
        "n": say.count(len(rows)),
        "stems": [{"stem": _t(stem), "rows": own} for stem, own in stems.items()],
    }


def stem_of(name: str) -> tuple[str, str]:
    """An id's probe and method, and what comes after them."""
    parts = name.split("/")
    n = 2 if len(parts) > 2 else len(parts) - 1
    return "/".join(parts[:n]) + "/" * (n > 0), "/".join(parts[n:])


def _criteria(report: AuditReport, say: Catalogue) -> list[dict[str, object]]:
    """Criteria by whoever set them, when, and from which source: those that held something here, then the others."""
    used = [f.criterion for f in report.findings if f.criterion is not None]
    by_source: dict[tuple[str, str, str], list[CriterionRecord]] = {}
    for c in report.criteria:
        by_source.setdefault((c.source, c.set_by, c.set_at), []).append(c)
    made: list[dict[str, object]] = []
    for (source, set_by, set_at), own in by_source.items():
        idle = [c for c in own if c not in used]
        told = "; ".join(f"{c.metric} {c.describe()} ({view.applies_to(c)})" for c in idle)
        made.append(
            {
                "source": _t(say.say("paper.set_by", source=source, who=set_by, day=set_at)),
                "idle": _t(say.say("paper.idle", criteria=told)) if idle else "",
                "rows": [
                    {"metric": _name(c.metric), "must_be": c.describe(), "applies": _t(view.applies_to(c))}
                    for c in own
                    if c in used
                ],
            }
        )
    return made


# ---- rule packs and provenance -------------------------------------------------------------------------------------


def _policy(shown: view.ShownPolicy) -> dict[str, object]:
    p = shown.policy
    about = [f"{p.source}. Looked up on {p.checked_on}, {p.certainty}; as of {p.as_of}"]
    about += [f", applies from {p.applies_from}"] * bool(p.applies_from) + [f", until {p.applies_until}"] * bool(
        p.applies_until
    )
    tally = ", ".join(f"{n} {kind}" for kind, n in shown.counts)
    about.append(f". {tally}." + ("" if p.sets_pass_mark else " It sets no pass mark."))
    return {
        "title": _t(p.title),
        "about": _t("".join(about)),
        "notes": [_t(n) for n in p.notes],
        "cells": [
            _cell(control, cell, p.as_of, i == 0) for control in shown.controls for i, cell in enumerate(control.cells)
        ],
    }


def _cell(control: view.ShownControl, cell: view.ShownCell, as_of: str, first: bool) -> dict[str, str]:
    c = control.control
    match cell.cell.kind:
        case "evidence":
            tally = ", ".join(f"{n} {_words(o)}" for o, n in cell.outcomes)
            names = ", ".join(f"{row.name} {row.where}".strip() for row in cell.rows)
            said = f" ({tally}): {names}" + (f" and {cell.left_out} more" if cell.left_out else "")
            said += "".join(f". {tried}" for tried in cell.cell.tried)
        case "attestation needed":
            said = f" from: {cell.cell.role}"
        case _:
            said = f": {cell.cell.how} {cell.cell.reason}"
    return {
        "id": _t(c.id),
        "title": _t(c.title) if first else "",
        "force": "" if c.in_force or not first else f"not in force on {as_of}",
        "asks": _t(cell.cell.what),
        "slug": cell.slug,
        "state": cell.state.upper(),
        "said": _t(said),
    }


def _provenance(report: AuditReport) -> list[dict[str, object]]:
    m, data, e = report.model, report.data, report.environment
    packages = ", ".join(f"{k} {v}" for k, v in e.packages.items())
    return [
        {
            "title": "How the model was loaded",
            "rows": _pairs(
                ("File", m.path or "in memory"),
                ("Format", m.format),
                ("Loaded by", m.loaded_by),
                ("SHA-256", m.sha256 or "not known"),
                ("Parameters", "" if m.n_parameters is None else text.count(m.n_parameters)),
                ("Size", "" if m.size_bytes is None else f"{text.count(m.size_bytes)} bytes"),
                ("Classes", ", ".join(m.classes)),
            ),
            "notes": [_t(n) for n in m.notes],
        },
        {
            "title": "How the data were read",
            "rows": _pairs(
                ("Data", data.path or ("in memory" if data.n_rows is not None else "none was given")),
                ("Rows", "" if data.n_rows is None else text.count(data.n_rows)),
                ("SHA-256", data.sha256 or ""),
                ("Target", data.target or ""),
                ("Favourable", data.positive or ""),
                ("Training data", data.train_path or ""),
                ("Training SHA-256", data.train_sha256 or ""),
            ),
            "notes": [_t(n) for n in data.notes],
        },
        {
            "title": "Environment",
            "rows": _pairs(
                ("Command", e.command or ""),
                ("Platform", f"{e.platform}, Python {e.python}, device {e.device}, seed {e.seed}"),
                ("Limits set", ", ".join(f"{k} {v}" for k, v in e.limits.items()) or "none"),
                ("Sandbox", "" if e.sandbox is None else e.sandbox.describe()),
                ("Packages", packages or "not recorded"),
                ("Duration", f"{report.duration_s:.1f} s"),
            ),
            "notes": [],
        },
    ]
