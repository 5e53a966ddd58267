"""Personal data in a text: found by pattern, kept where its own check digits or rules hold, shown only masked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

# ISO 13616 lengths of an IBAN by country, of the SWIFT registry.
_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28,
    "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18,
    "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22,
    "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20,
    "LU": 20, "LV": 21, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18, "NO": 15,
    "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SC": 31, "SE": 24, "SI": 19,
    "SK": 24, "SM": 27, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """Personal data at ``start`` to ``end`` of a text. ``value`` is normalised, so that spellings of one are equal."""

    kind: str
    value: str
    start: int
    end: int


def _alphanumeric(text: str) -> str:
    return "".join(c for c in text if c.isalnum()).upper()


def luhn(digits: str) -> bool:
    """Whether a number passes the check of ISO/IEC 7812: digits from the right, every second doubled, sum mod 10."""
    total = 0
    for i, c in enumerate(reversed(digits)):
        d = int(c) * (1 + i % 2)
        total += d - 9 if d > 9 else d
    return total % 10 == 0


def iban(value: str) -> bool:
    """Whether an IBAN has its country's length and is 1 modulo 97 (ISO 13616)."""
    if _IBAN_LENGTHS.get(value[:2]) != len(value):
        return False
    return int("".join(str(int(c, 36)) for c in value[4:] + value[:4])) % 97 == 1


_D = [
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 4, 0, 6, 7, 8, 9, 5], [2, 3, 4, 0, 1, 7, 8, 9, 5, 6],
    [3, 4, 0, 1, 2, 8, 9, 5, 6, 7], [4, 0, 1, 2, 3, 9, 5, 6, 7, 8], [5, 9, 8, 7, 6, 0, 4, 3, 2, 1],
    [6, 5, 9, 8, 7, 1, 0, 4, 3, 2], [7, 6, 5, 9, 8, 2, 1, 0, 4, 3], [8, 7, 6, 5, 9, 3, 2, 1, 0, 4],
    [9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
]  # fmt: skip
_P = [
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 5, 7, 6, 2, 8, 3, 0, 9, 4], [5, 8, 0, 3, 7, 9, 6, 1, 4, 2],
    [8, 9, 1, 6, 0, 4, 3, 5, 2, 7], [9, 4, 5, 3, 1, 2, 6, 8, 7, 0], [4, 2, 8, 6, 5, 7, 3, 9, 0, 1],
    [2, 7, 9, 3, 8, 0, 6, 4, 1, 5], [7, 0, 4, 6, 9, 1, 3, 2, 5, 8],
]  # fmt: skip


def verhoeff(digits: str) -> bool:
    """Whether a number passes Verhoeff's check, as that of an Aadhaar does."""
    c = 0
    for i, d in enumerate(reversed(digits)):
        c = _D[c][_P[i % 8][int(d)]]
    return c == 0


def _card(value: str) -> bool:
    # Major industry identifiers that payment cards have; one repeated digit passes Luhn's check and is nobody's card.
    return 13 <= len(value) <= 19 and value[0] in "23456" and len(set(value)) > 1 and luhn(value)


def _us_ssn(value: str) -> bool:
    """Never issued: area 000, 666 and 900 to 999, group 00, serial 0000; and the number of a wallet's specimen card."""
    area, group, serial = value[:3], value[3:5], value[5:]
    never = area in ("000", "666") or area >= "900" or group == "00" or serial == "0000"
    return not never and value not in ("078051120", "219099999")


def _uk_nino(value: str) -> bool:
    prefix = value[:2]
    return (
        prefix[0] not in "DFIQUV"
        and prefix[1] not in "DFIOQUV"
        and prefix not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")
    )


def _es_dni(value: str) -> bool:
    number = value[:-1].replace("X", "0").replace("Y", "1").replace("Z", "2")
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == value[-1]


def _fr_nir(value: str) -> bool:
    number = value[:13].replace("2A", "19").replace("2B", "18")
    return number.isdigit() and 97 - int(number) % 97 == int(value[13:])


_ODD = dict(zip("0123456789", (1, 0, 5, 7, 9, 13, 15, 17, 19, 21), strict=True)) | dict(
    zip(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23),
        strict=True,
    )
)


def _it_codice_fiscale(value: str) -> bool:
    even = {c: int(c) if c.isdigit() else ord(c) - 65 for c in _ODD}
    total = sum((_ODD if i % 2 == 0 else even)[c] for i, c in enumerate(value[:15]))
    return chr(65 + total % 26) == value[15]


def _br_cpf(value: str) -> bool:
    if len(set(value)) == 1:
        return False
    for n in (9, 10):
        rest = sum(int(d) * (n + 1 - i) for i, d in enumerate(value[:n])) * 10 % 11 % 10
        if rest != int(value[n]):
            return False
    return True


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


def _phone(value: str) -> bool:
    digits = value.lstrip("+")
    return 8 <= len(digits) <= 15 and len(set(digits)) > 2


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
    ("iban", re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)"), _alphanumeric, iban),
    (
        "it_codice_fiscale",
        re.compile(r"(?<!\w)[A-Z]{6}\d\d[A-EHLMPRST]\d\d[A-Z]\d{3}[A-Z](?!\w)"),
        str,
        _it_codice_fiscale,
    ),
    (
        "fr_nir",
        re.compile(_BEFORE + r"[12] ?\d\d ?(?:0[1-9]|1[0-2]|[2-9]\d) ?(?:\d\d|2[AB]) ?\d{3} ?\d{3} ?\d\d" + _AFTER),
        _alphanumeric,
        _fr_nir,
    ),
    ("card", re.compile(_BEFORE + r"\d{4}(?:[ -]?\d{4}){2}[ -]?\d{1,7}" + _AFTER), _digits, _card),
    ("card", re.compile(_BEFORE + r"3[47]\d{2}[ -]?\d{6}[ -]?\d{5}" + _AFTER), _digits, _card),
    ("br_cpf", re.compile(_BEFORE + r"\d{3}\.\d{3}\.\d{3}-\d{2}" + _AFTER), _digits, _br_cpf),
    ("in_aadhaar", re.compile(_BEFORE + r"[2-9]\d{3} \d{4} \d{4}" + _AFTER), _digits, verhoeff),
    ("us_ssn", re.compile(_BEFORE + r"\d{3}([- ])\d{2}\1\d{4}" + _AFTER), _digits, _us_ssn),
    ("uk_nino", re.compile(r"(?<!\w)[A-Z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-D](?!\w)"), _alphanumeric, _uk_nino),
    ("es_dni", re.compile(r"(?<!\w)(?:\d{8}|[XYZ]\d{7})-?[A-Z](?!\w)"), _alphanumeric, _es_dni),
    ("ip", re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)"), _same_address, _ip),
    ("ip", re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{1,4}(?![\w:])"), _same_address, _ip),
    (
        "phone",
        re.compile(r"(?<![\w+])\+[1-9]\d{0,2}(?:[ .-]?\(?\d{1,4}\)?){2,5}" + _AFTER),
        lambda t: "+" + _digits(t),
        _phone,
    ),
    (
        "phone",
        re.compile(_BEFORE + r"(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[-. ])[2-9]\d{2}[-. ]\d{4}" + _AFTER),
        lambda t: "+1" + _digits(t),
        _phone,
    ),
)
KINDS = tuple(dict.fromkeys(kind for kind, _, _, _ in _KINDS))


def find_pii(text: str) -> list[Found]:
    """Personal data in a text in the order of its places; no two overlap.

    Kinds: e-mail addresses; IBANs (length and mod 97); payment cards (Luhn); IP addresses that can be somebody's,
    private ones among them; telephone numbers in international form or in that of North America; US social security, UK
    national insurance, Spanish DNI and NIE, French NIR, Italian codice fiscale, Brazilian CPF and Indian Aadhaar
    numbers by their own rules.
    """
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
    """The value with every letter and digit but the first hidden: enough to tell its form, too little to use it."""
    return value[:1] + "".join("*" if c.isalnum() else c for c in value[1:])
