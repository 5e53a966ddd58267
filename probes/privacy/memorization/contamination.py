"""Contamination: training on a benchmark file, tested by preference for its original example order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import scipy

from auditor.core.errors import NotApplicableError
from auditor.core.rows import FloatArray
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.probe import BaseProbe, Need, allow_untrusted
from auditor.statistics.estimate import Power, Undefined
from auditor.statistics.means import StudentT
from auditor.statistics.significance_tests import ConfirmedCount
from auditor.statistics.values import bounded_mean
from probes.language.language_options import PrefixToken, benchmark_path, check_prefix
from probes.privacy.memorization.text_sources import causal_model, read_texts
from probes.probe_inputs import whole_number

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel
    from auditor.models.language_model import AuditedLanguageModel

FEWEST_SHARDS = 8
_DEFAULT_CONTEXT = 1024


class Contamination(BaseProbe):
    """Preference of the model for the original order of a benchmark's examples over any other order.

    Examples that are exchangeable, as most benchmarks' are, say nothing about their order; a model that prefers the
    order they were published in has seen the file. The examples are split into shards of neighbours that fit the
    model's context; each is scored as it stands and in ``n_permutations`` other orders drawn at random, or in all there
    are.

    - ``canonical_order_preference``: Ties count half. Shards are independent under any model that has not seen the
      file; bounds as of a mean of values in [0, 1].
    - ``order_log_likelihood_gain``: Student's interval, the test of the paper. Display only, since it relies on
      near-normal shards.
    - ``confirmed_memorization``: Each shard's p-value ``(1 + #{other orders at least as likely}) / (1 + other orders)``
      is valid whatever the model is, and so is the combination at every level. It can FAIL and never PASS.

    A file that is sorted by anything (length, topic, a running number) is not exchangeable, and its order may be
    preferred for that: do not test such a file. No preference is no proof of innocence: a model that has seen the
    examples one by one, or once, shows none.

    benchmarks: the file under the key ``contamination`` (--benchmark contamination=PATH): one example a line, or a
    table with ``column``. shard_examples: most examples in a shard. n_shards: shards at most. separator: stands between
    examples. prefix_token: see :class:`~probes.language.language_options.LikelihoodOptions`.

    Raises NotApplicableError without the file, for a model that is not causal, and below 8 shards.

    Source: Oren, Meister, Chatterji, Ladhak and Hashimoto, ICLR 2024 (arXiv:2310.17623).
    """

    name = "contamination"
    pillar = "privacy"
    goal = "Was the model trained on this benchmark?"
    citation = "Oren et al., ICLR 2024"
    methods = ("order_swap",)
    needs = (Need.LANGUAGE_MODEL,)
    questions = (AuditQuestion("benchmark_seen"),)
    ideal_when_same = {
        "canonical_order_preference": "scores",
        "confirmed_memorization": "scores",
    }
    # Shards, and the true preference that is FAILed against a bound of 0.5 by one judgement at 5 %.
    power: ClassVar[Power] = Power(50, 0.62)
    untrusted_options = allow_untrusted(
        "column", "n_permutations", "shard_examples", "n_shards", "separator", "prefix_token", reads=("benchmarks",)
    )
    metrics = define_metrics(
        """
        canonical_order_preference: mean over shards of the share of random orders of the examples that are less likely
          than the file's; [0, 1], ideal 0.5; above 0.5 the model prefers the order that was published, which it can
          only know from the file; Oren et al., ICLR 2024
        order_log_likelihood_gain: mean over shards of log p(file's order) less the mean over random orders; (-inf, inf)
          nats a shard, ideal 0; above 0 the published order is likelier; Oren et al., ICLR 2024
        confirmed_memorization: 1 where Fisher's combination of the shards' rank p-values refutes that the examples are
          exchangeable to this model, else 0; {0, 1}, ideal 0; at 1 the model has seen this file, beyond chance; Oren et
          al., ICLR 2024
        """
    )

    def __init__(
        self,
        *,
        benchmarks: Mapping[str, str] | None = None,
        column: str | None = None,
        n_permutations: int = 25,
        shard_examples: int = 10,
        n_shards: int = 50,
        separator: str = "\n",
        prefix_token: PrefixToken | None = None,
    ) -> None:
        check_prefix(prefix_token)
        self.prefix_token = prefix_token
        whole_number("n_permutations", n_permutations, 5)
        whole_number("shard_examples", shard_examples, 2)
        whole_number("n_shards", n_shards, FEWEST_SHARDS)
        self.benchmarks = benchmarks
        self.column = column
        self.n_permutations = n_permutations
        self.shard_examples = shard_examples
        self.n_shards = n_shards
        self.separator = separator

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """The preference for the file's order, and the gain in likelihood; see the class."""
        path = benchmark_path(self.benchmarks, self.name)
        language = causal_model(model, self.prefix_token)
        read = read_texts(path, "benchmark file", self.column)
        shards, long = self._shards(language, read.texts)
        if len(shards) < FEWEST_SHARDS:
            raise NotApplicableError(
                f"{read.origin} gives {len(shards)} groups of neighbouring examples that fit the model, and "
                f"{FEWEST_SHARDS} are needed: give the whole file, or set contamination.shard_examples to less."
            )
        if len(shards) > self.n_shards:
            shards = [shards[int(i)] for i in np.sort(rng.choice(len(shards), self.n_shards, replace=False))]
        orders = [_orders(len(shard), self.n_permutations, rng) for shard in shards]
        texts = [
            self.separator.join(shard[i] for i in order)
            for shard, some in zip(shards, orders, strict=True)
            for order in some
        ]
        scores = np.split(language.log_likelihoods(texts), np.cumsum([len(some) for some in orders])[:-1])
        share, gain, p = order_test(np.asarray([own[0] for own in scores]), [own[1:] for own in scores])
        detail = (
            f"{len(shards)} shards of at most {self.shard_examples} examples of {read.origin}, at most "
            f"{self.n_permutations} other orders each; p = {p:.2g} for exchangeable examples (Fisher's combination of "
            f"the shards' exact rank tests)"
        )
        if long:
            detail += f"; {long:,} examples too long to stand beside another took no part"
        return [
            Measurement(
                metric="canonical_order_preference",
                method="order_swap",
                estimate=bounded_mean(share, low=0.0, high=1.0),
                n_samples=sum(map(len, shards)),
                ideal=0.5,
                detail=f"{detail}; {language.notes}",
            ),
            Measurement(
                metric="order_log_likelihood_gain",
                method="order_swap",
                estimate=_student(gain),
                n_samples=sum(map(len, shards)),
                ideal=0.0,
                detail=f"nats per shard; {detail}",
                too_few="Display only: Student's interval relies on shards that are nearly normal. Set a bound on "
                "canonical_order_preference.",
            ),
            Measurement(
                metric="confirmed_memorization",
                method="order_swap",
                estimate=ConfirmedCount(p_values=(p,)),
                n_samples=sum(map(len, shards)),
                ideal=0.0,
                detail=detail,
            ),
        ]

    def _shards(self, model: AuditedLanguageModel, texts: Sequence[str]) -> tuple[list[list[str]], int]:
        """Runs of neighbours that fit the context together, at least two in each; and how many fit with no other."""
        limit = (model.context or _DEFAULT_CONTEXT) - 16
        sizes = [len(model.tokenizer(t, add_special_tokens=False, verbose=False).input_ids) + 4 for t in texts]
        shards: list[list[str]] = []
        current: list[str] = []
        used = long = 0
        for text, size in zip(texts, sizes, strict=True):
            if size > limit // 2:
                long += 1
                continue
            if current and (len(current) == self.shard_examples or used + size > limit):
                shards.append(current)
                current, used = [], 0
            current.append(text)
            used += size
        shards.append(current)
        return [shard for shard in shards if len(set(shard)) > 1], long


def _orders(k: int, n: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """The order of the file, then ``n`` other orders of k examples drawn without repeats, or all where there are fewer.

    An order that recurred would tie with itself, and the rank tests would lose power for nothing.
    """
    own = tuple(range(k))
    if math.factorial(min(k, 12)) <= n + 1:
        return list(permutations(own))
    found = {own: None}
    while len(found) <= n:
        found[tuple(int(i) for i in rng.permutation(k))] = None
    return list(found)


def order_test(canonical: FloatArray, permuted: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray, float]:
    """Share of less likely orders (n_shards,), gain (n_shards,) and the p-value, from log-likelihoods.

    canonical: (n_shards,) of the file's order; permuted: of each shard's other orders.
    """
    share, gain, p = [], [], []
    for own, others in zip(canonical.tolist(), permuted, strict=True):
        # Equal orders differ by rounding, and a tie must not look like a preference.
        near = 1e-6 * max(1.0, abs(own))
        below, above = float((others < own - near).mean()), float((others > own + near).mean())
        share.append(below + 0.5 * (1.0 - below - above))
        gain.append(own - float(others.mean()))
        p.append((1.0 + float((others >= own - near).sum())) / (1.0 + others.size))
    combined = float(scipy.special.chdtrc(2.0 * len(p), -2.0 * np.log(p).sum()))
    return np.asarray(share, np.float64), np.asarray(gain, np.float64), combined


def _student(values: FloatArray) -> StudentT | Undefined:
    from auditor.statistics.means import mean

    return mean(values)
