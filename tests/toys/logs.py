"""Small logs of evaluations as harnesses write them, with ten samples or so, and changes to them."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

Log = dict[str, Any]
MODEL = "maker/model-1"


def inspect_log(
    scores: Sequence[float | str | None], *, epochs: int = 1, errored: Sequence[int] = (), model: str = MODEL
) -> Log:
    """An Inspect log: a sample's scores are those of its repeats one after another; None is no score."""
    samples: list[Log] = []
    for i, score in enumerate(scores):
        which, failed = i // epochs, i in errored
        sample: Log = {
            "id": which,
            "epoch": i % epochs + 1,
            "metadata": {"sex": "fm"[which % 2], "block": which // 3},
            "output": {"model": model.rpartition("/")[2]},
            "scores": {} if failed or score is None else {"match": {"value": score}},
            "uuid": f"u{i}",
        }
        if failed:
            sample["error"] = {"message": "boom"}
        samples.append(sample)
    log: Log = {
        "version": 2,
        "status": "success",
        "eval": {
            "model": model,
            "config": {"epochs": epochs},
            "dataset": {"sample_ids": list(range(len(scores) // epochs))},
        },
        "results": {"total_samples": len(samples), "completed_samples": len(samples) - len(errored)},
        "samples": samples,
    }
    log["results"]["scores"] = [{"name": "match", "scorer": "match", "metrics": _accuracy(samples)}]
    return log


def by_a_judge(log: Log, judge: str = "judges/judge-1") -> Log:
    """The same log with a scorer that is a model."""
    log["eval"] |= {"scorers": [{"name": "model_graded_qa"}], "model_roles": {"grader": {"model": judge}}}
    return log


def agent_log(decisions: Sequence[str | None], groups: Sequence[str]) -> Log:
    """A log of an agent that looks something up in each sample and then decides, unless it runs out (None)."""
    log = inspect_log([1.0] * len(decisions))
    for sample, decided, group in zip(log["samples"], decisions, groups, strict=True):
        calls = [{"id": "a", "function": "look_up", "arguments": {"case": sample["id"], "more": {"x": 1}}}]
        if decided is not None:
            calls.append({"id": "b", "function": "decide", "arguments": {"outcome": decided}})
        sample["messages"] = [
            {"role": "user", "content": "?"},
            *({"role": "assistant", "tool_calls": [c]} for c in calls),
        ]
        sample["metadata"] = {"sex": group}
    return log


def _accuracy(samples: Sequence[Mapping[str, Any]]) -> Log:
    words = {"C": 1.0, "I": 0.0}
    own: dict[int, list[float]] = {}
    for sample in samples:
        for score in sample["scores"].values():
            own.setdefault(sample["id"], []).append(words.get(score["value"], score["value"]))
    means = [sum(values) / len(values) for values in own.values()]
    return {"accuracy": {"name": "accuracy", "value": sum(means) / len(means) if means else 0.0}}


def write_json(path: Path, content: Any) -> Path:
    """A JSON file."""
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A file of JSON Lines."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def write_archive(
    path: Path, log: Log, *, zstandard: bool = True, change: Callable[[Log], None] = lambda summary: None
) -> Path:
    """An Inspect ``.eval`` of the log; ``change``: what is done to each summary of a sample."""
    header = {key: value for key, value in log.items() if key != "samples"}
    summaries = [
        {"id": s["id"], "epoch": s["epoch"], "scores": json.loads(json.dumps(s["scores"]))} for s in log["samples"]
    ]
    for summary in summaries:
        change(summary)
    parts = {f"samples/{s['id']}_epoch_{s['epoch']}.json": s for s in log["samples"]}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (parts | {"summaries.json": summaries, "header.json": header}).items():
            archive.writestr(name, json.dumps(content))
    if zstandard:
        repack(path)
    return path


def repack(path: Path) -> None:
    """The archive with its records packed by Zstandard, as Inspect writes them, which zipfile does not before 3.14."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, bytes(pa.Codec("zstd").compress(content, asbytes=True)))
        sizes = {info.filename: info for info in archive.infolist()}
    raw = bytearray(path.read_bytes())
    for name, content in contents.items():
        info = sizes[name]
        _say_zstandard(raw, info, content)
    path.write_bytes(raw)


def _say_zstandard(raw: bytearray, info: zipfile.ZipInfo, content: bytes) -> None:
    import zlib

    crc, size = zlib.crc32(content).to_bytes(4, "little"), len(content).to_bytes(4, "little")
    local, name = info.header_offset, info.filename.encode()
    central = raw.index(b"PK\x01\x02", max(0, len(raw) - 200_000))
    while raw[central + 46 : central + 46 + len(name)] != name:
        central = raw.index(b"PK\x01\x02", central + 4)
    for start, method, at in ((local, local + 8, local + 14), (central, central + 10, central + 16)):
        assert raw[start : start + 2] == b"PK"
        raw[method : method + 2] = (93).to_bytes(2, "little")
        raw[at : at + 4] = crc
        raw[at + 8 : at + 12] = size


def lm_eval_folder(folder: Path, scores: Mapping[str, Sequence[float]], **change: Any) -> Path:
    """Results and samples of lm-eval, by task; ``change``: of the numbers of every task's results."""
    folder.mkdir()
    for task, own in scores.items():
        rows = [
            {
                "doc_id": i, "doc": {"sex": "fm"[i % 2]}, "target": "x", "filter": "none", "metrics": ["acc"],
                "resps": [["x"]], "acc": s,
            }
            for i, s in enumerate(own)
        ]  # fmt: skip
        write_lines(folder / f"samples_{task}_2026-01-01T00-00-00.000000.jsonl", rows)
    results = {
        "results": {task: {"acc,none": sum(own) / len(own), "acc_stderr,none": 0.1} for task, own in scores.items()},
        "configs": {task: {"repeats": 1, "metric_list": [{"metric": "acc", "aggregation": "mean"}]} for task in scores},
        "config": {"model_args": {"pretrained": MODEL}},
        "versions": {},
        "n-samples": {task: {"original": len(own), "effective": len(own)} for task, own in scores.items()},
        "model_name": MODEL,
        "model_name_sanitized": MODEL.replace("/", "__"),
    }
    for task in scores:
        results["results"][task] |= {k: v for k, v in change.items() if k != "effective"}
        if "effective" in change:
            results["n-samples"][task]["effective"] = change["effective"]
    write_json(folder / "results_2026-01-01T00-00-00.000000.json", results)
    return folder


def helm_folder(folder: Path, scores: Sequence[float], **change: Any) -> Path:
    """A run of HELM; ``change``: ``mean`` of its stats, ``model`` of its name, ``instances``, ``score`` that it has,
    ``annotators``, the classes of those who graded."""
    folder.mkdir()
    name = {"name": change.get("score", "exact_match"), "split": "test"}
    write_json(
        folder / "run_spec.json",
        {
            "name": f"mmlu:subject=all,model={change.get('model', MODEL).replace('/', '_')}",
            "adapter_spec": {"model": MODEL, "num_train_trials": 1},
            "annotators": [{"class_name": f"maker.{each}", "args": {}} for each in change.get("annotators", ())],
        },
    )
    rows = [
        {"instance_id": f"id{i}", "train_trial_index": 0, "stats": [{"name": name, "count": 1, "sum": s, "mean": s}]}
        for i, s in enumerate(scores)
    ]
    copies = [{**rows[0], "perturbation": {"name": "robustness"}}]
    # What HELM counts of every instance beside its scores stands in rows of its own.
    general = [{**row, "stats": [{"name": {"name": "training_co2_cost", "split": "test"}, "count": 0}]} for row in rows]
    write_json(folder / "per_instance_stats.json", [*rows, *copies, *general])
    write_json(folder / "instances.json", [{"id": f"id{i}"} for i in range(change.get("instances", len(scores)))])
    mean = change.get("mean", sum(scores) / len(scores))
    write_json(folder / "stats.json", [{"name": name, "count": 1, "sum": mean, "mean": mean}])
    return folder


def eee_folder(folder: Path, scores: Sequence[float], **change: Any) -> Path:
    """Aggregate and instances of Every Eval Ever, a row for each sample and ``metrics``; ``change``: ``score``,
    ``num_samples``, ``model``, ``edited``.
    """
    folder.mkdir()
    metrics = change.get("metrics", ("acc",))
    rows = [
        {
            "schema_version": "0.3.0", "evaluation_id": "e", "model_id": change.get("model", MODEL),
            "sample_id": f"s{i}", "interaction_type": "single_turn", "answer_attribution": [],
            "input": {"raw": f"Question {i}?", "reference": ["x"]}, "output": {"raw": ["x"]}, "messages": None,
            "evaluation_name": "mmlu", "evaluation_result_id": metric, "metadata": {"sex": "fm"[i % 2], "epoch": "1"},
            "evaluation": {"score": s, "is_correct": s > 0},
        }
        for i, s in enumerate(scores)
        for metric in metrics
    ]  # fmt: skip
    instances = write_lines(folder / "e_samples.jsonl", rows)
    checksum = hashlib.sha256(instances.read_bytes()).hexdigest()
    if "edited" in change:
        change["edited"](rows)
        write_lines(instances, rows)
    details = {
        "score": change.get("score", round(sum(scores) / len(scores), 3)),
        "uncertainty": {"num_samples": change.get("num_samples", len(scores))},
    }
    write_json(
        folder / "e.json",
        {
            "schema_version": "0.3.0",
            "evaluation_id": "e",
            "model_info": {"id": MODEL},
            "evaluation_results": [
                {"evaluation_name": "mmlu", "evaluation_result_id": metric, "score_details": details}
                for metric in metrics
            ],
            "detailed_evaluation_results": {
                "format": "jsonl",
                "file_path": "data/e_samples.jsonl",
                "hash_algorithm": "sha256",
                "checksum": checksum,
                "total_rows": len(rows),
            },
        },
    )
    return folder


def garak_report(path: Path, hits: Sequence[Sequence[float | None]], **change: Any) -> Path:
    """A report of garak with one probe and detector: the detector's scores of each attempt's generations."""
    attempts = [
        {"entry_type": "attempt", "uuid": f"a{i}", "seq": i, "status": 2, "probe_classname": "dan.X",
         "detector_results": {"mitigation.Bypass": own}}
        for i, own in enumerate(hits)
    ]  # fmt: skip
    scored = [hit for own in hits for hit in own if hit is not None]
    claim = {
        "entry_type": "eval", "probe": "dan.X", "detector": "mitigation.Bypass",
        "passed": change.get("passed", sum(hit < 0.5 for hit in scored)), "total_evaluated": len(scored),
    }  # fmt: skip
    setup = {"entry_type": "start_run setup", "plugins.target_name": MODEL}
    return write_lines(path, [setup, *attempts, claim])
