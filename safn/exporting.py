"""The records of a folder of runs, and the counts of each image, as two files small enough to commit; and back into a folder,
so that runs of several machines and sittings are compared."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from safn.data import DataError
from safn.plan import CHAIN, base_run
from safn.records import RECORD, write_file, write_json
from safn.scoring import load_counts, save_counts

CHAPTERS = "08"  # from this stage on they compare runs
OF_THIS_MACHINE = ("runs", "data_folder", "saliency_folder")
Records = dict[tuple[str, str], dict[str, Any]]


def export(runs: Path | str, path: Path, add: bool = False) -> None:
    """Write the records of all stages of ``runs`` without folders of this machine, and beside them, as ``.npz``, the counts
    of each image (class against prediction, in pixels) that the intervals follow from.

    Args:
        add: keep what the files hold of runs that this folder does not have.
    """
    paths, archive = sorted(Path(runs).glob("[0-9][0-9]_*/*/record.json")), path.with_suffix(".npz")
    before = read(path) if add and path.exists() else {}
    records = {key: record for key, record in before.items() if key[0] < CHAPTERS}  # those compare other runs
    counts = dict(np.load(archive)) if add and archive.exists() else {}
    for record in (json.loads(p.read_text()) for p in paths):
        for name in ("root", "restored"):
            record.pop(name, None)
        for name in OF_THIS_MACHINE:
            record["parameters"].pop(name, None)
        records[record["stage"], record["run"]] = record
    for found in (f for p in paths for f in sorted(p.parent.glob("counts*.npz"))):
        counts[found.relative_to(runs).as_posix()] = _sparse(load_counts(found))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(sorted(counts.items())))
    write_file(archive, buffer.getvalue())
    write_json(path, [records[key] for key in sorted(records)])


def read(path: Path) -> Records:
    """The records of an exported file by stage and run.

    Raises:
        DataError: it is another file.
    """
    found = json.loads(path.read_text())
    if not isinstance(found, list) or not all(isinstance(r, dict) and "stage" in r for r in found):
        raise DataError(f"{path} holds no records: give a file that `python -m safn export` wrote")
    return {(r["stage"], r["run"]): r for r in found}


def restore(path: Path, runs: Path | str) -> list[str]:
    """Lay the exported runs out in ``runs`` with their records and counts, as far as they are not there: enough for the chapters
    that compare, and to train only what is missing. Networks, maps and masks are not exported and do not come back. Runs
    whose maps were exported without counts are left out: nothing could be compared with them.

    Returns:
        the names of the stages that were laid out, ``<stage>/<run>``.

    Raises:
        DataError: data or saliency maps of ``runs`` are missing or not those that the exported runs were made from; every one
            is named.
    """
    runs, records = Path(runs), read(path)
    _check_sources(runs, records)
    with np.load(path.with_suffix(".npz")) as archive:
        counts = {name: archive[name] for name in archive.files}
    laid = []
    for stage, run in sorted(key for key in records if key[0] in CHAIN):
        folder, maps = runs / stage / run, (CHAIN[1], base_run(run))
        uncounted = maps in records and f"{'/'.join(maps)}/counts.npz" not in counts
        if uncounted or (folder / RECORD).exists():
            continue
        for name in (n for n in counts if n.startswith(f"{stage}/{run}/")):
            folder.mkdir(parents=True, exist_ok=True)
            save_counts(runs / name, _dense(counts[name]))
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / RECORD, {**records[stage, run], "restored": True})  # last: what has a record is complete
        laid.append(f"{stage}/{run}")
    return laid


def _check_sources(runs: Path, records: Records) -> None:
    """Problems with what the exported runs were made from and ``runs`` must hold itself."""
    used = {
        i
        for (stage, _), r in records.items()
        if stage in CHAIN
        for i in r["inputs"].items()
        if i[0][:2] in ("00", "01")
    }
    problems = []
    for name, made_from in sorted(used):
        record = runs / name / RECORD
        if not record.exists():
            problems.append(f"{record.parent} is missing: run notebooks/{Path(name).parent}.ipynb first")
        elif (there := json.loads(record.read_text())["fingerprint"]) != made_from:
            problems.append(
                f"{record.parent} has the fingerprint {there}, the exported runs were made from {made_from}"
            )
    if problems:
        raise DataError("\n  - ".join(["nothing was restored:", *problems]))


def _sparse(counts: np.ndarray) -> np.ndarray:
    """int32 ``(1 + cells, 4)``: first the shape, then of each count that is not 0 the image, class, prediction and pixels."""
    cells = np.nonzero(counts)
    return np.vstack([[*counts.shape, 0], np.stack([*cells, counts[cells]], 1)]).astype(np.int32)


def _dense(sparse: np.ndarray) -> np.ndarray:
    counts = np.zeros(sparse[0, :3], np.int64)
    counts[tuple(sparse[1:, :3].T)] = sparse[1:, 3]
    return counts
