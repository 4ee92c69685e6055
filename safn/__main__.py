"""Commands of the library: ``safn COMMAND --help``. Each checks everything before it writes anything."""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from safn.arguments import require_scales
from safn.data import VOCFolder, read_text
from safn.files import DataError
from safn.verification import class_notes, verify


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code, 1 where something was wrong."""
    options = _parser().parse_args(arguments)
    try:
        return options.call(options) or 0
    except (DataError, OSError) as error:
        print(f"safn: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="safn", description="Scale-Aware Feature Networks")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, call: Callable, text: str, **positional: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(call=call)
        for argument, meaning in positional.items():
            command.add_argument(argument, help=meaning)
        return command

    layout = "holds VOCdevkit/VOC2012 and image_labels.csv"
    command = add("verify", _verify, "print every problem of a data folder in the VOC layout", folder=layout)
    command.add_argument("--saliency", type=Path, help="a folder of <id>.png maps of your own, to check them as well")

    root = "what torchvision calls root"
    text = "complete a download of VOC 2012 and SBD to the layout"
    command = add("voc", _voc, text, folder=f"{root}; SBD in its folder sbd")
    command.add_argument("--download", action="store_true", help="fetch both archives first")
    command.set_defaults(saliency=None)

    text = "lay your own images and their labels out as a data folder"
    table = "CSV: id,<class>,..., a row of 0 and 1 for each image"
    command = add("photos", _photos, text, images="folder of images", labels=table, out="the data folder to make")
    command.add_argument("--val-share", type=float, default=0.1, help="share kept for validation (default: 0.1)")

    text = "masks of a folder of images by a trained segmentation network"
    network = "voc, which comes with the package, or a folder such as runs/<profile>/06_train_segmentation/<run>"
    out = "for masks: multi/<id>.png, crf/<id>.png"
    command = add("predict", _predict, text, network=network, images="folder of images", out=out)
    command.add_argument("--ids", help="a file of ids, to predict these images only")
    command.add_argument("--crf", action="store_true", help="refine the masks with the dense CRF as well")
    text = "long side in pixels to which larger photos are shrunk, 0: never (default: the largest of the training)"
    command.add_argument("--largest", type=int, help=text)
    text = 'of the multi-scale test, such as "[1,0.75]" (default: 0.5 to 1.5 by steps of a quarter, as in Sec. IV-A)'
    command.add_argument("--scales", type=_scales, help=text)

    text = "pack test predictions for the VOC evaluation server"
    add("archive", _archive, text, predictions="folder of <id>.png", data=root, out="such as safn.tar.gz")
    return parser


def _scales(text: str) -> tuple[float, ...]:
    """Read image scales such as ``"[1, 0.75]"`` or ``"1"``."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    scales = value if isinstance(value, list) else [value]
    try:
        require_scales(scales)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from None
    return tuple(float(scale) for scale in scales)


def _verify(options: argparse.Namespace) -> int:
    folder = VOCFolder(options.folder)
    found = verify(folder, options.saliency)
    for line in [*found.problems, *(f"note: {note}" for note in found.notes)]:
        print(line)
    if found.problems:
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
    for note in class_notes(VOCFolder(options.out), lists["train_aug"]):
        print(f"note: {note}")
    print(f"{options.out}: {', '.join(f'{split} {len(ids)} images' for split, ids in lists.items())}. Next:")
    print(f"make book PROFILE=photos DATA={shlex.quote(options.out)}")


def _predict(options: argparse.Namespace) -> None:
    from safn.inference import TEST_SCALES
    from safn.masks import predict_folder

    o = options
    only = read_text(Path(o.ids)).split() if o.ids else None
    made = predict_folder(o.network, o.images, o.out, o.scales or TEST_SCALES, o.crf, only, largest=o.largest)
    print(f"{made}: {len(list(made.glob('*.png')))} masks")


def _archive(options: argparse.Namespace) -> None:
    from safn.datasets import voc

    masks = voc.archive_test_set(options.predictions, options.data, options.out)
    print(f"{options.out}: {masks} masks")


if __name__ == "__main__":
    sys.exit(main())
