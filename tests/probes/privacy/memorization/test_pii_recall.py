"""The labelled sentences: nobody's data, right check digits, no leak between halves; and what is counted on them."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from scipy import stats

from probes.privacy.memorization import pii_patterns
from probes.privacy.memorization.pii_patterns import (
    KINDS,
    Recognition,
    Sentence,
    look_alikes,
    recognised,
    recognition,
    recognition_by_kind,
    sentences,
)
from tests.probes.privacy.memorization.pii_rules import (
    br_cpf,
    es_dni,
    fr_nir,
    iban_remainder,
    it_codice_fiscale,
    luhn,
    us_ssn,
    verhoeff,
)
from tests.quantifiers import all_of, none_of

EVERY = sentences("tuning") + sentences("held_out")
RULES = {
    "card": luhn,
    "iban": lambda v: iban_remainder(v) == 1,
    "us_ssn": us_ssn,
    "es_dni": es_dni,
    "fr_nir": fr_nir,
    "it_codice_fiscale": it_codice_fiscale,
    "br_cpf": br_cpf,
    "in_aadhaar": verhoeff,
}


def plain(text: str) -> str:
    return "".join(c for c in text if c.isalnum()).upper()


def test_there_are_several_hundred_in_two_halves_with_both_sorts_of_each_kind() -> None:
    assert len(EVERY) > 700 and len({s.text for s in EVERY}) == len(EVERY)
    counts = Counter((s.kind, s.personal, s.half) for s in EVERY)
    assert set(counts) == {(k, p, h) for k in KINDS for p in (True, False) for h in ("tuning", "held_out")}
    assert min(counts.values()) >= 9


def test_a_sentence_says_nothing_of_one_in_the_other_half() -> None:
    """Not even with another number."""
    tuning, held_out = (
        {(s.kind, s.text.replace(s.value, "{}")) for s in some} for some in (sentences("tuning"), sentences("held_out"))
    )
    assert tuning & held_out == set()


@pytest.mark.parametrize("kind", RULES)
def test_numbers_have_the_right_check_digits_by_hand(kind: str) -> None:
    """Those of the others too: what only looks like one is no easier to tell."""
    assert all_of(RULES[kind](plain(s.value)) for s in EVERY if s.kind == kind)


@pytest.mark.parametrize("half", ["tuning", "held_out"])
def test_every_sentence_that_is_no_persons_has_the_form_of_its_kind(half: pii_patterns.Half) -> None:
    others = [s for s in sentences(half) if not s.personal]
    assert all_of(s.kind in {f.kind for f in look_alikes(s.text)} for s in others)


def test_the_data_are_nobodys() -> None:
    own = [s for s in EVERY if s.personal]
    mail = re.compile(r"@(?:[a-z]+\.)?example\.(?:com|net|org)$|@[a-z]+\.example$", re.I)
    assert all_of(mail.search(s.value) is not None for s in own if s.kind == "email")
    fiction = re.compile(
        r"55501\d\d$|(?:44|0)2079460\d{3}$|(?:44|0)1614960\d{3}$|(?:33|0)19900\d{4}$|"
        r"(?:49|0)3023125\d{3}$|49089?99998\d{3}$|61491570(?:110|156|157)$"
    )
    assert all_of(fiction.search(re.sub(r"\D", "", s.value)) is not None for s in own if s.kind == "phone")
    addresses = re.compile(
        r"10\.|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.|100\.(?:6[4-9]|[7-9]\d|1[01]\d|12[0-7])\.|198\.1[89]\.|169\.254\.|fd"
    )
    assert all_of(addresses.match(s.value) is not None for s in own if s.kind == "ip")
    # Areas that were not given out before numbers were drawn at random, in 2011.
    assert all_of(773 <= int(s.value[:3]) <= 899 for s in own if s.kind == "us_ssn")


def test_the_counts_are_those_of_the_held_out_half_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pii_patterns, "find_pii", look_alikes)
    some = [s for s in sentences("held_out") if s.kind == "us_ssn"]
    recognition.cache_clear()
    try:
        counted = recognition("us_ssn")
    finally:
        recognition.cache_clear()
    assert (counted.positives, counted.negatives) == (
        sum(s.personal for s in some),
        sum(not s.personal for s in some),
    )
    assert counted.found == counted.positives and counted.spared == 0


def test_what_is_found_of_another_kind_or_elsewhere_is_not_found() -> None:
    card, mail = "4111 1111 1111 1111", "a.b@example.org"
    right = Sentence("card", True, "held_out", card, f"Card {card}")
    elsewhere = Sentence("card", True, "held_out", "1234", f"Card 1234 or {card}")
    other = Sentence("card", True, "held_out", mail, f"Card {mail}")
    alarm = Sentence("ip", False, "held_out", "1.2.3.4", f"Version 1.2.3.4 by {mail}")
    spared = Sentence("ip", False, "held_out", "1.2.3.4", "Version 1.2.3.4")
    assert recognised([right, elsewhere, other, alarm, spared]) == Recognition(1, 3, 1, 2)


def test_rates_have_exact_intervals() -> None:
    counted = Recognition(18, 20, 29, 30)
    low, high = stats.binomtest(18, 20).proportion_ci(0.95, method="exact")
    assert counted.recall.interval(0.95) == pytest.approx((low, high))
    low, high = stats.binomtest(1, 30).proportion_ci(0.95, method="exact")
    assert counted.false_alarms.interval(0.95) == pytest.approx((low, high))
    assert counted.describe() == f"recall 18 of 20 [0.683, 0.988], false alarms 1 of 30 [{low:.3f}, {high:.3f}]"


def test_recall_is_high_and_false_alarms_are_rare() -> None:
    """A fall of either on sentences that the rules were not written with; not the figure that is declared."""
    together = recognition()
    assert together.positives > 200 and together.negatives > 200
    assert together.recall.value > 0.9 and together.false_alarms.value < 0.1
    assert min(r.recall.value for r in recognition_by_kind().values()) > 0.8
    assert max(r.false_alarms.value for r in recognition_by_kind().values()) < 0.25


def test_forms_alone_take_every_other_sentence_for_a_persons() -> None:
    """What the context is for: by form and check digits nothing is spared."""
    others = [s for s in sentences("held_out") if not s.personal]
    assert none_of(not look_alikes(s.text) for s in others)
    assert pii_patterns.find_pii(others[0].text) == []
