"""An audit assembled anew from what its bundle encloses, and every place where its record is another.

A record follows from the answers, the request, the files that decided, the registration, the decisions, the rule packs
and the stored rows. What follows from none of them is wrong, or stands in the table of what a signer may state.
"""

from __future__ import annotations

import itertools
import math
import shlex
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from auditor.core.errors import AuditorError
from auditor.data.audit_data_parts import NO_CLUSTERS
from auditor.data.group_counts import GroupsDigest
from auditor.evidence.evidence_bundle import Understood
from auditor.evidence.history.earlier_looks import misspent
from auditor.evidence.manifest import REQUEST, RESULTS, Asked, canonical
from auditor.evidence.registration import ROLES, held_against, with_what_became
from auditor.evidence.signed_acceptances import decision_records
from auditor.evidence.verify.checks import Check, Needs, State, Unproven, difference
from auditor.evidence.verify.enclosed_inputs import Inputs
from auditor.evidence.verify.stated_fields import list_unproven, unexplained_paths
from auditor.judging.budgets import Family
from auditor.judging.criterion import Criterion, criteria_in, parse_budgets, parse_criterion
from auditor.judging.figure_types import Figure
from auditor.judging.input_files import ObeyedFile, roles_of, shipped
from auditor.judging.judgement import Judgement
from auditor.judging.judging import judge
from auditor.judging.policy import Policy, is_of_another, load_policies, pack_names, parse_policy
from auditor.report.drawing.figures import figures_as_before, figures_of
from auditor.report.record.audit_report import FILES, AuditReport
from auditor.report.record.configuration import ConfigurationFile, Labels, about_of
from auditor.report.record.contradictions import contradictions
from auditor.report.record.control_record import PolicyRecord
from auditor.report.record.controls import with_policies
from auditor.report.record.earlier_audits import DecisionRecord
from auditor.report.record.group_sizes import sizes_in
from auditor.report.record.translations import ENGLISH
from auditor.run import __version__
from auditor.run.predictions import BLURRED_OVER, Answers
from auditor.run.run_audit import assemble, files_result

RULE_PACK = "rule pack "
# What a request says of dependent or weighted rows, and the record in the same words.
_OF_DESIGN = ("cluster", "weight", "cluster_at_most", "weight_at_most")
CONFIGURATION, REGISTRATION, DECISIONS = "configuration", "registration", "decisions"
# Numbers are computed on another machine: what they are rounded to, and by how much they may differ before.
_DIGITS, _SLACK, _NOTHING = ".4g", 2e-6, 1e-12
_BLANK = canonical([[], [], None, []])
_Point = tuple[float | None, ...]
# What a finding says whatever the rules by which outcomes follow from what was measured.
_OF_NO_RULE = {
    "id", "probe", "method", "pillar", "metric", "group", "sensitive", "at", "value", "ideal", "chance", "n_samples",
    "criterion", "citation", "detail", "estimate",
}  # fmt: skip


class Replay:
    """An audit's record as it follows from the other parts of its bundle: what disagrees with it, what stays open.

    ``trusted``: fingerprints of keys. ``other_code``: another version of the toolkit measured.
    """

    def __init__(
        self, report: AuditReport, asked: Asked, inputs: Inputs, *, trusted: Collection[str] = (), other_code: bool
    ) -> None:
        self.report, self.asked, self.inputs = report, asked, inputs
        self.trusted, self.other_code = trusted, other_code
        self.record = report.model_dump(mode="json")
        # The paths of the record that follow from something else.
        self.paths: set[str] = set()
        self.checks: list[Check] = []
        self.unproven: list[Unproven] = []
        for compare in (
            self._compare_judgements, self._compare_answers, self._compare_options, self._compare_plan,
            self._compare_configuration, self._compare_registration, self._compare_decisions, self._compare_data,
            self._compare_rule_packs,
        ):  # fmt: skip
            compare()
        self.unproven += list_unproven(self.record, self.paths)
        for path in unexplained_paths(self.record, self.paths, self.unproven):
            self._add_wrong(path.partition(".")[0], f"{path}: nothing in the bundle comes to it")

    def _compare(self, name: str, values: Mapping[str, object], fine: str = "") -> None:
        """Compare values of the record, by dotted path, with what another part says.

        ``name``: of the check; "" for the name of the field. ``fine``: what is said where all agree.
        """
        self.paths |= values.keys()
        before = len(self.checks)
        for path, value in values.items():
            said = _blank(value_at(self.record, path))
            self._add_wrong(name or path.partition(".")[0], difference(said, _blank(value), path))
        if fine and len(self.checks) == before:
            self.checks.append(Check(name=name, state="ok", detail=fine))

    def _add_wrong(self, name: str, *details: str) -> None:
        """Note what disagrees; "" where nothing does."""
        self.checks += [Check(name=name, state="wrong", detail=detail) for detail in details if detail]

    def _add_unproven(self, where: str, why: str, needs: Needs) -> None:
        self.unproven.append(Unproven(where=where, why=why, needs=needs))

    # ---- by the answers ----------------------------------------------------------------------------------------------

    def _compare_judgements(self) -> None:
        """Every number, outcome, count and figure, by the statistics of the answers, judged again.

        What an earlier rule made of the numbers only an earlier auditor can tell; the numbers themselves are checked.
        The code that is installed here follows no other.
        """
        report, asked, other_code = self.report, self.asked, self.other_code
        judgements, family = judge(asked.results, asked.criteria, asked.family)
        again = assemble(
            asked.results,
            asked.criteria,
            judgements=(judgements, family),
            model=report.model,
            data=report.data,
            environment=report.environment,
            refusal=report.refusal,
            allow_inconclusive=report.allow_inconclusive,
        )
        same_rule = report.family.rule == again.family.rule or not other_code
        parts = ["criteria", "definitions", "questions", *(["family", "summary", "exit_code"] if same_rule else [])]
        parts += [] if other_code else ["figures", "schema_version", "tool"]
        found = again.model_dump(mode="json", include=set(parts))
        before = len(self.checks)
        self._compare_findings(again, fields=None if same_rule else _OF_NO_RULE)
        self._compare("", {part: found.get(part) for part in parts})
        self.paths |= {"findings", "figures", "family", "summary", "exit_code"}
        if other_code and report.figures != again.figures:
            self._compare_figures(judgements if same_rule else _as_recorded(judgements, report))
        if not same_rule:
            for name, detail in contradictions(report):
                self._add_wrong(name, detail)
            detail = (
                f"outcomes and intervals follow rule {report.family.rule} of another version of auditor, and this one "
                f"applies rule {again.family.rule}: verify them with the version that made them "
                f"({report.tool.get('version')})"
            )
            self.checks.append(Check(name="outcomes", state="not checked", detail=detail))
        elif not any(check.state == "wrong" for check in self.checks[before:]):
            n = sum(f.value is not None for f in report.findings)
            detail = f"{n:,} numbers, their intervals, p-values and outcomes recomputed from their statistics"
            self.checks.append(Check(name="numbers", state="ok", detail=detail))

    def _compare_findings(self, again: AuditReport, *, fields: set[str] | None) -> None:
        """Where the record's findings are not those that were judged ``again``."""
        mine, said = (
            {f.id: f.model_dump(mode="json", include=fields) for f in r.findings} for r in (again, self.report)
        )
        ids = [f.id for f in self.report.findings]
        for name in sorted({name for name in ids if ids.count(name) > 1}) if len(said) < len(ids) else ():
            self._add_wrong(name, "is in the record more than once")
        for name in {**said, **mine}:
            if name in said and name in mine:
                self._add_wrong(name, difference(said[name], mine[name]))
            else:
                missing = "was measured, and is not in the record"
                self._add_wrong(name, missing if name in mine else "is not among what was measured")
        if not self.other_code and said.keys() == mine.keys() and [*said] != [*mine]:
            self._add_wrong("findings", "they stand in another order than they were judged in")

    def _compare_figures(self, judgements: Sequence[Judgement]) -> None:
        """Whether figures that another version drew show a point, a bound or a picture that no redrawn one shows.

        Which figures there are, of whom a value is and what is said of it a version may see otherwise: outcomes are
        open then.
        """
        layouts = [draw(judgements, self.asked.results) for draw in (figures_as_before, figures_of)]
        if not difference(self.record["figures"], [f.model_dump(mode="json") for f in layouts[0]]):
            return
        drawn = [*itertools.chain(*layouts)]
        points = {key for figure in drawn for point in _points(figure) for key in _spellings(point)}
        pictures = {_BLANK, *map(_picture, drawn)}
        strange = [
            figure.id
            for figure in self.report.figures
            if _picture(figure) not in pictures or any(_spelled(point) not in points for point in _points(figure))
        ]
        if strange:
            self._add_wrong("figures", f"{strange[0]} shows a value that is in no finding")
            return
        said, *known = (_by_id(figures) for figures in (self.report.figures, *layouts))
        told = any(not difference(said, each) for each in known)
        detail = "another version laid them out; every value that they show is in a finding"
        more = ", and which there are, or their words, are not as this one has them"
        name, more = ("figures", "") if told else ("outcomes, figures", more)
        self.checks.append(Check(name=name, state="not checked", detail=f"{detail}{more}"))

    def _compare_answers(self) -> None:
        """Whether the answers were judged by the criteria of the files and the error rate of the record, and say of
        files that could not be read what the record says."""
        report, asked = self.report, self.asked
        # Nothing else of a family is known before it is judged.
        before = asked.family if self.other_code else Family()
        family = replace(before, error_rate=report.family.error_rate, multiplicity=report.family.multiplicity)
        self._add_wrong(RESULTS, difference(asdict(asked.family), asdict(family), "family"))
        if report.refusal is None:
            mine = [result.not_run for result in files_result(report.data)]
            self._add_wrong(FILES, difference([r.not_run for r in asked.results if r.probe == FILES], mine, "not_run"))
        self._add_wrong("looks", *misspent(report))

    # ---- by the request and the plan in force ------------------------------------------------------------------------

    def _compare_options(self) -> None:
        """What the options as given say of the record."""
        report, options = self.report, self.inputs.options
        values: dict[str, object] = {
            "environment.seed": options.get("seed", 0),
            "allow_inconclusive": options.get("allow_inconclusive") or False,
            "no_controls": options.get("no_controls") or None,
            "roles": self.inputs.request.get(ROLES),
        }
        if report.refusal is None:
            values |= self._design_of(options)
        if options.get("log") is not None:
            values |= {"data.target": None, "data.positive": None}  # which no log has
        if options.get("probes") and any(result.by_default for result in self.asked.results):
            self._add_wrong(REQUEST, "it asks for probes by name, and the answers say that nobody did")
        for name, path in (("model", report.model.path), ("data", report.data.path)):
            given = options.get(name)
            # The record names a database otherwise than it was asked for.
            if None not in (path, given) and "://" not in str(given) and "predictions" not in options:
                values[f"{name}.path"] = given
        self._compare(REQUEST, values)

    def _design_of(self, options: Mapping[str, Any]) -> dict[str, object]:
        """What options say of the record's design: by what samples of a log are clusters, the log says without them."""
        is_log, given = self.inputs.options.get("log") is not None, options.get("cluster")
        names = [name for name in _OF_DESIGN if not (is_log and name == "cluster" and given is None)]
        known = {f"data.{name}": options.get(name) for name in names}
        return known | ({"data.cluster": None} if is_log and given == NO_CLUSTERS else {})

    def _compare_plan(self) -> None:
        """What the plan in force says of the record, and what the files that decided say of the plan."""
        understood, report, data = self.inputs.understood, self.report, self.report.data
        if understood is None:
            self._add_unproven("request.json: options.*", "the settings in force are not in the request", "request")
            return
        plan, settings = understood.plan, understood.plan.settings
        campaign = report.looks.campaign if report.looks is not None else None
        values: dict[str, object] = {
            "criteria": [c.model_dump(mode="json") for c in plan.criteria],
            "family.multiplicity": plan.multiplicity,
            "environment.seed": plan.seed,
            "allow_inconclusive": settings.get("allow_inconclusive") or False,
            "roles": settings.get(ROLES),
            "configuration.files": [
                ConfigurationFile(**f.model_dump(include=set(ConfigurationFile.model_fields))).model_dump(mode="json")
                for f in understood.files
            ],
            "looks.campaign.name": settings.get("campaign"),
            "looks.campaign.planned": settings.get("campaign_looks"),
            "family.error_rate" if campaign is None else "looks.campaign.error_rate": plan.error_rate,
        }
        if understood.command and report.environment.command is not None:
            values["environment.command"] = shlex.join(["auditor", *understood.command])
        if report.refusal is None and data.n_rows is not None:
            values |= {f"data.{n}": settings[n] for n in ("target", "positive", "sensitive") if settings.get(n)}
            values |= self._design_of(settings)
        for name, digest, path in (
            ("model", "model.sha256", report.model.path),
            ("data", "data.sha256", data.path),
            ("train", "data.train_sha256", data.train_path),
        ):
            said, in_plan = value_at(self.record, digest), plan.files.get(name)
            if None not in (said, in_plan) and Path(path or "").suffix:
                values[digest] = in_plan
            elif None not in (said, in_plan) and said != in_plan:
                why = "as of a folder: that both are of the same files is the signer's word"
                where = f"request.json: understood.plan.files.{name}"
                self._add_unproven(where, f"the plan has another digest of it, {why}", "registration")
        self._compare(REQUEST, values)
        self._add_wrong(REQUEST, *_plan_differences(self.inputs, understood))
        # Which files came with another version only that version can tell.
        state: State = "not checked" if self.other_code else "wrong"
        name = f"outcomes, {REQUEST}" if self.other_code else REQUEST
        self.checks += [Check(name=name, state=state, detail=detail) for detail in _shipped_differences(self.inputs)]

    # ---- by the files that decided -----------------------------------------------------------------------------------

    def _compare_configuration(self) -> None:
        """The criteria of the answers, the identity, the words and the roles that the files come to."""
        inputs, about = self.inputs, self.report.about
        if not inputs.complete:
            left_out = inputs.understood is not None
            why = "a file that decided it is left out" if left_out else "no configuration is enclosed"
            for name in ("criteria", "about", "roles"):
                self._add_unproven(f"record.json: {name}.*", why, "configuration")
            for file in inputs.left_out:
                where = f"request.json: understood.files.{file.path}"
                self._add_unproven(where, file.left_out or "it is not enclosed", "configuration")
            return
        try:
            said, found = (
                [c.model_dump(mode="json") for c in each] for each in (self.asked.criteria, _required(inputs))
            )
            content: dict[str, Any] = {}
            where = "the configuration"
            for obeyed in inputs.of_role("configuration"):
                content, where = obeyed.toml(obeyed.path), obeyed.path
            language = ENGLISH if about is None else about.language
            labels = Labels.from_table(_table(content, "labels"), where)
            made = {
                "about": about_of(content, labels, language, where, next(iter(inputs.of_role("catalogue")), None)),
                "roles": roles_of(_table(content, "roles"), where),
            }
        except (AuditorError, ValueError, RecursionError) as error:
            self._add_wrong(CONFIGURATION, f"a file that decided cannot be read: {str(error)[:200]}".rstrip("."))
            return
        self._add_wrong(CONFIGURATION, difference(said, found, "results.json: criteria"))
        n = len(inputs.obeyed)
        values = {name: None if each is None else each.model_dump(mode="json") for name, each in made.items()}
        fine = f"criteria, words and roles made again from {n} {'file' if n == 1 else 'files'}"
        self._compare(CONFIGURATION, values, fine if said == found else "")

    # ---- by the registration, the decisions, the rows and the rule packs ---------------------------------------------

    def _compare_registration(self) -> None:
        """The registration's record, by what was registered and the plan in force."""
        report, opened, understood = self.report, self.inputs.registration, self.inputs.understood
        said, where = report.registration, f"record.json: {REGISTRATION}"
        if said is None:
            return
        if opened is None or understood is None:
            lacks = "the registration is not enclosed" if opened is None else "the plan in force is not in the request"
            self._add_unproven(f"{where}.*", lacks, "registration")
            return
        plan = understood.plan
        began, version = datetime.fromisoformat(understood.began), str(report.tool.get("version"))
        record = held_against(opened, plan, path=said.path, started=began, tool=version)
        refused = report.refusal is not None
        record = with_what_became(record, report.findings, was_refused=refused, planned=list(plan.probes))
        # Where the history holds it is for the history to say.
        stated = ("path", "entered", "cautions")
        found = {f"{REGISTRATION}.{k}": v for k, v in record.model_dump(mode="json").items() if k not in stated}
        n = len(said.deviations)
        n_deviations = f"{n} {'deviation' if n == 1 else 'deviations'}"
        self._compare(REGISTRATION, found, f"digest, author, day, signature and {n_deviations} found anew")
        why = "a registration's day is its author's word where no timestamp tells it"
        self._add_unproven(f"{where}.registered", why, "timestamp")
        if said.signed_with not in self.trusted:
            self._add_unproven(f"{where}.by", f"it is signed {_signer_text(said.signed_with)}", "registration")
        if loose := [name for name, digest in plan.files.items() if digest is None]:
            why = f"of {', '.join(loose)} no digest was held against the registered one"
            self._add_unproven(f"{where}.deviations", why, "registration")

    def _compare_decisions(self) -> None:
        """The decisions, by the enclosed entries of the history and the signatures in them."""
        enclosed = {entry.number: entry for entry in self.inputs.decisions.values()}
        said = {decision.entry: decision for decision in self.report.decisions}
        if not said and not enclosed:
            return
        try:
            day = date.fromisoformat(self.report.created[:10])
            again = {record.entry: record for record in decision_records(enclosed, None, today=day)}
        except (AuditorError, ValueError) as error:
            self._add_wrong(DECISIONS, str(error).rstrip("."))
            again = {}
        made = said | {entry: _as_far_as_known(record, said.get(entry)) for entry, record in again.items()}
        n = f"{len(again)} {'entry' if len(again) == 1 else 'entries'}"
        values = {DECISIONS: [made[entry].model_dump(mode="json") for entry in sorted(made)]}
        self._compare(DECISIONS, values, f"{n} of the history read anew, signatures included" if again else "")
        for entry, decision in said.items():
            where = f"record.json: {DECISIONS}.{entry}"
            if entry not in enclosed:
                self._add_unproven(f"{where}.*", "its entry is not enclosed", "decisions")
                continue
            why = "when it was entered, and that nothing was entered before, is for the history to say"
            self._add_unproven(f"{where}.created", why, "history")
            if decision.signed_with not in self.trusted:
                self._add_unproven(f"{where}.*", f"it is signed {_signer_text(decision.signed_with)}", "decisions")

    def _compare_data(self) -> None:
        """Classes, groups and counts, by the table of groups and the rows."""
        head, table, answers, data = self.inputs.head, self.inputs.table, self.inputs.answers, self.report.data
        values: dict[str, object] = {}
        if head is not None:
            values |= {"data.n_rows": head.n}
            values |= _of_classes(head.classes, head.positive) if head.kind == "classifier" else {}
            # Scores of rows that do not say their group are blurred, and no others.
            blurred = BLURRED_OVER if table and not head.features else 1
            self._add_wrong("data", difference(head.blurred, blurred, "rows.blurred"))
        if table is not None:
            of_table = {"data.n_rows": table.n, **_of_classes(table.classes, table.positive)}
            for path in of_table.keys() & values.keys():
                self._add_wrong("data", difference(values[path], of_table[path], f"by the rows, {path}"))
            values |= of_table | {"data.sensitive": table.features}
        sizes = sizes_in(table) if table is not None else None
        if answers is not None and answers.groups:
            sizes = sizes or {name: Counter(own) for name, own in answers.groups.items()}
            if data.groups_sha256 is not None:
                values["data.groups_sha256"] = _digests(answers)
        if sizes is not None and data.groups is not None:
            values["data.groups"] = sizes
        unlabelled = None if table is None else int(table.table[:, -1].sum())
        if answers is not None:
            unlabelled = int(np.isnan(answers.truth).sum())
        # Where no row has a label, whether there was a column of them is for the record to say.
        if (missing := data.missing) is not None and unlabelled is not None:
            if missing.labels is not None or unlabelled < (data.n_rows or 0):
                values["data.missing.labels"] = unlabelled
        self._compare("data", values, f"the record's {', '.join(values)} are those of what is stored" if values else "")

    def _compare_rule_packs(self) -> None:
        """The rule packs and the controls held to them, by the packs' texts; of before there were digests, nothing."""
        report, enclosed = self.report, dict[str, Policy]()
        for file in self.inputs.of_role("rule pack"):
            # One that cannot be read is named by the configuration.
            with suppress(AuditorError, ValueError):
                pack = _policy_of(file)
                enclosed[pack.sha256] = pack
        days = _days(report, self.inputs)
        for policy in report.policies:
            if policy.sha256:
                self._compare_pack(policy, enclosed.get(policy.sha256), days)
            else:
                where = f"record.json: controls of {policy.name}.*"
                self._add_unproven(where, "the record does not say which text it had", "packs")
        if report.policies and not days:
            why = "on which day they were to be held to be in force is not in the request"
            self._add_unproven("record.json: policies.as_of", why, "packs")
        named, digests = {policy.name for policy in report.policies}, {policy.sha256 for policy in report.policies}
        for digest, pack in enclosed.items():
            if digest not in digests:
                self._add_wrong(f"{RULE_PACK}{pack.name}", "it is enclosed, and the record does not name it")
        ids = {finding.id for finding in report.findings}
        for control in report.controls:
            if control.policy not in named:
                self._add_wrong("controls", f"{control.id} is of a rule pack that the record does not name")
            if any(finding not in ids for cell in control.cells for finding in cell.findings):
                self._add_wrong("controls", f"{control.id} rests on a finding that is not there")
        self.paths |= {"policies", "controls"}

    def _compare_pack(self, policy: PolicyRecord, own: Policy | None, days: Collection[str]) -> None:
        """One rule pack held against the findings anew, by its text that is enclosed or else shipped with auditor."""
        name, report = f"{RULE_PACK}{policy.name}", self.report
        if own is None and policy.name in pack_names():
            own = next((pack for pack in load_policies([policy.name])[0] if pack.sha256 == policy.sha256), None)
        if own is None:
            detail = f"its text is neither enclosed nor of this auditor: SHA-256 {policy.sha256[:16]}"
            self.checks.append(Check(name=name, state="not checked", detail=detail))
            return
        again = with_policies(report, [own], date.fromisoformat(policy.as_of))
        said = report.model_copy(
            update={"policies": (policy,), "controls": tuple(c for c in report.controls if c.policy == policy.name)}
        )
        one, other = (r.model_dump(mode="json", include={"policies", "controls"}) for r in (said, again))
        where = difference(one, other)
        detail = where or f"SHA-256 of its text, and {len(again.controls)} controls held against the findings anew"
        # How cells follow from findings is of the code that drew them.
        state: State = "wrong" if report.tool.get("version") == __version__ else "not checked"
        self.checks.append(Check(name=name, state=state if where else "ok", detail=detail))
        if days and policy.as_of not in days:
            self._add_wrong(name, f"it is held to be in force on {policy.as_of}, which was not asked for")


def value_at(document: Any, path: str) -> Any:
    """The value at a dotted path; None where there is none."""
    for key in path.split("."):
        document = document.get(key) if isinstance(document, Mapping) else None
    return document


def _blank(value: object) -> object:
    """What says nothing is left out of a record, or is empty."""
    return None if value in ("", [], {}, ()) else value


def _points(figure: Figure) -> Iterator[_Point]:
    """Each value with the ends of its interval, whatever series it is in, and what is marked on the axes."""
    yield from ((figure.criterion,), (figure.marked,))
    for s in figure.series:
        yield (s.criterion,)
        for i, y in enumerate(s.y):
            yield y, *(ends[i] if i < len(ends) else None for ends in (s.low, s.high))


def _spelled(point: _Point) -> tuple[str, ...]:
    return tuple("" if x is None else format(0.0 if abs(x) < _NOTHING else x, _DIGITS) for x in point)


def _spellings(point: _Point) -> set[tuple[str, ...]]:
    """All spellings of the points that differ from this one by rounding."""
    near = ([None] if x is None else [x * (1.0 - _SLACK), x * (1.0 + _SLACK)] for x in point)
    return {_spelled(each) for each in itertools.product(*near)}


def _picture(figure: Figure) -> bytes:
    """What a figure shows beside its series."""
    return canonical([*figure.model_dump(mode="json", include={"texts", "heatmaps", "table", "swarms"}).values()])


def _by_id(figures: Sequence[Figure]) -> list[Any]:
    return [figure.model_dump(mode="json") for figure in sorted(figures, key=lambda figure: figure.id)]


def _as_recorded(judgements: Sequence[Judgement], report: AuditReport) -> list[Judgement]:
    """The judgements with the outcomes and intervals that the record states, from which its figures were drawn."""
    stated = {finding.id: finding for finding in report.findings}
    found = []
    for each in judgements:
        said = stated.get(each.id)
        if said is not None and said.interval is not None:
            low, high, confidence = (math.nan if x is None else x for x in (*said.interval, said.confidence))
            each = replace(each, outcome=said.outcome, interval=(low, high), confidence=confidence)
        found.append(each)
    return found


def _plan_differences(inputs: Inputs, understood: Understood) -> Iterator[str]:
    """Where the plan names other files than decided, options of probes are not in it, or a pack has another's name."""
    plan = understood.plan
    yield difference(
        [[f.role, f.name, f.sha256] for f in plan.configuration],
        [[f.role, Path(f.path).name, f.sha256] for f in understood.files],
        "understood.plan.configuration",
    )
    for probe, own in inputs.probe_options.items():
        said = plan.probes.get(probe)
        if said is not None and not own.keys() <= said.options.keys():
            yield f"options of {probe} were given, and are not in the plan"
    for file in inputs.of_role("rule pack"):
        # One that cannot be read is named where its criteria are.
        with suppress(AuditorError, ValueError):
            if file.origin != "shipped" and is_of_another(_policy_of(file)):
                yield f"{file.path} goes by the name of a rule pack that comes with the tool, and has another text"


def _shipped_differences(inputs: Inputs) -> Iterator[str]:
    """The files that are said to come with the tool, or have the name of a profile that does, and are not its own."""
    for file in inputs.of_role("criteria", "rule pack"):
        own_file = shipped("profiles" if file.role == "criteria" else "policies", file.path, file.role)
        if file.origin == "shipped" and (own_file is None or own_file.sha256 != file.sha256):
            yield f"{file.path} is said to come with the tool, and is not the one that comes with this version"
        elif file.origin != "shipped" and file.role == "criteria" and own_file is not None:
            yield f"{file.path} names the profile that comes with the tool, and is said to be another file"


def _signer_text(signed_with: str | None) -> str:
    return "by nobody" if signed_with is None else f"with the key {signed_with[:16]}, which you did not name"


def _required(inputs: Inputs) -> list[Criterion]:
    """The criteria that the files set, in reading order."""
    found: list[Criterion] = []
    for file in inputs.of_role("configuration"):
        content, name = file.toml(file.path), Path(file.path).name
        entries = content.get("criteria")
        if "criteria" in file.keys and isinstance(entries, list):
            budgets = parse_budgets(content.get("budgets", {}), name)
            found += [
                parse_criterion(entry, f"{name}, criterion {i}", {"source": name}, budgets=budgets)
                for i, entry in enumerate(entries, 1)
            ]
    for file in inputs.of_role("criteria", "rule pack"):
        found += criteria_in(file) if file.role == "criteria" else _policy_of(file).criteria
    return found


def _policy_of(file: ObeyedFile) -> Policy:
    return parse_policy(file.text, f"{file.path}.toml" if file.origin == "shipped" else Path(file.path).name)


def _table(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = content.get(name, {})
    return found if isinstance(found, dict) else {}


def _as_far_as_known(record: DecisionRecord, said: DecisionRecord | None) -> DecisionRecord:
    """The record of a decision; which findings an old one is about follows from its audit, which is not enclosed."""
    if said is None or record.decided or said.one_by_one:
        return record
    of_it = {each.finding for each in said.decided} <= set(record.findings)
    return record.model_copy(update={"decided": said.decided}) if of_it else record


def _of_classes(classes: Sequence[str], positive: int | None) -> dict[str, object]:
    return {"model.classes": list(classes), "data.positive": None if positive is None else classes[positive]}


def _digests(answers: Answers) -> dict[str, str]:
    found = {}
    for name, levels in zip(answers.head.features, answers.head.levels, strict=True):
        place = {level: i for i, level in enumerate(levels)}
        digest = GroupsDigest()
        digest.add(np.asarray([place[level] for level in answers.groups[name]], np.int64), levels)
        found[name] = digest.hexdigest()
    return found


def _days(report: AuditReport, inputs: Inputs) -> set[str]:
    """The days on which packs may be held to be in force: the one asked for, else that of the audit."""
    if inputs.understood is None:
        return set()
    if (asked := inputs.understood.as_of) is not None:
        return {asked.isoformat()}
    try:
        made = date.fromisoformat(report.created[:10])
    except ValueError:
        return set()
    return {made.isoformat(), (made + timedelta(days=1)).isoformat()}
