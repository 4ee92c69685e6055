"""VOC 2012 and SBD, downloaded by torchvision, completed to the VOC layout, and what its evaluation server takes."""

import gzip
import io
import tarfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
from tqdm import tqdm

from safn.data import VOC_CLASSES, read_text
from safn.files import DataError, write_csv, write_file
from safn.images import image_head, opened, save_mask

COUNTS = {"train": 1464, "val": 1449, "train_aug": 10582}
SERVER_FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"
Lists = dict[str, list[str]]  # ids of train, val and train_aug


def prepare(root: Path | str, download: bool = False) -> None:
    """Complete ``root`` (what torchvision calls root; SBD in ``root/sbd``) to the layout of ``data.VOCFolder``.

    The labels come from the annotations: masks would leak pixel supervision. ``train_aug.txt`` is written last.

    Args:
        download: fetch both archives with torchvision, which checks their MD5.

    Raises:
        DataError: listing every list that has not the official length, and every missing file.
    """
    root = Path(root)
    if download:
        fetch(root)
    base = root / "VOCdevkit" / "VOC2012"
    masks = root / "sbd" / "cls"
    lists = official_lists(root)
    problems = wrong_counts(lists) + [f"{path} is missing" for path in missing_files(base, masks, lists)]
    if problems:
        raise DataError.from_problems(f"{root}: the download is incomplete:", problems)
    rows: list[list] = [["id", *VOC_CLASSES]]
    for image_id in sorted({*lists["train_aug"], *lists["val"]}):
        rows.append([image_id, *xml_labels(base / "Annotations" / f"{image_id}.xml")])
    write_csv(root / "image_labels.csv", rows)
    write_masks(base, masks, lists)
    listed = "\n".join(lists["train_aug"]) + "\n"
    write_file(base / "ImageSets" / "Segmentation" / "train_aug.txt", listed.encode())


def fetch(root: Path) -> None:
    """Download, check and unpack both archives with torchvision. May be repeated.

    Raises:
        DataError: SBD was unpacked in part, over which torchvision cannot unpack it again.
    """
    from torchvision.datasets import SBDataset, VOCSegmentation

    VOCSegmentation(str(root), year="2012", image_set="trainval", download=True)
    sbd = root / "sbd"
    if (sbd / "val.txt").exists():  # what torchvision moves into place last: SBD is complete
        return
    if parts := [name for name in ("cls", "img", "inst", "train.txt") if (sbd / name).exists()]:
        raise DataError(f"{sbd} was unpacked in part: remove {', '.join(parts)} in it, then repeat")
    SBDataset(str(sbd), "train", "segmentation", download=True)


def official_lists(root: Path) -> Lists:
    """Return VOC's train and val, and train_aug: VOC train, SBD train and SBD val without VOC val, sorted.

    Raises:
        DataError: naming every list that is missing.
    """
    folder, sbd = root / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation", root / "sbd"
    paths = [folder / "train.txt", folder / "val.txt", sbd / "train.txt", sbd / "val.txt"]
    if problems := [f"{path} is missing" for path in paths if not path.is_file()]:
        raise DataError.from_problems(f"{root}: the download is incomplete (download=True fetches it):", problems)
    train, val, sbd_train, sbd_val = (read_text(path).split() for path in paths)
    return {"train": train, "val": val, "train_aug": sorted({*train, *sbd_train, *sbd_val} - {*val})}


def wrong_counts(lists: Lists) -> list[str]:
    """List where a list has not so many different ids as the official one."""
    found = {name: len(set(ids)) for name, ids in lists.items()}
    return [f"{name}: {n} ids, the official list has {COUNTS[name]}" for name, n in found.items() if n != COUNTS[name]]


def missing_files(base: Path, masks: Path, lists: Lists) -> list[Path]:
    """Return photographs, annotations and masks that the lists name and that are not there."""
    official = {*lists["train"], *lists["val"]}
    paths = []
    for i in sorted({*official, *lists["train_aug"]}):
        paths.append(base / "JPEGImages" / f"{i}.jpg")
        paths.append(base / "Annotations" / f"{i}.xml")
        paths.append(base / "SegmentationClass" / f"{i}.png" if i in official else masks / f"{i}.mat")
    return [path for path in paths if not path.exists()]


def xml_labels(path: Path) -> list[int]:
    """Return 0/1 for each of the 20 classes: what the annotation names, objects marked difficult included.

    Raises:
        DataError: the annotation names another class.
    """
    names = {element.findtext("name") for element in ElementTree.parse(path).getroot().iter("object")}
    if unknown := sorted(map(str, names - set(VOC_CLASSES))):
        raise DataError(f"{path.name} names {unknown}; valid: {', '.join(VOC_CLASSES)}")
    return [int(name in names) for name in VOC_CLASSES]


def write_masks(base: Path, masks: Path, lists: Lists) -> None:
    """Write SBD's masks, which have no void border, to ``SegmentationClassAug``, except where VOC has its own."""
    from scipy.io import loadmat

    out = base / "SegmentationClassAug"
    out.mkdir(exist_ok=True)
    official = {*lists["train"], *lists["val"]}
    for image_id in tqdm([i for i in lists["train_aug"] if i not in official], "masks"):
        content = loadmat(masks / f"{image_id}.mat", mat_dtype=False)
        mask = content["GTcls"][0]["Segmentation"][0]
        save_mask(out / f"{image_id}.png", mask.astype(np.uint8))


def archive_test_set(predictions: Path | str, root: Path | str, out: Path | str) -> int:
    """Archive ``predictions/<id>.png`` as the ``tar.gz`` that the evaluation server takes (Sec. IV-A); returns how many.

    The ids are those of the official test list of ``root``, which holds ``VOCdevkit``. The same predictions give the same
    bytes.

    Raises:
        DataError: listing what is wrong with each prediction. Nothing is written then.
    """
    predictions, base = Path(predictions), Path(root) / "VOCdevkit" / "VOC2012"
    test = base / "ImageSets" / "Segmentation" / "test.txt"
    if not test.is_file():
        raise DataError(f"{test} is missing: it comes with VOC's test data, from the evaluation server")
    paths = {i: predictions / f"{i}.png" for i in sorted(read_text(test).split())}
    if not paths:
        raise DataError(f"{test} is empty: it lists the ids of VOC's test images")
    wrong = {i: _wrong(path, base / "JPEGImages" / f"{i}.jpg") for i, path in paths.items()}
    if problems := [f"{i}: {problem}" for i, problem in wrong.items() if problem]:
        raise DataError.from_problems(f"{predictions}: {len(problems)} problems, no archive was written:", problems)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for image_id, path in paths.items():
            entry = tarfile.TarInfo(f"{SERVER_FOLDER}/{image_id}.png")
            entry.size = path.stat().st_size  # owner, time and mode stay those of TarInfo, not of this machine
            with path.open("rb") as png:
                archive.addfile(entry, png)
    write_file(Path(out), gzip.compress(content.getvalue(), mtime=0))
    return len(paths)


def _wrong(path: Path, photo: Path) -> str:
    """What the server would reject in a prediction, or an empty text."""
    if not path.exists():
        return "no prediction"
    try:
        width, height = image_head(photo)[0]
        with opened(path) as image:
            kind, mode, size, ids = image.format, image.mode, image.size, np.unique(np.array(image))
    except DataError as error:
        return str(error)
    if (kind, mode) != ("PNG", "P"):
        return f"{kind} of mode {mode} instead of an indexed PNG (mode P)"
    problems = []
    if size != (width, height):
        problems.append(f"{size[0]}x{size[1]} pixels, the photo has {width}x{height}")
    if wrong := ids[ids > len(VOC_CLASSES)].tolist():
        problems.append(f"ids {wrong}; valid are 0-{len(VOC_CLASSES)}")
    return ", and ".join(problems)
