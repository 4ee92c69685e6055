"""The explorer: its JavaScript gives the masks of the package, pixel for pixel, and its page answers to every control."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from safn.maps import localization_maps, maps_prediction
from safn.metrics import CONVENTIONS, VOID, ConfusionMatrix
from safn.network import aggregate
from safn.pseudo import harmonic_mean, pseudo_ground_truth
from safn_book import explorer

BOOK = Path(__file__).resolve().parents[1] / "book"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WEIGHTS = ("learned", "mean", "equal", "max", "0", "1", "2")
LABELS = {"dog": ("dog", "cat,dog"), "horses": ("", "cow,horse")}
RULES = [
    (0.2, 0.06, 0.9),
    (0.5, 0.5, 0.3),
    (0, 1, 0),
    (1, 0, 1),
    (0.35, 0.2, 0.6),
]  # gamma, high saliency, high confidence

# what a browser has and the engine lacks
ATOB = """
const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
function atob(text) {
  let [found, bits, count] = ["", 0, 0];
  for (const digit of text.replace(/=/g, "")) {
    [bits, count] = [((bits << 6) | digits.indexOf(digit)) & 0xffff, count + 6];
    if (count >= 8) [found, count] = [found + String.fromCharCode((bits >> (count - 8)) & 255), count - 8];
  }
  return found;
}
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> Path:
    """The data of two photographs, one with a ground-truth mask."""
    path = tmp_path_factory.mktemp("explorer") / "explorer_data.js"
    try:
        explorer.write(path, "dog", "horses")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    return path


@pytest.fixture(scope="module")
def javascript():
    """An engine that has read explorer.js."""
    engine = pytest.importorskip("py_mini_racer", reason="no JavaScript engine: pip install mini-racer").MiniRacer()
    engine.eval(ATOB + (BOOK / "_static" / "explorer.js").read_text())
    yield engine
    engine.close()


@dataclass
class Photograph:
    """What the package makes of the stored bytes of a photograph, for some of its classes."""

    stored: dict[str, Any]
    labels: str
    present: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.present = [self.stored["classes"].index(name) for name in self.labels.split(",") if name]

    def array(self, name: str, dtype: str, *shape: int) -> np.ndarray:
        return np.frombuffer(base64.b64decode(self.stored[name]), dtype).reshape(shape)

    @property
    def size(self) -> tuple[int, int]:
        return self.stored["H"], self.stored["W"]

    @property
    def saliency(self) -> np.ndarray:
        return self.array("saliency", "u1", *self.size).astype(np.float32) / 255

    def maps(self, choice: str) -> np.ndarray:
        scales, classes, h, w = (len(self.stored["scales"]), len(self.stored["classes"]), *self.map_size)
        features = torch.from_numpy(self.array("features", "<f4", 1, scales, classes, h, w).copy())
        learned = torch.from_numpy(self.array("weights", "<f4", 1, scales, h, w).copy())
        weights = {"learned": learned, "mean": learned.mean((2, 3), keepdim=True).expand_as(learned)}
        weights |= {"equal": "avg", "max": "max"}
        if choice not in weights:  # one scale alone
            weights[choice] = torch.zeros_like(learned)
            weights[choice][:, int(choice)] = 1
        labels = torch.zeros(1, classes)
        labels[:, self.present] = 1
        maps = localization_maps(aggregate(features, weights[choice]), labels)
        return F.interpolate(maps, self.size, mode="bilinear", align_corners=False)[0].numpy()[self.present]

    @property
    def map_size(self) -> tuple[int, int]:
        return self.stored["h"], self.stored["w"]

    def masks(self, maps: np.ndarray, rules: tuple[float, float, float]) -> dict[str, np.ndarray]:
        """The pseudo labels of maps ``(K, H, W)`` by these rules, and their mask alone with the threshold gamma."""
        gamma, ignore_saliency, ignore_confidence = rules
        options = {"ignore_saliency": ignore_saliency, "ignore_confidence": ignore_confidence}
        pseudo = pseudo_ground_truth(maps, self.saliency, np.ones(len(maps)), gamma, **options)
        alone = maps_prediction(maps, gamma) if len(maps) else np.zeros(self.size, np.uint8)
        ids = np.full(256, VOID)
        ids[: len(maps) + 1] = [0, *(self.stored["ids"][k] for k in self.present)]
        return {"pseudo": ids[pseudo], "alone": ids[alone]}


@pytest.fixture(scope="module")
def photographs(script, javascript) -> list[Photograph]:
    text = script.read_text()
    javascript.eval(text)
    javascript.eval("const photos = Object.fromEntries(EXPLORER.photographs.map((one) => [one.id, decode(one)]));")
    stored = json.loads(text[text.index("{") : text.rindex("}") + 1])["photographs"]
    return [Photograph(one, labels) for one in stored for labels in LABELS[one["id"]]]


def computed(javascript, photograph: Photograph, weights: str, rules=RULES[0]) -> dict[str, np.ndarray]:
    """What the page computes for these settings, which its controls give as text. The maps' threshold is gamma."""
    names = ("gamma", "ignoreSaliency", "ignoreConfidence", "threshold")
    settings = {name: str(value) for name, value in zip(names, (*rules, rules[0]))}
    settings |= {"labels": photograph.labels, "weights": weights}
    javascript.eval(f"result = compute(photos.{photograph.stored['id']}, {json.dumps(settings)})")

    def read(name: str, dtype: str) -> np.ndarray:
        return np.frombuffer(javascript.eval(f"result.{name}"), dtype).reshape(photograph.size)

    found = {name: read(name, "u1") for name in ("pseudo", "alone")}
    for name in ("maps", "confidences"):
        values = [read(f"{name}[{k}]", "f4") for k in range(len(photograph.present))]
        found[name] = np.stack(values) if values else np.zeros((0, *photograph.size), "f4")
    return found


# The method


@pytest.mark.parametrize("weights", WEIGHTS)
def test_maps_and_confidences_are_those_of_the_package(javascript, photographs, weights):
    for photograph in photographs:
        found = computed(javascript, photograph, weights)
        np.testing.assert_allclose(found["maps"], photograph.maps(weights), rtol=0, atol=2e-6)  # PyTorch's upsampling
        np.testing.assert_array_equal(found["confidences"], harmonic_mean(found["maps"], photograph.saliency))


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_masks_are_those_of_the_package_pixel_for_pixel(javascript, photographs, weights, rules):
    for photograph in photographs:
        found = computed(javascript, photograph, weights, rules)
        for name, mask in photograph.masks(found["maps"], rules).items():
            np.testing.assert_array_equal(found[name], mask)
        for name, mask in photograph.masks(photograph.maps(weights), rules).items():
            # another machine may round a map to the other side of a threshold, at a pixel or two
            assert np.count_nonzero(found[name] != mask) <= 2


BY_HAND = """
photo = {
  scales: [1, 0.5], classes: ["cat", "dog"], ids: [8, 12], h: 1, w: 4, H: 1, W: 4,
  features: Float32Array.of(4, 2, 0, -1,  0, 0, 0, 2,   0, 2, 4, -1,  0, 0, 0, 2),
  weights: Float32Array.of(1, 0.5, 0, 0.5,  0, 0.5, 1, 0.5),
  saliency: Float32Array.of(1, 0.5, 0.25, 1),
};
settings = { labels: "cat,dog", gamma: "0.5", ignoreSaliency: "0.25", ignoreConfidence: "0.9", threshold: "0.5" };
result = compute(photo, { ...settings, ...given });
JSON.stringify({ maps: result.maps.map((map) => [...map]), pseudo: [...result.pseudo], alone: [...result.alone] })
"""


@pytest.mark.parametrize(
    ("given", "cat", "pseudo"),
    [
        # the confidences of the cat are 1, 0.5, 0.4, 0: a threshold that is met exactly counts for gamma, not for the rules
        ({"weights": "learned"}, [1, 0.5, 1, 0], [8, 8, 0, 12]),
        ({"weights": "learned", "gamma": "0.6"}, [1, 0.5, 1, 0], [8, VOID, 0, 12]),
        ({"weights": "learned", "ignoreSaliency": "0.2"}, [1, 0.5, 1, 0], [8, 8, VOID, 12]),
        ({"weights": "mean"}, [1, 1, 1, 0], [8, 8, 0, 12]),
        ({"weights": "equal"}, [1, 1, 1, 0], [8, 8, 0, 12]),
        ({"weights": "max"}, [1, 0.5, 1, 0], [8, 8, 0, 12]),
        ({"weights": "0"}, [1, 0.5, 0, 0], [8, 8, 0, 12]),
        ({"weights": "1"}, [0, 0.5, 1, 0], [VOID, 8, 0, 12]),
        ({"weights": "learned", "labels": "dog"}, None, [VOID, VOID, 0, 12]),
        ({"weights": "learned", "labels": ""}, None, [VOID, VOID, 0, VOID]),
        ({"weights": "learned", "gamma": "0", "ignoreConfidence": "0"}, [1, 0.5, 1, 0], [8, 8, 8, 12]),
    ],
)
def test_four_pixels_by_hand(javascript, given, cat, pseudo):
    result = json.loads(javascript.eval(f"given = {json.dumps(given)};" + BY_HAND))
    assert result["pseudo"] == pseudo
    if cat:
        assert result["maps"] == [cat, [0, 0, 0, 1]]


def test_pixel_of_two_confident_classes_is_ignored(javascript):
    change = "given = { weights: 'learned' };" + BY_HAND.replace("0, 0, 0, 2", "2, 0, 0, 2")
    assert json.loads(javascript.eval(change))["pseudo"] == [VOID, 8, 0, 12]


@pytest.mark.parametrize("ignored", CONVENTIONS)
def test_mean_iou_is_that_of_the_package(javascript, ignored):
    mask, truth = np.random.default_rng(0).choice([0, 3, 8, 20, VOID], (2, 500))
    truth[truth == 20] = 0
    matrix = ConfusionMatrix()
    matrix.update(mask, truth)
    found = javascript.eval(
        f"meanIoU(Uint8Array.from({mask.tolist()}), Uint8Array.from({truth.tolist()}), '{ignored}')"
    )
    assert found == pytest.approx(matrix.miou(ignored), abs=1e-12)


# The data


def test_labels_come_first_and_every_set_of_classes_can_be_chosen():
    assert explorer.label_choices(["dog", "cat"], 2) == ["dog,cat", "", "dog", "cat"]
    assert explorer.label_choices(["sheep"], 0) == ["", "sheep"]


def test_bytes_are_little_endian():
    assert base64.b64decode(explorer.encoded(np.array([1.0], ">f4"))) == b"\0\0\x80?"


def test_script_is_small_and_is_kept_while_nothing_changes(script, monkeypatch):
    assert script.stat().st_size < 2 * 330_000  # nine photographs: 3 MB
    before = script.read_bytes()
    explorer.write(script)
    assert script.read_bytes() == before
    monkeypatch.setattr(explorer, "digest", lambda *_: "other code")
    other = Path(shutil.copy(script, script.with_name("other.js")))
    explorer.write(other, "chair")
    assert b"other code" in other.read_bytes() and b'"id": "dog"' not in other.read_bytes()


# The page, in a browser

DRIVER = """
window.addEventListener("load", () => {
  const form = document.getElementById("explorer-form");
  const shown = (name) => form.querySelector(`[data-shows=${name}] canvas`).toDataURL();
  const report = { errors, sliders: {}, weights: {} };
  const set = (name, value) => {
    form.elements.namedItem(name).value = value;
    const control = form.querySelector(`[name=${name}]:is(select, [type=range], :checked)`);
    control.dispatchEvent(new Event("input", { bubbles: true }));
  };
  report.outputs = [...document.querySelectorAll("output")].map((output) => output.value);
  report.address = form.elements.labels.value;
  for (const [name, value, figure] of SLIDERS) {
    const before = shown(figure);
    set(name, value);
    report.sliders[name] = before !== shown(figure);
  }
  for (const choice of WEIGHTS) {
    set("weights", choice);
    report.weights[choice] = shown("map");
  }
  const canvas = form.querySelector("[data-shows=pseudo] canvas");
  const box = canvas.getBoundingClientRect();
  canvas.dispatchEvent(new MouseEvent("click", { clientX: box.left + 1, clientY: box.top + 1, bubbles: true }));
  report.clicked = form.querySelector(".why").textContent;
  canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
  report.stepped = form.querySelector(".why").textContent;
  report.values = form.querySelector(".values").textContent;
  form.querySelector("button").click();
  report.changed = form.querySelector("[data-reading=changed]").textContent;
  set("photograph", "horses");
  report.credit = form.querySelector(".credit").textContent;
  report.noTruth = form.querySelector("[data-shows=truth]").className;
  const place = document.createElement("pre");
  place.id = "report";
  place.textContent = JSON.stringify(report);
  document.body.append(place);
});
"""
SLIDERS = [
    ["gamma", "0.6", "pseudo"],
    ["ignoreSaliency", "0.9", "pseudo"],
    ["ignoreConfidence", "0.3", "pseudo"],
    ["threshold", "0.7", "alone"],
]


@pytest.fixture(scope="module")
def report(script, tmp_path_factory) -> dict[str, Any]:
    """What the page says after each control has been moved: its own markup and scripts, without the theme."""
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    folder = tmp_path_factory.mktemp("page")
    (folder / "_static").mkdir()
    for source in (script, BOOK / "_static" / "explorer.js", BOOK / "_static" / "explorer.css"):
        shutil.copy(source, folder / "_static")
    text = (BOOK / "explorer.md").read_text()
    markup = re.search(r"```\{raw\} html\n(.*?)```", text, re.DOTALL)[1]
    answers = "".join(re.findall(r"<output .*?</output>", text[text.index("## Try") :]))
    listen = "const errors = []; window.addEventListener('error', (event) => errors.push(event.message), true);"
    driver = DRIVER.replace("SLIDERS", json.dumps(SLIDERS)).replace("WEIGHTS", json.dumps(WEIGHTS))
    (folder / "book").mkdir()
    page = folder / "book" / "explorer.html"
    page.write_text(
        f"<!DOCTYPE html><meta charset='utf-8'><script>{listen}</script>"
        f"<section id='explorer'>{answers}{markup}</section><script>{driver}</script>"
    )
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += (
        f" --disable-component-update --disable-sync --user-data-dir={folder / 'profile'} --virtual-time-budget=5000"
    )
    command = [CHROMIUM, *flags.split(), "--dump-dom", f"{page.as_uri()}#photograph=dog&labels=dog,cat"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return json.loads(re.search(r'<pre id="report">(.*?)</pre>', done.stdout, re.DOTALL)[1].replace("&amp;", "&"))


def test_page_has_no_error_and_starts_as_its_address_says(report):
    assert report["errors"] == []
    assert report["address"] == "dog,cat"


@pytest.mark.parametrize("slider", [name for name, _, _ in SLIDERS])
def test_each_slider_changes_its_mask(report, slider):
    assert report["sliders"][slider]


def test_each_choice_of_weights_changes_the_map(report):
    assert len(set(report["weights"].values())) == len(WEIGHTS)


def test_a_click_and_an_arrow_key_choose_a_pixel(report):
    assert re.match(r"Pixel \(\d, \d\): \S", report["clicked"])
    x, rest = re.match(r"Pixel \((\d)(, \d\)): ", report["clicked"]).groups()
    assert report["stepped"].startswith(f"Pixel ({int(x) + 1}{rest}")
    assert re.search(r"dog\d\.\d\d\d\.\d\d\d\.\d\d", report["values"])


def test_reset_and_another_photograph(report):
    assert report["changed"] == "0.0 %"
    assert report["credit"].startswith("A band of Nokota horses")
    assert report["noTruth"] == "absent"


def test_answers_in_the_text_are_computed(report):
    assert len(report["outputs"]) > 8 and all(re.fullmatch(r"\d+\.\d %|\d\.\d\d", value) for value in report["outputs"])
