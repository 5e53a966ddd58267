"""Passwords in what is written down: a report must not publish the one that stood in its command."""

from __future__ import annotations

import re

_IN_URL = re.compile(r"(?<=://)([^:@/\s]*):[^@/\s]*@")


def without_passwords(text: str) -> str:
    """The text with the password of every URL in it, such as ``postgresql://ann:secret@host``, as ``***``."""
    return _IN_URL.sub(r"\1:***@", text)
