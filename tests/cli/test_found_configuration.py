"""An audit.toml that somebody else left in the folder changes nothing but what is measured."""

from __future__ import annotations

import hashlib
import inspect
import re
import socket
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

import auditor
from auditor.core.errors import AuditorError, ConfigError
from auditor.evidence.registration import deviations
from auditor.evidence.signing import make_key
from auditor.judging.criterion import load_criteria
from auditor.report.record.audit_report import AuditReport
from auditor.run.probe import untrusted_options
from auditor.run.scan_options import Configured, Flag, ScanOptions, flags
from cli.audit_plan import plan_of
from cli.commands import app
from cli.scan_request import configure
from probes import PROBES
from probes.fairness.group_fairness import GroupFairness
from tests.quantifiers import all_of, none_of

ALLOWED = """
[audit]
data = "data.csv"
target = "y"
positive = "yes"
sensitive = ["sex"]
probes = ["group_fairness"]
seed = 3
error_rate = 0.05
multiplicity = "holm"
allow_inconclusive = false
max_seconds = 60

[probes.group_fairness]
intersections = false

[labels]
sex = "Sex"

[model]
name = "Another's name"
"""
OF_THE_USER = {".ssh/authorized_keys": "ssh-ed25519 AAAA ann", "reports/report.html": "an earlier report"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's files, beside a folder of somebody else's."""
    for name, text in OF_THE_USER.items():
        path = tmp_path / "home" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "home"


@pytest.fixture
def folder(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of somebody else's, in which a scan is started."""
    own = tmp_path / "vendor"
    own.mkdir()
    monkeypatch.chdir(own)
    monkeypatch.delenv("AUDITOR_DB", raising=False)
    pd.DataFrame({"sex": ["f", "m"] * 20, "x": range(40), "y": ["yes", "no"] * 20}).to_csv("data.csv", index=False)
    (own / "evil.py").write_text("open('ran', 'w')\ndef f(X): return [0] * len(X)\n")
    (own / "q.sql").write_text("SELECT 1")
    return own


def found(text: str) -> Configured:
    """What a scan is configured to where the folder's own audit.toml says this."""
    Path("audit.toml").write_text(text)
    return configure({"model": "model.pt"}, None, [])


def state(*folders: Path) -> dict[str, str]:
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# ---- what is refused -----------------------------------------------------------------------------------------------

# A value, which is not the default, for each option that no found file may say: true, words, or one of these.
SPECIAL = {
    "query": '"q.sql"', "probe": '["evil:P"]', "policy": '"gdpr"', "as_of": "2020-01-01", "out": '"../home/reports"',
    "format": '"pdf"', "lang": '"de"', "allow_inconclusive": '["privacy"]', "cluster_at_most": "9",
    "weight_at_most": "9.0", "db": '"history.db"', "campaign_looks": "2", "error_rate": "0.2",
    "bundle": '"../home/.ssh/authorized_keys"', "sign": '"../home/key"', "multiplicity": '"none"',
    "architecture": '"evil:N"', "architecture_args": "{ a = 1 }", "predict": '"evil:f"',
}  # fmt: skip
GIVEN = {
    name: SPECIAL.get(name, "true" if flag.typed is bool else '"words"')
    for name, flag in flags().items()
    if flag.found == "given"
}
CRITERION = '[[criteria]]\nmetric = "accuracy"\ndirection = "at_least"\nbound = 0\nset_by = "European Commission"\n'
TRAPS = {
    **{name: (f"[audit]\n{flags()[name].key(name)} = {value}\n", flags()[name].key(name))
       for name, value in GIVEN.items()},
    "spelled with a hyphen": ("[audit]\nerror-rate = 0.2\n", "error_rate"),
    "an empty name": ('[audit]\npredict = "evil:f"\nclasses = ["0", "1"]\n', "predict"),
    "criteria": (CRITERION, "[[criteria]]"),
    "budgets": ("[budgets]\nfairness = 0.1\n", "[budgets]"),
    "roles": ('[roles]\nsex = "x"\n', "[roles]"),
    "more seconds": ("[audit]\nmax_seconds = 1e6\n", "max_seconds"),
    "more memory": ('[audit]\nmax_memory = "900TiB"\n', "max_memory"),
    "a database": ('[audit]\ndata = "postgresql://127.0.0.1:1/x"\n', "data, which is a database"),
    "predictions in a database": ('[audit]\npredictions = "mysql://u:p@h/x"\n', "predictions, which is a database"),
    "rows elsewhere": ('[audit]\ndata = "../home/rows.csv"\n', "data, which lies outside"),
    "an absolute path": ('[audit]\ntrain = "/etc/passwd"\n', "train, which lies outside"),
    "a benchmark elsewhere": ('[audit]\nbenchmark = ["bold=../home/b.json"]\n', "benchmark, which lies outside"),
    "an option elsewhere": ('[probes.honest]\nlexicon = "../home/words"\n', "[probes.honest] lexicon, which lies"),
    "one of a list elsewhere": ('[probes.bold.benchmarks]\nbold = "/etc/passwd"\n', "[probes.bold] benchmarks, which"),
    "a folder to write": ('[probes.membership_inference]\ncheckpoint = "c"\n', "[probes.membership_inference] check"),
    "groups too small to see": ("[probes.group-fairness]\nmin-share = 0.9\n", "[probes.group-fairness] min-share"),
    "rows of people": ("[probes.token_attribution]\nshow_texts = true\n", "[probes.token_attribution] show_texts"),
    "a fact": ("[probes.regression_fairness]\nvalue_range = [0, 1]\n", "[probes.regression_fairness] value_range"),
    "whose history": ('[model]\nid = "ours"\n', "[model] id"),
    "when it is due": ("[model]\nnext_due = 2099-01-01\n", "[model] next_due"),
    "how often it is due": ('[model]\naudit_every = "9999d"\n', "[model] audit_every"),
}  # fmt: skip


@pytest.mark.parametrize("trap", TRAPS)
def test_a_found_file_that_says_more_is_refused_in_one_sentence_with_its_keys(folder: Path, trap: str) -> None:
    text, key = TRAPS[trap]
    with pytest.raises(ConfigError) as caught:
        found(text)
    said = str(caught.value)
    assert key in said and "--config audit.toml obeys it" in said
    assert said.startswith("./audit.toml was only found here") and said.count(". ") == 0 and "\n" not in said
    # The same file is obeyed, or wrong for another reason, where somebody names it.
    try:
        configure({"model": "model.pt"}, "audit.toml", [])
    except AuditorError as error:
        assert "only found" not in str(error)


def test_all_keys_are_named_and_many_are_counted(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"\(bundle, out, \[\[criteria\]\], \[model\] id\)"):
        found('[audit]\nbundle = "b.zip"\nout = "x"\n[model]\nid = "m"\n' + CRITERION)
    many = "".join(f"{flags()[name].key(name)} = {value}\n" for name, value in GIVEN.items())
    with pytest.raises(ConfigError, match=rf"query, .*, {len(GIVEN) - 12} more\)"):
        found(f"[audit]\n{many}")


def test_a_link_that_leaves_the_folder_is_refused_at_any_depth(folder: Path, home: Path) -> None:
    (folder / "rows.csv").symlink_to(home / "reports" / "report.html")
    (folder / "media" / "deep").mkdir(parents=True)
    for place in ("rows.csv", "media"):
        Path("audit.toml").write_text(f'[audit]\nood = "{place}"\n')
        if place == "media":
            assert configure({}, None, []).options.ood == "media"
            (folder / "media" / "deep" / "a.png").symlink_to(home / "reports")
        with pytest.raises(ConfigError, match="ood, which lies outside"):
            configure({}, None, [])
    inside = folder / "inside.csv"
    inside.symlink_to("data.csv")
    assert found('[audit]\ndata = "inside.csv"\n').options.data == "inside.csv"


def test_a_configuration_that_is_a_link_out_of_the_folder_is_refused(folder: Path, home: Path) -> None:
    (home / "audit.toml").write_text("[audit]\nseed = 1\n")
    (folder / "audit.toml").symlink_to(home / "audit.toml")
    with pytest.raises(ConfigError, match=r"a link to a file elsewhere: read it, and then --config audit.toml obeys"):
        configure({}, None, [])
    assert configure({}, "audit.toml", []).options.seed == 1


def test_a_probe_of_another_package_is_its_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.scan_request.known_probes", lambda catalogue: {"theirs": object()})
    for text in ('[audit]\nprobes = ["theirs"]\n', "[probes.theirs]\na = 1\n"):
        with pytest.raises(ConfigError, match="theirs.*of another package.*--config audit.toml"):
            found(text)
    Path("audit.toml").write_text("[probes.Mine]\na = 1\n")
    with pytest.raises(ConfigError, match=r"\[probes.Mine\], of another package"):
        configure({"probe": ["mine:Mine"]}, None, [])


# ---- nothing happens -----------------------------------------------------------------------------------------------


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(0.05)
        yield server


def test_a_hostile_file_writes_signs_runs_and_connects_to_nothing(
    folder: Path, home: Path, listener: socket.socket
) -> None:
    make_key(home / "key")
    port = listener.getsockname()[1]
    Path("audit.toml").write_text(
        '[audit]\nbundle = "../home/.ssh/authorized_keys"\nout = "../home/reports"\nsign = "../home/key"\n'
        f'history = true\ndb = "postgresql://ann:secret@127.0.0.1:{port}/x"\nallow_inconclusive = ["privacy"]\n'
        'predict = "evil:f"\nclasses = ["0", "1"]\nmultiplicity = "none"\n'
    )
    before = state(folder, home)
    result = CliRunner().invoke(app, ["scan", "--data", "data.csv", "--force"])
    assert result.exit_code == 2 and "only found here" in result.output and "secret" not in result.output
    assert state(folder, home) == before
    with pytest.raises(TimeoutError):
        listener.accept()


def test_what_is_allowed_is_obeyed_and_nothing_else_is_changed(folder: Path) -> None:
    configured, unasked = found(ALLOWED), ScanOptions()
    options = configured.options
    assert (options.data, options.target, options.sensitive, options.seed) == ("data.csv", "y", ("sex",), 3)
    assert configured.probe_options == {"group_fairness": {"intersections": False}}
    given = [name for name, flag in flags().items() if flag.found == "given"]
    assert len(given) >= 29
    assert all_of(getattr(options, name) == getattr(unasked, name) for name in given)
    assert list(configured.criteria) == load_criteria() and not configured.policies


def test_a_flag_wins_over_a_found_file_which_must_still_ask_for_no_more(folder: Path) -> None:
    Path("audit.toml").write_text("[audit]\nseed = 3\n")
    assert configure({"seed": 5}, None, []).options.seed == 5
    assert configure({"out": "mine", "error_rate": 0.1}, None, []).options.out == "mine"
    Path("audit.toml").write_text('[audit]\nout = "theirs"\n')
    with pytest.raises(ConfigError, match=r"\(out\)"):
        configure({"out": "mine"}, None, [])


# ---- no option without a decision ----------------------------------------------------------------------------------


def test_a_new_flag_without_a_decision_cannot_be_declared() -> None:
    with pytest.raises(TypeError, match="found"):
        Flag(help="Something new.")  # type: ignore[call-arg]


def test_what_writes_runs_code_or_goes_elsewhere_is_never_a_found_file_s_to_say() -> None:
    known = flags()
    assert set(known) == {each.name for each in fields(ScanOptions)}
    wants = {name for name, flag in known.items() if flag.writes or flag.runs_code or name.startswith("allow_")}
    assert wants >= {"out", "bundle", "predict", "architecture", "probe", "allow_inconclusive", "trust_pickle"}
    assert all_of(known[name].found == "given" for name in wants)
    assert all_of(known[name].found in ("reads", "given") for name, flag in known.items() if flag.is_path)
    assert set(SPECIAL) <= {name for name, flag in known.items() if flag.found == "given"}
    # What is more than a name of a column, a label, a probe or a number is on this list by a decision.
    asks = {name for name, flag in known.items() if flag.found == "asks"}
    assert asks == {
        "score", "predicted", "loss", "generated", "target", "positive", "sensitive", "bins", "cluster", "weight",
        "join_on", "features", "text", "image", "task", "classes", "outputs", "threshold", "probes", "seed", "device",
        "dtype", "device_map", "chat", "few_shot", "quantize", "stream",
    }  # fmt: skip
    assert {name for name, flag in known.items() if flag.found == "lowers"} == {
        "max_memory",
        "max_seconds",
        "max_calls",
    }


# Options of probes that take text and name no file, by a decision each. Any other that takes text is taken to name one.
NO_FILE = {
    "answer_by", "attribute", "author", "baseline", "cases", "categories", "chat", "column", "features", "form",
    "format", "generator", "identity", "immutable", "infill", "item", "length", "method", "methods", "own", "position",
    "prefix_token", "proxies", "quantize", "scorer_class", "separator", "strata", "target", "tests", "trigger", "unit",
    "until",
}  # fmt: skip
# They write, run code, take more memory, print what single rows hold, say what is too little to be looked at, leave
# out what would be, or state a fact that intervals rest on.
NEVER = {
    "benchmark_filter", "checkpoint", "decoder", "embedder", "exclude_small", "margin", "max_memory", "min_hits",
    "min_rows", "min_share", "min_words", "proxy_strength", "same_identity", "show_samples", "show_texts", "small",
    "value_range",
}  # fmt: skip
ALLOWED_TO = {(key, name): use for key, kind in PROBES.items() for name, use in untrusted_options(kind).items()}


def test_an_option_that_may_name_a_file_is_read_inside_the_folder_or_not_for_a_found_file_to_set() -> None:
    textual = {
        name
        for key, kind in PROBES.items()
        for name, each in inspect.signature(kind).parameters.items()
        if ALLOWED_TO.get((key, name)) == "measures"
        and set(re.findall(r"\w+", str(each.annotation))) - {"Sequence", "None", "int", "float", "bool"}
    }
    assert textual == NO_FILE


def test_no_probe_lets_a_found_file_write_or_hold_it_to_less() -> None:
    taken = {name for kind in PROBES.values() for name in inspect.signature(kind).parameters}
    assert taken > NEVER and none_of(name in NEVER for _, name in ALLOWED_TO)
    # A name that no probe takes is a slip of the pen.
    assert taken > {name for _, name in ALLOWED_TO}


@pytest.mark.parametrize(("key", "name"), [place for place, use in ALLOWED_TO.items() if use == "reads"])
def test_a_file_that_a_probe_reads_lies_inside_the_folder(folder: Path, key: str, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"\[probes\.{key}\] {name}, which lies outside of it"):
        found(f'[probes.{key}]\n{name} = "../home/words"\n')


def test_an_option_that_a_probe_says_nothing_of_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found("[probes.group_fairness]\nstrata = 'x'\n").probe_options == {"group_fairness": {"strata": "x"}}
    monkeypatch.delattr(GroupFairness, "untrusted_options")
    with pytest.raises(ConfigError, match=r"\[probes\.group_fairness\] strata\)"):
        found("[probes.group_fairness]\nstrata = 'x'\n")


# ---- the record ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [None, "audit.toml"])
def test_terminal_and_record_name_what_was_obeyed_with_its_digest(folder: Path, config: str | None) -> None:
    pd.read_csv("data.csv").assign(p=lambda f: f["y"]).to_csv("data.csv", index=False)
    Path("audit.toml").write_text(ALLOWED.replace("data =", 'predicted = "p"\npredictions ='))
    named = [] if config is None else ["--config", config]
    result = CliRunner().invoke(app, ["scan", *named, "--seed", "4"])
    assert result.exit_code in (0, 1, 3), result.output
    report = AuditReport.from_json(Path("audit-report/report.json").read_bytes())
    first, profile = report.obeyed
    digest = hashlib.sha256(Path("audit.toml").read_bytes()).hexdigest()
    assert (first.path, first.role, first.sha256) == ("audit.toml", "configuration", digest)
    assert first.origin == ("found" if config is None else "given")
    assert {"predictions", "target", "probes.group_fairness.intersections", "model.name", "labels"} <= set(first.keys)
    assert "seed" not in first.keys  # a flag said it
    assert (profile.path, profile.role, profile.origin) == ("auditor-default-3", "criteria", "shipped")
    line = next(line for line in result.output.splitlines() if line.startswith("config "))
    assert digest in line and "model.name" in line
    assert ("found where the audit was started" in line) is (config is None)
    page = Path("audit-report/report.html").read_text()
    assert ("found where the audit was started" in page) is (config is None)


def test_digest_and_content_are_the_same_bytes(folder: Path) -> None:
    """Each file that decides is opened once, so that another one cannot be digested than was obeyed."""
    Path("own.toml").write_bytes(CRITERION.replace("\n", "\r\n").encode())
    Path("words.toml").write_text('[scope]\ntitle = "Scope of it"\n')
    Path("audit.toml").write_text('[audit]\npolicy = "own.toml"\nlang = "words.toml"\n')
    opened: list[str] = []

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and str(arguments[0]).endswith(".toml") and listening:
            opened.append(Path(str(arguments[0])).name)

    listening = True
    sys.addaudithook(heard)
    try:
        configured = configure({}, "audit.toml", [])
    finally:
        listening = False
    # The tool's own may be read as well.
    assert sorted(set(opened) & {path.name for path in folder.iterdir()}) == ["audit.toml", "own.toml", "words.toml"]
    assert all_of(opened.count(name) == 1 for name in ("audit.toml", "own.toml", "words.toml"))
    assert [(o.path, o.role, o.origin) for o in configured.obeyed] == [
        ("audit.toml", "configuration", "given"),
        ("own.toml", "criteria", "given"),
        ("words.toml", "catalogue", "given"),
    ]
    assert all_of(o.sha256 == hashlib.sha256(Path(o.path).read_bytes()).hexdigest() for o in configured.obeyed)
    assert [c.set_by for c in configured.criteria] == ["European Commission"]
    assert configured.about is not None and configured.about.words == {"scope.title": "Scope of it"}


def test_only_what_decides_is_named(folder: Path) -> None:
    Path("audit.toml").write_text(CRITERION)
    (own,) = configure({}, "audit.toml", []).obeyed
    assert own.keys == ("criteria",)
    # What --policy requires takes the place of the file's own.
    own, profile = configure({"policy": "auditor-default-3"}, "audit.toml", []).obeyed
    assert own.keys == () and profile.path == "auditor-default-3"
    Path("audit.toml").unlink()
    pack, profile = configure({"policy": "gdpr"}, None, []).obeyed
    assert (pack.role, pack.origin, profile.role) == ("rule pack", "shipped", "criteria")


@pytest.mark.parametrize(
    "command",
    [
        ("explain", "model.pt", "--row", "1"),
        ("mitigate", "group-thresholds", "model.pt", "--out", "fair.pt"),
        ("tradeoff", "group-thresholds", "model.pt", "--sweep", "alpha=0,1", "--out", "sweep"),
    ],
)
def test_every_command_that_reads_it_refuses_the_same(folder: Path, command: tuple[str, ...]) -> None:
    Path("audit.toml").write_text(CRITERION)
    before = state(folder)
    result = CliRunner().invoke(app, [*command, "--data", "data.csv"])
    assert result.exit_code == 2 and "only found here" in result.output and "[[criteria]]" in result.output
    assert state(folder) == before


def test_a_registration_names_the_files_that_its_plan_is_of_and_another_rule_pack_deviates(folder: Path) -> None:
    pack = (
        'title = "t"\nsource = "s"\nchecked_on = 2026-11-24\ncertainty = "text"\n'
        'controls = [{ id = "1", title = "c", attestation = [{ what = "w", role = "r" }] }]\n'
    )
    Path("pack.toml").write_text(pack)
    Path("audit.toml").write_text('[audit]\ndata = "data.csv"\ntarget = "y"\npolicy = "pack.toml"\n')
    result = CliRunner().invoke(app, ["evidence", "register", "audit.toml"])
    assert result.exit_code == 0, result.output
    then = plan_of(configure({}, "audit.toml", []))
    digests = {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in ("audit.toml", "pack.toml")}
    assert [(f.role, f.name) for f in then.configuration] == [
        ("configuration", "audit.toml"), ("rule pack", "pack.toml"), ("criteria", "auditor-default-3"),
    ]  # fmt: skip
    assert {f.name: f.sha256 for f in then.configuration} | digests == {f.name: f.sha256 for f in then.configuration}
    assert all_of(f"{digest}  {name}" in result.output for name, digest in digests.items())
    # Other words for the same plan are no deviation.
    Path("audit.toml").write_text("# checked\n" + Path("audit.toml").read_text())
    assert deviations(then, plan_of(configure({}, "audit.toml", []))) == []
    Path("pack.toml").write_text(pack.replace('"w"', '"less"'))
    (said,) = deviations(then, plan_of(configure({}, "audit.toml", [])))
    assert said.startswith(f"The rule pack pack.toml: {digests['pack.toml'][:16]} registered, ")
    (said,) = deviations(then, plan_of(configure({"policy": "auditor-default-3"}, "audit.toml", [])))
    assert said.endswith("registered, nothing in this run.")


def test_from_python_the_files_of_policy_are_named_and_no_audit_toml_is_read(folder: Path) -> None:
    Path("audit.toml").write_text(CRITERION)
    rows = pd.DataFrame({"sex": ["f", "m"] * 20, "p": ["yes", "no"] * 20, "y": ["yes", "no"] * 20})
    said = {"target": "y", "positive": "yes", "sensitive": ["sex"], "probes": ["group_fairness"], "predicted": "p"}
    asked = auditor.scan(None, predictions=rows, policy=["gdpr"], **said)
    assert [(f.path, f.role, f.origin) for f in asked.obeyed] == [
        ("gdpr", "rule pack", "shipped"),
        ("auditor-default-3", "criteria", "shipped"),
    ]
    own = [c for c in load_criteria() if c.metric == "accuracy"] or load_criteria()[:1]
    assert auditor.scan(None, predictions=rows, criteria=own, **said).obeyed == ()


@pytest.mark.parametrize(("day", "in_force"), [("2026-12-01", False), ("2026-12-02", True)])
def test_controls_are_in_force_as_of_the_day_that_the_scan_names(day: str, in_force: bool) -> None:
    rows = pd.DataFrame({"sex": ["f", "m"] * 20, "p": ["yes", "no"] * 20, "y": ["yes", "no"] * 20})
    said = {"target": "y", "positive": "yes", "sensitive": ["sex"], "probes": ["group_fairness"], "predicted": "p"}
    report = auditor.scan(None, predictions=rows, policy=["eu-ai-act"], as_of=day, **said)
    (control,) = (control for control in report.controls if control.id == "Art. 5(1)(ba), (bb)")
    assert ([pack.as_of for pack in report.policies], control.in_force) == ([day], in_force)
