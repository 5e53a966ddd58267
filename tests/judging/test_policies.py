"""Rule packs: they ask for what is measured, claim nothing of their own, and silence fills no cell of them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import Any

import pytest

from auditor.core.errors import ConfigError, UsageError
from auditor.judging.criterion import load_criteria
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.judging.policy import EvidenceRule, load_policies, pack_names, parse_policy, profile_names
from auditor.report.html import render_html
from auditor.report.markdown import render_markdown
from auditor.report.record.audit_report import INTAKE, AuditReport
from auditor.report.record.control_record import CellRecord
from auditor.report.record.controls import with_policies
from auditor.run.run_audit import ask, generator_for
from auditor.run.scan import check_policies
from auditor.run.scan_options import ScanOptions
from auditor.statistics.estimate import Undefined
from auditor.statistics.rates import Proportion
from cli.scan_request import configure
from cli.terminal import print_report
from probes import PROBES
from tests import ROOT
from tests.quantifiers import all_of
from tests.report.samples import report_of, sample_report
from tests.toys.benchmark_files import FILE_TOYS
from tests.toys.models import TOYS, rows

PACKS, _NO_CRITERIA = load_policies(pack_names())
RULES = [(pack.name, control.id, rule) for pack in PACKS for control in pack.controls for rule in control.evidence]
DAY = date(2026, 11, 24)

PACK = """
name = "house"
title = "House rules"
source = "house rules, 3rd edition"
checked_on = 2026-01-31
certainty = "text"

[[controls]]
id = "one"
title = "First"
evidence = [{ what = "gaps", probe = "group_fairness", metric = "*_difference", how = "add --sensitive" }]

[[controls]]
id = "two"
title = "Second"
attestation = [{ what = "purpose", role = "owner" }]
"""


@cache
def sampled(hostile: bool = False) -> AuditReport:
    return sample_report(hostile=hostile)


def cells(report: AuditReport) -> dict[str, CellRecord]:
    return {control.id: control.cells[0] for control in report.controls}


# ---- the built-in packs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pack", "control", "rule"), RULES, ids=[f"{p}-{c}-{r.what[:20]}" for p, c, r in RULES])
def test_every_pattern_names_a_probe(pack: str, control: str, rule: Any) -> None:
    assert bool(rule.probes) == (rule.shown_by in ("findings", "attempts"))
    for pattern in rule.probes:
        assert [name for name in (*PROBES, INTAKE) if fnmatchcase(name, pattern)], f"{pack}, {control}: {pattern}"


# What patterns of metrics and methods are held against: numbers that these probes really find.
_MEASURED = (
    "group_fairness", "score_fairness", "adverse_impact", "counterfactual_fairness", "robustness",
    "feature_attribution", "out_of_distribution", "poisoning", "label_conflicts", "weight_changes",
    "label_bias",
)  # fmt: skip


@cache
def measured() -> frozenset[tuple[str, str, str]]:
    found = {(INTAKE, "n_parameters", ""), (INTAKE, "nonfinite_parameters", "")}
    for name in _MEASURED:
        toys, data = TOYS[name], rows(600, members=name.startswith("label_"))
        for model in (toys.violating(), _scoring()):
            result = ask(PROBES[name](**toys.options), model, data, generator_for(0, name))
            assert not result.not_run, result.not_run
            found |= {(name, m.metric, m.method) for m in result.measurements}
    return frozenset(found)


@cache
def marked() -> frozenset[tuple[str, str, str]]:
    """What is found in a generator's files by an authority and a decoder."""
    from tests.detection.content_credentials import signing
    from tests.toys.marked import files, generator

    with NamedTemporaryFile("w", suffix=".pem") as anchors:
        anchors.write(signing().root)
        anchors.flush()
        probe = PROBES["marking"](decoder=("tests.toys.marked:finds",), trust_anchors=anchors.name, n_samples=1)
        result = ask(probe, generator(), files(2, unmarked=2), generator_for(0, "marking"))
    assert not result.not_run, result.not_run
    return frozenset(("marking", m.metric, m.method) for m in result.measurements)


@cache
def of_rows() -> frozenset[tuple[str, str, str]]:
    """What is found of training rows alone, with the shares that groups should have and with metadata."""
    found: set[tuple[str, str, str]] = set()
    with TemporaryDirectory() as folder:
        shares, metadata = Path(folder) / "shares.csv", FILE_TOYS["data_documentation"](Path(folder)).options
        shares.write_text("group,share\na,0.5\nb,0.5\n", encoding="utf-8")
        options = {"representation": {"shares": str(shares)}, "data_leakage": {}, "data_documentation": metadata}
        for name, own in options.items():
            data = rows(600, members=True)
            result = ask(PROBES[name](**own), _scoring(), data, generator_for(0, name))
            assert not result.not_run, result.not_run
            found |= {(name, m.metric, m.method) for m in result.measurements}
    return frozenset(found)


def _scoring() -> Any:
    from tests.toys.models import model

    return model(lambda skill, group, seen: skill + 0.1 * group)


@pytest.mark.parametrize(
    ("pack", "control", "rule"),
    [case for case in RULES if (case[2].metric, case[2].method) != ("*", "*")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_pattern_of_a_metric_fits_one_that_is_measured(pack: str, control: str, rule: Any) -> None:
    known = marked() if rule.probes == ("marking",) else measured() | of_rows()
    assert [found for found in known if rule.fits(*found, 2)], f"{pack}, {control}: {rule.metric} by {rule.method}"


def test_no_pack_sets_a_pass_mark() -> None:
    assert _NO_CRITERIA == [] and all_of(pack.criteria == () for pack in PACKS)


def test_every_pack_says_where_and_when_it_was_looked_up() -> None:
    for pack in PACKS:
        assert pack.source and date(2026, 1, 1) <= pack.checked_on <= date(2026, 12, 3)
        for control in pack.controls:
            assert control.source and control.certainty in ("text", "page", "code", "memory")
    by_name = {pack.name: pack for pack in PACKS}
    assert {n for n, p in by_name.items() if p.certainty == "memory"} == {"iso-42001", "iso-iec-5259-2"}
    assert by_name["nist-ai-rmf"].certainty == "code"
    told = {c.id: c.certainty for c in by_name["us-adverse-impact"].controls}
    assert told["12 CFR 1002.9"] == "memory" and told["proxies"] == "page"


def test_dates_are_those_of_the_acts() -> None:
    dated = {pack.name: pack.applies_from for pack in PACKS if pack.applies_from}
    assert dated == {
        "eu-ai-act": date(2027, 12, 2),
        "us-ca-admt": date(2027, 1, 1),
        "us-ca-feha-ads": date(2025, 10, 1),
        "us-co-doi-10-1-1": date(2025, 10, 15),
        "us-co-sb26-189": date(2027, 1, 1),
        "us-il-hb3773": date(2026, 1, 1),
        "us-ny-dfs-cl-2024-7": date(2024, 7, 11),
        "us-sr-26-2": date(2026, 4, 17),
        "us-tx-traiga": date(2026, 1, 1),
    }
    act = {c.id: c for pack in PACKS if pack.name == "eu-ai-act" for c in pack.controls}
    assert act["Art. 50(2)"].applies(date(2026, 8, 2)) and not act["Art. 50(2)"].applies(date(2026, 8, 1))
    assert act["Annex IV 3"].applies(date(2027, 12, 2)) and not act["Annex IV 3"].applies(date(2027, 12, 1))


def test_no_flag_that_a_pack_names_is_unknown() -> None:
    from typer.main import get_command

    from cli.commands import app
    from cli.help_pages import leaf_commands

    known = {option for _, command in leaf_commands(get_command(app)) for p in command.params for option in p.opts}
    for folder in ("policies",):
        for file in (files("auditor.judging") / folder).iterdir():
            if file.name.endswith(".toml"):
                flags = set(re.findall(r"--[a-z-]+", file.read_text(encoding="utf-8")))
                assert flags <= known, f"{file.name}: {flags - known}"


# ---- cells -----------------------------------------------------------------------------------------------------------


def test_every_kind_of_cell_arises_and_a_fail_shows_in_its_cell() -> None:
    report = with_policies(sampled(), PACKS, DAY)
    assert {cell.kind for c in report.controls for cell in c.cells} == {
        "evidence", "attestation needed", "not measured",
    }  # fmt: skip
    cell = next(c for c in report.controls if c.id == "Annex IV 2(g), discrimination").cells[0]
    of_it = [f for f in report.findings if f.probe == "group_fairness" and (f.metric or "").endswith("_difference")]
    assert cell.outcomes["FAIL"] == sum(f.outcome is Outcome.FAIL for f in of_it) > 0
    assert set(cell.findings) == {f.id for f in of_it}
    assert report.exit_code == sampled().exit_code
    n = cell.outcomes["FAIL"]
    assert f"**Evidence: FAIL** ({n} FAIL" in render_markdown(report)
    assert f'<span class="tally">{n}&nbsp;FAIL</span>' in render_html(report)


def _with(*measurements: Measurement, not_run: str = "", not_applicable: str = "") -> AuditReport:
    result = ProbeResult(
        probe="group_fairness", pillar="fairness", citation="", measurements=measurements, not_run=not_run,
        not_applicable=not_applicable,
    )  # fmt: skip
    return with_policies(report_of([result]), [parse_policy(PACK, "house.toml")], DAY)


_GAP = Measurement(
    metric="accuracy_difference", estimate=Proportion(successes=1, n=10), n_samples=10, sensitive=("sex",)
)
_UNDEFINED = Measurement(
    metric="other_difference", estimate=Undefined(reason="no row was selected"), n_samples=10, sensitive=("sex",)
)


def test_what_was_not_measured_is_no_evidence_and_says_why() -> None:
    for report, why in (
        (_with(not_applicable="Needs a sensitive feature."), "Needs a sensitive feature."),
        (_with(not_run="It hung."), "It hung."),
        (_with(_UNDEFINED), "Undefined for these data: no row was selected"),
    ):
        cell = cells(report)["one"]
        assert (cell.kind, cell.findings, cell.outcomes) == ("not measured", (), {})
        assert cell.reason == why and cell.how == "add --sensitive"


def test_what_could_not_be_said_stands_beside_what_could() -> None:
    cell = cells(_with(_GAP, _UNDEFINED, not_run="It hung after the first number."))["one"]
    assert cell.kind == "evidence"
    assert cell.outcomes == {"NOT_JUDGED": 1, "INCONCLUSIVE": 1, "NOT_RUN": 1}
    assert len(cell.findings) == 3


def test_a_crash_of_another_probe_says_nothing_about_a_number() -> None:
    text = PACK.replace('probe = "group_fairness", metric = "*_difference"', 'probe = "*", metric = "accuracy*"')
    crashed = ProbeResult(probe="robustness", pillar="robustness", citation="", not_run="It hung.")
    report = with_policies(report_of([crashed]), [parse_policy(text, "house.toml")], DAY)
    assert (cells(report)["one"].kind, cells(report)["one"].reason) == ("not measured", "")


def test_a_judged_number_of_a_group_is_linked_among_many_that_compare() -> None:
    from tests.toys.models import criterion

    policy = parse_policy(PACK.replace("*_difference", "*"), "house.toml")
    grouped = Measurement(metric="accuracy", estimate=Proportion(successes=1, n=400), n_samples=400, group={"sex": "f"})
    from auditor.judging.budgets import Family
    from auditor.judging.judging import judge
    from auditor.report.record.audit_report import Finding

    findings, _ = judge(
        [ProbeResult(probe="group_fairness", pillar="fairness", citation="", measurements=(_GAP, grouped))],
        [criterion("accuracy", "at_least", 0.9, group={"sex": "f"})],
        Family(),
    )
    report = sampled().model_copy(update={"findings": tuple(Finding.from_judgement(f) for f in findings)})
    cell = cells(with_policies(report, [policy], DAY))["one"]
    assert cell.outcomes == {"NOT_JUDGED": 1, "FAIL": 1} and len(cell.findings) == 2


def test_in_force_is_as_of_the_day() -> None:
    policy = parse_policy(PACK.replace('id = "one"', 'id = "one"\napplies_from = 2026-12-01\n'), "house.toml")
    before, after = (with_policies(sampled(), [policy], day) for day in (date(2026, 11, 30), date(2026, 12, 1)))
    assert [c.in_force for c in before.controls] == [False, True]
    assert [c.in_force for c in after.controls] == [True, True]
    assert "1 of 2 controls is not in force on that day." in render_markdown(before)
    assert "not in force" not in render_markdown(after)
    assert "not in force on 2026-11-30: from 2026-12-01" in render_html(before)
    ended = parse_policy(PACK.replace("certainty", "applies_until = 2026-06-30\ncertainty", 1), "house.toml")
    assert [c.applies(date(2026, 6, 30)) for c in ended.controls] == [True, True]
    assert [c.applies(date(2026, 7, 1)) for c in ended.controls] == [False, False]


# ---- packs of one's own ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('certainty = "text"', 'certainty = "sure"', r"line 6: certainty must be one of .* not 'sure'"),
        ("checked_on = 2026-01-31", 'checked_on = "soon"', r"line 5: checked_on must be a date, .* not 'soon'"),
        ("checked_on = 2026-01-31", "checked_on = 2026-01-31T10:00:00", "line 5: checked_on must be a date"),
        ("checked_on = 2026-01-31\n", "", "line 1: checked_on must be a date.* absent"),
        ("checked_on = 2026-01-31", "checked_on = 2026-02-31", "at line 5"),
        ("title = \"House rules\"", "titel = \"House rules\"", "line 3: unknown key 'titel'; did you mean 'title'"),
        ("title = \"First\"", "titel = \"First\"", "line 10: unknown key 'titel'; did you mean 'title'"),
        ("title = \"First\"", "", "line 8: title must be a text"),
        ("how =", "hwo =", "line 11: unknown key 'hwo'; did you mean 'how'"),
        ("role =", "rol =", "line 16: unknown key 'rol'; did you mean 'role'"),
        ('id = "two"', 'id = "one"', "line 13: the control 'one' is there twice"),
        ('attestation = [{ what = "purpose", role = "owner" }]', "", "line 13: the control 'two' asks for nothing"),
        ('attestation = [{ what = "purpose", role = "owner" }]', "attestation = 3", "line 16: attestation must be"),
        ('id = "two"', 'id = "two"\napplies_from = 2027-01-01\napplies_until = 2026-01-01', "line 16: .*before it"),
        ('id = "two"', 'id = "two"\nrecord = ["modle"]', "line 15: record is a list .* did you mean 'model'"),
        ('id = "two"', 'id = "two"\nrecord = "model"', r"line 15: record must be a list, such as record = \['model'\]"),
        ("certainty", 'notes = "one"\ncertainty', "line 6: notes must be a list"),
        ("[[controls]]", "[[controls]", "at line 8"),
        (PACK, PACK + '[[criteria]]\nmetric = "x"\ndirection = "up"\nbound = 1', "line 17: direction must be one of"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_file_and_line(old: str, new: str, message: str) -> None:
    assert PACK.count(old) >= 1
    with pytest.raises(ConfigError, match=rf"^house\.toml.*{message}"):
        parse_policy(PACK.replace(old, new, 1), "house.toml")


@pytest.mark.parametrize(
    ("name", "near"),
    [("eu-ai-cat", "eu-ai-act"), ("auditor-default", "auditor-default-3"), ("nyc-ll-144", "nyc-ll144")],
)
def test_an_unknown_policy_names_the_nearest_pack_or_profile(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=rf"There is no policy '{name}'.*did you mean '{near}'\?"):
        load_policies([name])
    with pytest.raises(ConfigError, match=f"{pack_names()[0]}.*{pack_names()[-1]}"):
        load_policies([name])
    assert profile_names() == ["auditor-data-1", "auditor-default-3"]


def test_the_pack_in_the_documentation_is_one() -> None:
    text = (ROOT / "docs/rule-packs.md").read_text(encoding="utf-8")
    (block,) = [b for b in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if "[[controls]]" in b]
    (control,) = parse_policy(block, "house.toml").controls
    assert control.applies(date(2026, 1, 1)) and control.record == ("data", "criteria")
    assert [found for found in measured() if control.evidence[0].fits(*found)]


def test_two_packs_of_one_name_are_refused_and_a_repeated_one_is_one(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(PACK.replace('"house"', '"gdpr"'))
    with pytest.raises(ConfigError, match="two packs of the name 'gdpr'"):
        load_policies(["gdpr", str(tmp_path / "mine.toml")])
    assert len(load_policies(["gdpr", "gdpr"])[0]) == 1


_OWN = '[[criteria]]\nmetric = "accuracy_difference"\ndirection = "at_most"\nbound = 0.2\nset_by = "Ann"\n'


def test_a_pack_with_criteria_replaces_the_profile_and_one_without_leaves_it(tmp_path: Path) -> None:
    with_own, without = tmp_path / "own.toml", tmp_path / "none.toml"
    with_own.write_text(PACK + _OWN)
    without.write_text(PACK)
    own = configure({"policy": str(with_own)}, None, [])
    assert [(c.metric, c.bound, c.source, c.set_by) for c in own.criteria] == [
        ("accuracy_difference", 0.2, "own.toml", "Ann")
    ]
    left = configure({"policy": str(without)}, None, [])
    assert list(left.criteria) == load_criteria()
    assert [p.name for p in left.policies] == ["house"]
    both = configure({"policy": f"{without},auditor-default-3"}, None, [])
    assert list(both.criteria) == load_criteria()


def test_a_pack_without_bounds_leaves_those_of_the_configuration(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("audit.toml").write_text(_OWN)
    assert [c.bound for c in configure({"policy": "eu-ai-act"}, "audit.toml", []).criteria] == [0.2]


def _said(report: AuditReport, capsys: pytest.CaptureFixture[str]) -> Sequence[str]:
    print_report(report, [], verbose=True)
    return render_html(report), render_markdown(report), capsys.readouterr().out


def test_every_rendering_says_whose_bounds_decide(capsys: pytest.CaptureFixture[str]) -> None:
    report = sampled()
    without = parse_policy(PACK, "house.toml")
    with_own = parse_policy(PACK + _OWN, "own.toml")
    for said in _said(with_policies(report, [without], DAY), capsys):
        assert "It sets no pass mark. Outcomes are those of the criteria of auditor-default-3, set by auditor" in said
        assert "egal advice" in said
    held = report.model_copy(update={"criteria": report.criteria[-1:]})
    for said in _said(with_policies(held, [with_own], DAY), capsys):
        assert "It sets bounds of its own. Outcomes are those of the criteria of audit.toml, criterion 1" in said
        assert "no pass mark. Outcomes" not in said
    none = report.model_copy(update={"criteria": ()})
    for said in _said(with_policies(none, [without], DAY), capsys):
        assert "No criterion was set, so nothing here could pass or fail." in said


def test_a_day_that_is_none_or_has_no_pack_is_refused() -> None:
    with pytest.raises(UsageError, match="'soon' is no date: write it like 2026-11-24"):
        configure({"policy": "gdpr", "as_of": "soon"}, None, [])
    with pytest.raises(UsageError, match="name one with --policy"):
        configure({"as_of": "2026-11-24"}, None, [])
    assert configure({"policy": "gdpr", "as_of": "2026-11-24"}, None, []).options.as_of == DAY


def test_a_pack_may_require_planted_controls() -> None:
    pack = parse_policy(PACK.replace("certainty", "require_controls = true\ncertainty", 1), "house.toml")
    with pytest.raises(UsageError, match="house requires planted controls: leave --no-controls out"):
        check_policies([pack], ScanOptions(no_controls=True), PROBES)
    check_policies([pack], ScanOptions(), PROBES)
    check_policies([replace(pack, require_controls=False)], ScanOptions(no_controls=True), PROBES)
    with pytest.raises(ConfigError, match="line 6: require_controls is true or false"):
        parse_policy(PACK.replace("certainty", "require_controls = 1\ncertainty", 1), "house.toml")


def test_a_control_that_is_known_less_surely_says_so() -> None:
    page = render_html(with_policies(sampled(), [p for p in PACKS if p.name == "us-adverse-impact"], DAY))
    doubtful = sum(c.certainty == "memory" for p in PACKS if p.name == "us-adverse-impact" for c in p.controls)
    assert page.count('<span class="sub">from general knowledge, not looked up</span>') == doubtful > 0


def test_hostile_packs_stay_text(capsys: pytest.CaptureFixture[str]) -> None:
    nasty = "<script>alert(1)</script>|`x`\\n[a](http://b)"
    text = PACK.replace("House rules", nasty).replace('"purpose"', f'"{nasty}"').replace('"owner"', f'"{nasty}"')
    report = with_policies(sampled(), [parse_policy(text, "house.toml")], DAY)
    html, markdown, said = _said(report, capsys)
    assert "<script>alert" not in html and "<script>" not in markdown and "[a](http" not in markdown
    assert r"\n" in said


def test_the_packs_are_toml_without_repeated_titles() -> None:
    for name in pack_names():
        content = tomllib.loads((files("auditor.judging") / "policies" / f"{name}.toml").read_text(encoding="utf-8"))
        assert content["name"] == name
        assert len({c["title"] for c in content["controls"]}) == len(content["controls"])


def rule(**changes: Any) -> EvidenceRule:
    return EvidenceRule(**{"what": "w", "probe": "group_fairness", "how": "h", **changes})


def test_only_a_star_stands_for_anything() -> None:
    assert rule(probe="group_*").fits("group_fairness", "accuracy", None)
    for pattern in ("group_fairnes[s]", "group_fairnes?", "["):
        assert not rule(probe=pattern).fits("group_fairness", "accuracy", None)


def test_any_probe_is_any_but_the_look_at_the_file() -> None:
    assert rule(probe="*").fits("robustness", "accuracy_under_noise", "noise")
    assert not rule(probe="*").fits("intake", "n_parameters", None)
    assert rule(probe="intake").fits("intake", "n_parameters", None)


def test_the_intersection_is_asked_for_by_itself() -> None:
    both = rule(probe="adverse_impact", metric="impact_ratio*", features=2)
    assert not both.fits("adverse_impact", "impact_ratio_min", "selection_rate", 1)
    assert both.fits("adverse_impact", "impact_ratio_min", "selection_rate", 2)


def test_a_probe_there_is_none_of_is_named(tmp_path: Path) -> None:
    from cli.scan_request import configure

    text = (
        'name = "x"\ntitle = "t"\nsource = "s"\nchecked_on = 2026-11-24\ncertainty = "text"\n[[controls]]\nid = "1"\n'
        'title = "c"\nevidence = [{ what = "w", probe = "group_fairnes", how = "h" }]\n'
    )
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(ConfigError, match="control '1': there is no probe 'group_fairnes'.*group_fairness"):
        configure({"policy": str(tmp_path / "x.toml")}, None, [])


@pytest.mark.parametrize("line", ["[[control]]\nid = '1'", "control = []"])
def test_a_pack_with_a_typing_error_is_no_profile(tmp_path: Path, line: str) -> None:
    profile = "[[criteria]]\nmetric = 'a'\ndirection = 'at_most'\nbound = 1\n"
    (tmp_path / "x.toml").write_text(f"{line}\n{profile}" if line.startswith("control") else f"{profile}{line}\n")
    with pytest.raises(ConfigError, match="unknown key 'control'.*controls"):
        load_policies([str(tmp_path / "x.toml")])


def test_a_pack_written_inline_is_one(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(
        'title = "t"\nsource = "s"\nchecked_on = 2026-11-24\ncertainty = "text"\n'
        'controls = [{ id = "1", title = "c", attestation = [{ what = "w", role = "r" }] }]\n'
    )
    packs, _ = load_policies([str(tmp_path / "x.toml")])
    assert [c.id for c in packs[0].controls] == ["1"]
