"""Metadata tags of known generators: the tool that a statement suggests, in words; never proof."""

from __future__ import annotations

import re
from collections.abc import Iterator

from auditor.detection.provenance.provenance_record import (
    LONGEST_VALUE,
    Origin,
    Statement,
    Where,
    origin_of,
    short_type,
)

# Names that mean a generator and little else; words such as "flux" or "imagen" mean too much else.
_NAMES = re.compile(
    r"midjourney|dall[·\-\u2010-\u2015 ]?e\b|stable[ _-]?diffusion|sdxl|novelai|comfyui|invokeai|automatic1111|fooocus|"
    r"adobe firefly|openai|made with google ai|bing image creator|ideogram|leonardo\.ai|elevenlabs|synthesia|heygen|"
    r"\bespeak|\bflite\b|piper[ -]tts",
    re.IGNORECASE,
)
_GRAPHS = ("prompt", "workflow")
_OF_INVOKE = ("invokeai_metadata", "invokeai_graph", "sd-metadata", "dream")


def statement(where: Where, name: str, value: str) -> Iterator[Statement]:
    """One statement with the generator it suggests; none for an empty value."""
    text = value.strip("\0 \t\r\n")
    if not text:
        return
    origin: Origin | None = None
    if name == "DigitalSourceType":
        text = short_type(text)
        origin = origin_of(text)
    yield Statement(
        where=where,
        name=name[:100],
        value=text[:LONGEST_VALUE],
        points_to=points_to(name, text)[:LONGEST_VALUE],
        origin=origin,
    )


def points_to(name: str, value: str) -> str:
    """The known source of such a statement, in words; "" if it suggests nothing in particular."""
    key = name.lower()
    if key in ("parameters", "usercomment") and "Steps:" in value and "Sampler" in value:
        return "generation settings, as web UIs of Stable Diffusion write them"
    if key in _GRAPHS and value.startswith("{"):
        return "a graph of generation steps, as ComfyUI writes it"
    if key in _OF_INVOKE:
        return "generation settings, as InvokeAI writes them"
    found = _NAMES.search(value)
    return f"it names {found[0]}" if found else ""
