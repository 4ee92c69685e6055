"""Records of finished stages: what each was asked for, and whether that is what is asked for now."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safn_book.run_names import DEFAULT, RunName, Stage

RECORD = "record.json"
OUTSIDE = ("data_folder", "saliency_folder")  # parameters that name a folder of the user's own files
FOLDERS = ("runs", *OUTSIDE)  # parameters that belong to this machine
# what stage 00 reads of a data folder
VOC_PARTS = ("image_labels.csv", "JPEGImages", "SegmentationClassAug", "SegmentationClass", "ImageSets")


@dataclass(frozen=True)
class Input:
    """A complete stage folder and its record."""

    folder: Path
    record: dict[str, Any]

    @property
    def name(self) -> str:
        """``<stage>/<run>``."""
        return f"{self.folder.parent.name}/{self.folder.name}"


def read(runs: Path | str, stage: Stage | str, run: RunName | str = DEFAULT) -> Input | None:
    """A finished stage, or ``None``."""
    folder = Path(runs) / stage / str(run)
    try:
        return Input(folder, json.loads((folder / RECORD).read_text()))
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_all(runs: Path | str) -> list[Input]:
    """All finished stages of a folder of runs, stage by stage."""
    folders = [path for stage in Stage for path in sorted((Path(runs) / stage).glob("*")) if path.suffix != ".partial"]
    found = (read(runs, folder.parent.name, folder.name) for folder in folders)
    return list(filter(None, found))


def fingerprint(folder: Path) -> str:
    """SHA-256 over the names and contents of all files below ``folder`` except its record, the log of its training (which tells
    the time) and hidden ones; 16 hex digits."""
    digest = hashlib.sha256()
    files = (path for path in folder.rglob("*") if path.is_file() and path.name[0] != ".")
    for path in sorted(path for path in files if path.name not in (RECORD, "training.log")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def listing(folder: Path) -> str:
    """SHA-256 over names, sizes and times of the user's files in ``folder``; 16 hex digits. Contents are not read: stage 00
    does, where this has changed."""
    base = folder / "VOCdevkit" / "VOC2012"
    parts = [folder / VOC_PARTS[0], *(base / name for name in VOC_PARTS[1:])] if base.is_dir() else [folder]
    digest = hashlib.sha256()
    for part in parts:
        for path in sorted([part, *part.rglob("*")]):
            if path.is_file():
                status = path.stat()
                digest.update(f"{path.relative_to(folder)}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:16]


def request(parameters: Mapping[str, Any], inputs: Iterable[Input]) -> dict[str, Any]:
    """What a stage is asked for, as its record keeps it: parameters, fingerprints of its inputs, and below ``content`` the data
    set that they rest on and the user's own files."""
    inputs = list(inputs)
    data = {i.name: i.record["data"] for i in inputs if "data" in i.record}
    outside = {name: listing(Path(parameters[name])) for name in OUTSIDE if parameters.get(name)}
    return {
        "parameters": json.loads(json.dumps(dict(parameters), default=str)),
        "inputs": {i.name: i.record["fingerprint"] for i in inputs},
        "content": data | outside,
    }


def changes(made: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """How ``asked``, a ``request``, differs from what a record was ``made`` with: one text each. Empty: nothing has to be done.

    The folder of the runs does not count, so that it can be copied and moved. What only one of the two knows, as records of
    older versions and restored ones do, does not count either.
    """
    parameters, content = made["parameters"], made.get("content", {})
    found = []
    for name, now in asked["parameters"].items():
        if name != "runs" and parameters.get(name, now) != now:
            found.append(f"{name} {parameters[name]!r}, now {now!r}")
    found += [f"another {name}" for name, now in asked["inputs"].items() if made["inputs"].get(name) != now]
    return found + [f"other files in {name}" for name, now in asked["content"].items() if content.get(name, now) != now]
