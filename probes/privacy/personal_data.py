"""Personal data in the training rows: in texts, and by the names of columns."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from auditor.core.errors import NotApplicableError
from auditor.core.rows import BoolArray, IntArray
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.planted.twin_costs import Forecast
from auditor.run.probe import BaseProbe, Need
from auditor.statistics.error_corrected_rates import Corrected
from auditor.statistics.estimate import Exact
from probes.probe_inputs import training_rows
from probes.twins import no_plant

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

_ANY = "any"
# A text in which nothing looks like personal data.
_PLAIN = "as agreed"
_SHOWN = 3
# Nothing of the forms that are looked for is without an @, or five digits, or two colons.
_POSSIBLE = re.compile(r"@|[\[(]\s*at\s*[\])]|(?:\d\D{0,2}){5}|:.*:", re.I)
# Of Art. 9(1) and Art. 10 GDPR, by words that names of columns are made of.
_SPECIAL = {
    "race or ethnic origin": "race|racial|ethnic|ethnicity|skin|tribe|caste",
    "political opinions": "political|politics|party|vote|voting",
    "religion or belief": "religion|religious|faith|church|belief",
    "trade union": "union",
    "genetic data": "genetic|genome|genotype|dna",
    "biometric data": "biometric|fingerprint|iris|faceprint",
    "health": "health|diagnosis|diagnoses|disease|disability|disabled|illness|medical|medication|icd|pregnant|hiv",
    "sex life or orientation": "orientation|sexuality|gay",
    "criminal convictions": "crime|criminal|conviction|convictions|offence|offense|arrest|arrests|prison|priors",
}
_WORDS = re.compile(r"[^\W\d_]+")
# Columns of whole numbers that are read as texts, for their names; an international number loses its + as a number.
_NUMBERS = frozenset("phone telephone mobile cell cellphone tel fax card".split())
_NATIONAL_DIGITS = 10


class PersonalData(BaseProbe):
    """The share of training rows whose texts hold personal data, by kind, and columns named as special categories.

    Texts are those of every column of texts, of columns that name rows too, of whole numbers whose column is
    named as telephone or card numbers are, or the rows themselves. Kinds are those of
    :func:`~probes.privacy.memorization.pii_patterns.find_pii`: e-mail addresses, telephone numbers, payment cards,
    IBANs, IP addresses and national ids, in a context that does not make them a thing's number. Examples are masked.

    - ``recognised_rate``: As counted, of any kind and of each kind that was found. Known exactly of these rows.
    - ``personal_data_rate``: The same, corrected for what is overlooked and for false alarms by
      :class:`~auditor.statistics.error_corrected_rates.Corrected`, as measured on the held-out half of the labelled
      sentences (:func:`~probes.privacy.memorization.pii_patterns.recognition`).
    - ``special_category_columns``: Columns whose names hold a word for a special category (Art. 9(1), Art. 10 GDPR);
      what a column without such a name holds is not known.

    Names of persons, postal addresses and what a text says of somebody's health or belief are not looked for.

    Raises NotApplicableError where no column is of texts and none is named so.

    Sources: Rogan and Gladen, Am. J. Epidemiol. 107 (1978); Regulation (EU) 2016/679, Art. 4(1), 9(1), 10.
    """

    name = "personal_data"
    pillar = "privacy"
    goal = "Do the training rows hold personal data in texts, or columns of special categories?"
    citation = "Regulation (EU) 2016/679, Art. 4 and 9; Rogan and Gladen, Am. J. Epidemiol. 1978"
    methods = ("patterns",)
    needs = (Need.TRAIN,)
    questions = (AuditQuestion("personal_rows", form="percent"),)
    forecast = Forecast(twin=0.012, number=0.0, million=0.2, most_rows=50_000, training_rows=True)
    exact = {"recognised_rate": "every text is looked at", "special_category_columns": "every name is looked at"}
    metrics = define_metrics(
        """
        recognised_rate: share of the training rows in which personal data is recognised; [0, 1], ideal 0; at 0.001 one
          row in 1,000 holds an e-mail address or another of the kinds that are looked for; Regulation (EU) 2016/679
        personal_data_rate: share of the training rows with personal data of these kinds, corrected for what is
          overlooked and for false alarms; [0, 1], ideal 0; at 0.001 one row in 1,000; Rogan and Gladen, Am. J.
          Epidemiol. 1978
        special_category_columns: columns whose names hold a word for a special category of personal data; [0, inf), no
          ideal; each needs a ground of Art. 9(2); Regulation (EU) 2016/679
        """
    )

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements on the training rows; the model is not called."""
        rows = training_rows(data)
        columns, special = _texts(rows), special_columns(rows)
        if not columns and not special:
            raise NotApplicableError("Needs texts: no column of the training rows holds any.")
        found = [
            Measurement(
                metric="special_category_columns",
                method="patterns",
                estimate=Exact(known=float(len(special))),
                n_samples=len(rows),
                detail="; ".join(f"{column}: {category}" for column, category in special.items())
                or "no name of a column holds a word for one",
            )
        ]
        return found + (_rates(columns, len(rows)) if columns else [])

    def measure_planted(
        self, model: AuditedModel, data: AuditData, measured: Measurement, value: float, rng: np.random.Generator
    ) -> list[Measurement]:
        """The measurements of a twin of the training rows of which a known share holds personal data."""
        from probes.privacy.memorization.pii_patterns import sentences

        kind, rows = measured.at.get("kind"), replace(training_rows(data), is_member=None)
        known = [s.text for s in sentences("held_out") if s.personal and kind in (_ANY, s.kind)]
        if measured.metric != "personal_data_rate" or not known:
            raise no_plant(measured)
        columns = list(_texts(rows))
        texts = np.full(len(rows), _PLAIN, object)
        held = rng.random(len(rows)) < value
        texts[held] = rng.choice(np.asarray(known, object), int(held.sum()))
        return self.measure(model, _with_texts(rows, str(rng.choice(columns)), texts, columns), rng)


def _texts(rows: AuditData) -> dict[str, tuple[IntArray, list[str]]]:
    """Of each column of texts (n,) codes of its different texts, and these; -1 where there is none."""
    import pandas as pd

    if isinstance(rows.X, pd.DataFrame):
        tables = [rows.X] if rows.identifiers is None else [rows.X, rows.identifiers]
        kinds = {str(name): table[name] for table in tables for name in table.columns}
        own = {name: values for name, values in kinds.items() if values.dtype.kind not in "biufcmM"}
        numbers = {n: v for n, v in kinds.items() if v.dtype.kind in "iuf" and _words_of(n) & _NUMBERS}
        own |= {name: values.map(lambda v, n=name: _spelled(n, v)) for name, values in numbers.items()}
    elif rows.modality == "text":
        own = {"text": pd.Series(rows.X)}
    else:
        own = {}
    coded = {name: pd.factorize(values.astype("string")) for name, values in own.items()}
    return {name: (codes.astype(np.int64), list(map(str, different))) for name, (codes, different) in coded.items()}


def _with_texts(rows: AuditData, column: str, texts: npt.NDArray[Any], columns: list[str]) -> AuditData:
    """The rows with ``texts`` in a column, and nothing in the others that may hold any."""
    import pandas as pd

    if not isinstance(rows.X, pd.DataFrame):
        return replace(rows, X=texts)

    def written(table: pd.DataFrame) -> pd.DataFrame:
        table = table.copy(deep=False)
        for i, name in enumerate(map(str, table.columns)):
            if name in columns:
                table.isetitem(i, texts if name == column else [_PLAIN] * len(table))
        return table

    names = rows.identifiers
    return replace(rows, X=written(rows.X), identifiers=None if names is None else written(names))


def _words_of(name: str) -> set[str]:
    """The words of a column's name, in small letters."""
    return set(map(str.lower, _WORDS.findall(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name))))


def _spelled(name: str, value: float) -> str | None:
    """A whole number after its column's name, which is its context; None for another number."""
    if not np.isfinite(value) or value != int(value) or value < 0:
        return None
    digits = str(int(value))
    return f"{' '.join(_WORDS.findall(name))}: {'+' * (_NATIONAL_DIGITS < len(digits) < 14)}{digits}"


def hidden_text(column: str, text: str, *, whole: bool) -> str:
    """A text with what is recognised in it masked, after its column's name as context; ``whole``: all of it."""
    from probes.privacy.memorization.pii_patterns import in_context, in_one_spelling, look_alikes, masked

    if whole:
        return masked(text)
    context = f"{' '.join(_WORDS.findall(column))}: "
    spelled = shown = context + in_one_spelling(text)
    for match in look_alikes(spelled):
        if in_context(spelled, match):
            shown = shown[: match.start] + masked(shown[match.start : match.end]) + shown[match.end :]
    return shown[len(context) :]


def special_columns(rows: AuditData) -> dict[str, str]:
    """The columns whose names hold a word for a special category, and which."""
    import pandas as pd

    tables = [rows.sensitive_features, rows.X if isinstance(rows.X, pd.DataFrame) else None, rows.identifiers]
    names = dict.fromkeys(str(name) for table in tables if table is not None for name in table.columns)
    words = {name: _words_of(name) for name in names}
    return {
        name: category for name in names for category, known in _SPECIAL.items() if words[name] & set(known.split("|"))
    }


def _rates(columns: dict[str, tuple[IntArray, list[str]]], n: int) -> list[Measurement]:
    from probes.privacy.memorization.pii_patterns import in_context, in_one_spelling, look_alikes, masked, recognition

    held: dict[str, BoolArray] = defaultdict(lambda: np.zeros(n, bool))
    looks: dict[str, BoolArray] = defaultdict(lambda: np.zeros(n, bool))
    where: dict[str, Counter[str]] = defaultdict(Counter)
    examples: dict[str, dict[str, None]] = defaultdict(dict)
    for column, (codes, texts) in columns.items():
        marks: dict[tuple[str, bool], BoolArray] = {}
        for i, raw in enumerate(texts):
            if not _POSSIBLE.search(raw):
                continue
            text = in_one_spelling(raw)
            for match in look_alikes(text):
                personal = in_context(text, match)
                for kind in (_ANY, match.kind):
                    for mark in {False, personal}:
                        marks.setdefault((kind, mark), np.zeros(len(texts) + 1, bool))[i] = True
                if personal and len(examples[match.kind]) < _SHOWN:
                    examples[match.kind][masked(text[match.start : match.end])] = None
        for (kind, personal), own in marks.items():
            # The last entry is of rows without a text.
            rows = own[codes]
            (held if personal else looks)[kind] |= rows
            if personal and rows.any():
                where[kind][column] += int(rows.sum())
    found = []
    for kind in (_ANY, *sorted(set(held) - {_ANY})):
        told, hits = recognition(None if kind == _ANY else kind), int(held[kind].sum())
        detail = f"{hits:,} of {n:,} rows" + "".join(f"; {c}: {k:,}" for c, k in where[kind].most_common(_SHOWN))
        detail += "".join(f"; {example}" for example in examples.get(kind, ()))
        corrected = Corrected(
            successes=hits,
            n=n,
            found=told.found,
            positives=told.positives,
            spared=(told.spared,),
            negatives=(told.negatives,),
            candidates=int((looks[kind] | held[kind]).sum()),
        )
        for metric, estimate in (("recognised_rate", Exact(known=hits / n)), ("personal_data_rate", corrected)):
            found.append(
                Measurement(
                    metric=metric,
                    method="patterns",
                    estimate=estimate,
                    n_samples=n,
                    ideal=0.0,
                    at={"kind": kind},
                    detail=detail if metric == "recognised_rate" else told.describe(),
                )
            )
    return found
