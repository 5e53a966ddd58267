"""Evidence of trainings: each look is judged anew at its level, whoever has the key."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from auditor.core.errors import UsageError
from auditor.data.audit_data import AuditData
from auditor.evidence.comparison_evidence import write_evidence
from auditor.evidence.container import unpack
from auditor.evidence.signing import load_public_key, make_key
from auditor.evidence.training_evidence import LOOKS, LooksRecord
from auditor.evidence.verify.checks import Verified
from auditor.evidence.verify.dispatch import verify_evidence
from auditor.models.audited_model import AuditedModel
from auditor.report.comparing.compare_audits import compare
from auditor.run.run_audit import run_audit
from auditor.run.while_training.training_audit import AuditWarning, TrainingAudit
from cli.verify import stored_probe
from tests.evidence.derived import forged
from tests.run.while_training.worlds import SelectionRate
from tests.toys.models import criterion

Bend = Callable[[dict[str, Any]], object]
N, BOUND, LOOKED = 400, 0.3, (0.25, 0.6, 0.28, 0.2)


def trained() -> TrainingAudit:
    """Four looks, of which the second is an alarm."""
    data = AuditData.from_arrays(np.arange(N, dtype=np.float32)[:, None], np.zeros(N, int), classes=["0", "1"])
    audit = TrainingAudit(
        probes=[SelectionRate()],
        data=data,
        criteria=[criterion("selection_rate", "at_most", BOUND)],
        n_peeks=4,
        max_overhead=None,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AuditWarning)
        for rate in LOOKED:
            decided = (np.arange(N) < rate * N).astype(float)
            audit.step(AuditedModel.from_callable(lambda X, d=decided: d[X[:, 0].astype(int)], classes=["0", "1"]))
        audit.finish()
    return audit


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    make_key(folder / "k")
    write_evidence(trained(), folder / "t.zip", sign=folder / "k")
    return folder


def checked(path: Path, folder: Path) -> Verified:
    return verify_evidence(path, stored_probe, trusted=[load_public_key(folder / "k.pub")])


def wrong(found: Verified) -> dict[str, str]:
    return {check.name: check.detail for check in found.checks if check.state == "wrong"}


def test_a_training_is_made_anew_and_what_its_numbers_rest_on_is_open(folder: Path) -> None:
    found = checked(folder / "t.zip", folder)
    assert wrong(found) == {} and found.exit_code() == 3 and found.exit_code(("signature",)) == 0
    assert [each.where for each in found.open] == [f"{LOOKS}: results.*, looks.results.*"]
    record = json.loads(unpack((folder / "t.zip").read_bytes(), "t")["record.json"])
    assert [look["failed"] for look in record["training"]["looks"]] == [[], ["selection_rate"], [], []]
    assert record["training"]["closing"] and record["figures"]


def _finding(record: dict[str, Any], metric: str = "selection_rate") -> dict[str, Any]:
    return next(f for f in record["findings"] if f["metric"] == metric)


BENT: list[tuple[str, Bend, str]] = [
    ("alarm", lambda r: r["training"]["looks"][1].update(failed=[]), "training"),
    ("alarms", lambda r: _finding(r, "alarms").update(value=0.0), "findings"),
    ("level", lambda r: r["training"]["looks"][1].update(error_rate=0.05), "training"),
    ("outcome", lambda r: _finding(r).update(outcome="FAIL"), "findings"),
    ("p-value", lambda r: _finding(r).update(p_fail=0.5), "findings"),
    ("interval", lambda r: _finding(r).update(interval=[0.0, 0.9]), "findings"),
    ("figure", lambda r: r["figures"][0]["series"][0]["y"].__setitem__(1, 0.2), "figures"),
    ("dropped look", lambda r: r["training"]["looks"].pop(1), "training"),
    ("planned", lambda r: r["training"].update(planned=3), "training"),
    ("exit code", lambda r: r.update(exit_code=1), "exit_code"),
    ("criterion", lambda r: r["criteria"][0].update(bound=0.7), "criteria"),
    ("run", lambda r: r["training"].update(run="0" * 32), "training"),
]


@pytest.mark.grid
@pytest.mark.parametrize(("what", "bend", "named"), BENT, ids=[what for what, _, _ in BENT])
def test_a_bent_conclusion_is_named_though_the_right_key_signed_it(
    folder: Path, tmp_path: Path, what: str, bend: Bend, named: str
) -> None:
    found = checked(forged(folder / "t.zip", tmp_path / "f.zip", folder / "k", record=bend), folder)
    said = wrong(found)
    assert found.exit_code() == 1 and named in said and "signature" not in said, said


LIES: list[tuple[str, Bend]] = [
    ("level", lambda p: p["looks"][1].update(error_rate=1e-9)),
    ("beyond the plan", lambda p: p.update(n_peeks=1)),
    ("numbers", lambda p: p["looks"][0].update(look=3)),
    ("unjudged", lambda p: p["looks"][1].update(judged=False)),
    ("dropped", lambda p: p["looks"].pop(1)),
    ("bound", lambda p: p["criteria"][0].update(bound=0.7)),
    ("share", lambda p: p.update(closing_share=0.9)),
    ("rate", lambda p: p["run"].update(error_rate=0.001)),
    ("closing", lambda p: p["closing"].update(judged=False)),
    ("nothing", lambda p: p.clear()),
]


@pytest.mark.parametrize(("what", "lie"), LIES, ids=[what for what, _ in LIES])
def test_other_looks_do_not_come_to_the_record(folder: Path, tmp_path: Path, what: str, lie: Bend) -> None:
    content = json.loads(unpack((folder / "t.zip").read_bytes(), "t")[LOOKS])
    lie(content)
    path = forged(folder / "t.zip", tmp_path / "f.zip", folder / "k", {LOOKS: json.dumps(content).encode()})
    found = checked(path, folder)
    assert found.exit_code() == 1 and wrong(found)


def test_the_looks_come_back_as_they_were() -> None:
    audit = trained()
    assert audit.told is not None and audit.report is not None
    stored = LooksRecord.from_looks(*audit.told, audit.closing_share)
    looks, last = LooksRecord.model_validate_json(stored.model_dump_json()).to_looks()
    assert [peek.record for peek in looks.peeks] == [peek.record for peek in audit.peeks]
    assert last.results == audit.told[1].results


def test_what_has_no_evidence_is_said_in_a_sentence(tmp_path: Path) -> None:
    data = AuditData.from_arrays(np.zeros((4, 1), np.float32), np.zeros(4, int), classes=["0", "1"])
    unended = TrainingAudit(probes=[SelectionRate()], data=data)
    with pytest.raises(UsageError, match="call finish"):
        write_evidence(unended, tmp_path / "t.zip")
    with pytest.raises(UsageError, match="has no evidence"):
        write_evidence("report.json", tmp_path / "t.zip")  # type: ignore[arg-type]
    model = AuditedModel.from_callable(lambda X: X[:, 0], classes=["0", "1"])
    report = run_audit(model, data, [SelectionRate()])
    write_evidence(compare(report, report), tmp_path / "c.zip")
    assert wrong(verify_evidence(tmp_path / "c.zip", stored_probe)) == {}
