"""Audits where teams look for them: a folder, a real MLflow server, and what the other places' packages are told."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import huggingface_hub
import pytest
from typer.testing import CliRunner

from auditor.core.errors import MissingExtraError, UsageError
from auditor.evidence.publishing import COLUMNS, Published, parsed, publish, published
from auditor.report.record.audit_report import AuditReport
from auditor.report.report_view import document_id
from cli.commands import app
from cli.report_outputs import write_report
from tests.quantifiers import all_of
from tests.report.samples import sample_report

FILES = ("report.json", "report.html", "report.md")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    write_report(sample_report(), tmp_path / "audit-report", ["json", "html", "markdown"])
    return tmp_path / "audit-report"


@pytest.fixture
def audit(written: Path) -> Published:
    return published(sample_report(), document_id(sample_report()), tuple(written / name for name in FILES))


def run(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_every_judged_number_is_there_once_with_its_interval(audit: Published) -> None:
    report = sample_report()
    judged = [f for f in report.findings if f.criterion is not None]
    assert judged and [row[-1] for row in audit.rows] == [f.id for f in judged]
    assert all_of(len(row) == len(COLUMNS) for row in audit.rows)
    values = sorted(f.value for f in judged if f.value is not None)
    assert sorted(v for name, v in audit.numbers.items() if not name.endswith(("/low", "/high"))) == values
    ends = sorted(end for f in judged if f.interval for end in f.interval if end is not None)
    assert sorted(v for name, v in audit.numbers.items() if name.endswith(("/low", "/high"))) == ends
    assert audit.labels["auditor.document"] == document_id(report)
    assert audit.labels["auditor.exit_code"] == str(int(report.exit_code))
    assert audit.labels["auditor.fail"] == str(report.summary.fail)


def test_numbers_of_hostile_names_have_names_that_a_tracker_takes() -> None:
    names = published(sample_report(hostile=True), "d", ()).numbers
    assert names and all_of(re.fullmatch(r"[\w.\- /]+", name, re.ASCII) and len(name) <= 250 for name in names)


def test_a_folder_gets_it_under_its_document_and_again_the_same(written: Path, tmp_path: Path) -> None:
    for _ in range(2):
        result = run("report", "publish", written, "--to", f"dir:{tmp_path / 'all'}")
        assert result.exit_code == 0, result.output
    (folder,) = [path for path in (tmp_path / "all").iterdir() if path.is_dir()]
    assert folder.name == document_id(sample_report())[:16] and str(folder) in result.output
    for name in FILES:
        assert (folder / name).read_bytes() == (written / name).read_bytes()


def test_what_somebody_else_has_put_there_stays(written: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "all" / document_id(sample_report())[:16] / "report.html"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    result = run("report", "publish", written, "--to", f"dir:{tmp_path / 'all'}")
    assert result.exit_code == 2 and theirs.read_text() == "mine"


def test_a_rendering_of_another_audit_is_left_out_aloud(written: Path, tmp_path: Path) -> None:
    page = written / "report.html"
    page.write_text(page.read_text().replace("FAIL", "PASS"))
    result = run("report", "publish", written, "--to", f"dir:{tmp_path / 'all'}")
    assert result.exit_code == 0 and "report.html' is left out" in " ".join(result.output.split())
    (folder,) = [path for path in (tmp_path / "all").iterdir() if path.is_dir()]
    assert {path.name for path in folder.iterdir() if path.name.startswith("report")} == {"report.json", "report.md"}


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("mlfow", "did you mean 'mlflow'"),
        ("dir", "dir:FOLDER"),
        ("hf:", "hf:REPOSITORY"),
        ("https://ann:secret@h/x", "Known: dir:FOLDER"),
    ],
)
def test_a_place_that_is_none_is_said_before_anything_is_measured(where: str, says: str, written: Path) -> None:
    result = run("scan", "nope.pt", "--publish", where)
    assert result.exit_code == 2 and says.lower() in " ".join(result.output.lower().split()), result.output
    assert "secret" not in result.output
    with pytest.raises(UsageError):
        parsed(where)


def test_without_its_package_the_extra_is_named(audit: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match=r"responsible-auditor\[wandb\]"):
        publish(audit, "wandb")


def test_a_record_that_contradicts_itself_is_not_published(written: Path, tmp_path: Path) -> None:
    record = json.loads((written / "report.json").read_text())
    record["exit_code"] = 0 if record["exit_code"] else 1
    (written / "report.json").write_text(json.dumps(record))
    result = run("report", "publish", written, "--to", f"dir:{tmp_path / 'all'}")
    assert result.exit_code != 0 and "contradicts itself" in " ".join(result.output.split())
    assert not (tmp_path / "all").exists()


class Wandb(types.ModuleType):
    """The part of ``wandb`` 0.2x that is used: init, Table, Artifact, and a run's log, log_artifact and finish."""

    def __init__(self, *, down: bool = False) -> None:
        super().__init__("wandb")
        self.said: list[tuple[Any, ...]] = []
        self.down = down

    def init(self, *, project: str, job_type: str, name: str, config: dict[str, str]) -> Wandb:
        self.said.append(("init", project, job_type, name, config))
        return self

    @property
    def url(self) -> str:
        return "https://wandb.example/run"

    def Table(self, *, columns: list[str], data: list[list[object]]) -> object:
        return columns, data

    def Artifact(self, name: str, *, type: str, metadata: dict[str, str]) -> Any:
        self.said.append(("artifact", name, type))
        return types.SimpleNamespace(
            add_file=lambda path, name: self.said.append(("file", name, Path(path).read_bytes()))
        )

    def log(self, said: dict[str, object]) -> None:
        if self.down:
            raise ConnectionError("no route to host https://api:key123@h")
        self.said.append(("log", said))

    def log_artifact(self, artifact: object) -> None:
        self.said.append(("kept",))

    def finish(self, *, exit_code: int) -> None:
        self.said.append(("finish", exit_code))


def test_weights_and_biases_is_told_numbers_findings_and_files(
    audit: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    assert publish(audit, "wandb:credit") == "https://wandb.example/run"
    kinds = [said[0] for said in wandb.said]
    assert kinds == ["init", "log", "artifact", "file", "file", "file", "kept", "finish"]
    assert wandb.said[0][1] == "credit" and wandb.said[0][4] == audit.labels
    logged = wandb.said[1][1]
    columns, rows = logged.pop("audit/findings")
    assert logged == audit.numbers and tuple(columns) == COLUMNS and len(rows) == len(audit.rows)
    assert {name: content for _, name, content in (s for s in wandb.said if s[0] == "file")} == {
        file.name: file.read_bytes() for file in audit.files
    }
    assert wandb.said[-1] == ("finish", 0)


def test_a_place_that_does_not_answer_is_one_sentence_without_its_password(
    audit: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = Wandb(down=True)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    with pytest.raises(UsageError, match="Not published at wandb: no route to host") as caught:
        publish(audit, "wandb")
    assert "key123" not in str(caught.value) and wandb.said[-1] == ("finish", 1)


def test_the_hub_gets_one_commit(audit: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    commits: list[dict[str, Any]] = []

    class HfApi:
        def create_commit(self, **said: Any) -> Any:
            commits.append(said)
            return types.SimpleNamespace(commit_url="https://hf.example/commit/1")

    monkeypatch.setattr(huggingface_hub, "HfApi", HfApi)
    assert "https://hf.example/commit/1" in publish(audit, "hf:org/model")
    (commit,) = commits
    assert commit["repo_id"] == "org/model"
    assert {op.path_in_repo for op in commit["operations"]} == {
        f"audits/{audit.document[:16]}/{name}" for name in FILES
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if find_spec("mlflow") is None:
        pytest.skip("mlflow is not installed: its server is not asked")
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stores = ["--backend-store-uri", f"sqlite:///{folder / 'runs.db'}", "--artifacts-destination", str(folder / "kept")]
    words = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *stores]
    process = subprocess.Popen([sys.executable, "-m", "mlflow", *words], cwd=folder, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                with urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail("mlflow's server does not start")
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.slow
def test_a_real_mlflow_server_has_all_of_it(
    server: str, written: Path, audit: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    for _ in range(2):
        result = run("report", "publish", written, "--to", "mlflow:credit")
        assert result.exit_code == 0, result.output
    client = mlflow.MlflowClient(server)
    experiment = client.get_experiment_by_name("credit")
    found, _ = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED" and found.data.metrics == pytest.approx(dict(audit.numbers))
    assert {k: v for k, v in found.data.tags.items() if k.startswith("auditor.")} == dict(audit.labels)
    kept = Path(client.download_artifacts(found.info.run_id, "audit"))
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == {f.name: f.read_bytes() for f in audit.files}
    assert AuditReport.from_json((kept / "report.json").read_bytes()) == sample_report()
