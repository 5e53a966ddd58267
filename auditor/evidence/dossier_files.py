"""Files of a dossier: attestations and an external trade-off report as inputs, and the manifest with all digests.

Nobody's word replaces a measurement: only fields that wait for an attestation can have one.

The manifest lies beside the dossier, signed or not, and ties it to the evidence bundle of the same record.
"""

from __future__ import annotations

import errno
import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from auditor.core.errors import AuditorError, ConfigError, DataError, UsageError, did_you_mean
from auditor.core.files import UNREADABLE, Closed, why_unreadable
from auditor.evidence.manifest import Digest, FileEntry, canonical
from auditor.evidence.signing import open_envelope, sign, statement
from auditor.judging.policy import AttestationRule, Control, Policy
from auditor.report.record.audit_report import AuditReport, ExitCode
from auditor.report.record.controls import Beside

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_KEYS = ("policy", "control", "what", "role", "by", "on", "text", "document")
_MOST_ATTESTATION_BYTES = 4 << 20
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
    if not path.is_file() or len(content) > _MOST_ATTESTATION_BYTES:
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


_MOST_TRADEOFF_BYTES = 32 << 20
_SHOWN = "less discriminatory alternative"
_MOST_NAMED = 5


class _Model(BaseModel):
    sha256: str | None = None


class _Point(BaseModel):
    name: Annotated[str, Field(max_length=1_000)]
    verdict: Annotated[str, Field(max_length=200)]


class _Given(BaseModel):
    """What is read of ``tradeoff.json``; the rest of it is for its own page."""

    tradeoff_version: str
    made_by: Annotated[str, Field(max_length=1_000)]
    model: _Model
    data: _Model
    metric: Annotated[str, Field(max_length=200)]
    disparity: Annotated[str, Field(max_length=200)]
    tolerance: float
    points: tuple[_Point, ...]


def tradeoff_beside(path: Path, report: AuditReport) -> Beside:
    """The evidence in the ``tradeoff.json`` of ``auditor tradeoff`` about the model of a record.

    It is evidence of a search where it is of the same model, by SHA-256, and at least one other model was made; the
    file is named by its own digest. Raises UsageError where there is no such file, DataError where it is no trade-off.
    """
    content = _read_file(path)
    try:
        found = _Given.model_validate_json(content)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "the file"
        raise DataError(
            f"{path.name!r} is no trade-off ({where}: {error.errors()[0]['msg']}): give the tradeoff.json that auditor "
            "tradeoff writes."
        ) from None
    if report.model.sha256 is None or found.model.sha256 != report.model.sha256:
        return Beside(reason=f"The trade-off in {path.name!r} is of another model than this record.")
    # The first is the present model; what could not be made was not weighed.
    tried = [p for p in found.points[1:] if p.verdict != "not made"]
    if not tried:
        return Beside(reason=f"The trade-off in {path.name!r} holds no other model.")
    shown = [p.name for p in tried if p.verdict == _SHOWN]
    named = ", ".join(shown[:_MOST_NAMED]) + (f" and {len(shown) - _MOST_NAMED} more" if shown[_MOST_NAMED:] else "")
    outcome = (
        f"{len(shown)} of them shown to be less discriminatory alternatives, and not the model in use: {named}"
        if shown
        else "none of them shown to be a less discriminatory alternative, which is not to say that there is none"
    )
    rows = "" if found.data.sha256 == report.data.sha256 else " Its rows are others than those of this record."
    digest = hashlib.sha256(content).hexdigest()
    many = f"{len(tried)} other {'model' if len(tried) == 1 else 'models'}"
    return Beside(
        said=f"{many} tried by {found.made_by}, by {found.metric} and {found.disparity}, at a loss of at most "
        f"{found.tolerance:g}: {outcome}.{rows} SHA-256 {digest[:16]}."
    )


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_TRADEOFF_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(f"There is no trade-off at {str(path)!r}: auditor tradeoff writes tradeoff.json.") from None
    except OSError as error:
        raise UsageError(f"The trade-off {str(path)!r} cannot be read: {error.strerror}.") from None
    if len(content) > _MOST_TRADEOFF_BYTES:
        raise DataError(f"{path.name!r} is too large to be a trade-off.")
    return content


DOSSIER_FORMAT = "auditor-dossier/1"
MANIFEST_SUFFIX, SIGNATURE_SUFFIX = ".manifest.json", ".manifest.dsse.json"
_MOST_DOSSIER_BYTES = 64 << 20
_RESULT = {ExitCode.PASSED: "PASSED", ExitCode.INCONCLUSIVE: "WARNED"}
# A file beside the manifest, and nothing elsewhere.
Name = Annotated[str, Field(pattern=r"^[^/\\\x00]{1,255}$")]


class DossierManifest(Closed):
    """The files of a dossier, and its inputs.

    ``record``: SHA-256 of ``report.json``. ``packs``: SHA-256 of the text of each. ``attestations``: of the file of
    statements, by its name; ``documents``: of those that statements point to; ``tradeoff``: of the trade-off given.
    ``auditor``: the version that made it, ``as_of`` the day it holds controls against, ``report_href`` where its links
    lead: with these it can be made again.
    """

    format: str = DOSSIER_FORMAT
    record: Digest
    packs: dict[str, Digest]
    files: dict[Name, FileEntry]
    attestations: dict[Name, Digest] = Field(default_factory=dict)
    documents: dict[str, Digest] = Field(default_factory=dict)
    tradeoff: Digest | None = None
    auditor: str = ""
    as_of: str = ""
    report_href: str | None = None

    def to_bytes(self) -> bytes:
        """As canonical JSON."""
        return canonical(self.model_dump(mode="json"))


def places_beside(out: Path) -> tuple[Path, Path]:
    """Paths of a dossier's manifest and of its signature."""
    return out.with_name(out.stem + MANIFEST_SUFFIX), out.with_name(out.stem + SIGNATURE_SUFFIX)


def signature_of(name: str, manifest: DossierManifest, report: AuditReport, key: Ed25519PrivateKey) -> bytes:
    """The manifest's signature; ``name``: of its file."""
    return sign(statement_of_dossier(name, manifest, report), key)


def statement_of_dossier(name: str, manifest: DossierManifest, report: AuditReport) -> bytes:
    """The signed statement on a dossier; ``name``: the file name of its manifest."""
    return statement(
        {name: hashlib.sha256(manifest.to_bytes()).hexdigest()},
        {
            "result": _RESULT.get(ExitCode(report.exit_code), "FAILED"),
            "configuration": [{"name": "record", "digest": {"sha256": manifest.record}}],
        },
    )


def signer_of(path: Path) -> str | None:
    """The fingerprint of the key that signed a manifest, trusted or not; None if unsigned."""
    try:
        return open_envelope(content_of(signature_at(path)), ()).fingerprint
    except (OSError, AuditorError):
        return None


def read_manifest(path: Path) -> DossierManifest:
    """The manifest in a file. Raises UsageError where there is no such file, DataError where it is none."""
    try:
        content = content_of(path)
    except OSError as error:
        raise UsageError(
            f"The dossier's manifest {str(path)!r} cannot be read ({error.strerror}): name the *{MANIFEST_SUFFIX} that "
            "auditor policy dossier wrote."
        ) from None
    try:
        found = DossierManifest.model_validate_json(content)
    except ValidationError as error:
        raise DataError(
            f"{path.name!r} is no manifest of a dossier ({error.errors()[0]['msg']}): name the *{MANIFEST_SUFFIX} that "
            "auditor policy dossier wrote beside it."
        ) from None
    if found.format != DOSSIER_FORMAT or found.to_bytes() != content:
        raise DataError(f"{path.name!r} is not written as auditor policy dossier writes it.")
    return found


def content_of(path: Path) -> bytes:
    """The bytes of a file. Raises OSError where there is none; of a pipe nothing is waited for."""
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, "it is no file")
    with path.open("rb") as file:
        return file.read(_MOST_DOSSIER_BYTES)


def signature_at(path: Path) -> Path:
    """Path of this manifest's signature."""
    return path.with_name(path.name.removesuffix(MANIFEST_SUFFIX) + SIGNATURE_SUFFIX)
