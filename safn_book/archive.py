"""The records of a folder of runs, and the counts of each image, as two files small enough to commit; and back into a folder,
so that runs of several machines and sittings are compared."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from safn.data import DataError
from safn.evaluation import load_counts, save_counts
from safn.files import write_file, write_json
from safn_book.checks import unlike
from safn_book.stages import RECORD
from safn_book.workflow import CHAIN, COMPARING

DATA, CHAPTERS = ("00_data", "default"), "08"  # from chapter 08 on runs are compared
OF_THIS_MACHINE = ("runs", "data_folder", "saliency_folder")
Key = tuple[str, str]  # stage and run
Records = dict[Key, dict[str, Any]]


def export(runs: Path | str, path: Path, add: bool = False) -> list[str]:
    """Write the records of all stages of ``runs`` without folders of this machine, and beside them, as ``.npz``, the counts
    of each image (class against prediction, in pixels) that the intervals follow from.

    Args:
        add: keep what the files hold of runs that this folder does not have. Of a run that is in both, what followed from
            other files than the folder's goes; chapters that compare runs stay only where the folder has all of them.

    Returns:
        the stages that were left out, ``<stage>/<run>``: their inputs are not those beside them, or they miss runs.

    Raises:
        DataError: no runs; other data, saliency maps or settings than the runs to be added to, every difference is named.
    """
    own, archive = _own(Path(runs)), path.with_suffix(".npz")
    if not own:
        raise DataError(f"{runs} holds no record of a stage: give a folder such as runs/emoji")
    before = read(path) if add and path.exists() else {}
    _check_alike(before, own)
    found = before | own
    records = consistent(found)
    if any(key not in own for key in records if key[0] in CHAIN):
        records = {key: record for key, record in records.items() if key[0] < CHAPTERS}
    records = {key: r for key, r in records.items() if key[0] not in COMPARING or _compares_all(r, records)}
    counts = dict(np.load(archive)) if before and archive.exists() else {}
    files = [f for stage, run in own for f in (Path(runs) / stage / run).glob("counts*.npz")]
    renewed = {_key(file.relative_to(runs).as_posix()) for file in files}
    same = {key for key in before if key in records and records[key]["fingerprint"] == before[key]["fingerprint"]}
    counts = {name: cells for name, cells in counts.items() if _key(name) in same - renewed}
    for file in files:
        name = file.relative_to(runs).as_posix()
        if _key(name) in records:
            counts[name] = _sparse(load_counts(file))
    if counts:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **dict(sorted(counts.items())))
        write_file(archive, buffer.getvalue())
    else:
        archive.unlink(missing_ok=True)
    write_json(path, list(records.values()))
    return ["/".join(key) for key in found if key not in records]


def restore(path: Path, runs: Path | str) -> list[str]:
    """Lay the exported runs out in ``runs`` with their records and counts, as far as they are not there and fit what is there:
    enough to compare them, and to train only what is missing. Networks, maps and masks are not exported and do not come
    back: where they are needed, ``records.need`` asks to delete the folder.

    Returns:
        the stages that were laid out, ``<stage>/<run>``.

    Raises:
        DataError: the data set of ``runs`` is missing or not that of the exported runs.
    """
    runs, offered = Path(runs), {key: r for key, r in read(path).items() if key != DATA and key[0] < CHAPTERS}
    own = _own(runs)
    if DATA not in own:
        raise DataError(f"{runs.joinpath(*DATA)} is missing: run notebooks/00_data.ipynb first")
    here, used = _print(own[DATA]), _print(read(path)[DATA])
    if here != used:
        raise DataError(f"{runs.joinpath(*DATA)} has the fingerprint {here}, the runs of {path} were made from {used}")
    archive = path.with_suffix(".npz")
    counts = dict(np.load(archive)) if archive.exists() else {}
    laid = [key for key in consistent(offered | own) if key not in own]
    for key in laid:
        folder = runs.joinpath(*key)
        folder.mkdir(parents=True, exist_ok=True)
        for name in (n for n in counts if _key(n) == key):
            save_counts(runs / name, _dense(counts[name]))
        write_json(folder / RECORD, offered[key] | {"restored": True})  # last: what has a record is complete
    return ["/".join(key) for key in laid]


def read(path: Path) -> Records:
    """The records of an exported file by stage and run.

    Raises:
        DataError: it is another file.
    """
    found = json.loads(path.read_text())
    if not isinstance(found, list) or not all(isinstance(r, dict) and "stage" in r for r in found):
        raise DataError(f"{path} holds no records: give a file that `python -m safn export` wrote")
    return {(r["stage"], r["run"]): r for r in found}


def consistent(records: Records) -> Records:
    """Those records, in the order of the stages, whose inputs are beside them with the fingerprints that they were made
    from."""
    kept: Records = {}
    for key in sorted(records):
        inputs = {_key(name): made_from for name, made_from in records[key]["inputs"].items()}
        if all(i in kept and kept[i]["fingerprint"] == made_from for i, made_from in inputs.items()):
            kept[key] = records[key]
    return kept


def _own(runs: Path) -> Records:
    """The records of a folder of runs, without what belongs to this machine."""
    records = {}
    for path in (p for p in runs.glob(f"[0-9][0-9]_*/*/{RECORD}") if not p.parent.name.endswith(".partial")):
        record = {k: v for k, v in json.loads(path.read_text()).items() if k not in ("root", "restored")}
        record["parameters"] = {k: v for k, v in record["parameters"].items() if k not in OF_THIS_MACHINE}
        records[record["stage"], record["run"]] = record
    return records


def _key(name: str) -> Key:
    """Stage and run of ``<stage>/<run>`` and of ``<stage>/<run>/<file>``."""
    stage, run = name.split("/")[:2]
    return stage, run


def _check_alike(before: Records, own: Records) -> None:
    """Refuse to put runs of other data, saliency maps or settings beside one another."""
    problems = []
    for key in (DATA, ("01_saliency", "default")):
        prints = [_print(of[key]) for of in (before, own) if key in of]
        if len(set(prints)) > 1:
            problems.append(f"{key[0]}: the file has the fingerprint {prints[0]}, the folder {prints[1]}")
    both = (item for of in (before, own) for item in of.items() if item[0][0] in CHAIN)
    problems += unlike(((stage, _kind(run)), record) for (stage, run), record in both)
    if before and problems:
        raise DataError("\n  - ".join(["nothing was written, these cannot stand in one table:", *problems]))


def _print(record: dict[str, Any]) -> str:
    """The fingerprint of a stage, and of the data set that of the photographs and labels as well."""
    return "/".join(filter(None, (record["fingerprint"], record.get("data"))))


def _compares_all(chapter: dict[str, Any], records: Records) -> bool:
    """Whether a chapter has compared every seed that there is of its configurations, each as far as it goes."""
    listed = set(chapter["parameters"].get("experiments", ()))
    last = {run: stage for stage, run in sorted(records) if stage in CHAIN}
    if any(f"{last[run]}/{run}" not in chapter["inputs"] for run in listed & last.keys()):
        return False
    configuration = lambda run: re.sub(r"_seed\d+", "", run)  # noqa: E731
    of = {configuration(run) for run in listed}
    return all(run in listed for stage, run in records if stage == CHAIN[1] and configuration(run) in of)


def _kind(run: str) -> str:
    """What a name says of a run beside its aggregation, scales and seed: its control, its network, or that it is ``masks``."""
    return re.sub(r"^(attention|max|avg)_[\d.-]+|_seed\d+", "", run)


def _sparse(counts: np.ndarray) -> np.ndarray:
    """int32 ``(4, 1 + cells)``: first the shape, then of each count that is not 0 the image, class, prediction and pixels."""
    cells = np.nonzero(counts)
    return np.hstack([[[n] for n in (*counts.shape, 0)], [*cells, counts[cells]]]).astype(np.int32)


def _dense(sparse: np.ndarray) -> np.ndarray:
    counts = np.zeros(sparse[:3, 0], np.int64)
    counts[tuple(sparse[:3, 1:])] = sparse[3, 1:]
    return counts
