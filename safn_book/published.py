"""The numbers that were published: Tables 1-6 of the paper, and pseudo labels of other projects."""

from pathlib import Path

import pandas as pd

FOLDER = Path(__file__).resolve().parent.parent / "book" / "published"
CAPTIONS = {
    1: "mIoU (%) on VOC 2012 val and test, VGG16-based segmentation",
    2: "mIoU (%) on VOC 2012 val and test, ResNet-based segmentation",
    3: "IoU (%) of SAFN for each class, VOC 2012 val and test, maximum over 5 scales and CRF",
    4: "mIoU (%) on VOC 2012 val for three aggregations, segmentation tested at one and at several scales, no CRF",
    5: "cost of three aggregations: training, extraction of localization maps (OLM), GPU memory",
    6: "mIoU (%) on VOC 2012 val for three sets of scales, segmentation tested at one and at several scales, no CRF",
}

# Tables 1 and 2, the columns of Table 3, and the segmentation network they are of
NETWORKS = {"VGG16": "vgg16-largefov", "ResNet": "resnet101-aspp"}


def table(number: int) -> pd.DataFrame:
    """Read Table ``number`` (1-6) of the paper as printed. Table 3 is indexed by class (background, the 20 VOC classes,
    mean), with a column a network and split."""
    if number not in CAPTIONS:
        raise ValueError(f"the paper has no Table {number!r}; valid: {', '.join(map(str, CAPTIONS))}")
    frame = pd.read_csv(FOLDER / f"table{number}.csv", dtype={"scales": str}, keep_default_na=False)
    return frame.set_index("class") if number == 3 else frame
