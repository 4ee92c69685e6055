"""What all tests share: one thread (more slow tiny tensors down), no window for plots, real photographs, and the list of
provoked faults."""

from __future__ import annotations

import csv
import importlib.util
import os
import re
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; the kernels of notebooks inherit it
os.environ["MPLBACKEND"] = "Agg"

import numpy as np
import pytest
import torch
from PIL import Image

torch.set_num_threads(1)
VOC12 = Path(__file__).resolve().parents[2] / "shared" / "voc12"


def pytest_addoption(parser):
    parser.addoption("--faults", type=Path, metavar="FILE", help="write the provoked faults and what happened to FILE")


def pytest_configure(config):
    config.addinivalue_line("markers", "gpu: needs a CUDA GPU; skipped where there is none")
    config.addinivalue_line("markers", "fault(case, fault, provoked): provokes a fault of book/faults.md for real")
    if config.getoption("faults"):
        config.pluginmanager.register(Faults(config.getoption("faults").absolute()))


class Faults:
    """Writes one row a fault, from what the tests marked ``fault`` tell the fixture ``happened``; a test that fails or
    is skipped says so in its row."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, {}

    def pytest_runtest_logreport(self, report) -> None:
        said = dict(report.user_properties)
        if "fault" not in said or (report.passed and report.when != "call"):
            return
        case, fault, provoked = said["fault"]
        before = self.rows.get((case, fault))
        if report.passed:
            row = before or [fault, provoked, *said["happened"]]
        else:
            row = [fault, provoked, report.outcome, "not known"]
        self.rows[case, fault] = row

    def pytest_sessionfinish(self) -> None:
        with self.path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["fault", "how it was provoked", "what happened", "what was lost"])
            writer.writerows(row for _, row in sorted(self.rows.items()))


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")  # the longest first: a worker takes a whole file
    for item in items:
        if marker := item.get_closest_marker("fault"):
            item.user_properties.append(("fault", marker.args))
        if item.name == "safn.crf.dense_crf" and not importlib.util.find_spec("pydensecrf"):
            item.add_marker(pytest.mark.skip(reason="the dense CRF is not installed"))


@pytest.fixture
def happened(request, tmp_path):
    """Call it with what the user sees, a text or the error, and with what was lost."""

    def say(seen: object, lost: str = "nothing") -> None:
        text = re.sub(r"\s+", " ", str(seen)).replace(str(tmp_path), "...")
        text = f"{type(seen).__name__}: {text}" if isinstance(seen, BaseException) else text
        request.node.user_properties.append(("happened", (text if len(text) <= 240 else f"{text[:240]} ...", lost)))

    return say


@pytest.fixture(scope="session")
def voc12() -> Path:
    """The subset of VOC 2012 beside this checkout: 1,631 training and 743 validation photographs."""
    if not (VOC12 / "VOCdevkit").is_dir():
        pytest.skip("no real photographs: ../shared/voc12 is not beside this checkout")
    return VOC12


@pytest.fixture
def tiny_voc(tmp_path) -> Path:
    """A data folder: photos a0-a7, 40x32, classes cat, dog and car; a0-a4 in train and train_aug, a5-a7 in val.

    Photo k shows class k % 3 as a rectangle with a void border, photos 3 and 6 class (k + 1) % 3 as well.
    """
    root = tmp_path / "tiny"
    base = root / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (base / name).mkdir(parents=True)
    rows = ["id,cat,dog,car"]
    for k in range(8):
        mask = np.zeros((32, 40), np.uint8)
        mask[5:21, 3:19], mask[6:20, 4:18] = 255, k % 3 + 1
        if k in (3, 6):
            mask[24:30, 22:38] = (k + 1) % 3 + 1
        photo = np.random.default_rng(k).integers(0, 60, (32, 40, 3), np.uint8)
        photo[mask > 0] += 150
        Image.fromarray(photo).save(base / "JPEGImages" / f"a{k}.jpg", quality=95)
        image = Image.fromarray(mask)
        image.putpalette([value for colour in range(256) for value in (colour, 255 - colour, 40 * colour % 256)])
        image.save(base / "SegmentationClass" / f"a{k}.png")
        rows.append(",".join([f"a{k}", *(str(int((mask == c).any())) for c in (1, 2, 3))]))
    for name, ids in {"train": range(5), "train_aug": range(5), "val": range(5, 8)}.items():
        (base / "ImageSets" / "Segmentation" / f"{name}.txt").write_text("".join(f"a{k}\n" for k in ids))
    (root / "image_labels.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture
def photos(tmp_path) -> dict[str, Path]:
    """Three photos of 41x33: left half in the photo's own colour, right half dark."""
    paths = {}
    for c, image_id in enumerate("abc"):
        image = np.full((33, 41, 3), 10, np.uint8)
        image[:, :20, c] = 250
        paths[image_id] = tmp_path / f"{image_id}.png"
        Image.fromarray(image).save(paths[image_id])
    return paths
