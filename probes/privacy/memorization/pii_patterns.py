"""Personal data in a text: found by pattern, filtered by rules and context, displayed masked; recall of detection.

The rules of national and bank numbers are those of python-stdnum, the numbering plans of telephones those of
libphonenumber; the rules of payment cards beyond their check digit, of UK national insurance numbers and of addresses
are here, and those of context in :mod:`~probes.privacy.memorization.pii_patterns`.

Rules of context were written with one half of the sentences in sight; the numbers are those of the other half alone.
"""

from __future__ import annotations

import functools
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

_CHARACTERS_BEFORE, _CHARACTERS_AFTER = 60, 32


@functools.cache
def _words(words: str) -> re.Pattern[str]:
    """Any of the words of a text, whole and in either case; ``_`` stands for a space or a hyphen or nothing.

    Made when first asked for: most who import the probes look for nobody's data.
    """
    return re.compile(
        r"(?<![^\W_])(?:" + "|".join(re.escape(w).replace("_", "[ -]?") for w in words.split()) + r")(?![^\W_])", re.I
    )


@dataclass(frozen=True)
class _Context:
    """Words that speak for a kind, and against it."""

    speak_for: str
    against: str

    @property
    def patterns(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        return _words(self.speak_for), _words(self.against)


# Things that are numbered, and what their numbers are called.
_THINGS = """
part parts p/n pn mpn nsn dwg oem part_no part_number spare spares order orders order_no ordered item items invoice
invoices bill_no sku model serial s/n serial_number catalog catalogue cat_no ref reference case docket ticket tickets
batch lot tracking shipment consignment parcel package delivery product products article articles isbn issn doi upc
ean gtin barcode voucher coupon booking reservation confirmation transaction hash checksum digest fingerprint commit
token key keys licence license activation seed timestamp epoch counter count counts build version versions revision
rev drawing stock inventory asset chassis vin imei imsi iccid policy flight plate locker sample specimen sequence
accession job document message session score scores gene section clause paragraph chapter figure table row record_id
uuid guid cas ndc patent standard bearing gasket valve component sensor device unit units machine engine filter
id_code pnr po_number rma quote quotation warranty contract_no permit warrant node edition issue volume page pages
revenue total subtotal
pedido factura serie referencia lote producto expediente pieza matrícula artículo albarán envío código_de_producto
commande facture référence colis série produit pièce article dossier_no
ordine fattura lotto prodotto articolo spedizione riferimento seriale codice_prodotto pezzo
nota_fiscal protocolo processo produto peça encomenda
bestellung bestellnummer rechnung rechnungsnummer artikel artikelnummer seriennummer teilenummer sendung sendungsnummer
charge_no vorgang aktenzeichen
"""
# People by what they are to whoever keeps the record.
_PEOPLE = """
employee patient applicant claimant taxpayer spouse wife husband resident insured pensioner beneficiary worker dependent
citizen holder cardholder mr mrs ms born dob
"""
_NATIONAL = """
identity national id_number tax_id tax_no taxpayer_number social_security passport
"""

_PHONE_FOR = """
phone telephone tel tel. telefon telefono teléfono téléphone fone telefone mobile mobil móvil portable cell cellphone
handy celular call calls called calling caller ring rang dial fax telefax text sms whatsapp signal viber voicemail
landline hotline helpline switchboard pager reach appelez appeler llámame llamar llame ligue chiami chiamare anrufen
rufen received direct extension contact contacts kontakt contacto contatto daytime
"""
_AMOUNTS = """
rose fell grew gained lost change changed shifted balance profit loss increase decrease value price sum amount offset
coordinates coordinate latitude longitude lat lon rate costs cost budget surplus deficit
dollars dollar usd euro euros eur gbp pounds yen jpy francs chf rupees inr votes points metres meters km miles kg tonnes
percent visitors views downloads seconds bytes rows people inhabitants
"""
_CARD_FOR = """
card cards card_number credit debit visa mastercard amex american_express discover diners maestro jcb unionpay pan cc
cvv cvc cvv2 expires expiry exp karte kreditkarte tarjeta carte carte_bancaire carta cartão cardholder charge charged
debited pay paid payment checkout billing
"""
_IBAN_FOR = """
iban account accounts acct bank banking transfer konto kontonummer compte cuenta conto conta sepa payee beneficiary bic
swift wire überweisen überweisung rent salary deposit donations debit mandate
"""
_IP_FOR = """
ip ips ip_address address addr host hosts hostname server login logins log_in logged sign_in signed_in client clients
connect connected connecting connection connections ping pinged ssh telnet network lan wan router gateway dns nameserver
subnet firewall proxy remote remote_addr request requests requested traffic port vpn visitor banned ban blocked
attack attacker attempt attempts inet peer packet packets x-forwarded-for forwarded session user posted dhcp whois
traceroute online reachable unreachable
"""
_IP_AGAINST = """
version versions ver v v. release released releases build builds section sections sec sec. subsection § §§ chapter
clause clauses article art. paragraph para annex appendix schedule figure fig fig. table firmware driver drivers update
updated updates upgrade upgraded downgrade downgraded patch patched revision rev kernel package packages library
changelog requires requirement requirements item items step steps exercise theorem lemma corollary proposition
definition example equation oid iso iec rfc standard sdk api plugin module software app application chrome firefox
safari edge python java openssl bumped bump installed install pip npm dependency dependencies rule regulation heading
part question problem task note bios edition milestone tag
"""


_CONTEXTS = {
    "phone": _Context(_PHONE_FOR, _THINGS + _AMOUNTS),
    "card": _Context(_CARD_FOR, _THINGS),
    "iban": _Context(_IBAN_FOR, _THINGS),
    "ip": _Context(_IP_FOR, _IP_AGAINST),
    "us_ssn": _Context(_NATIONAL + _PEOPLE + "ssn ssns social soc_sec ss# w-2 payroll", _THINGS),
    "uk_nino": _Context(_NATIONAL + _PEOPLE + "nino ni_number ni_no ni national_insurance hmrc payroll p60", _THINGS),
    "es_dni": _Context(_NATIONAL + _PEOPLE + "dni d.n.i nif nie documento identidad don doña", _THINGS),
    "fr_nir": _Context(_NATIONAL + _PEOPLE + "nir sécurité_sociale sécu ss carte_vitale assuré assurée insee", _THINGS),
    "it_codice_fiscale": _Context(_NATIONAL + _PEOPLE + "codice_fiscale cf c.f tessera contribuente tax_code", _THINGS),
    "br_cpf": _Context(_NATIONAL + _PEOPLE + "cpf contribuinte titular cadastro", _THINGS),
    "in_aadhaar": _Context(_NATIONAL + _PEOPLE + "aadhaar aadhar uidai uid kyc", _THINGS),
}

_SENTENCE_END = re.compile(r"(?<=[a-z)\]]{2})[.!?]\s+(?=[^\W\d_a-z])|\n\s*\n")
_CLAUSE_END = re.compile(r"[.!?;](?:\s|$)|\n")
# An article or a number before, and a noun after it, which no verb is: the name of a thing.
_THING_BEFORE = re.compile(
    r"\b(?:the|a|an|each|every|this|that|these|those|our|new|old|one|two|three|four|five|six|some|\d{1,3})\s$", re.I
)
_THING_AFTER = re.compile(
    r"\s(?!(?:is|was|are|were|has|had|have|will|would|can|could|may|must|does|did|and|or|but|for|from|with|to|on|in|at|"
    r"of|by|as|belongs|still|no|not|who|which|that)\b)[a-z]{3,}"
)


# A thing that is named by its number; "form: 12" is what stands on one.
_NAMED = re.compile(r"\b(?:form|note|room|gate|route|type|size|grade|class|group|set|kit)\s#?$", re.I)


def is_personal(kind: str, text: str, start: int, end: int) -> bool:
    """Whether the match at ``start`` to ``end`` of a text, with the form of a kind, is personal data by its context."""
    if kind == "email":
        return _email(text, start, end)
    said = _context_verdict(_CONTEXTS[kind], text, start, end)
    if kind == "ip":
        return _address(text, start, end, said)
    if kind == "phone" and not _telephone(text[start:end], said):
        return False
    if said is None:
        before, after = text[max(0, start - _CHARACTERS_BEFORE) : start], text[end : end + _CHARACTERS_AFTER]
        return not (_NAMED.search(before) or (_THING_BEFORE.search(before) and _THING_AFTER.match(after)))
    return said


def _context_verdict(context: _Context, text: str, start: int, end: int) -> bool | None:
    """What the nearest word says, those before first; None where none speaks."""
    before = text[max(0, start - _CHARACTERS_BEFORE) : start]
    before = before[max((m.end() for m in _SENTENCE_END.finditer(before)), default=0) :]
    last = [max((m.end() for m in p.finditer(before)), default=-1) for p in context.patterns]
    if last[0] != last[1]:
        return last[0] > last[1]
    after = _CLAUSE_END.split(text[end : end + _CHARACTERS_AFTER], maxsplit=1)[0]
    first = [next((m.start() for m in p.finditer(after)), _CHARACTERS_AFTER) for p in context.patterns]
    return first[0] < first[1] if first[0] != first[1] else None


# ---- e-mail addresses ------------------------------------------------------------------------------------------------

# Endings of files and of units, none of them a top-level domain that people have addresses in.
_FILE_ENDINGS = frozenset(
    "png jpg jpeg gif svg webp ico bmp avif css js mjs ts tsx jsx json xml yaml yml toml html htm txt md csv tgz gz "
    "tar service socket timer target mount slice scope device path exe dll jar whl deb rpm conf cfg ini log lock local "
    "localhost internal invalid lan home".split()
)
_NOBODY = re.compile(
    r"(?:(?:no|donot|do-not|do_not)[-_.]?reply|mailer-daemon|git|hg|svn|"
    r"(?:user|username|name|your?[-_.]?name|you|someone|somebody|foo|bar|me|email|address|first[-_.]?name[-_.]last[-_.]?name|"
    r"firstname|lastname|first\.last)(?=@(?:\w+\.)?(?:example|domain|yourdomain|your-domain|company|yourcompany|host|"
    r"site|test|email|mail)\.))@",
    re.I,
)
_MESSAGE_ID = re.compile(r"(?:message-id|in-reply-to|references|content-id)\s*:?[^\n]*$", re.I)
_PASSWORD_OF_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/@]*:$", re.I)


def _email(text: str, start: int, end: int) -> bool:
    value, line = text[start:end], text[max(0, start - 200) : start].rpartition("\n")[2]
    if value.rpartition(".")[2].lower() in _FILE_ENDINGS or _NOBODY.match(value):
        return False
    return not (_MESSAGE_ID.search(line) or _PASSWORD_OF_URL.search(line))


# ---- IP addresses ----------------------------------------------------------------------------------------------------

_PLACE = re.compile(r"(?:\b(?:from|to|at|via|by|of|on)\s|[a-z][a-z0-9+.-]*://|\w@|\[)$", re.I)
_PINNED = re.compile(r"(?:[=<>~^!]=\s?|[A-Za-z][\w.]*[/-]|§\s?)$")
_BUILD = re.compile(
    r"-?(?:alpha|beta|rc|dev|pre|snapshot|final|ga|lts|el\d|fc\d)\b|\.(?:tar|zip|gz|tgz|deb|rpm|jar|whl)|\+", re.I
)
_BLOCK = re.compile(r"/\d")
# Octets of versions and of numbered sections are small ones; an address has two that are not in all but 1 %.
_SMALL = 32


def _address(text: str, start: int, end: int, word_hint: bool | None) -> bool:
    value, before, after = text[start:end], text[max(0, start - 40) : start], text[end : end + 12]
    if ":" in value:
        return word_hint is not False
    if _BUILD.match(after) or (_BLOCK.match(after) and value.endswith(".0")):
        return False
    if _PINNED.search(before) and not before.endswith("//"):
        return False
    if word_hint is not None:
        return word_hint
    large = sum(int(octet) >= _SMALL for octet in value.split("."))
    return large >= 2 or bool(_PLACE.search(before))


# ---- telephone numbers -----------------------------------------------------------------------------------------------

_THOUSANDS = re.compile(r"\+\d{1,3}(?:[ .]\d{3})+")
_CODE = re.compile(r"\+\d+")


def _telephone(value: str, word_hint: bool | None) -> bool:
    """Whether a valid number is written as one: by its form, or by a word where the form says nothing."""
    if value.startswith("+"):
        return word_hint is True or not _THOUSANDS.fullmatch(value) or _separate_code(value)
    return word_hint is True or not value.replace(" ", "").isdigit() and not value.startswith("0")


def _separate_code(value: str) -> bool:
    """Whether the digits before the first gap are a calling code, as nobody writes it in thousands."""
    import phonenumbers

    code = _CODE.match(value)
    return code is not None and int(code.group()[1:]) in phonenumbers.COUNTRY_CODE_TO_REGION_CODE


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
