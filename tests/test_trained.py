from __future__ import annotations

import json
import os
import re
import signal

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

import safn
from benchmarks.pack_weights import pack
from safn import backbones, trained
from safn.baseline import PlainClassifier
from safn.data import VOC_CLASSES, DataError
from safn.network import SAFN
from safn.segmentation import DeepLab

CLASSES = ["cat", "dog", "car"]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "tiny", tiny.backbone())


def networks() -> dict[str, torch.nn.Module]:
    """One of each kind, with arguments that are not the defaults."""
    torch.manual_seed(0)
    return {
        "SAFN": SAFN("tiny", 3, (0.5, 1), "max", weights="none"),
        "attention": SAFN("tiny", 3, (1, 0.75, 0.5), weights="none", attention_start="random"),
        "PlainClassifier": PlainClassifier("tiny", 3, weights="none"),
        "LargeFOV": DeepLab("tiny", "largefov", 4, weights="none", head_width=8, head_dilation=4, crop=33),
        "ASPP": DeepLab("tiny", "aspp", 4, weights="none", crop=64),
    }


@pytest.mark.parametrize("name", ["SAFN", "attention", "PlainClassifier", "LargeFOV", "ASPP"])
def test_a_network_is_built_again_from_its_folder(tmp_path, name):
    network, images = networks()[name].eval(), torch.rand(2, 3, 64, 64)
    safn.save(network, tmp_path / "new" / "folder", CLASSES, 80)
    state = torch.get_rng_state()
    loaded = safn.load(tmp_path / "new" / "folder")
    assert torch.equal(torch.get_rng_state(), state)
    assert type(loaded) is type(network) and not loaded.training and torch.equal(loaded(images), network(images))
    assert loaded.arguments == network.arguments and getattr(loaded, "grid", 0) == getattr(network, "grid", 0)
    assert loaded.classes == CLASSES and loaded.normalisation == backbones.IMAGENET
    assert loaded.description["longest_side"] == 80 and loaded.initial_weights == "none"


def test_the_efficientnet_is_built_again_with_its_layers_in_channels_last(tmp_path):
    network = SAFN("efficientnet_lite0", 3, (1, 0.5), weights="none").to(memory_format=torch.channels_last).eval()
    safn.save(network, tmp_path, CLASSES)
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(safn.load(tmp_path).to(memory_format=torch.channels_last)(images), network(images))
    assert safn.load(tmp_path).normalisation == backbones.HALF


def test_the_initial_weights_are_those_of_the_training(tmp_path):
    network = SAFN("tiny", 3, weights="imagenet")
    safn.save(network, tmp_path, CLASSES)
    assert safn.load(tmp_path).initial_weights == "imagenet"
    safn.save(safn.load(tmp_path), tmp_path / "again", CLASSES)
    assert (tmp_path / "again" / "network.json").read_bytes() == (tmp_path / "network.json").read_bytes()


def test_what_cannot_be_built_again_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="a Linear cannot be saved; valid: SAFN, DeepLab, PlainClassifier"):
        safn.save(torch.nn.Linear(2, 2), tmp_path / "a", CLASSES)
    with pytest.raises(ValueError, match="2 classes for a network of 3: cat, dog"):
        safn.save(networks()["ASPP"], tmp_path / "a", CLASSES[:2])
    assert not (tmp_path / "a").exists()


@pytest.fixture
def folder(tmp_path):
    safn.save(networks()["attention"], tmp_path, CLASSES)
    return tmp_path


def edit(folder, **changed) -> None:
    path = folder / "network.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


@pytest.mark.parametrize(
    "changed, text",
    [
        ({"format": 2}, "format 2 is newer than 1: update safn"),
        ({"kind": "UNet"}, "kind 'UNet' is unknown; valid: SAFN, DeepLab, PlainClassifier"),
        ({"classes": ["cat"]}, "1 classes for a network of 3: cat"),
        ({"arguments": {"num_classes": 3, "depth": 4}}, "does not describe a SAFN: .*depth"),
        ({"arguments": {"num_classes": 3, "backbone": "vgg99"}}, "does not describe a SAFN: .*vgg99"),
        ({"format": None}, "is damaged"),
    ],
)
def test_a_description_that_does_not_fit_is_an_error(folder, changed, text):
    edit(folder, **changed)
    with pytest.raises(DataError, match=text):
        safn.load(folder)


def test_what_is_missing_or_damaged_is_named(folder, tmp_path):
    with pytest.raises(DataError, match="nowhere is not the folder of a trained network: network.json is missing"):
        safn.load(tmp_path / "nowhere")
    content = (folder / "network.safetensors").read_bytes()
    for part in (b"", content[:100], content[:-100]):
        (folder / "network.safetensors").write_bytes(part)
        with pytest.raises(DataError, match="network.safetensors is damaged, or not a file of tensors"):
            safn.load(folder)
    (folder / "network.safetensors").unlink()
    with pytest.raises(DataError, match="network.safetensors is missing"):
        safn.load(folder)
    (folder / "network.json").write_text("{}")
    with pytest.raises(DataError, match="network.json is damaged: KeyError"):
        safn.load(folder)


def test_a_network_that_comes_with_the_package_is_loaded_by_its_name(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(trained, "SHIPPED", folder.parent)
    monkeypatch.chdir(folder)
    (folder / folder.name).mkdir()  # such as the folder voc of the data
    assert safn.load(folder.name).classes == CLASSES


@pytest.mark.parametrize("step", [None, torch.ones(1), torch.ones(5)])
def test_a_weight_of_8_bits_without_its_steps_is_named(tmp_path, step):
    safn.save(networks()["attention"], tmp_path, CLASSES)
    pack(tmp_path)
    tensors = load_file(tmp_path / "network.safetensors")
    del tensors["head.0.weight.scale"]
    save_file(tensors | ({} if step is None else {"head.0.weight.scale": step}), tmp_path / "network.safetensors")
    with pytest.raises(DataError, match="head.0.weight: 8 bits without a step for each of its 1024 outputs"):
        safn.load(tmp_path)


def test_a_parameter_that_is_called_scale_is_no_step():
    tensors = {"layer.weight": torch.ones(2, 3), "layer.weight.scale": torch.ones(2), "layer.scale": torch.ones(1)}
    assert trained.to_floats(tensors) == tensors


def test_the_two_networks_of_the_package_are_small_and_ready():
    deeplab, classifier = safn.load("voc"), safn.load("voc-safn")
    assert (type(deeplab), type(classifier)) == (DeepLab, SAFN)
    assert deeplab.classes == classifier.classes == VOC_CLASSES and not deeplab.training
    assert classifier.scales == (1, 0.75, 0.5) and classifier.aggregation == "attention"
    files = [path for name in ("voc", "voc-safn") for path in (trained.SHIPPED / name).iterdir()]
    with pytest.raises(DataError, match="network.json is missing; by name: voc, voc-safn$"):
        safn.load("nowhere")
    assert len(files) == 4 and sum(path.stat().st_size for path in files) < 12.5e6


@pytest.mark.fault(10, "checkpoint that would run code", "a pickle in network.safetensors whose payload makes a file")
def test_a_malicious_checkpoint_is_not_executed(folder, tmp_path, happened):
    trace = tmp_path / "trace"
    torch.save({"backbone.0.weight": tiny.Payload(trace)}, folder / "network.safetensors")
    with pytest.raises(DataError, match="network.safetensors is damaged, or not a file of tensors") as error:
        safn.load(folder)
    assert not trace.exists()
    function, arguments = tiny.Payload(trace).__reduce__()
    function(*arguments)
    assert trace.exists()  # what the payload would have done
    happened(error.value, "nothing: the payload left no trace")


@pytest.mark.fault(12, "checkpoint for other scales", "weights of three scales into a network of two")
def test_a_checkpoint_of_three_scales_does_not_fit_two(folder, happened):
    with pytest.raises(DataError) as error:
        trained.load_weights(SAFN("tiny", 3, (1, 0.5)), folder)
    message = str(error.value)
    shapes = {"conv1.weight": ("512, 9, 3, 3", "512, 6, 3, 3"), "conv2.bias": ("3", "2")}
    for name, (found, wanted) in shapes.items():
        assert re.search(rf"attention\.{name}: .*\[{found}\].*\[{wanted}\]", message)
    assert "head" not in message and str(folder / "network.safetensors") in message
    happened(error.value)


def test_missing_and_unexpected_tensors_are_named(folder, tmp_path):
    with pytest.raises(DataError, match=r"Unexpected key.*attention\.conv1\.weight"):
        trained.load_weights(SAFN("tiny", 3, aggregation="avg"), folder)
    tensors = load_file(folder / "network.safetensors")
    del tensors["head.0.bias"]
    save_file(tensors, folder / "network.safetensors")
    with pytest.raises(DataError, match=r"Missing key.*head\.0\.bias"):
        safn.load(folder)


@pytest.mark.parametrize("files", [1, 2])
def test_a_kill_while_a_network_is_saved_leaves_no_folder_that_looks_complete(tmp_path, monkeypatch, files):
    def dying() -> None:
        write, written = trained.write_file, []

        def write_or_die(path, content):
            written.append(path)
            if len(written) == files:
                os.kill(os.getpid(), signal.SIGKILL)
            write(path, content)

        trained.write_file, trained.write_json = write_or_die, lambda path, value: write_or_die(path, b"{}")
        safn.save(networks()["SAFN"], tmp_path, CLASSES)

    safn.save(networks()["attention"], tmp_path, CLASSES)
    tiny.killed(dying)
    assert not trained.is_complete(tmp_path)


def test_a_full_disk_while_a_network_is_saved_names_the_file(tmp_path, monkeypatch):
    def full(partial, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="No space left on device: .*network.safetensors'"):
        safn.save(networks()["SAFN"], tmp_path, CLASSES)
    assert list(tmp_path.iterdir()) == []


def test_the_fingerprint_follows_weights_and_description(folder, tmp_path):
    before = trained.fingerprint(folder)
    assert before == trained.fingerprint(folder) and len(before) == 16
    edit(folder, longest_side=9)
    edited = trained.fingerprint(folder)
    safn.save(networks()["SAFN"], tmp_path / "other", CLASSES)
    assert len({before, edited, trained.fingerprint(tmp_path / "other")}) == 3
