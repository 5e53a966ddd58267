"""A ledger as a folder of static pages: no server, no network access, deterministic bytes.

Long lists are split into pages of limited size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import PurePosixPath
from typing import Any, TypeVar
from urllib.parse import quote

from markupsafe import Markup

from auditor.evidence.history.ledger import Ledger
from auditor.evidence.portfolio.audit_lines import Audit, Decided, Read
from auditor.evidence.portfolio.due_dates import STATES, Due, all_due, audit_due
from auditor.evidence.portfolio.model_history import (
    GRAVEST_FIRST,
    MOST_CHANGES,
    Model,
    change,
    changes_of,
    course,
    models_of,
    sparkline,
)
from auditor.evidence.portfolio.open_findings import SEVERITIES, OpenFinding, PackTally, Standing, model_standing
from auditor.report.html import content_policy, environment, render_html, resource
from auditor.report.record.control_record import OLD_AFTER
from auditor.report.record.number_text import Period, known_day, visible
from auditor.run import __version__

T = TypeVar("T")
_AROUND = 4


@dataclass(frozen=True)
class Paging:
    """The number of this page among all pages; ``links``: some pages by number and file name."""

    here: int
    n: int
    links: tuple[tuple[int, str], ...]


def paged(name: str, rows: Sequence[T], size: int) -> Iterator[tuple[str, Sequence[T], Paging]]:
    """The path of each page, its rows, and its position; one empty page if there are no rows."""
    n = max(1, -(-len(rows) // size))
    for here in range(1, n + 1):
        near = [k for k in range(1, n + 1) if k in (1, n) or abs(k - here) <= _AROUND]
        links = tuple((k, PurePosixPath(_path(name, k)).name) for k in near)
        yield _path(name, here), rows[(here - 1) * size : here * size], Paging(here, n, links)


def _path(name: str, page: int) -> str:
    return f"{name}.html" if page == 1 else f"{name}-{page}.html"


MODELS_A_PAGE = 200
FINDINGS_A_PAGE = 250
LOOKS_A_PAGE = 100
ENTRIES_A_PAGE = 250
_MOST_LISTED = 200
_MOST_NAMED = 5
_AGES = ((30, "up to 30 days"), (90, "31 to 90"), (180, "91 to 180"), (365, "181 to 365"))
_KNOWN_BY = {
    "id": "known by its id, whatever its file",
    "sha256": "known by the SHA-256 of its file: [model] id in audit.toml gives it a name that stays",
    "path": "known by its path alone",
}
_VERDICT_WORDS = {
    "PASS": "Everything that was judged passed.",
    "FAIL": "At least one finding failed.",
    "INCONCLUSIVE": "Nothing failed, but something could not be said: this is not a pass.",
    "REFUSED": "The model or the data were refused: nothing was measured.",
}
_NOT_ASKED_AGAIN = "The last audit did not ask again what an earlier one had not passed: that is open still."
# Where a page goes: its path in the site, and its bytes.
Put = Callable[[str, bytes], None]


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """An evidence bundle of the ledger: the result of its check, and its path relative to the site."""

    path: str
    state: str
    href: str | None = None
    wrong: str = ""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Options of a site: the reference day for ages, the audit period of models that state none, the bundles by the
    entry that names them, and whether each model's last report is included."""

    on: date
    every: Period | None = None
    bundles: Mapping[int, Bundle]
    reports: bool = False


@dataclass(frozen=True, kw_only=True)
class Made:
    """The contents of a site: its models, and the errors in its sources."""

    models: int
    open: int
    overdue: int
    problems: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """What every page is told."""

    read: Read
    on: date
    n_models: int
    problems: tuple[str, ...]
    policy: str
    style: Markup
    script: Markup
    version: str = __version__
    nav: tuple[tuple[str, str], ...] = (
        ("index.html", "Portfolio"),
        ("findings.html", "Findings"),
        ("due.html", "Due"),
        ("packs.html", "Rule packs"),
        ("evidence.html", "Evidence"),
    )

    @property
    def n_entries(self) -> int:
        return self.read.n_entries

    @property
    def n_audits(self) -> int:
        return len(self.read.audits)

    @property
    def head(self) -> str:
        return self.read.head

    @property
    def chain_broken(self) -> bool:
        return bool(self.read.problems)


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A model as the portfolio lists it."""

    title: str
    slug: str
    name: str
    tier: str
    owner: str
    verdict: str
    rank: int
    failed: int
    spark: Markup
    course: str
    change: str
    last: str
    n_open: int
    accepted_until: str
    accepted_overdue: bool
    due: str
    overdue: bool
    due_why: str
    packs: Mapping[str, PackTally]


def write_site(ledger: Ledger, reading: Read, options: Asked, write_page: Put) -> Made:
    """Pass every page of the site to ``write_page``, one after the other; memory holds only one line per model, audit
    and finding."""
    models = models_of(reading)
    # All of them before the first page, for each page says on top what is wrong.
    standings = [model_standing(ledger, model, options.on) for model in models]
    standings.sort(key=lambda own: GRAVEST_FIRST.index(own.verdict))
    rows = [_row(own, options) for own in standings]
    found = sorted((finding for own in standings for finding in own.open), key=lambda finding: finding.rank)
    problems = [*reading.problems, *reading.unread, *(problem for own in standings for problem in own.problems)]
    problems += [f"entry {n}: {b.path}: {b.wrong}" for n, b in sorted(options.bundles.items()) if b.wrong]
    frame = _frame(reading, options, len(models), tuple(dict.fromkeys(problems)))
    due = all_due(standings, options.every, options.on)
    overdue = sum(each.state == "overdue" for each in due)
    for pages in (
        _index(frame, rows, found, due),
        _findings(frame, found),
        _due_pages(frame, due),
        _packs(frame, rows),
        _evidence(frame, models, options),
    ):
        for path, page in pages:
            write_page(path, page)
    for own, row in zip(standings, rows, strict=True):
        for path, page in _model(frame, ledger, own, row, options):
            write_page(path, page)
    return Made(models=len(models), open=len(found), overdue=overdue, problems=frame.problems)


def _frame(reading: Read, options: Asked, n_models: int, problems: tuple[str, ...]) -> _Frame:
    style = Markup(resource("report.css") + resource("site.css"))
    script = Markup(resource("report.js") + resource("site.js"))
    policy = content_policy(style, script, pictures=False)
    return _Frame(
        read=reading, on=options.on, n_models=n_models, problems=problems, policy=policy, style=style, script=script
    )


def _row(status: Standing, options: Asked) -> _Row:
    model, due = status.model, audit_due(status.model, options.every, options.on)
    said = model.identity
    until = min((f.accepted_until for f in status.open if f.accepted_until), default=None)
    return _Row(
        title=model.title,
        slug=model.slug,
        name=said.name if said.name != model.title else "",
        tier=said.tier,
        owner=said.owner,
        verdict=status.verdict,
        rank=GRAVEST_FIRST.index(status.verdict),
        failed=model.newest.fail,
        spark=sparkline(model.audits),
        course=course(model.audits),
        change=change(model.audits),
        last=model.newest.day,
        n_open=len(status.open),
        accepted_until=str(until or ""),
        accepted_overdue=until is not None and until < options.on,
        due=str(due.by or ""),
        overdue=due.state == "overdue",
        due_why=due.why,
        packs={tally.pack.name: tally for tally in status.packs},
    )


# ---- pages -----------------------------------------------------------------------------------------------------------


def _page(frame: _Frame, template: str, *, page_path: str, root: str = "", **context: Any) -> bytes:
    page = environment().get_template(template)
    return page.render(frame=frame, here=page_path, root=root, bundle=_bundle, **context).encode()


def _pages(
    frame: _Frame, name: str, rows: Sequence[Any], size: int, chosen_by: Sequence[str] = (), **context: Any
) -> Iterator[tuple[str, bytes]]:
    """A list in its pages; ``chosen_by``: what of its rows a reader can filter by."""
    for path, shown, paging in paged(name, rows, size):
        values = {by: sorted({str(getattr(row, by)) for row in shown}) for by in chosen_by}
        template, here = f"site_{name}.html.j2", f"{name}.html"
        yield path, _page(frame, template, page_path=here, rows=shown, paging=paging, values=values, **context)


def _index(
    frame: _Frame, rows: Sequence[_Row], findings: Sequence[OpenFinding], due_items: Sequence[Due]
) -> Iterator[tuple[str, bytes]]:
    verdicts = Counter(row.verdict for row in rows)
    states = Counter(each.state for each in due_items)
    return _pages(
        frame,
        "index",
        rows,
        MODELS_A_PAGE,
        ("verdict", "tier", "owner"),
        verdicts=[(word, verdicts[word]) for word in GRAVEST_FIRST],
        n_open=len(findings),
        n_overdue=states["overdue"],
        n_unknown=states["unknown"],
    )


def _findings(frame: _Frame, findings: Sequence[OpenFinding]) -> Iterator[tuple[str, bytes]]:
    labels = [*(label for _, label in _AGES), f"over {_AGES[-1][0]}", "not known"]
    counted = Counter((f.severity, _age_band(f.age(frame.on))) for f in findings)
    table = [
        (severity, [counted[severity, i] for i in range(len(labels))], sum(f.severity == severity for f in findings))
        for severity in SEVERITIES
    ]
    return _pages(
        frame,
        "findings",
        findings,
        FINDINGS_A_PAGE,
        ("severity", "status", "owner"),
        total=len(findings),
        ages=labels,
        table=table,
        severities=SEVERITIES,
        on=frame.on,
    )


def _age_band(age: int | None) -> int:
    if age is None:
        return len(_AGES) + 1
    return next((i for i, (most, _) in enumerate(_AGES) if age <= most), len(_AGES))


def _due_pages(frame: _Frame, due_items: Sequence[Due]) -> Iterator[tuple[str, bytes]]:
    n_overdue = sum(each.state == "overdue" for each in due_items)
    return _pages(
        frame,
        "due",
        due_items,
        ENTRIES_A_PAGE,
        ("state", "kind"),
        states=STATES,
        n_overdue=n_overdue,
        pack_days=OLD_AFTER,
    )


def _packs(frame: _Frame, rows: Sequence[_Row]) -> Iterator[tuple[str, bytes]]:
    by_name: dict[str, list[PackTally]] = {}
    for row in rows:
        for name, tally in row.packs.items():
            by_name.setdefault(name, []).append(tally)
    packs = []
    for name, tallies in sorted(by_name.items()):
        days = sorted({tally.pack.checked_on for tally in tallies})
        old = any((frame.on - day).days > OLD_AFTER for day in map(known_day, days) if day is not None)
        title = tallies[0].pack.title
        packs.append({"name": name, "title": title, "days": days, "overdue": old, "models": len(tallies)})
    return _pages(frame, "packs", rows, MODELS_A_PAGE, packs=packs, pack_days=OLD_AFTER)


def _evidence(frame: _Frame, models: Sequence[Model], options: Asked) -> Iterator[tuple[str, bytes]]:
    entries: list[tuple[int, Model, Audit | None]] = [(a.number, m, a) for m in models for a in m.audits]
    entries += [(d.number, m, None) for m in models for d in m.decisions]
    entries.sort(key=lambda each: -each[0])
    decisions = {d.number: d for d in frame.read.decisions}
    states = Counter(bundle.state for bundle in options.bundles.values())
    for path, shown, paging in paged("evidence", entries, ENTRIES_A_PAGE):
        rows = []
        for number, model, audit in shown:
            own: dict[str, Any] = {"number": number, "model": model, "verdict": "", "said": "", "bundle": None}
            if audit is not None:
                own |= {"day": audit.day, "kind": "audit", "verdict": audit.verdict, "sha256": audit.record_sha256}
                own["bundle"] = options.bundles.get(number)
            else:
                decided = decisions[number]
                made = decided.decision
                own |= {"day": decided.created[:10], "kind": "decision", "sha256": made.record_sha256}
                own["said"] = f"{made.decision} by {made.by}"
            rows.append(own)
        yield (
            path,
            _page(
                frame,
                "site_evidence.html.j2",
                page_path="evidence.html",
                rows=rows,
                paging=paging,
                values={"kind": sorted({row["kind"] for row in rows})},
                n_signed=sum(bool(d.signed) for d in frame.read.decisions),
                n_decisions=len(frame.read.decisions),
                bundles=", ".join(f"{n} {state}" for state, n in sorted(states.items())) or "none is named",
            ),
        )


def _model(frame: _Frame, ledger: Ledger, status: Standing, row: _Row, options: Asked) -> Iterator[tuple[str, bytes]]:
    model = status.model
    changes = changes_of(ledger, model.audits)
    reports = {}
    if options.reports and model.last_measured is not None and not status.problems:
        path = f"reports/{model.slug}.html"
        reports[model.last_measured.number] = path
        yield path, render_html(ledger.entry(model.last_measured.number).audit().record).encode()
    versions, sets = model.versions(), model.data_sets()
    decisions = [_decision(each, options.on) for each in reversed(model.decisions[-_MOST_LISTED:])]
    newest_first = tuple(reversed(model.audits))
    for path, shown, paging in paged(f"models/{model.slug}", newest_first, LOOKS_A_PAGE):
        here = {audit.number for audit in shown}
        yield (
            path,
            _page(
                frame,
                "site_model.html.j2",
                page_path=path,
                root="../",
                row=row,
                paging=paging,
                on=frame.on,
                known_by=_KNOWN_BY[model.known_by[0]],
                verdict_words=_VERDICT_WORDS[status.verdict] if status.verdict == model.verdict else _NOT_ASKED_AGAIN,
                findings=status.open[:_MOST_LISTED],
                n_findings=len(status.open),
                versions=versions[:_MOST_LISTED],
                n_versions=len(versions),
                data_sets=[
                    {"path": each.path, "n_rows": each.n_rows, "n_looks": len(each.looks), "looks": looks}
                    for each in sets
                    if (looks := [audit for audit in reversed(each.looks) if audit.number in here])
                ],
                reports=reports,
                bundles=options.bundles,
                changes=changes,
                most_changes=MOST_CHANGES,
                n_audits=len(model.audits),
                decisions=decisions,
                n_decisions=len(model.decisions),
            ),
        )


def _decision(entry: Decided, today: date) -> dict[str, Any]:
    made = entry.decision
    return {
        "number": entry.number,
        "day": entry.created[:10],
        "what": made.step or made.decision,
        "by": made.by,
        "role": made.role,
        "until": str(made.expires or ""),
        "expired": made.expires is not None and made.expires < today,
        "audit": made.audit,
        "about": [item.describe() for item in made.decided[:_MOST_NAMED]],
        "n_findings": len(made.decided or made.findings),
        "owner": made.owner,
        "mend_by": str(made.due or ""),
        "signed": "not checked" if entry.signed is None else entry.signed[:16] or "not signed",
        "note": made.note,
    }


def _bundle(bundle: Bundle, root: str) -> Markup:
    """A bundle's path, linked where it lies there, and what became of checking it."""
    path = Markup("<bdi>{}</bdi>").format(visible(bundle.path))
    if bundle.href is not None:
        path = Markup('<a href="{}">{}</a>').format(root + quote(bundle.href), path)
    state = Markup('<span class="overdue">{}</span>') if bundle.wrong else Markup("{}")
    return path + ": " + state.format(visible(bundle.state))
