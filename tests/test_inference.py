from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from safn import backbones, inference
from safn.backbones import rescale
from safn.data import VOCFolder
from safn.images import load_mask
from safn.inference import multi_scale_maximum, predict
from safn.loading import PlainSet
from safn.map_files import load_maps
from safn.maps import maps_prediction
from safn.network import SAFN
from safn.segmentation import DeepLab
from safn_book import studies


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "tiny", tiny.backbone())


def enlarge(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear, half-pixel centres, edges repeated: ``(K, h, w)`` -> ``(K, height, width)``."""

    def matrix(small: int, large: int) -> np.ndarray:
        at = np.clip((np.arange(large) + 0.5) * small / large - 0.5, 0, small - 1)
        low, rows = np.floor(at).astype(int), np.arange(large)
        weights = np.zeros((large, small))
        weights[rows, low] += 1 - (at - low)
        weights[rows, np.minimum(low + 1, small - 1)] += at - low
        return weights

    return np.einsum("Hh,khw,Ww->kHW", matrix(x.shape[1], height), x, matrix(x.shape[2], width))


class Lookup:
    """Logits of a view by its width, and for mirrored views, which are brighter on the left, others."""

    def __init__(self, table: dict[tuple[int, bool], np.ndarray]) -> None:
        self.table = table

    def __call__(self, view: torch.Tensor) -> torch.Tensor:
        mirrored = bool(view[..., 0].mean() > view[..., -1].mean())
        return torch.tensor(self.table[view.shape[-1], mirrored], dtype=torch.float32)[None]


def looks_beside_its_cell(network, height: int) -> float:
    """How far below the middle of its cell lies what the network averages there, in pixels."""
    image = torch.full((1, 3, height, 64), 0.01, requires_grad=True)  # small: ReLU6 lets all pass
    cells = network(image)
    middle = cells.shape[2] // 2
    cells[0, :, middle, 2].sum().backward()
    seen = image.grad[0].sum((0, 2))
    return float((seen * torch.arange(height)).sum() / seen.sum()) - ((middle + 0.5) * height / cells.shape[2] - 0.5)


def test_copies_of_any_photo_are_seen_where_training_crops_were():
    network = backbones.create("efficientnet_lite0", weights="none")[
        :6
    ].eval()  # stride 16; what follows sees to the borders
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.weight.data.fill_(1 / layer.weight[0].numel())
            layer.bias.data.zero_()
    trained = looks_beside_its_cell(network, 256)
    assert trained == pytest.approx(7.5, abs=0.1)  # half a cell: TensorFlow pads below only
    assert looks_beside_its_cell(network, 375) < 4
    grid = DeepLab("efficientnet_lite0", weights="none", head_width=8, crop=256).grid
    for scale in (0.75, 1, 1.25, 1.5):
        copy = rescale(torch.zeros(1, 3, 500, 375), scale, grid)
        assert looks_beside_its_cell(network, copy.shape[2]) == pytest.approx(trained, abs=0.1)
    assert DeepLab("vgg16", weights="none", head_width=8).grid == (8, 1)


@pytest.mark.parametrize("flip", [False, True])
def test_multi_scale_maximum_by_numpy(flip):
    rng = np.random.default_rng(0)
    sizes = {32: (3, 4), 64: (5, 8), 96: (7, 12)}
    table = {(w, m): rng.normal(0, 3, (4, *s)) for w, s in sizes.items() for m in (False, True)}
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    views = []
    for (_, mirrored), logits in table.items():
        if mirrored and not flip:
            continue
        views.append(tiny.softmax(enlarge(logits[:, :, ::-1] if mirrored else logits, 64, 64)))
    expected = np.max(views, 0)
    expected /= expected.sum(0)
    found = multi_scale_maximum(Lookup(table), ramp, (0.5, 1, 1.5), flip)
    assert found.dtype == torch.float32 and found.shape == (4, 64, 64)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    assert abs(expected - np.mean(views, 0)).max() > 0.1  # the average would be something else


def test_predictions_are_indexed_pngs_of_the_size_of_the_photo_and_those_there_are_kept(photos, tmp_path):
    folder, network = tmp_path / "out", tiny.Brightest()
    folder.mkdir()
    (folder / "b.png").write_bytes(b"mine")
    seconds = predict(network, backbones.IMAGENET, photos, folder)
    assert (folder / "b.png").read_bytes() == b"mine" and network.seen == 2
    for c, image_id in ((0, "a"), (2, "c")):
        np.testing.assert_array_equal(load_mask(folder / f"{image_id}.png"), tiny.true_mask(c))
    with Image.open(folder / "a.png") as image:
        assert (image.mode, image.size) == ("P", (41, 33))
        assert image.getpalette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]  # VOC's first four
    assert 0 < seconds[0] <= seconds[1]


def test_a_kill_while_a_prediction_is_written_leaves_none_that_the_next_run_would_keep(photos, tmp_path):
    folder = tmp_path / "out"
    tiny.killed_while_writing(lambda: predict(tiny.Brightest(), backbones.IMAGENET, photos, folder))
    assert [p.name for p in folder.iterdir()] == ["a.png.partial"]
    predict(tiny.Brightest(), backbones.IMAGENET, photos, folder)
    assert sorted(p.name for p in folder.iterdir()) == ["a.png", "b.png", "c.png"]
    np.testing.assert_array_equal(load_mask(folder / "a.png"), tiny.true_mask(0))


def test_maps_are_written_for_present_classes_and_empty_ones_counted(tiny_voc, tmp_path):
    folder = VOCFolder(tiny_voc)
    torch.manual_seed(0)
    network = SAFN("tiny", 3, (1,)).eval()
    with torch.no_grad():
        network.head[4].bias.copy_(torch.tensor([1.0, -100, 1]))  # class 1 has no positive value anywhere
    samples = PlainSet(folder, folder.ids("train"), backbones.IMAGENET)
    dogs = sum(int(folder.label(i)[1]) for i in samples.ids)
    assert inference.write_maps(network, samples, tmp_path / "maps") == dogs > 0
    for k, image_id in enumerate(samples.ids):
        images = samples[k]["image"][None]
        with torch.no_grad():
            both = [network.features(images).numpy(), network.features(images.flip(3)).numpy()[..., ::-1]]
        mean, found = np.mean(both, 0)[0], load_maps(tmp_path / "maps" / f"{image_id}.npz", 3)
        for c, present in enumerate(folder.label(image_id)):
            expected = np.zeros_like(mean[c]) if c == 1 or not present else mean[c].clip(0) / mean[c].max()
            np.testing.assert_allclose(found[c], expected, atol=0.5 / 255 + 1e-5)


def test_maps_do_not_depend_on_how_many_images_go_together(tiny_voc, tmp_path):
    folder = VOCFolder(tiny_voc)
    samples, network = PlainSet(folder, folder.ids("train_aug"), backbones.IMAGENET), SAFN("tiny", 3, (1, 0.5)).eval()
    for size in (1, 4):
        inference.write_maps(network, samples, tmp_path / str(size), batch_size=size)
    for image_id in samples.ids:
        one, four = (load_maps(tmp_path / size / f"{image_id}.npz", 3) for size in ("1", "4"))
        np.testing.assert_allclose(one, four, atol=1.01 / 255)  # maps are kept in 8 bits


@pytest.mark.fault(
    5, "activation map all zero, negative, constant or NaN", "the last layer of a class set to each of them"
)
@pytest.mark.parametrize("value", [3.0, 0.0, -3.0, float("nan")])
def test_maps_that_locate_nothing_are_0_and_counted(tiny_voc, tmp_path, value, happened):
    folder = VOCFolder(tiny_voc)
    network = SAFN("tiny", 3, (1,)).eval()
    with torch.no_grad():
        network.head[4].weight[1] = 0
        network.head[4].bias.copy_(torch.tensor([1.0, value, 1]))
    samples = PlainSet(folder, folder.ids("train"), backbones.IMAGENET)
    dogs = [i for i in samples.ids if folder.label(i)[1]]
    assert inference.write_maps(network, samples, tmp_path / "maps") == len(dogs) > 0
    for image_id in dogs:
        maps = load_maps(tmp_path / "maps" / f"{image_id}.npz", 3)
        assert not maps[1].any() and np.isfinite(maps).all()
        assert not (maps_prediction(maps, 0.2) == 2).any()
    happened("each is 0 and counted in `empty_maps`; no pixel gets its class", "that map")


def test_predicted_labels_replace_the_given_ones_when_asked(tiny_voc, tmp_path):
    folder = VOCFolder(tiny_voc)
    network = SAFN("tiny", 3, (1,)).eval()
    with torch.no_grad():
        network.head[4].bias.copy_(torch.tensor([-100.0, -100, 100]))
    samples = PlainSet(folder, ["a0"], backbones.IMAGENET)
    inference.write_maps(network, samples, tmp_path, predicted=True)
    with np.load(tmp_path / "a0.npz") as file:
        assert file["classes"].tolist() == [2] and folder.label("a0").tolist() == [1, 0, 0]


def test_attention_statistics_by_numpy(tiny_voc):
    folder = VOCFolder(tiny_voc)
    torch.manual_seed(0)
    network = SAFN("tiny", 3, (1, 0.5), attention_start="random").eval()
    network.attention.conv2.weight.data *= 50
    samples, weights = PlainSet(folder, folder.ids("train"), backbones.IMAGENET), []
    for k in range(len(samples)):
        with torch.no_grad():
            network(samples[k]["image"][None])
        weights.append(network.scale_weights[0].flatten(1).numpy())
    found = studies.attention_statistics(network, samples)
    assert list(found.index) == ["1", "0.5"]
    np.testing.assert_allclose(found["mean"], np.mean(weights, (0, 2)), rtol=1e-4)
    np.testing.assert_allclose(found["spread between pixels"], np.std(weights, 2, ddof=1).mean(0), rtol=1e-3)
    np.testing.assert_allclose(found["spread between images"], np.mean(weights, 2).std(0), rtol=1e-2)
    assert (found["spread between pixels"] > 1e-4).all()
    assert studies.attention_statistics(SAFN("tiny", 3, (1,)), samples).empty
