from __future__ import annotations

import runpy
import sys

import pytest
import tiny

from safn import backbones, trained
from safn.__main__ import main
from safn.segmentation import DeepLab


def test_a_sound_folder_is_told_with_its_counts(tiny_voc, capsys):
    (tiny_voc / "VOCdevkit/VOC2012/SegmentationClass/a7.png").unlink()
    assert main(["verify", str(tiny_voc)]) == 0
    out, err = capsys.readouterr()
    note, said = out.splitlines()
    assert said == "no problem found: train_aug 5 images (5 masks), val 3 images (2 masks), 3 classes" and err == ""
    assert note == "note: val.txt: only 2 of its 3 images have a mask: scores are of these"


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
    said = capsys.readouterr()
    assert (
        "image_labels.csv cannot be read: " in said.out + said.err and "save it as text in UTF-8" in said.out + said.err
    )


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


def test_photos_says_what_to_run_next(tiny_voc, tmp_path, capsys):
    images, out = tiny_voc / "VOCdevkit/VOC2012/JPEGImages", tmp_path / "data"
    assert main(["photos", str(images), str(tiny_voc / "image_labels.csv"), str(out), "--val-share", "0.3"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        f"{out}: train_aug 6 images, val 2 images. Next:",
        f"make book PROFILE=photos DATA={out}",
    ]
    assert main(["verify", str(out)]) == 0
    assert main(["photos", str(images), str(tiny_voc / "image_labels.csv"), str(out)]) == 1
    assert "exists: give another name" in capsys.readouterr().err


def test_predictions_of_a_run_become_an_archive(tiny_voc, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "tiny", tiny.backbone())
    run, base, out = tmp_path / "network", tiny_voc / "VOCdevkit/VOC2012", tmp_path / "predicted"
    trained.save(DeepLab("tiny", "aspp", 4), run, ["cat", "dog", "car"], 64)
    listed = base / "ImageSets/Segmentation/test.txt"
    listed.write_text("a5\na6\na7\n")
    predict = ["predict", str(run), str(base / "JPEGImages"), str(out), "--ids", str(listed), "--scales", "[1, 0.5]"]
    assert main(predict) == 0 and f"{out / 'multi'}: 3 masks" in capsys.readouterr().out
    archive = tmp_path / "safn.tar.gz"
    assert main(["archive", str(out / "multi"), str(tiny_voc), str(archive)]) == 0
    assert capsys.readouterr().out == f"{archive}: 3 masks\n" and archive.stat().st_size > 100
    (out / "multi/a6.png").unlink()
    assert main(["archive", str(out / "multi"), str(tiny_voc), str(tmp_path / "other")]) == 1
    assert "a6: no prediction" in capsys.readouterr().err and not (tmp_path / "other").exists()


@pytest.mark.parametrize("scales", ["[0]", "[3]", "[1, 1]", "[]", "one", '["1"]'])
def test_wrong_scales_are_refused_with_what_is_valid(scales, capsys):
    with pytest.raises(SystemExit):
        main(["predict", "run", "images", "out", "--scales", scales])
    assert f"argument --scales: {scales}: scales=" in (said := capsys.readouterr().err) and "valid: " in said


@pytest.mark.fault(28, "blanks in the name of a folder", "safn photos into my data")
def test_the_command_that_photos_prints_can_be_pasted(tiny_voc, tmp_path, capsys, happened):
    images, out = tiny_voc / "VOCdevkit/VOC2012/JPEGImages", tmp_path / "my data"
    assert main(["photos", str(images), str(tiny_voc / "image_labels.csv"), str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"make book PROFILE=photos DATA='{out}'"
    happened("no message: the command that it prints is quoted")


@pytest.mark.fault(
    29, "lists and tables in UTF-16, or with a byte order mark", "image_labels.csv and val.txt saved in each"
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_and_tables_may_have_a_byte_order_mark(tiny_voc, capsys, encoding, happened):
    for name in ("image_labels.csv", "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"):
        path = tiny_voc / name
        path.write_text(path.read_text(), encoding=encoding)
    assert main(["verify", str(tiny_voc)]) == 0
    assert "val 3 images (3 masks), 3 classes" in capsys.readouterr().out
    happened("no message: they are read")
