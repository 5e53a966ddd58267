"""What a probe may ask of a language model: what is missing is named with its reason, and never silently left out."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import pytest

from auditor.core.errors import NotApplicableError, OtherKindError
from auditor.models.audited_model import AuditedModel
from auditor.models.capabilities import in_one_text, scorer_of, weights_of, writer_of
from auditor.run.run_audit import run_audit
from probes import PROBES
from tests.quantifiers import all_of
from tests.toys.writers import Says

_OF_WEIGHTS = ("token_attribution", "extraction")
_OF_LIKELIHOODS = ("performance", "stereotype")


class Parrot(Says):
    """It writes, and nothing else can be had of it."""

    why_not = MappingProxyType({"text_likelihoods": "its server reports none.", "weights": "they are elsewhere"})

    def __init__(self) -> None:
        super().__init__(lambda asked: asked)


def test_a_capability_that_is_missing_is_named_with_its_reason() -> None:
    parrot = Parrot()
    assert writer_of(parrot) is parrot
    with pytest.raises(NotApplicableError, match=r"^Needs the likelihoods of texts: its server reports none\.$"):
        scorer_of(parrot)
    with pytest.raises(
        NotApplicableError, match=r"^Needs the model's own weights and tokenizer: they are elsewhere\.$"
    ):
        weights_of(parrot)
    other = AuditedModel.from_callable(lambda rows: np.zeros(len(rows)), classes=["no", "yes"])
    with pytest.raises(OtherKindError, match="this model is a classifier"):
        writer_of(other)


@pytest.mark.parametrize("name", [*_OF_WEIGHTS, *_OF_LIKELIHOODS])
def test_a_probe_says_which_capability_it_lacks(name: str) -> None:
    report = run_audit(Parrot(), None, [PROBES[name]()])
    assert all_of(f.outcome == "NOT_APPLICABLE" for f in report.findings)
    wanted = "elsewhere" if name in _OF_WEIGHTS else "its server reports none"
    assert all_of(wanted in f.reason for f in report.findings), [f.reason for f in report.findings]


def test_a_conversation_in_plain_text_ends_where_the_answer_begins() -> None:
    assert in_one_text(["1 + 1?", "2", "2 + 2?"]) == "1 + 1?\nAnswer: 2\n\n2 + 2?\nAnswer:"
