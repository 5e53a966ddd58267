"""Writes pictures to try detection on: crops of two photographs, and the same after a generator's kind of upsampling.

media         real/ and fake/, to train on; media.csv names the upsampler and the photograph of each
new_media     the same from other parts of the photographs, to ask about and to audit on; new_media.csv likewise

The photographs come with scikit-learn. Generators draw small and enlarge, which leaves traces in the spectrum (Durall,
Keuper and Keuper, CVPR 2020); here the enlarging is all there is of a generator, so that the demo needs no network.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

SIDE = 96


def main(where: Path) -> int:
    """Writes the folders and tables; returns 2 where the extra is missing."""
    try:
        from PIL import Image
    except ImportError:
        print("Pictures need the extra 'images': pip install 'responsible-auditor[images]'", file=sys.stderr)
        return 2
    from sklearn.datasets import load_sample_images

    upsamplers = {name: Image.Resampling[name.upper()] for name in ("nearest", "bilinear", "bicubic")}
    photographs = dict(zip(("china", "flower"), load_sample_images().images, strict=True))
    rng = np.random.default_rng(0)

    def crop(name: str, part: slice) -> Image.Image:
        pixels = photographs[name][:, part]
        x, y = (rng.integers(0, n - SIDE) for n in (pixels.shape[1], pixels.shape[0]))
        return Image.fromarray(pixels[y : y + SIDE, x : x + SIDE])

    # Of 640 columns the left ones are trained on, so that no pixel is in both folders.
    for folder, part, each in (("media", slice(0, 400), 60), ("new_media", slice(400, 640), 30)):
        rows = [("file", "generator", "photograph")]
        for i in range(each):
            for name in photographs:
                by = list(upsamplers)[i % len(upsamplers)]
                small = crop(name, part).reduce(2)
                pictures = {"real": crop(name, part), "fake": small.resize((SIDE, SIDE), upsamplers[by])}
                for label, picture in pictures.items():
                    file = Path(label) / f"{name}{i}.png"
                    (where / folder / file).parent.mkdir(parents=True, exist_ok=True)
                    picture.save(where / folder / file)
                    rows.append((file.as_posix(), by if label == "fake" else "", name))
        with (where / f"{folder}.csv").open("w", newline="") as table:
            csv.writer(table).writerows(rows)
        print(f"Wrote {where / folder} ({len(rows) - 1} pictures).")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).parent))
