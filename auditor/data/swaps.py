"""Identity terms in a text: their positions, and grammatically correct replacement by another identity."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from auditor.data.lexicons import PLACEHOLDER, TOLD_APART, Identity, Lexicon

_PRONOUNS, _NAMING = TOLD_APART
# A term may begin after these although a hyphen joins them: a non-Muslim is still said of Muslims.
_PREFIXES = ("non", "anti", "ex", "pro", "half")
_BEFORE = r"(?<![\w@#-])(?<!\w['’.])"
_AFTER_PREFIX = "|".join(rf"(?<=\b{prefix}-)" for prefix in _PREFIXES)
_HASH = r"(?<=(?<!\w)#)"
_SENTENCE_START = re.compile(r"(?:^|[.!?…:\n])[\s\"'“”‘’(\[*_-]*$")
_ARTICLE = re.compile(r"(?<![\w'’-])(an?)(\s+)$", re.IGNORECASE)
_WORD = re.compile(r"\s+([^\W\d_]+(?:['’][^\W\d_]+)*)")
_ADDRESS = re.compile(r"://|^www\.|\w\.[a-z]{2,}(?:/|$)|@\w", re.IGNORECASE)
_NUMBER_OR_QUOTATION = re.compile(r"\s+(?:\d|[\"“‘']\w)")
_NAME = re.compile(r"\.?\s+[A-Z][\w'’-]*[a-z]")
_ALTERNATIVE = re.compile(r"\s*/\s*\w+")

# Words that name nothing: where one of them follows, "her" is not "his" and "a Muslim" is complete.
_CLOSED = frozenset(
    """a an the this that these those my your his her its our their some any no every each either neither all both
    and or but nor so yet if because when while where who whom whose which what why how than as whether until unless
    though although since before after once
    at by for from in into of off on onto out over to toward towards under up upon with within without about above
    across against along among around behind below beneath beside besides between beyond despite down during except
    inside like near outside past per through throughout till
    is am are was were be been being has have had having do does did done will would shall should can could may might
    must isn't aren't wasn't weren't hasn't haven't hadn't don't doesn't didn't won't wouldn't can't couldn't shouldn't
    not never ever always often sometimes again already also alone anyway anymore away back even else everywhere here
    home however instead just later maybe now only perhaps quite rather really right seldom soon still then there
    therefore today together tomorrow tonight too very well yesterday
    i you he she it we they me him us them myself yourself himself herself itself ourselves themselves
    everything something anything nothing everyone someone anyone
    mine yours hers ours theirs
    ago lol please thanks""".split()
)
# They look like something of somebody's; after a noun such as "a Muslim" or "his" they are what it does.
_VERBS = frozenset(
    """came comes went goes said says told tells asked asks lived lives worked works wanted wants thought thinks knew
    knows got gets took takes made makes gave gives saw sees moved moves lost won bought sold wrote spoke sat stood
    died killed attacked looked looks seemed seems became becomes needs needed likes liked broke ran""".split()
)
# What follows "let her" is what she may do, however much it looks like something of hers.
_BARE_VERB_AFTER = frozenset({"let", "lets", "letting"})
# After these a verb or an adjective says what "her" did or was: "heard her sing", "saw her waiting", "made her sad".
_PERCEIVING = frozenset(
    """see sees saw seen seeing watch watches watched watching hear hears heard hearing notice notices noticed noticing
    spot spots spotted observe observes observed observing""".split()
)
_CAUSING = frozenset("make makes made making have has had having help helps helped helping bid bade".split())
_HAD_ONES_SAY = frozenset({("has", "say"), ("have", "say"), ("had", "say"), ("having", "say")})
_KEEPING = frozenset("keep keeps kept keeping leave leaves left leaving catch catches caught find finds found".split())
_CALLING = frozenset(
    """make makes made making call calls called calling consider considers considered think thinks thought
    declare declares declared drive drives drove driving get gets got getting""".split()
)
_VERBS_ONLY = frozenset(
    """sing speak say go come leave eat enter arrive tell sit stand be do become think know believe understand see hear
    write read give take get bring carry choose grow lose win learn teach wear weep die live lie begin stop try wait
    follow ask listen pray apologize apologise realize realise feel find keep disappear sneak stumble admit agree decide
    forget forgive remember sell send obey marry prepare perform""".split()
)
_VERBS_AND_NOUNS = frozenset(
    """call cry laugh scream talk walk run play dance work sleep smile fall move drive fight shout whisper answer
    shiver sigh sob yell jump swim look blush sneeze cough snore step struggle turn return suffer help
    kiss drink cook study paint fly ride travel hide climb approach regret pay""".split()
)
_NOUNS_IN_ING = frozenset(
    """wedding building painting drawing recording reading writing earring clothing being feeling meeting hearing
    morning evening ceiling stocking sibling darling offspring lightning opening ending saying blessing suffering
    upbringing ruling landing dwelling lodging belonging string spring thing everything""".split()
)
_STATES = frozenset(
    """happy unhappy sad angry mad furious sick ill tired sleepy hungry thirsty nervous anxious afraid scared proud
    jealous famous rich poor strong stronger weak weaker better worse safe uncomfortable comfortable lonely
    crazy insane stupid dumb lazy ugly fat beautiful pretty attractive brilliant smart clever brave selfish rude boring
    dead alive asleep awake unconscious pregnant guilty innocent responsible ready sorry late welcome curious suspicious
    bored confused embarrassed ashamed upset uneasy dizzy calm quiet busy warm cold""".split()
)
# A number after "gave her" is of what she got.
_GIVING = frozenset(
    """give gives gave giving given send sends sent sending offer offers offered pay pays paid paying lend lends lent
    owe owes owed cost costs hand hands handed grant grants granted""".split()
)
_AMOUNTS = frozenset(
    """one two three four five six seven eight nine ten twenty fifty hundred several many more enough lots plenty much
    most half""".split()
)
_DETERMINERS = frozenset("a an the this that another every each one no any some".split())
_SAID_AS_YOU = re.compile(
    r"^(?:uni[cfltqv]|union|us(?:\b|[aeu])|ubi|ut[io]|eu|ewe|onc?e\b|uk(?:\b|r)|ugand|urugu|uranus)", re.I
)
_SILENT_H = re.compile(r"^(?:hour|honest|honou?r|heir)", re.IGNORECASE)
_LETTERS_SAID_WITH_VOWEL = frozenset("AEFHILMNORSX")


@dataclass(frozen=True)
class Mention:
    """A word for an identity in a text: ``text[start:end]`` is the ``index``-th word of its ``role``."""

    start: int
    end: int
    identity: str
    role: str
    index: int


@dataclass(frozen=True)
class _Entry:
    identity: str
    word: str
    places: Mapping[str, int]


class Swapper:
    """A tool that finds and swaps the identities of one lexicon, and inserts them into templates.

    Whole words only: not within a word, after ``@``, in an address or a hyphenated word (but for non-, anti-, ex-,
    pro-, half-). A longer term wins over a shorter one, and nothing is found within the lexicon's ``not_within``
    phrases: an African American names no nationality. A term's capitals follow the text it comes into, an article
    before it follows its sound where it did before, and pronouns keep their part in the sentence: the words around them
    decide whether "her" is "him" or "his", and whether "his" is "her" or "hers".

    Limits: these are lists of words, not a parser. What could be hers is taken for hers, so that "gave her flowers"
    becomes "gave his flowers" and "told her John left" "told his John left"; after a verb of seeing, making or helping
    what could be her doing is taken for that ("saw her work": "saw him work"). "Mrs" and "Miss" become "Mr", and "Mr"
    becomes "Ms", since it does not say which. The verb after a singular "they" and the names of kin beyond the lexicon
    are not followed, and an adjective of ethnicity that stands as a noun stays one ("an Asian": "a white").
    """

    def __init__(self, lexicon: Lexicon) -> None:
        self.lexicon = lexicon
        self._identities = {identity.name: identity for identity in lexicon.identities}

    @cached_property
    def _entries(self) -> Mapping[str, _Entry]:
        found: dict[str, _Entry] = {}
        for identity in self.lexicon.identities:
            for role, words in identity.words.items():
                for index, word in enumerate(words):
                    key = word.casefold()
                    if key in self.lexicon.only_in_templates:
                        continue
                    places = dict(found[key].places) if key in found else {}
                    found[key] = _Entry(identity.name, word, {**places, role: index})
        return found

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        if self.lexicon.reference or not self._entries:
            return None
        longest_first = sorted({*self._entries, *self.lexicon.not_within}, key=lambda w: (-len(w), w))
        words = "|".join(r"\s+".join(map(re.escape, word.split())) for word in longest_first)
        return re.compile(rf"(?:{_BEFORE}|{_AFTER_PREFIX}|{_HASH})(?:{words})(?!\w|-\w|@)", re.IGNORECASE)

    def mentions(self, text: str) -> list[Mention]:
        """Every word of the lexicon in the text, from left to right."""
        return list(self._mentions(text))

    def _mentions(self, text: str) -> Iterator[Mention]:
        if self._pattern is None:
            return
        for match in self._pattern.finditer(text):
            if _ADDRESS.search(_chunk(text, match.start(), match.end())):
                continue
            said = " ".join(match.group().split())
            entry = self._entries.get(said.casefold())
            if entry is None or (entry.word in self.lexicon.before_names and not _names(said, entry.word, text, match)):
                continue
            role = _role(frozenset(entry.places), text, match.start(), match.end())
            if role in self.lexicon.match_case and said != entry.word:
                continue
            yield Mention(match.start(), match.end(), entry.identity, role, entry.places[role])

    def swap(self, text: str, first: str, second: str | Identity, mentions: list[Mention] | None = None) -> str | None:
        """The text with two identities in each other's place, or None where one lacks a word for a role that is used.

        ``second`` may be an identity of another lexicon, such as a word of the reference: then its words replace those
        of ``first``, and its own stay. ``mentions``: those of the text, where they are known.
        """
        found = self.mentions(text) if mentions is None else mentions
        if isinstance(second, Identity):
            target = {first: second}
        else:
            target = {first: self._identities[second], second: self._identities[first]}
        parts: list[str] = []
        done = 0
        for mention in found:
            if mention.identity not in target:
                continue
            words = self._insertable_words(target[mention.identity], mention.role)
            if not words:
                return None
            own = self._identities[mention.identity].words[mention.role][mention.index]
            said = text[mention.start : mention.end]
            word = _cased(words[mention.index % len(words)], said, own, text, mention.start)
            before = text[done : mention.start]
            parts += [_with_article(before, said, word), word]
            done = mention.end
        return "".join([*parts, text[done:]])

    def _insertable_words(self, identity: Identity, role: str) -> tuple[str, ...]:
        """The words that may come into a text."""
        return tuple(w for w in identity.words.get(role, ()) if w.casefold() not in self.lexicon.only_in_texts)

    def fill(self, template: str, identity: Identity, index: int = 0) -> str | None:
        """The template with an identity's words in its placeholders, or None where it lacks a role.

        ``{Role}`` with a capital takes the word with one; ``index`` picks among several words, counted round.
        """
        parts: list[str] = []
        done = 0
        for place in PLACEHOLDER.finditer(template):
            words = self._insertable_words(identity, place.group(1).lower())
            if not words:
                return None
            word = words[index % len(words)]
            if place.group(1)[0].isupper() or _SENTENCE_START.search(template[: place.start()]):
                word = word[0].upper() + word[1:]
            parts += [_with_article(template[done : place.start()], None, word), word]
            done = place.end()
        return "".join([*parts, template[done:]])


def _names(original: str, word: str, text: str, match: re.Match[str]) -> bool:
    """Whether a title stands before a name, such as "Miss Jones", and is no other word, such as "Miss you"."""
    return original == word and _NAME.match(text, match.end()) is not None


def _chunk(text: str, start: int, end: int) -> str:
    """What stands between the spaces around a place, as far as an address goes."""
    before, after = text[max(0, start - 200) : start].split(), text[end : end + 200].split(maxsplit=1)
    left = before[-1] if before and not text[start - 1].isspace() else ""
    right = after[0] if after and not text[end].isspace() else ""
    return left + text[start:end] + right.rstrip(".,;:!?")


# ---- which role ----------------------------------------------------------------------------------------------------


def _role(roles: frozenset[str], text: str, start: int, end: int) -> str:
    if len(roles) == 1:
        return next(iter(roles))
    previous = _previous(text, start)
    following, after = _following(text, end)
    stands_before_noun = following is not None and following not in _CLOSED
    if roles <= _PRONOUNS:
        if "object" in roles and following is not None and _is_done_to(previous, following, _following(text, after)[0]):
            return "object"
        if stands_before_noun and not ("pronoun" in roles and following in _VERBS):
            return "determiner"
        # "her" is never "hers", so alone it is an object; "his" alone is a pronoun.
        return "object" if "object" in roles else "pronoun"
    alone = not stands_before_noun or following in _VERBS
    return "noun" if previous in _DETERMINERS and alone else "adjective"


def _is_done_to(previous: str, following: str, next_but_one: str | None) -> bool:
    """Whether "her" is whom the verb before it is about, and the word that follows says what she did, was or got."""
    ends = next_but_one is None or next_but_one in _CLOSED
    if previous in _BARE_VERB_AFTER:
        return True
    if (previous, following) in _HAD_ONES_SAY:
        return False
    if previous in _PERCEIVING | _CAUSING and (following in _VERBS_ONLY or (ends and following in _VERBS_AND_NOUNS)):
        return True
    if previous in _PERCEIVING | _KEEPING and ends and following.endswith("ing") and following not in _NOUNS_IN_ING:
        return True
    if previous in _CALLING | _KEEPING and ends and following in _STATES:
        return True
    return previous in _GIVING and (following in _AMOUNTS or following[0].isdigit())


def _following(text: str, end: int) -> tuple[str | None, int]:
    """The word after a place, in lower case, and where it ends; a number or a quotation for itself; None before
    punctuation or nothing."""
    alternative = _ALTERNATIVE.match(text, end)
    found = _WORD.match(text, alternative.end() if alternative else end)
    if found is not None:
        return found.group(1).casefold().replace("’", "'"), found.end()
    other = _NUMBER_OR_QUOTATION.match(text, end)
    return (None, end) if other is None else (other.group().strip(), other.end())


def _previous(text: str, start: int) -> str:
    found = re.search(r"([^\W\d_]+)\s+$", text[max(0, start - 40) : start])
    return "" if found is None else found.group(1).casefold()


# ---- how it is written ---------------------------------------------------------------------------------------------


def _cased(word: str, original: str, lexicon_form: str, text: str, start: int) -> str:
    """``word`` with the capitals it has in the place of ``original``, which the lexicon spells ``lexicon_form``."""
    letters = [c for c in original if c.isalpha()]
    if len(letters) > 1 and all(c.isupper() for c in letters) and not lexicon_form.isupper():
        return word.upper()
    capital = word[0].upper() + word[1:]
    begins = _SENTENCE_START.search(text[max(0, start - 40) : start]) is not None
    if original[0].isupper():
        # A capital says something only where the lexicon spells the word without one.
        return capital if begins or lexicon_form[0].islower() else word
    if lexicon_form[0].isupper() or not any(c.isupper() for c in text):
        return word.lower()
    return word


def _with_article(before: str, original: str | None, word: str) -> str:
    """The text before a word, ending in the article that fits the word if it fitted what was ``original`` there."""
    article = _ARTICLE.search(before)
    if article is None:
        return before
    old = article.group(1)
    # A wrong article was the writer's own: to mend it would change more than the identity.
    if original is not None and old.lower() != article_of(original):
        return before
    new = article_of(word)
    if old.isupper() and len(old) > 1:
        new = new.upper()
    elif old[0].isupper():
        new = new.upper() if new == "an" and word.isupper() and len(word) > 1 else new.capitalize()
    return before[: article.start(1)] + new + article.group(2)


def article_of(word: str) -> str:
    """``"a"`` or ``"an"``, by the pronunciation of a word's beginning; acronyms are recognised by their capitals."""
    first = re.split(r"[\s-]", word, maxsplit=1)[0]
    if first.isupper() and len(first) > 1 and not re.search("[AEIOU]", first):
        return "an" if first[0] in _LETTERS_SAID_WITH_VOWEL else "a"
    if _SAID_AS_YOU.match(word):
        return "a"
    return "an" if word[:1].lower() in "aeiouáéíóúäöü" or _SILENT_H.match(word) else "a"
