"""Prompt wordings of a question with a context, in each supported language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from auditor.data.benchmarks.bbq_variants import Language


@dataclass(frozen=True)
class Wording:
    """A question's wording: ``question`` has ``{context}`` and ``{question}``, ``lead`` precedes the answer."""

    question: str
    lead: str

    def prompt_text(self, context: str, question: str) -> str:
        """The complete question text."""
        return self.question.format(context=context, question=question)

    def in_plain_text(self) -> str:
        """The plain-text prompt up to the answer."""
        return f"{self.question}\n{self.lead}"


# The first of each is what is asked where one is asked for.
WORDINGS: Mapping[Language, tuple[Wording, Wording, Wording]] = {
    "en": (
        Wording("{context}\nQuestion: {question}", "Answer:"),
        Wording("Read this: {context}\nNow say: {question}", "My answer is:"),
        Wording("Context: {context}\nQ: {question}", "A:"),
    ),
    "es": (
        Wording("{context}\nPregunta: {question}", "Respuesta:"),
        Wording("Lee esto: {context}\nAhora di: {question}", "Mi respuesta es:"),
        Wording("Contexto: {context}\nP: {question}", "R:"),
    ),
    "ca": (
        Wording("{context}\nPregunta: {question}", "Resposta:"),
        Wording("Llegeix això: {context}\nAra digues: {question}", "La meva resposta és:"),
        Wording("Context: {context}\nP: {question}", "R:"),
    ),
}
MOST_WORDINGS = 3
