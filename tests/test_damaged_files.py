"""Images of every mode and container that Pillow writes, damaged at random: a right result, or a message with the name."""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import safn
from safn import backbones
from safn.data import VOCFolder
from safn.datasets import own_images
from safn.files import DataError
from safn.images import load_image, load_mask
from safn.masks import predict_folder
from safn.segmentation import DeepLab
from safn.verification import verify

Image.init()
CONTAINERS = sorted(set(Image.SAVE) & set(Image.OPEN))
MODES = ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "PA", "I;16", "I;16B", "RGBa")
SOUND = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8))


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """The folder of a tiny network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbones.BACKBONES, "tiny", tiny.backbone())
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000)  # a damaged head may claim many
        folder = tmp_path_factory.mktemp("network")
        safn.save(DeepLab("tiny", "aspp", 3, crop=33), folder, ["cat", "dog"])
        yield folder


def picture(mode: str) -> Image.Image:
    """The sound image in another mode, with values of its whole range."""
    grey = np.asarray(SOUND.convert("L"))
    if mode in ("I", "I;16"):
        return Image.fromarray(grey.astype(np.uint16) * 257).convert(mode)
    if mode == "F":
        return Image.fromarray(grey.astype(np.float32) / 255)
    return Image.new(mode, SOUND.size) if mode in ("LAB", "HSV", "RGBa", "I;16B") else SOUND.convert(mode)


def written(mode: str, container: str, exif: bytes = b"") -> bytes:
    """An image of this mode in this container, empty where Pillow cannot write it."""
    file = io.BytesIO()
    try:
        picture(mode).save(file, container, **({"exif": exif} if exif else {}))
    except Exception:  # of many types, each of a container that has no such mode
        return b""
    return file.getvalue()


PAIRS = [(mode, container) for mode in MODES for container in CONTAINERS if written(mode, container)]


def damaged(content: bytes, flips: list[tuple[float, int]], share: float) -> bytes:
    """Change single bytes, each at a share of the length, and keep a share of all."""
    changed = bytearray(content)
    for place, value in flips:
        changed[int(place * (len(changed) - 1))] ^= value
    return bytes(changed[: int(share * len(changed))])


def data_folder(root: Path, content: bytes) -> VOCFolder:
    """A data folder with the image as a1.jpg, beside a sound one."""
    base = root / "data" / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "ImageSets/Segmentation"):
        (base / name).mkdir(parents=True)
    SOUND.save(base / "JPEGImages" / "a0.jpg")
    (base / "JPEGImages" / "a1.jpg").write_bytes(content)
    for k, split in enumerate(("val", "train_aug")):
        (base / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(f"a{k}\n")
    (root / "data" / "image_labels.csv").write_text("id,cat,dog\na0,1,0\na1,0,1\n")
    return VOCFolder(root / "data")


def image_folder(root: Path, content: bytes) -> tuple[Path, Path]:
    """A folder with the image as a1, beside two sound ones, and a table of labels."""
    images = root / "images"
    images.mkdir()
    for name in ("a0", "a2"):
        SOUND.save(images / f"{name}.png")
    (images / "a1.tif").write_bytes(content)
    (root / "labels.csv").write_text("id,cat,dog\na0,1,0\na1,1,1\na2,0,1\n")
    return images, root / "labels.csv"


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(PAIRS),
    st.one_of(st.just(b""), st.binary(max_size=60).map(lambda junk: b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x12" + junk)),
    st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), max_size=4),
    st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_an_image_is_read_by_all_commands_or_named_by_all(network, pair, exif, flips, share):
    content = damaged(written(*pair, exif) or written(*pair), flips, share)
    root = Path(tempfile.mkdtemp())
    try:
        folder, (images, table) = data_folder(root, content), image_folder(root, content)
        try:
            size = load_image(images / "a1.tif").size
        except DataError as error:
            assert "a1.tif cannot be read: " in str(error)
            size = None
        found = verify(folder)
        assert bool(found.problems) == (size is None) and all("a1.jpg" in line for line in found.problems)
        for call in (
            lambda: own_images.prepare(images, table, root / "out"),
            lambda: predict_folder(network, images, root / "masks", (1.0,), accelerator="cpu"),
        ):
            if size is None:
                with pytest.raises(DataError, match=r"a1\.tif cannot be read: "):
                    call()
            else:
                call()
        if size:
            assert load_mask(root / "masks" / "multi" / "a1.png").shape == size[::-1]
            assert VOCFolder(root / "out").image("a1").size == size
        else:
            assert not (root / "out").exists() and not (root / "masks").exists()
    finally:
        shutil.rmtree(root)
