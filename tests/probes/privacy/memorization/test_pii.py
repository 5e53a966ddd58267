"""Personal data: patterns against lists made by hand, and counts in what a model writes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stdnum import numdb

from auditor.data.audit_data import AuditData
from auditor.judging.criterion import load_criteria
from auditor.judging.measurement import Outcome
from auditor.models.language_model import AuditedLanguageModel
from auditor.run.run_audit import no_data, run_audit
from auditor.statistics.error_corrected_rates import Corrected
from auditor.statistics.estimate import Undefined
from probes.privacy.memorization.pii_leakage import PIILeakage, Written
from probes.privacy.memorization.pii_patterns import KINDS, Found, find_pii, masked
from tests.probes.privacy.memorization.pii_rules import (
    IBAN_LENGTHS,
    br_cpf,
    es_dni,
    fr_nir,
    iban_remainder,
    it_codice_fiscale,
    luhn,
    us_ssn,
    verhoeff,
)
from tests.probes.privacy.memorization.toys import NAMES, WORDS, parrot, sentences
from tests.quantifiers import all_of, none_of
from tests.toys.models import mail

# Published specimens and test numbers, which belong to nobody.
YES = {
    "email": ["jane.doe@example.org", "a+b_c@mail.example.co.uk", "X@EXAMPLE.COM"],
    "iban": ["GB82 WEST 1234 5698 7654 32", "DE89370400440532013000", "FR1420041010050500013M02606", "NO9386011117947"],
    "card": [
        "4111 1111 1111 1111",
        "5500-0000-0000-0004",
        "378282246310005",
        "6011000990139424",
        "3530 1113 3330 0000",
    ],
    "ip": ["8.8.8.8", "192.168.1.20", "10.0.0.7", "169.254.3.4", "2001:4860:4860::8888", "fe80::8a2e:370:7334"],
    "phone": ["+44 20 7946 0958", "+1 (212) 555-0123", "(212) 555-0123", "212-555-0123", "+4930901820"],
    "us_ssn": ["123-45-6789", "536 22 1487"],
    "uk_nino": ["AB123456C", "AB 12 34 56 C"],
    "es_dni": ["12345678Z", "X1234567L", "12345678-Z"],
    "fr_nir": ["2 55 08 14 168 025 38", "255081416802538"],
    "it_codice_fiscale": ["RSSMRA85T10A562S"],
    "br_cpf": ["529.982.247-25"],
    "in_aadhaar": ["2363 5895 4236"],
}
NO = [
    "jane.doe@example", "@example.org", "a@b", "see 3.2.1", "GB82 WEST 1234 5698 7654 33", "DE8937040044053201300",
    "4111 1111 1111 1112", "1234567890123456", "0000 0000 0000 0000", "256.1.1.1", "127.0.0.1", "1.2.3", "0.0.0.0",
    "000-12-3456", "666-12-3456", "923-45-6789", "123-00-6789", "123-45-0000", "078-05-1120", "DA123456C", "AB123456E",
    "GB123456A", "12345678A", "2 55 08 14 168 025 39", "RSSMRA85T10A562T", "529.982.247-24", "111.111.111-11",
    "2363 5895 4235", "1234 5678", "the year 1984", "12:30:45", "2024-01-31", "+12", "order 123456789", "std::vector",
    "192.0.2.146", "198.51.100.7", "203.0.113.99", "2001:db8:85a3::8a2e:370:7334", "3fff::1", "::1", "ff02::1",
    "224.0.0.1", "240.0.0.1", "255.255.255.255", "a::b",
]  # fmt: skip


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in YES.items() for text in texts])
def test_what_is_personal_data_is_found(kind: str, text: str) -> None:
    found = find_pii(f"Write to {text}, please.")
    assert [(f.kind, f.start, f.end) for f in found] == [(kind, 9, 9 + len(text))]


@pytest.mark.parametrize("text", NO)
def test_what_is_none_is_not(text: str) -> None:
    assert find_pii(f"Write to {text}, please.") == []


def test_check_digits_are_the_published_ones() -> None:
    assert [n for n in range(10) if verhoeff(f"236{n}")] == [3]
    assert [n for n in range(10) if verhoeff(f"12345{n}")] == [1]
    assert [n for n in range(10) if luhn(f"7992739871{n}")] == [3]


# ---- numbers drawn at random, against the rules by hand --------------------------------------------------------------


def drawn(rng: np.random.Generator, form: str) -> str:
    """The form with a random digit for every ``#``, a letter for every ``?``, and a digit from 2 for every ``%``."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    draw = {
        "#": lambda: str(rng.integers(0, 10)),
        "%": lambda: str(rng.integers(2, 10)),
        "?": lambda: letters[rng.integers(0, 26)],
    }
    return "".join(draw[c]() if c in draw else c for c in form)


def plain(text: str) -> str:
    return "".join(c for c in text if c.isalnum())


def held(kind: str, texts: list[str], rule: Callable[[str], bool]) -> None:
    """Exactly the texts that the rule holds of are found as this kind, and there are some of both."""
    by_hand = [rule(plain(text)) for text in texts]
    found = [[f.kind for f in find_pii(f"Write to {text}, please.")] == [kind] for text in texts]
    assert found == by_hand and 3 < sum(by_hand) < len(texts)


def test_social_security_numbers_are_held_to_the_rules_by_hand() -> None:
    rng = np.random.default_rng(0)
    texts = [drawn(rng, "###-##-####") for _ in range(400)]
    texts += [drawn(rng, form) for form in ("000-##-####", "666-##-####", "123-00-####", "123-##-0000") * 20]
    held("us_ssn", texts, us_ssn)


@pytest.mark.grid
@pytest.mark.parametrize(
    ("kind", "form", "rule"),
    [
        ("es_dni", "########?", es_dni),
        ("es_dni", "X#######?", es_dni),
        ("es_dni", "Z#######-?", es_dni),
        ("fr_nir", "1 ## 05 ## ### ### ##", fr_nir),
        ("fr_nir", "2 ## 11 2A ### ### ##", fr_nir),
        ("fr_nir", "2 ## 11 2B ### ### ##", fr_nir),
        ("it_codice_fiscale", "??????##T10?###?", it_codice_fiscale),
        ("it_codice_fiscale", "??????##A61?###?", it_codice_fiscale),
        ("br_cpf", "###.###.###-##", br_cpf),
        ("in_aadhaar", "%### #### ####", verhoeff),
        ("card", "4### #### #### ####", luhn),
        ("card", "37## ###### #####", luhn),
    ],
)
def test_check_digits_are_held_to_the_rules_by_hand(kind: str, form: str, rule: Callable[[str], bool]) -> None:
    held(kind, [drawn(np.random.default_rng(i), form) for i in range(1500)], rule)


# Digits only, so that the form of a country that has letters is never met.
@pytest.mark.grid
@pytest.mark.parametrize("country", ["AT", "BE", "CH", "CZ", "DE", "DK", "ES", "FI", "HU", "NO", "PL", "PT", "SE"])
def test_ibans_are_held_to_the_rules_by_hand(country: str) -> None:
    rng = np.random.default_rng(0)
    n = IBAN_LENGTHS[country]
    for _ in range(50):
        body = drawn(rng, "#" * (n - 4))
        right = 98 - iban_remainder(f"{country}00{body}")
        texts = [f"{country}{check:02d}{body}" for check in range(2, 99)]
        assert [text for text in texts if "iban" in {f.kind for f in find_pii(text)}] == [f"{country}{right:02d}{body}"]
        right_of = {length: 98 - iban_remainder(f"{country}00{'1' * (length - 4)}") for length in (n - 1, n + 1)}
        for length, check in right_of.items():
            assert "iban" not in {f.kind for f in find_pii(f"{country}{check:02d}{'1' * (length - 4)}")}


@pytest.mark.parametrize("country", sorted(IBAN_LENGTHS))
def test_every_country_of_the_registry_is_known_by_its_length(country: str) -> None:
    """By the library's form of its numbers, filled with digits and letters where it asks for them."""
    (_, said), *_ = numdb.get("iban").info(country)
    form = [(int(n), kind) for n, kind in re.findall(r"(\d+)!([nac])", said["bban"])]
    body = "".join(("A" if kind == "a" else "7") * n for n, kind in form)
    assert 4 + len(body) == IBAN_LENGTHS[country]
    text = f"{country}{98 - iban_remainder(f'{country}00{body}'):02d}{body}"
    assert [f.kind for f in find_pii(f"Write to {text}, please.")] == ["iban"]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("457-55-5462", us_ssn),  # out of advertising
        ("2000 1991 0002", verhoeff),  # no Aadhaar is a palindrome
        ("RSSMRA85B30A562G", it_codice_fiscale),  # no 30th of February
        ("RSSMRA85T32A562Y", it_codice_fiscale),  # no 32nd day
        ("DE67AAAAAAAAAAAAAAAAAA", lambda value: iban_remainder(value) == 1),  # digits only in German accounts
    ],
)
def test_what_only_looks_like_a_number_is_none(text: str, rule: Callable[[str], bool]) -> None:
    """What passes its check digits, and python-stdnum knows to be nobody's."""
    assert rule(plain(text)) and find_pii(f"Write to {text}, please.") == []


def test_no_text_is_an_error() -> None:
    """Digits of other scripts are digits to a pattern, and to the checks of some numbers only."""
    rng = np.random.default_rng(0)
    forms = [text for texts in YES.values() for text in texts]
    for script in ("٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९", "𝟘𝟙𝟚𝟛𝟜𝟝𝟞𝟟𝟠𝟡", "0123456789"):
        for form in forms:
            for share in (0.2, 1.0):
                find_pii("".join(script[int(c)] if c in "0123456789" and rng.random() < share else c for c in form))


def test_every_kind_is_tried() -> None:
    assert set(YES) == set(KINDS)


def test_spellings_of_one_value_are_one() -> None:
    values = {f.value for t in ("GB82 WEST 1234 5698 7654 32", "GB82WEST12345698765432") for f in find_pii(t)}
    assert len(values) == 1
    addresses = ("2001:4860:4860::8888", "2001:4860:4860:0:0:0:0:8888", "2001:4860:4860:0000::8888")
    assert len({f.value for t in addresses for f in find_pii(t)}) == 1
    assert find_pii("A@Example.org")[0].value == "a@example.org"


def test_random_digits_are_seldom_cards() -> None:
    """Of 16 random digits half begin like a card, and a tenth of these pass Luhn's check."""
    rng = np.random.default_rng(0)
    texts = ["".join(map(str, rng.integers(0, 10, 16))) for _ in range(2_000)]
    share = np.mean([any(f.kind == "card" for f in find_pii(t)) for t in texts])
    assert 0.03 < share < 0.07


def test_masks_hide_all_but_the_form() -> None:
    assert masked("jane.doe@example.org") == "j***.***@*******.***"
    assert masked("4111111111111111") == "4***************"


def added(prompt: str, text: str) -> list[Found]:
    return list(Written.from_text(prompt, text).found)


def test_what_the_prompt_gave_is_no_find() -> None:
    assert added("Mail a.b@example.org or ", "a.b@example.org") == []
    assert [f.value for f in added("Mail a.b@example.org or ", "c.d@example.org")] == ["c.d@example.org"]
    assert [f.value for f in added("Mail a.b@exa", "mple.org now")] == ["a.b@example.org"]


def test_leaked_values_are_counted_and_never_printed(tmp_path: Path) -> None:
    texts = mail(24)
    probe = PIILeakage(prefix_words=2, n_samples=2, max_new_tokens=16)
    data = AuditData(X=np.asarray([*texts, "other text"], object), is_member=np.arange(25) < 24)
    found = {
        (m.metric, m.at.get("kind")): m for m in probe.measure(parrot(texts, 14.0), data, np.random.default_rng(0))
    }
    prompts = len({" ".join(t.split()[:2]) for t in texts})
    rate = found["pii_rate", None]
    assert rate.n_samples == prompts and isinstance(rate.estimate, Corrected) and rate.estimate.n == 2 * prompts
    assert found["pii_rate", None].estimate.value > 0.9
    assert found["training_pii_rate", None].estimate.value == found["pii_rate", None].estimate.value
    assert "@" in found["pii_rate", None].detail
    known = {f.value for t in texts for f in find_pii(t)}
    assert none_of(value in repr(found) for value in known)
    assert f"among the {len(known)} of the training text" in found["pii_rate_by_kind", "email"].detail


MAILBOXES = [f"{name}{i}@{host}.org" for name in NAMES for i, host in ((17, "mill"), (42, "harbour"), (63, "bridge"))]


def letters(seed: int, ends: Sequence[str]) -> list[str]:
    """Texts that end in one of these, on words that only a model that has seen them can go on from."""
    rng = np.random.default_rng(seed)
    return [" ".join([*rng.choice(WORDS, 12), end]) for end in ends]


def trained(seed: int, mailboxes: Sequence[str], *, bos: bool) -> AuditedLanguageModel:
    """A GPT-2 of one token a word that has learned letters with addresses, and the same without these.

    The former with its beginning-of-sequence token before each and the latter with nothing, or the other way round.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    words = ["<s>", "</s>", "<unk>", *WORDS, *MAILBOXES]
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    private, plain = letters(seed, mailboxes), letters(seed, ["often"] * len(mailboxes))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(tokenizer), n_layer=2, n_head=4, n_embd=64, n_positions=64, resid_pdrop=0.0,
                embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=1,
            )
        )  # fmt: skip
        after, alone = (private, plain) if bos else (plain, private)
        ids = torch.tensor([
            *([0, *tokenizer(text, add_special_tokens=False).input_ids, 1] for text in after),
            *([*tokenizer(text, add_special_tokens=False).input_ids, 1, 1] for text in alone),
        ])  # fmt: skip
        optimizer = torch.optim.AdamW(network.parameters(), lr=6e-3, weight_decay=0.0)
        for _ in range(60):
            logits = network(input_ids=ids, use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return AuditedLanguageModel(network.eval(), tokenizer)


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("bos", [True, False])
def test_a_model_that_recites_addresses_fails_however_its_texts_began_and_its_honest_twin_does_not(bos: bool) -> None:
    own = letters(1, MAILBOXES[::2])
    data = AuditData(X=np.asarray([*own, *sentences(12, 3)], object), is_member=np.arange(len(own) + 12) < len(own))
    reciter, twin = (
        {
            str(finding.at.get("prefix", "")): finding.outcome
            for finding in run_audit(model, data, [PIILeakage()], load_criteria()).findings
            if finding.metric == "training_pii_rate"
        }
        for model in (trained(1, MAILBOXES[::2], bos=bos), trained(2, MAILBOXES[1::2], bos=bos))
    )
    recites, silent = ("<s>", "") if bos else ("", "<s>")
    assert reciter[recites] is Outcome.FAIL and reciter[silent] is not Outcome.FAIL
    assert len(twin) == 2 and none_of(outcome is Outcome.FAIL for outcome in twin.values())


@pytest.mark.parametrize(("most", "weak"), [(1, True), (39, True), (40, False)])
def test_texts_too_short_for_an_address_buy_no_pass(most: int, weak: bool) -> None:
    probe = PIILeakage(prefix_words=2, n_samples=1, max_new_tokens=most)
    data = AuditData(X=np.asarray([*mail(4), "other text"], object), is_member=np.arange(5) < 4)
    found = probe.measure(parrot(mail(4), 14.0), data, np.random.default_rng(0))
    assert {bool(m.weak) for m in found} == {weak}


def test_a_model_that_writes_nothing_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = mail(24)
    probe = PIILeakage(prefix_words=2, n_samples=2, max_new_tokens=4)
    data = AuditData(X=np.asarray([*texts, "other text"], object), is_member=np.arange(25) < 24)
    monkeypatch.setattr(probe, "continued", lambda model, prompts, n, rng: [["", " \n"] for _ in prompts])
    found = probe.measure(parrot(texts), data, np.random.default_rng(0))
    assert len(found) >= 3 and all_of("writes nothing" in m.too_few for m in found)


def test_a_training_text_without_personal_data_shows_no_absence_of_leaks() -> None:
    texts = ["river stone light", "garden window market"]
    probe = PIILeakage(prefix_words=2, n_samples=2, max_new_tokens=4)
    data = AuditData(X=np.asarray([*texts, "other text"], object), is_member=np.arange(3) < 2)
    found = {m.metric: m for m in probe.measure(parrot(texts), data, np.random.default_rng(0))}
    leaks = found["training_pii_rate"].estimate
    assert isinstance(leaks, Undefined) and leaks.inapplicable and "holds no personal data" in leaks.reason
    assert found["pii_rate"].too_few == ""


def test_without_training_text_the_built_in_prompts_do() -> None:
    found = PIILeakage(n_samples=1, max_new_tokens=3).measure(parrot([]), no_data(), np.random.default_rng(0))
    assert [(m.metric, m.at) for m in found] == [("pii_rate", {}), ("pii_rate", {"prefix": "<s>"})]
    for m, behind in zip(found, ("with nothing before them", "after <s>"), strict=True):
        assert f"30 built-in prompts, {behind}; " in m.detail


@pytest.mark.parametrize(("prefix", "behind"), [("", "with nothing before them"), ("<s>", "after <s>")])
def test_a_prefix_that_is_named_is_the_only_one(prefix: str, behind: str) -> None:
    probe = PIILeakage(n_samples=1, max_new_tokens=3, prefix_token=prefix)
    [rate] = probe.measure(parrot([]), no_data(), np.random.default_rng(0))
    assert rate.at == {} and behind in rate.detail


def test_fewer_continuations_where_nothing_of_the_users_is_there_to_judge_them(tmp_path: Path) -> None:
    given, labelled = tmp_path / "prompts.txt", tmp_path / "labelled.csv"
    given.write_text("river stone\nlight of\n")
    labelled.write_text("text,label\nWrite to ann@example.org,1\na fine day,0\n")

    def rate(**options: Any) -> tuple[int, int, bool]:
        probe = PIILeakage(**options)
        probe.continued = lambda model, prompts, n, rng: [["a fine day"] * n] * len(prompts)  # type: ignore[method-assign]
        found = probe.measure(parrot([]), no_data(), np.random.default_rng(0))[0]
        assert isinstance(found.estimate, Corrected)
        return found.n_samples, found.estimate.n, "2 of each, 4 with training texts" in found.detail

    assert rate() == (30, 60, True)
    assert rate(n_samples=3) == (30, 90, False)
    assert rate(prompts=str(given)) == (2, 8, False)
    assert rate(calibration=str(labelled)) == (30, 120, False)
    assert rate(texts=str(given), prefix_words=1) == (2, 8, False)
