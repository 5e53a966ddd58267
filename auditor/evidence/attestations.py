"""Attestations read from a file, for requirements without a measurement, limited to fields left open by packs.

Nobody's word replaces a measurement: only fields that wait for an attestation can have one.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from auditor.core.errors import ConfigError, did_you_mean
from auditor.core.files import UNREADABLE, why_unreadable
from auditor.judging.policy import AttestationRule, Control, Policy

_KEYS = ("policy", "control", "what", "role", "by", "on", "text", "document")
_MOST_BYTES = 4 << 20
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Attestation:
    """A person's statement on one field: ``cell`` is its index among the cells of the control.

    ``document``: a file that they point to, by its name, and its SHA-256.
    """

    policy: str
    control: str
    cell: int
    what: str
    role: str
    by: str
    on: date
    text: str
    document: str | None = None
    document_sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class Attestations:
    """The statements of one file, its SHA-256, and the fingerprint of the key that vouches for it; None for none."""

    entries: tuple[Attestation, ...]
    sha256: str
    signed_with: str | None = None

    @property
    def signed(self) -> str:
        """Whether the attestations are signed, and by which key; its owner is for the reader to determine."""
        return "unsigned" if self.signed_with is None else f"signed with the key {self.signed_with[:16]}"


def read_attestations(
    path: Path, policies: Sequence[Policy], today: date, *, signed_with: str | None = None
) -> Attestations:
    """Statements in a file of ``[[attestation]]`` tables, each checked against a field of these packs.

    Raises ConfigError, in a sentence, for a key, pack, control or role there is none of (with the nearest), for a
    field that is measured, a day to come, an empty statement, a document that is not there, and for a second word in
    one field.
    """
    try:
        content = path.read_bytes() if path.is_file() else b""
    except OSError as error:
        raise ConfigError(f"The attestations {path.name!r} cannot be read: {error.strerror}.") from None
    if not path.is_file() or len(content) > _MOST_BYTES:
        why = "is larger than statements are" if content else "is no file"
        raise ConfigError(f"--attestations {str(path)!r} {why}: name a TOML file of [[attestation]] tables.")
    try:
        tables = tomllib.loads(content.decode())
    except UNREADABLE as error:
        raise ConfigError(f"{path.name}: {why_unreadable(error)}.") from None
    for key in tables:
        if key != "attestation":
            raise ConfigError(
                f"{path.name}: unknown key {key!r}{did_you_mean(key, ['attestation']) or '.'} It holds [[attestation]] "
                "tables."
            )
    entries = tables.get("attestation")
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{path.name}: it holds no [[attestation]] table, so nothing is attested.")
    found: list[Attestation] = []
    for i, entry in enumerate(entries, 1):
        where = f"{path.name}, attestation {i}"
        if not isinstance(entry, Mapping):
            raise ConfigError(f"{where}: it must be an [[attestation]] table.")
        made = _Entry(entry, where, path.parent, today).attestation(policies)
        same = next((n for n, a in enumerate(found, 1) if _field(a) == _field(made)), None)
        if same is not None:
            raise ConfigError(
                f"{where}: attestation {same} speaks of the same field of {made.policy}, {made.control}: leave one."
            )
        found.append(made)
    return Attestations(entries=tuple(found), sha256=hashlib.sha256(content).hexdigest(), signed_with=signed_with)


def _field(attestation: Attestation) -> tuple[str, str, int]:
    return attestation.policy, attestation.control, attestation.cell


@dataclass(frozen=True)
class _Entry:
    """One table of the file."""

    table: Mapping[str, Any]
    where: str
    folder: Path
    today: date

    def attestation(self, policies: Sequence[Policy]) -> Attestation:
        for key in self.table:
            if key not in _KEYS:
                raise self.error(f"unknown key {key!r}{did_you_mean(key, _KEYS) or '.'}")
        policy = self._policy(policies)
        control = self._control(policy)
        rule = self._rule(policy, control)
        by, said = self.text("by"), self.text("text")
        document, digest = self._document()
        return Attestation(
            policy=policy.name,
            control=control.id,
            cell=len(control.evidence) + control.attestation.index(rule),
            what=rule.what,
            role=rule.role,
            by=by,
            on=self._day(),
            text=said,
            document=document,
            document_sha256=digest,
        )

    def error(self, message: str) -> ConfigError:
        return ConfigError(f"{self.where}: {message}")

    def text(self, key: str) -> str:
        value = self.table.get(key)
        if not isinstance(value, str) or not value.strip():
            shown = "it is absent" if value is None else f"it is {value!r}"
            raise self.error(f"{key} must be a text, and {shown}.")
        return value.strip()

    def _policy(self, policies: Sequence[Policy]) -> Policy:
        name = self.text("policy")
        known = [policy.name for policy in policies]
        if name not in known:
            near = did_you_mean(name, known) or "."
            raise self.error(f"{name!r} is none of the packs of this dossier{near} They are {', '.join(known)}.")
        return policies[known.index(name)]

    def _control(self, policy: Policy) -> Control:
        name = self.text("control")
        known = [control.id for control in policy.controls]
        if name not in known:
            raise self.error(f"{policy.name} has no control {name!r}{did_you_mean(name, known) or '.'}")
        return policy.controls[known.index(name)]

    def _rule(self, policy: Policy, control: Control) -> AttestationRule:
        """The field meant, by its role, by what it asks for, or by both."""
        place = f"{policy.name}, {control.id!r}"
        what, role = (self.text(key) if key in self.table else None for key in ("what", "role"))
        if what is None and role is None:
            raise self.error("say with role, or with what, which field is meant.")
        rules = control.attestation
        attested = [rule.what for rule in rules]
        measured = [rule.what for rule in control.evidence if rule.what not in attested]
        if what is not None and what in measured:
            raise self.error(f"{place}: {what!r} is measured, and nobody's word replaces a measurement.")
        if not rules:
            raise self.error(f"{place} asks for nobody's word: its cells are measured.")
        of_role = self._rules_of_role(role, rules, place)
        if what is None:
            return self._only_rule(of_role, f"{place} asks a {role}")
        rule = next((rule for rule in of_role if rule.what == what), None)
        if rule is None:
            near = did_you_mean(what, [*(rule.what for rule in of_role), *measured]) or "."
            raise self.error(f"{place} asks nobody for {what!r}{near}")
        return rule

    def _rules_of_role(
        self, role: str | None, rules: Sequence[AttestationRule], place: str
    ) -> Sequence[AttestationRule]:
        """The fields that a role can attest, all of them where none is named."""
        if role is None:
            return rules
        roles = list(dict.fromkeys(rule.role for rule in rules))
        if role not in roles:
            near = did_you_mean(role, roles) or "."
            raise self.error(f"{place} asks no {role!r}{near} It asks: {', '.join(roles)}.")
        return [rule for rule in rules if rule.role == role]

    def _only_rule(self, rules: Sequence[AttestationRule], asks: str) -> AttestationRule:
        """The one field of a role. Raises ConfigError where it has several."""
        if len(rules) > 1:
            fields = "; ".join(repr(rule.what) for rule in rules)
            raise self.error(f"{asks} for {len(rules)} things: say with what which is meant, {fields}.")
        return rules[0]

    def _day(self) -> date:
        on = self.table.get("on")
        if type(on) is not date:
            shown = "it is absent" if on is None else f"it is {str(on)!r}"
            raise self.error(f"on must be a date, such as on = 2026-11-20, and {shown}.")
        if on > self.today:
            raise self.error(f"nobody has said anything on {on} yet: it is later than today, {self.today}.")
        return on

    def _document(self) -> tuple[str | None, str]:
        if "document" not in self.table:
            return None, ""
        name = self.text("document")
        if "\0" in name or not (self.folder / name).is_file():
            raise self.error(f"there is no document {name!r} beside the attestations.")
        digest = hashlib.sha256()
        try:
            with (self.folder / name).open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
        except OSError as error:
            raise self.error(f"the document {name!r} cannot be read: {error.strerror}.") from None
        return name, digest.hexdigest()
