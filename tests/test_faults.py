"""Faults that reach over several modules, and the list of all of them: book/faults.md promises what is tested here."""

from __future__ import annotations

import ast
import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import disk
import nbformat
import numpy as np
import pytest
import tiny
import torch
from PIL import Image, ImageDraw

from safn import backbones, evaluation, files, images, inference, loading, map_files
from safn.data import VOCFolder
from safn.datasets import voc
from safn.images import load_mask
from safn.network import SAFN
from safn.verification import verify
from safn_book import build, records, workflow

ROOT = Path(__file__).resolve().parent.parent
CASES = {
    1: "truncated photo",
    2: "mask of another size, in RGB, or with unknown ids",
    3: "wrong labels",
    4: "photo without a label",
    5: "activation map that locates nothing",
    6: "saliency map missing",
    7: "killed during a training",
    8: "disk full",
    9: "loss not a number",
    10: "malicious file",
    11: "wrong settings",
    12: "checkpoint of another network",
    13: "stale input",
    14: "predicted ids that are no class",
    15: "grey, CMYK, rotated, narrow and large photos",
    16: "CRF not installed, or dying",
    17: "empty, repeated or overlapping lists",
    18: "submission that would be rejected",
    19: "papermill killed while it writes",
    20: "a cell that ends its notebook",
    21: "values in their range that mean something else",
    22: "images of other kinds",
    23: "damaged photo that can still be read",
    24: "results of something else under the same name",
    25: "warnings of other programs",
    26: "parameters of a notebook",
    27: "wrong arguments of functions",
    28: "names that pass through a shell",
    29: "what is refused before anything is written",
}


def marked() -> dict[str, tuple[list, str]]:
    """Every test marked ``fault`` -> case, fault and how it is provoked; and its source."""
    found = {}
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        text = path.read_text()
        for node in ast.parse(text).body:
            for call in [d for d in getattr(node, "decorator_list", ()) if isinstance(d, ast.Call)]:
                if ast.unparse(call.func) == "pytest.mark.fault":
                    arguments = [ast.literal_eval(argument) for argument in call.args]
                    found[f"{path.name}::{node.name}"] = arguments, ast.get_source_segment(text, node)
    return found


def test_every_case_is_provoked_and_every_provoking_test_says_what_happened():
    tests = marked()
    assert {arguments[0] for arguments, _ in tests.values()} == set(CASES)
    assert [name for name, (_, source) in tests.items() if "    happened(" not in source] == []


def test_the_recorded_table_is_that_of_these_tests():
    with (ROOT / "results" / "faults.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    recorded = [(row["fault"], row["how it was provoked"]) for row in rows]
    assert recorded == [tuple(a[1:]) for a, _ in sorted(marked().values())], "run make faults"
    assert not [row["fault"] for row in rows if row["what happened"] in ("failed", "skipped")]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "tiny", tiny.backbone())


@pytest.mark.fault(4, "photo without any label", "a row of zeros, through maps and pseudo ground truth")
def test_a_photo_without_a_label_is_background_to_the_end(tiny_voc, tmp_path, happened):
    table = tiny_voc / "image_labels.csv"
    table.write_text(table.read_text().replace("a0,1,0,0", "a0,0,0,0"))
    folder, out = VOCFolder(tiny_voc), tmp_path / "out"
    assert verify(folder).problems == [] and not folder.label("a0").any()
    out.mkdir()
    samples = loading.PlainSet(folder, ["a0"], backbones.IMAGENET)
    assert inference.write_maps(SAFN("tiny", 3, (1, 0.5)), samples, tmp_path / "maps") == 0
    map_files.save_saliency(out / "saliency.png", np.full((32, 40), 0.4))
    (out / "saliency.png").rename(tmp_path / "a0.png")
    map_files.write_pseudo_labels(folder, ["a0"], tmp_path / "maps", tmp_path, out)
    assert load_mask(out / "a0.png").shape == (32, 40) and not load_mask(out / "a0.png").any()
    happened("no message: its pseudo ground truth is all background")


@pytest.mark.fault(
    15, "grey, CMYK, rotated, 1 pixel wide and 6,000 pixels wide photos", "one of each, read and predicted"
)
@pytest.mark.parametrize("kind", ["L", "CMYK", "rotated", "narrow", "large"])
def test_odd_photos_are_read_upright_in_rgb_and_predicted_at_their_size(tmp_path, kind, happened):
    width, height = {"narrow": (1, 300), "large": (6000, 300)}.get(kind, (60, 40))
    photo = Image.new("RGB", (width, height), (200, 60, 60))
    ImageDraw.Draw(photo).rectangle((0, 0, width // 2, height // 2), fill=(20, 20, 200))
    exif = Image.Exif()
    if kind == "rotated":
        photo, exif[0x0112] = photo.transpose(Image.Transpose.ROTATE_90), 6  # to be seen turned clockwise
    photo.convert(kind if kind in ("L", "CMYK") else "RGB").save(tmp_path / "a.jpg", quality=95, exif=exif)
    read = images.load_image(tmp_path / "a.jpg")
    assert read.mode == "RGB" and read.size == (width, height)
    if kind != "L":
        assert read.getpixel((0, 0))[2] > 150 > 100 > read.getpixel((width - 1, height - 1))[2]

    class Blue(torch.nn.Module):
        """Class 1 where a photo is bluer than red."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, images):
            difference = images[:, 2:] - images[:, :1]
            return self.scale * torch.cat([-difference, difference], 1)

    inference.predict(Blue(), backbones.IMAGENET, {"a": tmp_path / "a.jpg"}, tmp_path / "out", (1, 0.5))
    mask = load_mask(tmp_path / "out" / "a.png")
    assert mask.shape == (height, width)
    if kind != "L":
        assert mask[0, 0] == 1 and mask[-1, -1] == 0
    happened("no message: read upright, in RGB; the prediction has their size")


WRITERS = {
    "record.json": lambda path, k: files.write_json(path, {"value": [k] * 999}),
    "mask.png": lambda path, k: images.save_mask(path, np.full((40, 40), k)),
    "saliency.png": lambda path, k: map_files.save_saliency(path, np.full((40, 40), k / 9)),
    "maps.npz": lambda path, k: inference.save_maps(path, np.full((1, 9, 9), k / 9), np.ones(1)),
    "counts.npz": lambda path, k: evaluation.save_counts(path, np.full((1, 9, 10), k)),
    "last.ckpt": lambda path, k: files.save_tensors({"a": torch.ones(k)}, path),
}


@pytest.mark.fault(
    7, "killed while any other file is written", "SIGKILL when half of it is on the disk, for each kind of file"
)
@pytest.mark.parametrize("name", WRITERS)
def test_no_kill_leaves_half_a_file_under_its_name(tmp_path, name, happened):
    path, write = tmp_path / name, WRITERS[name]
    tiny.killed_while_writing(lambda: write(path, 1))
    assert not path.exists()
    write(path, 1)
    before = path.read_bytes()
    tiny.killed_while_writing(lambda: write(path, 2))
    assert path.read_bytes() == before
    write(path, 2)
    assert path.read_bytes() != before and [p.name for p in tmp_path.iterdir()] == [name]
    happened("the file is not there, or is the older one; the next run writes it", "that file")


STAGE = """
import sys
from pathlib import Path
import disk, torch
from safn import backbones, inference, files
from safn_book import stages
from safn.verification import verify

class Noise(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale, self.seen = torch.nn.Parameter(torch.ones(())), 0

    def forward(self, images):
        self.seen += 1
        return self.scale * torch.rand(1, 21, *images.shape[-2:])

runs, photos, network = Path(sys.argv[1]), Path(sys.argv[2]), Noise()
stage = stages.open_stage({"runs": str(runs)}, "07_evaluate", "a")
if sys.argv[3] == "full":
    disk.fill(runs, 5 * 4096)
inference.predict(network, backbones.IMAGENET, {p.stem: p for p in sorted(photos.glob("*"))}, stage.folder / "single")
stage.finish()
print(network.seen)
"""
FULL = (
    f"""
import json, subprocess, sys
from pathlib import Path
import disk

STAGE = {STAGE!r}
"""
    + """
runs = Path(sys.argv[1])
first = subprocess.run([sys.executable, "-c", STAGE, *sys.argv[1:], "full"], capture_output=True, text=True)
files = sorted(str(p.relative_to(runs)) for p in runs.rglob("*.*") if p.is_file() and p.name != "filler")
disk.free(runs)
second = subprocess.run([sys.executable, "-c", STAGE, *sys.argv[1:], "free"], capture_output=True, text=True)
print(json.dumps({
    "exit": first.returncode, "said": first.stderr.splitlines()[-1], "files": files,
    "seen": second.stdout.splitlines()[-1], "again": second.returncode,
    "masks": len(list(runs.glob("07_evaluate/a/single/*.png"))),
}))
"""
)


@pytest.mark.fault(8, "disk full during a stage", "a file system of 8 MB filled before the predictions")
def test_a_full_disk_leaves_nothing_half_and_the_rerun_does_what_is_missing(tmp_path, happened):
    (tmp_path / "photos").mkdir()
    for k in range(6):  # masks of noise: some 5 KB each
        Image.new("RGB", (96, 64), (k, 0, 0)).save(tmp_path / "photos" / f"{k}.png")
    found = disk.run(FULL, tmp_path / "disk", tmp_path / "photos")
    written = [f for f in found["files"] if f.endswith(".png")]
    assert found["exit"] == 1 and 0 < len(written) < 6
    assert not [f for f in found["files"] if not f.startswith("07_evaluate/a.partial/") or f.endswith(".partial")]
    assert "No space left on device" in found["said"] or "File too large" in found["said"]
    assert found["said"].endswith(f"/{len(written)}.png'")
    assert (found["again"], found["masks"], int(found["seen"])) == (0, 6, 6 - len(written))
    happened(
        f"exit code 1, {found['said']}; the same command predicts the {found['seen']} of 6 images that are missing",
        "the file at work",
    )


@pytest.mark.fault(10, "profile that would run code", "a YAML file whose payload makes a file")
def test_a_malicious_profile_is_not_executed(tmp_path, happened):
    trace, profile = tmp_path / "trace", tmp_path / "profile.yaml"
    profile.write_text(
        f"seeds: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{trace}']]\n"
    )
    with pytest.raises(Exception, match="could not determine a constructor") as error:
        workflow.load(profile)
    assert not trace.exists()
    happened(str(error.value).splitlines()[0], "nothing: the payload left no trace")


@pytest.mark.fault(
    11, "misspelt and wrong settings of a notebook", "papermill -p scalse [1] -p epochs 0 -p aggregation foo"
)
def test_papermill_stops_before_any_work(tmp_path, happened):
    given = {"runs": tmp_path / "runs", "scalse": "[1]", "epochs": "0", "aggregation": "foo", "scales": "[]"}
    arguments = [text for name, value in given.items() for text in ("-p", name, str(value))]
    command = [
        sys.executable,
        "-m",
        "papermill",
        "--no-progress-bar",
        "03_train_safn.ipynb",
        str(tmp_path / "out.ipynb"),
    ]
    done = subprocess.run([*command, *arguments], cwd=ROOT / "notebooks", capture_output=True, text=True)
    assert done.returncode == 1 and not (tmp_path / "runs").exists()
    said = done.stderr[done.stderr.rindex("SettingsError: 4 wrong parameters") :]
    assert all(f"\n  - {name}: " in said for name in ("scales", "epochs", "aggregation", "scalse"))
    happened(said)


@pytest.mark.fault(
    18, "submission that the server would reject", "255 in a prediction, another one of a wrong size, a third missing"
)
def test_a_wrong_submission_is_not_written(tmp_path, happened):
    predictions, out = tmp_path / "predictions", tmp_path / "submission.tar.gz"
    base = tmp_path / "data/VOCdevkit/VOC2012"
    for folder in (predictions, base / "JPEGImages", base / "ImageSets/Segmentation"):
        folder.mkdir(parents=True)
    (base / "ImageSets/Segmentation/test.txt").write_text("a\nb\nc\n")
    for image_id in "abc":
        Image.new("RGB", (4, 3)).save(base / "JPEGImages" / f"{image_id}.jpg")
    images.save_mask(predictions / "a.png", np.full((3, 4), 255))
    images.save_mask(predictions / "b.png", np.zeros((4, 3)))
    with pytest.raises(files.DataError, match="3 problems, no archive was written") as error:
        voc.archive_test_set(predictions, tmp_path / "data", out)
    for text in ("c: no prediction", "a: ", "b: 3x4 pixels, the photo has 4x3"):
        assert f"\n  - {text}" in str(error.value)
    assert not out.exists()
    happened(error.value)


# papermill itself


def write_notebook(folder: Path, *cells: str) -> None:
    """Fill a copy of this repository whose only notebook is ``00_data.ipynb`` of these cells."""
    for name in ("Snakefile", "safn", "safn_book", "workflow"):
        (folder / name).symlink_to(ROOT / name)
    code = [nbformat.v4.new_code_cell(cell) for cell in cells]
    code[0].metadata["tags"] = ["parameters"]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    (folder / "notebooks").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=code, metadata=metadata), folder / "notebooks" / "00_data.ipynb")


STAGE_OF_A_NOTEBOOK = (
    '# parameters\nruns = ""  # folder',
    "from safn_book import settings, stages\nstage = stages.open_stage(settings.read(globals()), '00_data')",
    'import time\nfrom pathlib import Path\nif not Path("quick").exists():\n    time.sleep(600)',
    "stage.finish()",
)


def run_notebook(folder: Path, *cells: str) -> tuple[list[str], dict]:
    """The command that executes the job of ``00_data`` as `make book` does, and how: no other notebook is asked for."""
    write_notebook(folder, *cells)
    runs = folder / "runs"
    (runs / ".workflow").mkdir(parents=True)
    job = {"stage": "00_data", "run": "default", "parameters": {}, "inputs": [], "always": True}
    plan = {"began": time.time(), "jobs": {"00_data/default": job}}
    (runs / ".workflow" / "plan.json").write_text(json.dumps(plan))
    code = (
        "import sys; from pathlib import Path; from safn_book import workflow; from workflow import run_notebook;"
        "workflow.NOTEBOOKS = run_notebook.NOTEBOOKS = Path(sys.argv[1]); sys.exit(run_notebook.main('00_data', 'default', '1'))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return [sys.executable, "-c", code, str(folder / "notebooks")], {"cwd": runs, "env": environment}


@pytest.mark.fault(
    19, "killed while papermill executes and writes a notebook", "SIGKILL to its process group in the third cell"
)
def test_a_killed_papermill_leaves_no_notebook_under_the_final_name(tmp_path, happened):
    command, how = run_notebook(tmp_path, *STAGE_OF_A_NOTEBOOK)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child = subprocess.Popen(command, **how, start_new_session=True, **quiet)
    runs = tmp_path / "runs"
    executed = runs / "executed" / "00_data"
    while child.poll() is None and not (runs / "00_data" / "default.partial" / ".begun").exists():
        time.sleep(0.05)
    time.sleep(1)
    os.killpg(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert [p.name for p in executed.iterdir()] == ["default.partial.ipynb"]
    assert records.read(runs, "00_data") is None
    (tmp_path / "notebooks" / "quick").touch()
    assert again(command, how).returncode == 0
    assert [p.name for p in executed.iterdir()] == ["default.ipynb"]
    assert build.notebook_problems(executed / "default.ipynb") == []
    assert records.read(runs, "00_data").record["resumed"] == 1
    happened("no notebook under its name, no record; the same command runs it again", "that notebook's run")


def again(command: list[str], how: dict) -> subprocess.CompletedProcess:
    """Execute, and wait while the kernel of a killed execution still ends and holds its stage."""
    for _ in range(20):
        done = subprocess.run(command, **how, capture_output=True, text=True)
        if "is at work in another notebook" not in done.stderr:
            break
        time.sleep(1)
    return done


@pytest.mark.fault(
    20, "a cell that ends its notebook early, which papermill takes for success", "sys.exit(0) before the record"
)
def test_a_notebook_that_ends_itself_is_no_success(tmp_path, happened):
    ends = [*STAGE_OF_A_NOTEBOOK[:2], "import sys\nsys.exit(0)", "stage.finish()"]
    command, how = run_notebook(tmp_path, *ends)
    done = subprocess.run(command, **how, capture_output=True, text=True)
    assert done.returncode == 1 and records.read(tmp_path / "runs", "00_data") is None
    executed = tmp_path / "runs" / "executed" / "00_data"
    assert [p.name for p in executed.iterdir()] == ["default.failed.ipynb"]
    assert build.notebook_problems(executed / "default.failed.ipynb")[-1].endswith("not executed")
    happened(done.stderr.splitlines()[0], "what that notebook had to do")


@pytest.mark.fault(
    20, "the kernel of a notebook is killed, as the system does when memory ends", "SIGKILL to it in a cell"
)
def test_a_dead_kernel_is_an_error_and_no_result(tmp_path, happened):
    dies = [*STAGE_OF_A_NOTEBOOK[:2], "import os\nos.kill(os.getpid(), 9)", "stage.finish()"]
    command, how = run_notebook(tmp_path, *dies)
    done = subprocess.run(command, **how, capture_output=True, text=True)
    assert done.returncode == 1 and "Kernel died" in done.stderr
    assert records.read(tmp_path / "runs", "00_data") is None
    assert [p.name for p in (tmp_path / "runs" / "executed" / "00_data").iterdir()] == ["default.failed.ipynb"]
    happened(done.stderr.splitlines()[0], "that notebook's run")


def test_no_notebook_ends_itself():
    text = "".join(path.read_text() for path in (ROOT / "notebooks").glob("[01]*.py"))
    assert "exit(" not in text
