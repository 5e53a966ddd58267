"""Verification of probes and criteria, rebuilt from the plan in force and from the configuration files."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auditor.core.errors import AuditorError
from auditor.evidence.evidence_bundle import Understood
from auditor.evidence.manifest import REQUEST, Asked
from auditor.evidence.registration import ROLES, Plan
from auditor.evidence.verify.checks import Check, Unproven
from auditor.evidence.verify.enclosed_inputs import WentBy
from auditor.evidence.verify.json_difference import difference
from auditor.judging.criterion import Criterion, criteria_in, parse_budgets, parse_criterion
from auditor.judging.input_files import ObeyedFile, roles_of, shipped
from auditor.judging.policy import is_of_another, parse_policy
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.configuration import ConfigurationFile, Labels, about_of
from auditor.report.record.translations import ENGLISH

NAME = "configuration"
# Of the plan's settings, what the record says of the data in the same words.
_SAID_OF_DATA = ("target", "positive", "cluster", "weight")


def check_configuration(
    entries: Mapping[str, bytes], report: AuditReport, results_file: Asked, inputs: WentBy
) -> tuple[list[Check], list[Unproven]]:
    """Check that record and answers match the request: settings, criteria, wording and roles."""
    if inputs.understood is None:
        return [], [
            Unproven(
                where="request.json: options.*", why="the settings in force are not in the request", needs="request"
            ),
            Unproven(
                where="record.json: criteria.*", why="the files that set them are not enclosed", needs="configuration"
            ),
            *_words(report, "no configuration is enclosed"),
        ]
    wrong = [
        *_plan(report, results_file, inputs.understood.plan),
        *_file_mismatches(report, inputs.understood),
        *_request(entries, report, inputs),
        *_shipped(inputs),
    ]
    checks = [Check(name=REQUEST, state="wrong", detail=detail) for detail in wrong[:20]]
    open_ = [
        Unproven(
            where=f"request.json: understood.files.{file.path}",
            why=file.left_out or "it is not enclosed",
            needs="configuration",
        )  # fmt: skip
        for file in inputs.left_out
    ] + _folders(report, inputs.understood.plan)
    if inputs.left_out:
        return checks, [*open_, *_words(report, "a file that decided it is left out"),
                        Unproven(where="record.json: criteria.*", why="a file that decided it is left out",
                                 needs="configuration")]  # fmt: skip
    try:
        more = [*_criteria(results_file.criteria, inputs), *_wording_mismatches(report, inputs)]
    except (AuditorError, ValueError, RecursionError) as error:
        more = [f"a file that decided the audit cannot be read: {str(error)[:200]}".rstrip(".")]
    checks += [Check(name=NAME, state="wrong", detail=detail) for detail in more]
    if not checks:
        n = len(inputs.obeyed)
        detail = f"settings, criteria, words and roles made again from {n} {'file' if n == 1 else 'files'} and the plan"
        checks = [Check(name=NAME, state="ok", detail=detail)]
    return checks, open_


def _words(report: AuditReport, reason: str) -> list[Unproven]:
    said = [name for name in ("about", "roles") if getattr(report, name) is not None]
    return [Unproven(where=f"record.json: {name}.*", why=reason, needs="configuration") for name in said]


def _plan(report: AuditReport, results_file: Asked, plan: Plan) -> Iterator[str]:
    """Where the plan in force is not that of the record."""
    campaign = report.looks.campaign if report.looks is not None else None
    rate = campaign.error_rate if campaign is not None else report.family.error_rate
    settings = plan.settings
    pairs: list[tuple[str, object, object]] = [
        ("criteria", [c.model_dump(mode="json") for c in plan.criteria],
         [c.model_dump(mode="json") for c in report.criteria]),
        ("error rate", plan.error_rate, rate),
        ("error rate of the answers", report.family.error_rate, results_file.family.error_rate),
        ("multiplicity", plan.multiplicity, report.family.multiplicity),
        ("multiplicity of the answers", plan.multiplicity, results_file.family.multiplicity),
        ("seed", plan.seed, report.environment.seed),
        ("--allow-inconclusive", settings.get("allow_inconclusive", False), report.allow_inconclusive),
        ("[roles]", settings.get(ROLES), None if report.roles is None else report.roles.model_dump(mode="json")),
        ("--campaign", settings.get("campaign"), None if campaign is None else campaign.name),
        ("--campaign-looks", settings.get("campaign_looks"), None if campaign is None else campaign.planned),
    ]  # fmt: skip
    if report.refusal is None and report.data.n_rows is not None:
        pairs += [(f"--{name}", settings.get(name), getattr(report.data, name)) for name in _SAID_OF_DATA
                  if settings.get(name) is not None or name in ("cluster", "weight")]  # fmt: skip
        pairs.append(
            ("--sensitive", settings.get("sensitive") or list(report.data.sensitive), list(report.data.sensitive))
        )
    pairs += [(f"SHA-256 of the {f.name}", f.planned, f.said) for f in _both_digested(report, plan) if f.is_file]
    for name, in_plan, said in pairs:
        if where := difference(said, in_plan, name):
            yield f"by the plan in force: {where}"


@dataclass(frozen=True)
class _Digested:
    """An input of which record and plan both have a digest; of a folder they are made in two ways."""

    name: str
    is_file: bool
    said: str
    planned: str


def _both_digested(report: AuditReport, plan: Plan) -> list[_Digested]:
    model, data = report.model, report.data
    inputs = (
        ("model", model.path, model.sha256),
        ("data", data.path, data.sha256),
        ("train", data.train_path, data.train_sha256),
    )
    return [
        _Digested(name, bool(Path(path or "").suffix), said, planned)
        for name, path, said in inputs
        if said is not None and (planned := plan.files.get(name)) is not None
    ]


def _folders(report: AuditReport, plan: Plan) -> list[Unproven]:
    """Of which inputs nothing shows that what the plan digested is what the record digested."""
    why = "the plan has another digest of it, as of a folder: that both are of the same files is the signer's word"
    return [
        Unproven(where=f"request.json: understood.plan.files.{each.name}", why=why, needs="registration")
        for each in _both_digested(report, plan)
        if not each.is_file and each.said != each.planned
    ]


def _file_mismatches(report: AuditReport, understood: Understood) -> Iterator[str]:
    """Where the record or the plan names other files than the request that was understood."""
    files = understood.files
    said = [] if report.configuration is None else [f.model_dump(mode="json") for f in report.configuration.files]
    found = [
        ConfigurationFile(path=f.path, role=f.role, origin=f.origin, sha256=f.sha256, keys=f.keys).model_dump(
            mode="json"
        )
        for f in files
    ]
    if where := difference(said, found, "configuration"):
        yield f"by the files that decided: {where}"
    planned = [[f.role, f.name, f.sha256] for f in understood.plan.configuration]
    if where := difference(planned, [[f.role, Path(f.path).name, f.sha256] for f in files], "the plan's configuration"):
        yield f"by the files that decided: {where}"


def _request(entries: Mapping[str, bytes], report: AuditReport, inputs: WentBy) -> Iterator[str]:
    """Where options of probes are not in the plan, or the command is another than the record's."""
    if inputs.understood is None:
        return
    try:
        request = json.loads(entries.get(REQUEST, b"{}"))
        probe_options = dict(request["probe_options"])
    except (ValueError, KeyError, TypeError, RecursionError):
        yield "it does not hold the options as they were given"
        return
    plan = inputs.understood.plan
    for probe, own in probe_options.items():
        said = plan.probes.get(probe)
        if said is not None and isinstance(own, dict) and not own.keys() <= said.options.keys():
            yield f"options of {probe} were given, and are not in the plan"
    if inputs.understood.command and report.environment.command is not None:
        if shlex.join(["auditor", *inputs.understood.command]) != report.environment.command:
            yield "its command is another than the record's"


def _shipped(inputs: WentBy) -> Iterator[str]:
    """What is said to come with the tool, or is called like it, and has another text there."""
    for file in inputs.obeyed:
        if file.origin == "shipped" and file.role in ("criteria", "rule pack"):
            folder = "profiles" if file.role == "criteria" else "policies"
            own = shipped(folder, file.path, file.role)
            if own is None or own.sha256 != file.sha256:
                yield f"{file.path} is said to come with the tool, and is not the one that comes with this version"
        elif file.role == "rule pack":
            # One that cannot be read is named where its criteria are.
            with suppress(AuditorError, ValueError):
                if is_of_another(parse_policy(file.text, pack_file_name(file))):
                    yield f"{file.path} goes by the name of a rule pack that comes with the tool, and has another text"


def _criteria(criteria: Sequence[Criterion], inputs: WentBy) -> Iterator[str]:
    """Where other criteria were applied than the files come to."""
    made = [criterion.model_dump(mode="json") for criterion in _required(inputs)]
    said = [criterion.model_dump(mode="json") for criterion in criteria]
    for own, each in zip(criteria, said, strict=True):
        if each not in made:
            yield f"the criterion {own.metric} {own.describe()} of {own.set_by} is in none of the files that decided"
            return
    if said != made:
        yield f"the files come to {len(made)} criteria, and {len(said)} were applied, or in another order"


def _required(inputs: WentBy) -> list[Criterion]:
    found = [c for file in inputs.of_role("configuration") if "criteria" in file.keys for c in _own_criteria(file)]
    for file in inputs.of_role("criteria", "rule pack"):
        found += (
            criteria_in(file) if file.role == "criteria" else parse_policy(file.text, pack_file_name(file)).criteria
        )
    return found


def _own_criteria(file: ObeyedFile) -> list[Criterion]:
    content, name = file.toml(file.path), Path(file.path).name
    entries = content.get("criteria", [])
    if not isinstance(entries, list):
        return []
    budgets = parse_budgets(content.get("budgets", {}), name)
    return [
        parse_criterion(entry, f"{name}, criterion {i}", {"source": name}, budgets=budgets)
        for i, entry in enumerate(entries, 1)
    ]


def pack_file_name(file: ObeyedFile) -> str:
    """The name by which a rule pack's file is read."""
    return f"{file.path}.toml" if file.origin == "shipped" else Path(file.path).name


def _wording_mismatches(report: AuditReport, inputs: WentBy) -> Iterator[str]:
    """Where the record says another identity, other words or other roles than the configuration."""
    content: dict[str, Any] = {}
    where = "the configuration"
    for file in inputs.of_role("configuration"):
        content, where = file.toml(file.path), file.path
    language = ENGLISH if report.about is None else report.about.language
    catalogue = next(iter(inputs.of_role("catalogue")), None)
    about = about_of(content, Labels.from_table(_table(content, "labels"), where), language, where, catalogue)
    roles = roles_of(_table(content, "roles"), where)
    for name, made in (("about", about), ("roles", roles)):
        said = getattr(report, name)
        pair = [None if each is None else each.model_dump(mode="json") for each in (said, made)]
        if different := difference(pair[0], pair[1], name):
            yield f"by the configuration: {different}"


def _table(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = content.get(name, {})
    return found if isinstance(found, dict) else {}
