"""Heads on frozen encoders: ONNX files, and transformers folders, and what they cannot do."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from auditor.core.errors import MissingExtraError, ModelError, NotApplicableError, UnsafeModelError, UsageError
from auditor.data.audit_data import AuditData
from auditor.loading.auxiliary_models import CLIP_MEAN, read_encoder
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
from auditor.loading.rows.media_files import load_images
from auditor.models.detector import DeepfakeDetector
from auditor.models.networks.encoders import FORMS, EncoderProbe, encoder_of, hold, mebibytes
from auditor.models.saved_models import save
from mitigations.deepfake.media_training import TrainingOptions, train_detector
from probes.probe_inputs import differentiable
from probes.robustness.robustness import Robustness
from tests.toys.classifiers import RATE, SAMPLES, save_onnx, save_wav2vec2
from tests.toys.media_files import as_wav

PIL_Image = pytest.importorskip("PIL.Image", reason="images need Pillow")
SIDE = 8


# ---- an ONNX file by hand: the mean of each colour -----------------------------------------------------------------


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes([*out, n])


def _number(field: int, n: int) -> bytes:
    return _varint(field << 3) + _varint(n)


def _part(field: int, content: bytes | str) -> bytes:
    data = content.encode() if isinstance(content, str) else content
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _value(name: str, shape: tuple[int | str, ...]) -> bytes:
    dims = b"".join(_part(1, _part(2, d) if isinstance(d, str) else _number(1, d)) for d in shape)
    return _part(1, name) + _part(2, _part(1, _number(1, 1) + _part(2, dims)))


def colour_means(side: int | str = SIDE) -> bytes:
    """An ONNX model that averages each channel of images (n, 3, side, side)."""
    node = _part(1, "pixel_values") + _part(2, "image_embeds") + _part(4, "GlobalAveragePool")
    graph = _part(1, node) + _part(2, "colours")
    graph += _part(11, _value("pixel_values", ("n", 3, side, side)))
    graph += _part(12, _value("image_embeds", ("n", 3, 1, 1)))
    return _number(1, 8) + _part(7, graph) + _part(8, _number(2, 13))


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime", reason="ONNX encoders need onnxruntime")
    path = tmp_path_factory.mktemp("onnx") / "colours.onnx"
    path.write_bytes(colour_means())
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reddish real pictures, bluish synthetic ones of two generators."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for kind, colour in (("real", (150, 110, 100)), ("gan", (110, 110, 150)), ("flow", (100, 130, 140))):
        (root / kind).mkdir()
        for i in range(20):
            pixels = np.clip(rng.normal(colour, 8, (1, 1, 3)) + rng.normal(0, 10, (20, 30, 3)), 0, 255)
            PIL_Image.fromarray(pixels.astype(np.uint8)).save(root / kind / f"{i:02d}.png")
    return root


def trained(pictures: Path, encoder: str, **options: object) -> tuple[DeepfakeDetector, list[Path]]:
    files = sorted(pictures.glob("*/*.png"))
    kinds = [None if f.parent.name == "real" else f.parent.name for f in files]
    labels = ["real" if k is None else "fake" for k in kinds]
    own = TrainingOptions(encoder=encoder, **options)  # type: ignore[arg-type]
    return train_detector("image", files, labels, kinds, own, np.random.default_rng(0)), files


def rows(pictures: Path, files: list[Path], detector: DeepfakeDetector) -> np.ndarray:
    return load_images(pictures, [f.relative_to(pictures).as_posix() for f in files], detector)


# ---- ONNX ----------------------------------------------------------------------------------------------------------


def test_the_features_of_an_onnx_file_are_its_outputs_of_length_one(onnx_file: Path) -> None:
    encoder = read_encoder(str(onnx_file))
    assert encoder.n_features == 3 and encoder.preprocessing.size == (SIDE, SIDE)
    assert encoder.preprocessing.mean == CLIP_MEAN and encoder.preprocessing.fit == "cover"
    assert "does not say how colours are scaled" in encoder.notes[0]
    probe = EncoderProbe(encoder.form, mebibytes(encoder.content), 3)
    hold(probe, encoder.content)
    x = torch.rand(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    slow = x.mean(dim=(2, 3)).numpy()
    np.testing.assert_allclose(probe.features(x).numpy(), slow / np.linalg.norm(slow, axis=1, keepdims=True), rtol=1e-5)


def test_colours_are_scaled_as_a_file_beside_the_encoder_says(onnx_file: Path, tmp_path: Path) -> None:
    (tmp_path / "e.onnx").write_bytes(onnx_file.read_bytes())
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1]}')
    encoder = read_encoder(str(tmp_path / "e.onnx"))
    assert encoder.preprocessing.mean == (0.5, 0.4, 0.3) and not encoder.notes
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": 3}')
    with pytest.raises(ModelError, match="preprocessor_config.json.*three numbers"):
        read_encoder(str(tmp_path / "e.onnx"))


def test_a_detector_on_an_onnx_encoder_carries_it_in_its_bundle(
    onnx_file: Path, pictures: Path, tmp_path: Path
) -> None:
    detector, files = trained(pictures, str(onnx_file))
    save(detector, tmp_path / "d.pt")
    again = load_model(ModelSpec(path=str(tmp_path / "d.pt")))
    assert isinstance(again, DeepfakeDetector) and again.card == detector.card
    X = rows(pictures, files, again)
    assert again.verdicts(X) == detector.verdicts(X)
    fake = np.asarray([f.parent.name != "real" for f in files])
    assert ((again.predict_proba(X)[:, 0] > 0.5) == fake).mean() > 0.9
    rates = {(r.metric, r.kind): r.value for r in detector.card.known_rates if r.unseen}
    assert rates["auc", "gan"] > 0.9 and rates["auc", "flow"] > 0.9
    copied = copy.deepcopy(again.module)
    torch.testing.assert_close(copied(again.encode(X[:3])), again.module(again.encode(X[:3])))


def test_onnx_encoders_claim_no_gradient(onnx_file: Path, pictures: Path) -> None:
    detector, files = trained(pictures, str(onnx_file))
    assert differentiable(detector) is None
    X = rows(pictures, files, detector)
    y = np.asarray([0 if f.parent.name != "real" else 1 for f in files])
    data = AuditData(X=X, y_true=y, classes=detector.classes, positive=1)
    with pytest.raises(NotApplicableError, match="pgd needs a model that can be differentiated"):
        Robustness(methods="pgd").measure(detector, data, np.random.default_rng(0))
    found = Robustness(n_samples=10).measure(detector, data, np.random.default_rng(0))
    assert found and {m.method for m in found} == {"", "noise", "corruption", "black_box"}


def test_what_is_no_onnx_file_is_refused_in_words(tmp_path: Path, onnx_file: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"\x08\x08nothing of the kind")
    with pytest.raises(ModelError, match="no ONNX file that can be used"):
        read_encoder(str(tmp_path / "no.onnx"))
    with pytest.raises(UsageError, match="absent.onnx"):
        read_encoder(str(tmp_path / "absent.onnx"))
    encoder = encoder_of("onnx", onnx_file.read_bytes())
    with pytest.raises(ModelError, match="cannot take an input of shape"):
        encoder(torch.zeros(1, 3, SIDE + 1, SIDE))


def test_a_missing_onnxruntime_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "e.onnx").write_bytes(colour_means())
    with pytest.raises(MissingExtraError, match=r"pip install 'responsible-auditor\[onnx\]'"):
        read_encoder(str(tmp_path / "e.onnx"))


# ---- torch ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8
    )
    root = tmp_path_factory.mktemp("vit")
    ViTModel(config).save_pretrained(root)
    (root / "preprocessor_config.json").write_text(
        json.dumps({"size": {"height": 16, "width": 16}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    )
    return root


def test_a_transformers_folder_is_an_encoder_with_gradients(vit_folder: Path, pictures: Path, tmp_path: Path) -> None:
    from transformers import ViTModel

    detector, files = trained(pictures, str(vit_folder))
    save(detector, tmp_path / "d.pt")
    again = load_model(ModelSpec(path=str(tmp_path / "d.pt")))
    assert isinstance(again, DeepfakeDetector)
    X = rows(pictures, files, again)
    np.testing.assert_allclose(again.predict_proba(X), detector.predict_proba(X), atol=1e-5)
    assert differentiable(again) is again
    x = again.encode(X[:2]).requires_grad_()
    (gradient,) = torch.autograd.grad(again.logits(x)[:, 0].sum(), x)
    assert torch.isfinite(gradient).all() and gradient.abs().amax() > 0
    peer = ViTModel.from_pretrained(vit_folder).eval()
    with torch.no_grad():
        expected = torch.nn.functional.normalize(peer(pixel_values=x).pooler_output, dim=1)
        torch.testing.assert_close(again.module.features(x), expected, rtol=1e-4, atol=1e-5)  # type: ignore[operator]


def test_a_folder_that_is_no_vision_encoder_is_refused(vit_folder: Path, tmp_path: Path) -> None:
    for file in vit_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    settings = json.loads((vit_folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"architectures": ["BertModel"]}))
    with pytest.raises(ModelError, match="none of transformers' own encoders of images or sound"):
        read_encoder(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(settings | {"auto_map": {"AutoModel": "code.Model"}}))
    with pytest.raises(UnsafeModelError, match="names code"):
        read_encoder(str(tmp_path))
    (tmp_path / "config.json").unlink()
    with pytest.raises(ModelError, match="no config.json"):
        read_encoder(str(tmp_path))


# ---- sound ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Noise, which is real, and two synthetic tones in noise."""
    root = tmp_path_factory.mktemp("recordings")
    rng, t = np.random.default_rng(0), np.arange(2 * SAMPLES) / RATE
    for kind, hertz in (("real", 0), ("low", 100), ("high", 150)):
        for i in range(20):
            wave = rng.normal(0, 800, t.size) + 6000 * np.sin(2 * np.pi * hertz * t) * (hertz > 0)
            path = root / f"{kind}-{i:02d}.wav"
            path.write_bytes(as_wav(wave.astype(np.int16), RATE))
    return sorted(root.iterdir())


def trained_on_sound(files: list[Path], encoder: Path) -> DeepfakeDetector:
    kinds = [None if (kind := f.name.partition("-")[0]) == "real" else kind for f in files]
    labels = ["real" if kind is None else "fake" for kind in kinds]
    options = TrainingOptions(encoder=str(encoder), seconds=SAMPLES / RATE)
    return train_detector("speech", files, labels, kinds, options, np.random.default_rng(0))


@pytest.mark.parametrize("name", ["Wav2Vec2Model", "HubertModel", "Wav2Vec2ForSequenceClassification"])
def test_a_transformer_of_samples_is_an_encoder_of_sound(name: str, recordings: list[Path], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    whole = save_wav2vec2(tmp_path)
    if name != "Wav2Vec2ForSequenceClassification":
        kind = getattr(transformers, name)
        own = kind.config_class(
            **{k: v for k, v in whole.config.to_dict().items() if k not in ("model_type", "id2label", "label2id")}
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            whole = kind(own).eval()
        whole.save_pretrained(tmp_path)
    detector = trained_on_sound(recordings, tmp_path)
    save(detector, tmp_path / "d.pt")
    again = load_model(ModelSpec(path=str(tmp_path / "d.pt")))
    assert isinstance(again, DeepfakeDetector) and again.card.medium == "speech"
    assert "features of a frozen encoder" in " ".join(detector.card.notes)
    X = np.stack([np.frombuffer(f.read_bytes()[44:], np.int16)[:SAMPLES] for f in recordings[::10]])
    np.testing.assert_allclose(again.predict_proba(X), detector.predict_proba(X), atol=1e-5)
    x = torch.from_numpy(X / 32768.0).float()
    extract = transformers.Wav2Vec2FeatureExtractor(sampling_rate=RATE, do_normalize=True)
    scaled = torch.from_numpy(np.stack(extract(list(x.numpy()), sampling_rate=RATE)["input_values"]))
    with torch.no_grad():
        vectors = whole(scaled, output_hidden_states=True).hidden_states[-1].mean(dim=1)
        expected = torch.nn.functional.normalize(vectors, dim=1)
        torch.testing.assert_close(again.module.features(x), expected, rtol=1e-3, atol=1e-4)  # type: ignore[operator]


def test_an_onnx_graph_of_samples_is_an_encoder_of_sound_and_none_of_images(
    recordings: list[Path], tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX encoders need onnxruntime")
    save_onnx(tmp_path / "e.onnx", sound=True)
    detector = trained_on_sound(recordings, tmp_path / "e.onnx")
    scores = detector.predict_proba(
        np.stack([np.frombuffer(f.read_bytes()[44:], np.int16)[:SAMPLES] for f in recordings])
    )[:, 0]
    is_real = np.asarray([f.name.startswith("real") for f in recordings])
    assert scores[is_real].mean() != pytest.approx(scores[~is_real].mean(), abs=0.2)
    save_onnx(tmp_path / "p.onnx")
    (tmp_path / "preprocessor_config.json").write_text('{"sampling_rate": 8000}')
    with pytest.raises(ModelError, match="takes images, and the detector is for sound"):
        read_encoder(str(tmp_path / "p.onnx"), seconds=1.0)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="must say sampling_rate"):
        read_encoder(str(tmp_path / "e.onnx"), seconds=1.0)
    with pytest.raises(ModelError, match="takes sound, and the detector is for images"):
        read_encoder(str(tmp_path / "e.onnx"))


# ---- hostile bundles -----------------------------------------------------------------------------------------------


def test_an_encoder_that_does_not_say_what_it_is_is_refused() -> None:
    import safetensors.torch

    content = safetensors.torch.save({"w": torch.zeros(2)}, {"form": "transformers"})
    probe = EncoderProbe(FORMS.index("transformers"), mebibytes(content), 2)
    hold(probe, content)
    with pytest.raises(ModelError, match="does not say which network"):
        probe(torch.zeros(1, 3, 8, 8))
    hold(probe, b"\xff" * 100)
    with pytest.raises(ModelError, match="safetensors"):
        probe(torch.zeros(1, 3, 8, 8))


def test_an_encoder_of_another_width_than_its_head_is_refused(onnx_file: Path) -> None:
    content = onnx_file.read_bytes()
    probe = EncoderProbe(0, 1, 5)
    hold(probe, content)
    with pytest.raises(ModelError, match="gives 3 features, and the detector's head takes 5"):
        probe(torch.zeros(1, 3, SIDE, SIDE))


def test_the_form_is_one_of_the_known_ones() -> None:
    with pytest.raises(ValueError, match="0 to 1"):
        EncoderProbe(2, 1, 2)
