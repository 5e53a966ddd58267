"""An index with a line per entry, to find earlier looks, decisions and plans without a scan of the ledger.

A line follows from its entry alone: whoever doubts the lines makes them anew, as ``auditor history --verify`` does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

from auditor.evidence.history.entries import Entry, Identity
from auditor.evidence.manifest import canonical

if TYPE_CHECKING:
    from auditor.report.record.audit_report import DataRecord

Rows = Callable[[Any], Sequence[Any]]
_KEYS = ("data", "rows", "model_id", "model", "path", "campaign", "plan", "question")
_DIGITS = 32
_GRAVEST_FIRST = ("FAIL", "INCONCLUSIVE", "NOT_RUN", "PASS")


@dataclass(frozen=True, slots=True)
class Indexed:
    """Index fields of an entry; a key is half the hex SHA-256 of its value, "" for none.

    ``data``, ``rows``: digests of the file and of the rows that an audit was of; ``model_id``, ``model``, ``path``:
    what its model is known by, or that of the audit which a decision is about; ``plan``: the registration that was
    entered. ``question``: of all that was asked and required, and how gravely each requirement was missed: two audits
    of one question differ from a third in the same words. ``exit_code``: -1 where there is none. ``refused``: whether
    an audit measured nothing, or the entry cannot be read.
    """

    number: int
    created: str
    kind: str
    data: str = ""
    rows: str = ""
    model_id: str = ""
    model: str = ""
    path: str = ""
    campaign: str = ""
    plan: str = ""
    question: str = ""
    exit_code: int = -1
    refused: bool = False


class Looks(NamedTuple):
    """Numbers of audits with measurements, with the same question and exit code, that agree in the same rows, the same
    model or both."""

    numbers: tuple[int, ...]
    exit_code: int
    question: str
    rows: bool
    model: bool


def indexed(entry: Entry, about: Callable[[int], Indexed | None]) -> Indexed:
    """The line of an entry; ``about``: the line of an earlier one. What cannot be read is known by nothing."""
    own: dict[str, Any] = {"number": entry.number, "created": entry.created[:40], "kind": entry.kind[:20]}
    try:
        said = json.loads(entry.payload)
        if entry.kind == "audit":
            return Indexed(**own, **_of_audit(said["record"]))
        if entry.kind == "registration":
            return Indexed(**own, plan=found_by(said["sha256"]))
        if entry.kind == "decision":
            then = about(int(said["audit"]))
            if then is not None and then.kind == "audit":
                return Indexed(**own, model_id=then.model_id, model=then.model, path=then.path)
            return Indexed(**own, model=found_by(said["model_sha256"]), path=found_by(said["model_path"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return Indexed(**own, refused=True)


def found_by(text: str | None) -> str:
    """The index key of a text; "" for none."""
    return _digest(text.encode("utf-8", "surrogatepass")) if text else ""


def _digest(content: bytes) -> str:
    # Nobody finds another text for 128 bits, and a look at many lines reads half as much.
    return hashlib.sha256(content).hexdigest()[:_DIGITS]


def _of_audit(record: Mapping[str, Any]) -> dict[str, Any]:
    data, model = record["data"], record["model"]
    about = ((record.get("about") or {}).get("model") or {}).get("id")
    looks = record.get("looks") or {}
    return {
        "data": found_by(data.get("sha256")),
        "rows": found_by(data.get("rows_sha256")),
        "model_id": found_by(about),
        "model": found_by(model.get("sha256")),
        "path": found_by(model.get("path")),
        "campaign": found_by((looks.get("campaign") or {}).get("name")),
        "question": _question(record),
        "exit_code": int(record["exit_code"]),
        "refused": record["refusal"] is not None,
    }


def _question(record: Mapping[str, Any]) -> str:
    looks, findings = record.get("looks"), record["findings"]
    outcomes: dict[bytes, set[str]] = {}
    for finding in findings:
        if finding["criterion"] is not None:
            outcomes.setdefault(canonical(finding["criterion"]), set()).add(finding["outcome"])
    missed = [
        next((i for i, outcome in enumerate(_GRAVEST_FIRST) if outcome in outcomes.get(canonical(c), ())), -1)
        for c in record["criteria"]
    ]
    campaign = None if looks is None else looks.get("campaign")
    asked: Any = (
        [looks["probes"], looks["asked"]]
        if looks is not None
        else list(dict.fromkeys(f["probe"] for f in findings if f["metric"] is not None or f["criterion"] is None))
    )
    family = record["family"]
    packs = [policy["name"] for policy in record.get("policies", ())]
    seed = record["environment"]["seed"]
    # Of a campaign the whole of what it promises: levels differ from look to look.
    rate = family["error_rate"] if campaign is None else campaign["error_rate"]
    whole = [record["criteria"], missed, looks is None, asked, rate, family["multiplicity"], seed, packs]
    return _digest(canonical(whole))


def table_of(sql: Any, metadata: Any) -> Any:
    """The database table of the index lines."""
    text = [sql.Column(name, sql.String(_DIGITS), nullable=False, index=True) for name in _KEYS]
    return sql.Table(
        "auditor_index",
        metadata,
        sql.Column("number", sql.Integer, primary_key=True, autoincrement=False),
        sql.Column("created", sql.String(40), nullable=False),
        sql.Column("kind", sql.String(20), nullable=False),
        *text,
        sql.Column("exit_code", sql.Integer, nullable=False),
        sql.Column("refused", sql.Boolean, nullable=False),
    )


def values_of(line: Indexed) -> dict[str, Any]:
    """A line as a row of the table."""
    return {each.name: getattr(line, each.name) for each in fields(Indexed)}


def indexed_in(row: Any) -> Indexed:
    """The index line in a row of the table."""
    return Indexed(**{each.name: row._mapping[each.name] for each in fields(Indexed)})


@dataclass(frozen=True)
class Index:
    """The index lines of a ledger, searchable by value; ``rows`` runs a query on ``table``."""

    sql: Any
    table: Any
    rows: Rows

    @classmethod
    def from_entries(cls, entries: Iterable[Entry]) -> Index:
        """The index computed from entries, in memory, independent of any database."""
        import sqlalchemy as sql
        from sqlalchemy.pool import StaticPool

        engine = sql.create_engine("sqlite://", poolclass=StaticPool)
        metadata = sql.MetaData()
        table = table_of(sql, metadata)
        metadata.create_all(engine)
        made: dict[int, Indexed] = {}
        for entry in entries:
            made.setdefault(entry.number, indexed(entry, made.get))

        def rows(query: Any) -> Sequence[Any]:
            with engine.begin() as connection:
                return list(connection.execute(query).all())

        if made:
            with engine.begin() as connection:
                connection.execute(sql.insert(table), [values_of(line) for line in made.values()])
        return cls(sql, table, rows)

    def all(self) -> list[Indexed]:
        """All index lines, in order."""
        return [indexed_in(row) for row in self.rows(self.sql.select(self.table).order_by(self.table.c.number))]

    def looks(self, data: DataRecord, identity: Identity, before: int) -> list[Looks]:
        """Audits of the same rows or the same model with measurements, among entries before one, in order.

        Where the model has an id that is what it is known by, whatever its bytes, and what was audited without any id
        is the same model where it was the first to give an id to those bytes: nobody loses a history by giving the
        model a name. Without an id the bytes decide, under whichever ids they were audited. What is known by neither is
        no other audit's model.
        """
        column = self.table.c
        among = (column.kind == "audit", column.refused.is_(False), column.number < before)
        digests = ((column.data, data.sha256), (column.rows, data.rows_sha256))
        rows = [own == found_by(digest) for own, digest in digests if digest is not None]
        models = self._of_model(identity, among)
        if not rows and not models:
            return []
        marks = [self._is(rows).label("same_rows"), self._is(models).label("same_model")]
        query = self.sql.select(column.exit_code, column.question, *marks, column.number)
        one = query.where(*among, self.sql.or_(*rows, *models)).subquery()
        alike = (one.c.exit_code, one.c.question, one.c.same_rows, one.c.same_model)
        joined = self.sql.func.aggregate_strings(self.sql.cast(one.c.number, self.sql.String), ",")
        whole = self.sql.select(*alike, self.sql.func.sum(one.c.number), joined).group_by(*alike)
        found: dict[tuple[Any, ...], list[int]] = {}
        for *of, total, numbers in self.rows(whole):
            found[tuple(of)] = [int(number) for number in numbers.split(",") if number]
            if sum(found[tuple(of)]) != total:
                # A database may shorten what it joins, in the middle of a number too.
                found = {}
                break
        if not found:
            for *of, number in self.rows(self.sql.select(*alike, one.c.number)):
                found.setdefault(tuple(of), []).append(int(number))
        return sorted(
            Looks(tuple(sorted(own)), code, question, bool(rows_), bool(model))
            for (code, question, rows_, model), own in found.items()
        )

    def created(self, numbers: Sequence[int]) -> dict[int, str]:
        """The entry times of some entries."""
        column = self.table.c
        query = self.sql.select(column.number, column.created).where(column.number.in_(numbers))
        return {int(number): str(created) for number, created in self.rows(query)}

    def latest(self, before: int) -> str | None:
        """The latest stated time of entry before a given entry; None if there is none."""
        column = self.table.c
        found = self.rows(self.sql.select(self.sql.func.max(column.created)).where(column.number < before))
        return None if found[0][0] is None else str(found[0][0])

    def decisions_on(self, identity: Identity) -> list[int]:
        """Numbers of the decisions on audits of a model, by its path if it has neither id nor digest."""
        column = self.table.c
        if not identity.id and identity.sha256 is None:
            models = [column.path == found_by(identity.path)] if identity.path else []
        else:
            models = self._of_model(identity, (column.kind == "audit",))
        if not models:
            return []
        query = self.sql.select(column.number).where(column.kind == "decision", self.sql.or_(*models))
        return [int(row[0]) for row in self.rows(query.order_by(column.number))]

    def _is(self, any_of: Sequence[Any]) -> Any:
        return self.sql.case((self.sql.or_(*any_of), 1), else_=0) if any_of else self.sql.literal(0)

    def _of_model(self, identity: Identity, audits: Sequence[Any]) -> list[Any]:
        """What a line meets that is of a model; ``audits``: what those meet that say which bytes were whose first."""
        column = self.table.c
        if not identity.id:
            return [] if identity.sha256 is None else [column.model == found_by(identity.sha256)]
        given, own = found_by(identity.id), found_by(identity.sha256)
        bytes_of = self.sql.select(column.model).where(*audits, column.model_id == given)
        nameless = (column.model_id == "", column.model != "")
        reached = self.sql.or_(column.model.in_(bytes_of), column.model == own)
        found = [str(row[0]) for row in self.rows(self.sql.select(column.model).where(*nameless, reached).distinct())]
        owners = {sha: self._owner(sha, audits) or (given if sha == own else "") for sha in found}
        theirs = [sha for sha, owner in owners.items() if owner == given]
        return [column.model_id == given, *(self.sql.and_(*nameless, column.model == sha) for sha in theirs)]

    def _owner(self, model: str, audits: Sequence[Any]) -> str:
        """The id that was first given to some bytes."""
        column = self.table.c
        named = self.sql.select(column.model_id).where(*audits, column.model == model, column.model_id != "")
        first = self.rows(named.order_by(column.number).limit(1))
        return str(first[0][0]) if first else ""

    def of_campaign(self, name: str, before: int) -> list[int]:
        """Numbers of the audits that spent a look of a campaign."""
        column = self.table.c
        query = self.sql.select(column.number).where(
            column.kind == "audit",
            column.refused.is_(False),
            column.number < before,
            column.campaign == found_by(name),
        )
        return [int(row[0]) for row in self.rows(query.order_by(column.number))]

    def plan(self, sha256: str, before: int) -> Indexed | None:
        """The first entry of a registration."""
        column = self.table.c
        where = (column.kind == "registration", column.plan == found_by(sha256), column.number < before)
        query = self.sql.select(self.table).where(*where).order_by(column.number).limit(1)
        return next((indexed_in(row) for row in self.rows(query)), None)
