from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from safn.data import VOCFolder
from safn.datasets import own_images
from safn.files import DataError
from safn.images import load_mask, save_mask
from safn.verification import Findings, verify, verify_saliency


@pytest.fixture
def base(tiny_voc):
    return tiny_voc / "VOCdevkit" / "VOC2012"


def problems(root, *starts):
    """The problems of a folder, which must be as many as ``starts`` and begin with them, in order."""
    found = verify(VOCFolder(root)).problems
    assert len(found) == len(starts) and all(map(str.startswith, found, starts)), found
    return found


@pytest.mark.fault(1, "truncated photo", "a JPEG cut after 2, 50 and 95 % of its bytes")
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_a_truncated_photo_is_named_by_verify_and_on_reading(tiny_voc, base, share, happened):
    path = base / "JPEGImages/a6.jpg"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    (line,) = problems(tiny_voc, "a6: ")
    with pytest.raises(DataError, match=r"a6\.jpg cannot be read"):
        VOCFolder(tiny_voc).image("a6")
    happened(f"before any training: {line}")


@pytest.mark.parametrize("share", [0.05, 0.6])
def test_a_truncated_mask_is_named(tiny_voc, base, share):
    path = base / "SegmentationClass/a6.png"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    (line,) = problems(tiny_voc, "a6: ")
    assert "a6.png cannot be read" in line


@pytest.mark.fault(2, "mask of another size, in RGB, or with unknown ids", "three such masks written")
def test_wrong_masks_are_named_with_shape_mode_and_values(tiny_voc, base, happened):
    folder = base / "SegmentationClass"
    Image.new("RGB", (40, 32)).save(folder / "a0.png")
    save_mask(folder / "a1.png", np.zeros((40, 32)))
    save_mask(folder / "a2.png", np.resize([0, 4, 21, 254, 255], (32, 40)))
    save_mask(folder / "a3.png", np.resize([0, 3, 255], (32, 40)))  # all valid
    lines = problems(tiny_voc, "a0: ", "a1: mask is 32x40, photo is 40x32", "a2: mask holds ids [4, 21, 254]")
    assert "mode RGB" in lines[0] and "valid are 0-3 and 255" in lines[2]
    happened("; ".join(lines[1:]))


def test_an_upright_photo_is_compared_with_its_mask(tiny_voc, base):
    exif = Image.Exif()
    exif[0x0112] = 8
    with Image.open(base / "JPEGImages/a0.jpg") as image:
        turned = image.transpose(Image.Transpose.ROTATE_270)
    turned.save(base / "JPEGImages/a0.jpg", exif=exif)
    assert turned.size == (32, 40) and verify(VOCFolder(tiny_voc)).problems == []


@pytest.mark.fault(17, "id listed twice, id in training and in validation", "both written into the lists")
def test_repeated_overlapping_and_unlabelled_ids_are_named(tiny_voc, base, happened):
    lists = base / "ImageSets/Segmentation"
    (lists / "train_aug.txt").write_text("a0\na1\na1\nzz\n")
    (lists / "val.txt").write_text("a5\na0\n")
    lines = problems(
        tiny_voc,
        "train_aug.txt: a1 is listed more than once",
        "a0: in train_aug.txt and in val.txt",
        "zz: no valid row in image_labels.csv; the classes are cat, dog, car",
        "zz: ",
    )
    happened("; ".join(lines[:2]))


@pytest.mark.fault(17, "empty split", "a list of empty lines")
def test_an_empty_split_is_an_error(tiny_voc, base, happened):
    (base / "ImageSets/Segmentation/val.txt").write_text("\n\n")
    (line,) = verify(VOCFolder(tiny_voc)).problems
    assert "val.txt is empty" in line
    with pytest.raises(DataError, match="val.txt is empty"):
        VOCFolder(tiny_voc).ids("val")
    happened(line)


@pytest.mark.fault(
    3, "id without labels, row of the wrong length, value that is no label", "such rows in image_labels.csv"
)
def test_wrong_rows_of_the_label_table_are_named_with_the_classes(tiny_voc, happened):
    table = tiny_voc / "image_labels.csv"
    rows = table.read_text().splitlines()
    rows[1], rows[2], rows[3], rows[4] = "a0,1,0", "a1,0,1,0,1", "a2,0,0,2", "a3,1,,dog"
    table.write_text("\n".join([*rows, "a4,0,1,0"]) + "\n")
    found = verify(VOCFolder(tiny_voc)).problems
    assert [line for line in found if line.startswith("image_labels.csv")] == [
        "image_labels.csv: a0 has 2 labels for the 3 classes cat, dog, car",
        "image_labels.csv: a1 has 4 labels for the 3 classes cat, dog, car",
        "image_labels.csv: a2 has labels ['2']; valid are 0 and 1",
        "image_labels.csv: a3 has labels ['', 'dog']; valid are 0 and 1",
        "image_labels.csv: a4 has more than one row: keep one",
    ]
    with pytest.raises(DataError, match="a0 has no valid row"):
        VOCFolder(tiny_voc).label("a0")
    assert "a0: no valid row in image_labels.csv; the classes are cat, dog, car" in found
    happened("; ".join(found[:2]))


def test_labels_too_many_in_every_row_do_not_become_other_labels(tiny_voc):
    table = tiny_voc / "image_labels.csv"
    head, *rows = table.read_text().splitlines()
    table.write_text("\n".join([head, *(f"{row},1" for row in rows)]))
    assert VOCFolder(tiny_voc).labels == {}
    assert sum("has 4 labels for the 3 classes" in line for line in verify(VOCFolder(tiny_voc)).problems) == 8


def notes(root, *starts):
    """Verify a folder without a problem, whose notes must be as many as ``starts`` and begin with them, in order."""
    found = verify(VOCFolder(root))
    assert found.problems == [] and len(found.notes) == len(starts), found
    assert all(map(str.startswith, found.notes, starts)), found.notes
    return found.notes


def write_labels(root, header, label):
    """Write ``image_labels.csv`` for a0 to a7: the row of image k is ``label(k)``."""
    rows = [f"a{k}," + ",".join(str(int(value)) for value in label(k)) for k in range(8)]
    (root / "image_labels.csv").write_text("\n".join([f"id,{header}", *rows]) + "\n")


# Values in their range, meaning outside it


@pytest.mark.fault(
    21, "label columns in another order than the ids of the masks", "the header of image_labels.csv turned"
)
def test_labels_in_another_order_than_the_masks_are_a_problem(tiny_voc, happened):
    table = tiny_voc / "image_labels.csv"
    table.write_text(table.read_text().replace("id,cat,dog,car", "id,dog,car,cat"))
    assert verify(VOCFolder(tiny_voc)).problems == [], "names alone are what the user calls the columns"
    write_labels(tiny_voc, "dog,car,cat", lambda k: [(k - 1) % 3 == c for c in range(3)])
    (line,) = problems(tiny_voc, "8 of 8 masks show other classes than image_labels.csv, [")
    assert line.endswith(
        "column dog fits the masks of id 2, not 1; column car fits the masks of id 3, not 2; "
        "column cat fits the masks of id 1, not 3 (first: a0)"
    )
    happened(line)


@pytest.mark.fault(21, "two label columns in the place of each other", "the columns of cat and dog swapped")
def test_two_swapped_columns_are_a_problem_that_names_them(tiny_voc, base, happened):
    shown = [{0}, {1}, {2}, {0, 1}, {1}, {2}, {0, 1}, {1}]  # of the masks of a0 to a7
    write_labels(tiny_voc, "cat,dog,car", lambda k: [c in shown[k] for c in (1, 0, 2)])
    (line,) = problems(tiny_voc, "4 of 8 masks show other classes than image_labels.csv, [1] instead of [2]: ")
    assert line.endswith(
        "column cat fits the masks of id 2, not 1; column dog fits the masks of id 1, not 2 (first: a0)"
    )
    happened(line)
    for name, ids in {"train_aug": "a0\na1\na2\na3", "val": "a6"}.items():  # of them four show a cat or a dog
        (base / f"ImageSets/Segmentation/{name}.txt").write_text(ids)
    assert "column cat fits the masks of id 2, not 1; " in notes(tiny_voc, "2 of 5 masks show other classes")[0]


@pytest.mark.fault(21, "ids of the masks larger by one than the columns of the labels", "such masks for all images")
def test_ids_that_begin_one_later_are_a_problem(tiny_voc, base, happened):
    for path in (base / "SegmentationClass").iterdir():
        mask = load_mask(path)
        save_mask(path, np.where((mask > 0) & (mask < 255), mask + 1, mask))
    *unknown, line = problems(tiny_voc, "a2: mask holds ids [4]; valid are 0-3 and 255", "a5: ", "8 of 8 masks show")
    assert "column cat fits the masks of id 2, not 1; column dog fits the masks of id 3, not 2 (" in line
    happened(line)


def test_a_class_whose_masks_are_drawn_as_another_is_no_swap_where_both_fit(tiny_voc, base):
    """Half of the dogs are drawn as cats, but the masks of cats still fit the cats best."""
    for image_id in ("a1", "a4"):
        mask = load_mask(base / f"SegmentationClass/{image_id}.png")
        save_mask(base / f"SegmentationClass/{image_id}.png", np.where(mask == 2, 1, mask))
    (line,) = notes(tiny_voc, "2 of 8 masks show other classes than image_labels.csv, [1] instead of [2]")
    assert "are its columns in the order of the ids?" in line


@pytest.mark.fault(21, "one class whose masks hold 0 and 255, not 0 and 1", "such masks for all images")
def test_masks_whose_only_class_is_void_are_a_problem(tiny_voc, base, happened):
    write_labels(tiny_voc, "cat", lambda k: [1])
    for k in range(8):
        Image.fromarray(np.tile(np.uint8([0, 255]), (32, 20))).save(base / f"SegmentationClass/a{k}.png")
    line, *_ = problems(tiny_voc, "8 of 8 masks show other classes than image_labels.csv, [] instead of [1]")
    happened(line)


@pytest.mark.fault(21, "masks without a background", "void where 0 should be, and 0 and 1 in the place of each other")
@pytest.mark.parametrize(("outside", "inside"), [(255, 1), (1, 0)])
def test_masks_whose_background_is_not_0_are_a_note(tiny_voc, base, outside, inside, happened):
    write_labels(tiny_voc, "cat", lambda k: [1])
    mask = np.full((32, 40), outside)
    mask[8:24, 10:30] = inside
    for k in range(8):
        save_mask(base / f"SegmentationClass/a{k}.png", mask)
    text = "masks show no less of their classes at the border than inside: is 0 the background?"
    line, _ = notes(tiny_voc, f"8 of 8 {text} (first: a0)", "class cat: every training image shows it")
    happened(line)


def test_labels_and_masks_that_differ_in_some_images_are_a_note_or_nothing(tiny_voc):
    table = tiny_voc / "image_labels.csv"
    before = table.read_text()
    table.write_text(before.replace("a0,1,0,0", "a0,1,1,0"))  # one of eight, with a class in common
    notes(tiny_voc)
    table.write_text(before.replace("a0,1,0,0", "a0,0,1,0"))  # nothing in common
    (line,) = notes(tiny_voc, "1 of 8 masks show other classes than image_labels.csv, [1] instead of [2]")
    assert line.endswith("(first: a0)")
    table.write_text(before.replace("a0,1,0,0", "a0,1,1,0").replace("a1,0,1,0", "a1,1,1,0"))
    notes(tiny_voc, "2 of 8 masks show other classes than image_labels.csv, [1] instead of [1, 2]")


@pytest.mark.fault(21, "more classes than a mask has ids", "a table of 255 classes")
def test_more_classes_than_ids_are_refused_wherever_the_table_is_read(tiny_voc, tmp_path, happened):
    names = ",".join(f"c{k}" for k in range(255))
    (tiny_voc / "image_labels.csv").write_text(f"id,{names}\n")
    with pytest.raises(DataError, match="255 classes; valid: up to 254") as error:
        VOCFolder(tiny_voc)
    with pytest.raises(DataError, match="255 classes; valid: up to 254"):
        own_images.prepare(tiny_voc / "VOCdevkit/VOC2012/JPEGImages", tiny_voc / "image_labels.csv", tmp_path / "out")
    (tiny_voc / "image_labels.csv").write_text(f"id,{names.removesuffix(',c254')}\n")
    assert len(VOCFolder(tiny_voc).classes) == 254
    happened(error.value)


@pytest.mark.fault(
    21, "class called background, void, or nothing at all", "such names in the header of image_labels.csv"
)
@pytest.mark.parametrize("name", ["background", "Void", ""])
def test_a_name_that_is_taken_is_refused(tiny_voc, name, happened):
    (tiny_voc / "image_labels.csv").write_text(f"id,cat,{name}\na0,1,0\n")
    with pytest.raises(DataError, match=f"names a class {name!r}; give it another name") as error:
        VOCFolder(tiny_voc)
    happened(error.value)


@pytest.mark.fault(21, "SegmentationClassAug beside a different SegmentationClass", "other masks in the second folder")
def test_two_folders_of_masks_are_compared(tiny_voc, base, happened):
    (base / "SegmentationClassAug").mkdir()
    folder = VOCFolder(tiny_voc)
    for image_id in ("a0", "a1"):
        save_mask(base / f"SegmentationClassAug/{image_id}.png", load_mask(base / f"SegmentationClass/{image_id}.png"))
    notes(tiny_voc)  # the palettes differ, the ids do not
    mask = folder.mask("a1")
    save_mask(base / "SegmentationClassAug/a1.png", np.where(mask == 255, 0, mask))
    (line,) = notes(tiny_voc, "1 of 8 masks differ between SegmentationClassAug, which counts, and SegmentationClass")
    happened(line)


@pytest.mark.fault(21, "masks for a part of the validation images", "two of three masks removed")
def test_masks_for_a_part_of_the_images_are_a_note(tiny_voc, base, happened):
    for image_id in ("a5", "a7"):
        (base / f"SegmentationClass/{image_id}.png").unlink()
    (line,) = notes(tiny_voc, "val.txt: only 1 of its 3 images have a mask: scores are of these")
    happened(line)


@pytest.mark.fault(21, "a class that no image shows, or every one", "such columns in image_labels.csv")
def test_classes_that_no_image_or_every_image_shows_are_notes(tiny_voc, base, happened):
    write_labels(tiny_voc, "cat,dog,car,bus", lambda k: [1, k == 1, k > 4, k % 2])
    for path in (base / "SegmentationClass").iterdir():
        path.unlink()
    lines = notes(
        tiny_voc,
        "class cat: every training image shows it, so it cannot be learnt",
        "class car: no training image shows it, so it cannot be learnt",
    )
    happened("; ".join(lines))


@pytest.mark.fault(23, "damaged JPEG that can still be read", "an end mark in the middle of its data")
def test_what_the_decoder_says_of_a_damaged_photo_is_a_note(tiny_voc, base, happened):
    path = base / "JPEGImages/a2.jpg"
    content = path.read_bytes()
    middle = len(content) * 2 // 3
    path.write_bytes(content[:middle] + b"\xff\xd9" + content[middle + 2 :])
    assert VOCFolder(tiny_voc).image("a2").size == (40, 32)
    (line,) = notes(tiny_voc, "a2.jpg can be read, but is damaged (Corrupt JPEG data: ")
    happened(line)


@pytest.mark.fault(21, "masks of photos that EXIF turns", "orientations 3 and 6")
def test_masks_of_turned_photos_are_told(tiny_voc, base, happened):
    exif = Image.Exif()
    for image_id, exif[0x0112] in (("a0", 3), ("a1", 6)):
        path = base / f"JPEGImages/{image_id}.jpg"
        Image.open(path).save(path, exif=exif)
    found = verify(VOCFolder(tiny_voc))
    assert found.problems == ["a1: mask is 40x32, photo is 32x40, upright"]
    assert found.notes == [
        "1 of 8 masks fit their photo whether they are turned by its EXIF or not: look at one (first: a0)"
    ]
    happened("; ".join(found.problems + found.notes))


@pytest.mark.parametrize("image_id", ["x/a0", ".a0"])
def test_an_id_that_is_a_path_or_hidden_is_a_problem(tiny_voc, base, image_id):
    (base / "ImageSets/Segmentation/val.txt").write_text(f"a5\n{image_id}\n")
    assert (
        f"val.txt: {image_id} is a path or hidden: an id is the name of a file" in verify(VOCFolder(tiny_voc)).problems
    )


def test_broken_links_are_problems_among_others(tiny_voc, base):
    for path in (base / "JPEGImages/a1.jpg", base / "SegmentationClass/a3.png"):
        path.unlink()
        path.symlink_to("nowhere")
    first, second = problems(tiny_voc, "a1: ", "a3: ")
    assert "a1.jpg cannot be read: " in first and "a3.png cannot be read: " in second


def test_real_photographs_raise_no_false_alarm(voc12):
    folder = VOCFolder(voc12)
    folder.ids = lambda split, limit=0, ids=folder.ids: ids(split, 60)
    assert verify(folder) == Findings()


# Saliency maps


def write_maps(folder, root, change=lambda values: values, **options):
    """Write a map of each training image: its classes are white. ``change`` is applied to its values, uint8."""
    root.mkdir(exist_ok=True)
    for image_id in folder.ids("train_aug"):
        white = np.where(folder.mask(image_id) > 0, 255, 0).astype(np.uint8)
        Image.fromarray(change(white)).save(root / f"{image_id}.png", **options)
    return root


def test_sound_saliency_maps_are_neither_a_problem_nor_a_note(tiny_voc, tmp_path):
    folder = VOCFolder(tiny_voc)
    maps = write_maps(folder, tmp_path / "maps", lambda values: values[::2, ::2])
    assert verify_saliency(folder, folder.ids("train_aug"), maps) == Findings() == verify(folder, maps)


@pytest.mark.fault(21, "saliency maps of 0 and 1 instead of 0 to 255", "such maps of all images")
def test_saliency_maps_of_another_range_are_a_problem(tiny_voc, tmp_path, happened):
    folder = VOCFolder(tiny_voc)
    ids = folder.ids("train_aug")
    found = verify_saliency(folder, ids, write_maps(folder, tmp_path / "maps", lambda values: values // 255))
    assert found.problems == ["no value of 5 saliency maps is above 1 of 255: scale them to 0 to 255"]
    happened(found.problems[0])
    few = verify_saliency(folder, ids[:2], write_maps(folder, tmp_path / "maps", lambda values: values // 4))
    assert (few.problems, len(few.notes)) == ([], 1) and "above 63 of 255" in few.notes[0]


@pytest.mark.fault(21, "inverted saliency maps", "black objects before a white background")
def test_inverted_saliency_maps_are_a_problem(tiny_voc, tmp_path, happened):
    folder = VOCFolder(tiny_voc)
    maps = write_maps(folder, tmp_path / "maps", lambda values: 255 - values)
    (line,) = verify(folder, maps).problems
    text = "saliency maps are not brighter inside than at the border: what stands out is white"
    assert line == f"5 of 5 {text} (first: a0)"
    happened(line)
    maps = write_maps(folder, tmp_path / "maps", lambda values: values | 255)
    assert verify(folder, maps).problems == [line], "maps of one value"


@pytest.mark.fault(21, "saliency map of another side ratio than its photo", "one of five maps turned")
def test_stretched_missing_and_unreadable_maps_are_told(tiny_voc, tmp_path, happened):
    folder = VOCFolder(tiny_voc)
    maps = write_maps(folder, tmp_path / "maps")
    Image.open(maps / "a1.png").transpose(Image.Transpose.ROTATE_90).save(maps / "a1.png")
    (maps / "a2.png").unlink()
    Image.new("RGB", (40, 32), (200, 10, 10)).save(maps / "a3.png")
    (maps / "a4.png").unlink()
    (maps / "a4.png").symlink_to("nowhere")
    found = verify_saliency(folder, folder.ids("train_aug"), maps)
    assert [line.split(":")[0] for line in found.problems] == ["a3", "a4"] and "a4.png" in found.problems[1]
    missing, stretched = found.notes
    assert missing == f"1 of 5 saliency maps are missing in {maps} (first: a2)"
    assert (
        stretched
        == "1 of 4 saliency maps have another side ratio than their photo: they are stretched to it (first: a1)"
    )
    happened(stretched)
    (line,) = verify(folder, tmp_path / "nowhere").problems
    assert line.startswith("5 of 5 saliency maps are missing in ")


def test_real_saliency_maps_raise_no_false_alarm(voc12):
    maps = voc12.parent / "trained" / "01_saliency"
    folder = VOCFolder(voc12)
    if not maps.is_dir():
        pytest.skip("no saliency maps of photographs")
    assert verify_saliency(folder, folder.ids("train_aug", 100), maps) == Findings()
