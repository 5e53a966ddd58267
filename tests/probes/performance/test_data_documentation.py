"""Croissant metadata held against rows: what is true of them passes, and each kind of untrue statement is named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from auditor.core.errors import ConfigError, NotApplicableError
from auditor.data.audit_data import AuditData
from auditor.judging.criterion import load_criteria
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.judging.profiles import DATA_PROFILE
from auditor.models.format_names import ROWS_IN_MEMORY
from probes.performance.data_documentation import DataDocumentation
from tests.quantifiers import all_of

Document = dict[str, Any]


def people(n: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": rng.integers(18, 80, n),
            "income": rng.normal(size=n).round(3),
            "sex": np.where(np.arange(n) % 3 == 0, "f", "m"),
            "member": rng.choice(["yes", "no"], n),
            "created": [f"2023-{1 + i % 12:02d}-03" for i in range(n)],
        }
    )


def field(column: str, kind: str, **more: Any) -> Document:
    return {
        "@type": "cr:Field",
        "@id": f"rows/{column}",
        "name": column,
        "dataType": kind,
        "source": {"fileObject": {"@id": "the-file"}, "extract": {"column": column}},
        **more,
    }


def count(name: str, n: int) -> Document:
    return {"@type": "cr:Field", "name": name, "value": n, "dataType": "wd:Q4049983"}


def true_document(path: Path) -> Document:
    """What is true of :func:`people` in a file."""
    return {
        "@context": {"@vocab": "https://schema.org/"},
        "@type": "sc:Dataset",
        "name": "people",
        "description": "People.",
        "license": "https://spdx.org/licenses/CC0-1.0",
        "url": "https://example.org/people",
        "creator": {"@type": "Person", "name": "Ann"},
        "datePublished": "2024-02-01",
        "rai:dataCollection": "By telephone.",
        "rai:dataCollectionTimeframe": ["2023-01-01", "2023-12-31"],
        "rai:personalSensitiveInformation": ["Gender", "Age"],
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "the-file",
                "contentUrl": f"https://example.org/files/{path.name}?raw=1",
                "contentSize": f"{path.stat().st_size} B",
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "rows",
                "annotation": [count("rows/count", 60)],
                "field": [
                    field("age", "sc:Integer"),
                    field("income", "sc:Float"),
                    field("sex", "sc:Text", annotation=[count("sex=f", 20), count("sex=m", 40)]),
                    field("member", "sc:Boolean"),
                    field("created", "sc:Date"),
                ],
            }
        ],
    }


def measured(
    folder: Path, change: Callable[[Document], object] = lambda document: None, frame: pd.DataFrame | None = None
) -> dict[tuple[str, str], Measurement]:
    """What the probe says of a document that was true before its ``change``, by metric and subject."""
    path = folder / "people.csv"
    frame = people() if frame is None else frame
    frame.to_csv(path, index=False)
    document = true_document(path)
    change(document)
    (folder / "metadata.json").write_text(json.dumps(document), encoding="utf-8")
    return held(folder / "metadata.json", rows_of(frame, path))


def rows_of(frame: pd.DataFrame, path: Path | None) -> AuditData:
    data = AuditData.from_arrays(frame, classes=("0", "1"), sensitive_features=frame[["sex"]])
    return replace(data, table=None if path is None else str(path))


def held(metadata: Path, rows: AuditData) -> dict[tuple[str, str], Measurement]:
    model: Any = None
    found = DataDocumentation(croissant=str(metadata)).measure(model, rows, np.random.default_rng(0))
    return {(m.metric, m.at["about"]): m for m in found}


def judged(*found: Measurement) -> dict[str, Outcome]:
    """The outcome by subject, held to the profile of data."""
    kind = DataDocumentation
    result = ProbeResult(probe=kind.name, pillar=kind.pillar, citation=kind.citation, measurements=found)
    judgements, _ = judge([result], load_criteria(DATA_PROFILE))
    return {j.measurement.at["about"]: j.outcome for j in judgements if j.measurement and j.criterion}


def contradictions(found: dict[tuple[str, str], Measurement]) -> dict[str, float]:
    return {about: m.estimate.value for (metric, about), m in found.items() if metric == "contradicted_statements"}


def test_what_is_true_is_not_contradicted_and_nothing_is_missing(tmp_path: Path) -> None:
    found = measured(tmp_path)
    assert contradictions(found) == dict.fromkeys(["rows", "columns", "file", "groups", "dates"], 0.0)
    assert [m.estimate.value for (metric, _), m in found.items() if metric == "missing_statements"] == [0.0] * 4


def _set(key: str, value: Any) -> Callable[[Document], object]:
    return lambda document: document.update({key: value})


def _file(**values: Any) -> Callable[[Document], object]:
    return lambda document: document["distribution"][0].update(values)


def _records(**values: Any) -> Callable[[Document], object]:
    return lambda document: document["recordSet"][0].update(values)


def _field(place: int, **values: Any) -> Callable[[Document], object]:
    return lambda document: document["recordSet"][0]["field"][place].update(values)


@pytest.mark.parametrize(
    ("change", "about", "sentence"),
    [
        (_records(annotation=[count("rows/count", 1000)]), "rows", "states 1,000 rows, and there are 60"),
        (_file(sha256="0" * 64), "file", "states the SHA-256 000000000000..., and the file's is"),
        (_file(contentSize="3 MB"), "file", "states a size of 3 MB"),
        (_file(contentSize="12"), "file", "states a size of 12, and the file has"),
        (_field(0, **field("height", "sc:Integer")), "columns", "states a column height, and there is none"),
        (_field(1, dataType="sc:Integer"), "columns", "Integer for column income, which holds 60 numbers that are not"),
        (_field(2, dataType=["sc:Float", "wd:Q48277"]), "columns", "Float for column sex, which holds texts"),
        (_field(0, dataType="sc:Boolean"), "columns", "other values than two truth values"),
        (_field(2, dataType="sc:Date"), "columns", "Date for column sex, which holds texts without a digit"),
        (_field(2, annotation=[count("sex=f", 30)]), "groups", "states 30 rows of sex=f, and there are 20"),
        (_field(2, annotation=[count("sex=d", 1)]), "groups", "states 1 rows of sex=d, and there are 0"),
        (_set("rai:dataCollectionTimeframe", ["2021-01-01", "2023-10-31"]), "dates", "10 of created are later"),
        (_set("rai:dataCollectionTimeframe", "2024-06 to 2023-01"), "dates", "a collection from 2024-06 to 2023-01"),
        (_set("datePublished", "2022-01-01"), "dates", "from 2023-01-01 on, and publication on 2022-01-01"),
    ],
)
def test_each_kind_of_untrue_statement_fails(
    change: Callable[[Document], object], about: str, sentence: str, tmp_path: Path
) -> None:
    found = measured(tmp_path, change)
    assert {about for about, n in contradictions(found).items() if n} == {about}
    worst = found["contradicted_statements", about]
    assert sentence in worst.detail
    outcomes = judged(*found.values())
    assert outcomes.pop(about) is Outcome.FAIL
    assert outcomes and all_of(outcome is Outcome.PASS for outcome in outcomes.values())


@pytest.mark.parametrize(
    "said", ["None", "This dataset does not contain any personal information.", "No sensitive data!", "Free of PII"]
)
def test_who_denies_personal_data_is_held_to_it(said: str, tmp_path: Path) -> None:
    deny = _set("rai:personalSensitiveInformation", said)
    assert contradictions(measured(tmp_path, deny))["personal data"] == 0
    more = people().assign(religion="x", note=[f"call anna{i}@mail.org" for i in range(60)])
    found = measured(tmp_path, deny, more)["contradicted_statements", "personal data"]
    assert found.estimate.value == 1 and "60 of 60 rows" in found.detail and "religion" in found.detail
    assert "anna1@mail.org" not in found.detail


def test_a_description_of_personal_data_is_no_denial(tmp_path: Path) -> None:
    text = "Names were removed. There is no guarantee that free texts hold no personal data."
    found = measured(tmp_path, _set("rai:personalSensitiveInformation", text), people().assign(religion="x"))
    assert "personal data" not in contradictions(found)


def test_what_is_left_open_or_filled_with_unknown_is_missing(tmp_path: Path) -> None:
    def leave_out(document: Document) -> None:
        document.update({"license": "unknown", "rai:dataCollection": " ", "creator": {"name": "N/A"}})
        del document["url"], document["rai:personalSensitiveInformation"], document["recordSet"][0]["field"][0]

    found = measured(tmp_path, leave_out, people().assign(diagnosis="x"))
    missing = {about: m.detail for (metric, about), m in found.items() if metric == "missing_statements"}
    assert missing["required"] == "license, url, creator" and missing["collection"] == "rai:dataCollection"
    assert missing["columns"] == "age, diagnosis" and missing["personal data"].startswith("columns (diagnosis: health")


@pytest.mark.parametrize(
    ("said", "agrees"),
    [
        ("9.5 kB", False),
        ("{n}", True),
        ("{n} bytes", True),
        ("{kb:.1f} KB", True),
        ("{kib:.2f} KiB", True),
        ("?", None),
    ],
)
def test_a_size_is_held_to_the_digits_that_it_has(said: str, agrees: bool | None, tmp_path: Path) -> None:
    people().to_csv(tmp_path / "people.csv", index=False)
    n = (tmp_path / "people.csv").stat().st_size
    found = measured(tmp_path, _file(contentSize=said.format(n=n, kb=n / 1000, kib=n / 1024)))
    own = found["contradicted_statements", "file"]
    assert own.estimate.value == (1.0 if agrees is False else 0.0)
    assert ("is no size" in own.detail) == (agrees is None)


def test_metadata_of_another_file_are_no_agreement(tmp_path: Path) -> None:
    def rename(document: Document) -> None:
        file = document["distribution"][0]
        others = [{**file, "@id": f"f{i}", "contentUrl": f"other{i}.csv", "sha256": "1" * 64} for i in range(2)]
        document.update(
            distribution=others, datePublished=None, **{"rai:dataCollectionTimeframe": None, "recordSet": []}
        )

    found = measured(tmp_path, rename)
    assert list(contradictions(found)) == ["anything"]
    own = found["contradicted_statements", "anything"]
    assert np.isnan(own.estimate.value) and "describe other0.csv, other1.csv, and not people.csv" in own.detail
    assert judged(own) == {"anything": Outcome.INCONCLUSIVE}


def test_of_rows_in_memory_no_file_is_asked(tmp_path: Path) -> None:
    measured(tmp_path)
    for path in (None, tmp_path / ROWS_IN_MEMORY):
        if path is not None:
            people().to_parquet(path)
        found = contradictions(held(tmp_path / "metadata.json", rows_of(people(), path)))
        assert found == dict.fromkeys(["rows", "columns", "groups", "dates"], 0.0)


def test_prefixes_sets_of_files_and_columns_of_json_are_read(tmp_path: Path) -> None:
    def rewrite(document: Document) -> None:
        document["distribution"] = [{"@type": "cr:FileSet", "@id": "set", "includes": "data/*/peo*.csv"}]
        sources = [{"fileSet": {"@id": "set"}, "extract": {"column": name}} for name in ("age", "heigth")]
        sources.append({"fileSet": {"@id": "set"}, "extract": {"jsonPath": "$.sex"}})
        fields = [{"@type": "cr:Field", "cr:source": source, "cr:dataType": "xsd:Text"} for source in sources]
        document["http://mlcommons.org/croissant/recordSet"] = {**document.pop("recordSet")[0], "cr:field": fields}
        document["recordSet"] = {**document.pop("http://mlcommons.org/croissant/recordSet")}
        del document["recordSet"]["field"]

    found = measured(tmp_path, rewrite)
    # Of a set of files, the number of all records is none of one of them.
    assert contradictions(found) == {"columns": 1.0, "dates": 0.0}
    assert "heigth" in found["contradicted_statements", "columns"].detail


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"a": ', "metadata.json is no JSON, line 1: give the JSON-LD file"),
        ("[" * 100_000, "metadata.json is no JSON"),
        ("\x00\xff", "metadata.json is no JSON"),
        ("[1, 2]", "describes no data set: its @type must be Dataset."),
        ('{"@graph": []}', "Give it nested, not as a graph of nodes."),
    ],
)
def test_what_is_no_metadata_gets_one_sentence(content: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "metadata.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError) as error:
        held(path, rows_of(people(), None))
    assert sentence in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("value", [None, 7, "x", [], [None, 3, "x"], {"@id": 3}, [{"@id": {}}], {"includes": {}}])
@pytest.mark.parametrize(
    "key", ["distribution", "recordSet", "license", "rai:dataCollectionTimeframe", "datePublished"]
)
def test_values_of_any_shape_end_in_no_fault(key: str, value: Any, tmp_path: Path) -> None:
    measured(tmp_path, _set(key, value))
    measured(tmp_path, _records(field=value, annotation=value))
    measured(tmp_path, _field(0, source=value, dataType=value, annotation=value))
    measured(tmp_path, _file(name=value, sha256=value, contentSize=value, contentUrl=value))


def test_without_metadata_it_is_not_applicable() -> None:
    model: Any = None
    with pytest.raises(NotApplicableError, match="--croissant FILE"):
        DataDocumentation().measure(model, rows_of(people(), None), np.random.default_rng(0))
