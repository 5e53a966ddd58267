"""Continuations of prompts about groups: built-in prompts, sampling, and the required number."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.errors import ConfigError, did_you_mean
from auditor.core.rows import FloatArray
from auditor.data.lexicons import Lexicon, built_in, parse
from auditor.data.swaps import Swapper
from auditor.run.probe import allow_untrusted
from probes.language.calibration import Errors, read_calibration
from probes.language.language_options import Asking
from probes.language.text_scorers import Device, load_device
from probes.probe_inputs import whole_number

if TYPE_CHECKING:
    from auditor.judging.measurement import Measurement
    from auditor.models.audited_model import AuditedModel
    from auditor.models.chat import How
    from auditor.models.generation import Sampling, Until

DEFAULT = ("gender", "names", "religion", "occupation")
CATEGORIES = (*DEFAULT, "orientation", "disability", "age", "nationality")


@dataclass(frozen=True)
class Prompts:
    """A category's lexicon, and the sentences for exchanging its identities."""

    lexicon: Lexicon
    beginnings: tuple[str, ...]
    carriers: tuple[str, ...]

    @property
    def category(self) -> str:
        """The category of the identities."""
        return self.lexicon.category

    @property
    def names(self) -> tuple[str, ...]:
        """The identities' names, in the order of every row of :meth:`filled`."""
        return self.lexicon.names

    def filled(self, sentences: Sequence[str], most: int | None, rng: np.random.Generator) -> list[list[str]]:
        """At most ``most`` random sentences in original order, each with every identity; lists of equal length.

        The k-th sentence takes the k-th word of each identity, so that paired names stay paired.
        """
        size = len(sentences) if most is None else min(most, len(sentences))
        chosen = sorted(int(i) for i in rng.choice(len(sentences), size=size, replace=False))
        swapper = Swapper(self.lexicon)
        rows = [[swapper.fill(sentences[k], identity, k) for identity in self.lexicon.identities] for k in chosen]
        return [[text for text in row if text is not None] for row in rows if all(text is not None for text in row)]


@cache
def _content() -> Mapping[str, Any]:
    return tomllib.loads((files("probes") / "data" / "generation.toml").read_text(encoding="utf-8"))


def built_in_prompts(category: str) -> Prompts:
    """The built-in prompts of a category. Raises ConfigError for one that there is not."""
    if category not in CATEGORIES:
        raise ConfigError(
            f"There are no prompts for {category!r}{did_you_mean(category, CATEGORIES)}. There are: "
            f"{', '.join(CATEGORIES)}."
        )
    content = _content()
    lexicon = parse(content["occupation"], "occupation") if category == "occupation" else built_in((category,))[0]
    subjects = content["subjects"][category]

    def sentences(endings: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"{subjects[k % len(subjects)]} {ending}" for k, ending in enumerate(endings))

    return Prompts(lexicon, sentences(content["beginnings"]), sentences(content["carriers"]))


def own_prompts(lexicon: Lexicon) -> Prompts:
    """Prompts of a user's lexicon: its own templates, which also test the scorer."""
    if lexicon.reference or len(lexicon.templates) < 2:
        raise ConfigError(f"The lexicon {lexicon.origin!r} needs at least two templates, the beginnings of texts.")
    return Prompts(lexicon, lexicon.templates, lexicon.templates)


def extremes(names: Sequence[str], means: FloatArray) -> str:
    """The highest and the lowest mean score in words, or nothing if one is undefined."""
    if not len(means) or not np.isfinite(means).all():
        return ""
    high, low = int(means.argmax()), int(means.argmin())
    if means[high] == means[low]:
        return f"all identities {means[high]:.3f}"
    return f"highest {names[high]} {means[high]:.3f}, lowest {names[low]} {means[low]:.3f}"


# Standard errors on either side of a gap that its interval takes, at the levels that are judged by.
_ERRORS_A_SIDE = 2.5


def variances(scores: FloatArray) -> tuple[float, float]:
    """(2 s^2, B) of scores (n_templates, k, n_samples), n_samples at least 2.

    s^2 is the variance of scores within a prompt and B that of two identities' difference between beginnings, mean over
    pairs; the difference of two means of n continuations each over m beginnings then varies by ``(B + 2 s^2 / n) / m``.
    """
    _, k, n = scores.shape
    first, second = np.asarray(list(combinations(range(k), 2))).T
    means = scores.mean(axis=2)
    total = float((means[:, first] - means[:, second]).var(axis=0, ddof=1).mean())
    within = 2.0 * float(scores.var(axis=2, ddof=1).mean())
    return within, max(total - within / n, 0.0)


def continuations_needed(scores: FloatArray, half_width: float, most: int) -> int:
    """Continuations of each prompt, at most ``most``, by which an interval reaches about ``half_width`` to either side.

    Where beginnings alone scatter more than that, as many as leave the continuations' part at a quarter of theirs.
    The scores' means have no say in it, nor what was found so far: whoever stops where a difference shows, or where
    none does, is wrong more often than is said (Stein, Ann. Math. Stat. 16, 1945).
    """
    m, _, drawn = scores.shape
    within, between = variances(scores)
    allowed = m * (half_width / _ERRORS_A_SIDE) ** 2
    left = max(allowed - between, between / 4.0)
    needed = math.ceil(within / left) if left > 0.0 else drawn
    return int(max(min(needed, most), drawn))


class SamplingOptions:
    """Options of a probe that draws continuations.

    chat, system: see :class:`~probes.language.language_options.Asking`. Through a chat template the user says "Continue
    this text: " and the beginning, the reply is begun with the same, and what the model writes after it is the
    continuation. max_new_tokens, temperature, top_p, until: see :class:`~auditor.models.generation.Sampling`.
    batch_rows: continuations drawn at once.
    """

    untrusted_options = allow_untrusted(
        "max_new_tokens", "temperature", "top_p", "until", "batch_rows", "chat", reads=("system",)
    )

    def __init__(
        self,
        *,
        max_new_tokens: int,
        temperature: float,
        top_p: float,
        until: Until,
        batch_rows: int,
        chat: How = "off",
        system: str | None = None,
    ) -> None:
        self.asking = Asking(chat, system)
        whole_number("max_new_tokens", max_new_tokens, 1)
        whole_number("batch_rows", batch_rows, 1)
        if not (isinstance(temperature, (int, float)) and temperature >= 0.0):
            raise ValueError(f"temperature must be a number that is not negative, not {temperature!r}")
        if not (isinstance(top_p, (int, float)) and 0.0 < top_p <= 1.0):
            raise ValueError(f"top_p must lie in (0, 1], not {top_p!r}")
        if until not in ("length", "sentence", "word"):
            raise ValueError(f"until must be 'length', 'sentence' or 'word', not {until!r}")
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.top_p = top_p
        self.until = until
        self.batch_rows = batch_rows

    def sampling(self) -> Sampling:
        """The settings in the sampler's form."""
        from auditor.models.generation import Sampling

        return Sampling(
            max_new_tokens=self.max_new_tokens, temperature=self.temperature, top_p=self.top_p, until=self.until
        )

    def continued(
        self, model: AuditedModel, prompts: Sequence[str], n: int, rng: np.random.Generator
    ) -> list[list[str]]:
        """``n`` continuations of each prompt. Raises NotApplicableError where the model writes no texts."""
        return self.asking.writer(model).continued(prompts, n, self.sampling(), rng, batch_rows=self.batch_rows)

    def how_asked(self, model: AuditedModel) -> str:
        """The prompting of :meth:`continued`, for a finding's detail."""
        return self.asking.writer(model).describe()


class ScoredOptions(SamplingOptions):
    """Sampling options with ``scorer`` (None for VADER's sentiment, the path of a text classifier, or a model),
    ``scorer_class``, the class whose probability is the score (default: the last), and ``calibration``: the path of
    human-labelled texts that measure the scorer's errors.

    text_judge: in place of a scorer a model that is asked ``judge_question`` of each text, or a classifier: a folder,
    the URL of ``--judge``, or such a model. Its scores are shown and not judged, its corrected rates are.
    """

    untrusted_options = allow_untrusted("scorer_class", reads=("scorer", "calibration"))

    def __init__(
        self,
        *,
        max_new_tokens: int,
        temperature: float,
        top_p: float,
        until: Until,
        batch_rows: int,
        scorer: str | AuditedModel | None,
        scorer_class: str | None,
        calibration: str | None,
        text_judge: str | AuditedModel | None,
        judge_question: str,
        chat: How,
        system: str | None,
    ) -> None:
        super().__init__(
            max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, until=until, batch_rows=batch_rows,
            chat=chat, system=system,
        )  # fmt: skip
        self.scorer = scorer
        self.scorer_class = scorer_class
        self.text_judge = text_judge
        self.judge_question = judge_question
        self.calibration = calibration
        # Read here, because a file that is wrong is a usage error and no finding.
        self.calibration_ = None if calibration is None else read_calibration(calibration)

    def load_device(self, audited: AuditedModel) -> tuple[Device, Errors | None]:
        """The scorer or judge of the audited model's texts, and its errors, None if untested."""
        device = load_device(self.scorer, self.scorer_class, self.text_judge, self.judge_question, audited)
        return device, device.errors_on(self.calibration_)


def as_far_as_shown(measurements: Iterable[Measurement], model: AuditedModel) -> list[Measurement]:
    """The measurements; for a model known only by its texts, none with an ideal passes.

    Whether a model tells a sentence from its words in another order is measured by likelihoods (``performance``). Where
    these are not to be had nobody knows, and who writes at random writes the same of everybody.
    """
    from auditor.models.text_scores import ScoresTexts

    if isinstance(model, ScoresTexts):
        return list(measurements)
    return [m if m.ideal is None else replace(m, weak=_TEXTS_ALONE) for m in measurements]


_TEXTS_ALONE = (
    "Nothing but the model's texts is to be had, and they do not show that it knows one text from another: who writes "
    "at random writes the same of everybody. Audit its folder, or a server that reports likelihoods of texts."
)
# Beyond this share of empty continuations what is said is no longer what a model says of people.
MOST_SILENT = 0.5


def silence(texts: Iterable[Iterable[str]]) -> tuple[str, str]:
    """The number of empty continuations, in words, and the reason for not judging; either may be ""."""
    flat = [text for some in texts for text in some]
    empty = sum(not text.strip() for text in flat)
    if not empty:
        return "", ""
    said = f"{empty:,} of {len(flat):,} continuations are empty"
    if empty <= MOST_SILENT * len(flat):
        return said, ""
    return said, (
        f"{said}: a model that says nothing has said nothing about anybody. Ask for more tokens, or for another until."
    )
