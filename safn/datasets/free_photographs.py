"""Photographs that come with the package, free of rights: ``photographs/list.csv`` names author, source and licence."""

import csv
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "photographs"
IMAGES, MASKS = FOLDER / "images", FOLDER / "masks"


@dataclass(frozen=True)
class FreePhotograph:
    """Describe a photograph that anyone may use: CC0, or in the public domain."""

    path: Path  #: a JPEG
    labels: list[str]  #: the classes of VOC that it shows, possibly none
    shows: str
    author: str
    licence: str
    source: str  #: where its author published it
    found_in: str  #: the package and the file in it that states the licence
    changes: str

    @property
    def mask(self) -> Path | None:
        """The ground-truth mask as VOC has them, drawn by hand for this project, or ``None``."""
        path = MASKS / f"{self.path.stem}.png"
        return path if path.exists() else None


def free_photographs() -> dict[str, FreePhotograph]:
    """List the photographs that come with the package by their ids. No network was trained on them.

    Example:
        >>> cat = free_photographs()["cat"]
        >>> cat.labels, cat.licence, cat.path.name
        (['cat'], 'public domain', 'cat.jpg')
    """
    found = {}
    with (FOLDER / "list.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            image_id, labels = row.pop("id"), row.pop("labels").split()
            found[image_id] = FreePhotograph(IMAGES / f"{image_id}.jpg", labels, **row)
    return found
