"""The records of a folder of runs, and the counts of each image, as two files small enough to commit; and back into a folder,
so that runs of several machines and sittings are compared."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from safn.evaluation import load_counts, save_counts
from safn.files import DataError, write_file, write_json
from safn_book import records
from safn_book.checks import unlike
from safn_book.records import OF_THIS_MACHINE, RECORD
from safn_book.run_names import CHAIN, CHAPTERS, COMPARING, DEFAULT, RunName, Stage, stage_and_run
from safn_book.workflow import ROOT

RESULTS = ROOT / "results"  #: the recorded experiments
DATA, SALIENCY = (Stage.DATA, DEFAULT), (Stage.SALIENCY, DEFAULT)
Records = dict[tuple[Stage, str], dict[str, Any]]  # by stage and run
Counts = dict[str, np.ndarray]  # <stage>/<run>/<file> -> counts of each image, sparse


def export(runs: Path | str, path: Path, add: bool = False) -> list[str]:
    """Write the records of all stages of ``runs`` without folders of this machine, and beside them, as ``.npz``, the counts
    of each image (class against prediction, in pixels) that the intervals follow from.

    Args:
        add: keep what the files hold of runs that this folder does not have. Of a stage that is in both, the folder's
            counts, and what followed from the other one goes.

    Returns:
        the stages that were left out, ``<stage>/<run>``: their inputs are not those beside them, or they miss runs.

    Raises:
        DataError: no runs; other data, saliency maps or settings than the runs to be added to, every difference is named.
    """
    runs = Path(runs)
    new = _own(runs)
    if not new:
        raise DataError(f"{runs} holds no record of a stage: give a folder such as runs/emoji")
    old = read(path) if add and path.exists() else {}
    if old and (problems := _differences(old, new)):
        raise DataError("\n  - ".join(["nothing was written, these cannot stand in one table:", *problems]))
    kept = _fresh(old | new)
    if any(key not in new for key in kept if key[0] in CHAIN):  # no chapter has compared the runs of both
        kept = {key: record for key, record in kept.items() if key[0] not in CHAPTERS}
    kept = {key: record for key, record in kept.items() if key[0] not in COMPARING or _compares_all(record, kept)}

    counts = _counts_of_folder(runs, kept.keys() & new)
    counted = {stage_and_run(name) for name in counts}
    for name, sparse in _counts_of_file(path).items() if old else ():
        key = stage_and_run(name)
        same = key in kept and key in old and kept[key]["fingerprint"] == old[key]["fingerprint"]
        if same and key not in counted:
            counts[name] = sparse
    _write_counts(path.with_suffix(".npz"), counts)
    write_json(path, list(kept.values()))
    return ["/".join(key) for key in old | new if key not in kept]


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
    own, data = _own(runs), runs.joinpath(*DATA)
    if DATA not in own:
        raise DataError(f"{data} is missing: run notebooks/00_data.ipynb first")
    here, used = _print(own[DATA]), _print(exported[DATA])
    if here != used:
        raise DataError(f"{data} has the fingerprint {here}, the runs of {path} were made from {used}")
    offered = {key: record for key, record in exported.items() if key != DATA and key[0] not in CHAPTERS}
    laid = [key for key in _fresh(offered | own) if key not in own]
    for name, sparse in _counts_of_file(path).items():
        if stage_and_run(name) in laid:
            (runs / name).parent.mkdir(parents=True, exist_ok=True)
            save_counts(runs / name, _dense(sparse))
    for key in laid:  # last: what has a record is complete
        runs.joinpath(*key).mkdir(parents=True, exist_ok=True)
        write_json(runs.joinpath(*key, RECORD), offered[key] | {"restored": True})
    return ["/".join(key) for key in laid]


def read(path: Path) -> Records:
    """The records of an exported file by stage and run.

    Raises:
        DataError: it is another file.
    """
    found = json.loads(path.read_text())
    if not isinstance(found, list) or not all(isinstance(record, dict) and "stage" in record for record in found):
        raise DataError(f"{path} holds no records: give a file that `python -m safn_book export` wrote")
    return {(Stage(record["stage"]), record["run"]): record for record in found}


def _own(runs: Path) -> Records:
    """The records of a folder of runs, without what belongs to this machine."""
    found = {}
    for stage in records.read_all(runs):
        record = {key: value for key, value in stage.record.items() if key not in ("root", "restored")}
        for part in ("parameters", "content"):
            record[part] = {key: value for key, value in record.get(part, {}).items() if key not in OF_THIS_MACHINE}
        found[Stage(record["stage"]), record["run"]] = record
    return found


def _fresh(found: Records) -> Records:
    """Those records, stage by stage, whose inputs are beside them with the fingerprints that they were made from."""
    kept: Records = {}
    for stage in Stage:
        for key in sorted(key for key in found if key[0] is stage):
            inputs = {stage_and_run(name): used for name, used in found[key]["inputs"].items()}
            if all(i in kept and kept[i]["fingerprint"] == used for i, used in inputs.items()):
                kept[key] = found[key]
    return kept


def _compares_all(chapter: dict[str, Any], found: Records) -> bool:
    """Whether a chapter has compared every seed that there is of its configurations, each as far as it goes."""
    listed = set(chapter["parameters"].get("experiments", ()))
    last = {run: stage for stage in CHAIN for of, run in found if of == stage}
    if any(f"{last[run]}/{run}" not in chapter["inputs"] for run in listed & last.keys()):
        return False
    compared = {RunName.parse(run).configuration for run in listed}
    trained = {run for stage, run in found if stage is Stage.MAPS}
    return all(run in listed for run in trained if RunName.parse(run).configuration in compared)


def _differences(old: Records, new: Records) -> list[str]:
    """Why runs cannot stand beside one another: other data, saliency maps or settings of runs of one kind."""
    problems = []
    for key in (DATA, SALIENCY):
        if key in old and key in new and _print(old[key]) != _print(new[key]):
            problems.append(f"{key[0]}: the file has the fingerprint {_print(old[key])}, the folder {_print(new[key])}")
    both = [*old.items(), *new.items()]
    return problems + unlike(((stage, _kind(run)), record) for (stage, run), record in both if stage in CHAIN)


def _kind(run: str) -> RunName:
    """What a name says of a run beside its aggregation, scales and seed: its control, its network, or that it is supervised."""
    return replace(RunName.parse(run), aggregation="", scales=(), seed=0)


def _print(record: dict[str, Any]) -> str:
    """The fingerprint of a stage, and of the data set that of the photographs and labels as well."""
    return "/".join(filter(None, (record["fingerprint"], record.get("data"))))


def _counts_of_folder(runs: Path, keys: Iterable[tuple[Stage, str]]) -> Counts:
    files = [file for key in keys for file in runs.joinpath(*key).glob("counts*.npz")]
    return {file.relative_to(runs).as_posix(): _sparse(load_counts(file)) for file in files}


def _counts_of_file(path: Path) -> Counts:
    counts = path.with_suffix(".npz")
    return dict(np.load(counts)) if counts.exists() else {}


def _write_counts(path: Path, counts: Counts) -> None:
    if not counts:
        return path.unlink(missing_ok=True)
    buffer = io.BytesIO()
    arrays: dict[str, Any] = dict(sorted(counts.items()))
    np.savez_compressed(buffer, **arrays)
    write_file(path, buffer.getvalue())


def _sparse(counts: np.ndarray) -> np.ndarray:
    """int32 ``(4, 1 + cells)``: first the shape, then of each count that is not 0 the image, class, prediction and pixels."""
    cells = np.nonzero(counts)
    return np.hstack([[[n] for n in (*counts.shape, 0)], [*cells, counts[cells]]]).astype(np.int32)


def _dense(sparse: np.ndarray) -> np.ndarray:
    counts = np.zeros(sparse[:3, 0], np.int64)
    counts[tuple(sparse[:3, 1:])] = sparse[3, 1:]
    return counts
