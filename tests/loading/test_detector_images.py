"""Detectors of images: their features against slow versions, their networks, their training and their bundles."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from scipy.signal import convolve2d
from torch import Tensor

from auditor.core.errors import DataError, ModelError, UsageError
from auditor.data.images_and_video import decode_as
from auditor.data.preprocessing import ImagePreprocessing
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
from auditor.loading.rows.media_files import load_images
from auditor.models.detector import DeepfakeDetector
from auditor.models.networks.architectures import ARCHITECTURES, RETIRED
from auditor.models.networks.detector_networks import (
    N_DCT,
    N_RESIDUAL,
    RESIDUALS,
    FrequencyDetector,
    block_dct,
    image_features,
    levels,
    luma,
    n_bins,
    n_image_features,
    radial_spectrum,
    residual_statistics,
)
from auditor.models.saved_models import save
from mitigations.deepfake.media_training import TrainingOptions, augmented, read_media, train_detector
from tests.quantifiers import all_of
from tests.toys.media_files import image_detector

PIL_Image = pytest.importorskip("PIL.Image", reason="images need Pillow")


def noise(n: int = 3, size: tuple[int, int] = (27, 32), seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    smooth = rng.normal(size=(n, 3, *size)).cumsum(axis=2).cumsum(axis=3)
    return torch.from_numpy(np.clip(128 + 6 * smooth + rng.normal(0, 4, smooth.shape), 0, 255))


# ---- features ------------------------------------------------------------------------------------------------------


def test_the_radial_spectrum_is_the_mean_power_over_rings() -> None:
    images = noise()
    grey = luma(images)
    rings = 13
    for picture, found in zip(grey.numpy(), radial_spectrum(grey, rings), strict=True):
        height, width = picture.shape
        window = np.outer(np.hanning(height), np.hanning(width))
        power = np.abs(np.fft.fft2((picture - picture.mean()) * window)) ** 2 / (window**2).sum()
        members: list[list[float]] = [[] for _ in range(rings)]
        for i in range(height):
            for j in range(width):
                y, x = (k / n if k < (n + 1) // 2 else k / n - 1 for k, n in ((i, height), (j, width)))
                if (i, j) != (0, 0):
                    ring = min(int(math.hypot(y, x) / math.sqrt(0.5) * rings), rings - 1)
                    members[ring].append(power[i, j])
        slow = [math.log((np.mean(m) if m else 0.0) + 1e-3) for m in members]
        np.testing.assert_allclose(found.numpy(), slow, atol=1e-6)


def test_a_wave_lies_in_its_ring_alone() -> None:
    x = torch.arange(64, dtype=torch.float64)
    wave = (100 * torch.sin(2 * math.pi * 16 / 64 * x)).expand(1, 64, 64)
    found = radial_spectrum(wave, 32)[0]
    assert int(found.argmax()) == int(0.25 / math.sqrt(0.5) * 32)


def test_block_dct_statistics_are_those_of_scipys_dct() -> None:
    grey = luma(noise())
    for picture, found in zip(grey.numpy(), block_dct(grey), strict=True):
        blocks = [
            dctn(picture[i : i + 8, j : j + 8], norm="ortho").ravel()[1:]
            for i in range(0, picture.shape[0] - 7, 8)
            for j in range(0, picture.shape[1] - 7, 8)
        ]
        c = np.asarray(blocks)
        size = np.log(np.abs(c).mean(axis=0) + 0.01)
        slow = np.concatenate([size, np.log((c**2).mean(axis=0) + 1e-4) - 2 * size])
        np.testing.assert_allclose(found.numpy(), slow, atol=1e-8)


def test_residual_statistics_are_those_of_convolutions() -> None:
    images = noise()
    grey = luma(images)
    first, third = np.array([[1.0, -1.0]]), np.array([[1.0, -3.0, 3.0, -1.0]])
    second = np.array([[1.0, -2.0, 1.0]])
    kernels = {"h1": first, "v1": first.T, "h2": second, "v2": second.T, "h3": third, "v3": third.T}
    kernels["h2v2"] = second.T @ second
    for k, found in enumerate(residual_statistics(images, grey)):
        slow = []
        for name in RESIDUALS:
            r = convolve2d(grey[k].numpy(), kernels[name], mode="valid")
            a, b = r.shape
            power = (r**2).mean()
            size = np.log(np.abs(r).mean() + 0.01)
            slow += [size, np.log(power + 1e-4) - 2 * size, np.log((r**4).mean() + 1e-8) - 2 * np.log(power + 1e-4)]
            slow.append(np.mean([r[i, j] * r[i, j + 1] for i in range(a) for j in range(b - 1)]) / (power + 1e-4))
            slow.append(np.mean([r[i, j] * r[i + 1, j] for i in range(a - 1) for j in range(b)]) / (power + 1e-4))
        for name in ("h2v2", "h1"):
            red, green, blue = (convolve2d(images[k, c].numpy(), kernels[name], mode="valid") for c in range(3))
            for one, other in ((red, green), (green, blue)):
                slow.append((one * other).mean() / np.sqrt(((one**2).mean() + 1e-4) * ((other**2).mean() + 1e-4)))
        np.testing.assert_allclose(found.numpy(), slow, atol=1e-8)


def test_the_features_have_a_gradient_and_stand_flat_pictures() -> None:
    images = noise().float().requires_grad_()
    (gradient,) = torch.autograd.grad(image_features(images).sum(), images)
    assert torch.isfinite(gradient).all() and gradient.abs().amax() > 0
    flat = torch.full((2, 3, 16, 16), 255.0, requires_grad=True)
    found = image_features(flat)
    assert found.shape == (2, n_bins(16) + N_DCT + N_RESIDUAL) == (2, n_image_features(16))
    (gradient,) = torch.autograd.grad(found.sum(), flat)
    assert torch.isfinite(found).all() and torch.isfinite(gradient).all()


# ---- networks ------------------------------------------------------------------------------------------------------


def test_the_network_does_not_mix_rows_and_can_be_differentiated() -> None:
    network: torch.nn.Module = FrequencyDetector(24, fake=0)
    torch.manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x = (noise(5, (24, 24)).float() / 127.5 - 1.0).requires_grad_()
    logits = network.eval()(x)
    assert logits.shape == (5, 2)
    torch.testing.assert_close(network(x[2:3]), logits[2:3], rtol=1e-4, atol=1e-4)
    assert network.features(x).ndim == 2  # type: ignore[operator]
    (gradient,) = torch.autograd.grad((logits[:, 0] - logits[:, 1]).sum(), x)
    assert torch.isfinite(gradient).all() and (gradient.abs().amax(dim=(1, 2, 3)) > 0).all()


def test_networks_are_in_the_closed_table_and_built_without_memory() -> None:
    arguments = {
        "frequency_detector": {"size": 32, "fake": 1},
        "encoder_probe": {"form": 0, "n_mebibytes": 3, "n_features": 4},
    }
    for name, args in arguments.items():
        with torch.device("meta"):
            network = ARCHITECTURES[name](**args)
        assert all_of(t.device.type == "meta" for t in network.state_dict().values())


@pytest.mark.parametrize("name", RETIRED)
def test_a_detector_of_a_kind_that_is_gone_is_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    detector = image_detector()
    detector.architecture = {"name": name, "args": {"width": 4, "n_groups": 1}}
    save(detector, tmp_path / "old.pt")
    with pytest.raises(ModelError, match=rf"^'old.pt' is a detector of a kind .*\({name}\): train one anew") as refused:
        load_model(ModelSpec(path=str(tmp_path / "old.pt")))
    assert refused.value.code == "AUD-LOAD-ARCHITECTURE"


# ---- how pictures become input -------------------------------------------------------------------------------------


def encoded(pixels: np.ndarray, form: str = "PNG") -> bytes:
    from io import BytesIO

    out = BytesIO()
    PIL_Image.fromarray(pixels).save(out, form)
    return out.getvalue()


def test_crop_keeps_pixels_and_the_grid_of_a_jpeg() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (61, 83, 3)).astype(np.uint8)
    found = decode_as(encoded(picture), "p.png", ImagePreprocessing(size=(24, 32), fit="crop"))
    # The middle begins at (18, 25), which lies in the block that begins at (16, 24).
    np.testing.assert_array_equal(found, picture[16:40, 24:56])


def test_crop_mirrors_a_picture_that_is_too_small() -> None:
    picture = np.arange(10 * 20 * 3, dtype=np.uint8).reshape(10, 20, 3)
    found = decode_as(encoded(picture), "p.png", ImagePreprocessing(size=(24, 16), fit="crop"))
    np.testing.assert_array_equal(found[:10], picture[:, 0:16])
    np.testing.assert_array_equal(found[10:20], picture[::-1, 0:16])
    np.testing.assert_array_equal(found[20:24], picture[:4, 0:16])


def test_cover_keeps_proportions() -> None:
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, 20:60] = 255
    found = decode_as(encoded(picture), "p.png", ImagePreprocessing(size=(20, 20), fit="cover"))
    # The middle 40 of 80 columns, all of them white.
    assert found.shape == (20, 20, 3) and found.min() > 200
    stretched = decode_as(encoded(picture), "p.png", ImagePreprocessing(size=(20, 20)))
    assert stretched[:, :3].max() < 50


def test_bundles_written_before_there_were_fits_are_read_as_they_were() -> None:
    assert ImagePreprocessing.model_validate({"kind": "image", "size": [4, 4]}).fit == "stretch"


def test_grey_pictures_are_read_under_every_fit() -> None:
    data = encoded(np.arange(400, dtype=np.uint8).reshape(20, 20))
    for fit in ("crop", "cover", "stretch"):
        one = ImagePreprocessing(size=(32, 8), mean=(0.5,), std=(0.5,), fit=fit)
        assert decode_as(data, "g.png", one).shape == (32, 8, 1)


# ---- training ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smooth pictures; the synthetic ones of two generators, enlarged from half and from a third of their size."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for kind, factor in (("real", 1), ("gan", 2), ("flow", 3)):
        (root / kind).mkdir()
        for i in range(24 if factor == 1 else 12):
            side = 48 // factor
            shapes = rng.normal(size=(side + 8, side + 8, 3)).cumsum(axis=0).cumsum(axis=1)[8:, 8:]
            shapes = 128 + 40 * (shapes - shapes.mean()) / shapes.std() + rng.normal(0, 3, shapes.shape)
            picture = PIL_Image.fromarray(np.clip(shapes, 0, 255).astype(np.uint8)).resize((48, 48), 2)
            picture.save(root / kind / f"{i:02d}.png")
    return root


def listed(folder: Path) -> tuple[list[Path], list[str], list[str | None]]:
    files = sorted(folder.glob("*/*.png"))
    kinds = [None if f.parent.name == "real" else f.parent.name for f in files]
    return files, ["real" if k is None else "fake" for k in kinds], kinds


@pytest.mark.slow
def test_a_trained_detector_knows_its_rates_and_survives_its_bundle(folder: Path, tmp_path: Path) -> None:
    files, labels, kinds = listed(folder)
    detector = train_detector("image", files, labels, kinds, TrainingOptions(), np.random.default_rng(0))
    assert detector.classes == ("fake", "real") and detector.card.fake == 0
    assert isinstance(detector.preprocessing, ImagePreprocessing) and detector.preprocessing.size == (48, 48)
    rates = {(r.metric, r.kind, r.unseen): r.value for r in detector.card.known_rates}
    assert rates["auc", None, False] > 0.95
    assert {("auc", "gan", True), ("auc", "flow", True)} <= set(rates)
    save(detector, tmp_path / "d.pt")
    again = load_model(ModelSpec(path=str(tmp_path / "d.pt")))
    assert isinstance(again, DeepfakeDetector) and again.card == detector.card
    X = load_images(folder, [f.relative_to(folder).as_posix() for f in files], again)
    assert again.verdicts(X) == detector.verdicts(X)
    # It has seen these; out of fold it was calibrated.
    fake = np.asarray(labels) == "fake"
    assert (again.predict_proba(X)[:, 0] > 0.5)[fake].mean() > 0.7


def test_pictures_are_augmented_by_their_seed_and_by_halves(folder: Path) -> None:
    X = np.stack([np.asarray(PIL_Image.open(f)) for f in listed(folder)[0]] * 4)
    first, again, other = (augmented(X, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first.shape == X.shape and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    untouched = [(made == X).all(axis=(1, 2, 3)).mean() for made in (first, other)]
    # One in eight is spared by all three.
    assert 0.05 < min(untouched) <= max(untouched) < 0.25 and not np.array_equal(first, other)
    # Blur and resizing take noise away.
    assert np.abs(np.diff(first.astype(float), axis=1)).mean() < 0.8 * np.abs(np.diff(X.astype(float), axis=1)).mean()


def test_a_detector_is_trained_on_augmented_pictures_and_calibrated_on_none(folder: Path) -> None:
    files, labels, kinds = listed(folder)
    found = {
        augment: train_detector(
            "image", files, labels, kinds, TrainingOptions(augment=augment), np.random.default_rng(0)
        )
        for augment in (True, False)
    }
    images = read_media("image", files, TrainingOptions(), np.random.default_rng(0))
    assert images.changed is not None and images.changed.shape == images.features.shape
    assert read_media("image", files, TrainingOptions()).changed is None
    assert [any("a second time" in note for note in found[a].card.notes) for a in (True, False)] == [True, False]
    weights = [found[a].module.head.weight for a in (True, False)]  # type: ignore[union-attr]
    assert not torch.equal(weights[0], weights[1])
    assert len(found[True].card.real_scores) == len(found[False].card.real_scores) == labels.count("real")


def test_the_same_seed_trains_the_same_detector(folder: Path) -> None:
    files, labels, kinds = listed(folder)
    options = TrainingOptions()
    before = torch.get_rng_state()
    made = [train_detector("image", files, labels, kinds, options, np.random.default_rng(5)) for _ in range(2)]
    assert torch.equal(before, torch.get_rng_state())
    assert made[0].card == made[1].card
    for a, b in zip(made[0].module.state_dict().values(), made[1].module.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_files_that_cannot_be_read_are_named(folder: Path, tmp_path: Path) -> None:
    files, labels, kinds = listed(folder)
    (tmp_path / "cut.png").write_bytes(files[0].read_bytes()[:100])
    (tmp_path / "empty.png").touch()
    more = [*files, tmp_path / "cut.png", tmp_path / "empty.png"]
    found = read_media("image", more, TrainingOptions())
    assert len(found.rows) == len(files) == len(found.features) and found.features.shape[1] == n_image_features(48)
    assert len(found.problems) == 2 and "'empty.png' cannot be decoded: it is an empty file" in found.problems[1]
    with pytest.raises(DataError, match="2 of 50 files cannot be trained on: mend or remove them.*'cut.png'"):
        train_detector(
            "image", more, [*labels, "fake", "real"], [*kinds, None, None], TrainingOptions(), np.random.default_rng(0)
        )


def test_small_pictures_decide_how_much_is_looked_at(folder: Path, tmp_path: Path) -> None:
    files, _, _ = listed(folder)
    PIL_Image.fromarray(np.zeros((37, 90, 3), np.uint8)).save(tmp_path / "small.png")
    found = read_media("image", [files[0], tmp_path / "small.png"], TrainingOptions())
    assert found.preprocessing == ImagePreprocessing(size=(32, 32), fit="crop")
    PIL_Image.fromarray(np.zeros((9, 90, 3), np.uint8)).save(tmp_path / "tiny.png")
    with pytest.raises(DataError, match="9 pixels are too small for a detector: it takes at least 16"):
        read_media("image", [files[0], tmp_path / "tiny.png"], TrainingOptions())


@pytest.mark.parametrize(
    ("labels", "options", "words"),
    [
        (["a", "b"], TrainingOptions(), "Which of a and b is synthetic is not clear"),
        (["real", "real"], TrainingOptions(), "there are 1: real"),
        (["real", "fake"], TrainingOptions(fake="gan"), "'gan' is none of fake and real"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(
    folder: Path, labels: list[str], options: TrainingOptions, words: str
) -> None:
    files = [folder / "real" / "00.png", folder / "gan" / "00.png"]
    with pytest.raises(UsageError, match=words):
        train_detector("image", files, labels, [None, None], options, np.random.default_rng(0))


def test_levels_undo_the_encoding() -> None:
    X = np.arange(2 * 16 * 16 * 3, dtype=np.uint8).reshape(2, 16, 16, 3)
    x = torch.from_numpy(ImagePreprocessing(size=(16, 16)).encode(X))
    np.testing.assert_allclose(levels(x).numpy().transpose(0, 2, 3, 1), X, atol=1e-4)
