"""Commands of the library: ``safn COMMAND --help``. Each checks everything before it writes anything."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from safn.data import DataError, VOCFolder, read_text

ELSEWHERE = {
    "export": "safn_book export",
    "restore": "safn_book restore",
    "rescore": "benchmarks.rescore",
    "smoke": "benchmarks.paper_networks",
}  # what is a command of the repository
TEST_SCALES = "[0.5,0.75,1,1.25,1.5]"  # Sec. IV-A


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code, 1 where something was wrong."""
    options = _parser().parse_args(arguments)
    try:
        return options.call(options) or 0
    except (DataError, OSError) as error:
        print(f"safn: {error}", file=sys.stderr)
        return 1


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        for name, module in ELSEWHERE.items():
            if f"invalid choice: '{name}'" in message:
                message = f"{name} is a command of the repository: python -m {module}"
        super().error(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="safn", description="Scale-Aware Feature Networks")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, call, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(call=call)
        return command

    command = add("verify", _verify, "print every problem of a data folder in the VOC layout")
    command.add_argument("folder", help="holds VOCdevkit/VOC2012 and image_labels.csv")

    command = add("voc", _voc, "complete a download of VOC 2012 and SBD to the layout")
    command.add_argument("folder", help="what torchvision calls root; SBD in its folder sbd")
    command.add_argument("--download", action="store_true", help="fetch both archives first")

    command = add("photos", _photos, "lay your own images and their labels out as a data folder")
    command.add_argument("images", help="folder of images")
    command.add_argument("labels", help="CSV: id,<class>,..., a row of 0 and 1 for each image")
    command.add_argument("out", help="the data folder to make")
    command.add_argument("--val-share", type=float, default=0.1, help="share kept for validation (default: 0.1)")

    command = add("predict", _predict, "masks of a folder of images by a trained segmentation network")
    command.add_argument("network", help="its folder, such as runs/<profile>/06_train_segmentation/<run>")
    command.add_argument("images", help="folder of images")
    command.add_argument("out", help="for masks: multi/<id>.png, crf/<id>.png")
    command.add_argument("--ids", help="a file of ids, to predict these images only")
    command.add_argument("--crf", action="store_true", help="refine the masks with the dense CRF as well")
    text = (
        "long side in pixels to which larger photos are shrunk first, 0: never (default: the largest of the training)"
    )
    command.add_argument("--largest", type=_size, help=text)
    text = f'of the multi-scale test (default: "{TEST_SCALES}")'
    command.add_argument("--scales", default=TEST_SCALES, type=parse_scales, help=text)

    command = add("archive", _archive, "pack test predictions for the VOC evaluation server")
    command.add_argument("predictions", help="folder of <id>.png")
    command.add_argument("data", help="what torchvision calls root")
    command.add_argument("out", help="such as safn.tar.gz")
    return parser


def parse_scales(text: str) -> tuple[float, ...]:
    """Read image scales such as ``"[1, 0.75]"`` or ``"1"``.

    Raises:
        argparse.ArgumentTypeError: it is not a list of distinct numbers in (0, 2].

    Example:
        >>> parse_scales("[1, 0.5]")
        (1.0, 0.5)
    """
    valid = 'valid: a list of distinct numbers in (0, 2], such as "[1, 0.75, 0.5]"'
    try:
        value = json.loads(text)
        scales = tuple(float(v) for v in (value if isinstance(value, list) else [value]))
    except (ValueError, TypeError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers; {valid}") from None
    if not scales or len(set(scales)) < len(scales):
        raise argparse.ArgumentTypeError(f"{text} is empty or holds a scale twice; {valid}")
    if wrong := [f"{s:g}" for s in scales if not 0 < s <= 2]:
        raise argparse.ArgumentTypeError(f"[{', '.join(wrong)}] outside (0, 2]; {valid}")
    return scales


def _size(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of pixels; valid: 0 or more")
    return int(text)


def _verify(options: argparse.Namespace) -> int:
    """Print every problem of a data folder, one a line, or its counts; 1 where there is a problem."""
    folder = VOCFolder(options.folder)
    if problems := folder.verify():
        print(*problems, sep="\n")
        return 1
    counts = []
    for split in ("train_aug", "val"):
        ids = folder.ids(split)
        counts.append(f"{split} {len(ids)} images ({len(folder.with_mask(ids))} masks)")
    print(f"no problem found: {', '.join(counts)}, {len(folder.classes)} classes")
    return 0


def _voc(options: argparse.Namespace) -> int:
    from safn.datasets import voc

    voc.prepare(options.folder, options.download)
    return _verify(options)


def _photos(options: argparse.Namespace) -> None:
    from safn.datasets import own_images

    lists = own_images.prepare(options.images, options.labels, options.out, options.val_share)
    print(f"{options.out}: {', '.join(f'{split} {len(ids)} images' for split, ids in lists.items())}. Next:")
    print(f"make book PROFILE=photos DATA={shlex.quote(options.out)}")


def _predict(options: argparse.Namespace) -> None:
    from safn.inference import predict_folder

    only = read_text(Path(options.ids)).split() if options.ids else None
    o = options
    made = predict_folder(o.network, o.images, o.out, o.scales, o.crf, only, largest=o.largest)
    print(f"{made}: {len(list(made.glob('*.png')))} masks")


def _archive(options: argparse.Namespace) -> None:
    from safn.datasets import voc_server

    masks = voc_server.archive_test_set(options.predictions, options.data, options.out)
    print(f"{options.out}: {masks} masks")


if __name__ == "__main__":
    sys.exit(main())
