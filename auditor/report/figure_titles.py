"""Figure titles made of a phrase and a feature's name, in a language other than the record's."""

from __future__ import annotations

from auditor.report.record.translations import ENGLISH, Catalogue, shipped

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
