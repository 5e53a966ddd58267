"""Logs of evaluations that others ran, read as data: one table of formats, a reader for each."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from auditor.core.errors import AuditorError, DataError, UsageError, did_you_mean
from auditor.core.files import regular_file, sha256_of
from auditor.loading.rows.logged_samples import SCORED, Claim, Json, LoggedSamples, count_of, number_of
from auditor.loading.rows.sample_clusters import SampleKeys
from auditor.models.files.model_bytes import printable
from auditor.models.files.strict_zip import Archive, open_archive

# One JSON document is held whole, at several times its size; archives and JSON Lines are read sample by sample.
_MOST_DOCUMENT = 256 << 20
_MOST_LINE = 64 << 20
_MOST_REPEATED = 200
_KNOWN_IDS = ("id", "sample_id", "doc_id")


# ---- files -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _File:
    """A log's file: its ``archive`` if it is one, else the JSON ``document`` that it is, else lines of JSON."""

    path: Path
    archive: Archive | None = None
    document: Json = None
    first: Mapping[str, Json] = field(default_factory=dict)

    def lines(self) -> Iterator[Mapping[str, Json]]:
        """The objects of JSON Lines. Raises DataError with the number of a line that is none."""
        with self.path.open("rb") as source:
            for i, line in enumerate(iter(lambda: source.readline(_MOST_LINE + 1), b""), 1):
                if line.strip():
                    yield _object(line, f"line {i:,} of {printable(self.path.name)}")


def _parsed(content: bytes, what: str) -> Json:
    try:
        if len(content) > _MOST_DOCUMENT:
            raise ValueError
        return json.loads(content)
    except (ValueError, RecursionError):
        raise DataError(
            f"{what} is no JSON that can be read, or is larger than {_MOST_DOCUMENT >> 20} MiB: export the log again.",
            code="AUD-DATA-MALFORMED",
        ) from None


def _object(content: bytes, what: str) -> Mapping[str, Json]:
    found = _parsed(content, what) if len(content) <= _MOST_LINE else None
    if not isinstance(found, dict):
        raise DataError(f"{what} holds no JSON object: export the log again.", code="AUD-DATA-MALFORMED")
    return found


def _open_file(path: Path) -> _File:
    regular_file(path, "log")
    with path.open("rb") as source:
        head = source.readline(_MOST_LINE)
        more = bool(source.read(1))
    if head.startswith(b"PK"):
        if path.stat().st_size > 4 * _MOST_DOCUMENT:
            raise DataError(f"{printable(path.name)!r} is larger than 1 GiB.", code="AUD-DATA-LIMIT")
        return _File(path, archive=open_archive(path.read_bytes(), path.name, with_zstandard=True))
    if more and head.strip():
        try:
            first = json.loads(head)
        except (ValueError, RecursionError):
            first = None
        if isinstance(first, dict):
            return _File(path, first=first)
    document = _parsed(path.read_bytes() if path.stat().st_size <= _MOST_DOCUMENT else b"", printable(path.name))
    return _File(path, document=document, first=document if isinstance(document, dict) else {})


# ---- one reader for each format --------------------------------------------------------------------------------------


def _map(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}


def _rows(value: Json) -> list[Mapping[str, Json]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _inspect_header(log: Mapping[str, Json], into: LoggedSamples) -> None:
    spec, results = _map(log.get("eval")), _map(log.get("results"))
    config, dataset = _map(spec.get("config")), _map(spec.get("dataset"))
    into.model = str(spec.get("model", ""))
    into.epochs_set = count_of(config.get("epochs")) or 1
    ids = dataset.get("sample_ids")
    into.expected = {str(each) for each in ids} if isinstance(ids, list) else None
    total, completed = count_of(results.get("total_samples")), count_of(results.get("completed_samples"))
    n = None if total is None else -(-total // into.epochs_set)
    into.claims.append(Claim(n=n))
    if total is not None and completed is not None and completed > total:
        into.contradictions.append(("contradicted_metrics", f"{completed:,} of {total:,} samples are completed"))
    for scorer in _rows(spec.get("scorers")):
        if str(scorer.get("name")).rpartition("/")[2].startswith("model_graded"):
            roles = _map(_map(spec.get("model_roles")).get("grader"))
            known = _map(scorer.get("options")).get("model") or roles.get("model")
            known = _map(known).get("model", known)  # a name, or what it was made of
            into.judge = into.judge or str(known or f"a model ({scorer.get('name')})")
    for entry in _rows(results.get("scores")):
        names = {str(entry.get("name")), f"{entry.get('scorer')}/{entry.get('name')}"}
        chosen = {into.score} if into.score is not None else {*into.score_names, *names}
        reducer = entry.get("reducer")
        scored = None if reducer not in (None, "mean") else count_of(entry.get("scored_samples"))
        for metric in _map(entry.get("metrics")).values():
            known = reducer in (None, "mean") and _map(metric).get("name") in ("accuracy", "mean")
            value = number_of(_map(metric).get("value"))
            if known and names & chosen and math.isfinite(value):
                into.claims.append(Claim(metric=str(_map(metric)["name"]), value=value, scored=scored))


def _inspect_sample(sample: Mapping[str, Json], into: LoggedSamples) -> None:
    scores: dict[str, Json] = {}
    for name, score in _map(sample.get("scores")).items():
        value = _map(score).get("value")
        scores |= {f"{name}/{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value}
    into.add(
        sample.get("id"),
        scores,
        epoch=sample.get("epoch", 1),
        errored=sample.get("error") is not None,
        metadata=_map(sample.get("metadata")),
        model=_map(sample.get("output")).get("model") if sample.get("error") is None else None,
        uid=sample.get("uuid"),
        text=sample.get("input"),
    )


def inspect_samples(path: Path) -> Iterator[Mapping[str, Json]]:
    """The samples of an Inspect log, one by one. Raises DataError for what is none, or is damaged."""
    try:
        file = _open_file(path)
        if file.archive is not None:
            yield from _archived_samples(file.archive, printable(path.name))
        elif {"eval", "samples"} <= file.first.keys():
            yield from _rows(file.document["samples"])
        else:
            raise DataError(f"{printable(path.name)!r} is no log of Inspect.", code="AUD-DATA-FORMAT")
    except DataError:
        raise
    except AuditorError as error:
        raise DataError(str(error), code=error.code) from None


def _archived_samples(archive: Archive, name: str) -> Iterator[Mapping[str, Json]]:
    for record in archive.records:
        if record.startswith("samples/") and record.endswith(".json"):
            yield _object(archive.read(record), f"{printable(record)} in {name}")


def _inspect_json(file: _File, into: LoggedSamples) -> None:
    for sample in _rows(file.document.get("samples")):
        _inspect_sample(sample, into)
    _inspect_header(file.document, into)


def _inspect_archive(file: _File, into: LoggedSamples) -> None:
    assert file.archive is not None
    held: dict[tuple[str, Json], Mapping[str, Json]] = {}
    for sample in _archived_samples(file.archive, printable(file.path.name)):
        _inspect_sample(sample, into)
        values = {each: _map(score).get("value") for each, score in _map(sample.get("scores")).items()}
        held[str(sample.get("id")), sample.get("epoch", 1)] = values
    head = next((each for each in ("header.json", "_journal/start.json") if each in file.archive.records), None)
    _inspect_header(_object(file.archive.read(head), head) if head else {}, into)
    if "summaries.json" not in file.archive.records:
        return
    for summary in _rows(_parsed(file.archive.read("summaries.json"), "summaries.json")):
        key = str(summary.get("id")), summary.get("epoch", 1)
        values = {name: _map(score).get("value") for name, score in _map(summary.get("scores")).items()}
        if key not in held:
            into.expected = (into.expected or set(into.ids)) | {key[0]}
        elif any(_differ(value, held[key].get(name)) for name, value in values.items()):
            into.contradictions.append(("contradicted_metrics", f"sample {key[0]} has another score in summaries.json"))


def _differ(first: Json, second: Json) -> bool:
    pair = number_of(first), number_of(second)
    return not any(map(math.isnan, pair)) and pair[0] != pair[1]


_OF_MODEL = ("peft", "delta", "pretrained", "model", "path", "engine")
_OF_LM_EVAL = {"doc_id", "filter", "epoch", "target"}


def _lm_eval_samples(file: _File, into: LoggedSamples) -> None:
    task = file.path.stem.removeprefix("samples_").rpartition("_20")[0] if "_20" in file.path.stem else ""
    _lm_eval_part(file, into, task)


def _lm_eval_part(file: _File, into: LoggedSamples, task: str) -> None:
    for row in file.lines():
        named = row.get("metrics")
        keys = named if isinstance(named, list) else [k for k in row if k not in _OF_LM_EVAL]
        filtered = row.get("filter", "none")
        suffix = "" if filtered in ("none", None) else f",{filtered}"
        scores = {f"{k}{suffix}": row.get(k) for k in keys if isinstance(row.get(k), bool | int | float)}
        if isinstance(named, list) and not scores:
            into.of_all_samples.update(f"{name}{suffix}" for name in named[:_MOST_REPEATED])
        # Of another filter, or of a task that has no such score.
        is_other = bool(suffix) or (isinstance(named, list) and str(into.score).partition(",")[0] not in named)
        if into.score is not None and into.score not in scores and is_other:
            into.score_names.update(scores)
            continue
        answers = row.get("resps")
        first = answers[0] if isinstance(answers, list) and answers else None
        if isinstance(first, list):
            into.repeats.setdefault(task, set()).add(len(first))
        doc = {k: v for k, v in _map(row.get("doc")).items() if isinstance(v, str | int | float)}
        into.add(row.get("doc_id"), scores, metadata=doc, part=task)


def _lm_eval_results(results: Mapping[str, Json], into: LoggedSamples, tasks: Sequence[str] | None) -> None:
    arguments = _map(results.get("config")).get("model_args")
    if isinstance(arguments, str):
        arguments = dict(part.split("=", 1) for part in arguments.split(",") if "=" in part)
    # By which of them the harness calls the model, in its order.
    named = next((str(v) for k in _OF_MODEL if (v := _map(arguments).get(k))), "")
    into.model = str(results.get("model_name") or named)
    for other in filter(None, (named, results.get("model_name_sanitized"))):
        into.models[str(other)] += 1
    configs = _map(results.get("configs"))
    for task, metrics in _map(results.get("results")).items():
        if tasks is not None and task not in tasks:
            continue
        n, config = count_of(_map(_map(results.get("n-samples")).get(task)).get("effective")), _map(configs.get(task))
        into.claims.append(Claim(part=task, n=n))
        repeats, seen = count_of(config.get("repeats")), into.repeats.get(task, set())
        if repeats is not None and seen - {repeats}:
            said = f"{task} sets {repeats} repeats a sample, and entries have {', '.join(map(str, sorted(seen)[:9]))}"
            into.contradictions.append(("changed_epochs", said))
        means = {
            str(each.get("metric"))
            for each in _rows(config.get("metric_list"))
            if each.get("aggregation", "mean") == "mean"
        }
        for key, value in _map(metrics).items():
            name, _, filtered = key.partition(",")
            score = name if filtered in ("", "none") else key
            wanted = {into.score} if into.score is not None else set(into.score_names)
            if score in wanted and (name in means or (not means and name.startswith(("acc", "exact_match")))):
                into.claims.append(Claim(part=task, metric=key, value=number_of(value)))


def _lm_eval_file(file: _File, into: LoggedSamples) -> None:
    _lm_eval_results(file.document, into, None)


def _lm_eval_folder(folder: Path, into: LoggedSamples) -> None:
    results = [_open_file(path).document for path in sorted(folder.glob("results*.json"))]
    if len(results) > 1:
        raise UsageError(f"{printable(folder.name)} holds {len(results)} results*.json: leave those of one run.")
    tasks = sorted(map(str, _map(_map(results[0]).get("results"))), key=len, reverse=True)
    for path in sorted(folder.glob("samples_*.jsonl")):
        stem = path.stem.removeprefix("samples_")
        task = next((name for name in tasks if stem == name or stem.startswith(f"{name}_")), stem)
        _lm_eval_part(_open_file(path), into, task)
    _lm_eval_results(_map(results[0]), into, list(into.part_names))


# Scores of HELM that compare texts, or count; whatever else is there is read from what an annotator wrote.
_WITHOUT_ANNOTATOR = re.compile(
    r"match|^(?:f1|rouge|bleu|num|finish_reason|logprob|perplexity|bits_per|training|infer)"
)


def _helm_folder(folder: Path, into: LoggedSamples) -> None:
    spec = _map(_open_file(folder / "run_spec.json").document)
    adapter = _map(spec.get("adapter_spec"))
    into.model, into.epochs_set = str(adapter.get("model", "")), count_of(adapter.get("num_train_trials")) or None
    named = next((part for part in str(spec.get("name", "")).split(",") if "model=" in part), "")
    if named and into.model:
        into.models[named.rpartition("model=")[2]] += 1
    texts: dict[str, Json] = {}
    if (folder / "instances.json").exists():
        instances = _rows(_open_file(folder / "instances.json").document)
        own = [each for each in instances if "id" in each and not each.get("perturbation")]
        texts = {str(each["id"]): _map(each.get("input")).get("text") for each in own}
        into.expected = set(texts)
    _helm_instances(_open_file(folder / "per_instance_stats.json"), into, texts)
    annotators = [str(each.get("class_name")).rpartition(".")[2] for each in _rows(spec.get("annotators"))]
    if annotators and not _WITHOUT_ANNOTATOR.search(into.score or next(iter(into.score_names), "")):
        into.judge = ", ".join(annotators)
    if not (folder / "stats.json").exists():
        return
    for stat in _rows(_open_file(folder / "stats.json").document):
        name = _map(stat.get("name"))
        chosen = into.score if into.score is not None else next(iter(into.score_names), None)
        if name.get("name") == chosen and not name.get("perturbation") and not name.get("sub_split"):
            into.claims.append(Claim(metric=f"{chosen}, {name.get('split')}", value=number_of(stat.get("mean"))))


def _helm_samples(file: _File, into: LoggedSamples) -> None:
    _helm_instances(file, into, {})


def _helm_instances(file: _File, into: LoggedSamples, texts: Mapping[str, Json]) -> None:
    # Every class of metrics writes a row of its own for each instance; what was perturbed is another instance.
    own: dict[tuple[str, int], list[Mapping[str, Json]]] = {}
    for row in _rows(file.document):
        if not row.get("perturbation"):
            trial = count_of(row.get("train_trial_index")) or 0
            own.setdefault((str(row.get("instance_id")), trial), []).extend(_rows(row.get("stats")))
    n_alike: dict[str, int] = {}
    for (name, trial), stats in own.items():
        alike = Counter(str(each.get("name")) for each in stats if _map(each.get("name")).get("name") == into.score)
        n_alike[name] = max(n_alike.get(name, 0), *alike.values(), 0)
        scores = {str(_map(each.get("name")).get("name")): each.get("mean") for each in stats}
        split = next((_map(each.get("name")).get("split") for each in stats), None)
        into.add(name, scores, epoch=trial + 1, metadata={"split": split}, text=texts.get(name))
    # Two classes of metrics may both write a number of every instance; a copy is of one.
    fewest = min(filter(None, n_alike.values()), default=0)
    for name, n in n_alike.items():
        if n > fewest and len(into.contradictions) < _MOST_REPEATED:
            into.contradictions.append(("repeated_epochs", f"{name} has {n} values of {into.score}"))


def _eee_aggregate(file: _File, into: LoggedSamples) -> None:
    _eee_claims(file.document, into)


_MEANS = ("acc", "mean", "match", "correct", "score")


def _eee_claims(document: Mapping[str, Json], into: LoggedSamples) -> None:
    into.model = str(_map(document.get("model_info")).get("id", ""))
    chosen = into.score if into.score is not None else next(iter(into.score_names), None)
    for result in _rows(document.get("evaluation_results")):
        for judge in _rows(_map(_map(result.get("metric_config")).get("llm_scoring")).get("judges")):
            into.judge = into.judge or str(_map(judge.get("model_info")).get("id") or "a model")
        details, part = _map(result.get("score_details")), str(result.get("evaluation_name"))
        value, config = number_of(details.get("score")), _map(result.get("metric_config"))
        if into.ids and result.get("evaluation_result_id", chosen) != chosen:
            continue  # of another score than the one that was read
        name = str(config.get("metric_name", config.get("metric_id", "mean"))).lower()
        if not any(word in name for word in _MEANS):
            value = math.nan
        n, there = count_of(_map(details.get("uncertainty")).get("num_samples")), into.states_of(part)
        if n is not None and n == there[SCORED]:
            n = there.total()  # which leaves out what errored
        decimals = len(repr(value).partition(".")[2]) if isinstance(value, float) and "e" not in repr(value) else None
        into.claims.append(Claim(part=part, metric=part, value=value, n=n, decimals=decimals))


def _eee_instances(file: _File, into: LoggedSamples) -> None:
    for row in file.lines():
        scored, name = _map(row.get("evaluation")), str(row.get("evaluation_result_id") or "score")
        errored, own = row.get("error") is not None, _map(row.get("metadata"))
        scores = {} if errored and "evaluation_result_id" in row else {
            name: scored.get("score", scored.get("is_correct"))
        }  # fmt: skip
        if into.score is not None and into.score not in scores and not errored:
            into.score_names.update(scores)  # another score of the same sample, in a row of its own
            continue
        into.add(
            row.get("sample_id"),
            scores,
            epoch=int(epoch) if (epoch := str(own.get("epoch", 1))).isdecimal() and len(epoch) < 9 else 1,
            errored=errored,
            metadata={**own, "evaluation_name": row.get("evaluation_name")},
            model=row.get("model_id"),
            part=str(row.get("evaluation_name")),
            text=_map(row.get("input")).get("raw"),
        )


def _eee_folder(folder: Path, into: LoggedSamples) -> None:
    for path in sorted(folder.glob("*.jsonl")):
        _eee_instances(_open_file(path), into)
    for path in sorted(folder.glob("*.json")):
        document = _map(_open_file(path).document)
        _eee_claims(document, into)
        detailed = _map(document.get("detailed_evaluation_results"))
        instances = folder / str(detailed.get("file_path")).rpartition("/")[2]
        is_known = detailed.get("hash_algorithm") == "sha256" and instances.is_file()
        if is_known and sha256_of(instances) != detailed.get("checksum"):
            said = f"{printable(instances.name)} is another file than the one whose checksum is reported"
            into.contradictions.append(("contradicted_metrics", said))


def _garak(file: _File, into: LoggedSamples) -> None:
    """A prompt is a sample and its generations are repeats; 1 is a pass by the run's own threshold."""
    pending: dict[str, tuple[object, str]] = {}
    claims: list[tuple[str, Mapping[str, Json]]] = []
    threshold = 0.5
    for i, row in enumerate(file.lines()):
        kind = row.get("entry_type")
        if kind == "start_run setup":
            into.model = str(row.get("plugins.target_name") or row.get("plugins.model_name") or "")
            set_to = number_of(row.get("run.eval_threshold"))
            threshold = threshold if math.isnan(set_to) else set_to
        elif kind == "eval":
            claims.append((str(row.get("detector")).removeprefix("detector."), row))
        elif kind == "attempt":
            probe, uid = str(row.get("probe_classname")), str(row.get("uuid", i))
            place = row.get("seq") if isinstance(row.get("seq"), int) and row.get("seq") != -1 else uid
            if row.get("status") != 2:
                pending[uid] = place, probe
                continue
            pending.pop(uid, None)
            results = {k: v for k, v in _map(row.get("detector_results")).items() if isinstance(v, list)}
            for repeat in range(max(map(len, results.values()), default=0)):
                hits = {name: number_of(own[repeat]) for name, own in results.items() if repeat < len(own)}
                scores = {name: math.nan if math.isnan(hit) else float(hit < threshold) for name, hit in hits.items()}
                into.judge = into.judge or next((name for name in scores if name.startswith("judge.")), "")
                own_metadata = {"probe": probe, "goal": row.get("goal")}
                text = _garak_prompt(row.get("prompt"))
                into.add(place, scores, epoch=repeat + 1, metadata=own_metadata, part=probe, text=text)
    for place, probe in pending.values():
        into.add(place, {}, metadata={"probe": probe}, part=probe)
    for detector, row in claims:
        total = count_of(row.get("total_evaluated", row.get("total")))
        passed = count_of(row.get("passed"))
        if total and passed is not None and detector in (into.score or next(iter(into.score_names), ""), ""):
            into.claims.append(Claim(part=str(row.get("probe")), metric=detector, value=passed / total, scored=total))


def _garak_prompt(prompt: Json) -> Json:
    """The text of a prompt, which is a text, a message or turns of a conversation, by the version of garak."""
    turns = [_map(turn.get("content")) for turn in _rows(_map(prompt).get("turns"))]
    return "\n".join(str(turn.get("text")) for turn in turns) or _map(prompt).get("text", prompt)


def _plain(file: _File, into: LoggedSamples, key: str | None) -> None:
    names = set(file.first)
    if into.score is None and "score" in names:
        into.score = "score"
    if into.score is None or into.score not in names:
        near = did_you_mean(into.score or "score", names) or "."
        raise UsageError(
            f"Which column of {printable(file.path.name)} is the score? Add --score COLUMN{near} It has: "
            f"{', '.join(sorted(names)[:12])}."
        )
    key = key or next((name for name in _KNOWN_IDS if name in names), None)
    for i, row in enumerate(file.lines(), 1):
        others = {k: v for k, v in row.items() if k not in (into.score, key)}
        into.add(
            i if key is None else row.get(key),
            {into.score: row.get(into.score)},
            epoch=row.get("epoch", 1),
            errored=row.get("error") is not None,
            metadata=others,
            model=row.get("model"),
            text=row.get("input", row.get("prompt")),
        )


@dataclass(frozen=True)
class _Format:
    """A format: its name, how it is told by the keys of its first object or the names of its files, its reader."""

    name: str
    keys: frozenset[str]
    read: Callable[[Any, LoggedSamples], None]


# The first whose keys are all there is meant; "[]" stands for a document that is a list, "PK" for an archive.
_FILES = (
    _Format("Inspect .eval", frozenset({"PK"}), _inspect_archive),
    _Format("Inspect .json", frozenset({"eval", "status", "version"}), _inspect_json),
    _Format("Every Eval Ever, aggregate", frozenset({"evaluation_results", "schema_version"}), _eee_aggregate),
    _Format("Every Eval Ever, instances", frozenset({"evaluation_id", "sample_id", "evaluation"}), _eee_instances),
    _Format("lm-eval results", frozenset({"results", "configs", "versions"}), _lm_eval_file),
    _Format("lm-eval samples", frozenset({"doc_id", "doc", "target"}), _lm_eval_samples),
    _Format("garak report", frozenset({"entry_type"}), _garak),
    _Format("HELM instances", frozenset({"[]", "instance_id", "stats"}), _helm_samples),
)
_FOLDERS = (
    _Format("HELM run", frozenset({"run_spec.json", "per_instance_stats.json"}), _helm_folder),
    _Format("lm-eval", frozenset({"results*.json", "samples_*.jsonl"}), _lm_eval_folder),
    _Format("Every Eval Ever", frozenset({"*.json", "*.jsonl"}), _eee_folder),
)
KNOWN = "Inspect, lm-eval, HELM, garak, Every Eval Ever, or JSON Lines with one object a sample"


def read_log(
    path: str | Path, *, score: str | None, key: str | None, columns: Sequence[str], keys: SampleKeys | None = None
) -> LoggedSamples:
    """The samples of a log, a file or a folder; ``key``: the column of ids in JSON Lines of no known format.

    Raises UsageError where it does not say which score is meant, DataError for what is no log that is known.
    """
    where, into = Path(path), LoggedSamples(score=score, columns={name: [] for name in columns}, keys=keys)
    try:
        _read(where, into, key)
    except DataError:
        raise
    except UsageError:
        raise
    except AuditorError as error:
        raise DataError(str(error), code=error.code) from None
    if into.of_all_samples and not into.score_names:
        names = ", ".join(sorted(into.of_all_samples))
        raise DataError(
            f"No sample of {printable(where.name)!r} has a score of its own: {names} is computed of all samples "
            "together. Evaluate with a metric of each sample, such as exact_match.",
            code="AUD-DATA-EMPTY",
        )
    into.check(printable(where.name))
    if not into.ids and not into.claims:
        raise DataError(f"{printable(where.name)!r} holds no sample and reports nothing.", code="AUD-DATA-EMPTY")
    return into


def _read(where: Path, into: LoggedSamples, key: str | None) -> None:
    if where.is_dir():
        found = next((f for f in _FOLDERS if all(any(where.glob(name)) for name in f.keys)), None)
        if found is None:
            raise _unknown(where)
        into.kind = found.name
        found.read(where, into)
        return
    file = _open_file(where)
    keys = {*file.first, *(["PK"] if file.archive is not None else [])}
    if isinstance(file.document, list) and _rows(file.document):
        keys = {"[]", *_rows(file.document)[0]}
    found = next((f for f in _FILES if f.keys <= keys), None)
    if found is not None:
        into.kind = found.name
        found.read(file, into)
    elif file.first and (file.document is None or where.suffix == ".jsonl"):
        into.kind = "JSON Lines"
        _plain(file, into, key)
    else:
        raise _unknown(where)


def _unknown(where: Path) -> DataError:
    return DataError(f"{printable(where.name)!r} is no log that is known: give {KNOWN}.", code="AUD-DATA-FORMAT")
