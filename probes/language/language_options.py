"""Shared parts of language-model probes: the required model, its queries, benchmark files, and text scoring."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from auditor.core.errors import ConfigError, NotApplicableError
from auditor.core.rows import FloatArray
from auditor.data.benchmarks.benchmark import Benchmark
from auditor.judging.measurement import Measurement, define_metrics
from auditor.run.probe import allow_untrusted
from probes.probe_inputs import earlier_language_model

if TYPE_CHECKING:
    import numpy as np

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel
    from auditor.models.capabilities import Generates
    from auditor.models.chat import Chat, How
    from auditor.models.language_model import AuditedLanguageModel
    from auditor.models.text_scores import Form, ScoresTexts

AnswerBy = Literal["auto", "likelihood", "letter"]
# A token's text or id. By its own name, so that :func:`check_prefix` says what is wrong with a value.
PrefixToken = str | int
_MOST_BYTES = 1 << 16


@dataclass(frozen=True)
class Asking:
    """``chat``: ``auto`` is through the chat template of a model that has one, ``on`` through it or not at all, ``off``
    in plain text. ``system``: path of a file that holds the system message, UTF-8, without which there is none.
    ``answer_by``: ``likelihood``, ``letter``, or ``auto``, by likelihood where the model gives any."""

    chat: How = "auto"
    system: str | None = None
    answer_by: AnswerBy = "auto"

    def __post_init__(self) -> None:
        if self.chat not in ("auto", "on", "off"):
            raise ValueError(f"chat must be 'auto', 'on' or 'off', not {self.chat!r}")
        if self.system is not None and self.chat == "off":
            raise ValueError("system is told in a chat, and chat is 'off': leave one of them out")
        if self.answer_by not in ("auto", "likelihood", "letter"):
            raise ValueError(f"answer_by must be 'auto', 'likelihood' or 'letter', not {self.answer_by!r}")

    def of_texts(self, **of_likelihoods: object) -> Asking:
        """The same queries for a probe that compares plain texts by likelihood, with other options for letters only.

        Raises ConfigError where what is said can change nothing: a system message by likelihood, or by letter one of
        ``of_likelihoods``, options that are not None.
        """
        unused = [name for name, said in of_likelihoods.items() if said is not None]
        if self.answer_by == "likelihood" and self.system is not None:
            raise ConfigError("system is for letters, and answer_by is 'likelihood': leave one of them out.")
        if self.answer_by == "letter" and unused:
            raise ConfigError(f"{unused[0]} is for likelihoods, and answer_by is 'letter': leave one of them out.")
        return self

    def by_letter(self, model: AuditedModel) -> bool:
        """Whether the model is queried for a letter instead of likelihoods."""
        from auditor.models.text_scores import ScoresTexts

        return self.answer_by == "letter" or (self.answer_by == "auto" and not isinstance(model, ScoresTexts))

    def chat_for(self, model: ScoresTexts) -> Chat | None:
        """The model's chat, or None for plain text, as for a model without a known template.

        Raises NotApplicableError where a template is asked for that the model does not have, ConfigError where the
        system message cannot be read.
        """
        from auditor.models.chat import chat_of
        from auditor.models.language_model import AuditedLanguageModel

        if isinstance(model, AuditedLanguageModel):
            return chat_of(model, self.chat, self._system_text())
        if self.chat == "on" or self.system is not None:
            raise NotApplicableError(
                "Needs the model's chat template to say how likely an answer is, and it is not here: leave --chat on "
                "and --system out."
            )
        return None

    def writer(self, model: AuditedModel) -> Generates:
        """The model as a text generator in this prompting mode.

        Raises NotApplicableError where it writes no texts, or cannot be asked so, ConfigError as :meth:`chat_for`.
        """
        from auditor.models.capabilities import writer_of

        return writer_of(model, self.chat, self._system_text())

    def _system_text(self) -> str:
        return "" if self.system is None else _system_message(self.system)


def _system_message(path: str) -> str:
    where = Path(path)
    try:
        raw = where.read_bytes()
        text = raw.decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The system message {where.name!r} cannot be read: {error}.") from None
    if not text or len(raw) > _MOST_BYTES:
        raise ConfigError(f"The system message {where.name!r} must hold 1 to {_MOST_BYTES:,} bytes of text.")
    return text


def benchmark_path(benchmarks: Mapping[str, str] | None, name: str) -> str:
    """Path of a benchmark's file. Raises NotApplicableError, which names the flag, where none was given."""
    if not benchmarks or name not in benchmarks:
        raise NotApplicableError(f"Needs the benchmark's file: add --benchmark {name}=PATH.")
    return benchmarks[name]


# Of CrowS-Pairs and StereoSet.
_UNSAID = (
    "Many items do not state which stereotype they test, or differ in more than whom they name (Blodgett et al., ACL "
    "2021): the score is of these items, and not of stereotypes at large."
)
_FILTERED = (
    "That the others state which stereotype they test, and differ in nothing else (Blodgett et al., ACL 2021), is that "
    "list's word: unfiltered_stereotype_score is over all {n:,}."
)
T = TypeVar("T")


def caveat(benchmark: Benchmark[T]) -> str:
    """Known problems of the items of CrowS-Pairs and StereoSet, with or without an exclusion list."""
    return _FILTERED.format(n=len(benchmark.examples) + len(benchmark.left_out)) if benchmark.left_out else _UNSAID


def source_and_scoring(model: ScoresTexts, source: str, *more: str) -> str:
    """A finding's detail: the source of the texts, the scoring method, further notes."""
    from auditor.models.chat import in_plain_text
    from auditor.models.language_model import AuditedLanguageModel

    plain = sentence(in_plain_text(model)) if isinstance(model, AuditedLanguageModel) else ""
    return " ".join([f"{source}.", model.notes, *(m for m in (*more, plain) if m)])


def sentence(words: str) -> str:
    """Some words as a sentence; "" without words."""
    return f"{words[:1].upper()}{words[1:]}." if words else ""


OTHER_PREFIX_METRICS = define_metrics(
    """
    *_other_prefix: the same number with the token before each text that opens the turns of a chat, as the tokenizer
      names it, in place of the one that separated training texts; (-inf, inf), no ideal; far from
      it, the choice of the token decides; Biderman et al., arXiv 2405.14782 (2024)
    """
)


class LikelihoodOptions:
    """Options of a probe of text likelihoods.

    prefix_token: what stands before every text of a causal model, without which its first token has no probability: a
    token as the tokenizer spells it, its id, or "" for nothing. None is what the tokenizer puts there itself, else its
    beginning-of-sequence token, as lm-evaluation-harness has it, so that figures compare. Where that opens the turns of
    a chat, it is the token that separated the training texts, and the numbers over all texts are shown after the
    other one too (``*_other_prefix``): SmolLM2-135M-Instruct scores 0.56 on CrowS-Pairs after its ``<|im_start|>``, and
    0.54 after ``<|endoftext|>``, with perplexities of 102 and 45.
    """

    untrusted_options = allow_untrusted("prefix_token")
    # Whether a part of the built-in texts is enough, as beside numbers over all of them.
    in_brief = False

    def __init__(self, *, prefix_token: PrefixToken | None = None) -> None:
        check_prefix(prefix_token)
        self.prefix_token = prefix_token

    def language(self, model: AuditedModel) -> ScoresTexts:
        """The model with the requested prefix; the given model is unchanged.

        Raises NotApplicableError for one that gives no likelihoods of texts, ConfigError for a token that its tokenizer
        does not have.
        """
        from auditor.models.capabilities import scorer_of

        found = scorer_of(model)
        return found if self.prefix_token is None else found.with_prefix(self.prefix_token)

    def with_other_prefix(
        self, model: AuditedModel, data: AuditData, rng: np.random.Generator, found: list[Measurement]
    ) -> list[Measurement]:
        """The measurements, and behind them those over all texts after the token that the default passes over."""
        mark = getattr(self.language(model), "chat_mark", None)
        if self.prefix_token is not None or mark is None:
            return found
        other: Any = copy.copy(self)
        other.prefix_token, other.reference, other.in_brief = mark, None, True
        after = {"prefix": other.weights(model).prefix_text}
        again = (m for m in other.measure(model, data, rng) if not m.group)
        return found + [
            replace(m, metric=f"{m.metric}_other_prefix", at={**m.at, **after}, figure=None, ideal=None) for m in again
        ]

    def weights(self, model: AuditedModel) -> AuditedLanguageModel:
        """The same for a model with available weights; NotApplicableError for any other."""
        from auditor.models.capabilities import weights_of

        found = weights_of(model)
        return found if self.prefix_token is None else found.with_prefix(self.prefix_token)


class Compared(LikelihoodOptions):
    """Likelihood options with ``reference``, an earlier model (path or object), measured on the same texts."""

    untrusted_options = allow_untrusted(reads=("reference",))

    def __init__(self, *, prefix_token: PrefixToken | None = None, reference: str | AuditedModel | None = None) -> None:
        super().__init__(prefix_token=prefix_token)
        self.reference = reference

    def earlier(self) -> tuple[ScoresTexts, str] | None:
        """The reference and its source; None without one, and if it is not a usable language model."""
        found = earlier_language_model(self.reference)
        return None if found is None else (self.language(found[0]), found[1])


class TextsOfAFile(LikelihoodOptions):
    """The same with ``benchmarks``: paths of published files by the name of the probe that reads them."""

    untrusted_options = allow_untrusted(reads=("benchmarks",))

    def __init__(self, *, benchmarks: Mapping[str, str] | None = None, prefix_token: PrefixToken | None = None) -> None:
        super().__init__(prefix_token=prefix_token)
        self.benchmarks = benchmarks


class PairOptions(Compared):
    """Options of a probe that compares the likelihoods of two texts.

    form: ``whole`` compares whole texts (default for causal models), ``shared`` the tokens that both have (default for
    masked ones). within_word: hide the rest of a word when a masked model predicts a part of it (Kauf and Ivanova, ACL
    2023). With ``reference`` each headline has its ``_shift`` and ``_midpoint``, of which a comparison takes what
    became of it, pair by pair: see :func:`~probes.language.preference_shares.shifts`.
    """

    untrusted_options = allow_untrusted("form", "within_word")

    def __init__(
        self,
        *,
        form: Form | None = None,
        within_word: bool = False,
        prefix_token: PrefixToken | None = None,
        reference: str | AuditedModel | None = None,
    ) -> None:
        super().__init__(prefix_token=prefix_token, reference=reference)
        if form not in (None, "whole", "shared"):
            raise ValueError(f"form must be 'whole' or 'shared', not {form!r}")
        self.form = form
        self.within_word = within_word

    def likelihoods(self, language: ScoresTexts, pairs: Sequence[tuple[str, str]]) -> FloatArray:
        """(n, 2) log-likelihoods of both texts, in nats."""
        return language.pair_scores(pairs, form=self.form, within_word=self.within_word)


class PairsOfAFile(PairOptions):
    """The same with ``benchmarks``: paths of published files by the name of the probe that reads them.

    A model whose likelihoods of texts cannot be had is asked for a letter: ``answer_by``, ``chat`` and ``system`` as in
    :class:`~probes.language.language_options.Asking`. ``chat`` and ``system`` are for letters, ``form``,
    ``within_word``, ``prefix_token`` and ``reference`` for likelihoods; ConfigError for ``system`` with ``answer_by``
    "likelihood", and for ``form`` or ``reference`` with "letter".
    """

    untrusted_options = allow_untrusted("answer_by", "chat", reads=("benchmarks", "system"))

    def __init__(
        self,
        *,
        benchmarks: Mapping[str, str] | None = None,
        form: Form | None = None,
        within_word: bool = False,
        prefix_token: PrefixToken | None = None,
        reference: str | AuditedModel | None = None,
        answer_by: AnswerBy = "auto",
        chat: How = "auto",
        system: str | None = None,
    ) -> None:
        super().__init__(form=form, within_word=within_word, prefix_token=prefix_token, reference=reference)
        self.benchmarks = benchmarks
        self.asking = Asking(chat, system, answer_by).of_texts(form=form, reference=reference)


def asked_for_letters(writer: Generates, source: str, *more: str) -> str:
    """A finding's detail for a model with letter answers: the text source, the prompting, further notes."""
    return " ".join([f"{source}.", *(m for m in (*more, sentence(writer.describe())) if m)])


def check_prefix(value: object) -> None:
    """Raise ValueError if a prefix is neither None nor a token's text or id."""
    if isinstance(value, bool) or not (value is None or isinstance(value, (str, int))) or value == -1:
        raise ValueError(f"prefix_token must be a token, its id, or '' for none, not {value!r}")
