"""The language of a page: the source of its wording, and figure titles in a language other than the record's."""

from __future__ import annotations

import hashlib
import json
import re

from auditor.report.record.translations import ENGLISH, SHIPPED, Catalogue, shipped


def own_words(say: Catalogue, *, later: bool = False) -> str:
    """The note that a user's catalogue provides this page's wording, with its digest to detect manipulation.

    ``later``: not that of the record, but one that was named when the page was made of it.
    """
    if say.language in SHIPPED and dict(say.own) == dict(shipped(say.language)):
        return ""
    spelled = json.dumps(dict(sorted(say.own.items())), ensure_ascii=False)
    digest = hashlib.sha256(spelled.encode()).hexdigest()[:16]
    whose = "named when this page was made, and not in its record" if later else "of the signer's own"
    return (
        f"The words of this page, but for what was recorded, are those of a catalogue {whose}, {say.language} "
        f"({digest}), and not of the tool. Colours, marks and the exit code are the tool's."
    )


def language_tag(language: str) -> str:
    """The language tag of a page for browsers and screen readers; for a file, from its name."""
    stem = re.split(r"[/\\]", language)[-1].removesuffix(".toml")
    return stem if re.fullmatch(r"[a-z]{2,3}(-[A-Z]{2})?", stem) else ENGLISH


_SECTION, _PLACE = "titled.", "{feature}"


def titled(title: str, say: Catalogue) -> str:
    """The title in the wording of a catalogue; a title of another form is unchanged."""
    for key, phrase in shipped(ENGLISH).items():
        head, place, _ = phrase.partition(_PLACE)
        if not key.startswith(_SECTION) or not title.startswith(head):
            continue
        if place:
            return say.say(key, feature=title.removeprefix(head))
        if title == phrase:
            return say.say(key)
    return title
