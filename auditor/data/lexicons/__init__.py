"""Identity lexicons as data files: terms for groups of people, and sentence templates to insert them in.

A lexicon is a TOML or JSON file about one category::

    category = "religion"          # what the identities are of
    source = "..."                 # where the words come from
    why = "..."                    # why they are looked at
    match_case = ["name"]          # optional: roles whose words are found only as they are spelled here
    only_in_templates = ["blind"]  # optional: words that mean other things too and are not looked for in texts
    only_in_texts = ["Mrs"]        # optional: words that are found in texts, and are put nowhere
    before_names = ["Miss"]        # optional: words that are found only as they are spelled, before a capital
    not_within = ["Arab American"] # optional: phrases within which no word is found
    templates = ["A {noun} came."] # optional: sentences of its own
    reference = true               # optional: words of no group, which identities are compared with

    [[identities]]
    name = "Muslim"
    words = { adjective = "Muslim", noun = "Muslim", plural = "Muslims" }

A role is a place in grammar: identities of a category take each other's place within it. Any name will do for one, but
two pairs are told apart by a rule where one word has both (:mod:`auditor.data.swaps`): ``adjective`` and ``noun``, and
the pronouns ``object``, ``determiner`` and ``pronoun``. Where a role has a list of words, the k-th of one identity
takes the place of the k-th of another, counted round.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from auditor.core.errors import ConfigError, did_you_mean
from auditor.core.files import UNREADABLE, why_unreadable

CATEGORIES = ("gender", "names", "religion", "nationality", "ethnicity", "orientation", "disability", "age")
PLACEHOLDER = re.compile(r"\{(\w+)\}")
# One word may have several roles only where a rule tells them apart.
TOLD_APART = (frozenset({"object", "determiner", "pronoun"}), frozenset({"adjective", "noun"}))
_KEYS = (
    "category",
    "source",
    "why",
    "match_case",
    "only_in_templates",
    "only_in_texts",
    "before_names",
    "not_within",
    "templates",
    "reference",
    "identities",
)
_IDENTITY_KEYS = ("name", "words")
_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Identity:
    """A group of people, or the reference, and the words for it: ``words[role]`` in the order that pairs them."""

    name: str
    words: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Lexicon:
    """One category of identities; see the module for the fields.

    ``origin``: a built-in name or the file; ``sha256`` of its bytes.
    """

    category: str
    identities: tuple[Identity, ...]
    source: str
    why: str
    match_case: frozenset[str] = frozenset()
    only_in_templates: frozenset[str] = frozenset()
    only_in_texts: frozenset[str] = frozenset()
    before_names: frozenset[str] = frozenset()
    not_within: frozenset[str] = frozenset()
    templates: tuple[str, ...] = ()
    reference: bool = False
    origin: str = ""
    sha256: str = ""
    roles: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "roles", frozenset(role for i in self.identities for role in i.words))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the identities, in order."""
        return tuple(i.name for i in self.identities)


def built_in(categories: Sequence[str] = CATEGORIES) -> tuple[Lexicon, ...]:
    """The built-in lexicons of some categories. Raises ConfigError for one that there is not, naming the nearest."""
    for category in categories:
        if category not in CATEGORIES:
            raise ConfigError(
                f"There is no built-in lexicon {category!r}{did_you_mean(category, CATEGORIES)}. "
                f"There are: {', '.join(CATEGORIES)}."
            )
    return tuple(_built_in(category) for category in categories)


def neutral() -> Lexicon:
    """The built-in reference: adjectives unrelated to groups."""
    return _built_in("neutral")


def templates() -> tuple[str, ...]:
    """The built-in sentences, each with placeholders that name roles, such as ``{adjective}``."""
    content = tomllib.loads((files(__name__) / "templates.toml").read_text(encoding="utf-8"))
    return tuple(text for group in content.values() if isinstance(group, list) for text in group)


def _built_in(category: str) -> Lexicon:
    raw = (files(__name__) / f"{category}.toml").read_bytes()
    return parse(tomllib.loads(raw.decode()), category, hashlib.sha256(raw).hexdigest())


def read_lexicon(path: str | Path) -> Lexicon:
    """The lexicon in a TOML or JSON file. Raises ConfigError where it cannot be read or says what it may not."""
    where = Path(path)
    try:
        raw = where.read_bytes()
    except OSError as error:
        raise ConfigError(f"The lexicon {where.name!r} cannot be read: {error.strerror or error}.") from None
    if len(raw) > _MAX_BYTES:
        raise ConfigError(f"The lexicon {where.name!r} has {len(raw):,} bytes; at most {_MAX_BYTES:,} are read.")
    try:
        content = json.loads(raw) if where.suffix.lower() == ".json" else tomllib.loads(raw.decode())
    except UNREADABLE as error:
        kind = "JSON" if where.suffix.lower() == ".json" else "TOML"
        raise ConfigError(f"The lexicon {where.name!r} cannot be read as {kind}: {why_unreadable(error)}.") from None
    return parse(content, where.name, hashlib.sha256(raw).hexdigest())


def parse(content: object, origin: str, sha256: str = "") -> Lexicon:
    """A :class:`Lexicon` from a file's content. Raises ConfigError naming ``origin`` and the key that is wrong."""
    where = f"Lexicon {origin!r}"
    table = _table(content, where, _KEYS)
    reference = table.get("reference", False)
    if not isinstance(reference, bool):
        raise ConfigError(f"{where}: reference must be true or false.")
    entries = table.get("identities")
    if not isinstance(entries, list) or len(entries) < (1 if reference else 2):
        raise ConfigError(f"{where}: needs at least two [[identities]], each with a name and words.")
    identities = tuple(_identity(entry, f"{where}, identity {i}") for i, entry in enumerate(entries, 1))
    lexicon = Lexicon(
        category=_text(table, "category", where),
        identities=identities,
        source=_text(table, "source", where),
        why=_text(table, "why", where),
        match_case=frozenset(_texts(table.get("match_case", []), f"{where}: match_case")),
        only_in_templates=_folded(table, "only_in_templates", where),
        only_in_texts=_folded(table, "only_in_texts", where),
        before_names=frozenset(_texts(table.get("before_names", []), f"{where}: before_names")),
        not_within=_folded(table, "not_within", where),
        templates=tuple(_texts(table.get("templates", []), f"{where}: templates")),
        reference=reference,
        origin=origin,
        sha256=sha256,
    )
    _check(lexicon, where)
    return lexicon


def _table(content: object, where: str, keys: Iterable[str]) -> Mapping[str, object]:
    if not isinstance(content, Mapping):
        raise ConfigError(f"{where}: must be a table of keys, not {type(content).__name__}.")
    known = tuple(keys)
    for key in content:
        if key not in known:
            raise ConfigError(
                f"{where}: unknown key {key!r}{did_you_mean(str(key), known) or '.'} Known: {_list(known)}."
            )
    return content


def _list(words: Iterable[str]) -> str:
    return ", ".join(words)


def _text(table: Mapping[str, object], key: str, where: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f'{where}: needs {key} = "TEXT".')
    return value.strip()


def _texts(value: object, where: str) -> list[str]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(v, str) and v.strip() for v in values):
        raise ConfigError(f"{where} must be a list of texts, none of them empty.")
    return [" ".join(v.split()) for v in values]


def _folded(table: Mapping[str, object], key: str, where: str) -> frozenset[str]:
    return frozenset(w.casefold() for w in _texts(table.get(key, []), f"{where}: {key}"))


def _identity(content: object, where: str) -> Identity:
    table = _table(content, where, _IDENTITY_KEYS)
    words = table.get("words")
    if not isinstance(words, Mapping) or not words:
        raise ConfigError(f'{where}: needs words = {{ role = "word", ... }}.')
    return Identity(
        _text(table, "name", where),
        {str(role): tuple(_texts(value, f"{where}: words.{role}")) for role, value in words.items()},
    )


def _check(lexicon: Lexicon, where: str) -> None:
    if len(set(lexicon.names)) < len(lexicon.names):
        raise ConfigError(f"{where}: two identities have one name.")
    for name in lexicon.match_case - lexicon.roles:
        raise ConfigError(f"{where}: match_case names {name!r}, which is no role{did_you_mean(name, lexicon.roles)}.")
    _check_templates(lexicon, where)
    _check_replaceable(lexicon, where)
    _check_word_lists(lexicon, where)
    owners: dict[str, str] = {}
    for identity in lexicon.identities:
        for word, roles in _roles_by_word(identity, where).items():
            if len(roles) > 1 and not any(roles <= group for group in TOLD_APART):
                raise ConfigError(
                    f"{where}: {word!r} has the roles {_list(sorted(roles))}, and no rule tells them apart in a text."
                )
            if owners.setdefault(word, identity.name) != identity.name:
                raise ConfigError(f"{where}: {word!r} stands for {owners[word]!r} and for {identity.name!r}.")


def _check_templates(lexicon: Lexicon, where: str) -> None:
    for template in lexicon.templates:
        places = {place.lower() for place in PLACEHOLDER.findall(template)}
        if not places or not places <= lexicon.roles:
            raise ConfigError(
                f"{where}: the template {template[:60]!r} must have placeholders such as {{noun}}, each one of the "
                f"roles {_list(sorted(lexicon.roles))}."
            )


def _check_replaceable(lexicon: Lexicon, where: str) -> None:
    """Raises ConfigError where an identity has no word of a role that can be put in another's place."""
    for identity in lexicon.identities:
        for role, words in identity.words.items():
            if words and lexicon.only_in_texts.issuperset(w.casefold() for w in words):
                raise ConfigError(
                    f"{where}: every word of {identity.name!r} for the role {role!r} is only_in_texts, so none "
                    "could be put in another's place: add one that may be."
                )


def _check_word_lists(lexicon: Lexicon, where: str) -> None:
    """Raises ConfigError where a list of words names none of the identities', or excludes one of them."""
    known = {w for identity in lexicon.identities for words in identity.words.values() for w in words}
    for key, own_words in (("before_names", known), ("only_in_texts", {w.casefold() for w in known})):
        for word in sorted(getattr(lexicon, key) - own_words):
            raise ConfigError(f"{where}: {key} names {word!r}, which is no word of it{did_you_mean(word, own_words)}.")
    for word in sorted(lexicon.not_within & {w.casefold() for w in known}):
        raise ConfigError(f"{where}: {word!r} is a word of it and one of the phrases within which none is found.")


def _roles_by_word(identity: Identity, where: str) -> dict[str, set[str]]:
    """The roles of each word of an identity. Raises ConfigError for a role without words or with one word twice."""
    roles: dict[str, set[str]] = {}
    for role, words in identity.words.items():
        if not words:
            raise ConfigError(f"{where}: {identity.name!r} has no word for the role {role!r}.")
        if len({w.casefold() for w in words}) < len(words):
            raise ConfigError(f"{where}: {identity.name!r} has a word twice in the role {role!r}.")
        for word in words:
            roles.setdefault(word.casefold(), set()).add(role)
    return roles
