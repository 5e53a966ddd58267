"""Pre-registered audits: probes and criteria fixed before results are seen, deviations, and changes of criteria.

A registration is a JSON file with the plan, its own digest and, on request, a signature. The digest finds what was
changed by mistake; whoever changes it on purpose can compute it anew, so note it elsewhere, or sign.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, JsonValue, ValidationError

from auditor.core.errors import ConfigError, DataError, UsageError
from auditor.core.files import LEFT_OUT, UNREADABLE, Closed, why_unreadable
from auditor.evidence.manifest import Digest, canonical
from auditor.evidence.signing import open_envelope, sign, statement
from auditor.judging.criterion import CriterionRecord
from auditor.judging.input_files import FileRole
from auditor.judging.measurement import Outcome
from auditor.report.record.audit_report import Finding
from auditor.report.record.earlier_audits import RegistrationRecord
from auditor.report.record.number_text import plural
from auditor.statistics.significance_tests import Multiplicity

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Pair = tuple[CriterionRecord | None, CriterionRecord | None]


def changed_criteria(
    before: Sequence[CriterionRecord], after: Sequence[CriterionRecord]
) -> Iterator[tuple[str, CriterionRecord | None, CriterionRecord | None]]:
    """Differences: their topic in words, and the requirement before and after, None if absent."""
    then, now = _by_subject(before), _by_subject(after)
    for subject in dict.fromkeys((*then, *now)):
        for a, b in _differing(then.get(subject, []), now.get(subject, [])):
            yield subject, a, b


def _differing(a: Sequence[CriterionRecord], b: Sequence[CriterionRecord]) -> list[Pair]:
    """Criteria of one subject in pairs: equal ones first, so that an added one is not taken for a changed one."""
    rest_a, rest_b = list(a), list(b)
    for criterion in a:
        # One for one: a requirement that stands twice takes two shares of the error rate.
        if criterion in rest_b:
            rest_a.remove(criterion)
            rest_b.remove(criterion)
    n = max(len(rest_a), len(rest_b))
    return [(rest_a[i] if i < len(rest_a) else None, rest_b[i] if i < len(rest_b) else None) for i in range(n)]


def _by_subject(criteria: Sequence[CriterionRecord]) -> dict[str, list[CriterionRecord]]:
    found: dict[str, list[CriterionRecord]] = {}
    for c in criteria:
        parts = [
            f"of {c.probe}" if c.probe else "",
            f"by {c.method}" if c.method else "",
            f"between groups of {' x '.join(sorted(c.sensitive))}" if c.sensitive else "",
            f"of {', '.join(f'{k} = {v}' for k, v in sorted(c.group.items()))}" if c.group else "",
            c.place,
        ]
        found.setdefault(" ".join([c.metric, *(p for p in parts if p)]), []).append(c)
    return found


REGISTRATION_FORMAT = "auditor-registration/1"
SUBJECT = "registration"
_MOST_BYTES = 16 << 20
# A plan may be made before these are there; a run then says that they were left open.
_MAY_COME_LATER = ("model", "data")
# Among the settings of a plan, and of a request: which columns hold sex, race and the like.
ROLES = "roles"


class PlannedProbe(Closed):
    """A probe: its ``package.module:Class`` and its options, with files as ``sha256:DIGEST``."""

    target: str
    options: dict[str, JsonValue]


class PlannedFile(Closed):
    """An input file of the plan: its name without folder, and the SHA-256 of the bytes read."""

    role: FileRole
    name: str
    sha256: Digest


class Plan(Closed):
    """All settings that determine a scan's measurements and judgements.

    ``settings``: the command line's options by name. ``files``: hex SHA-256 of ``model``, ``data`` and other inputs;
    None for one that is named and was not there. ``code``: of the user's own modules that measure or predict.
    ``configuration``: the files that said all this; another of the same content is no deviation, another rule pack is.
    """

    probes: dict[str, PlannedProbe]
    settings: dict[str, JsonValue]
    files: dict[str, Digest | None]
    code: dict[str, str] = Field(default_factory=dict)
    criteria: tuple[CriterionRecord, ...]
    error_rate: float
    multiplicity: Multiplicity
    seed: int

    def describe(self) -> str:
        """The number of planned questions and the error rate, in words."""
        asked = f"{plural(len(self.probes), 'probe')}, {plural(len(self.criteria), 'criterion', 'criteria')}"
        return f"{asked}, error rate {self.error_rate:g}"

    configuration: Annotated[tuple[PlannedFile, ...], LEFT_OUT] = ()


class Registration(Closed):
    """A plan, with the time of registration (ISO 8601), the person ("" if not stated), and auditor's version."""

    format: str = REGISTRATION_FORMAT
    registered: Annotated[str, Field(max_length=64)]
    by: Annotated[str, Field(max_length=200)] = ""
    tool: str
    plan: Plan

    @property
    def digest(self) -> str:
        """Hex SHA-256 of its canonical JSON."""
        return hashlib.sha256(canonical(self.model_dump(mode="json"))).hexdigest()

    def to_file(self, key: Ed25519PrivateKey | None = None) -> bytes:
        """As JSON with its digest, and with a DSSE envelope around an in-toto statement if a key is given."""
        signature = None
        if key is not None:
            signed = statement({SUBJECT: self.digest}, {"registered": self.registered, "by": self.by})
            signature = json.loads(sign(signed, key))
        content = self.model_dump(mode="json") | {"sha256": self.digest, "signature": signature}
        return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


@dataclass(frozen=True)
class Opened:
    """A parsed registration: ``problems``: later changes to it, ``signed_with``: the key's fingerprint if a signature
    is valid, ``content``: the bytes of its file."""

    registration: Registration
    problems: tuple[str, ...]
    signed_with: str | None
    content: bytes = field(default=b"", repr=False, compare=False)


def read_registration(path: Path) -> Opened:
    """Read a registration, changed or not.

    Raises UsageError where there is none, ConfigError where it is none.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(
            f"There is no registration at {str(path)!r}: auditor evidence register audit.toml makes one."
        ) from None
    except OSError as error:
        raise UsageError(f"The registration {str(path)!r} cannot be read: {error.strerror}.") from None
    return registration_in(content, str(path))


def registration_in(content: bytes, file_name: str) -> Opened:
    """The registration in the bytes of a file that errors name so. Raises ConfigError where it is none."""
    if len(content) > _MOST_BYTES:
        raise ConfigError(f"{file_name!r} is too large to be a registration.")
    try:
        parsed = json.loads(content, parse_constant=_no_number)
    except UNREADABLE as error:
        raise ConfigError(f"{file_name!r} is no registration: {why_unreadable(error)}.") from None
    if not isinstance(parsed, dict) or not str(parsed.get("format", "")).startswith("auditor-registration/"):
        raise ConfigError(f"{file_name!r} is no registration: auditor evidence register audit.toml makes one.")
    if parsed["format"] != REGISTRATION_FORMAT:
        raise ConfigError(
            f"{file_name!r} is of the format {str(parsed['format'])[:40]!r}, and this version reads "
            f"{REGISTRATION_FORMAT!r}: upgrade responsible-auditor."
        )
    said, signature = parsed.pop("sha256", None), parsed.pop("signature", None)
    try:
        found = Registration.model_validate(parsed)
        canonical(found.model_dump(mode="json"))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{file_name!r} is no registration: {where}: {first['msg']}.") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{file_name!r} is no registration: it holds text that is none.") from None
    problems = []
    if said != found.digest:
        problems.append(
            f"The registration was changed after it was made: its digest is {found.digest[:16]}, and it says "
            f"{str(said)[:16]}."
        )
    signed_with = None
    if signature is not None:
        try:
            signed_with = _signer(signature, found)
        except DataError as error:
            problems.append(f"The registration's signature is wrong: {error}")
    return Opened(found, tuple(problems), signed_with, content)


def _no_number(name: str) -> float:
    raise ValueError(name)


def _signer(envelope: object, registration: Registration) -> str:
    """Fingerprint of the key that signed it. Raises DataError where the signature does not fit."""
    signed = open_envelope((json.dumps(envelope, indent=2) + "\n").encode())
    expected = statement({SUBJECT: registration.digest}, {"registered": registration.registered, "by": registration.by})
    if signed.statement != expected:
        raise DataError("What was signed is another registration.")
    return signed.fingerprint


# ---- held against a run ----------------------------------------------------------------------------------------------


def held_against(
    registration_file: Opened, run: Plan, *, path: str, started: datetime, tool: str
) -> RegistrationRecord:
    """The record of a run under a registration; ``started``: start of the run, ``tool``: auditor's version."""
    registration = registration_file.registration
    found = [*registration_file.problems]
    try:
        registered = datetime.fromisoformat(registration.registered)
        late = registered.tzinfo is None or started < registered
    except ValueError:
        late = True
    if late:
        found.append(
            f"It was registered on {registration.registered}, and the run began on "
            f"{started.isoformat(timespec='seconds')}: that is not before."
        )
    if registration.tool != tool:
        found.append(f"auditor {registration.tool} was registered, auditor {tool} ran.")
    return RegistrationRecord(
        path=path,
        sha256=registration.digest,
        registered=registration.registered,
        by=registration.by,
        signed_with=registration_file.signed_with,
        deviations=(*found, *deviations(registration.plan, run)),
        not_fixed=left_open(registration.plan, run),
    )


def with_what_became(
    record: RegistrationRecord, findings: Sequence[Finding], *, was_refused: bool, planned: Sequence[str]
) -> RegistrationRecord:
    """The record after the run: registered probes that could not run are deviations too."""
    stopped = [f.probe for f in findings if f.outcome is Outcome.NOT_RUN and f.metric is None and f.probe in planned]
    found = []
    if was_refused:
        found.append("Nothing was measured: the model or the data were refused.")
    elif stopped:
        found += _probes(list(dict.fromkeys(stopped)), "registered and did not run to its end")
    return record.model_copy(update={"deviations": (*record.deviations, *found)}) if found else record


def left_open(plan: Plan, run: Plan | None = None) -> tuple[str, ...]:
    """Decisions that the plan leaves open, limited to those that the run used, if given."""
    return tuple(
        f"{name}: " + ("not there" if name in plan.files else "not named") + " when it was registered"
        for name in _MAY_COME_LATER
        if plan.files.get(name) is None and (run is None or run.files.get(name) is not None)
    )


def deviations(plan: Plan, run: Plan) -> list[str]:
    """All deviations of a run's plan from the registered one, in sentences; probes added or omitted share one."""
    found = _files(plan.files, run.files)
    for module in dict.fromkeys((*plan.code, *run.code)):
        found += _difference_text(f"The code of {module}", plan.code.get(module), run.code.get(module))
    found += _probes([n for n in plan.probes if n not in run.probes], "registered and not asked")
    found += _probes([n for n in run.probes if n not in plan.probes], "asked and not registered")
    for name in plan.probes:
        if name in run.probes:
            found += _options(name, plan.probes[name], run.probes[name])
    for key in dict.fromkeys((*plan.settings, *run.settings)):
        what = "[roles] of audit.toml" if key == ROLES else f"--{key.replace('_', '-')}"
        found += _difference_text(what, plan.settings.get(key), run.settings.get(key))
    found += _criteria(plan.criteria, run.criteria) + _packs(plan.configuration, run.configuration)
    found += _difference_text("The error rate", plan.error_rate, run.error_rate)
    found += _difference_text("The allowance for multiplicity", plan.multiplicity, run.multiplicity)
    return found + _difference_text("The seed", plan.seed, run.seed)


def _packs(planned_files: Sequence[PlannedFile], run: Sequence[PlannedFile]) -> list[str]:
    """Rule packs that were registered and are not those of the run; one more says nothing of what was planned."""
    now = {file.name: file.sha256 for file in run if file.role == "rule pack"}
    return [
        found
        for file in planned_files
        if file.role == "rule pack"
        for found in _difference_text(
            f"The rule pack {file.name}", file.sha256[:16], now.get(file.name, "")[:16] or None
        )
    ]


def _probes(names: Sequence[str], predicate: str) -> list[str]:
    if not names:
        return []
    return [
        f"The probe{'' if len(names) == 1 else 's'} {', '.join(names)} {'was' if len(names) == 1 else 'were'} "
        f"{predicate}."
    ]


def _difference_text(subject: str, planned_value: object, run: object) -> list[str]:
    return (
        []
        if planned_value == run
        else [f"{subject}: {_value_text(planned_value)} registered, {_value_text(run)} in this run."]
    )


def _value_text(value: object) -> str:
    if value is None or value == [] or value == {}:
        return "nothing"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _files(plan_files: Mapping[str, str | None], run: Mapping[str, str | None]) -> list[str]:
    found = []
    for name in dict.fromkeys((*plan_files, *run)):
        then, now = plan_files.get(name), run.get(name)
        if then is not None and now is None:
            found.append(f"The file of --{name.replace('_', '-')} was registered and is not in this run.")
        elif then is None and now is not None and name not in _MAY_COME_LATER:
            found.append(f"The file of --{name.replace('_', '-')} is in this run and was not registered.")
        elif then is not None and then != now:
            what = "model is another" if name == "model" else f"file of --{name.replace('_', '-')} is another"
            found.append(f"The {what}: SHA-256 {then[:16]} registered, {str(now)[:16]} in this run.")
    return found


def _options(name: str, planned_probe: PlannedProbe, run: PlannedProbe) -> list[str]:
    found = _difference_text(f"The code of the probe {name}", planned_probe.target, run.target)
    for key in dict.fromkeys((*planned_probe.options, *run.options)):
        then, now = planned_probe.options.get(key), run.options.get(key)
        if then != now or (key in planned_probe.options) != (key in run.options):
            shown = ["not set" if key not in p.options else _value_text(p.options[key]) for p in (planned_probe, run)]
            found.append(f"Option {name}.{key}: {shown[0]} registered, {shown[1]} in this run.")
    return found


def _criteria(plan_criteria: Sequence[CriterionRecord], run: Sequence[CriterionRecord]) -> list[str]:
    found = []
    for subject, a, b in changed_criteria(plan_criteria, run):
        if b is None and a is not None:
            found.append(f"The criterion {subject} {a.describe()} was registered and not applied.")
        elif a is None and b is not None:
            found.append(f"The criterion {subject} {b.describe()} was applied and not registered.")
        elif a is not None and b is not None:
            found.append(_criterion_change_text(subject, a, b))
    return found


def _criterion_change_text(subject: str, a: CriterionRecord, b: CriterionRecord) -> str:
    if (a.direction, a.bound) != (b.direction, b.bound):
        return f"The bound of {subject}: {a.describe()} registered, {b.describe()} in this run."
    said = [f"set by {c.set_by} on {c.set_at}, {c.source}" for c in (a, b)]
    return f"Who set the bound of {subject}: {said[0]} registered, {said[1]} in this run."


# ---- files -----------------------------------------------------------------------------------------------------------


def digest_of(path: Path) -> str | None:
    """Hex SHA-256 of a file, or for a folder, of lines with path and digest of each visible file; None if neither
    exists.

    Raises UsageError where it cannot be read.
    """
    try:
        if path.is_file():
            return _sha256(path)
        if not path.is_dir():
            return None
        whole = hashlib.sha256()
        for file in _visible_files(path):
            whole.update(f"{file.relative_to(path).as_posix()}\0{_sha256(file)}\n".encode("utf-8", "surrogateescape"))
        return whole.hexdigest()
    except OSError as error:
        raise UsageError(f"{str(path)!r} cannot be read: {error.strerror}.") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _visible_files(folder: Path) -> list[Path]:
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(root) / name for name in names if not name.startswith(".")]
    return sorted((file for file in found if file.is_file()), key=lambda file: file.as_posix())
