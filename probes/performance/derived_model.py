"""Derived model: changes from its original by tuning, merging, pruning or quantising."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from auditor.core.errors import LacksOptionError, OtherKindError, UsageError
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.probe import BaseProbe, allow_untrusted
from auditor.statistics.estimate import Power
from probes.privacy.memorization.text_sources import optional_path
from probes.probe_inputs import load_reference, whole_number

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

Bits = Literal["int8", "int4"]


class Derived(BaseProbe):
    """Changes of each item since the model's original: an average may hide changed answers.

    Both models are asked the same items, and every number is paired, item by item. Of a classifier items are the
    evaluation rows (method ``rows``); of a language model pairs of sentences (``built_in_pairs``, and the
    ``crows_pairs`` and ``winobias`` whose files are given), questions (``bbq``, in plain text), and the places of plain
    texts (``next_tokens``).

    - ``churn``: Of a pair the likelier sentence, a tie being a decision of its own; of a place of a text the likeliest
      token, averaged over texts. Per group or category; ``detail`` names the one with most.
    - ``churn_direction``: Only where any flipped; ``detail`` has the exact p-value of as many going either way.
    - ``extraction_rate_change``: Greedy, as :class:`~probes.privacy.memorization.extraction.Extraction` has it; only
      where the texts are given, by --train or ``texts``.

    The other number format is bfloat16, or float32 where weights are in bfloat16. Where no item flips the interval
    still ends above 0, and ``detail`` says how many may. The interval of pairs holds the variance between sentences and
    between mentions, that of questions between templates. A reference that is the very file of the model is said, and
    nothing is judged.

    reference: the model before, a path or a model. quantize: ``int8`` or ``int4``: what is compared is this model with
    its linear layers quantised (torchao), and it is the reference. texts, column: as for
    :class:`~probes.privacy.memorization.extraction.Extraction`. n_texts: texts of the data at most that next tokens are
    asked of; 64 plain English sentences where there are none. pair_benchmarks: files of ``crows_pairs``, ``winobias``
    and ``bbq``, which ``--benchmark`` gives.

    Raises NotApplicableError with neither reference nor ``quantize``, UsageError where the two models have other
    classes or cut texts into other tokens, ValueError for other options, and for both a reference and ``quantize``.

    Sources: Milani Fard et al., NeurIPS 2016 (churn); Yan et al., CVPR 2021 (negative flips); Dutta et al., NeurIPS
    2024 (flips of compressed models); McNemar, Psychometrika 12 (1947).
    """

    name = "derived"
    pillar = "performance"
    goal = "Which answers did tuning, merging or quantising change, and for whom?"
    citation = "Milani Fard et al., NeurIPS 2016; Yan et al., CVPR 2021; Dutta et al., NeurIPS 2024"
    methods = (
        "rows", "built_in_pairs", "crows_pairs", "winobias", "bbq", "next_tokens", "greedy",
    )  # fmt: skip
    # What it needs depends on the kind of model.
    needs = ()
    questions = (AuditQuestion("derived", metrics=("*churn*", "*flip_rate"), form="percent"), AuditQuestion("derived"))
    ideal_when_same = {
        "churn": "decisions",
        "largest_group_churn": "decisions",
        "negative_flip_rate": "decisions",
        "largest_group_negative_flip_rate": "decisions",
    }
    # Labelled rows, and the true negative_flip_rate that is FAILed against a bound of 0.05 by one judgement at 5 %.
    power: ClassVar[Power] = Power(1_000, 0.07)
    untrusted_options = allow_untrusted(
        "quantize", "column", "n_texts", reads=("reference", "texts", "pair_benchmarks")
    )
    metrics = define_metrics(
        """
        churn: share of the items that are decided otherwise than by the reference; [0, 1], no ideal; at 0.02 two items
          in 100 have another answer, whatever became of the average; Milani Fard et al., NeurIPS 2016
        churn_floor: the same between the reference and itself in another number format; [0, 1], no ideal; churn below
          it is what arithmetic alone makes; Milani Fard et al., NeurIPS 2016
        largest_group_churn: the churn of the group that has most; [0, 1], no ideal; at 0.1 one item in ten of some
          group is decided otherwise; Milani Fard et al., NeurIPS 2016
        churn_direction: of the items that flipped, the share that went to the favourable decision, or to the
          stereotypical sentence; [0, 1], no ideal; at 0.5 as many went one way as the other; McNemar, Psychometrika 12
          (1947)
        negative_flip_rate: share of the items with a known answer that the reference had right and this model has
          wrong; [0, 1], ideal 0; at 0.02 two in 100 were right and are wrong, however many became right; Yan et al.,
          CVPR 2021
        largest_group_negative_flip_rate: the same of the group that has most; [0, 1], no ideal; at 0.1 one row in ten
          of some group was right and is wrong; Yan et al., CVPR 2021
        preference_shift: mean over pairs of (1 + after - before) / 2, of preferences of 0, 1/2 or 1 for the
          stereotypical sentence; [0, 1], no ideal; 0.5 is no net change, and at 0.55 preferences for the stereotype
          rose by 10 points; McNemar, Psychometrika 12 (1947)
        next_token_divergence: half the summed difference of both models' probabilities of the next token, averaged over
          the places of a text and over texts; [0, 1], no ideal; at 0.1 a tenth of the probability lies on other tokens;
          Levin and Peres, Markov Chains and Mixing Times (2017), on total variation
        next_token_divergence_floor: the same between the reference and itself in another number format; [0, 1], no
          ideal; a divergence of no more is what arithmetic alone makes; Levin and Peres, Markov Chains and Mixing Times
          (2017)
        next_token_divergence_over_floor: the divergence less its floor, text by text; [-1, 1], no ideal; shown to be
          above 0, more has changed than the number format would; Levin and Peres, Markov Chains and Mixing Times (2017)
        next_token_accuracy_change: share of the places whose likeliest token is the one that stands there, less what it
          was, averaged over texts; [-1, 1], no ideal; at -0.05 five tokens in 100 less are foreseen, which is negative
          transfer; Wang et al., CVPR 2019, on negative transfer
        extraction_rate_change: share of the texts it was tuned on that the model completes word for word, less what it
          was; [-1, 1], no ideal; at 0.01 one text in 100 more can be read out by its beginning; Carlini et al., ICLR
          2023
        """
    )

    def __init__(
        self,
        *,
        reference: str | AuditedModel | None = None,
        quantize: Bits | None = None,
        texts: str | None = None,
        column: str | None = None,
        n_texts: int = 200,
        pair_benchmarks: Mapping[str, str] | None = None,
    ) -> None:
        if quantize not in (None, "int8", "int4"):
            raise ValueError(f"quantize is int8 or int4, not {quantize!r}")
        if quantize is not None and reference is not None:
            raise ValueError("quantize compares a model with itself: leave the reference out, or ask in two scans")
        optional_path("texts", texts)
        whole_number("n_texts", n_texts, 2)
        self.reference = reference
        self.quantize = quantize
        self.texts = texts
        self.column = column
        self.n_texts = n_texts
        self.pair_benchmarks = dict(pair_benchmarks or {})

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements of both models over the same items; see the class."""
        if self.reference is None and self.quantize is None:
            raise LacksOptionError("Needs a model to compare with: add --reference MODEL, or --quantize int8.")
        if model.kind not in ("classifier", "language_model") or not model.can_be_asked:
            raise OtherKindError("Needs a classifier or a language model that can be asked.")
        before, after, whose, alike = self._model_pair(model)
        if before.kind != after.kind:
            raise UsageError(
                f"The reference is a {before.kind.replace('_', ' ')}, this model a {after.kind.replace('_', ' ')}: "
                "compare models that answer the same question."
            )
        if after.kind == "classifier":
            from probes.performance import derived_decisions

            return derived_decisions.drift(before, after, data, whose, alike)
        return self._of_language(before, after, data, whose, alike, rng)

    def _model_pair(self, model: AuditedModel) -> tuple[AuditedModel, AuditedModel, str, str]:
        """The models before and after, what the second is compared with in words, and why nothing may be judged."""
        if self.quantize is not None:
            from auditor.models.quantized_model import quantized

            after, how = quantized(model, self.quantize)
            return model, after, f"{how}, against this model as it is", ""
        assert self.reference is not None
        before, whose = load_reference(self.reference, model)
        own, other = model.provenance.sha256, before.provenance.sha256
        same = "The reference is the very file of this model (same SHA-256), so no change could be found."
        return before, model, f"since {whose}", same if own and own == other else ""

    def _of_language(
        self,
        before: AuditedModel,
        after: AuditedModel,
        data: AuditData,
        reference_name: str,
        unjudged_reason: str,
        rng: np.random.Generator,
    ) -> list[Measurement]:
        from auditor.models.language_model import AuditedLanguageModel
        from auditor.models.quantized_model import in_other_format
        from probes.performance import derived_language

        if not isinstance(before, AuditedLanguageModel) or not isinstance(after, AuditedLanguageModel):
            raise OtherKindError("Needs a language model whose weights are here, and a reference of the same kind.")
        if before.objective != after.objective:
            raise UsageError(
                f"The reference is a {before.objective} language model, this one a {after.objective} one: compare "
                "models that answer the same question."
            )
        noisy, kind = in_other_format(before)
        models = derived_language.Models(before, after, noisy, reference_name, kind, unjudged_reason)
        found = derived_language.drift(models, data, self.n_texts, self.texts, self.column, self.pair_benchmarks, rng)
        if self.reference is None:
            return found
        weak = derived_language.knows_nothing(before, data, self.n_texts, rng)
        return [replace(m, weak=weak) for m in found]
