from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from safn_book import records
from safn_book.records import Input, changes, fingerprint, listing, request
from safn_book.run_names import Stage


def write(runs: Path, stage: str, run: str, **record) -> Input:
    folder = runs / stage / run
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(record))
    return Input(folder, record)


def test_the_fingerprint_depends_on_names_and_contents_alone(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    for folder, names in ((a, ("1", "2")), (b, ("2", "1"))):
        (folder / "sub").mkdir(parents=True)
        for name in names:
            (folder / "sub" / name).write_text(name)
    (b / "record.json").write_text("{}")
    (b / ".begun").write_text("{}")
    (b / "training.log").write_text("epoch 1/3, 12.3 img/s")
    os.utime(b / "sub" / "1", (0, 0))
    same = fingerprint(a)
    assert len(same) == 16 and fingerprint(b) == same
    (b / "sub" / "1").write_text("2")
    changed = fingerprint(b)
    (b / "sub" / "1").write_text("1")
    (b / "sub" / "1").rename(b / "sub" / "3")
    assert len({same, changed, fingerprint(b)}) == 3


def test_the_listing_of_a_data_folder_changes_with_what_stage_00_reads(tiny_voc):
    before = listing(tiny_voc)
    (tiny_voc / "notes.txt").write_text("mine")
    assert listing(tiny_voc) == before
    photo = tiny_voc / "VOCdevkit" / "VOC2012" / "JPEGImages" / "a0.jpg"
    os.utime(photo, (0, 0))
    touched = listing(tiny_voc)
    (tiny_voc / "VOCdevkit" / "VOC2012" / "SegmentationClass" / "a0.png").unlink()
    assert len({before, touched, listing(tiny_voc)}) == 3


def test_a_moved_data_folder_has_the_same_listing(tiny_voc, tmp_path):
    before = listing(tiny_voc)
    assert listing(Path(shutil.move(tiny_voc, tmp_path / "moved"))) == before


def test_all_finished_stages_are_read_in_their_order(tmp_path):
    for stage, run in ((Stage.MAPS, "max_1_seed0"), (Stage.DATA, "default"), (Stage.MAPS, "max_1_seed1.partial")):
        write(tmp_path, stage, run)
    (tmp_path / Stage.MAPS / "max_1_seed2").mkdir()
    assert [stage.name for stage in records.read_all(tmp_path)] == [
        "00_data/default",
        "04_localization_maps/max_1_seed0",
    ]
    assert records.read(tmp_path, Stage.MAPS, "max_1_seed2") is None and records.read(tmp_path, Stage.SCALES) is None


MADE = {
    "parameters": {"runs": "/here", "epochs": 6, "scales": [1, 0.5]},
    "inputs": {"00_data/default": "f0"},
    "content": {"00_data/default": "d0"},
}


@pytest.mark.parametrize(
    ("part", "value", "differs"),
    [
        ("parameters", {"runs": "/elsewhere", "epochs": 6, "scales": [1.0, 0.5]}, False),  # moved or copied
        ("parameters", {"epochs": 6, "added_later": 3}, False),
        ("parameters", {"epochs": 7}, True),
        ("inputs", {"00_data/default": "f1"}, True),
        ("content", {"00_data/default": "d1"}, True),  # other photographs of the same names
        ("content", {}, False),
    ],
)
def test_what_is_asked_for_is_compared_by_content(part, value, differs):
    assert bool(changes(MADE, MADE | {part: value})) == differs


def test_a_record_of_an_older_version_knows_nothing_of_contents():
    older = {key: value for key, value in MADE.items() if key != "content"}
    assert changes(older, MADE) == []


def test_a_change_names_both_values():
    (text,) = changes(MADE, MADE | {"parameters": {"epochs": 8}})
    assert "epochs" in text and "6" in text and "8" in text


def test_a_request_holds_the_data_and_the_users_own_folders(tmp_path):
    source = write(tmp_path, Stage.DATA, "default", fingerprint="f0", data="d0")
    (tmp_path / "saliency").mkdir()
    parameters = {"saliency_folder": str(tmp_path / "saliency"), "scales": (1.0, 0.5)}
    before = request(parameters, [source])
    assert before["parameters"]["scales"] == [1.0, 0.5] and before["inputs"] == {"00_data/default": "f0"}
    assert before["content"]["00_data/default"] == "d0"
    (tmp_path / "saliency" / "a.png").write_bytes(b"a")
    assert changes(before, request(parameters, [source]))
