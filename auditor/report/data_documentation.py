"""What an audit knows of the data: Croissant 1.1 with the RAI vocabulary, and a datasheet in Markdown.

Only what was measured is filled in; what somebody has to say of the data is left out, or marked as missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath

from auditor.models.format_names import NO_MODEL
from auditor.report import report_view
from auditor.report.markdown import code_span, escaped
from auditor.report.record.audit_report import AuditReport, Finding
from auditor.report.record.number_text import count, plural, visible
from auditor.report.report_view import Row

TO_BE_STATED = "Not known to the audit: to be stated by whoever provides the data."
_CROISSANT = "http://mlcommons.org/croissant/"
# The term of Wikidata by which a number of records is told.
_CARDINALITY = "http://www.wikidata.org/entity/Q4049983"
_CONFORMS = (f"{_CROISSANT}1.1", f"{_CROISSANT}RAI/1.0")
# As the specification prescribes it.
_CONTEXT: dict[str, object] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "annotation": "cr:annotation",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": _CROISSANT,
    "rai": f"{_CROISSANT}RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
    "value": "cr:value",
}
_MEDIA_TYPES = {
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".json": "application/json",
    ".jsonl": "application/jsonlines",
    ".parquet": "application/x-parquet",
    ".sqlite": "application/vnd.sqlite3",
    ".db": "application/vnd.sqlite3",
}
_MISSING = "missing_rate_difference"
_PERSONAL = ("recognised_rate", "special_category_columns", "personal_data_rate")
_MOST_SENTENCES = 60


def _files(report: AuditReport) -> Iterator[tuple[str, str, str | None, int | None]]:
    """Of each file of rows what it is for, its name, digest and number of rows."""
    data = report.data
    only = data.train_path is None and report.model.format == NO_MODEL
    for purpose, path, digest, n in (
        ("training", data.train_path, data.train_sha256, data.n_train_rows),
        ("training" if only else "evaluation", data.path, data.sha256, data.n_rows),
    ):
        if path is not None:
            # Its folder is nobody else's business.
            yield purpose, visible(re.split(r"[/\\]", path.rstrip("/\\"))[-1]), digest, n


def _sentences(report: AuditReport) -> dict[str, list[str]]:
    """What was found of biases, of missing values, of personal data and of anything else, in sentences.

    Of biases also what has no limit, over all groups: a datasheet without it would state that nothing was measured.
    """
    found: dict[str, list[str]] = {"biases": [], "missing": [], "personal": [], "limits": []}
    for row in report_view.rows_of(report.findings):
        finding = row.finding
        if not finding.metric or finding.value is None:
            continue
        if finding.metric == _MISSING:
            found["missing"].append(_sentence(row))
        elif finding.metric in _PERSONAL:
            found["personal"].append(_sentence(row))
        elif finding.pillar == "fairness" and (finding.criterion or _is_of_all_groups(finding)):
            found["biases"].append(_sentence(row))
        elif finding.criterion:
            found["limits"].append(_sentence(row))
    return {name: own[:_MOST_SENTENCES] for name, own in found.items()}


def _is_of_all_groups(finding: Finding) -> bool:
    """Whether a number with an uncertainty, so not a size that is merely counted, compares groups of a feature."""
    low, high = finding.interval or (None, None)
    return bool(finding.sensitive and not finding.group and low != high)


def _sentence(row: Row) -> str:
    interval = f" [{row.interval}{f' at {row.confidence}' if row.confidence else ''}]" if row.interval else ""
    bound = f", must be {row.must_be}" if row.must_be else ""
    detail = f" ({row.finding.detail})" if row.finding.detail else ""
    return visible(
        f"{row.outcome.words}: {row.name} {row.where}".rstrip() + f" is {row.value}{interval}{bound}{detail}"
    )


# ---- Croissant -------------------------------------------------------------------------------------------------------


def render_croissant(report: AuditReport) -> str:
    """A Croissant 1.1 description as JSON-LD: the files with their digests, the columns that were named, and what was
    found in the words of the RAI vocabulary. A licence, a citation and how the data were collected are not known."""
    files = list(_files(report))
    found = _sentences(report)
    counted = "; ".join(f"{purpose} rows: {count(n)}" for purpose, _, _, n in files) or "Rows in memory"
    name = PurePath(files[0][1]).stem if files else "data in memory"
    described: dict[str, object] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": list(_CONFORMS),
        "name": re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.") or "data",
        "description": f"{counted}, from record {report_view.document_id(report)}. Not legal advice.",
        "dateModified": report.created[:10],
        "distribution": [_file(*each) for each in files],
        "recordSet": [own for purpose, _, _, n in files for own in _record_sets(report, purpose, n)],
        "rai:dataBiases": found["biases"],
        "rai:dataCollectionMissingData": "; ".join(found["missing"]),
        "rai:personalSensitiveInformation": found["personal"],
        "rai:dataLimitations": [*found["limits"], *map(visible, report_view.warnings_of(report))],
    }
    said = {key: value for key, value in described.items() if value not in ([], "")}
    return json.dumps(said, indent=2, ensure_ascii=False) + "\n"


def _file(purpose: str, name: str, digest: str | None, n: int | None) -> dict[str, object]:
    size = "" if n is None else f", {plural(n, 'row')}"
    # A table of a database is named FILE::TABLE.
    own_file = name.partition("::")[0]
    made: dict[str, object] = {
        "@type": "cr:FileObject",
        "@id": f"{purpose}-file",
        "name": name,
        "description": f"{purpose} rows{size}",
        "contentUrl": own_file,
        "encodingFormat": _MEDIA_TYPES.get(PurePath(own_file.lower()).suffix, "application/octet-stream"),
    }
    return made | ({"sha256": digest} if digest else {})


def _record_sets(report: AuditReport, purpose: str, n: int | None) -> list[dict[str, object]]:
    """The columns that the audit was told of: the label and the sensitive features, and how many rows were counted, in
    all and of each group. Names are free text, and no id."""
    data, rows = report.data, f"{purpose}-rows"
    columns = list(dict.fromkeys(visible(each) for each in (*filter(None, [data.target]), *data.sensitive)))
    # Groups are counted of one file, the one that is the data of the audit.
    counted = (data.groups or {}) if purpose == "evaluation" or len(list(_files(report))) == 1 else {}
    fields: list[dict[str, object]] = [
        {
            "@type": "cr:Field",
            "@id": f"{rows}/column-{i}",
            "name": column,
            "description": "label" if column == visible(data.target or "") else "sensitive feature",
            "dataType": "sc:Text",
            "source": {"fileObject": {"@id": f"{purpose}-file"}, "extract": {"column": column}},
        }
        | _counts({f"{column}={visible(group)}": size for group, size in counted.get(column, {}).items()})
        for i, column in enumerate(columns)
    ]
    records = {"@type": "cr:RecordSet", "@id": rows, "name": rows, "field": fields}
    return [records | _counts({} if n is None else {f"{rows}/count": n})] if fields else []


def _counts(numbers: Mapping[str, int]) -> dict[str, object]:
    """Numbers of records by name, as Croissant 1.1 annotates statistics."""
    own = [{"@type": "cr:Field", "name": name, "value": n, "dataType": _CARDINALITY} for name, n in numbers.items()]
    return {"annotation": own} if own else {}


# ---- datasheet -------------------------------------------------------------------------------------------------------


def render_datasheet(report: AuditReport) -> str:
    """A datasheet in Markdown with the sections of Gebru et al. (CACM 2021): what is measured stands under composition,
    and all others are to be filled in."""
    data = report.data
    lines = ["# Datasheet", "", "## Motivation", "", TO_BE_STATED, "", "## Composition", ""]
    for purpose, name, digest, n in _files(report):
        lines.append(f"- {purpose.capitalize()} rows: {code_span(name)}, {count(n)}, SHA-256 {digest or 'not known'}")
    lines += [f"- Label: {code_span(data.target)}"] if data.target else []
    for feature, sizes in (data.groups or {}).items():
        shares = ", ".join(f"{code_span(group)} {count(n)}" for group, n in sizes.items())
        lines.append(f"- Groups by {code_span(feature)}: {shares}")
    titles = {
        "biases": "Differences between groups",
        "missing": "Missing values",
        "personal": "Personal data and special categories",
        "limits": "Errors, repeats and other limits",
    }
    found = _sentences(report)
    for kind, title in titles.items():
        own = [f"- {escaped(sentence)}" for sentence in found[kind]] or ["Nothing was measured."]
        lines += ["", f"### {title}", "", *own]
    for title in ("Collection", "Preprocessing, cleaning and labelling", "Uses", "Distribution", "Maintenance"):
        lines += ["", f"## {title}", "", TO_BE_STATED]
    version = code_span(report.tool.get("version", ""))
    lines += [
        "",
        f"Written by auditor {version} from record {code_span(report_view.document_id(report))}. Not legal advice.",
    ]
    return "\n".join(lines) + "\n"
