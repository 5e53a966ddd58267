"""The command line: what a user types, sees and gets back."""

from __future__ import annotations

import json
import os
import re
import resource
import selectors
import signal
import subprocess
import sys
import time
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pytest
import torch
from pydantic_core import SchemaError
from typer.testing import CliRunner, Result

from auditor.core.writable_paths import WRITTEN
from auditor.data.preprocessing import fit_tabular
from auditor.loading.sandbox import measuring_process
from auditor.models.networks.architectures import MLP
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from auditor.report.record.audit_report import NOT_REPEATED, AuditReport
from auditor.run.probe import make_probe
from cli.commands import INTERNAL_ERROR, app
from cli.scan_request import configure
from probes import PROBES
from probes.robustness.robustness import Robustness
from tests import ROOT
from tests.quantifiers import all_of

RUNNER = CliRunner()


def run(*arguments: object) -> Result:
    return RUNNER.invoke(app, [str(a) for a in arguments])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model that looks at one feature, and data where no group differs in it."""
    rng = np.random.default_rng(0)
    n = 12_000
    frame = pd.DataFrame({"a": rng.normal(size=n), "c": rng.choice(list("uvw"), n)})
    preprocessing = fit_tabular(frame)
    module = MLP(preprocessing.width, [], 2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        module.layers[0].weight[1, 0] = 3.0  # says yes where a lies above its mean
    model = TorchModel(
        module,
        classes=["no", "yes"],
        preprocessing=preprocessing,
        architecture={"name": "mlp", "args": {"n_features": preprocessing.width, "hidden": [], "n_outputs": 2}},
    )
    save(model, tmp_path / "model.pt")
    frame["sex"] = rng.choice(["f", "m"], n)
    # Nine in ten are what the model looks for: it knows something, of either group.
    frame["y"] = np.where((frame["a"] > 0.0) == (rng.random(n) < 0.9), "yes", "no")
    frame.to_csv(tmp_path / "data.csv", index=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


DATA = ("--data", "data.csv", "--target", "y", "--positive", "yes", "--sensitive", "sex", "--probes", "group-fairness")


def test_help_is_quick_and_imports_no_torch() -> None:
    code = (
        "import sys, cli.commands; sys.exit(any(m in sys.modules for m in ('torch', 'pandas', 'numpy', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        out = subprocess.run(
            [sys.executable, "-m", "cli.commands", "--help"], capture_output=True, text=True, check=True
        ).stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Processor time: how long it waits for a processor is the machine's affair.
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert "scan" in out
    assert min(seconds) < 0.4


def test_the_parent_of_a_scan_imports_no_torch() -> None:
    modules = "cli.scan, cli.scan_request, cli.report_outputs, probes, mitigations, auditor.report.html"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_measuring_process_imports_while_its_parent_does(here: Path) -> None:
    code = """if True:
        import sys
        from auditor.loading.sandbox import measuring_process
        start = measuring_process.start_child

        def noted(*where):
            print("early", not {"numpy", "probes", "cli.scan_request"} & set(sys.modules), flush=True)
            return start(*where)

        measuring_process.start_child = noted
        from cli.commands import INTERNAL_ERROR, app
        app(["scan", "model.pt", "--probes", "group_fairness"])
        """
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=here)
    assert out.returncode == 3, out.stderr
    assert out.stdout.count("early True") == out.stdout.count("early") == 1


def test_a_measuring_process_that_gets_no_job_ends_with_the_command(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[measuring_process.MeasuringProcess, int]] = []
    whole = measuring_process.MeasuringProcess

    def noted(*parts: Any) -> measuring_process.MeasuringProcess:
        process = whole(*parts)
        started.append((process, process.child.pid))
        return process

    monkeypatch.setattr(measuring_process, "MeasuringProcess", noted)
    assert run("scan", "nope.pt").exit_code == 2
    assert run("scan", "model.pt", "--probes", "group_fairnes").exit_code == 2
    assert len(started) == 2
    for process, pid in started:
        assert process.child.returncode == -signal.SIGKILL
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_bare_scan_says_what_each_probe_needs_and_is_no_pass(here: Path) -> None:
    result = run("scan", "model.pt")
    report = AuditReport.from_json((here / "audit-report/report.json").read_bytes())
    assert result.exit_code == report.exit_code == 3
    flags = {f.probe: f.reason for f in report.findings if f.outcome == "NOT_APPLICABLE"}
    assert set(flags) == set(PROBES) - {f.probe for f in report.findings if f.outcome != "NOT_APPLICABLE"}
    assert "--data" in flags["group_fairness"] and "--sensitive" in flags["group_fairness"]
    assert report.model.format == "auditor-model/1" and "weights_only=True" in report.model.loaded_by
    assert {f.metric for f in report.findings if f.probe == "intake"} >= {"nonfinite_parameters"}
    assert (here / "audit-report/report.html").read_text().startswith("<!DOCTYPE html>")


def test_exit_0_and_the_promise(here: Path) -> None:
    result = run("scan", "model.pt", *DATA, "--verbose")
    assert result.exit_code == 0, result.output
    assert "everything that was judged passed" in result.output
    said = " ".join(result.output.replace("\xa0", " ").split())
    assert "Each error budget has a rate of its own" in said and re.search(r"fairness 5 % over \d questions?", said)
    for name in ("PASS", "FAIL", "INCONCLUSIVE", "NOT_RUN", "NOT_APPLICABLE", "NOT_JUDGED"):
        assert re.search(rf"\b{name} \d", result.output)


def test_exit_1_on_a_planted_gap(here: Path) -> None:
    frame = pd.read_csv("data.csv")
    frame["sex"] = np.where(frame["a"] > 0.5, "f", "m")
    frame.to_csv("gap.csv", index=False)
    result = run("scan", "model.pt", "--data", "gap.csv", *DATA[2:], "--verbose")
    assert result.exit_code == 1, result.output
    assert "demographic_parity_difference, by sex" in result.output


def test_exit_3_on_a_sample_too_small_and_what_it_would_take(here: Path) -> None:
    pd.read_csv("data.csv").head(60).to_csv("few.csv", index=False)
    few = ("--data", "few.csv", *DATA[2:])
    result = run("scan", "model.pt", *few, "--verbose")
    assert result.exit_code == 3, result.output
    assert "four times in five, for this question alone." in result.output
    allowed = run("scan", "model.pt", *few, "--allow-inconclusive", "fairness", "--allow-inconclusive", "performance")
    assert allowed.exit_code == 0
    assert "inconclusive findings of fairness, performance were allowed" in " ".join(allowed.output.split())


def test_exit_4_still_writes_a_report(here: Path) -> None:
    (here / "bad.pt").write_bytes(b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.")
    result = run("scan", "bad.pt", *DATA)
    report = AuditReport.from_json((here / "audit-report/report.json").read_bytes())
    assert result.exit_code == report.exit_code == 4
    assert report.refusal is not None and "system" in report.refusal.reason
    assert "refused" in (here / "audit-report/report.html").read_text().lower()


@pytest.mark.grid
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nope.pt"], "There is no model at 'nope.pt'"),
        (["modle.pt"], "did you mean 'model.pt'?"),
        ([], "Name a model"),
        (["model.pt", "--target", "y"], "add --data FILE"),
        (["model.pt", "--data", "dta.csv"], "did you mean 'data.csv'?"),
        (["model.pt", "--data", "data.csv", "--target", "Y"], "did you mean 'y'?"),
        (["model.pt", "--data", "data.csv", "--target", "y", "--positive", "yess"], "did you mean 'yes'?"),
        (["model.pt", "--data", "data.csv", "--positive", "yes", "--sensitive", "sexx"], "did you mean 'sex'?"),
        (["model.pt", "--probes", "grop_fairness"], "did you mean 'group_fairness'?"),
        (["model.pt", "--probes", ","], "it names no probe: leave it out to ask all that apply"),
        (["model.pt", "--set", "group_fairness.intersection=1"], "did you mean 'intersections'?"),
        (["model.pt", "--set", "nonsense"], "probe.option=value"),
        (["model.pt", "--set", "source_leakage.same_identity=.x"], "same_identity must be a number, not '.x'"),
        (["model.pt", "--set", "source_leakage.same_identity=.9,.8"], "must be a number, not [0.9, 0.8]"),
        (["model.pt", "--set", "source_leakage.same_identity=-1.5"], "same_identity is a cosine"),
        (["model.pt", "--set", "group_fairness.intersections=no"], "must be true or false, not 'no'"),
        (["model.pt", "--policy", "auditor-default-1"], "auditor-default-3"),
        (["model.pt", "--error-rate", "2"], "less than or equal to 0.2"),
        (["model.pt", "--multiplicity", "bonferoni"], "'bonferroni'"),
        (["model.pt", "--multiplicity", "bh"], "findings of one scan depend on each other"),
        (["model.pt", "--max-memory", "lots"], "8GiB"),
        (["model.pt", "--format", "htm"], "did you mean 'html'?"),
        (["model.pt", "--config", "nope.toml"], "no configuration file"),
        (["model.pt", "--architecture-args", "{"], "no JSON"),
        (["model.pt", "--probe", "nonsense"], "package.module:Class"),
        (["model.pt", *DATA, "--positive", "yes", "--sensitive", "sex", "--sensitive-file", "data.csv"], "--join-on"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_2(here: Path, arguments: list[str], says: str) -> None:
    result = run("scan", *arguments)
    assert result.exit_code == 2, result.output
    assert says in result.output
    assert "Traceback" not in result.output
    assert len(result.output.strip().splitlines()) <= 2
    assert not (here / "audit-report/report.json").exists()


def test_json_is_the_report_and_nothing_else(here: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cli.commands", "scan", "model.pt", *DATA, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and done.stderr == ""
    assert (
        AuditReport.from_json(done.stdout).to_json() == done.stdout == (here / "audit-report/report.json").read_text()
    )


def test_the_report_holds_to_its_shipped_schema(here: Path) -> None:
    schema = json.loads((files("auditor.report.record") / "report.schema.json").read_text())
    for arguments in ((), DATA):
        run("scan", "model.pt", *arguments)
        jsonschema.validate(json.loads((here / "audit-report/report.json").read_text()), schema)


def test_quiet_prints_nothing(here: Path) -> None:
    assert run("scan", "model.pt", *DATA, "--quiet").output == ""


def test_same_seed_same_report(here: Path) -> None:
    reports = []
    for out in ("one", "two"):
        run("scan", "model.pt", *DATA, "--out", out, "--seed", "7")
        record = json.loads((here / out / "report.json").read_text())
        for name in NOT_REPEATED:
            del record[name]
        del record["environment"]["command"]
        reports.append(record)
    assert reports[0] == reports[1]


def test_audit_toml_holds_flags_options_and_criteria_and_flags_win(here: Path) -> None:
    (here / "audit.toml").write_text("""
[audit]
model = "model.pt"
data = "data.csv"
target = "y"
positive = "yes"
sensitive = ["sex"]
probes = "group_fairness"
error-rate = 0.10
seed = 3

[probes.group_fairness]
intersections = false

[[criteria]]
metric = "equal_opportunity_difference"
direction = "at_most"
bound = 0.2
set_by = "the committee"
set_at = "2026-01-31"
""")
    assert run("scan", "--config", "audit.toml", "--seed", "5").exit_code == 0
    report = AuditReport.from_json((here / "audit-report/report.json").read_bytes())
    assert report.environment.seed == 5 and report.family.error_rate == 0.10
    assert [(c.metric, c.bound, c.set_by) for c in report.criteria] == [
        ("equal_opportunity_difference", 0.2, "the committee")
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[audit]\nsensitve = ['sex']", "did you mean 'sensitive'?"),
        ("[adit]\nseed = 1", "did you mean 'audit'?"),
        ("[audit\nseed = 1", "cannot be read as TOML"),
        ("[audit]\nerror-rate = 0.01\nerror_rate = 0.02", "says 'error-rate' and 'error_rate': keep one"),
        ("[probes.group_fairness]\nintersection = true", "did you mean 'intersections'?"),
        ("[probes.grup_fairness]\nx = true", "did you mean 'group_fairness'?"),
        ("[[criteria]]\nmetrik = 'x'", "did you mean 'metric'?"),
        ("[[criteria]]\nmetric = 'x'\ndirection = 'below'\nbound = 1", "at_most, at_least, within"),
        ("[[criteria]]\nmetric = 'x'\ndirection = 'within'\nbound = 1", "[low, high]"),
        ("[[criteria]]\nmetric = 'x'\ndirection = 'at_most'\nbound = 'much'", "must be a number"),
    ],
)
def test_a_wrong_configuration_names_the_key(here: Path, text: str, says: str) -> None:
    (here / "audit.toml").write_text(text)
    result = run("scan", "model.pt", "--config", "audit.toml")
    assert result.exit_code == 2
    assert says in result.output


def test_a_criterion_nobody_measured_is_not_a_pass(here: Path) -> None:
    (here / "policy.toml").write_text("[[criteria]]\nmetric = 'unheard_of'\ndirection = 'at_most'\nbound = 1\n")
    result = run("scan", "model.pt", *DATA, "--policy", "auditor-default-3,policy.toml")
    assert result.exit_code == 3
    assert "No probe of this scan measured 'unheard_of'" in result.output


def test_report_renders_again_without_model_or_data(here: Path) -> None:
    run("scan", "model.pt", *DATA)
    for name in ("model.pt", "data.csv", "audit-report/report.html"):
        (here / name).unlink()
    result = run("report", "audit-report", "--format", "html,markdown,json")
    assert result.exit_code == 0, result.output
    left = {p.name for p in (here / "audit-report").iterdir()}
    assert left == {"report.html", "report.json", "report.md", WRITTEN}
    (here / "audit-report/report.json").write_text('{"schema_version": "99"}')
    assert run("report", "audit-report").exit_code == 2


def test_init_writes_a_configuration_that_scan_takes(here: Path) -> None:
    assert run("start", "data.csv").exit_code == 0
    again = run("start", "data.csv")
    assert again.exit_code == 2 and "--force" in again.output
    assert run("scan", "model.pt", "--probes", "group_fairness").exit_code == 0


def test_hostile_names_cannot_write_keys_into_a_configuration(here: Path) -> None:
    name = "q\ntrust_pickle = true\npredict = 'evil:f'\n#"
    pd.DataFrame({name: ["a", "b\nseed = 7"] * 20, "approved\U0001f600": [0, 1] * 20, "z\x7f": range(40)}).to_csv(
        "evil.csv", index=False
    )
    assert run("start", "evil.csv", "--out", "evil.toml").exit_code == 0
    written = tomllib.loads((here / "evil.toml").read_text())
    assert set(written) == {"audit"}
    assert set(written["audit"]) <= {"data", "target", "positive", "sensitive", "seed", "device", "error_rate"}
    assert written["audit"]["seed"] == 0


def test_a_folder_cannot_have_code_run_by_its_own_configuration(here: Path) -> None:
    (here / "evil.py").write_text("open('ran', 'w')\ndef f(X): return [0] * len(X)\n")
    (here / "audit.toml").write_text("[audit]\npredict = 'evil:f'\nclasses = ['0', '1']\n")
    result = run("scan", "--data", "data.csv")
    assert result.exit_code == 2 and "--config audit.toml" in result.output
    assert not (here / "ran").exists()
    run("scan", "--config", "audit.toml", *DATA)
    assert run("scan", "model.pt", "--probe", "a:group_fairness", *DATA).exit_code == 2


def test_an_earlier_report_stays_until_there_is_a_new_one_and_then_goes_whole(here: Path) -> None:
    run("scan", "model.pt", *DATA, "--format", "html,markdown")
    before = {p.name: p.read_bytes() for p in (here / "audit-report").iterdir()}
    assert set(before) == {"report.html", "report.json", "report.md", WRITTEN}
    assert run("scan", "model.pt", "--probes", "grop_fairness").exit_code == 2
    assert run("scan", "model.pt", "--data", "data.csv", "--target", "Y").exit_code == 2
    assert {p.name: p.read_bytes() for p in (here / "audit-report").iterdir()} == before
    run("scan", "model.pt", *DATA, "--seed", "9", "--format", "json")
    assert {p.name for p in (here / "audit-report").iterdir()} == {"report.json", WRITTEN}


# Where standard output is closed Python has none, buffered or not.
@pytest.mark.parametrize(("unbuffered", "to"), [("", ">/dev/full"), ("1", ">/dev/full"), ("", ">&-")])
def test_a_full_output_does_not_change_the_verdict(
    unbuffered: str, to: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    scan = f"{sys.executable} -m cli.commands scan model.pt {' '.join(DATA)} --format json {to}"
    assert subprocess.run(scan, shell=True, check=False).returncode == 0


def test_labels_that_were_not_given_are_named(here: Path) -> None:
    result = run("scan", "model.pt", *DATA[:2], *DATA[4:], "--verbose")
    assert "equalized_odds_difference was not measured: it needs true labels: add --target" in result.output


def test_the_files_own_classes_cannot_be_reordered(here: Path) -> None:
    result = run("scan", "model.pt", *DATA, "--classes", "yes,no")
    assert result.exit_code == 2 and "leave --classes out" in result.output


def test_the_tools_own_arithmetic_is_no_audit(here: Path) -> None:
    result = run("scan", "model.pt", "--data", "data.csv", "--probes", "feature_attribution")
    assert "PASS" in result.output and result.exit_code == 3


def test_a_model_that_draws_its_answers_is_not_audited(here: Path) -> None:
    (here / "mine.py").write_text("import numpy as np\ndef f(X): return np.random.default_rng().random(len(X))\n")
    result = run("scan", "--predict", "mine:f", "--classes", "no,yes", *DATA)
    assert result.exit_code == 3 and "differently when asked again" in result.output


@pytest.mark.parametrize("command", ["probes", "mitigate list"])
def test_the_tables_are_whole_in_a_pipe(command: str) -> None:
    rows = run(*command.split()).stdout.splitlines()
    experience = ["experience"] if command == "mitigate list" else []
    said = ["name", "pillar", "methods", "goal", "needs", "citation"]
    columns = [*said, *experience, "distribution", "version", "error"]
    assert rows[0].split("\t") == columns
    assert all_of(len(row.split("\t")) == len(columns) for row in rows)
    names = [row["name"] for row in json.loads(run(*command.split(), "--json").stdout)]
    assert names == [row.split("\t")[0] for row in rows[1:]]


def test_an_interrupt_leaves_no_half_written_report(here: Path) -> None:
    begun = here / "begun"
    (here / "slow.py").write_text(f"""
import pathlib, time
class Slow:
    '''Waits.'''
    name = "Slow"; pillar = "robustness"; goal = "To wait."; citation = ""; methods = (); needs = ()
    def measure(self, model, data, rng):
        pathlib.Path({str(begun)!r}).touch()
        time.sleep(600)
""")
    scan = subprocess.Popen(
        [sys.executable, "-m", "cli.commands", "scan", "model.pt", "--probe", "slow:Slow", "--probes", "group_fairness",
         "--allow-unsandboxed"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        # A background job of a shell ignores interrupts, and so would whatever it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    for _ in range(1200):
        if begun.exists() or scan.poll() is not None:
            break
        time.sleep(0.1)
    os.killpg(scan.pid, signal.SIGINT)
    _, err = scan.communicate(timeout=60)
    assert scan.returncode == 130 and "interrupted" in err and "Traceback" not in err, err
    assert list((here / "audit-report").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "code"), [("Field 'kind': KeyboardInterrupt: ", 130), ("Field 'kind': no such kind", INTERNAL_ERROR)]
)
def test_an_interrupt_that_a_library_made_an_error_of_its_own_of_is_one(
    words: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def builds(**_: object) -> None:
        raise SchemaError(words)

    monkeypatch.setattr("cli.probe_tables.print_probes", builds)
    result = run("probes")
    assert result.exit_code == code and ("interrupted" in result.output) is (code == 130)


def test_an_unwritable_folder_is_found_before_the_work(here: Path) -> None:
    (here / "file").write_text("")
    result = run("scan", "model.pt", *DATA, "--out", "file/below")
    assert result.exit_code == 2 and "--out" in result.output


def test_hostile_names_reach_the_terminal_harmless(here: Path) -> None:
    frame = pd.read_csv("data.csv")
    frame["sex"] = np.where(frame["sex"] == "f", "\x1b[31mred\x07", "m\u202e")
    frame.to_csv("hostile.csv", index=False)
    result = run("scan", "model.pt", "--data", "hostile.csv", *DATA[2:])
    assert "\x1b" not in result.output and "\x07" not in result.output and "\u202e" not in result.output


@pytest.mark.parametrize(
    ("written", "levels"),
    [("0.03,0.06", (0.03, 0.06)), ("0.03, 0.06", (0.03, 0.06)), ("[0.03, 0.06]", (0.03, 0.06)), ("0.03", (0.03,))],
)
def test_levels_are_set_with_commas_alone(written: str, levels: tuple[float, ...]) -> None:
    settings = [f"robustness.epsilon={written}", "robustness.methods=pgd"]
    options = configure({"model": "m.pt", "data": "d.csv"}, None, settings).probe_options["robustness"]
    probe = make_probe(PROBES["robustness"], options)
    assert isinstance(probe, Robustness) and probe.epsilon == levels and probe.wanted == ("pgd",)


def test_what_is_set_to_words_stays_as_it_is_typed() -> None:
    settings = ["a.b=x,y", "a.c=1,y", "a.d=TRUE", "a.e=1979-05-27,2", "a.f="]
    options = configure({"model": "m.pt", "data": "d.csv"}, None, settings).probe_options["a"]
    assert options == {"b": "x,y", "c": "1,y", "d": True, "e": "1979-05-27,2", "f": ""}


def test_the_demos_configuration_says_whom_it_is_about() -> None:
    configured = configure({"model": "m.pt", "data": "d.csv"}, str(ROOT / "demo" / "audit.toml"), [])
    assert configured.about is not None and configured.about.model.id == "mortgage-denial"
    assert {"afam", "afam.yes", "afam.no", "deny.no"} <= set(configured.labels.words)


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("probes", ["group-fairness", "group-fairness,adverse-impact,performance"])
def test_labels_of_a_scan_are_of_columns_and_values_that_are_there(here: Path, probes: str) -> None:
    """Streamed past the model and held in memory."""
    scan = ("scan", "model.pt", *DATA[:-1], probes, "--config", "labels.toml")
    for key, near in (("sxe", "'sex'"), ("sex.ff", "'f'"), ("y.yse", "'yes'")):
        (here / "labels.toml").write_text(f'[labels]\n"{key}" = "x"\n')
        result = run(*scan)
        assert result.exit_code == 2 and f"did you mean {near}" in result.stderr
    (here / "labels.toml").write_text('[labels]\nsex = "Sex"\n"sex.f" = "women"\n')
    assert run(*scan, "--lang", "de").exit_code == 0
    assert "women" in (here / "audit-report" / "report.json").read_text(encoding="utf-8")
    page = (here / "audit-report" / "report.html").read_text(encoding="utf-8")
    assert 'lang="de"' in page and "Werden Gruppen sonst gleich behandelt?" in page


def test_what_a_process_said_before_it_ended_is_heard_however_late(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def once_it_has(child: subprocess.Popen[bytes]) -> bool:
        return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT) is not None

    class Late(selectors.DefaultSelector):
        begun = False

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            first, self.begun = not self.begun, True
            return [] if first else super().select(timeout)

    monkeypatch.setattr("auditor.run.parent_process._has_died", once_it_has)
    monkeypatch.setattr("auditor.run.parent_process.selectors.DefaultSelector", Late)
    (here / "labels.toml").write_text('[labels]\n"sxe" = "x"\n')
    result = run("scan", "model.pt", *DATA, "--config", "labels.toml")
    assert result.exit_code == 2 and "did you mean 'sex'" in result.stderr


def test_an_unknown_section_key_or_language_is_refused_before_anything_runs(here: Path) -> None:
    (here / "about.toml").write_text('[model]\nnmae = "x"\n')
    result = run("scan", "model.pt", *DATA, "--config", "about.toml")
    assert result.exit_code == 2 and "did you mean 'name'" in result.stderr
    result = run("scan", "model.pt", *DATA, "--lang", "dee")
    assert result.exit_code == 2 and "did you mean 'de'" in result.stderr
    assert not (here / "audit-report").exists()


@pytest.mark.slow
@pytest.mark.parametrize("probes", ["group-fairness", "adverse-impact"])
def test_roles_are_of_columns_and_values_that_are_there(here: Path, probes: str) -> None:
    """Streamed past the model and held in memory."""
    scan = ("scan", "model.pt", *DATA[:-1], probes, "--policy", "nyc-ll144", "--config", "roles.toml")
    level = '[roles]\nrace_ethnicity = "sex"\n[roles.levels.race_ethnicity]\n'
    for text, said in (
        ('[roles]\nsexx = "sex"\n', "did you mean 'sex'"),
        ('[roles]\nsex = "sxe"\n', "[roles] has 'sxe', and the data have no such column; did you mean 'sex'"),
        (level + 'ff = "White"\n', "column 'sex' has no value 'ff'; did you mean 'f'"),
    ):
        (here / "roles.toml").write_text(text)
        result = run(*scan)
        assert result.exit_code == 2 and said in result.stderr


@pytest.mark.slow
def test_roles_are_in_the_record_the_bundle_and_the_plan(here: Path) -> None:
    (here / "roles.toml").write_text(
        '[audit]\nmodel = "model.pt"\ndata = "data.csv"\ntarget = "y"\nsensitive = ["sex"]\npositive = "yes"\n'
        'probes = ["adverse_impact"]\npolicy = ["nyc-ll144", "eu-ai-act"]\n[roles]\nsex = "sex"\n'
    )
    assert run("evidence", "keygen", "key").exit_code == 0
    assert run("evidence", "register", "roles.toml", "--sign", "key").exit_code == 0
    asked = (
        "scan",
        "--config",
        "roles.toml",
        "--registration",
        "registration.json",
        "--bundle",
        "audit.zip",
        "--sign",
        "key",
    )
    run(*asked)
    report = AuditReport.from_json((here / "audit-report" / "report.json").read_text(encoding="utf-8"))
    assert report.roles is not None and report.roles.columns == {"sex": "sex"}
    kinds = {(c.id, cell.what): cell.kind for c in report.controls for cell in c.cells}
    assert kinds["5-301(b)", "selection rate of every sex"] == "evidence"
    assert kinds["5-301(b)", "impact ratio of sex and race/ethnicity together"] == "not measured"
    assert report.registration is not None and report.registration.followed
    (followed,) = [cell for c in report.controls if c.id == "Art. 9(8)" for cell in c.cells if cell.said]
    assert followed.kind == "evidence"
    verified = " ".join(run("evidence", "verify", "audit.zip", "--all").output.split())
    assert "ok rule pack nyc-ll144: SHA-256 of its text, and" in verified and "ok rule pack eu-ai-act" in verified
    assert "WRONG" not in verified and "NOT PROVEN (registration)" in verified
    assert run("evidence", "verify", "audit.zip", "--key", "key.pub", "--require", "registration").exit_code == 0
    (here / "roles.toml").write_text((here / "roles.toml").read_text().replace('sex = "sex"\n', 'age = "sex"\n'))
    assert "[roles] of audit.toml" in run(*asked, "--force").output


def test_a_scan_publishes_its_renderings_and_not_its_evidence(here: Path) -> None:
    result = run(
        "scan", "model.pt", "--probes", "performance", "--bundle", "audit-report/e.zip", "--publish", "dir:all"
    )
    assert result.exit_code == 3, result.output
    (folder,) = [path for path in (here / "all").iterdir() if path.is_dir()]
    assert f"published {Path('all') / folder.name}" in result.output
    kept = {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}
    assert kept == {name: (here / "audit-report" / name).read_bytes() for name in ("report.html", "report.json")}
    assert (here / "audit-report" / "e.zip").exists()
