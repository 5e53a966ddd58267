"""Clusters that a log shows by itself: taken where samples share a document, named, and never of a mere category."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from auditor.data.audit_data import AuditData
from auditor.data.audit_data_parts import LogSummary, Recorded, design_of
from auditor.loading.job_specs import DataSpec, RecordedSpec
from auditor.loading.rows.data_without_model import load_logged
from auditor.models.recorded_model import RecordedEvaluation as Logged
from auditor.statistics.clusters import ClusteredRates, WorstClusteredDifference, clustered_mean
from probes.performance.recorded_evaluation import RecordedEvaluation
from tests.quantifiers import all_of
from tests.toys import logs

SCORES = [1.0, 1.0, 0.0] * 20
LONG = "A long passage of which several questions are asked, and whose reader either understands it or does not: {}."


def loaded(path: Path, *score: str, **more: Any) -> tuple[Logged, AuditData]:
    return load_logged(DataSpec(path=str(path), recorded=RecordedSpec(score=score, is_log=True), **more))


def inspect_log(path: Path, **columns: Callable[[int], object]) -> Path:
    """A log of 60 samples with such metadata; ``input`` is the sample's own."""
    log = logs.inspect_log(SCORES)
    for sample in log["samples"]:
        own = {name: value(sample["id"]) for name, value in columns.items()}
        sample |= {"input": own.pop("input", f"Question {sample['id']}?"), "metadata": own}
    return logs.write_json(path, log)


def told(path: Path, *score: str, **more: Any) -> tuple[str | None, int | None]:
    """The key that samples are clustered by, and the number of clusters."""
    _, data = loaded(path, *score, **more)
    return (None, None) if data.design is None else (data.design.cluster, data.design.n_clusters)


TAKEN: dict[str, tuple[Callable[[int], object], int]] = {
    "template": (lambda i: i // 3, 20),
    "document_id": (lambda i: f"d{i // 4}", 15),
    "docId": (lambda i: i // 4, 15),
    "Passage Index": (lambda i: i // 2, 30),
    "body": (lambda i: LONG.format(i // 3), 20),
    "input": (lambda i: f"The same question {i // 3}", 20),
}


@pytest.mark.parametrize("key", TAKEN)
def test_samples_of_one_document_are_a_cluster(key: str, tmp_path: Path) -> None:
    value, n = TAKEN[key]
    path = inspect_log(tmp_path / "a.json", **{key: value})
    model, data = loaded(path)
    assert data.design is not None and (data.design.cluster, data.design.n_clusters) == (key, n)
    assert model.log.clustered == f"clustered by {key}: {n} clusters of 60 samples"
    assert len(data.notes) == 1 and data.notes[0].startswith(f"C{model.log.clustered[1:]}, since")
    found = RecordedEvaluation().measure(model, data, np.random.default_rng(0))[0]
    assert found.metric == "accuracy" and model.log.clustered in found.detail
    assert told(path, cluster="none") == (None, None)


LEFT: dict[str, Callable[[int], object]] = {
    "category": lambda i: i % 12,
    "subject": lambda i: f"subject {i % 12}",
    "doc_id": lambda i: i,
    "template": lambda i: i % 4,
    "prompt": lambda i: "the same for all",
    "completion": lambda i: LONG.format(i // 3),
    "passage": lambda i: None,
    "document": lambda i: ["a list", i // 3],
}


@pytest.mark.parametrize("key", LEFT)
def test_kinds_of_samples_and_answers_are_no_clusters(key: str, tmp_path: Path) -> None:
    path = inspect_log(tmp_path / "a.json", **{key: LEFT[key]})
    model, data = loaded(path)
    assert data.design is None and model.log.clustered == ""
    # A template of four values is said, and is for the user to name.
    assert (["--cluster template" in note for note in data.notes] == [True]) is (key == "template")


def test_a_question_below_its_passage_is_of_the_passages_cluster(tmp_path: Path) -> None:
    question = inspect_log(tmp_path / "a.json", input=lambda i: f"{2 * LONG.format(i // 3)}\n\nQuestion {i}?")
    assert told(question) == ("a paragraph of the input", 20)
    messages = lambda i: [{"role": "user", "content": f"{2 * LONG.format(i // 3)}\nQuestion {i}?"}]  # noqa: E731
    assert told(inspect_log(tmp_path / "b.json", input=messages)) == ("a paragraph of the input", 20)
    # An instruction before all of them is nothing that sets some apart.
    assert told(inspect_log(tmp_path / "c.json", input=lambda i: f"{2 * LONG}\n{i}")) == (None, None)


def test_every_format_shows_its_clusters(tmp_path: Path) -> None:
    rows = [
        {"doc_id": i, "doc": {"passage": f"p{i // 3}"}, "target": "x", "filter": "none", "metrics": ["acc"], "acc": s}
        for i, s in enumerate(SCORES)
    ]
    assert told(logs.write_lines(tmp_path / "samples_race_2026-01-01.jsonl", rows)) == ("passage", 20)
    helm = logs.helm_folder(tmp_path / "helm", SCORES)
    texts = [{"id": f"id{i}", "input": {"text": f"Is it {i // 3}?"}} for i in range(60)]
    # What was perturbed is a copy of its instance, and no sample of its own.
    logs.write_json(helm / "instances.json", [*texts, *({**each, "perturbation": {"name": "x"}} for each in texts)])
    assert told(helm, "exact_match") == ("input", 20)
    assert len(loaded(helm, "exact_match")[1]) == 60
    prompts = ["say it", {"text": "say it"}, {"turns": [{"role": "user", "content": {"text": "say it"}}]}]
    for i, prompt in enumerate(prompts):
        path = logs.garak_report(tmp_path / f"{i}.jsonl", [[1.0 - s] for s in SCORES])
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        lines = [line | {"prompt": _numbered(prompt, line.get("seq", 0) // 3)} for line in lines]
        assert told(logs.write_lines(path, lines)) == ("input", 20)
    plain = [{"id": i, "score": s, "story": f"s{i // 3}"} for i, s in enumerate(SCORES)]
    assert told(logs.write_lines(tmp_path / "plain.jsonl", plain)) == ("story", 20)


def _numbered(prompt: Any, i: int) -> Any:
    return json.loads(json.dumps(prompt).replace("say it", f"say it {i}"))


def test_the_coarsest_key_is_taken_and_what_crosses_it_is_said(tmp_path: Path) -> None:
    nested = {"passage": lambda i: i // 2, "document": lambda i: i // 4}
    _, data = loaded(inspect_log(tmp_path / "a.json", **nested))
    assert data.design is not None and data.design.cluster == "document" and "Not taken" not in data.notes[0]
    crossed = {"template": lambda i: i % 12, "document": lambda i: i // 3}
    _, data = loaded(inspect_log(tmp_path / "b.json", **crossed))
    assert data.design is not None and data.design.cluster == "template"
    assert "Not taken account of: document" in data.notes[0]
    assert told(tmp_path / "b.json", sensitive=("template",)) == ("document", 20)
    assert told(tmp_path / "b.json", cluster="document", cluster_at_most=5) == ("document", 20)


def test_repeats_and_absent_samples_have_their_place(tmp_path: Path) -> None:
    log = logs.inspect_log([s for s in SCORES for _ in range(2)], epochs=2)
    for sample in log["samples"]:
        sample["metadata"] = {"template": sample["id"] // 3} if sample["id"] != 7 else {}
    del log["samples"][114:]
    _, data = loaded(logs.write_json(tmp_path / "a.json", log))
    # Sample 7 lacks it, and of the three that are absent nothing is known: each is alone.
    assert data.design is not None and data.design.n_clusters == 19 + 1 + 3
    codes = data.design.codes()
    assert codes[6] == codes[8] != codes[7] and len(set(codes[57:])) == 3


def _coverage(clustered: bool, worlds: int, seed: int) -> float:
    """Of 30 templates of 8 samples, of which each is mostly right or mostly wrong: how often .7 is in the interval."""
    rng = np.random.default_rng(seed)
    codes = pd.Series(np.repeat(np.arange(30), 8))
    hits = 0
    for _ in range(worlds):
        right = rng.random(240) < rng.beta(0.7, 0.3, 30)[codes]
        data = AuditData(
            X=np.arange(240).astype(str).astype(object),
            recorded=Recorded(graded=np.stack([right, np.zeros(240)], axis=1)),
            design=design_of(codes if clustered else None, None, cluster="template", weight=None),
        )
        found = RecordedEvaluation().measure(Logged(LogSummary()), data, rng)[0]
        low, high = found.estimate.interval(0.95)
        hits += low <= 0.7 <= high
    return hits / worlds


def test_the_interval_covers_by_clusters_and_misses_without() -> None:
    assert _coverage(False, 150, 0) < 0.85
    assert _coverage(True, 150, 0) >= 0.95


def test_a_gap_over_clusters_holds_whatever_the_open_samples_would_have_been() -> None:
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(60), 5)

    def table(values: Sequence[np.ndarray[Any, Any]]) -> ClusteredRates:
        return ClusteredRates(rate="accuracy", parts=tuple(clustered_mean(v, clusters) for v in values))  # type: ignore[arg-type]

    low = [(rng.random(300) < p).astype(float) for p in (0.6, 0.8)]
    high = [np.where(rng.random(300) < 0.05, 1.0, v) for v in low]
    between = WorstClusteredDifference(tables=(table(low), table(high)), between=True)
    wide = between.bounds(0.05)
    assert wide[0] <= between.value <= wide[1] and between.comparisons == 2
    # One end of the open samples or the other, in one group or in both.
    inside = [WorstClusteredDifference(tables=(table([a, b]),)) for a in (low[0], high[0]) for b in (low[1], high[1])]
    assert all_of(wide[0] <= each.bounds(0.05)[0] and each.bounds(0.05)[1] <= wide[1] for each in inside)
    closed = WorstClusteredDifference(tables=(table(low), table(low)), between=True)
    assert closed.bounds(0.05) == inside[0].bounds(0.05)
    with pytest.raises(ValueError, match="a rate between two"):
        WorstClusteredDifference(tables=(table(low),), between=True)
