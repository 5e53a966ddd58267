"""Whose words a page is told in: the tool's own, or a catalogue's that somebody gave."""

from __future__ import annotations

import hashlib
import json
import re

from auditor.record.catalogue import ENGLISH, SHIPPED, Catalogue, shipped


def own_words(say: Catalogue, *, later: bool = False) -> str:
    """That a catalogue of somebody's own gives this page its words, with its digest, so that none can be bent.

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
    """The language of a page as a browser and a reader's voice know it: of a file, what its name says."""
    stem = re.split(r"[/\\]", language)[-1].removesuffix(".toml")
    return stem if re.fullmatch(r"[a-z]{2,3}(-[A-Z]{2})?", stem) else ENGLISH
