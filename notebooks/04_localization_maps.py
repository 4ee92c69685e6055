# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,-all
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 4 Localization maps
#
# The classifier says *dog*. Which pixels made it say so?
#
# SAFN answers without any extra step. Its score of a class is the average of a feature map. Where that map is large,
# the class is. In this chapter we turn the feature maps into localization maps (Eq. 4), and measure how much of an
# object they cover. Are large objects the problem that the paper says they are?
#
# Paper: Sec. III-B and Fig. 2. Method: [localization maps](../book/method.md#localization-maps). Code:
# [`safn.maps`](../book/api_safn.md#localization-maps).

# %% tags=["hide-cell"]
import pandas as pd

import safn
from safn import evaluation, inference, loading, metrics
from safn.maps import localization_maps, maps_prediction
from safn_book import (
    charts,
    checks,
    display,
    galleries,
    photographs,
    settings,
    stages,
    statements,
    tables,
)
from safn_book.run_names import Stage
from safn_book.scores import counts_of_list, map_scores
from safn_book.tables import number

charts.use_style()

# %% tags=["parameters", "hide-input"]
# parameters
runs = "../runs/emoji"  # folder of the outputs of all stages
run = "attention_1-0.75-0.5_seed0"  # classifier: <aggregation>_<scales>_seed<seed>
size = 128  # long side of the image in pixels (0: original size)
flip = True  # average the map with that of the mirrored image
accelerator = "auto"  # auto, cpu, gpu or mps
workers = 0  # processes that load images

# %% tags=["remove-cell"]
p = settings.read(globals())
source, folder, train, val = stages.load_data(p.runs)
model = stages.require(p.runs, Stage.TRAIN_SAFN, p.run)
stage = stages.open_stage(p, Stage.MAPS, p.run, inputs=[source, model])

# %% [markdown]
# ## From scores to maps
#
# [Chapter 3](03_train_safn.ipynb) ended with one feature map for each class, $\mathit{MSF}_c$. It may be negative: such
# a pixel speaks against the class. We cut the negative values off, and divide by the largest one:
#
# $$M_c = \frac{\mathrm{ReLU}(\mathit{MSF}_c)}{\max(\mathrm{ReLU}(\mathit{MSF}_c))} \tag{4}$$
#
# So $M_c$ lies between 0 and 1, and is 1 somewhere. That is a choice: a weak map is stretched as much as a strong one.
# In the code, `features` are the $\mathit{MSF}_c$ of a batch, of shape `(B, N, h, w)`, and `labels` says which classes
# an image shows.

# %% tags=["remove-input"]
display.source(localization_maps)

# %% [markdown]
# Most of these lines guard one case. Without any positive value, Eq. 4 divides by 0. The map is then 0 instead.
#
# ## The maps of this run
#
# We load the network of chapter 3 and look at one image.

# %%
network = inference.on_device(safn.load(model.folder), p.accelerator)
photos = loading.PlainSet(folder, train, network.normalisation, p.size)
sample = photos[0]
image, labels = sample["image"][None], sample["label"][None]
device = next(network.parameters()).device
one = network.maps(image.to(device), labels.to(device))
print("image", tuple(image.shape), "-> maps", tuple(one.shape))

# %% [markdown]
# A map is much smaller than its image: one of its pixels stands for a square of the image (the output stride). Next
# come the maps of all images. Training images have their own labels. Validation images have the classes that the
# network predicts.

# %% tags=["remove-output"]
empty = inference.write_maps(
    network,
    photos,
    stage.folder / "train",
    flip=p.flip,
    workers=p.workers,
)
inference.write_maps(
    network,
    loading.PlainSet(folder, val, network.normalisation, p.size),
    stage.folder / "val",
    predicted=True,
    flip=p.flip,
    workers=p.workers,
)

# %% tags=["remove-cell"]
sweep = evaluation.sweep_maps(folder, train, stage.folder / "train")
scores = map_scores(folder, train, sweep)
alone = evaluation.score_maps_at(folder, val, stage.folder / "val", sweep.threshold)
masked = folder.with_mask(train)

# %% tags=["hide-input"]
display.figure(
    galleries.image_gallery(
        folder,
        galleries.examples(folder, train, 4),
        maps={"localization map": stage.folder / "train"},
        scores=galleries.image_miou(folder, train, sweep.counts),
    ),
    "Localization maps of training images, from a small object to a large one. The number is"
    " the mIoU of the image at the best threshold.",
    "One row an image: the image, a blurred bright spot over its object, and the ground truth where there is one.",
)

# %% tags=["remove-input"]
display.text(
    "The spots lie on the objects, and end where the network has seen enough. A small object"
    " gets a spot larger than itself. Of a large object the spot may cover a part only."
    f" Of all maps, {empty} had no positive value and are 0."
)

# %% [markdown]
# ## How much of the objects do they cover?
#
# A map has no outline, so we cut it at a threshold. What is below becomes background. Elsewhere the class with the
# largest map wins. The score is the mIoU. We try 256 thresholds and keep the best.

# %% tags=["remove-input"]
display.source(maps_prediction)

# %% tags=["hide-input"]
display.figure(
    charts.sweep("training images", sweep.miou),
    f"mIoU of the maps of {len(masked)} training images at each background threshold. The dot marks the best.",
    "A curve of mIoU against the threshold with one maximum, which a dot marks.",
) if masked else None

# %% tags=["hide-input"]
listed = len(counts_of_list(folder, train, sweep.counts))
rows = [("training, given labels", len(masked), scores["map_miou"])]
if 0 < listed < len(masked):
    own = scores["map_miou_train_list"]
    rows.append(("training, official train list only", listed, own))
rows.append(("validation, predicted classes", len(folder.with_mask(val)), alone.miou()))
quality = pd.DataFrame(rows, columns=["images", "number", "mIoU (%)"])
quality["mIoU (%)"] *= 100
tables.show(
    quality,
    f"Maps cut at the threshold {sweep.threshold:.2f}. Data: {checks.data_words(source)}.",
)

# %% tags=["remove-input"]
display.text(
    f"At its best threshold, {sweep.threshold:.2f}, the maps of the training images have an mIoU"
    f" of {number(100 * scores['map_miou'])} %. Masks have chosen that threshold, so no other"
    f" one does better. The last row, {number(100 * alone.miou())} %, is the *CAM baseline*: the"
    " segmentation of a classifier alone. Every later step has to beat it.",
    masked,
)

# %% [markdown]
# ## Are large objects the problem?
#
# The paper says so: to name a dog, its head is enough. We group the objects by their share of the image.

# %% tags=["remove-input"]
sizes = {size: scores[f"map_iou {size}"] for size in metrics.SIZES}
tables.percent(
    sizes,
    f"Foreground IoU of the maps of {len(masked)} training images by object size.",
)

# %% tags=["remove-input"]
small, medium, large = (number(100 * value) for value in sizes.values())
display.text(
    f"Small objects have {small} %, medium ones {medium} %, and large ones {large} %. If the"
    " paper's reason decided alone, the numbers would fall from small to large.",
    masked,
)

# %% [markdown]
# ## What should I see?
#
# The table sets this run beside recorded runs of the same data and settings. Is a value outside its range? See
# [My number is low](../book/recipes.md#my-number-is-low).

# %% tags=["remove-input"]
scores |= {"classifier_only_val_miou": alone.miou(), "empty_maps": empty}
evaluation.save_counts(stage.folder / "counts.npz", sweep.counts)
done = stage.finish(scores, init=model.record["init"])
checks.compare(done, source)

# %% tags=["remove-input"]
display.text(
    "**On photographs** (three recorded runs with 1,631 training images of VOC 2012 and "
    "EfficientNet-Lite0) the maps have "
    f"{statements.recorded(Stage.MAPS, 'metrics', 'map_miou')} % mIoU. There the IoU *rises* "
    "with the size of the objects: "
    f"{statements.recorded(Stage.MAPS, 'metrics', 'map_iou small (< 10 %)')} %, "
    f"{statements.recorded(Stage.MAPS, 'metrics', 'map_iou medium (10-30 %)')} % and "
    f"{statements.recorded(Stage.MAPS, 'metrics', 'map_iou large (> 30 %)')} %. The likely "
    "reason: a spot that is larger than a small object costs more IoU than a missed part of a "
    "large one."
)

# %% [markdown]
# ## The same on photographs
#
# The network comes with the package ([try it](17_try_your_photograph.ipynb)). It was trained on 1,631 *other*
# photographs.

# %% tags=["hide-input"]
display.figure(
    photographs.columns(
        ["photograph", "scale maps", "map", "ground truth"],
        *photographs.free_steps("kingfisher", "dog", "cat", "chair"),
    ),
    "Maps of each scale alone, and the map of SAFN (Eq. 2 and 4), on four photographs.",
    "Four rows: a bird, a dog, a cat and a chair. From scale 1 to 0.5 the bright spots grow."
    " The last map resembles that of scale 1.",
)

# %% [markdown]
# At scale 1 the map of the dog is brightest at its head, and that of the chair covers the seat only. At scale 0.5 both
# spread over the whole object, and the spot on the bird grows far beyond it. So a smaller image does spread the maps,
# as the paper says. But the map of SAFN resembles that of scale 1: the attention gives the small scales little weight.
#
# ## Takeaways
#
# - A localization map is the feature map before the average, without negative values, divided by its maximum (Eq. 4).
# - Maps find objects, not outlines. Their mIoU needs a threshold, and masks choose it.
# - On photographs small objects fare worst. A spot cannot be smaller than a few pixels of the map.
#
# ## Exercises
#
# 1. A feature map has the values $-1$, $2$ and $4$. What is its localization map? What if all three are negative?
#
# <details><summary>Solution</summary>
#
# ```python
# import torch
#
# for values in ([-1.0, 2.0, 4.0], [-1.0, -2.0, -4.0]):
#     print(localization_maps(torch.tensor([[[values]]]), torch.ones(1, 1)))
# ```
# The maps are (0, 0.5, 1) and (0, 0, 0). A network may well predict a class and have such a map: the score is an
# average, and the label was given.
#
# </details>
#
# 2. Cut the maps of the validation images at 0.3 instead. How much does the CAM baseline depend on the threshold?
#
# <details><summary>Solution</summary>
#
# ```python
# for threshold in (0.3, 0.5, 0.7, 0.9):
#     matrix = evaluation.score_maps_at(folder, val, stage.folder / "val", threshold)
#     print(threshold, round(100 * matrix.miou(), 1))
# ```
# Much. Compare the numbers with the last row of the table. Papers that report maps at "the best threshold" have used
# masks.
#
# </details>
#
# 3. What is the mirrored image good for? Make the maps without it.
#
# <details><summary>Solution</summary>
#
# ```python
# from pathlib import Path
# from tempfile import mkdtemp
#
# plain = Path(mkdtemp())
# inference.write_maps(network, photos, plain, flip=False)
# 100 * evaluation.sweep_maps(folder, train, plain).miou.max()
# ```
# Compare it with the first row of the table. Two views of an image err in different places, and the average of both
# is smoother.
#
# </details>
#
# ## Next
#
# [Chapter 5](05_pseudo_ground_truth.ipynb) combines the maps with saliency maps, which know the outlines.
#
# <details><summary>Run this chapter yourself</summary>
#
# In the folder `notebooks`, for another classifier and in a folder of its own:
#
# ```
# papermill 04_localization_maps.ipynb out.ipynb -p run max_1-0.75-0.5_seed0 -p runs ../runs/mine
# ```
#
# - It reads `00_data` and `03_train_safn/<run>`. What is missing is made first.
# - It writes `04_localization_maps/<run>`: the maps of the given labels in `train/<id>.npz`, and those of the predicted
#   classes in `val/<id>.npz`.
# - It takes half a minute on 2 cores for the synthetic images, and 3 to 6 minutes on one core for `voc-subset`.
#
# </details>
