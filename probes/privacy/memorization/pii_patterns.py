"""Personal data in a text: found by pattern, filtered by rules and context, displayed masked; recall of detection.

The rules of national and bank numbers are those of python-stdnum, the numbering plans of telephones those of
libphonenumber; the rules of payment cards beyond their check digit, of UK national insurance numbers and of addresses
are here, and those of context in :mod:`~probes.privacy.memorization.pii_context`.

Rules of context were written with one half of the sentences in sight; the numbers are those of the other half alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from ipaddress import ip_address, ip_network
from typing import Literal
from unicodedata import normalize

from stdnum import iban, luhn
from stdnum.br import cpf
from stdnum.es import dni, nie
from stdnum.fr import nir
from stdnum.in_ import aadhaar
from stdnum.it import codicefiscale
from stdnum.us import ssn

from auditor.statistics.rates import Proportion
from probes.privacy.memorization.pii_context import is_personal

# A kind and a value, which spellings of one share.
Key = tuple[str, str]


@dataclass(frozen=True)
class Found:
    """Personal data at ``start`` to ``end`` of a text. ``value`` is normalised, so that spellings of one are equal."""

    kind: str
    value: str
    start: int
    end: int

    @property
    def key(self) -> Key:
        """The identity of the data, independent of its position."""
        return self.kind, self.value


def _alphanumeric(text: str) -> str:
    return "".join(c for c in text if c.isalnum()).upper()


# Issuers by their first digits, and how many digits their cards have (ISO/IEC 7812; the issuers' own ranges).
_ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|(?:6011|64[4-9]\d|65\d\d)\d{12,15}"  # Discover
    r"|3(?:0[0-5]|[689]\d)\d{11,13}|35(?:2[89]|[3-8]\d)\d{12,15}"  # Diners Club, JCB
    r"|62\d{14,17}|220[0-4]\d{12,15}|(?:50|5[6-8]|6[0379])\d{11,17}"  # UnionPay, Mir, Maestro
)


def _card(value: str) -> bool:
    # One repeated digit passes Luhn's check and is nobody's card.
    return _ISSUERS.fullmatch(value) is not None and len(set(value)) > 1 and luhn.is_valid(value)


def _uk_nino(value: str) -> bool:
    prefix = value[:2]
    return (
        prefix[0] not in "DFIQUV"
        and prefix[1] not in "DFIOQUV"
        and prefix not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")
    )


def _br_cpf(value: str) -> bool:
    # One repeated digit passes the check and was given to nobody.
    return len(set(value)) > 1 and cpf.is_valid(value)


def _iban(value: str) -> bool:
    # Without the rules of single countries: one goes by a list of banks, which does not know a bank that is younger.
    return iban.is_valid(value, check_country=False)


def _es_dni(value: str) -> bool:
    return dni.is_valid(value) or nie.is_valid(value)


# RFC 5737, RFC 3849 and RFC 9637.
_DOCUMENTATION = tuple(
    ip_network(block) for block in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20")
)


def _ip(value: str) -> bool:
    """Whether an address is one, and can be somebody's.

    Not unspecified, loopback, multicast, reserved (RFC 1112, RFC 4291, the broadcast address with them) nor for
    documentation. Private and link-local addresses are kept: within a house or a firm they are one machine's.
    """
    try:
        address = ip_address(value)
    except ValueError:
        return False
    if address.is_unspecified or address.is_loopback or address.is_multicast or address.is_reserved:
        return False
    return not any(address in block for block in _DOCUMENTATION)


def _same_address(text: str) -> str:
    """An address in its shortest spelling; what is none, as it stands."""
    try:
        return str(ip_address(text))
    except ValueError:
        return text


# Where numbers are written with a leading 0 inside the country; the first whose plan has the number stands for all.
_REGIONS = ("GB", "FR", "DE", "IT", "NL", "BE", "AT", "CH", "SE", "IE", "AU", "NZ", "ZA", "IN", "JP")


def _international(text: str) -> str:
    """A telephone number as ``+`` and digits where a numbering plan has it (E.164), else as its digits."""
    # Its tables take a tenth of a second to load, which only a text with such a number should take.
    import phonenumbers

    # Beginning with +, with 0, or as in North America.
    regions = ("ZZ",) if text.startswith("+") else _REGIONS if text.startswith("0") else ("US",)
    for region in regions:
        try:
            number = phonenumbers.parse(text, region)
        except phonenumbers.NumberParseException:
            continue
        # Nobody writes a gap within the calling code: "+4 412 345 678" is none, though +44 12... is one.
        first = _digits(re.split(r"[ .(/-]", text, maxsplit=1)[0])
        whole = region != "ZZ" or first.startswith(str(number.country_code))
        if whole and phonenumbers.is_valid_number(number):
            return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))
    return _digits(text)


def _phone(value: str) -> bool:
    return value.startswith("+") and len(set(value)) > 3


_BEFORE, _AFTER = r"(?<![\w.+-])", r"(?![\w-]|\.\d)"
_Check = Callable[[str], bool]
_Normal = Callable[[str], str]


def _digits(text: str) -> str:
    return "".join(c for c in text if c.isascii() and c.isdigit())


# In the order in which they claim characters: what has a check digit comes before what has none.
_KINDS: tuple[tuple[str, re.Pattern[str], _Normal, _Check], ...] = (
    (
        "email",
        re.compile(
            r"(?<![\w.%+-])[A-Za-z0-9_%+-]+(?:\.[A-Za-z0-9_%+-]+)*@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+"
            r"[A-Za-z]{2,24}(?![\w-])"
        ),
        str.lower,
        lambda value: len(value) <= 254,
    ),
    ("iban", re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)"), _alphanumeric, _iban),
    (
        "it_codice_fiscale",
        re.compile(r"(?<!\w)[A-Z]{6}\d\d[A-EHLMPRST]\d\d[A-Z]\d{3}[A-Z](?!\w)"),
        str,
        codicefiscale.is_valid,
    ),
    (
        "fr_nir",
        re.compile(_BEFORE + r"[12] ?\d\d ?(?:0[1-9]|1[0-2]|[2-9]\d) ?(?:\d\d|2[AB]) ?\d{3} ?\d{3} ?\d\d" + _AFTER),
        _alphanumeric,
        nir.is_valid,
    ),
    ("card", re.compile(_BEFORE + r"\d{4}(?:[ -]?\d{4}){2}[ -]?\d{1,7}" + _AFTER), _digits, _card),
    ("card", re.compile(_BEFORE + r"3[47]\d{2}[ -]?\d{6}[ -]?\d{5}" + _AFTER), _digits, _card),
    ("br_cpf", re.compile(_BEFORE + r"\d{3}\.\d{3}\.\d{3}-\d{2}" + _AFTER), _digits, _br_cpf),
    ("in_aadhaar", re.compile(_BEFORE + r"[2-9]\d{3} \d{4} \d{4}" + _AFTER), _digits, aadhaar.is_valid),
    ("us_ssn", re.compile(_BEFORE + r"\d{3}([- ])\d{2}\1\d{4}" + _AFTER), _digits, ssn.is_valid),
    ("uk_nino", re.compile(r"(?<!\w)[A-Z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-D](?!\w)"), _alphanumeric, _uk_nino),
    ("es_dni", re.compile(r"(?<!\w)(?:\d{8}|[XYZ]\d{7})-?[A-Z](?!\w)"), _alphanumeric, _es_dni),
    ("ip", re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)"), _same_address, _ip),
    ("ip", re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{1,4}(?![\w:])"), _same_address, _ip),
    ("phone", re.compile(r"(?<![\w+])\+[1-9]\d{0,2}(?:[ ./-]?\(?\d{1,4}\)?){2,6}" + _AFTER), _international, _phone),
    (
        "phone",
        re.compile(_BEFORE + r"(?:1[-. ])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[-. ]?)[2-9]\d{2}[-. ]?\d{4}" + _AFTER),
        _international,
        _phone,
    ),
    (
        "phone",
        re.compile(_BEFORE + r"\(?0[1-9]\d{0,4}\)?(?:[ /-]?\d{2,5}){2,4}" + _AFTER),
        _international,
        _phone,
    ),
)
KINDS = tuple(dict.fromkeys(kind for kind, _, _, _ in _KINDS))


def find_pii(text: str) -> list[Found]:
    """Personal data in a text in order of position, without overlaps.

    Kinds: e-mail addresses; IBANs (their country's form and mod 97); payment cards (issuer, length and Luhn); IP
    addresses that can be somebody's, private ones among them; telephone numbers that a numbering plan has; US social
    security, UK national insurance, Spanish DNI and NIE, French NIR, Italian codice fiscale, Brazilian CPF and Indian
    Aadhaar numbers by their own rules. What has the form by chance, or is a thing's number, is told by its context;
    how often that goes wrong stands in :mod:`~probes.privacy.memorization.pii_patterns`.
    """
    return [f for f in look_alikes(text) if in_context(text, f)]


_SPELT = re.compile(r"\s*[\[(]\s*(at|dot)\s*[\])]\s*", re.I)
_NO_WIDTH = re.compile("[\xad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")


def in_one_spelling(text: str) -> str:
    """A text as NFKC, without characters of no width, and with the signs for [at] and [dot]."""
    shown = _NO_WIDTH.sub("", normalize("NFKC", text))
    return _SPELT.sub(lambda spelt: "@" if spelt[1].lower() == "at" else ".", shown)


_STARTS, _ENDS = re.compile(r"(?<![\w.%@-])"), re.compile(r"(?![\w@-]|\.\w)")
# Shorter ones are numbers and words of any text.
_SHORTEST_FORM = 7


class KnownData:
    """The personal data of texts in one spelling: ``keys``, and their letters and digits, "@" and dots alone.

    By the latter they are found in other texts, whatever spaces and marks a tokenizer or a writer puts in between.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.keys: set[Key] = set()
        self._forms: dict[str, Key] = {}
        for text in texts:
            for f in find_pii(text):
                self.keys.add(f.key)
                spelt = text[f.start : f.end]
                form = _letters(spelt if f.kind in ("email", "ip") else _alphanumeric(spelt))[0]
                if len(form) >= _SHORTEST_FORM:
                    self._forms[form] = f.key
        self._lengths = sorted(set(map(len, self._forms)))

    def find(self, text: str) -> Iterator[Found]:
        """Those that stand in a text in one spelling, by their letters and digits alone."""
        letters, places = _letters(text)
        starts = [i for i, place in enumerate(places) if self._lengths and _STARTS.match(text, place)]
        for start in starts:
            for length in self._lengths:
                key = self._forms.get(letters[start : start + length])
                if key is not None and start + length <= len(places):
                    end = places[start + length - 1] + 1
                    if _ENDS.match(text, end):
                        yield Found(*key, places[start], end)


def _letters(text: str) -> tuple[str, list[int]]:
    """The letters and digits, "@" and dots of a text, in lower case, and their places."""
    places = [i for i, c in enumerate(text) if c.isalnum() or c in "@."]
    return "".join(text[i].lower()[0] for i in places), places


def in_context(text: str, match: Found) -> bool:
    """Whether a pattern match in a text is personal data."""
    return is_personal(match.kind, text, match.start, match.end)


def look_alikes(text: str) -> list[Found]:
    """All matches of the patterns and checks for personal data, in any context; in order, without overlaps."""
    taken = bytearray(len(text))
    found: list[Found] = []
    for candidate in _candidates(text):
        if not any(taken[candidate.start : candidate.end]):
            taken[candidate.start : candidate.end] = b"\1" * (candidate.end - candidate.start)
            found.append(candidate)
    return sorted(found, key=lambda f: f.start)


def _candidates(text: str) -> Iterator[Found]:
    for kind, pattern, normal, check in _KINDS:
        for match in pattern.finditer(text):
            value = normal(match.group())
            if check(value):
                yield Found(kind, value, match.start(), match.end())


def masked(value: str) -> str:
    """The value with all letters and digits hidden but the first: shows its form, but is unusable."""
    return value[:1] + "".join("*" if c.isalnum() else c for c in value[1:])


Half = Literal["tuning", "held_out"]


@dataclass(frozen=True)
class Sentence:
    """A text with one value of a kind, or of its form; ``personal``: whether it belongs to a person."""

    kind: str
    personal: bool
    half: Half
    value: str
    text: str


@dataclass(frozen=True)
class Recognition:
    """``found``: sentences with detected data, of ``positives``; ``spared``: those without alarm, of ``negatives``."""

    found: int
    positives: int
    spared: int
    negatives: int

    @property
    def recall(self) -> Proportion:
        """found / positives, with Clopper-Pearson bounds."""
        return Proportion(successes=self.found, n=self.positives)

    @property
    def false_alarms(self) -> Proportion:
        """1 - spared / negatives, with Clopper-Pearson bounds."""
        return Proportion(successes=self.negatives - self.spared, n=self.negatives)

    def describe(self) -> str:
        """Both rates with 95 % intervals, in words."""
        alarms = described_rate(self.negatives - self.spared, self.negatives)
        return f"recall {described_rate(self.found, self.positives)}, false alarms {alarms}"


def described_rate(k: int, n: int) -> str:
    """A count of rows with the 95 % interval of its rate, in words."""
    low, high = Proportion(successes=k, n=n).interval(0.95)
    return f"{k:,} of {n:,} [{low:.3f}, {high:.3f}]"


@lru_cache(maxsize=2)
def sentences(half: Half) -> tuple[Sentence, ...]:
    """The labelled sentences of one half, in the order of their file."""
    text = (files("probes") / "data" / "pii_sentences.jsonl").read_text(encoding="utf-8")
    every = (Sentence(**json.loads(line)) for line in text.splitlines())
    return tuple(s for s in every if s.half == half)


def recognised(labelled_sentences: Iterable[Sentence]) -> Recognition:
    """Counts over sentences: a value counts as found if a match of its kind overlaps it; any match is an alarm."""
    found = positives = spared = negatives = 0
    for s in labelled_sentences:
        text, value = in_one_spelling(s.text), in_one_spelling(s.value)
        finds = find_pii(text)
        if s.personal:
            start = text.index(value)
            end = start + len(value)
            positives += 1
            found += any(f.kind == s.kind and f.start < end and start < f.end for f in finds)
        else:
            negatives += 1
            spared += not finds
    return Recognition(found, positives, spared, negatives)


@lru_cache(maxsize=32)
def recognition(kind: str | None = None) -> Recognition:
    """Recognition on the held-out half: of all kinds together, or of one."""
    return recognised(s for s in sentences("held_out") if kind in (None, s.kind))


def recognition_by_kind() -> dict[str, Recognition]:
    """The same for each kind."""
    return {kind: recognition(kind) for kind in KINDS}
