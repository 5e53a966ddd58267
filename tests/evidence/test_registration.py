"""Registered audits: whatever a run does otherwise than was registered is named, and nothing else is."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from auditor.core.errors import ConfigError, UsageError
from auditor.evidence.manifest import canonical
from auditor.evidence.registration import (
    Opened,
    Plan,
    PlannedProbe,
    Registration,
    deviations,
    digest_of,
    held_against,
    left_open,
    read_registration,
)
from auditor.evidence.signing import make_key
from auditor.judging.criterion import CriterionRecord
from auditor.report.html import render_html
from auditor.report.markdown import render_markdown
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.earlier_audits import RegistrationRecord
from auditor.run.scan_options import flags
from cli.audit_plan import FILES, plan_of
from cli.commands import app
from cli.scan_evidence import request_of
from cli.scan_request import configure
from cli.terminal import print_report
from tests.report.samples import sample_report

RUNNER = CliRunner()
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
A, B = "a" * 64, "b" * 64


@cache
def sampled(hostile: bool = False) -> AuditReport:
    return sample_report(hostile=hostile)


def requirement(**changes: Any) -> CriterionRecord:
    return CriterionRecord(
        **{
            "metric": "demographic_parity_difference",
            "direction": "at_most",
            "bound": 0.1,
            "source": "policy 4.2",
            "set_by": "Committee",
            "set_at": "2026-01-31",
            **changes,
        }
    )


def plan(**changes: Any) -> Plan:
    return Plan(
        **{
            "probes": {
                "group_fairness": PlannedProbe(
                    target="probes.fairness.group_fairness:GroupFairness", options={"min": 3}
                )
            },
            "settings": {"sensitive": ["sex", "race"], "target": "y", "threshold": None},
            "files": {"model": A, "data": B},
            "criteria": (requirement(), requirement(metric="attack_auc", bound=0.55)),
            "error_rate": 0.05,
            "multiplicity": "bonferroni",
            "seed": 0,
            **changes,
        }
    )


def registration(**changes: Any) -> Registration:
    return Registration(**{"registered": NOON.isoformat(), "by": "Ann", "tool": "1.0", "plan": plan(), **changes})


def held(run: Plan, *, opened: Opened | None = None, started: datetime | None = None, tool: str = "1.0") -> Any:
    opened = opened or Opened(registration(), (), None)
    started = started or NOON + timedelta(seconds=1)
    return held_against(opened, run, path="registration.json", started=started, tool=tool)


# ---- what is a deviation, and what is none ---------------------------------------------------------------------------


def test_the_same_plan_is_followed() -> None:
    record = held(plan())
    assert record.followed and record.deviations == () and record.not_fixed == ()
    assert record.describe().startswith("The run followed its registration. Registered on 2026-11-24T12:00:00+00:00 by")


_PROBE = PlannedProbe(target="probes.robustness.robustness:Robustness", options={})
_FAIRNESS = plan().probes["group_fairness"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"probes": {}}, ["The probe group_fairness was registered and not asked."]),
        (
            {"probes": {"group_fairness": _FAIRNESS, "robustness": _PROBE}},
            ["The probe robustness was asked and not registered."],
        ),
        (
            {"probes": {"a": _PROBE, "group_fairness": _FAIRNESS, "b": _PROBE}},
            ["The probes a, b were asked and not registered."],
        ),
        (
            {"probes": {"group_fairness": _FAIRNESS.model_copy(update={"options": {"min": 5}})}},
            ["Option group_fairness.min: 3 registered, 5 in this run."],
        ),
        (
            {"probes": {"group_fairness": _FAIRNESS.model_copy(update={"options": {"min": 3, "new": None}})}},
            ["Option group_fairness.new: not set registered, nothing in this run."],
        ),
        (
            {"probes": {"group_fairness": _FAIRNESS.model_copy(update={"target": "mine:GroupFairness"})}},
            [
                "The code of the probe group_fairness: probes.fairness.group_fairness:GroupFairness registered, "
                "mine:GroupFairness in this run."
            ],
        ),
        (
            {"settings": {"sensitive": ["sex"], "target": "y", "threshold": None}},
            ["--sensitive: sex, race registered, sex in this run."],
        ),
        (
            {"settings": {"sensitive": ["sex", "race"], "target": "y", "threshold": 0.4}},
            ["--threshold: nothing registered, 0.4 in this run."],
        ),
        (
            {"criteria": (requirement(bound=0.2), plan().criteria[1])},
            ["The bound of demographic_parity_difference: at most 0.1 registered, at most 0.2 in this run."],
        ),
        (
            {"criteria": (requirement(set_by="Bob"), plan().criteria[1])},
            [
                "Who set the bound of demographic_parity_difference: set by Committee on 2026-01-31, policy 4.2 "
                "registered, set by Bob on 2026-01-31, policy 4.2 in this run."
            ],
        ),
        (
            {"criteria": plan().criteria[:1]},
            ["The criterion attack_auc at most 0.55 was registered and not applied."],
        ),
        (
            {"criteria": (requirement(bound=0.01), *plan().criteria)},
            ["The criterion demographic_parity_difference at most 0.01 was applied and not registered."],
        ),
        (
            {"criteria": (*plan().criteria, requirement(group={"sex": "f"}))},
            ["The criterion demographic_parity_difference of sex = f at most 0.1 was applied and not registered."],
        ),
        ({"error_rate": 0.1}, ["The error rate: 0.05 registered, 0.1 in this run."]),
        ({"multiplicity": "none"}, ["The allowance for multiplicity: bonferroni registered, none in this run."]),
        ({"seed": 7}, ["The seed: 0 registered, 7 in this run."]),
        (
            {"files": {"model": B, "data": B}},
            ["The model is another: SHA-256 aaaaaaaaaaaaaaaa registered, bbbbbbbbbbbbbbbb in this run."],
        ),
        (
            {"files": {"model": A, "data": A}},
            ["The file of --data is another: SHA-256 bbbbbbbbbbbbbbbb registered, aaaaaaaaaaaaaaaa in this run."],
        ),
        ({"files": {"model": A}}, ["The file of --data was registered and is not in this run."]),
        (
            {"files": {"model": A, "data": B, "train": A}},
            ["The file of --train is in this run and was not registered."],
        ),
    ],
)
def test_each_deviation_is_named_and_no_other(change: dict[str, Any], said: list[str]) -> None:
    assert deviations(plan(), plan(**change)) == said
    assert list(held(plan(**change)).deviations) == said


def test_what_was_left_open_is_said_and_is_no_deviation() -> None:
    opened = Opened(registration(plan=plan(files={"data": None})), (), None)
    record = held(plan(), opened=opened)
    assert record.followed
    assert record.not_fixed == (
        "model: not named when it was registered",
        "data: not there when it was registered",
    )
    assert "Left open: model: not named" in record.describe()
    assert left_open(plan()) == () and held(plan(files={}), opened=opened).not_fixed == ()


def test_a_run_that_began_before_is_none_that_follows() -> None:
    early = held(plan(), started=NOON - timedelta(seconds=1))
    assert len(early.deviations) == 1 and "that is not before" in early.deviations[0]
    assert held(plan(), started=NOON).followed
    for when in ("yesterday", "2026-11-24T11:00:00"):  # no date, and one of no time zone
        opened = Opened(registration(registered=when), (), None)
        assert len(held(plan(), opened=opened).deviations) == 1


def test_another_version_of_the_tool_is_named() -> None:
    assert held(plan(), tool="1.1").deviations == ("auditor 1.0 was registered, auditor 1.1 ran.",)


# ---- the file --------------------------------------------------------------------------------------------------------


def test_the_file_is_plain_json_with_the_digest_of_its_canonical_text(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(registration().to_file())
    content = json.loads(path.read_text())
    said = content.pop("sha256")
    assert content.pop("signature") is None
    assert said == hashlib.sha256(canonical(content)).hexdigest() == registration().digest
    opened = read_registration(path)
    assert (opened.registration, opened.problems, opened.signed_with) == (registration(), (), None)


def _edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _new_bound(content: dict[str, Any]) -> None:
    content["plan"]["criteria"][0]["bound"] = 0.3


def _new_bound_and_digest(content: dict[str, Any]) -> None:
    _new_bound(content)
    inner = {k: v for k, v in content.items() if k not in ("sha256", "signature")}
    content["sha256"] = hashlib.sha256(canonical(inner)).hexdigest()


def _other_signature(content: dict[str, Any]) -> None:
    content["signature"]["signatures"][0]["sig"] = "AAAA"


@pytest.mark.parametrize("signature", ["no envelope", 3, [], {}, {"payload": 3}])
def test_a_signature_that_is_none_is_wrong(tmp_path: Path, signature: object) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(registration().to_file())
    _edit(path, lambda content: content.update(signature=signature))
    pytest.importorskip("cryptography", reason="the extra `evidence` is not installed")
    (problem,) = read_registration(path).problems
    assert problem.startswith("The registration's signature is wrong")


def test_a_changed_file_is_found_by_its_digest_or_its_signature(tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="the extra `evidence` is not installed")
    from auditor.evidence.signing import load_private_key

    mark = make_key(tmp_path / "key")
    key = load_private_key(tmp_path / "key")
    path = tmp_path / "r.json"

    def problems(change: Callable[[dict[str, Any]], None]) -> tuple[str, ...]:
        path.write_bytes(registration().to_file(key))
        assert read_registration(path) == Opened(registration(), (), mark)
        _edit(path, change)
        found = read_registration(path)
        assert found.signed_with == (None if "signature" in "".join(found.problems) else mark)
        return found.problems

    digest, signature = problems(_new_bound)
    assert "was changed after it was made" in digest and "another registration" in signature
    assert ["another registration" in p for p in problems(_new_bound_and_digest)] == [True]
    assert ["signature is wrong" in p for p in problems(_other_signature)] == [True]
    assert problems(lambda content: content.update(by="Bob"))
    assert problems(lambda content: content.update(registered="2020-01-01T00:00:00+00:00"))
    other = registration(by="Bob").to_file(key)
    assert problems(lambda content: content.update(signature=json.loads(other)["signature"]))


def test_every_changed_value_of_the_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    whole = json.loads(registration().to_file())

    def places(node: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        if isinstance(node, dict | list) and node:
            items = node.items() if isinstance(node, dict) else enumerate(node)
            return [way_ for key, value in items for way_ in places(value, (*way, key))]
        return [way]

    changed = 0
    for way in places(whole):
        content = json.loads(json.dumps(whole))
        node = content
        for key in way[:-1]:
            node = node[key]
        old = node[way[-1]]
        node[way[-1]] = old + "x" if isinstance(old, str) else 0.77 if isinstance(old, int | float) else "1"
        path.write_text(json.dumps(content))
        try:
            assert read_registration(path).problems, way
        except ConfigError:
            pass
        changed += 1
    assert changed > 30


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no registration"),
        (b"\xff\xfe", "is no registration"),
        (b"[]", "auditor evidence register audit.toml makes one"),
        (b"{}", "auditor evidence register audit.toml makes one"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"format": "auditor-registration/2"}', "upgrade responsible-auditor"),
        (b'{"format": "auditor-registration/1"}', "Field required"),
        (b'{"format": "auditor-registration/1", "more": 1}', "is no registration"),
        (b'{"format": "auditor-registration/1", "by": NaN}', "is no registration"),
    ],
)
def test_what_is_no_registration_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_registration(path)


def test_text_that_cannot_be_written_again_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(registration().to_file())
    _edit(path, lambda content: content["plan"]["settings"].update(target="\ud800"))
    with pytest.raises(ConfigError, match="is no registration"):
        read_registration(path)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="auditor evidence register audit.toml makes one"):
        read_registration(tmp_path / "r.json")
    with pytest.raises(UsageError, match="cannot be read"):
        read_registration(tmp_path)


# ---- digests of files ------------------------------------------------------------------------------------------------


def test_a_file_and_a_folder_have_digests(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "one").write_bytes(b"1")
    (tmp_path / "a" / "two").write_bytes(b"2")
    (tmp_path / "a" / ".hidden").write_bytes(b"3")
    one, two = (hashlib.sha256(x).hexdigest() for x in (b"1", b"2"))
    assert digest_of(tmp_path / "a" / "two") == two
    assert digest_of(tmp_path / "a") == hashlib.sha256(f"b/one\0{one}\ntwo\0{two}\n".encode()).hexdigest()
    assert digest_of(tmp_path / "none") is None
    before = digest_of(tmp_path / "a")
    (tmp_path / "a" / "two").rename(tmp_path / "a" / "three")
    assert digest_of(tmp_path / "a") != before


# ---- the plan of a configuration -------------------------------------------------------------------------------------

# Places, formats, resources, and what is in the plan under another name; nothing of these decides a number.
_ELSEWHERE = {
    "probes", "probe", "benchmark", "benchmark_filter", "scorer", "calibration", "chat", "system", "few_shot",
    "judge", "judge_key_env",
    "reference", "quantize", "ood", "decoder", "embedder", "policy", "as_of", "out", "format", "history", "db",
    "bundle", "sign", "timestamp", "include_rows", "redact", "seed", "device", "error_rate", "multiplicity",
    "max_memory", "executor", "address", "allow_code", "trust_pickle", "allow_unsandboxed", "json_", "quiet", "debug",
    "trust_anchors", "model_signer",
    "registration", "lang",
    "api_key_env", "max_calls", "concurrency", "allow_remote", "device_map",
}  # fmt: skip


def test_every_option_of_a_scan_is_in_the_plan_or_left_out_on_purpose() -> None:
    settings = {name for name, flag in flags().items() if flag.decides}
    assert set(flags()) - settings - set(FILES) == _ELSEWHERE
    assert not settings & set(FILES)


def test_a_number_format_is_fixed_where_one_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was registered before there were any stays as it was, and one that is chosen later is a deviation."""
    monkeypatch.chdir(tmp_path)
    Path("data.csv").write_text("x")
    Path("audit.toml").write_text('[audit]\ndata = "data.csv"\nprobes = ["bbq"]\n')
    before, after = (plan_of(configure(given, "audit.toml", [])) for given in ({}, {"dtype": "bfloat16"}))
    assert "dtype" not in before.settings and after.settings["dtype"] == "bfloat16"
    later = {
        "dtype", "stream", "no_controls", "cluster_at_most", "weight_at_most", "check_predictions", "judge_name",
    }  # fmt: skip
    assert set(before.settings) == {name for name, flag in flags().items() if flag.decides} - later
    assert deviations(before, after) == ["--dtype: nothing registered, bfloat16 in this run."]


def test_the_plan_follows_contents_and_not_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data.csv").write_text("x")
    lexicon = (files("auditor.data") / "lexicons" / "gender.toml").read_bytes()
    Path("lexicon.toml").write_bytes(lexicon)
    text = (
        '[audit]\ndata = "data.csv"\nsensitive = ["sex"]\nprobes = ["counterfactual_token_fairness"]\n'
        '[probes.counterfactual_token_fairness]\nlexicon = "lexicon.toml"\n'
    )
    Path("audit.toml").write_text(text)
    made = plan_of(configure({}, "audit.toml", []))
    assert made.files == {"data": hashlib.sha256(b"x").hexdigest()}
    of_it = f"sha256:{hashlib.sha256(lexicon).hexdigest()}"
    assert made.probes["counterfactual_token_fairness"].options == {"lexicon": of_it}
    assert made.settings["sensitive"] == ["sex"] and len(made.criteria) > 5
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("data.csv", "lexicon.toml", "audit.toml"):
        shutil.copy(name, moved / name)
    assert plan_of(configure({}, str(moved / "audit.toml"), [])) == made
    (moved / "lexicon.toml").write_bytes(lexicon + b"\n# changed\n")
    (deviation,) = deviations(made, plan_of(configure({}, str(moved / "audit.toml"), [])))
    assert deviation.startswith("Option counterfactual_token_fairness.lexicon: sha256:")


# ---- the commands ----------------------------------------------------------------------------------------------------


def run(*arguments: object) -> Result:
    return RUNNER.invoke(app, [str(a) for a in arguments])


CONFIG = """[audit]
predict = "mine:predict"
data = "data.csv"
target = "y"
positive = "1"
classes = ["0", "1"]
sensitive = ["sex"]
probes = ["group_fairness"]

[[criteria]]
metric = "demographic_parity_difference"
direction = "at_most"
bound = 0.2
set_by = "Committee"
set_at = "2026-01-31"
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rows = "".join(f"{i % 7},{'fm'[i % 2]},{i % 3 % 2}\n" for i in range(900))
    (tmp_path / "data.csv").write_text("a,sex,y\n" + rows)
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n\ndef predict(X):\n    return (np.asarray(X)[:, 0].astype(float) > 3).astype(float)\n"
    )
    (tmp_path / "audit.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scanned(*arguments: object) -> AuditReport:
    result = run("scan", "--config", "audit.toml", "--features", "a", "--registration", "registration.json", *arguments)
    assert result.exit_code in (0, 1, 3), result.output
    return AuditReport.from_json(Path("audit-report/report.json").read_bytes())


@pytest.mark.slow
def test_register_then_scan_then_deviate(here: Path) -> None:
    (here / "audit.toml").write_text(CONFIG.replace("probes =", 'features = ["a"]\nprobes ='))
    made = run("evidence", "register", "audit.toml", "--by", "Ann")
    first = made.output.splitlines()[0]
    assert made.exit_code == 0 and first.endswith(" by Ann; LEAVES OPEN model: not named when it was registered")
    digest = json.loads((here / "registration.json").read_text())["sha256"]
    assert digest in made.output and "note this digest elsewhere" in made.output
    again = run("evidence", "register", "audit.toml")
    assert again.exit_code == 2 and "is there already" in again.output

    plain = scanned()
    assert plain.registration is not None and plain.registration.followed, plain.registration
    assert (plain.registration.sha256, plain.registration.by) == (digest, "Ann")

    (here / "data.csv").write_text((here / "data.csv").read_text() + "1,f,1\n")
    other = scanned("--seed", "1", "--set", "group_fairness.intersections=false", "--multiplicity", "bonferroni")
    assert other.registration is not None
    assert [d.split(":")[0] for d in other.registration.deviations] == [
        "The file of --data is another",
        "Option group_fairness.intersections",
        "The allowance for multiplicity",
        "The seed",
    ]
    assert other.exit_code == plain.exit_code


def test_the_first_line_says_what_a_registration_leaves_open(here: Path) -> None:
    (here / "data.csv").unlink()
    first = run("evidence", "register", "audit.toml").output.splitlines()[0]
    assert first.startswith("registered  registration.json, ")
    assert first.endswith(
        "; LEAVES OPEN model: not named when it was registered; data: not there when it was registered"
    )
    (here / "m.pt").write_bytes(b"weights")
    (here / "data.csv").write_text("a\n")
    (here / "audit.toml").write_text(CONFIG.replace("[audit]\n", '[audit]\nmodel = "m.pt"\n'))
    assert "OPEN" not in run("evidence", "register", "audit.toml", "--out", "b.json").output


def test_scan_refuses_before_any_work_what_is_no_registration(here: Path) -> None:
    result = run("scan", "--config", "audit.toml", "--registration", "none.json")
    assert result.exit_code == 2 and "There is no registration" in result.output
    (here / "bad.json").write_text("{")
    result = run("scan", "--config", "audit.toml", "--registration", "bad.json")
    assert result.exit_code == 2 and "is no registration" in result.output
    assert not (here / "audit-report" / "report.json").exists()


def test_a_signed_registration_says_with_which_key(here: Path) -> None:
    pytest.importorskip("cryptography", reason="the extra `evidence` is not installed")
    mark = make_key(here / "key")
    result = run("evidence", "register", "audit.toml", "--sign", "key", "--out", "signed.json")
    assert result.exit_code == 0 and "not signed" not in result.output
    assert read_registration(here / "signed.json").signed_with == mark
    (here / "key").chmod(0o644)
    assert run("evidence", "register", "audit.toml", "--sign", "key", "--out", "b.json").exit_code == 2
    assert not (here / "b.json").exists()


def test_a_bundle_asks_nobody_to_have_the_registration(here: Path) -> None:
    configured = configure({"registration": "r.json", "seed": 3}, "audit.toml", [])
    assert configured.options.registration == "r.json"
    options = request_of(configured)["options"]
    assert isinstance(options, dict) and options["seed"] == 3 and "registration" not in options


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[audit]\nprobes = ['grup_fairness']\n", "did you mean 'group_fairness'"),
        ("[audit]\nprobes = ['group_fairness']\n[probes.group_fairness]\nnot_an_option = 1\n", "has no option"),
        ("[audit\n", "cannot be read as TOML"),
    ],
)
def test_a_wrong_configuration_is_not_registered(here: Path, text: str, message: str) -> None:
    (here / "audit.toml").write_text(text)
    result = run("evidence", "register", "audit.toml")
    assert result.exit_code == 2 and message in result.output
    assert not (here / "registration.json").exists()


# ---- what a reader sees ----------------------------------------------------------------------------------------------


def _shown(record: RegistrationRecord, capsys: pytest.CaptureFixture[str]) -> list[str]:
    report = sampled().model_copy(update={"registration": record})
    print_report(report, [], verbose=True)
    return [render_html(report), render_markdown(report), capsys.readouterr().out]


def test_a_deviation_is_loud_in_every_rendering(capsys: pytest.CaptureFixture[str]) -> None:
    record = held(plan(seed=7, probes={}))
    for said in _shown(record, capsys):
        assert "DEVIATES from its registration in 2 points" in said
        assert "The seed: 0 registered, 7 in this run." in said
        assert "No outcome and no exit code is changed by it." in said
        assert record.sha256[:16] in said
    html = _shown(record, capsys)[0]
    assert html.index("DEVIATES") < html.index("What could not be said")


def test_a_run_that_followed_says_so_and_one_without_says_that(capsys: pytest.CaptureFixture[str]) -> None:
    for said in _shown(held(plan()), capsys):
        assert "ollowed" in said and "DEVIATES" not in said and held(plan()).sha256[:16] in said
    without = render_html(sampled())
    assert "nothing shows that criteria were set before results were seen" in without


def test_hostile_registrations_stay_text(capsys: pytest.CaptureFixture[str]) -> None:
    nasty = "<script>alert(1)</script>\n\x1b[31m|`x`[a](http://b)"
    opened = Opened(registration(by=nasty, plan=plan(settings={nasty: nasty})), (), None)
    html, markdown, terminal = _shown(held(plan(), opened=opened), capsys)
    assert "<script>alert" not in html and "<script>" not in markdown and "[a](http" not in markdown
    assert "\x1b[31m" not in terminal


def test_a_criterion_that_stood_twice_and_stands_once_is_named() -> None:
    twice = plan(criteria=(requirement(), requirement()))
    once = plan(criteria=(requirement(),))
    assert any("was registered and not applied" in line for line in deviations(twice, once))
    assert any("was applied and not registered" in line for line in deviations(once, twice))
    assert deviations(twice, twice) == []


def test_other_code_of_ones_own_is_a_deviation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def predict(X): return X\n")
    then = plan_of(configure({"predict": "mine:predict"}, None, []))
    assert deviations(then, plan_of(configure({"predict": "mine:predict"}, None, []))) == []
    (tmp_path / "mine.py").write_text("def predict(X): return 1 - X\n")
    now = plan_of(configure({"predict": "mine:predict"}, None, []))
    assert any("The code of mine" in line for line in deviations(then, now))


def test_what_was_registered_and_did_not_run_is_a_deviation() -> None:
    from auditor.evidence.registration import with_what_became
    from auditor.report.record.earlier_audits import RegistrationRecord

    followed = RegistrationRecord(path="r.json", sha256="a" * 64, registered="2026-01-01T00:00:00+00:00")
    findings = sampled().findings
    assert with_what_became(followed, (), was_refused=False, planned=[]).deviations == ()
    assert "refused" in with_what_became(followed, (), was_refused=True, planned=[]).deviations[0]
    stopped = [f.probe for f in findings if f.outcome.value == "NOT_RUN" and f.metric is None]
    told = with_what_became(followed, findings, was_refused=False, planned=stopped).deviations
    assert bool(stopped) == bool(told)
