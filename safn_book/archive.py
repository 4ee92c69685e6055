"""The records of a folder of runs, and the counts of each image, as two files small enough to commit; and back into a folder,
so that runs of several machines and sittings are compared."""

import io
import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from safn.evaluation import load_counts, save_counts
from safn.files import DataError, write_file, write_json
from safn_book import records
from safn_book.records import FOLDERS, RECORD
from safn_book.run_names import CHAPTERS, DEFAULT, Stage, stage_and_run
from safn_book.workflow import ROOT

RESULTS = ROOT / "results"  # the recorded experiments
Records = dict[tuple[Stage, str], dict[str, Any]]  # by stage and run


def export(runs: Path | str, path: Path) -> list[str]:
    """Write the records of all stages of ``runs`` without folders of this machine, and beside them, as ``.npz``, the counts
    of each image (class against prediction, in pixels) that the intervals follow from.

    Returns:
        the stages that were left out, ``<stage>/<run>``: their inputs are not those beside them.

    Raises:
        DataError: no runs.
    """
    runs = Path(runs)
    found = _own(runs)
    if not found:
        raise DataError(f"{runs} holds no record of a stage: give a folder such as runs/emoji")
    kept = _fresh(found)
    files = [file for key in kept for file in runs.joinpath(*key).glob("counts*.npz")]
    counts = {file.relative_to(runs).as_posix(): _sparse(load_counts(file)) for file in files}
    if not counts:
        path.with_suffix(".npz").unlink(missing_ok=True)
    else:
        buffer = io.BytesIO()
        arrays: dict[str, Any] = dict(sorted(counts.items()))
        np.savez_compressed(buffer, **arrays)
        write_file(path.with_suffix(".npz"), buffer.getvalue())
    write_json(path, list(kept.values()))
    return ["/".join(key) for key in found if key not in kept]


def restore(path: Path, runs: Path | str) -> list[str]:
    """Lay the exported runs out in ``runs`` with their records and counts, as far as they are not there and fit what is there:
    enough to compare them, and to train only what is missing. Networks, maps and masks are not exported and do not come
    back: where they are needed, ``stages.require`` asks to delete the folder.

    Returns:
        the stages that were laid out, ``<stage>/<run>``.

    Raises:
        DataError: the data set of ``runs`` is missing or not that of the exported runs.
    """
    runs, exported = Path(runs), read(path)
    own, data = _own(runs), (Stage.DATA, DEFAULT)
    if data not in own:
        raise DataError(f"{runs.joinpath(*data)} is missing: run notebooks/00_data.ipynb first")
    here, used = _print(own[data]), _print(exported[data])
    if here != used:
        raise DataError(f"{runs.joinpath(*data)} has the fingerprint {here}, the runs of {path} were made from {used}")
    offered = {key: record for key, record in exported.items() if key != data and key[0] not in CHAPTERS}
    laid = [key for key in _fresh(offered | own) if key not in own]
    counts = path.with_suffix(".npz")
    for name, sparse in np.load(counts).items() if counts.exists() else ():
        if stage_and_run(name) in laid:
            (runs / name).parent.mkdir(parents=True, exist_ok=True)
            save_counts(runs / name, _dense(sparse))
    for key in laid:  # last: what has a record is complete
        runs.joinpath(*key).mkdir(parents=True, exist_ok=True)
        write_json(runs.joinpath(*key, RECORD), offered[key] | {"restored": True})
    return ["/".join(key) for key in laid]


def read(path: Path) -> Records:
    """Read the records of an exported file, by stage and run.

    Raises:
        DataError: it is another file.
    """
    found = json.loads(path.read_text())
    known = {"stage", "run", "metrics"}
    if not isinstance(found, list) or not all(isinstance(one, dict) and known <= one.keys() for one in found):
        raise DataError(f"{path} holds no records: give a file that `python -m safn_book export` wrote")
    return {(Stage(record["stage"]), record["run"]): record for record in found}


def experiments(folder: Path = RESULTS) -> dict[str, Records]:
    """Read every exported file of a folder, by its name without suffix, and leave other files out."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        with suppress(DataError):
            found[path.stem] = read(path)
    return found


def values(records: Iterable[dict[str, Any]], name: str) -> str:
    """Join the values that records, or their parameters, have of one name."""
    found = (record.get(name, record.get("parameters", {}).get(name)) for record in records)
    texts = {str(value) for value in found if value not in (None, "")}
    return ", ".join(sorted(texts)) or "–"


def _own(runs: Path) -> Records:
    """The records of a folder of runs, without what belongs to this machine."""
    found = {}
    for stage in records.read_all(runs):
        record = {key: value for key, value in stage.record.items() if key not in ("root", "restored")}
        for part in ("parameters", "content"):
            record[part] = {key: value for key, value in record.get(part, {}).items() if key not in FOLDERS}
        found[Stage(record["stage"]), record["run"]] = record
    return found


def _fresh(found: Records) -> Records:
    """Those records, stage by stage, whose inputs are beside them with the fingerprints that they were made from."""
    kept: Records = {}
    for key in sorted(found):
        inputs = {stage_and_run(name): used for name, used in found[key]["inputs"].items()}
        if all(i in kept and kept[i]["fingerprint"] == used for i, used in inputs.items()):
            kept[key] = found[key]
    return kept


def _print(record: dict[str, Any]) -> str:
    """The fingerprint of a stage, and of the data set that of the photographs and labels as well."""
    return "/".join(filter(None, (record["fingerprint"], record.get("data"))))


def _sparse(counts: np.ndarray) -> np.ndarray:
    """int32 ``(4, 1 + cells)``: first the shape, then of each count that is not 0 the image, class, prediction and pixels."""
    cells = np.nonzero(counts)
    return np.hstack([[[n] for n in (*counts.shape, 0)], [*cells, counts[cells]]]).astype(np.int32)


def _dense(sparse: np.ndarray) -> np.ndarray:
    counts = np.zeros(sparse[:3, 0], np.int64)
    counts[tuple(sparse[:3, 1:])] = sparse[3, 1:]
    return counts
