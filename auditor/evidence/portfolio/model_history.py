"""The models of a ledger, each with its audits over all versions, data sets and decisions."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath

from auditor.evidence.history.identity import Identity, owners_of
from auditor.evidence.portfolio.audit_lines import Audit, Decided, Read
from auditor.report.record.report_metadata import ModelIdentity

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
