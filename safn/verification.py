"""Whether the sources of a data folder agree: lists, image labels, photographs, masks and saliency maps."""

import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from safn.data import VOCFolder
from safn.files import DataError
from safn.images import decoder_warning, image_head, load_grey, load_image, load_mask
from safn.metrics import VOID

NEARLY_ALL, FEW = 0.9, 5  # a share of the images that is no coincidence, unless they are fewer
MANY = 0.2  # of the images. SBD's masks lack objects: 0.065 of them differ from VOC's labels
BRIGHT = 128  # of 255: in any set of saliency maps some pixel has it
TURNED = "masks fit their photo whether they are turned by its EXIF or not: look at one"
INVERTED = "masks show no less of their classes at the border than inside: is 0 the background?"
TWICE = "masks differ between SegmentationClassAug, which counts, and SegmentationClass: keep one"


@dataclass
class Findings:
    """What is wrong with a data set, and what is odd about it: one a line with id, value and remedy."""

    problems: list[str] = field(default_factory=list)  #: no stage begins with them
    notes: list[str] = field(default_factory=list)  #: to be known beside a score

    def judge(self, ids: list[str], total: int, text: str, many: float = 0, nearly_all: float = 1) -> None:
        """Add what holds for more than ``many`` of the images as a note, for more than ``nearly_all`` as a problem."""
        if len(ids) > many * total:
            certain = len(ids) > nearly_all * total and total >= FEW
            (self.problems if certain else self.notes).append(f"{len(ids)} of {total} {text} (first: {ids[0]})")

    def settle(self, source: Path) -> None:
        """Print the notes, and raise a ``DataError`` that lists the problems of ``source``, where there are any."""
        for note in self.notes:
            print(f"note: {note}")
        if self.problems:
            raise DataError.from_problems(f"{source}: {len(self.problems)} problems", self.problems)


def verify(folder: VOCFolder, saliency: Path | None = None) -> Findings:
    """Read every image and mask of the lists of a data folder, and compare the sources image by image.

    With ``saliency``, a folder of maps ``<id>.png`` of the training images, these as well.
    """
    found = Findings(list(folder.table_problems))
    train, val = _read_lists(folder, found)
    masks: dict[str, set[int]] = {}
    odd: dict[str, list[str]] = defaultdict(list)
    for image_id in dict.fromkeys(train + val):
        masks |= _verify_image(folder, image_id, found, odd)
    _compare_labels(folder, masks, found)
    for text, ids in odd.items():
        found.judge(ids, len(masks), text, NEARLY_ALL if text is INVERTED else 0)
    found.notes += class_notes(folder, train)
    if 0 < (masked := len(folder.with_mask(val))) < len(val):
        found.notes.append(f"val.txt: only {masked} of its {len(val)} images have a mask: scores are of these")
    return verify_saliency(folder, train, saliency, found) if saliency else found


def _read_lists(folder: VOCFolder, found: Findings) -> list[list[str]]:
    lists: list[list[str]] = []
    for split in ("train_aug", "val"):
        try:
            ids = folder.ids(split)
        except DataError as error:
            found.problems.append(f"{error}: list the ids of the split in it, one a line")
            ids = []
        repeated = sorted(i for i, count in Counter(ids).items() if count > 1)
        found.problems += [f"{split}.txt: {i} is listed more than once: keep one line" for i in repeated]
        paths = [i for i in ids if "/" in i or i.startswith(".")]
        found.problems += [f"{split}.txt: {i} is a path or hidden: an id is the name of a file" for i in paths]
        lists.append(ids)
    both = sorted(set(lists[0]) & set(lists[1]))
    found.problems += [f"{i}: in train_aug.txt and in val.txt: remove it from one of them" for i in both]
    return lists


def _verify_image(folder: VOCFolder, image_id: str, found: Findings, odd: dict[str, list[str]]) -> dict[str, set[int]]:
    """Read a photograph and its masks; returns the ids of the mask that counts, by image, where there is one."""
    photo, problems, shown = folder.photo(image_id), [], {}
    if image_id not in folder.labels:
        problems.append(f"no valid row in image_labels.csv; the classes are {', '.join(folder.classes)}")
    try:
        load_image(photo)
        (width, height), orientation = image_head(photo)
        if damage := decoder_warning(photo):
            found.notes.append(damage)
        masks = [load_mask(path) for path in folder.mask_paths(image_id)]
        for mask in masks[:1]:
            if mask.shape != (height, width):
                problems.append(f"mask is {mask.shape[1]}x{mask.shape[0]}, photo is {width}x{height}, upright")
            elif orientation in (2, 3, 4) or (orientation in (5, 6, 7, 8) and width == height):
                odd[TURNED].append(image_id)
            if _is_inverted(mask > 0):
                odd[INVERTED].append(image_id)
            shown[image_id] = set(np.flatnonzero(np.bincount(mask.ravel())).tolist())
            if unknown := sorted(shown[image_id] - {*range(len(folder.classes) + 1), VOID}):
                problems.append(f"mask holds ids {unknown}; valid are 0-{len(folder.classes)} and {VOID}")
        if len(masks) > 1 and not np.array_equal(masks[0], masks[1]):
            odd[TWICE].append(image_id)
    except DataError as error:
        problems.append(f"{error}; replace the file or drop the id from its list")
    found.problems += [f"{image_id}: {problem}" for problem in problems]
    return shown


def _compare_labels(folder: VOCFolder, masks: dict[str, set[int]], found: Findings) -> None:
    """Compare the ids of the masks with the image labels."""
    ids = [i for i in masks if i in folder.labels]
    classes = range(1, len(folder.classes) + 1)
    told = np.array([folder.labels[i] for i in ids], bool).reshape(len(ids), len(classes))
    shown = np.array([[c in masks[i] for c in classes] for i in ids], bool).reshape(told.shape)
    common = (told & shown).sum(1)
    differ = [k for k in common.argsort(kind="stable") if (told[k] != shown[k]).any()]
    if not differ:
        return
    first, swapped = differ[0], _swapped(told, shown)
    there, labels = ((np.flatnonzero(row) + 1).tolist() for row in (shown[first], told[first]))
    pairs = [f"column {folder.classes[c]} fits the masks of id {d + 1}, not {c + 1}" for c, d in swapped]
    advice = "; ".join(pairs) or "are its columns in the order of the ids?"
    certain = told[:, [c for c, _ in swapped]].any(1).sum() >= FEW
    many = MANY if common[first] and not swapped else 0  # where they share no class, one image is enough
    text = f"masks show other classes than image_labels.csv, {there} instead of {labels}: {advice}"
    found.judge([ids[k] for k in differ], len(ids), text, many, 0 if certain else NEARLY_ALL)


def _is_inverted(values: np.ndarray) -> bool:
    """Say whether a map is not brighter inside than at its border."""
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    return bool(border.mean() >= values.mean())


def _swapped(told: np.ndarray, shown: np.ndarray) -> list[tuple[int, int]]:
    """Find columns of the labels ``(images, N)`` that fit the masks of another class clearly better than their own."""
    both = told.T.astype(int) @ shown  # images of column c whose mask shows class d
    fits = both / np.maximum(1, told.sum(0)[:, None] + shown.sum(0) - both)  # share of the images with either
    own, best = fits.diagonal(), fits.argmax(1)
    pairs = [(c, int(d)) for c, d in enumerate(best) if fits[:, d].argmax() == c]
    return [(c, d) for c, d in pairs if fits[c, d] > max(own[c], own[d]) + MANY]


def class_notes(folder: VOCFolder, ids: list[str]) -> list[str]:
    """Note the classes that none of the images shows, or every one: they cannot be learnt."""
    labels = [folder.labels[i] for i in ids if i in folder.labels]
    shown = zip(folder.classes, np.sum(labels, 0)) if labels else ()
    words = {0: "no training image shows it", len(labels): "every training image shows it"}
    return [f"class {name}: {words[count]}, so it cannot be learnt" for name, count in shown if count in words]


def verify_saliency(folder: VOCFolder, ids: list[str], maps: Path, found: Findings | None = None) -> Findings:
    """Read the saliency maps ``maps/<id>.png`` of images, compare them with the photographs, and add to ``found``."""
    found = found or Findings()
    paths = {i: path for i in ids if os.path.lexists(path := maps / f"{i}.png")}
    missing = [i for i in ids if i not in paths]
    found.judge(missing, len(ids), f"saliency maps are missing in {maps}", 0, NEARLY_ALL)
    brightest, inverted, stretched = [], [], []
    for image_id, path in paths.items():
        try:
            values, (width, height) = np.asarray(load_grey(path)), folder.size(image_id)
        except DataError as error:
            found.problems.append(f"{image_id}: {error}")
            continue
        h, w = values.shape
        brightest.append(values.max())
        if _is_inverted(values):
            inverted.append(image_id)
        if abs(w * height - h * width) > max(0.02 * w * height, width, height):  # more than a pixel and two per cent
            stretched.append(image_id)
    if brightest and (largest := max(brightest)) < BRIGHT:
        certain = largest <= 1 or len(brightest) >= FEW
        text = f"no value of {len(brightest)} saliency maps is above {largest} of 255: scale them to 0 to 255"
        (found.problems if certain else found.notes).append(text)
    text = "saliency maps are not brighter inside than at the border: what stands out is white"
    found.judge(inverted, len(paths), text, MANY, NEARLY_ALL)
    text = "saliency maps have another side ratio than their photo: they are stretched to it"
    found.judge(stretched, len(paths), text)
    return found
