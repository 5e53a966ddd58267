"""Watermark decoders: each is named by the user, and answers yes or no a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np

from auditor.core.errors import DataError, MissingExtraError, UsageError, first_line
from auditor.core.files import printable_name

# Of bits that agree with a mark by chance, in a file that has none: as seldom as that, or it is no mark.
_BY_CHANCE = 1e-6


@dataclass(frozen=True)
class Decoder:
    """A decoder by its name: ``find`` returns whether a file's content has the mark."""

    name: str
    find: Callable[[bytes], bool]


def decoder_of(spec: str) -> Decoder:
    """The decoder of ``invisible-watermark=TEXT``, ``trustmark``, or a user's ``package.module:function``.

    The function is given a file's content and answers True or False. Raises UsageError for what is none of these,
    MissingExtraError where a package is not installed.
    """
    name, _, text = spec.partition("=")
    if name == "invisible-watermark":
        if not text:
            raise UsageError(
                "--decoder invisible-watermark decodes bits, and which of them are the mark is for you to say: "
                "--decoder invisible-watermark=StableDiffusionV1."
            )
        return Decoder(name, _invisible_watermark(text.encode()))
    if spec == "trustmark":
        return Decoder(spec, _trustmark())
    if ":" not in spec:
        raise UsageError(
            f"--decoder {printable_name(spec)!r} is none of invisible-watermark=TEXT, trustmark and "
            f"package.module:function."
        )
    from auditor.loading.user_code import import_object

    return Decoder(spec, _answering(spec, import_object(spec, None, "--decoder")))


def _answering(spec: str, function: Callable[..., Any]) -> Callable[[bytes], bool]:
    def find(content: bytes) -> bool:
        try:
            answer = function(content)
        except Exception as error:  # the user's function may raise anything
            raise DataError(f"--decoder {spec} raised {type(error).__name__}: {first_line(error)}.") from error
        if not isinstance(answer, bool | np.bool_):
            raise DataError(
                f"--decoder {spec} answered a {type(answer).__name__}: it is to answer True or False, by a threshold "
                "that was chosen before."
            )
        return bool(answer)

    return find


def _invisible_watermark(mark: bytes) -> Callable[[bytes], bool]:
    """Found where more of its bits agree with the mark than a file without one has by chance, once in a million.

    Source: Fernandez et al., ICCV 2023, on the test of agreeing bits.
    """
    try:
        import cv2
        from imwatermark import WatermarkDecoder
    except ImportError:
        raise MissingExtraError(
            "--decoder invisible-watermark needs its package: pip install 'responsible-auditor[watermarks]'."
        ) from None
    from scipy.stats import binom

    n = 8 * len(mark)
    least = int(binom.isf(_BY_CHANCE, n, 0.5)) + 1
    bits = np.unpackbits(np.frombuffer(mark, np.uint8)).astype(bool)

    def find(content: bytes) -> bool:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        # Smaller ones hold no mark of this method.
        if pixels is None or pixels.shape[0] * pixels.shape[1] < 256 * 256:
            return False
        found = np.asarray(WatermarkDecoder("bits", n).decode(pixels, "dwtDct"), bool)
        return int((found == bits).sum()) >= least

    return find


def _trustmark() -> Callable[[bytes], bool]:
    try:
        import PIL.Image
        from trustmark import TrustMark
    except ImportError:
        raise MissingExtraError(
            "--decoder trustmark needs its package: pip install 'responsible-auditor[watermarks]'."
        ) from None
    reader = TrustMark(verbose=False, model_type="Q")
    if reader.decoder is None:
        raise DataError(
            "--decoder trustmark has no weights: its package fetches them when it is first used, which the measuring "
            "process may not. Run this once where there is a network: python -c 'from trustmark import TrustMark; "
            "TrustMark()'."
        )

    def find(content: bytes) -> bool:
        try:
            with PIL.Image.open(BytesIO(content)) as picture:
                pixels = picture.convert("RGB")
        except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError):
            # Sound, video and what cannot be decoded hold no mark of this method.
            return False
        return bool(reader.decode(pixels)[1])

    return find
