"""What training on augmented pictures keeps of a detector: AUC and accuracy on new files, as they are and after JPEG.

Real pictures are crops of the two photographs that come with scikit-learn; synthetic ones are such crops at half their
size enlarged by one of three upsamplers, which is all there is of a generator. Detectors are trained on the left half
of the photographs and asked about the right one: unchanged, and compressed anew at quality 75. Calibration and rates
are of unchanged files either way. ``ratio`` is the accuracy after JPEG with augmentation over that without; all
figures are of ``SEEDS`` seeds.
"""

from __future__ import annotations

import tempfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

from auditor.statistics.rank_estimates import area_under_curve
from benchmarks.common import emit
from mitigations.deepfake.media_training import TrainingOptions, train_detector

SIDE, EACH, SEEDS, QUALITY = 96, 60, 3, 75


def pictures(part: slice, each: int, rng: np.random.Generator) -> list[tuple[npt.NDArray[np.uint8], str | None]]:
    """Crops of a part of the photographs' columns: real ones, and as many enlarged, each with its upsampler."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    made: list[tuple[npt.NDArray[np.uint8], str | None]] = []
    for photograph in load_sample_images().images:
        own = photograph[:, part]

        def crop(own: npt.NDArray[np.uint8] = own) -> Image.Image:
            x, y = (int(rng.integers(0, n - SIDE)) for n in (own.shape[1], own.shape[0]))
            return Image.fromarray(own[y : y + SIDE, x : x + SIDE])

        for i in range(each):
            name = ("nearest", "bilinear", "bicubic")[i % 3]
            large = crop().reduce(2).resize((SIDE, SIDE), Image.Resampling[name.upper()])
            made += [(np.asarray(crop()), None), (np.asarray(large), name)]
    return made


def compressed(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The picture after JPEG."""
    from PIL import Image

    file = BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=QUALITY)
    return np.asarray(Image.open(file).convert("RGB"))


def measured(augment: bool, seed: int) -> dict[str, float]:
    """AUC and balanced accuracy on new files, unchanged and compressed."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as where:
        known = pictures(slice(0, 400), EACH, rng)
        files = [Path(where) / f"{i}.png" for i in range(len(known))]
        for file, (picture, _) in zip(files, known, strict=True):
            Image.fromarray(picture).save(file)
        labels = ["real" if kind is None else "fake" for _, kind in known]
        options = TrainingOptions(augment=augment)
        detector = train_detector("image", files, labels, [kind for _, kind in known], options, rng)
    new = pictures(slice(400, 640), EACH, np.random.default_rng(1_000 + seed))
    is_fake = np.asarray([kind is not None for _, kind in new])
    found = {}
    for name, X in (
        ("unchanged", np.stack([picture for picture, _ in new])),
        ("jpeg", np.stack([compressed(picture) for picture, _ in new])),
    ):
        scores = detector.predict_proba(X)[:, detector.card.fake]
        found[f"auc_{name}"] = area_under_curve(positives=scores[is_fake], negatives=scores[~is_fake]).value
        said = scores >= 0.5
        found[f"accuracy_{name}"] = float((said[is_fake].mean() + 1.0 - said[~is_fake].mean()) / 2.0)
    return found


def main() -> None:
    """Runs the comparison and prints it."""
    means, taken = {}, {}
    for augment in (False, True):
        at = time.process_time()
        rounds = [measured(augment, seed) for seed in range(SEEDS)]
        taken[augment] = time.process_time() - at
        means[augment] = {name: float(np.mean([r[name] for r in rounds])) for name in rounds[0]}
    emit(
        "detector_augmentation",
        ours=taken[True],
        peer=taken[False],
        ratio=means[True]["accuracy_jpeg"] / means[False]["accuracy_jpeg"],
        bar=1.0,
        threads=1,
        **{f"{name}_plain": round(value, 3) for name, value in means[False].items()},
        **{f"{name}_augmented": round(value, 3) for name, value in means[True].items()},
    )


if __name__ == "__main__":
    main()
