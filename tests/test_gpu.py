"""What holds on a GPU: every network in every precision, the processor's maps, resuming, one seed, no waiting."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from torch.utils.data import DataLoader

from benchmarks.gpu_steps import PLAIN, Case, Step, Way, autocast, set_flags, settle_norms
from safn import ConfusionMatrix, backbones, inference, training
from safn.baseline import PlainClassifier, grad_cam
from safn.data import VOCFolder
from safn.inference import multi_scale_maximum
from safn.loading import Augmentation, EpochSampler, PlainSet, TrainingSet, plain_loader, training_loader
from safn.network import SAFN
from safn.segmentation import DeepLab

DEVICE = "cuda"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")]

BACKBONES = list(backbones.BACKBONES)
NETWORKS = [
    *(("attention", b) for b in BACKBONES),
    ("max", "vgg16"),
    ("avg", "vgg16"),
    *(("plain", b) for b in BACKBONES),
    *((head, b) for head in ("largefov", "aspp") for b in BACKBONES),
]
# ResNet-101 with random weights enlarges each rounding a hundredfold, on one processor too
OF_MAPS = [n for n in NETWORKS[:5] if n[1] != "resnet101"]
# largest difference of a map in 0..1 to that of the processor in float32, by what the GPU computes in: three times what
# an H200 had, which results/gpu.json lists
OF_A_MAP = {"float32": 1.5e-5, "tf32": 1.3e-2, "bf16": 0.12}


@pytest.fixture(autouse=True)
def as_it_was():
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield
    set_flags(Way("tf32", deterministic=deterministic))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.backends.cuda.matmul.allow_tf32 = False  # PyTorch's default: convolutions alone take TF32


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
@pytest.mark.parametrize("network, backbone", NETWORKS)
def test_every_network_takes_a_step_with_finite_gradients(network, backbone, precision, record_property):
    step = Step(Case(network, 97, 2, backbone), Way(precision, channels_last=True), DEVICE)
    before = {n: p.detach().clone() for n, p in step.network.named_parameters()}
    for _ in range(20):  # float16 begins with a scale that overflows, and halves it
        loss, gradients = step(), [p.grad for p in step.network.parameters() if p.requires_grad]
        assert loss.isfinite() and all(g is not None for g in gradients)
        if all(g.isfinite().all() for g in gradients):
            break
    else:
        pytest.fail("no scale gives finite gradients in float16")
    if precision == "fp16":
        record_property("scale", step.scaler.get_scale())
        assert step.scaler.get_scale() >= 1
    changed = [not torch.equal(p, before[n]) for n, p in step.network.named_parameters()]
    assert any(changed) and all(p.isfinite().all() for p in step.network.parameters())


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(2, 3, 8, 8, generator=generator)
    return torch.nn.functional.interpolate(coarse, (128, 128), mode="bicubic")


@pytest.mark.parametrize("precision", OF_A_MAP)
@pytest.mark.parametrize("aggregation, backbone", OF_MAPS)
def test_maps_are_those_of_the_processor(aggregation, backbone, precision, images, record_property):
    torch.manual_seed(0)
    network = SAFN(backbone, 5, aggregation=aggregation, weights="none", attention_start="random").eval()
    settle_norms(network, images)
    way = Way(precision)
    set_flags(way)
    with torch.inference_mode():
        peaks = network.features(images).amax((2, 3))
        labels = (peaks > peaks.max() / 3).float()  # the map of a class that is hardly anywhere is rounding, enlarged
        expected = network.maps(images, labels)
        network = inference.on_device(network, "gpu" if DEVICE == "cuda" else DEVICE)
        with autocast(way, DEVICE):
            found = network.maps(images.to(DEVICE), labels.to(DEVICE)).cpu()
    assert expected.amax((2, 3)).max() == 1  # not all maps are empty
    difference = (found - expected).abs().max().item()
    record_property("largest difference", difference)
    assert found.dtype == torch.float32 and difference < OF_A_MAP[precision]


def test_the_multi_scale_test_gives_the_probabilities_of_the_processor(images, record_property):
    torch.manual_seed(0)
    network = DeepLab("vgg16", "largefov", 4, weights="none", head_width=64).eval()
    set_flags(PLAIN)
    expected = multi_scale_maximum(network, images[:1], (0.5, 0.75, 1, 1.25, 1.5), flip=True)
    found = multi_scale_maximum(network.to(DEVICE), images[:1].to(DEVICE), (0.5, 0.75, 1, 1.25, 1.5), flip=True)
    record_property("largest difference", (found - expected).abs().max().item())
    assert found.device.type == "cpu"
    torch.testing.assert_close(found, expected, atol=3e-7, rtol=0)


def test_grad_cam_gives_the_maps_of_the_processor(images, record_property):
    torch.manual_seed(0)
    network = PlainClassifier("vgg16", 3, weights="none").eval()
    labels = torch.tensor([[1.0, 0, 1]])
    set_flags(PLAIN)
    expected = grad_cam(network, network.backbone[-1], images[:1], labels)
    network = network.to(DEVICE)
    found = grad_cam(network, network.backbone[-1], images[:1].to(DEVICE), labels.to(DEVICE)).cpu()
    record_property("largest difference", (found - expected).abs().max().item())
    assert expected.max() > 0.9
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_maps_and_predictions_of_a_folder_score_as_on_the_processor(tiny_voc, tmp_path, record_property):
    folder = VOCFolder(tiny_voc)
    ids = folder.ids("val")
    torch.manual_seed(0)
    classifier = SAFN("vgg16", 3, weights="none").eval()
    segmenter = DeepLab("vgg16", "largefov", 4, weights="none", head_width=64).eval()
    torch.nn.init.normal_(segmenter.head[-1].weight, std=1.0)  # so that the classes differ
    set_flags(PLAIN)
    scores, masks = {}, {}
    for device in ("cpu", DEVICE):
        out = tmp_path / ("gpu" if masks else "processor")
        samples = PlainSet(folder, ids, backbones.IMAGENET)
        inference.write_maps(classifier.to(device), samples, out / "maps")
        inference.predict(segmenter.to(device), backbones.IMAGENET, folder.photos(ids), out / "masks", (0.75, 1.0))
        matrix = ConfusionMatrix(4)
        for i in ids:
            matrix.update(np.asarray(Image.open(out / "masks" / f"{i}.png")), folder.mask(i))
        masks[out.name], scores[out.name] = matrix.matrix, matrix.miou()
        assert {p.stem for p in (out / "maps").iterdir()} == set(ids)
    moved = np.abs(masks["gpu"] - masks["processor"]).sum() / 2 / masks["processor"].sum()
    record_property("share of the pixels of another class", moved)
    assert moved < 0.001 and scores["gpu"] == pytest.approx(scores["processor"], abs=0.001)


PRECISIONS = ["32-true", "bf16-mixed", "16-mixed"]
ACCELERATOR = "gpu" if DEVICE == "cuda" else DEVICE


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_loss_of_nan_stops_and_the_resumed_run_equals_the_uninterrupted_one(tmp_path, precision, record_property):
    options = {"accelerator": ACCELERATOR, "precision": precision}
    expected, whole = tiny.train(tmp_path / "whole", **options)
    with pytest.raises(FloatingPointError, match=r"loss is nan in epoch 2, step \d+, images .*\bimage_5\b") as error:
        tiny.train(tmp_path / "stopped", samples=tiny.Samples(spoilt=(2, 5)), **options)
    assert str(error.value).count("image_") == 2  # the first batch that failed, though it is seen later
    state = torch.load(tmp_path / "stopped" / "last.ckpt", weights_only=True)
    assert state["epoch"] == 1 and state["global_step"] == 8
    log, resumed = tiny.train(tmp_path / "stopped", **options)
    pairs = [(t, resumed.state_dict()[name]) for name, t in whole.state_dict().items()]
    record_property("largest difference", max((a - b).abs().max().item() for a, b in pairs))
    assert log == expected
    assert all(torch.equal(a, b) for a, b in pairs)


def validation(kind: str) -> DataLoader | None:
    return tiny.plain_batches(tiny.Samples(2, side=96)) if kind == "SAFN" else None


def classes(kind: str) -> list[str]:
    return tiny.CLASSES if kind == "SAFN" else tiny.CLASSES[:2]


def options_of(precision: str, learning_rate: float = 1e-4) -> training.TrainingOptions:
    return tiny.options(epochs=1, learning_rate=learning_rate, precision=precision, accelerator=ACCELERATOR)


def few_steps(kind: str, folder, precision: str) -> tuple[float, dict[str, torch.Tensor]]:
    """Train SAFN or DeepLab with VGG16 for six steps; returns the loss and the weights."""
    training.seed_everything(0)
    options = options_of(precision, 1e-3)
    if kind == "SAFN":
        module = training.Classifier(SAFN("vgg16", 3, weights="none", attention_start="random"), options)
    else:
        module = training.Segmenter(DeepLab("vgg16", kind, 3, weights="none", head_width=64), options)
    batches = tiny.training_batches(tiny.Samples(12, side=96))
    folder.mkdir()
    (row,) = training.fit(module, batches, validation(kind), folder=folder, classes=classes(kind))
    return row["loss"], {name: t.cpu() for name, t in module.network.state_dict().items()}


@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])
@pytest.mark.parametrize("kind", ["SAFN", "largefov"])
def test_two_runs_of_one_seed_agree(kind, precision, tmp_path, record_property):
    (first, a), (second, b) = (few_steps(kind, tmp_path / name, precision) for name in ("first", "second"))
    difference = max(((t - b[n]).abs().max() / t.abs().max().clamp(min=1e-12)).item() for n, t in a.items())
    record_property("largest difference of a weight, of the largest of its layer", difference)
    record_property("losses", f"{first:.9g} {second:.9g}")
    exact = (kind, precision) == ("SAFN", "32-true")  # an H200 showed it; the other cases did not run there
    assert first == pytest.approx(second, rel=0 if exact else 1e-4)
    assert difference <= (0 if exact else 1e-3)


class Watched:
    """Lists what waits for the GPU from the third step to the last: mixed into a training."""

    last = 10

    def on_train_batch_start(self, batch, index):
        super().on_train_batch_start(batch, index)
        if DEVICE == "cuda" and index in (2, self.last):
            torch.cuda.set_sync_debug_mode("warn" if index == 2 else "default")


class WatchedClassifier(Watched, training.Classifier):
    pass


class WatchedSegmenter(Watched, training.Segmenter):
    pass


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", ["SAFN", "largefov"])
def test_no_step_waits_for_the_gpu(kind, precision, tmp_path, record_property):
    training.seed_everything(0)
    if kind == "SAFN":
        network = SAFN("vgg16", 3, weights="none", attention_start="random")
        module = WatchedClassifier(network, options_of(precision))
    else:
        network = DeepLab("vgg16", "largefov", 3, weights="none", head_width=64)
        module = WatchedSegmenter(network, options_of(precision))
    samples = tiny.Samples(24, side=96)
    batches = DataLoader(samples, 2, sampler=EpochSampler(24, 0), pin_memory=DEVICE == "cuda")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            training.fit(module, batches, validation(kind), folder=tmp_path, classes=classes(kind))
        finally:
            if DEVICE == "cuda":
                torch.cuda.set_sync_debug_mode("default")
    waits = sorted({f"{w.filename}:{w.lineno}" for w in said if "synchronizing" in str(w.message)})
    record_property("waits", " ".join(waits))
    assert not waits


def test_the_watch_sees_a_step_that_waits():
    value = torch.ones(1, device=DEVICE)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            value.item()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert any("called a synchronizing" in str(w.message) for w in said)


def test_a_folder_trains_with_pinned_batches(tiny_voc, tmp_path):
    folder = VOCFolder(tiny_voc)
    samples = TrainingSet(folder, folder.ids("train"), Augmentation(64, (64, 80)), backbones.IMAGENET, 0)
    batches = training_loader(samples, 2, 0)
    assert next(iter(batches))["image"].is_pinned() == (DEVICE == "cuda")
    training.seed_everything(0)
    module = training.Classifier(SAFN("vgg16", 3, weights="none"), options_of("bf16-mixed"))
    photos = plain_loader(PlainSet(folder, folder.ids("val"), backbones.IMAGENET), 0)
    (row,) = training.fit(module, batches, photos, folder=tmp_path, classes=tiny.CLASSES)
    assert row["step"] == 2 and np.isfinite(row["loss"])
