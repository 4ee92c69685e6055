from __future__ import annotations

import json

import numpy as np
import pytest

from safn.data import DataError
from safn.evaluation import load_counts, save_counts
from safn_book import archive, stages
from safn_book.records import RECORD

MAPS, PSEUDO = "04_localization_maps", "05_pseudo_ground_truth"


def counts(seed: int) -> np.ndarray:
    """Of four images; the last has no pixel, as where all of it is void."""
    made = np.random.default_rng(seed).integers(0, 3, (4, 3, 4)) * 100_000
    made[3] = 0
    return made


def sources(runs, saliency="saliency", data="data"):
    """Data and saliency maps, which an export does not bring."""
    for stage, content in (("00_data", data), ("01_saliency", saliency)):
        made(runs, stage, "default", [], content, data_folder=str(runs))


def made(runs, stage, run, inputs, content="", miou=0.5, **parameters):
    """A finished stage with counts, made from ``inputs``, other stages; ``content`` decides its fingerprint."""
    before = [stages.require(runs, *name) for name in inputs]
    work = stages.open_stage({"runs": str(runs), **parameters}, stage, run, before)
    (work.folder / "file.txt").write_text(f"{run} {content}")
    if stage in (MAPS, PSEUDO):
        save_counts(work.folder / "counts.npz", counts(len(run + content)))
    return work.finish({"miou": miou}, root=str(runs))


def chain(runs, run, content="", size=32, last=PSEUDO):
    """Maps and pseudo ground truth of a run, with data and saliency maps where they are missing."""
    if not (runs / "00_data").exists():
        sources(runs)
    made(runs, MAPS, run, [("00_data",)], content, size=size, seed=int(run[-1]))
    if last == PSEUDO:
        made(runs, PSEUDO, run, [("00_data",), ("01_saliency",), (MAPS, run)], content)


@pytest.fixture
def exported(tmp_path):
    """A file of one run, and of the chapter that compares it."""
    runs, path = tmp_path / "runs", tmp_path / "results" / "photos.json"
    path.parent.mkdir()
    chain(runs, "max_1_seed0")
    made(runs, "08_aggregation", "default", [("00_data",), (PSEUDO, "max_1_seed0")])
    assert archive.export(runs, path) == []
    return path


def kept_stages(path):
    return [f"{stage[:2]} {run}" for stage, run in archive.read(path) if stage not in ("00_data", "01_saliency")]


def test_an_export_names_no_folder_of_the_machine(exported, tmp_path):
    assert str(tmp_path) not in exported.read_text()
    assert kept_stages(exported) == ["04 max_1_seed0", "05 max_1_seed0", "08 default"]


def test_what_is_restored_is_what_was_exported(exported, tmp_path):
    other = tmp_path / "other"
    made(other, "00_data", "default", [], "data", data_folder=str(other))
    laid = ["01_saliency/default", f"{MAPS}/max_1_seed0", f"{PSEUDO}/max_1_seed0"]
    assert archive.restore(exported, other) == laid
    found = stages.require(other, PSEUDO, "max_1_seed0", restored=True)  # its inputs are those of its record
    assert found.record["metrics"] == {"miou": 0.5}
    for stage in (MAPS, PSEUDO):
        np.testing.assert_array_equal(load_counts(other / stage / "max_1_seed0" / "counts.npz"), counts(11))
    assert not (other / "08_aggregation").exists()
    with pytest.raises(stages.StageError, match="max_1_seed0 was restored without networks, .* run notebooks/04_"):
        stages.require(other, MAPS, "max_1_seed0")
    again = tmp_path / "again.json"
    archive.export(other, again)
    before, after = (
        {k: r for k, r in archive.read(p).items() if k[0] in ("01_saliency", MAPS, PSEUDO)} for p in (exported, again)
    )
    assert after == before


def test_what_is_there_is_kept(exported, tmp_path):
    runs = tmp_path / "runs"
    before = (runs / MAPS / "max_1_seed0" / RECORD).read_text()
    assert archive.restore(exported, runs) == []
    assert (runs / MAPS / "max_1_seed0" / RECORD).read_text() == before


def test_what_was_made_from_other_maps_than_those_there_is_not_restored(exported, tmp_path):
    other = tmp_path / "other"
    chain(other, "max_1_seed0", "other maps", last=MAPS)
    assert archive.restore(exported, other) == []
    assert not (other / PSEUDO).exists()


def test_without_counts_there_is_no_archive(exported, tmp_path):
    runs = tmp_path / "bare"
    sources(runs)
    archive.export(runs, exported)
    assert not exported.with_suffix(".npz").exists() and kept_stages(exported) == []
    chain(runs, "max_1_seed0")
    assert archive.restore(exported, runs) == []


def test_what_was_made_from_other_files_than_those_there_is_left_out(exported, tmp_path):
    runs = tmp_path / "runs"
    chain(runs, "max_1_seed0", "other maps", last=MAPS)
    assert archive.export(runs, exported) == [f"{PSEUDO}/max_1_seed0", "08_aggregation/default"]
    assert kept_stages(exported) == ["04 max_1_seed0"]
    with np.load(exported.with_suffix(".npz")) as kept:
        assert kept.files == [f"{MAPS}/max_1_seed0/counts.npz"]


def test_a_folder_without_runs_replaces_no_results(exported, tmp_path):
    before = exported.read_text(), exported.with_suffix(".npz").read_bytes()
    with pytest.raises(DataError, match="typo holds no record of a stage: give a folder such as runs/emoji"):
        archive.export(tmp_path / "typo", exported)
    assert (exported.read_text(), exported.with_suffix(".npz").read_bytes()) == before


def test_another_file_is_no_export(tmp_path):
    path = tmp_path / "bench.json"
    path.write_text('{"rows": []}')
    with pytest.raises(
        DataError, match="bench.json holds no records: give a file that `python -m safn_book export` wrote"
    ):
        archive.restore(path, tmp_path)


def test_a_run_is_restored_upon_its_own_data_alone(exported, tmp_path):
    with pytest.raises(DataError, match="00_data/default is missing: run notebooks/00_data.ipynb"):
        archive.restore(exported, tmp_path / "empty")
    sources(tmp_path / "differs", data="others")
    with pytest.raises(
        DataError, match="00_data/default has the fingerprint .*, the runs of .*photos.json were made from"
    ):
        archive.restore(exported, tmp_path / "differs")
    assert not (tmp_path / "differs" / MAPS).exists()


def test_a_run_is_not_restored_upon_other_photographs_of_the_same_names(exported, tmp_path):
    other = tmp_path / "other"
    sources(other)
    path = other / "00_data" / "default" / RECORD
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data": "d2"}))
    with pytest.raises(DataError, match="00_data/default has the fingerprint .*/d2, the runs of .* were made from"):
        archive.restore(exported, other)


def test_what_was_made_with_other_saliency_maps_is_not_restored(exported, tmp_path):
    sources(tmp_path / "other", saliency="of another detector")
    assert archive.restore(exported, tmp_path / "other") == [f"{MAPS}/max_1_seed0"]  # maps do not depend on it


# --- the recorded experiments


def record_of(stage, run, **parameters):
    return {"stage": stage, "run": run, "metrics": {}, "machine": "one", "parameters": parameters}


def test_only_files_of_records_are_experiments(tmp_path):
    (tmp_path / "photos.json").write_text(json.dumps([record_of("00_data", "default")]))
    (tmp_path / "bench.json").write_text('{"rows": []}')
    (tmp_path / "expected.json").write_text('[{"stage": "03_train_safn", "run": "default", "ranges": {}}]')
    assert list(archive.experiments(tmp_path)) == ["photos"]


def test_values_of_records_and_of_their_parameters_are_listed_once():
    records = [record_of("03_train_safn", f"max_1_seed{s}", crop=256, epochs=3 + s) for s in (0, 1)]
    found = [archive.values(records, name) for name in ("crop", "epochs", "machine", "none")]
    assert found == ["256", "3, 4", "one", "–"]
