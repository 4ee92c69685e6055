from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from benchmarks import paper_networks
from benchmarks.paper_networks import Architecture
from safn_book import workflow


def test_operations_of_vgg16_by_hand():
    """Multiplications of the 13 convolutions at 224x224, 3x3 each, and of the classifier of 20 at 7x7, doubled."""
    sizes = [(3, 64, 224), (64, 64, 224), (64, 128, 112), (128, 128, 112), (128, 256, 56), (256, 256, 56), (256, 256, 56),
             (256, 512, 28), (512, 512, 28), (512, 512, 28), *[(512, 512, 14)] * 3]  # fmt: skip
    expected = 2 * (sum(9 * a * b * side**2 for a, b, side in sizes) + 512 * 20 * 7**2)
    plain = Architecture("02_baseline", "vgg16")
    assert paper_networks.flops(plain, (224, 224), False) == expected
    # backward: twice that, but nothing goes back to the image
    first = 2 * 9 * 3 * 64 * 224**2
    assert paper_networks.flops(plain, (224, 224), True) == 3 * expected - first


def test_a_job_s_operations_are_those_of_its_images():
    p, main = paper_networks.working("paper")
    name = ("06_train_segmentation", main)
    deeplab, safn = (Architecture.of_job(stage, p[stage, main]) for stage in (name[0], "03_train_safn"))
    step = paper_networks.flops(deeplab, (321, 321), True)
    assert paper_networks.operations(p, name) == 6000 * 20 * step
    scales = [(188, 250), (281, 375), (375, 500), (469, 625), (562, 750)]
    once = [paper_networks.flops(deeplab, size, False) for size in scales]
    found = paper_networks.operations(p, ("07_evaluate", main))
    assert found == pytest.approx(1449 * (sum(once) + once[2]), rel=1e-9)
    photo = paper_networks.flops(safn, (375, 500), False)
    assert paper_networks.operations(p, ("04_localization_maps", main)) == 12031 * photo


def test_the_estimate_adds_up_and_states_its_assumption():
    p, _ = paper_networks.working("paper")
    found = paper_networks.estimate(p)
    total = sum(found["petaflops"].values()) * 1000 / paper_networks.SUSTAINED_TFLOPS / 3600
    assert found["gpu_hours"] == pytest.approx(total, abs=0.3) and found["assumed_sustained_tflops"] == 20
    assert found["crf_core_hours"] == pytest.approx(21 * 1449 * 0.55 / 3600, abs=0.05)


def test_every_network_of_the_paper_is_measured(monkeypatch, tmp_path):
    asked = []

    def measure(profile, name, steps, batch):
        asked.append((*name, batch))
        return {"stage": name[0]}

    monkeypatch.setattr(paper_networks, "measure", measure)
    paper_networks.main(["--out", str(tmp_path / "out.json")])
    main = "attention_1-0.75-0.5_seed0"
    assert sorted(asked) == [
        ("02_baseline", "default", 4), ("03_train_safn", main, 4), ("04_localization_maps", main, 1),
        ("06_train_segmentation", main, 20), ("06_train_segmentation", f"{main}@resnet101-aspp", 20),
        ("07_evaluate", main, 1), ("07_evaluate", f"{main}@resnet101-aspp", 1),
    ]  # fmt: skip
    written = json.loads((tmp_path / "out.json").read_text())
    assert isinstance(written, dict) and len(written["measured"]) == 7 and isinstance(written["shared"], bool)


def test_too_little_memory_halves_the_batch_and_another_error_is_told(monkeypatch):
    batches = []

    def run(command, **_):
        batches.append(int(command[-1]))
        if "broken" in command:
            return SimpleNamespace(returncode=1, stderr="ValueError: no", stdout="")
        if batches[-1] > 5:
            return SimpleNamespace(
                returncode=1,
                stderr="RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes",
                stdout="",
            )
        return SimpleNamespace(returncode=0, stderr="", stdout=f'progress\n{{"batch": {batches[-1]}}}\n')

    monkeypatch.setattr(paper_networks.subprocess, "run", run)
    assert paper_networks.measure("paper", ("06_train_segmentation", "a"), 2, 20) == {"batch": 5} and batches == [
        20,
        10,
        5,
    ]
    with pytest.raises(RuntimeError, match="06_train_segmentation/broken, 4 images a step: ValueError: no"):
        paper_networks.measure("paper", ("06_train_segmentation", "broken"), 2, 4)


@pytest.mark.parametrize("stage", ["03_train_safn", "04_localization_maps", "06_train_segmentation", "07_evaluate"])
def test_the_steps_are_real_ones(stage):
    """The tiny profile of the tests, in this process: EfficientNet at 64 pixels."""
    run = "attention_1-0.5_seed0"
    measured = paper_networks.steps_of(str(workflow.ROOT / "tests" / "tiny.yaml"), (stage, run), 2, 2)
    assert (
        measured["seconds_a_step"] >= 0 and measured["peak_megabytes"] >= measured["of_that_before_the_network"] > 100
    )
    trains = stage in ("03_train_safn", "06_train_segmentation")
    assert measured["image"] == ([64, 64] if trains else [375, 500]) and measured["parameters"] > 1e6
