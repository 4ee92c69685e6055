from __future__ import annotations

import json

import numpy as np
import pytest

from safn import exporting, records
from safn.data import DataError
from safn.records import RECORD
from safn.scoring import load_counts, save_counts

MAPS, PSEUDO = "04_localization_maps", "05_pseudo_ground_truth"


def counts(seed: int) -> np.ndarray:
    """Of four images; the last has no pixel, as where all of it is void."""
    made = np.random.default_rng(seed).integers(0, 3, (4, 3, 4)) * 100_000
    made[3] = 0
    return made


def sources(runs, text="saliency"):
    """Data and saliency maps, which an export does not bring."""
    made = []
    for stage, content in (("00_data", "data"), ("01_saliency", text)):
        work = records.begin(runs, stage, "default", {"data_folder": str(runs)})
        (work.folder / "file.txt").write_text(content)
        made.append(work.finish({}, root=str(runs)))
    return made


def chain(runs, run, seed):
    """Maps and pseudo ground truth of a run, with their counts."""
    data, saliency = sources(runs) if not (runs / "01_saliency").exists() else (
        records.need(runs, stage) for stage in ("00_data", "01_saliency"))  # fmt: skip
    before = [data]
    for stage in (MAPS, PSEUDO):
        work = records.begin(runs, stage, run, {"runs": str(runs), "size": 32}, before)
        save_counts(work.folder / "counts.npz", counts(seed))
        before = [data, saliency, work.finish({"miou": 0.5})]


@pytest.fixture
def exported(tmp_path):
    runs, path = tmp_path / "runs", tmp_path / "results" / "photos.json"
    path.parent.mkdir()
    chain(runs, "max_1_seed0", 1)
    records.begin(runs, "08_aggregation", "default", {}).finish({})
    exporting.export(runs, path)
    return path


def test_an_export_names_no_folder_of_the_machine(exported, tmp_path):
    assert str(tmp_path) not in exported.read_text()
    assert len(json.loads(exported.read_text())) == 5


def test_what_is_restored_is_what_was_exported(exported, tmp_path):
    other = tmp_path / "other"
    sources(other)
    assert exporting.restore(exported, other) == [f"{MAPS}/max_1_seed0", f"{PSEUDO}/max_1_seed0"]
    found = records.need(other, PSEUDO, "max_1_seed0")  # its inputs are those of its record
    assert found.record["metrics"] == {"miou": 0.5} and found.record["restored"]
    for stage in (MAPS, PSEUDO):
        np.testing.assert_array_equal(load_counts(other / stage / "max_1_seed0" / "counts.npz"), counts(1))
    assert not (other / "08_aggregation").exists()


def test_runs_without_counts_of_their_maps_are_left_out(exported, tmp_path):
    listed = json.loads(exported.read_text())
    head = {"fingerprint": "f", "metrics": {}, "parameters": {}, "inputs": {}}
    older = [(MAPS, "avg_1_seed0"), (PSEUDO, "avg_1_seed0+maps"), ("06_train_segmentation", "masks_seed0")]
    exported.write_text(json.dumps(listed + [{"stage": s, "run": r, **head} for s, r in older]))
    sources(tmp_path / "other")
    assert exporting.restore(exported, tmp_path / "other")[2:] == ["06_train_segmentation/masks_seed0"]


def test_what_is_there_is_kept(exported, tmp_path):
    runs = tmp_path / "runs"
    before = (runs / MAPS / "max_1_seed0" / RECORD).read_text()
    assert exporting.restore(exported, runs) == []
    assert (runs / MAPS / "max_1_seed0" / RECORD).read_text() == before


def test_another_file_is_no_export(tmp_path):
    path = tmp_path / "bench.json"
    path.write_text('{"rows": []}')
    with pytest.raises(DataError, match="bench.json holds no records: give a file that `python -m safn export` wrote"):
        exporting.restore(path, tmp_path)


def test_runs_of_another_machine_are_added(exported, tmp_path):
    other = tmp_path / "other"
    chain(other, "avg_1_seed0", 2)
    exporting.export(other, exported, add=True)
    assert [run for stage, run in exporting.read(exported) if stage == MAPS] == ["avg_1_seed0", "max_1_seed0"]
    assert ("08_aggregation", "default") not in exporting.read(exported)  # it did not know the new run
    third = tmp_path / "third"
    sources(third)
    exporting.restore(exported, third)
    for run, seed in (("avg_1_seed0", 2), ("max_1_seed0", 1)):
        np.testing.assert_array_equal(load_counts(third / MAPS / run / "counts.npz"), counts(seed))
    exporting.export(other, exported)
    assert {run for _, run in exporting.read(exported)} == {"default", "avg_1_seed0"}
    with np.load(exported.with_suffix(".npz")) as archive:
        assert archive.files == [f"{stage}/avg_1_seed0/counts.npz" for stage in (MAPS, PSEUDO)]


def test_other_data_or_saliency_forbid_it_and_every_one_is_named(exported, tmp_path):
    with pytest.raises(DataError) as error:
        exporting.restore(exported, tmp_path / "empty")
    for text in ("00_data/default is missing: run notebooks/00_data.ipynb", "01_saliency/default is missing"):
        assert text in str(error.value)
    sources(tmp_path / "differs", "of another detector")
    with pytest.raises(DataError, match="01_saliency/default has the fingerprint .*, the exported runs were made from"):
        exporting.restore(exported, tmp_path / "differs")
    assert not (tmp_path / "differs" / MAPS).exists()
