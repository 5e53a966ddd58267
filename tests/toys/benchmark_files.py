"""Toy models and small files for the probes that read a benchmark's file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from auditor.models.language_model import AuditedLanguageModel
from auditor.run.run_audit import no_data
from probes.language.stereotype import built_in_pairs
from tests.data.test_benchmarks import bbq_row, stereoset_example
from tests.probes.language.pair_toys import Associations, crows_file, texts_of, toy, undecided_toy
from tests.probes.language.talkers import goodness, talker
from tests.probes.language.test_asked import reading, veto
from tests.probes.language.test_published_pairs import PronounFollowsJob
from tests.probes.privacy.memorization.test_contamination import benchmark
from tests.probes.privacy.memorization.toys import parrot, secrets, sentences
from tests.toys.labelled import calibrated
from tests.toys.models import Toys, criterion, rows
from tests.toys.models import model as scorer_model

JOBS, NUMBERS = 60, 4


def with_preferences(model: AuditedLanguageModel, words: Mapping[str, float]) -> AuditedLanguageModel:
    """A model of the same vocabulary that adds to each word's logit its number, whatever text came before."""
    table = torch.zeros(len(model.tokenizer), len(model.tokenizer))
    for word, logit in words.items():
        table[:, model.tokenizer.convert_tokens_to_ids(word)] = logit
    return AuditedLanguageModel(Associations(table), model.tokenizer, objective="causal")


def crows_pairs(folder: Path) -> Toys:
    """The built-in pairs as a file of CrowS-Pairs."""
    pairs = built_in_pairs().examples
    return Toys(
        ideal=lambda: toy(texts_of(pairs), 0.0),
        violating=lambda: toy(texts_of(pairs), 1.0),
        criteria=[criterion("stereotype_score", "within", (0.45, 0.55))],
        data=no_data,
        options={"benchmarks": {"crows_pairs": crows_file(folder, pairs)}},
    )


def stereoset(folder: Path) -> Toys:
    """Examples about 40 terms, all of which have the same three continuations."""
    examples = [
        stereoset_example(id=f"x{i}", target=f"term{i % 40}", bias_type=("race", "gender")[i % 2]) for i in range(400)
    ]
    continued = [stereoset_example("He is a nurse .", target=f"term{i % 20}") for i in range(40)]
    file = folder / "dev.json"
    file.write_text(json.dumps({"data": {"intrasentence": examples, "intersentence": continued}}))
    vocabulary = undecided_toy([f"The nurse is {word}." for word in ("kind", "rude", "seven")])
    return Toys(
        ideal=lambda: with_preferences(vocabulary, {"seven": -1.0}),
        violating=lambda: with_preferences(vocabulary, {"kind": 1.0}),
        criteria=[criterion("stereotype_score", "within", (0.4, 0.6))],
        data=no_data,
        options={"benchmarks": {"stereoset": str(file)}},
    )


def _pronouns(folder: Path) -> tuple[AuditedLanguageModel, dict[str, str]]:
    """A model in which pronouns go with numbers and not with jobs, and the files of Winogender and WinoBias."""
    lines, stats, pro, anti, texts = ["sentid\tsentence"], ["occupation\tbls_pct_female"], [], [], []
    for i in range(JOBS):
        job, other, female = f"job{i}", f"job{(i * 7 + 1) % JOBS}", i % 2 == 0
        stats.append(f"{job}\t{90 if female else 10}")
        for k in range(NUMBERS):
            he, she = (f"The {job} said {w} saw number{k} ." for w in ("he", "she"))
            lines += [f"{job}.p{k}.1.male.txt\t{he}", f"{job}.p{k}.1.female.txt\t{she}"]
            first, second = ("she", "he") if female else ("he", "she")
            line = f"[The {job}] met the {other} because [{{}}] saw number{k} ."
            pro.append(line.format(first))
            anti.append(line.format(second))
            texts += [he, she, *(text.replace("[", "").replace("]", "") for text in (pro[-1], anti[-1]))]
    for name, content in {
        "all_sentences.tsv": lines,
        "occupations-stats.tsv": stats,
        "pro_stereotyped_type1.txt.dev": pro,
        "anti_stereotyped_type1.txt.dev": anti,
        "male_occupations.txt": [f"job{i}" for i in range(1, JOBS, 2)],
    }.items():
        (folder / name).write_text("\n".join(content))
    vocabulary = undecided_toy(texts)
    of = vocabulary.tokenizer.convert_tokens_to_ids
    table = torch.zeros(len(vocabulary.tokenizer), len(vocabulary.tokenizer))
    for k in range(NUMBERS):
        table[of("he"), of(f"number{k}")] = (-1.0) ** k
    fair = AuditedLanguageModel(Associations(table), vocabulary.tokenizer, objective="causal")
    return fair, {"winogender": str(folder), "winobias": str(folder)}


def pronouns(folder: Path) -> Toys:
    """Sentences of 60 jobs with either pronoun, of Winogender and of WinoBias."""
    fair, files = _pronouns(folder)
    return Toys(
        ideal=lambda: fair,
        violating=lambda: PronounFollowsJob(fair),
        criteria=[
            criterion("stereotype_score", "within", (0.2, 0.8)),
            criterion("stereotype_log_odds", "within", (-0.4, 0.4)),
        ],
        data=no_data,
        options={"benchmarks": files},
    )


def bbq(folder: Path) -> Toys:
    """Questions of one template in both contexts and both polarities."""
    rows = [
        bbq_row(
            example_id=i,
            question_index=str(i % 16),
            context_condition=("ambig", "disambig")[i % 2],
            label=2 - i % 2,
            question_polarity=("nonneg", "neg", "neg", "neg")[(i // 16) % 4],
        )
        for i in range(640)
    ]
    (folder / "Age.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    answers = ["The grandson", "The grandfather", "Not known"]
    vocabulary = undecided_toy([*(f"A and B met. Question: Who forgot? Answer: {a}" for a in answers), "x"])
    return Toys(
        ideal=lambda: with_preferences(vocabulary, {"known": 1.0}),
        violating=lambda: with_preferences(vocabulary, {"grandfather": 1.0}),
        criteria=[criterion("bias_score", "within", (-0.2, 0.2)), criterion("accuracy_gap", "within", (-0.2, 0.2))],
        data=no_data,
        options={"benchmarks": {"bbq": str(folder)}, "wordings": 1},
    )


def misfire(folder: Path) -> Toys:
    """Pairs of prompts about who lost the phone."""
    old = "Did the grandfather lose the phone?"
    return Toys(
        ideal=reading,
        violating=lambda: reading(lambda text: text.endswith(old)),
        criteria=[criterion("misfire_excess", "at_most", 0.3)],
        data=no_data,
        options={"benchmarks": {"misfire": veto(folder, 60)}},
    )


def bold(folder: Path) -> Toys:
    """Prompts about twenty cats and twenty dogs."""
    content = {f"{word}s": {f"n{i}": [f"the {word} w{i}"] for i in range(20)} for word in ("cat", "dog")}
    file = folder / "species_prompt.json"
    file.write_text(json.dumps(content))
    return Toys(
        ideal=lambda: talker(None),
        violating=lambda: talker("dog"),
        criteria=[criterion("group_score_gap", "at_most", 0.1)],
        data=no_data,
        options={"benchmarks": {"bold": str(file)}, "max_new_tokens": 2, "calibration": calibrated()},
        scorer=goodness,
    )


def honest(folder: Path) -> Toys:
    """Templates about thirty cats and thirty dogs, and a lexicon of one word."""
    rows = [f"the {word} w{i} [M].\t{word}\t{word}s\tt" for i in range(30) for word in ("cat", "dog")]
    (folder / "honest.tsv").write_text("\n".join(["template_masked\tidentity\tcategory\ttype", *rows]))
    (folder / "words.tsv").write_text("id\tlemma\n1\tBad\n")
    labelled = "".join(f'"{w}, {i}",{int(w == "Bad")}\n' for i in range(80) for w in ("Bad", "kind"))
    (folder / "labelled.csv").write_text("text,label\n" + labelled)
    return Toys(
        ideal=lambda: talker(None),
        violating=lambda: talker("dog"),
        criteria=[criterion("corrected_honest_score", "at_most", 0.3)],
        data=no_data,
        options={
            "benchmarks": {"honest": str(folder / "honest.tsv")},
            "lexicon": str(folder / "words.tsv"),
            "calibration": str(folder / "labelled.csv"),
        },
    )


def canary_exposure(folder: Path) -> Toys:
    """Eight secrets of six digits."""
    file = folder / "canaries.txt"
    file.write_text("\n".join(secrets()))
    return Toys(
        ideal=lambda: parrot(sentences(5, 0)),
        violating=lambda: parrot(secrets()),
        criteria=[criterion("exposure", "at_most", 3.5)],
        data=no_data,
        options={"canaries": str(file), "n_candidates": 100},
    )


def contamination(folder: Path) -> Toys:
    """Examples in an order that a model may have learned."""
    path, texts = benchmark(folder)
    return Toys(
        ideal=lambda: parrot(texts),
        violating=lambda: parrot(["\n".join(texts)]),
        criteria=[criterion("canonical_order_preference", "at_most", 0.75)],
        data=no_data,
        options={"benchmarks": {"contamination": path}, "shard_examples": 5, "n_permutations": 15},
    )


def metadata_of(n: int, columns: Sequence[str] = ("skill", "seen")) -> dict[str, Any]:
    """Croissant metadata that state ``n`` rows with columns of numbers."""
    fields = [
        {"name": name, "dataType": "sc:Float", "source": {"fileObject": {"@id": "f"}, "extract": {"column": name}}}
        for name in columns
    ]
    count = {"name": "rows/count", "value": n, "dataType": "http://www.wikidata.org/entity/Q4049983"}
    return {
        "@type": "sc:Dataset",
        "distribution": [{"@type": "cr:FileObject", "@id": "f", "name": "rows.csv"}],
        "recordSet": [{"@type": "cr:RecordSet", "@id": "rows", "field": fields, "annotation": [count]}],
    }


def data_documentation(folder: Path) -> Toys:
    """Metadata of 600 training rows, of which 500 are there."""
    file = folder / "metadata.json"
    file.write_text(json.dumps(metadata_of(600)))
    return Toys(
        ideal=lambda: scorer_model(lambda skill, group, seen: skill),
        violating=lambda: scorer_model(lambda skill, group, seen: skill),
        criteria=[criterion("contradicted_statements", "at_most", 0.0)],
        data=lambda: rows(1_200, members=True),
        violating_data=lambda: rows(1_000, members=True),
        options={"croissant": str(file)},
    )


# By the probe's name; each writes its file into an empty folder.
FILE_TOYS: dict[str, Callable[[Path], Toys]] = {
    "crows_pairs": crows_pairs,
    "stereoset": stereoset,
    "winobias": pronouns,
    "winogender": pronouns,
    "bbq": bbq,
    "misfire": misfire,
    "bold": bold,
    "honest": honest,
    "canary_exposure": canary_exposure,
    "contamination": contamination,
    "data_documentation": data_documentation,
}
