"""Titles of figures that are made of a phrase and a feature's name, in another language than that of the record."""

from __future__ import annotations

from auditor.record.catalogue import ENGLISH, Catalogue, shipped

_SECTION, _PLACE = "titled.", "{feature}"


def titled(title: str, say: Catalogue) -> str:
    """The title in the words of a catalogue; one that is made otherwise stays as it was recorded."""
    for key, phrase in shipped(ENGLISH).items():
        head, place, _ = phrase.partition(_PLACE)
        if not key.startswith(_SECTION) or not title.startswith(head):
            continue
        if place:
            return say.say(key, feature=title.removeprefix(head))
        if title == phrase:
            return say.say(key)
    return title
