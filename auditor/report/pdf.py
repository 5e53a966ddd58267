"""The report as a PDF to sign and to keep: PDF/A-2a and PDF/UA-1, typeset by typst from a template of ours.

What comes from the record reaches the template as JSON values, never as markup. Nothing is fetched: the fonts are those
that typst and matplotlib bring along.
"""

from __future__ import annotations

import json
import re
import tempfile
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from auditor.errors import DataError, MissingExtraError, first_line
from auditor.finding.display import GradeTable
from auditor.finding.measurement import Outcome
from auditor.record import rows_for_all, text
from auditor.record.audit_report import INTAKE, AuditReport
from auditor.record.worth import worth_of
from auditor.report import view
from auditor.report.first_page import FirstPage, first_page
from auditor.report.html import moment, resource, title_of
from auditor.report.pillars import PillarView, pillars_of
from auditor.report.shown_controls import ShownCell, ShownControl, ShownPolicy, policies_of
from auditor.report.svg import as_file, draw_svg
from auditor.report.view import Row

STANDARDS: tuple[Literal["a-2a"], Literal["ua-1"]] = ("a-2a", "ua-1")
_ON_FIRST_PAGE = 6
_LONGEST_REASON = 150
_LONGEST_WHY = 2000  # a finding stays on one page
_LONGEST_RUN = 22
_PAGE_WIDTH = 493.0  # of the text, in points
_TALLEST = 600.0
_SCALE = 0.82
_FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf")
_BREAK = "\N{ZERO WIDTH SPACE}"
_RUN = re.compile(rf"\S{{{_LONGEST_RUN},}}")


def render_pdf(report: AuditReport) -> bytes:
    """The whole report as PDF/A-2a and PDF/UA-1; same record, same fonts, same bytes.

    The first page says what the model does to whom, by question; the second has the six counts, document control, what
    was not run or not measured, and lines for signatures. A letter that no font at hand has is written as its code, and
    the report says so. Raises MissingExtraError without typst.
    """
    try:
        import typst
    except ImportError:
        raise MissingExtraError(
            "A PDF report needs typst: pip install 'responsible-auditor[pdf]', or choose --format html."
        ) from None
    with tempfile.TemporaryDirectory(prefix="auditor-pdf-") as name:
        folder = Path(name)
        data = _data(report, folder)
        foreign = _foreign(data, folder)
        fonts = _font_folder(folder)

        def compiled(*, system: bool) -> bytes:
            (folder / "report-data.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
            compiler = typst.Compiler(
                font_paths=[str(fonts)], ignore_system_fonts=not system, root=str(folder), package_path=str(folder)
            )
            made = compiler.compile(
                input=str(folder / "report.typ"),
                format="pdf",
                pdf_standards=list(STANDARDS),
                timestamp=_timestamp(report.created),
            )
            assert isinstance(made, bytes)
            return made

        (folder / "report.typ").write_text(resource("report.typ"), encoding="utf-8")
        try:
            return compiled(system=bool(foreign))
        except typst.TypstError:
            data = _escaped(data, foreign)
            for figure in folder.glob("*.svg"):
                drawn = unicodedata.normalize("NFC", figure.read_text(encoding="utf-8"))
                # Typst loses the letters of a drawing that carry several marks.
                marks = frozenset(c for c in drawn if unicodedata.category(c).startswith("M"))
                figure.write_text(_escape(drawn, foreign | marks), encoding="utf-8")
        try:
            return compiled(system=False)
        except typst.TypstError as error:
            raise DataError(
                f"This report cannot be typeset as {' and '.join(STANDARDS)} ({first_line(error)}): take --format html."
            ) from None


def _timestamp(created: str) -> int:
    try:
        when = datetime.fromisoformat(created)
    except ValueError:
        return 0
    return max(0, int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()))


# ---- fonts ---------------------------------------------------------------------------------------------------------


def _font_folder(folder: Path) -> Path:
    """The fonts of matplotlib that the template names, alone: its last-resort font would draw boxes for letters."""
    from matplotlib import get_data_path

    fonts = folder / "fonts"
    fonts.mkdir()
    for name in _FONTS:
        (fonts / name).symlink_to(Path(get_data_path()) / "fonts" / "ttf" / name)
    return fonts


@cache
def _known_letters() -> frozenset[int]:
    from matplotlib import get_data_path
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(Path(get_data_path()) / "fonts" / "ttf" / _FONTS[0])).get_charmap())


def _foreign(data: object, folder: Path) -> frozenset[str]:
    """Characters of the document that the fonts brought along lack."""
    used = set(json.dumps(data, ensure_ascii=False)).union(*(p.read_text("utf-8") for p in folder.glob("*.svg")))
    return frozenset(c for c in used if ord(c) not in _known_letters() and c not in ("\n", _BREAK))


def _escape(words: str, foreign: frozenset[str]) -> str:
    return "".join(
        (f"\\u{ord(c):04x}" if ord(c) <= 0xFFFF else f"\\U{ord(c):08x}") if c in foreign else c for c in words
    )


def _escaped(data: dict[str, object], foreign: frozenset[str]) -> dict[str, object]:
    def walk(value: object) -> object:
        if isinstance(value, str):
            return _breaking(_escape(value.replace(_BREAK, ""), foreign))
        if isinstance(value, dict):
            return {k: walk(v) for k, v in value.items()}
        return [walk(v) for v in value] if isinstance(value, (list, tuple)) else value

    note = (
        "Letters that the fonts of this document lack are written as their code, such as \\u4e2d; report.json has them."
    )
    return {**{key: walk(value) for key, value in data.items()}, "fonts_note": note}


# ---- what the template is given ------------------------------------------------------------------------------------


def _breaking(words: str) -> str:
    """Words that may break after an underscore or a slash, and anywhere at last, so that no cell overflows."""

    def run(match: re.Match[str]) -> str:
        parts = re.sub(r"([_/=,.+-])", rf"\1{_BREAK}", match.group()).split(_BREAK)
        pieces = [p[i : i + _LONGEST_RUN] for p in parts for i in range(0, len(p), _LONGEST_RUN)]
        return _BREAK.join(pieces)

    return _RUN.sub(run, words)


def _t(words: str | None) -> str:
    return _breaking(text.visible(words or ""))


def _name(words: str) -> str:
    """A name in narrow columns: it may break after every underscore."""
    return re.sub(r"(?<=_)(?=[^_])", _BREAK, _t(words).replace(_BREAK, "")) if len(words) < _LONGEST_RUN else _t(words)


def _slug(outcome: Outcome) -> str:
    return outcome.value.lower().replace("_", "-")


def _words(outcome: Outcome) -> str:
    return outcome.value.replace("_", " ")


def _interval(row: Row) -> str:
    return f"{row.interval} at {row.confidence}" if row.confidence and row.interval else row.interval


def _row(row: Row) -> dict[str, str]:
    f = row.finding
    why = [f.reason] + [f.detail] * (f.detail != f.reason)
    needed = "not known" if f.n_required is None else text.count(f.n_required)
    return {
        "name": _name(row.name),
        "place": _t(row.where),
        "value": row.value,
        "interval": _interval(row),
        "must_be": row.must_be,
        "n": row.n,
        "needed": f"{needed} (has {row.n})",
        "outcome": _words(row.outcome),
        "slug": _slug(row.outcome),
        "by": _t(", ".join(p for p in (f.probe, f.method or "") if p)) if row.name != f.probe else "",
        "why": _t(text.shortened(" ".join(part for part in why if part), _LONGEST_WHY)),
    }


def _by_reason(rows: Sequence[Row]) -> list[tuple[str, str, int]]:
    """Rows that share a reason, once: a name, the reason, how many they are."""
    gathered: dict[str, list[str]] = {}
    for row in rows:
        gathered.setdefault(row.finding.reason, []).append(row.name)
    return [
        (names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else ""), reason, len(names))
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


def _listed(items: Sequence[tuple[str, str, int]]) -> dict[str, object]:
    hidden = sum(n for _, _, n in items[_ON_FIRST_PAGE:])
    return {
        "total": text.count(sum(n for _, _, n in items)),
        "rows": [
            {"name": _t(name), "reason": _t(text.shortened(reason, _LONGEST_REASON))}
            for name, reason, _ in items[:_ON_FIRST_PAGE]
        ],
        "more": f"and {hidden:,} more, in the sections below." if hidden else "",
    }


def _data(report: AuditReport, folder: Path) -> dict[str, object]:
    rows = view.shown_rows(report)
    by_outcome = {o: [r for r in rows if r.outcome is o] for o in Outcome}
    verdict = view.verdict_of(report)
    worth = worth_of(report)
    policies = policies_of(report, rows)
    digest = view.document_id(report)
    return {
        "title": _t(title_of(report)),
        "front": _front(first_page(report)),
        "author": _t(f"auditor {report.tool.get('version', '')}".strip()),
        "id": digest[:16],
        "created": _t(moment(report.created)),
        "exit_code": str(report.exit_code),
        "verdict": {
            "slug": _slug(verdict.outcome),
            "headline": _t(verdict.headline),
            "sentence": _t(verdict.sentence),
        },
        "worth": None
        if worth is None
        else {"slug": _slug(worth.outcome), "line": _t(worth.line), "skill": _t(worth.skill)},
        "refusal": None
        if report.refusal is None
        else {"code": _t(report.refusal.shown), "reason": _t(report.refusal.reason)},
        "warnings": [_t(w) for w in view.warnings_of(report)],
        "rows_for_all": _t(rows_for_all.said(report)),
        "counts": [
            {"slug": _slug(c.outcome), "name": _words(c.outcome), "n": text.count(c.n), "meaning": c.meaning}
            for c in view.counts_of(report)
        ],
        "control": _pairs(
            ("Document", f"{digest[:16]}, from report.json with SHA-256 {digest}"),
            ("Date of the audit", moment(report.created)),
            ("Model", _file(report.model.path, report.model.sha256)),
            ("Data", _file(report.data.path, report.data.sha256, report.data.n_rows)),
            ("Groups compared", ", ".join(report.data.sensitive) or "none was named"),
            ("Called here", _labels(report)),
            ("Tool", f"auditor {report.tool.get('version', '')}, record schema {report.schema_version}"),
            ("Registration", _registered(report)),
            ("Next review due", " "),
        ),
        "refused": report.refusal is not None,
        "not_run": _listed(_by_reason(by_outcome[Outcome.NOT_RUN])),
        "not_measured": _listed(
            [
                *_by_reason([r for r in by_outcome[Outcome.NOT_APPLICABLE] if not r.finding.other_kind]),
                *_asked_for(policies),
            ]
        ),
        "deviations": [_t(d) for d in (report.registration.deviations if report.registration else ())],
        "failed": [_row(r) for r in by_outcome[Outcome.FAIL]],
        "open": [_row(r) for r in by_outcome[Outcome.INCONCLUSIVE]],
        "promise": _t(view.promise_of(report)),
        "pillars": [_pillar(p, folder) for p in pillars_of(report, rows)],
        "policies": [_policy(p) for p in policies],
        "criteria": [
            {
                "metric": _name(c.metric),
                "must_be": c.describe(),
                "applies": _t(view.applies_to(c)),
                "source": _t(c.source),
                "set_by": _t(c.set_by),
                "set_at": _t(c.set_at),
            }
            for c in report.criteria
        ],
        "provenance": _provenance(report),
        "limits": list(view.LIMITS),
        "fonts_note": "",
    }


def _front(page: FirstPage) -> dict[str, object]:
    """The first page, its words as values."""
    say = page.say

    def words(*names: str) -> dict[str, str]:
        return {name.replace(".", "_"): _t(say.say(name)) for name in names}

    return {
        "organisation": _t(page.organisation),
        "document": _t(page.document),
        "title": _t(page.title),
        "subtitle": _t(" · ".join(page.subtitle)),
        "slug": _slug(page.outcome),
        "headline": _t(page.headline),
        "effect": _t(page.effect),
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
        "words": words(
            *(f"page.{name}" for name in ("question", "about", "found", "axis", "outcome", "shown", "next")),
            *("page.nothing_shown", "page.nothing_next", "page.signature", "next.due"),
            *("page.prepared", "page.reviewed", "page.approved"),
        ),
        # Known once every phrase was said.
        "fallback": _t(page.fallback),
        "own_words": _t(page.own_words),
    }


def _labels(report: AuditReport) -> str:
    labels = report.about.labels if report.about is not None else {}
    return ", ".join(f"{key} “{word}”" for key, word in labels.items())


def _registered(report: AuditReport) -> str:
    if report.registration is None:
        return "none: nothing shows that criteria were set before results were seen"
    return report.registration.describe()


def _pairs(*pairs: tuple[str, str]) -> list[tuple[str, str]]:
    return [(name, _t(value)) for name, value in pairs if value]


def _file(path: str | None, sha256: str | None, n_rows: int | None = None) -> str:
    if path is None and sha256 is None and n_rows is None:
        return "none was given, or in memory"
    parts = [path or "in memory", "" if n_rows is None else view.plural(n_rows, "row")]
    return ", ".join([*filter(None, parts), f"SHA-256 {sha256 or 'not known'}"])


def _pillar(pillar: PillarView, folder: Path) -> dict[str, object]:
    figures = []
    for drawn in pillar.figures:
        name = f"{drawn.dom_id}.svg"
        markup = as_file(draw_svg(drawn.figure, dom_id=drawn.dom_id)).replace("system-ui, sans-serif", "DejaVu Sans")
        (folder / name).write_text(markup, encoding="utf-8")
        drawing = ElementTree.fromstring(markup).attrib
        width, height = float(drawing["width"]), float(drawing["height"])
        figures.append(
            {
                "file": name,
                "title": _t(drawn.figure.title),
                "alt": text.visible(drawn.figure.alt) or "A figure without description.",
                "caption": _t(drawn.figure.caption),
                "grades": _grades(drawn.figure.table),
                "width": width * min(_SCALE, _PAGE_WIDTH / width, _TALLEST / height),
            }
        )
    title = "The file itself" if pillar.name == INTAKE else pillar.name.capitalize()
    return {
        "name": pillar.name,
        "title": title,
        "rows": [_row(r) for r in (*pillar.rows, *pillar.unbounded, *pillar.absent)],
        "numbers": [_row(r) for r in pillar.numbers],
        "figures": figures,
        "sources": [
            {"probe": _t(s.probe), "methods": _t(f" ({s.methods})" if s.methods else ""), "citation": _t(s.citation)}
            for s in pillar.sources
            if s.citation
        ],
    }


def _grades(table: GradeTable | None) -> list[dict[str, object]]:
    """A table of grades with a row per method, since its many columns are wider than a page."""
    if table is None:
        return []
    return [
        {
            "method": _name(m.method),
            "standing": view.STANDINGS[m.standing],
            "reason": _t(m.reason),
            "grades": [
                _t(f"{name.replace('_', ' ')} {text.grade(own)}" + (f" ({bounds})" if bounds else ""))
                for name, own in zip(table.grades, m.grades, strict=True)
                for bounds in [text.grade_interval(own)]
            ],
        }
        for m in table.methods
    ]


def _policy(shown: ShownPolicy) -> dict[str, object]:
    p = shown.policy
    return {
        "title": _t(p.title),
        "about": _t(" ".join(part for part in (shown.origin, shown.tally, shown.held_to, p.old) if part)),
        "notes": [_t(n) for n in p.notes],
        "cells": [
            _cell(control, cell, p.as_of, i == 0) for control in shown.controls for i, cell in enumerate(control.cells)
        ],
    }


def _cell(control: ShownControl, cell: ShownCell, as_of: str, first: bool) -> dict[str, str]:
    c, own = control.control, cell.cell
    match own.kind:
        case "evidence":
            names = ", ".join(f"{row.name} {row.where}".strip() for row in cell.rows)
            said = f" ({cell.tally}): {names}" if cell.outcomes else ":"
            said += f" and {cell.left_out} more" if cell.left_out else ""
            said += f" {own.said}" if own.said else ""
            said += "".join(f". {tried}" for tried in own.tried)
        case "attestation needed":
            said = f" from: {own.role}"
        case "not measured":
            said = f": {own.reason} {own.how}".replace(":  ", ": ")
        case _:
            said = f": {own.reason}"
    return {
        "id": _t(c.id),
        "title": _t(c.title) if first else "",
        # What the whole control rests on is said once, with its title.
        "source": _t(f"{control.cited}, {c.certainty}") if first else "",
        "force": "" if c.in_force or not first else f"not in force on {as_of}",
        "asks": _t(own.what),
        "cited": _t(control.cited_apart(cell)),
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
