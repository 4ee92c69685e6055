from __future__ import annotations

import runpy
import sys

import pytest

from safn.__main__ import main


def test_a_sound_folder_is_told_with_its_counts(tiny_voc, capsys):
    (tiny_voc / "VOCdevkit/VOC2012/SegmentationClass/a7.png").unlink()
    assert main(["verify", str(tiny_voc)]) == 0
    out, err = capsys.readouterr()
    assert out == "no problem found: train_aug 5 images (5 masks), val 3 images (2 masks), 3 classes\n" and err == ""


def test_every_problem_is_a_line(tiny_voc, capsys):
    base = tiny_voc / "VOCdevkit/VOC2012"
    photo = base / "JPEGImages/a1.jpg"
    photo.write_bytes(photo.read_bytes()[:200])
    (base / "JPEGImages/a6.jpg").unlink()
    lists = base / "ImageSets/Segmentation"
    (lists / "val.txt").write_text("a5\na6\na0\n")
    assert main(["verify", str(tiny_voc)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["a0", "a1", "a6"]


@pytest.mark.parametrize("broken", ["no folder", "no table", "no list"])
def test_what_is_not_there_is_said_without_traceback(tiny_voc, capsys, broken):
    root = tiny_voc / "nowhere" if broken == "no folder" else tiny_voc
    if broken == "no table":
        (tiny_voc / "image_labels.csv").unlink()
    if broken == "no list":
        (tiny_voc / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").unlink()
    assert main(["verify", str(root)]) == 1
    said = "".join(capsys.readouterr())
    assert ("val.txt is missing" if broken == "no list" else "image_labels.csv is missing") in said
    assert said.count("\n") == 1


def test_a_table_that_is_no_text_is_said_without_traceback(tiny_voc, capsys):
    (tiny_voc / "image_labels.csv").write_bytes(b"id,\xff\xfe\n")
    assert main(["verify", str(tiny_voc)]) == 1
    assert "utf-8" in capsys.readouterr().err


def test_the_command_line_gives_the_exit_code(tiny_voc, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "safn.__main__", raising=False)
    for arguments, code in (
        (["verify", str(tiny_voc)], 0),
        (["verify", str(tiny_voc / "x")], 1),
        (["check"], 2),
        ([], 2),
    ):
        monkeypatch.setattr(sys, "argv", ["safn", *arguments])
        with pytest.raises(SystemExit) as end:
            runpy.run_module("safn", run_name="__main__")
        assert end.value.code == code
    assert "no problem found" in capsys.readouterr().out
