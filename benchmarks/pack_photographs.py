"""Pack a VOC-layout folder and its saliency maps into a few archives, to train where nothing can be downloaded.

    python -m benchmarks.pack_photographs DATA SALIENCY OUT --megabytes 34 58 58

Photographs and masks travel as they are. A saliency map becomes WebP of quality 90 under its old name, a fifth of the
size: on 41 maps of VOC a pixel changed by 0.0013 of 1 on average, and 0.17 % of the pixels crossed the threshold 0.06.
`tar -xf OUT/part0.tar -C DIR`, for every part in any order, makes a folder for `VOCFolder(DIR)`.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from safn.data import VOCFolder, content_fingerprint

SPLITS = ("train_aug", "val")
QUALITY = 90  # of the WebP files of the saliency maps
TAR_BLOCK = 512  # each file of an archive begins at a multiple of so many bytes, after one block about itself


def contents(folder: VOCFolder, saliency: Path, limit: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield the name in the archive and the bytes of every file, what training needs before what the test needs.

    Args:
        saliency: folder of ``<id>.png``, of training images.
        limit: so many images of each split, evenly spaced (0: all).
    """
    lists = {split: folder.ids(split, limit) for split in SPLITS}
    yield "image_labels.csv", (folder.root / "image_labels.csv").read_bytes()
    every = [i for ids in lists.values() for i in ids]
    yield "packed.json", json.dumps({"data": content_fingerprint(folder, every)}).encode()
    base = folder.base.relative_to(folder.root)
    if folder.has_list("train"):
        lists["train"] = [i for i in folder.ids("train") if i in set(every)]
    for split, ids in lists.items():
        yield str(base / "ImageSets" / "Segmentation" / f"{split}.txt"), ("\n".join(ids) + "\n").encode()
    for image_id in every:
        mask = folder.mask_path(image_id)
        for path in (folder.base / "JPEGImages" / f"{image_id}.jpg", *([mask] if mask else [])):
            yield str(path.relative_to(folder.root)), path.read_bytes()
        if (saliency / f"{image_id}.png").exists():
            yield f"saliency/{image_id}.png", smaller(saliency / f"{image_id}.png")


def smaller(path: Path) -> bytes:
    """Encode a grey map as WebP."""
    buffer = io.BytesIO()
    with Image.open(path) as image:
        image.convert("L").save(buffer, "webp", quality=QUALITY)
    return buffer.getvalue()


def pack(files: Iterator[tuple[str, bytes]], out: Path, megabytes: list[float]) -> list[Path]:
    """Write ``out/part0.tar``, ``part1.tar``, ..., the k-th below ``megabytes[k]``; return their paths.

    Raises:
        ValueError: the files do not fit.
    """
    out.mkdir(parents=True, exist_ok=True)
    parts, archive, room = [], None, 0
    for name, content in files:
        needed = TAR_BLOCK * (1 + -(-len(content) // TAR_BLOCK))
        while archive is None or needed > room:
            if archive is not None:
                archive.close()
            if len(parts) == len(megabytes):
                raise ValueError(f"the files do not fit into parts of {megabytes} MB: give larger or more parts")
            room = 1e6 * megabytes[len(parts)] - tarfile.RECORDSIZE  # the end of an archive
            parts.append(out / f"part{len(parts)}.tar")
            archive = tarfile.open(parts[-1], "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
        room -= needed
    if archive is not None:
        archive.close()
    return parts


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder in the VOC layout")
    parser.add_argument("saliency", type=Path, help="folder of the saliency maps, <id>.png")
    parser.add_argument("out", type=Path, help="folder of the archives")
    parser.add_argument("--megabytes", type=float, nargs="+", default=[58, 58, 58], help="size of each part at most")
    parser.add_argument("--limit", type=int, default=0, help="so many images of each split (0: all)")
    a = parser.parse_args(arguments)
    for part in pack(contents(VOCFolder(a.data), a.saliency, a.limit), a.out, a.megabytes):
        print(f"{part}: {part.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
