"""Archive of test predictions for the VOC evaluation server, from which the paper's test results come (Sec. IV-A)."""

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np

from safn.data import VOC_CLASSES, read_text
from safn.files import DataError, write_file
from safn.images import image_head, opened

FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"
CLASSES = len(VOC_CLASSES)


def archive_test_set(predictions: Path | str, root: Path | str, out: Path | str) -> int:
    """Archive ``predictions/<id>.png`` as the ``tar.gz`` that the server takes; returns how many.

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
            entry = tarfile.TarInfo(f"{FOLDER}/{image_id}.png")
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
    if wrong := ids[ids > CLASSES].tolist():
        problems.append(f"ids {wrong}; valid are 0-{CLASSES}")
    return ", and ".join(problems)
