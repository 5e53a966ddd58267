"""Context check of possible personal data, by surrounding words and signs.

A nine-digit number in groups of three, two and four is a social security number or a part's; which, only the words
beside it say. The nearest word decides, those before the number first. Where no word speaks, the form does: a form that
hardly anything else has is taken for personal data, one that versions or prices share is not.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

_BEFORE, _AFTER = 60, 32


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
        before, after = text[max(0, start - _BEFORE) : start], text[end : end + _AFTER]
        return not (_NAMED.search(before) or (_THING_BEFORE.search(before) and _THING_AFTER.match(after)))
    return said


def _context_verdict(context: _Context, text: str, start: int, end: int) -> bool | None:
    """What the nearest word says, those before first; None where none speaks."""
    before = text[max(0, start - _BEFORE) : start]
    before = before[max((m.end() for m in _SENTENCE_END.finditer(before)), default=0) :]
    last = [max((m.end() for m in p.finditer(before)), default=-1) for p in context.patterns]
    if last[0] != last[1]:
        return last[0] > last[1]
    after = _CLAUSE_END.split(text[end : end + _AFTER], maxsplit=1)[0]
    first = [next((m.start() for m in p.finditer(after)), _AFTER) for p in context.patterns]
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
