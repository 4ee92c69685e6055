from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.rescore import main, rescore
from safn.data import DataError, VOCFolder
from safn.images import save_mask
from safn_book import stages

RUN = "max_1_seed0"


@pytest.fixture
def runs(tiny_voc, tmp_path):
    """Stage 00 of the tiny folder and a stage 05 whose masks are the true ones, the first four rows ignored; a4 left out."""
    runs, folder = tmp_path / "runs", VOCFolder(tiny_voc)
    work = stages.open_stage({"runs": runs, **({})}, "00_data", "default")
    for split, ids in {"train": folder.ids("train_aug"), "val": folder.ids("val")}.items():
        (work.folder / f"{split}.txt").write_text("\n".join(ids))
    source = work.finish(root=str(tiny_voc))
    work = stages.open_stage({"runs": runs, **({})}, "05_pseudo_ground_truth", RUN, [source])
    for image_id in ("a0", "a1", "a2", "a3"):
        mask = folder.mask(image_id)
        mask[mask == 255] = 0
        mask[:4] = 255
        save_mask(work.folder / f"{image_id}.png", mask)
    metrics = {"pseudo_miou_drop": 1.0, "pseudo_miou_background": 1.0, "pseudo_miou_wrong": 0.9, "ignored_share": None}
    work.finish(metrics, left_out=["a4"])
    return runs


def test_numbers_are_computed_again_and_stand_beside_the_record(runs, tiny_voc):
    table = rescore(runs, RUN).set_index("metric")
    assert table.loc["files", "now"] == 0
    folder = VOCFolder(tiny_voc)
    masks = np.stack([folder.mask(f"a{k}") for k in range(4)])
    background = ((masks == 0).sum() - 4 * 4 * 40) / (masks == 0).sum()  # of its pixels four rows an image are ignored
    now = table["now"]
    assert now["pseudo_miou_drop"] == now["pseudo_miou_background"] == 1
    assert now["pseudo_miou_wrong"] == pytest.approx((background + 3) / 4)
    assert now["ignored_share"] == pytest.approx(4 * 4 * 40 / (masks != 255).sum())
    assert table.loc["pseudo_miou_wrong", "by"] == pytest.approx(now["pseudo_miou_wrong"] - 0.9)
    assert np.isnan(table.loc["ignored_share", "recorded"])


def test_a_changed_mask_is_told_and_the_exit_code_says_so(runs, capsys):
    assert main([str(runs), RUN, "--within", "0.5"]) == 0
    path = runs / "05_pseudo_ground_truth" / RUN / "a0.png"
    save_mask(path, np.zeros((32, 40)))
    capsys.readouterr()
    assert main([str(runs), RUN, "--within", "0.5"]) == 1
    said = capsys.readouterr().out
    assert "1 of 12 differ" in said


def test_stages_that_a_run_shares_with_its_base_are_scored_and_those_of_other_runs_are_not(runs):
    source = stages.require(runs, "00_data")
    shares = f"{RUN}@resnet101-aspp"
    for run in (shares, "avg_1_seed0"):
        work = stages.open_stage({"runs": runs, **({})}, "07_evaluate", run, [source])
        folder = VOCFolder(source.record["root"])
        (work.folder / "single").mkdir()
        for image_id in folder.ids("val"):
            save_mask(work.folder / "single" / f"{image_id}.png", folder.mask(image_id) % 255)
        work.finish({"val_miou_single": 1.0}, per_class={"single": {}})
    table = rescore(runs, shares)
    assert list(dict.fromkeys(table["stage"])) == ["05_pseudo_ground_truth", "07_evaluate"]
    row = table[table["metric"] == "val_miou_single"].iloc[0]
    assert row["now"] == 1 and row["by"] == 0
    with pytest.raises(DataError, match=r"no complete stage of 'max_1_seed0\+maps'"):
        rescore(runs, f"{RUN}+maps")  # its pseudo ground truth is another than the run's


def test_a_number_that_can_no_longer_be_measured_differs(runs, tiny_voc, capsys):
    for mask in tiny_voc.rglob("SegmentationClass*/*.png"):
        mask.unlink()
    assert main([str(runs), RUN]) == 1
    assert "3 of 12 differ" in capsys.readouterr().out  # of four that are scored the record lacks one


def test_a_restored_run_has_no_files_to_score(runs, capsys):
    path = runs / "05_pseudo_ground_truth" / RUN / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"restored": True}))
    assert main([str(runs), RUN]) == 1
    assert f"delete these and run it again\n  - 05_pseudo_ground_truth/{RUN}" in capsys.readouterr().err


def test_a_run_that_is_not_there_is_named_beside_those_that_are(runs, capsys):
    assert main([str(runs), "max_1_seed1"]) == 1
    said = capsys.readouterr().err
    assert "max_1_seed1" in said and f"runs there: {RUN}" in said
    elsewhere = runs.with_name("misspelt")
    assert main([str(elsewhere), RUN]) == 1 and not elsewhere.exists()  # nothing is made there
