"""Rule packs: controls with the measurements they require, and attestations if no measurement is possible.

A pack is material to work from, not legal advice. It sets no pass mark unless the text it is about sets one.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from auditor.core.errors import ConfigError, did_you_mean
from auditor.core.files import UNREADABLE, why_unreadable
from auditor.judging.criterion import (
    Criterion,
    criteria_in,
    parse_budgets,
    parse_criterion,
    profile_names,
    read_policy,
    toml_names,
)
from auditor.judging.input_files import CATEGORIES, ROLES, ObeyedFile, Role, shipped

Certainty = Literal["text", "page", "code", "memory"]
CERTAINTY = {
    "text": "read in the primary text",
    "page": "read on a secondary page",
    "code": "read in a public repository",
    "memory": "from general knowledge, not looked up",
}
# What answers a control: numbers of probes; a registration that is signed and was followed; a report of auditor
# tradeoff; the days since the audit; which attacks were tried, and which were not; joules; time and operations.
ShownBy = Literal["findings", "registration", "tradeoff", "age", "attempts", "energy", "computing", "planted"]
# What a dossier can fill in from the record itself, beside findings.
RecordPart = Literal[
    "model", "data", "environment", "criteria", "promise", "registration", "decisions", "selection rates",
    "scoring rates",
]  # fmt: skip
_PACK = (
    "name", "title", "source", "checked_on", "certainty", "applies_from", "applies_until", "notes", "controls",
    "criteria", "budgets", "set_by", "set_at", "version", "require_controls",
)  # fmt: skip
_CONTROL = (
    "id", "title", "source", "certainty", "applies_from", "applies_until", "evidence", "attestation", "record",
    "checked_on", "only_with",
)  # fmt: skip
_EVIDENCE = (
    "what", "probe", "metric", "method", "features", "how", "shown_by", "role", "levels", "days", "source", "certainty",
)  # fmt: skip
_ATTESTATION = ("what", "role", "source", "certainty")
_PROFILE = ("criteria", "budgets", "set_by", "set_at")


@dataclass(frozen=True, kw_only=True)
class EvidenceRule:
    """The evidence that satisfies a control without an attestation: mostly measurements.

    ``probe``, ``metric``, ``method``: patterns, in which ``*`` stands for anything and ``|`` between two for either;
    the probe ``*`` is any but the intake, which looks at the file alone. ``features``: the number of sensitive features
    that one finding compares the intersection of, at least. ``roles``: those of the columns that it compares, and of no
    others; ``levels``: the closed list that the values of such a column are to be of, out of
    :data:`auditor.judging.input_files.CATEGORIES`. ``days``: how old an audit may be. ``what``: what they show, in
    words. ``how``: how to measure it, for a report that did not. ``source``, ``certainty``: of this line alone, else
    the control's.
    """

    what: str
    how: str
    probe: str = ""
    metric: str = "*"
    method: str = "*"
    features: int = 0
    shown_by: ShownBy = "findings"
    roles: tuple[Role, ...] = ()
    levels: str = ""
    days: int = 0
    source: str = ""
    certainty: Certainty | None = None

    @property
    def probes(self) -> tuple[str, ...]:
        """The patterns of probes."""
        return tuple(self.probe.split("|")) if self.probe else ()

    def fits(self, probe: str, metric: str | None, method: str | None, n_features: int = 0) -> bool:
        """Whether a finding is of this kind.

        One without a number is, where its probe is the one asked for; of a certain number by whichever probe
        (``probe = "*"``) it says nothing.
        """
        if not _matches(probe, self.probe) or (self.probe == "*" and probe == "intake"):
            return False
        if metric is None:
            return self.probe != "*" or self.metric == "*"
        return _matches(metric, self.metric) and _matches(method or "", self.method) and n_features >= self.features


@dataclass(frozen=True, kw_only=True)
class AttestationRule:
    """The attestation that a control requires, and who must give it; ``source``, ``certainty``: of this line alone,
    else the control's."""

    what: str
    role: str
    source: str = ""
    certainty: Certainty | None = None


@dataclass(frozen=True, kw_only=True)
class Control:
    """One requirement of a pack; ``record``: the part of the record that satisfies part of it.

    ``checked_on``: when it was looked up. ``only_with``: patterns of probes; it is for the kinds of model that they are
    for.
    """

    id: str
    title: str
    source: str
    certainty: Certainty
    checked_on: date
    applies_from: date | None = None
    applies_until: date | None = None
    evidence: tuple[EvidenceRule, ...] = ()
    attestation: tuple[AttestationRule, ...] = ()
    record: tuple[RecordPart, ...] = ()
    only_with: str = ""

    def is_about(self, probe: str) -> bool:
        """Whether a probe says by its own kinds of model whether the control is for a model."""
        return bool(self.only_with) and _matches(probe, self.only_with)

    def applies(self, day: date) -> bool:
        """Whether the control is in force on a day."""
        return (self.applies_from is None or self.applies_from <= day) and (
            self.applies_until is None or day <= self.applies_until
        )


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A rule pack: its controls, the criteria that its text sets (mostly none), and where and when it was looked up.

    ``source``: the text. ``checked_on``: the day on which it was looked up, ``certainty`` how. ``version``: the pack's
    own. ``sha256``: hex SHA-256 of its text in UTF-8. ``require_controls``: whether no scan that is held to it leaves
    out planted controls.
    """

    name: str
    title: str
    source: str
    checked_on: date
    certainty: Certainty
    applies_from: date | None = None
    applies_until: date | None = None
    notes: tuple[str, ...] = ()
    controls: tuple[Control, ...] = ()
    criteria: tuple[Criterion, ...] = ()
    version: str = ""
    sha256: str = ""
    require_controls: bool = False


@lru_cache(maxsize=1 << 14)
def _matches(name: str, pattern: str) -> bool:
    """Whether a name is of the pattern, in which ``*`` stands for anything and ``|`` between two for either."""
    return _expression(pattern).fullmatch(name) is not None


@cache
def _expression(pattern: str) -> re.Pattern[str]:
    return re.compile("|".join(".*".join(map(re.escape, one.split("*"))) for one in pattern.split("|")))


def pack_names() -> list[str]:
    """Names of the built-in packs."""
    return toml_names("policies")


@dataclass(frozen=True)
class Required:
    """The requirements of ``--policy``: rule packs, all their criteria, and their files."""

    packs: tuple[Policy, ...]
    criteria: tuple[Criterion, ...]
    files: tuple[ObeyedFile, ...]


def load_policies(names: Sequence[str]) -> tuple[list[Policy], list[Criterion]]:
    """The packs and the criteria of :func:`required_by`, which documents the exceptions."""
    found = required_by(names)
    return list(found.packs), list(found.criteria)


def required_by(names: Sequence[str]) -> Required:
    """The requirements in the names and files of ``--policy``.

    A name is a built-in pack, a built-in profile or a TOML file; a file with ``[[controls]]`` is a pack. Raises
    ConfigError naming file and line.
    """
    packs: list[Policy] = []
    criteria: list[Criterion] = []
    read: list[ObeyedFile] = []
    for name in dict.fromkeys(names):
        file = _file_of(name)
        read.append(file)
        if file.role == "criteria":
            criteria += criteria_in(file)
            continue
        where = f"{name}.toml" if file.origin == "shipped" else Path(name).name
        pack = parse_policy(file.text, where)
        if pack.name in {other.name for other in packs}:
            raise ConfigError(f"{where}: there are two packs of the name {pack.name!r}: give yours another name.")
        if file.origin != "shipped" and is_of_another(pack):
            raise ConfigError(
                f"{where}: its name {pack.name!r} is that of a pack of auditor's own, and its text is another: give it "
                "another name, so that nobody takes one for the other."
            )
        # A day of slack, for days begin elsewhere earlier.
        if file.origin != "shipped" and pack.checked_on > datetime.now(UTC).date() + timedelta(days=1):
            raise ConfigError(f"{where}: checked_on is {pack.checked_on}: nobody has looked it up on a day to come.")
        packs.append(pack)
        criteria += pack.criteria
    return Required(tuple(packs), tuple(criteria), tuple(read))


def is_of_another(pack: Policy) -> bool:
    """Whether a pack has the name of a shipped pack but a different text."""
    own = shipped("policies", pack.name.strip().casefold(), "rule pack")
    return own is not None and pack.sha256 != hashlib.sha256(own.text.encode()).hexdigest()


def _file_of(name: str) -> ObeyedFile:
    """The file of a pack or of criteria, which is one or the other by what it holds."""
    found = shipped("policies", name, "rule pack") or shipped("profiles", name, "criteria")
    if found is not None:
        return found
    try:
        file = read_policy(name)
    except ConfigError as error:
        if "There is no policy" not in str(error):
            raise
        known = pack_names()
        near = did_you_mean(name, [*known, *profile_names()])
        raise ConfigError(f"{error} Rule packs: {', '.join(known)}{near or '.'}") from None
    where = Path(name).name
    try:
        keys = tomllib.loads(file.text).keys()
    except UNREADABLE as error:
        raise ConfigError(f"{where}: {why_unreadable(error)}.") from None
    for key in keys - {"controls", *_PROFILE}:
        near = did_you_mean(key, (*_PACK, *_PROFILE)) if "controls" not in keys else ""
        if near:
            raise ConfigError(f"{where}: unknown key {key!r}{near}")
    return replace(file, role="rule pack") if "controls" in keys else file


# One verification reads each pack several times.
@lru_cache(maxsize=64)
def parse_policy(text: str, where: str) -> Policy:
    """A pack from its TOML. Raises ConfigError naming ``where`` and the line."""
    try:
        content = tomllib.loads(text)
    except UNREADABLE as error:
        raise ConfigError(f"{where}: {why_unreadable(error)}.") from None
    reader = _Reader(text, where)
    reader.check_keys(content, _PACK, 1)
    controls = content.get("controls", [])
    if not isinstance(controls, list) or not controls:
        raise ConfigError(f"{where}: a rule pack has [[controls]] tables.")
    certainty = reader.certainty(content, 1, None)
    first, last = reader.days(content, 1, {})
    checked = reader.day(content, "checked_on", 1, required=True) or date.min
    criteria = tuple(reader.criteria(content))
    if criteria and certainty == "memory":
        raise reader.error(
            reader.line_of("certainty"),
            "what is known from memory decides nothing: look it up and say so in certainty, or leave out criteria.",
        )
    found = [reader.control(entry, i, content, certainty) for i, entry in enumerate(controls)]
    ids = [control.id for control in found]
    for i, name in enumerate(ids):
        if name in ids[:i]:
            raise reader.error(reader.start_of(i), f"the control {name!r} is there twice.")
    return Policy(
        name=reader.text(content, "name", 1) if "name" in content else where.removesuffix(".toml"),
        title=reader.text(content, "title", 1),
        source=reader.text(content, "source", 1),
        checked_on=checked,
        certainty=certainty,
        applies_from=first,
        applies_until=last,
        notes=reader.notes(content),
        controls=tuple(found),
        criteria=criteria,
        version=reader.text(content, "version", 1) if "version" in content else "",
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        require_controls=reader.truth(content, "require_controls"),
    )


class _Reader:
    """Reads tables of one file, and knows on which line of it a control stands."""

    def __init__(self, text: str, where: str) -> None:
        self.where = where
        self._lines = text.splitlines()
        self._tables_at = [i for i, line in enumerate(self._lines, 1) if re.match(r"\s*\[", line)]
        self._starts = self._heads("controls")

    def _heads(self, table: str) -> list[int]:
        pattern = re.compile(rf"\s*\[\[\s*{table}\s*\]\]")
        return [i for i, line in enumerate(self._lines, 1) if pattern.match(line)]

    def start_of(self, i: int) -> int:
        """The line on which the control of this index begins."""
        return self._starts[i] if i < len(self._starts) else 1

    def line_of(self, key: str, start: int = 1) -> int:
        """The first line of the table at ``start`` that sets a key; ``start`` where none does."""
        end = next((i for i in self._tables_at if i > start), len(self._lines) + 1)
        sets = re.compile(rf"(?:^|[{{,])\s*[\"']?{re.escape(key)}[\"']?\s*=")
        return next((i for i in range(start, end) if sets.search(self._lines[i - 1])), start)

    def error(self, line: int, message: str) -> ConfigError:
        return ConfigError(f"{self.where}, line {line}: {message}")

    def truth(self, content: dict[str, Any], key: str) -> bool:
        """A key that is true or false; false where it is not there."""
        value = content.get(key, False)
        if not isinstance(value, bool):
            raise self.error(self.line_of(key), f"{key} is true or false.")
        return value

    def check_keys(self, table: Mapping[str, Any], keys: Sequence[str], start: int) -> None:
        for key in table:
            if key not in keys:
                raise self.error(self.line_of(key, start), f"unknown key {key!r}{did_you_mean(key, keys) or '.'}")

    def text(self, table: Mapping[str, Any], key: str, start: int, default: str | None = None) -> str:
        value = table.get(key, default)
        if not isinstance(value, str) or not value.strip():
            raise self.error(self.line_of(key, start), f"{key} must be a text, not {value!r}.")
        return value

    def day(self, table: Mapping[str, Any], key: str, start: int, *, required: bool = False) -> date | None:
        value = table.get(key)
        if value is None and not required:
            return None
        if type(value) is not date:
            shown = "absent" if value is None else f"not {str(value)!r}"
            raise self.error(self.line_of(key, start), f"{key} must be a date, such as {key} = 2026-11-24, {shown}.")
        return value

    def days(self, table: Mapping[str, Any], start: int, pack: Mapping[str, Any]) -> tuple[date | None, date | None]:
        """From when and until when; a pack's own dates hold for a control that has none."""
        first = self.day(table, "applies_from", start) or self.day(pack, "applies_from", 1)
        last = self.day(table, "applies_until", start) or self.day(pack, "applies_until", 1)
        if first is not None and last is not None and last < first:
            line = self.line_of("applies_until", start)
            raise self.error(line, f"it would apply until {last}, before it applies from {first}.")
        return first, last

    def notes(self, content: Mapping[str, Any]) -> tuple[str, ...]:
        found = content.get("notes", [])
        if not isinstance(found, list) or not all(isinstance(note, str) for note in found):
            raise self.error(self.line_of("notes"), "notes must be a list of texts.")
        return tuple(found)

    def criteria(self, content: Mapping[str, Any]) -> list[Criterion]:
        defaults = {k: str(content[k]) for k in ("set_by", "set_at") if k in content} | {"source": self.where}
        entries, lines = content.get("criteria", []), self._heads("criteria")
        if not isinstance(entries, list):
            raise self.error(self.line_of("criteria"), "criteria must be [[criteria]] tables.")
        budgets = parse_budgets(content.get("budgets", {}), self.where)
        return [
            parse_criterion(entry, f"{self.where}, line {lines[i] if i < len(lines) else 1}", defaults, budgets=budgets)
            for i, entry in enumerate(entries)
        ]

    def certainty(self, table: Mapping[str, Any], start: int, default: Certainty | None) -> Certainty:
        value = table.get("certainty", default)
        for known in get_args(Certainty):
            if value == known:
                return known  # type: ignore[no-any-return]
        line = self.line_of("certainty", start)
        raise self.error(line, f"certainty must be one of {', '.join(get_args(Certainty))}, not {value!r}.")

    def control(self, entry: object, i: int, pack: Mapping[str, Any], certainty: Certainty) -> Control:
        start = self.start_of(i)
        if not isinstance(entry, Mapping):
            raise self.error(start, "a control is a [[controls]] table.")
        self.check_keys(entry, _CONTROL, start)
        first, last = self.days(entry, start, pack)
        source = self.text(entry, "source", start, str(pack.get("source", "")))
        sure = self.certainty(entry, start, certainty)
        looked_up = self.day(entry, "checked_on", start) or self.day(pack, "checked_on", 1, required=True)
        made = Control(
            id=self.text(entry, "id", start),
            title=self.text(entry, "title", start),
            source=source,
            certainty=sure,
            checked_on=looked_up or date.min,
            applies_from=first,
            applies_until=last,
            evidence=tuple(self._evidence(e, start, source, sure) for e in self._tables(entry, "evidence", start)),
            attestation=tuple(
                self._attestation(a, start, source, sure) for a in self._tables(entry, "attestation", start)
            ),
            record=self._record(entry, start),
            only_with=self.text(entry, "only_with", start) if "only_with" in entry else "",
        )
        if not made.evidence and not made.attestation:
            raise self.error(start, f"the control {made.id!r} asks for nothing: give it evidence or attestation.")
        return made

    def _record(self, entry: Mapping[str, Any], start: int) -> tuple[RecordPart, ...]:
        found, known = entry.get("record", []), get_args(RecordPart)
        for part in found if isinstance(found, list) else [found]:
            if part not in known:
                near = did_you_mean(str(part), known) or "."
                raise self.error(
                    self.line_of("record", start),
                    f"record is a list out of {', '.join(known)}, and {part!r} is none of them{near}",
                )
        if not isinstance(found, list):
            raise self.error(self.line_of("record", start), f"record must be a list, such as record = [{found!r}].")
        return tuple(found)

    def _tables(self, entry: Mapping[str, Any], key: str, start: int) -> list[Mapping[str, Any]]:
        found = entry.get(key, [])
        if not isinstance(found, list) or not all(isinstance(item, Mapping) for item in found):
            raise self.error(self.line_of(key, start), f"{key} must be a list of tables.")
        return found

    def _evidence(self, table: Mapping[str, Any], start: int, source: str, certainty: Certainty) -> EvidenceRule:
        self.check_keys(table, _EVIDENCE, start)
        shown_by = self._shown_by(table, start)
        levels = table.get("levels", "")
        if levels and levels not in CATEGORIES:
            near = did_you_mean(str(levels), CATEGORIES) or "."
            raise self.error(self.line_of("levels", start), f"there is no list {levels!r} of levels{near}")
        return EvidenceRule(
            what=self.text(table, "what", start),
            probe=self.text(table, "probe", start) if shown_by in ("findings", "attempts") else "",
            metric=self.text(table, "metric", start, "*"),
            method=self.text(table, "method", start, "*"),
            features=self._count(table, "features", start),
            how=self.text(table, "how", start),
            shown_by=shown_by,
            roles=self._roles(table, start),
            levels=str(levels),
            days=self._count(table, "days", start),
            source=self.text(table, "source", start, source),
            certainty=self.certainty(table, start, certainty),
        )

    def _shown_by(self, table: Mapping[str, Any], start: int) -> ShownBy:
        value = table.get("shown_by", "findings")
        for known in get_args(ShownBy):
            if value == known:
                return known  # type: ignore[no-any-return]
        near = did_you_mean(str(value), get_args(ShownBy)) or "."
        raise self.error(
            self.line_of("shown_by", start),
            f"shown_by is one of {', '.join(get_args(ShownBy))}, and {value!r} is none of them{near}",
        )

    def _roles(self, table: Mapping[str, Any], start: int) -> tuple[Role, ...]:
        value = table.get("role", [])
        found: list[Role] = []
        for name in value if isinstance(value, list) else [value]:
            known = [role for role in ROLES if role == name]
            if not known:
                near = did_you_mean(str(name), ROLES) or "."
                raise self.error(
                    self.line_of("role", start), f"there is no role {name!r}{near} Known: {', '.join(ROLES)}."
                )
            found += known
        return tuple(found)

    def _count(self, table: Mapping[str, Any], key: str, start: int) -> int:
        value = table.get(key, 0)
        if type(value) is not int or value < 0:
            raise self.error(self.line_of(key, start), f"{key} must be a whole number, not {value!r}.")
        return value

    def _attestation(self, table: Mapping[str, Any], start: int, source: str, certainty: Certainty) -> AttestationRule:
        self.check_keys(table, _ATTESTATION, start)
        return AttestationRule(
            what=self.text(table, "what", start),
            role=self.text(table, "role", start),
            source=self.text(table, "source", start, source),
            certainty=self.certainty(table, start, certainty),
        )
