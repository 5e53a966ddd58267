"""The models of a ledger over time: versions, data sets, audits, changes of requirements, and a plot of failures."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import PurePath
from typing import Literal

from markupsafe import Markup

from auditor.core.errors import AuditorError
from auditor.evidence.history.entries import Identity, owners_of
from auditor.evidence.history.ledger import Ledger
from auditor.evidence.portfolio.audit_lines import Audit, Decided, Read, required_in
from auditor.evidence.registration import changed_criteria
from auditor.judging.criterion import CriterionRecord
from auditor.report.record.configuration import ModelIdentity
from auditor.report.record.number_text import known_day

# What a reader is to see first.
GRAVEST_FIRST = ("FAIL", "REFUSED", "INCONCLUSIVE", "PASS")
_LONGEST_SLUG = 40


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Rows of audits, identified by digests; ``looks``: all audits of them, oldest first."""

    path: str
    n_rows: int | None
    looks: tuple[Audit, ...]


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version of a model, named by its audits, or else by its bytes."""

    name: str
    sha256: tuple[str, ...]
    audits: tuple[Audit, ...]


@dataclass(frozen=True)
class Model:
    """A model with its audits and decisions, oldest first; ``known_by``: ``id``, ``sha256`` or ``path``, with value."""

    known_by: tuple[str, str]
    audits: tuple[Audit, ...]
    decisions: tuple[Decided, ...]

    @property
    def newest(self) -> Audit:
        """The last audit of the model, refused or not."""
        return self.audits[-1]

    @cached_property
    def last_measured(self) -> Audit | None:
        """The last audit that measured something; None where all were refused."""
        return next((audit for audit in reversed(self.audits) if not audit.refused), None)

    @cached_property
    def identity(self) -> ModelIdentity:
        """The model identity stated in the last audit that gave the id."""
        return next((audit.said for audit in reversed(self.audits) if audit.said.id), self.newest.said)

    @property
    def title(self) -> str:
        """The model's id, else its name or the name of its file."""
        named = self.identity.id or self.identity.name or _file_name(self.newest.identity.path)
        return named or "a model in memory"

    @property
    def verdict(self) -> str:
        """The verdict of the last audit."""
        return self.newest.verdict

    @cached_property
    def slug(self) -> str:
        """A file name unique to this model, for any characters in its id."""
        plain = unicodedata.normalize("NFKD", self.title).encode("ascii", "ignore").decode().lower()
        readable = re.sub(r"[^a-z0-9]+", "-", plain)[:_LONGEST_SLUG].strip("-") or "model"
        return f"{readable}-{hashlib.sha256('='.join(self.known_by).encode('utf-8', 'replace')).hexdigest()[:20]}"

    def versions(self) -> list[Version]:
        """The versions of the model, newest first."""
        found: dict[str, list[Audit]] = {}
        for audit in self.audits:
            found.setdefault(audit.said.version or (audit.identity.sha256 or "")[:12] or "not named", []).append(audit)
        return [
            Version(
                name=name,
                sha256=tuple(dict.fromkeys(a.identity.sha256 for a in audits if a.identity.sha256)),
                audits=tuple(audits),
            )
            for name, audits in sorted(found.items(), key=lambda each: -each[1][-1].number)
        ]

    def data_sets(self) -> list[DataSet]:
        """The audited data sets, the one of the newest look first."""
        found = [
            DataSet(
                path=looks[-1].data_path or ("in memory" if looks[-1].n_rows is not None else "no data"),
                n_rows=looks[-1].n_rows,
                looks=tuple(looks),
            )
            for looks in _by_rows(self.audits)
        ]
        return sorted(found, key=lambda each: -each.looks[-1].number)


def models_of(reading: Read) -> list[Model]:
    """The models, worst verdict first, then by number of failures, then by title.

    An audit without an id is of the model that first gave an id to the same bytes.
    """
    owners = owners_of(audit.identity for audit in reading.audits)
    audits: dict[tuple[str, str], list[Audit]] = {}
    of_audit: dict[int, tuple[str, str]] = {}
    for audit in reading.audits:
        key = _known_by(audit.identity, owners)
        audits.setdefault(key, []).append(audit)
        of_audit[audit.number] = key
    decisions: dict[tuple[str, str], list[Decided]] = {}
    for decided in reading.decisions:
        decisions.setdefault(of_audit[decided.decision.audit], []).append(decided)
    found = [Model(key, tuple(own), tuple(decisions.get(key, ()))) for key, own in audits.items()]
    return sorted(found, key=lambda m: (GRAVEST_FIRST.index(m.verdict), -m.newest.fail, m.title.casefold(), m.known_by))


def _known_by(identity: Identity, owners: dict[str, str]) -> tuple[str, str]:
    if identity.id:
        return "id", identity.id
    if identity.sha256 is not None:
        given = owners.get(identity.sha256)
        return ("sha256", identity.sha256) if given is None else ("id", given)
    return "path", identity.path or ""


def _by_rows(audits: Iterable[Audit]) -> Iterable[Sequence[Audit]]:
    """Audits of the same rows together: those that share the digest of a file, or of the rows in it."""
    groups: list[list[Audit]] = []
    of_digest: dict[str, list[Audit]] = {}
    for audit in audits:
        # Rows without a digest are known by nothing but their path.
        names = audit.data_digests or (f"path {audit.data_path}",)
        same = [of_digest[name] for name in names if name in of_digest]
        group = same[0] if same else []
        if not same:
            groups.append(group)
        for other in same[1:]:
            if other is not group:
                group += other
                other.clear()
                of_digest |= {name: group for name, held in of_digest.items() if held is other}
        group.append(audit)
        of_digest |= dict.fromkeys(names, group)
    return [sorted(group, key=lambda audit: audit.number) for group in groups if group]


def _file_name(path: str | None) -> str:
    return PurePath(path.replace("\\", "/").rstrip("/")).name if path else ""


Turn = Literal["loosened", "tightened", "changed", "dropped", "added"]
# Newest first; what lies further back can be read in the records.
MOST_CHANGES = 100


@dataclass(frozen=True, kw_only=True)
class Change:
    """A requirement that differs from the audit before."""

    audit: Audit
    turn: Turn
    subject: str
    before: str
    after: str


def changes_of(ledger: Ledger, audits: Sequence[Audit]) -> list[Change]:
    """Changed requirements relative to the audit before, newest first, at most ``MOST_CHANGES``."""
    found: list[Change] = []
    differing = [(a, b) for a, b in pairwise([a for a in audits if not a.refused]) if a.criteria != b.criteria]
    for before, after in reversed(differing):
        found += _changes_between(ledger, before, after)
        if len(found) >= MOST_CHANGES:
            break
    return found[:MOST_CHANGES]


def _changes_between(ledger: Ledger, before: Audit, after: Audit) -> Iterator[Change]:
    try:
        then, now = (required_in(ledger.entry(audit.number)) for audit in (before, after))
    except AuditorError:
        # An entry that was changed is named on every page; what it required is not known.
        return
    for subject, a, b in changed_criteria(then, now):
        turn = _turn(a, b)
        if turn is not None:
            words = ["" if each is None else each.describe() for each in (a, b)]
            yield Change(audit=after, turn=turn, subject=subject, before=words[0], after=words[1])


def _turn(a: CriterionRecord | None, b: CriterionRecord | None) -> Turn | None:
    """How a requirement changed; None where only its share of the error rate or its words did."""
    if a is None or b is None:
        return "dropped" if b is None else "added"
    if a.required == b.required:
        return None
    if b.required[0] <= a.required[0] and a.required[1] <= b.required[1]:
        return "loosened"
    return "tightened" if a.required[0] <= b.required[0] and b.required[1] <= a.required[1] else "changed"


MOST_DRAWN = 60
_WIDTH, _HEIGHT, _MARGIN = 116, 26, 4.0
# A mark is told apart by its shape as well as by its colour.
_SHAPES = {
    "PASS": '<circle class="is-pass" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>',
    "FAIL": '<path class="is-fail" d="M{x:.1f} {y:.1f}m-3.2 -3.2h6.4v6.4h-6.4z"/>',
    "INCONCLUSIVE": '<path class="is-inconclusive" d="M{x:.1f} {y:.1f}m0 -3.8l3.8 3.8l-3.8 3.8l-3.8 -3.8z"/>',
    "REFUSED": '<path class="is-not-run" d="M{x:.1f} {y:.1f}m0 -3.8l3.6 6.6h-7.2z"/>',
}


def sparkline(audits: Sequence[Audit]) -> Markup:
    """An SVG of the number of failed findings in each of the last audits, by date; with equivalent text.

    Empty where all of them are of one day: there is no course to draw.
    """
    drawn = audits[-MOST_DRAWN:]
    days = [known_day(audit.day) for audit in drawn]
    known = [day for day in days if day is not None]
    if len(set(known)) < 2:
        return Markup("")
    first, last = min(known), max(known)
    most = max(audit.fail for audit in drawn) or 1
    points = []
    for day, audit in zip(days, drawn, strict=True):
        across = ((day or first) - first) / (last - first)
        points.append(
            (
                _MARGIN + across * (_WIDTH - 2 * _MARGIN),
                _HEIGHT - _MARGIN - audit.fail / most * (_HEIGHT - 2 * _MARGIN),
                audit.verdict,
            )
        )
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
    marks = "".join(_SHAPES[verdict].format(x=x, y=y) for x, y, verdict in points)
    return Markup(
        '<svg class="spark" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" aria-label="{said}">'
        '<polyline points="{line}"/>{marks}</svg>'
    ).format(w=_WIDTH, h=_HEIGHT, said=course(audits), line=line, marks=Markup(marks))


def course(audits: Sequence[Audit]) -> str:
    """The same in words: how many failed at first and last, and when."""
    drawn = audits[-MOST_DRAWN:]
    first, last = drawn[0], drawn[-1]
    if len(drawn) == 1:
        return f"{first.fail:,} failed on {first.day}"
    of = "audits" if len(drawn) == len(audits) else f"last of {len(audits):,} audits"
    return f"{first.fail:,} failed on {first.day}, {last.fail:,} on {last.day}, {len(drawn)} {of}"


def change(audits: Sequence[Audit]) -> str:
    """Shorter still: how many failed at first and last."""
    first, last = audits[-MOST_DRAWN:][0], audits[-1]
    return f"{last.fail:,} failed" if first is last else f"{first.fail:,} → {last.fail:,} failed"
