"""What probes of language models are asked with, and what they say where something is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from auditor.core.errors import ConfigError, NotApplicableError, UsageError
from auditor.data.audit_data import AuditData
from auditor.models.audited_model import AuditedModel
from auditor.run.probe import make_probe
from auditor.run.run_audit import run_audit
from auditor.run.scan import probe_specs
from cli.scan_request import configure
from probes import PROBES
from probes.language.bbq import BBQ
from probes.language.bold_and_honest import Bold, Honest
from probes.language.crows_pairs_and_stereoset import CrowsPairs, StereoSet
from probes.language.generation_bias import GenerationBias
from probes.language.stereotype import Stereotype
from probes.language.winobias_winogender import WinoBias, Winogender
from tests import ROOT
from tests.probes.language.pair_toys import RNG, toy

# ---- what is missing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [CrowsPairs, StereoSet, WinoBias, Winogender, BBQ])
def test_without_its_file_a_benchmark_is_not_applicable(kind: type) -> None:
    report = run_audit(toy([("a b", "a c")], 0.0), None, [kind()])
    assert [f.outcome for f in report.findings] == ["NOT_APPLICABLE"]
    assert f"add --benchmark {kind.name}=PATH" in report.findings[0].reason  # type: ignore[attr-defined]


def test_a_classifier_is_not_applicable() -> None:
    model = AuditedModel.from_callable(lambda rows: np.zeros(len(rows)), classes=["no", "yes"])
    report = run_audit(model, None, [Stereotype()])
    assert report.findings[0].reason == "Needs a language model: this model is a classifier."
    model.kind = "language_model"  # type: ignore[misc]
    with pytest.raises(NotApplicableError, match="Needs the likelihoods of texts"):
        Stereotype().measure(model, AuditData(X=np.empty(0, object)), RNG)


def test_a_wrong_form_is_a_usage_error() -> None:
    for kind in (Stereotype, CrowsPairs, WinoBias, Winogender):
        with pytest.raises(ConfigError, match="form must be 'whole' or 'shared'"):
            make_probe(kind, {"form": "half"})


def test_importing_the_probes_is_light() -> None:
    code = "import sys, probes; sys.exit(any(m in sys.modules for m in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_every_probe_says_what_it_is() -> None:
    for kind in (Stereotype, CrowsPairs, StereoSet, WinoBias, Winogender, BBQ, GenerationBias, Bold, Honest):
        assert kind.pillar == "language" and kind.goal.endswith("?") and kind.citation and kind.methods and kind.__doc__
        assert PROBES[kind.name] is kind


def test_a_list_of_items_to_leave_out_goes_to_the_probe_that_it_names(tmp_path: Path) -> None:
    file, listed = (str(tmp_path / name) for name in ("crows.csv", "list.tsv"))
    for path in (file, listed):
        Path(path).write_text("x")
    given = {"model": "m", "benchmark": [f"crows_pairs={file}"]}

    def options(**more: object) -> dict[str, dict[str, object]]:
        configured = configure({**given, **more}, None, [])
        return {spec.name: dict(spec.options) for spec in probe_specs(configured, PROBES)}

    found = options(benchmark_filter=[f"crows-pairs={listed}"])
    assert found["crows_pairs"]["benchmark_filter"] == listed
    assert [name for name, own in found.items() if "benchmark_filter" in own] == ["crows_pairs"]
    assert "benchmark_filter" not in options()["crows_pairs"]
    for wrong, said in (
        (f"stereoset={listed}", "add --benchmark stereoset=PATH"),
        (f"bbq={listed}", "--benchmark-filter .* must look like NAME=PATH.* Known names: crows_pairs, stereoset"),
        (f"crows_pairs={listed}x", "benchmark filter file"),
    ):
        with pytest.raises(UsageError, match=said):
            options(benchmark_filter=[wrong])
