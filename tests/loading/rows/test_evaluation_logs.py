"""Readers of the logs of evaluations: each format comes to the same samples, or to a refusal that says what to do."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from auditor.core.errors import AuditorError, DataError, UsageError
from auditor.data.audit_data import AuditData
from auditor.loading.job_specs import DataSpec, RecordedSpec
from auditor.loading.rows.data_without_model import load_logged
from auditor.loading.rows.logged_samples import number_of
from auditor.models.recorded_model import RecordedEvaluation
from tests.quantifiers import all_of
from tests.toys import logs

RIGHT = [1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0]


def loaded(path: Path, *score: str, **more: object) -> tuple[RecordedEvaluation, AuditData]:
    return load_logged(DataSpec(path=str(path), recorded=RecordedSpec(score=score, is_log=True), **more))  # type: ignore[arg-type]


def graded(data: AuditData) -> list[list[float]]:
    assert data.recorded is not None and data.recorded.graded is not None
    return data.recorded.graded.round(9).tolist()


def plain(path: Path) -> Path:
    return logs.write_lines(path, [{"id": i, "score": s, "sex": "fm"[i % 2]} for i, s in enumerate(RIGHT)])


FORMATS: dict[str, Callable[[Path], Path]] = {
    "Inspect .json": lambda to: logs.write_json(to / "a.json", logs.inspect_log(RIGHT)),
    "Inspect .eval": lambda to: logs.write_archive(to / "a.eval", logs.inspect_log(RIGHT)),
    "lm-eval": lambda to: logs.lm_eval_folder(to / "a", {"task": RIGHT}),
    "HELM run": lambda to: logs.helm_folder(to / "a", RIGHT),
    "Every Eval Ever": lambda to: logs.eee_folder(to / "a", RIGHT),
    "garak report": lambda to: logs.garak_report(to / "a.report.jsonl", [[1.0 - s] for s in RIGHT]),
    "JSON Lines": lambda to: plain(to / "a.jsonl"),
}


# Of those that hold more than one.
SCORE = {"HELM run": ("exact_match",)}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_comes_to_the_same_samples(kind: str, tmp_path: Path) -> None:
    model, data = loaded(FORMATS[kind](tmp_path), *SCORE.get(kind, ()))
    assert graded(data) == [[s, 0.0] for s in RIGHT]
    assert model.provenance.format == f"log of an evaluation ({kind})"
    assert model.log.contradictions == () and model.log.unread == 0 and model.log.entries == 10
    named = kind == "JSON Lines" or logs.MODEL in model.provenance.notes[0]
    assert named and len(str(model.provenance.sha256)) == 64


@pytest.mark.parametrize("zstandard", [True, False])
def test_an_archive_is_read_however_its_records_are_packed(zstandard: bool, tmp_path: Path) -> None:
    path = logs.write_archive(tmp_path / "a.eval", logs.inspect_log(["C", "I", "C"]), zstandard=zstandard)
    assert graded(loaded(path)[1]) == [[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]


@pytest.mark.parametrize("cut", [b"\x00", b"PK\x03\x04 nothing"])
def test_a_damaged_archive_is_refused(cut: bytes, tmp_path: Path) -> None:
    path = logs.write_archive(tmp_path / "a.eval", logs.inspect_log(RIGHT))
    path.write_bytes(path.read_bytes()[:200] + cut)
    with pytest.raises(DataError):
        loaded(path)


def test_a_record_that_unpacks_to_more_than_it_says_is_refused(tmp_path: Path) -> None:
    path = logs.write_archive(tmp_path / "a.eval", logs.inspect_log(RIGHT))
    raw = bytearray(path.read_bytes())
    size = int.from_bytes(raw[22:26], "little")
    central = raw.index(b"PK\x01\x02")
    for at in (22, central + 24):
        raw[at : at + 4] = (size - 1).to_bytes(4, "little")
    path.write_bytes(raw)
    with pytest.raises(DataError, match="checksum"):
        loaded(path)


def test_parts_of_a_log_are_read_alone(tmp_path: Path) -> None:
    folder = logs.lm_eval_folder(tmp_path / "lm", {"arc_easy": RIGHT})
    samples = next(folder.glob("samples_*"))
    assert graded(loaded(samples)[1]) == [[s, 0.0] for s in RIGHT]
    # Nothing of the samples: of none of them is anything known.
    model, data = loaded(next(folder.glob("results*")))
    assert graded(data) == [[0.0, 1.0]] * 10 and model.log.unread == 10
    model, data = loaded(logs.eee_folder(tmp_path / "eee", RIGHT) / "e.json")
    assert graded(data) == [[0.0, 1.0]] * 10 and model.log.unread == 10
    assert graded(loaded(tmp_path / "eee" / "e_samples.jsonl")[1]) == [[s, 0.0] for s in RIGHT]
    instances = logs.helm_folder(tmp_path / "h", RIGHT) / "per_instance_stats.json"
    assert graded(loaded(instances, "exact_match")[1]) == [[s, 0.0] for s in RIGHT]


def test_several_tasks_are_one_evaluation_with_a_column(tmp_path: Path) -> None:
    folder = logs.lm_eval_folder(tmp_path / "lm", {"arc": RIGHT, "arc_easy": [1.0, 1.0]})
    model, data = loaded(folder, sensitive=("task",), cluster="task")
    assert data.sensitive_features is not None and data.design is not None
    assert data.sensitive_features["task"].value_counts().to_dict() == {"arc": 10, "arc_easy": 2}
    assert data.design.n_clusters == 2 and model.log.contradictions == ()


def test_repeats_are_one_sample_and_what_has_no_score_is_open(tmp_path: Path) -> None:
    # Three samples of two repeats: right and wrong; right and errored; neither has a score.
    log = logs.inspect_log([1.0, 0.0, 1.0, 1.0, None, None], epochs=2, errored=(3,))
    model, data = loaded(logs.write_json(tmp_path / "a.json", log))
    assert graded(data) == [[0.5, 0.0], [0.5, 0.5], [0.0, 1.0]]
    assert (model.log.errored, model.log.unscored, model.log.unread, model.log.epochs) == (1, 2, 0, 2)


def test_samples_that_are_not_there_are_rows_without_a_score(tmp_path: Path) -> None:
    log = logs.inspect_log(RIGHT)
    del log["samples"][7:]
    model, data = loaded(logs.write_json(tmp_path / "a.json", log), sensitive=("sex",), cluster="block")
    assert graded(data)[7:] == [[0.0, 1.0]] * 3 and model.log.unread == 3
    assert data.sensitive_features is not None and data.design is not None
    assert data.sensitive_features["sex"].astype(str).tolist()[6:] == ["f", "(missing)", "(missing)", "(missing)"]
    assert data.design.n_clusters == 6


def test_a_log_without_its_samples_lacks_them_and_contradicts_nothing(tmp_path: Path) -> None:
    log = logs.inspect_log(RIGHT)
    log["results"]["scores"][0]["scored_samples"] = 10
    path = logs.write_json(tmp_path / "a.json", log | {"samples": []})
    model, _ = loaded(path)
    assert (model.log.unread, model.log.contradictions) == (10, ())
    # One score too few is a score that was taken out.
    del log["samples"][3]["scores"]["match"]
    model, _ = loaded(logs.write_json(path, log))
    assert model.log.unread == 0 and [kind for kind, _ in model.log.contradictions] == ["contradicted_metrics"] * 2


def test_a_judge_is_called_by_its_name(tmp_path: Path) -> None:
    log = logs.inspect_log(RIGHT)
    made_of = {"model": "maker/judge", "config": {}, "args": {"a": 1}}
    for options in ({"model": "maker/judge"}, {"model": made_of}):
        log["eval"]["scorers"] = [{"name": "model_graded_qa", "options": options}]
        assert loaded(logs.write_json(tmp_path / "a.json", log))[0].log.judge == "maker/judge"


def test_a_task_that_has_no_such_score_is_no_part_of_it(tmp_path: Path) -> None:
    folder = logs.lm_eval_folder(tmp_path / "lm", {"arc": RIGHT})
    row = {"doc_id": 0, "doc": {}, "target": "x", "filter": "none", "metrics": ["bleu"], "bleu": 0.5}
    logs.write_lines(folder / "samples_wmt_2026-01-01T00-00-00.000000.jsonl", [row])
    assert graded(loaded(folder, "acc")[1]) == [[s, 0.0] for s in RIGHT]
    with pytest.raises(UsageError, match="acc, bleu"):
        loaded(folder)


def test_garak_counts_passes_and_generations_are_repeats(tmp_path: Path) -> None:
    _, data = loaded(logs.garak_report(tmp_path / "r.jsonl", [[0.0, 1.0], [0.2, None], [1.0, 1.0]]))
    assert graded(data) == [[0.5, 0.0], [0.5, 0.5], [0.0, 0.0]]


def test_scores_of_filters_are_scores_of_their_own(tmp_path: Path) -> None:
    rows = [
        {"doc_id": i, "doc": {}, "target": "x", "filter": f, "metrics": ["exact_match"], "exact_match": s}
        for f, scores in (("strict-match", [0, 1]), ("flexible-extract", [1, 1]))
        for i, s in enumerate(scores)
    ]
    path = logs.write_lines(tmp_path / "samples_gsm8k_2026-01-01.jsonl", rows)
    assert graded(loaded(path, "exact_match,strict-match")[1]) == [[0.0, 0.0], [1.0, 0.0]]
    with pytest.raises(UsageError, match="exact_match,flexible-extract"):
        loaded(path)


@pytest.mark.parametrize(
    ("value", "number"),
    [("C", 1.0), ("I", 0.0), ("P", 0.5), ("N", 0.0), (True, 1.0), ("yes", 1.0), ("No", 0.0), ("0.25", 0.25), (3, 3.0)],
)
def test_a_score_as_a_number(value: object, number: float) -> None:
    assert number_of(value) == number


def test_what_is_no_number_is_no_score() -> None:
    assert all_of(math.isnan(number_of(value)) for value in ("nan", "inf", "maybe", None, [1], {}, math.nan, 10**400))


REFUSED: dict[str, tuple[str, str]] = {
    "not json": ("a.json", "hello"),
    "a list": ("a.json", "[1, 2]"),
    "other keys": ("a.json", '{"a": 1}'),
    "nested": ("a.json", "[" * 100_000),
    "empty": ("a.jsonl", ""),
    "a line of no object": ("a.jsonl", '{"score": 1}\n[1]\n'),
    "no archive": ("a.eval", "PK\x03\x04"),
    "nothing in it": ("a.json", '{"version": 2, "status": "started", "eval": {}}'),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_log_is_refused_in_one_sentence(case: str, tmp_path: Path) -> None:
    name, content = REFUSED[case]
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as found:
        loaded(tmp_path / name)
    assert str(tmp_path) not in str(found.value) and len(str(found.value)) < 300


def test_unclear_questions_are_refused_with_the_answer(tmp_path: Path) -> None:
    log = logs.inspect_log(RIGHT)
    for sample in log["samples"]:
        sample["scores"]["includes"] = {"value": "C"}
    path = logs.write_json(tmp_path / "a.json", log)
    with pytest.raises(UsageError, match="includes, match"):
        loaded(path)
    assert graded(loaded(path, "includes")[1]) == [[1.0, 0.0]] * 10
    for score, more in (("mtach", {}), ("match", {"sensitive": ("sexx",)}), ("match", {"cluster": "blocks"})):
        with pytest.raises(UsageError, match="Did you mean|did you mean"):
            loaded(path, score, **more)
    lines = logs.write_lines(tmp_path / "b.jsonl", [{"id": 1, "right": 1}])
    with pytest.raises(UsageError, match="--score COLUMN"):
        loaded(lines)
    assert graded(loaded(lines, "right")[1]) == [[1.0, 0.0]]
    (empty := tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="Inspect, lm-eval"):
        loaded(empty)


def test_mutated_logs_are_read_or_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sources = [FORMATS[kind](tmp_path) for kind in ("Inspect .eval", "Inspect .json")]
    sources += [FORMATS["JSON Lines"](tmp_path), FORMATS["garak report"](tmp_path)]
    refused = 0
    for path in sources:
        content = path.read_bytes()
        for _ in range(40):
            raw = bytearray(content)
            for place in rng.integers(0, len(raw), 3):
                raw[place] = rng.integers(0, 256)
            path.write_bytes(raw)
            try:
                loaded(path)
            except AuditorError:
                refused += 1
    assert refused > 40


def test_odd_values_in_the_right_places_are_read_or_refused(tmp_path: Path) -> None:
    odd = (None, [], {}, "x", -1, 1e308, 10**30, True, [None], {"a": []})
    log = logs.inspect_log(RIGHT[:3])
    for key in ("eval", "results", "samples"):
        for value in odd:
            path = logs.write_json(tmp_path / "a.json", log | {key: value})
            try:
                loaded(path)
            except AuditorError as error:
                assert len(str(error)) < 300
    for key in ("id", "epoch", "scores", "metadata", "output", "uuid", "error"):
        for value in odd:
            changed = json.loads(json.dumps(log))
            changed["samples"][1][key] = value
            try:
                assert len(loaded(logs.write_json(tmp_path / "a.json", changed))[1]) >= 3
            except AuditorError as error:
                assert len(str(error)) < 300


def test_a_number_that_two_classes_of_metrics_write_is_no_copy(tmp_path: Path) -> None:
    folder = logs.helm_folder(tmp_path / "a", RIGHT)
    rows = json.loads((folder / "per_instance_stats.json").read_text())
    logs.write_json(folder / "per_instance_stats.json", [*rows, *rows])
    assert loaded(folder, "exact_match")[0].log.contradictions == ()
    logs.write_json(folder / "per_instance_stats.json", [*rows, rows[0], rows[0]])
    assert loaded(folder, "exact_match")[0].log.contradictions == (
        ("repeated_epochs", "id0 has 3 values of exact_match"),
    )


@pytest.mark.parametrize(("score", "judge"), [("harm_bench_score", "HarmBenchAnnotator"), ("exact_match", "")])
def test_a_score_of_helm_that_an_annotator_gave_is_a_judge_s(score: str, judge: str, tmp_path: Path) -> None:
    """As its runs of HarmBench record it: an annotator beside scores by its name, and texts that are compared too."""
    folder = logs.helm_folder(tmp_path / "a", RIGHT, score=score, annotators=["HarmBenchAnnotator"])
    assert loaded(folder, score)[0].log.judge == judge
    assert loaded(logs.helm_folder(tmp_path / "b", RIGHT, score=score), score)[0].log.judge == ""


@pytest.mark.parametrize("score", [None, "f1,flexible-extract"])
def test_a_score_that_is_made_of_all_samples_together_is_no_sample_s(score: str | None, tmp_path: Path) -> None:
    """As lm-eval 0.4.10 records an F1 over spans: beside each sample stand the two texts that it is made of."""
    folder = logs.lm_eval_folder(tmp_path / "a", {"ner": RIGHT})
    (path,) = folder.glob("samples_*.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    own = {"filter": "flexible-extract", "metrics": ["f1"], "f1": ["PER: A", [""]]}
    logs.write_lines(path, [{k: v for k, v in row.items() if k != "acc"} | own for row in rows])
    with pytest.raises(DataError, match="f1,flexible-extract is computed of all samples together"):
        loaded(folder, *filter(None, [score]))
