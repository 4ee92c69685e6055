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
# # 7 Evaluation
#
# Is this a good mask? Most pixels of most images are background. Whoever calls everything background is right at most
# pixels, and has found nothing.
#
# Segmentation therefore has a stricter measure, the *mean intersection over union* (mIoU). We compute it, and test a
# segmentation network that learned from pseudo labels ([chapter 6](06_train_segmentation.ipynb)) in three ways. Then we
# look for the classes and objects on which it fails.
#
# Paper: Sec. IV-A and Table 1. Method: [segmentation](../book/method.md#segmentation). Rules:
# [conventions](../book/conventions.md). Code: [`safn.metrics`](../book/api_safn.md#measures).

# %% tags=["hide-cell"]
import numpy as np
import pandas as pd

import safn
from safn import evaluation, inference, metrics
from safn.crf import is_installed
from safn_book import (
    charts,
    checks,
    display,
    galleries,
    photographs,
    records,
    settings,
    stages,
    statements,
    tables,
)
from safn_book.run_names import RunName, Stage
from safn_book.scores import evaluation_scores
from safn_book.tables import number

charts.use_style()

# %% tags=["parameters", "hide-input"]
# parameters
runs = "../runs/emoji"  # folder of the outputs of all stages
run = "attention_1-0.75-0.5_seed0"  # which segmentation network
test_scales = [1, 1.25, 1.5]  # of the multi-scale test (paper: 0.5 to 1.5)
flip = False  # add the mirrored image to each test (paper: no)
largest = 0  # shrink photographs with a longer side than this, in pixels (0: never)
crf = True  # add the test with the dense CRF
crf_processes = 1  # processes of the CRF (0: one a core)
accelerator = "auto"  # auto, cpu, gpu or mps

# %% tags=["remove-cell"]
p = settings.read(globals())
source, folder, _, val = stages.load_data(p.runs)
model = stages.require(p.runs, Stage.TRAIN_SEGMENTATION, p.run)
stage = stages.open_stage(p, Stage.EVALUATE, p.run, inputs=[source, model])

# %% [markdown]
# ## What mIoU is
#
# Let $n_{ck}$ be the number of pixels of class $c$ that are predicted as class $k$, over *all* images (the confusion
# matrix). Then
#
# $$\mathrm{IoU}_c = \frac{n_{cc}}{\sum_k n_{ck} + \sum_k n_{kc} - n_{cc}}$$
#
# $$\mathrm{mIoU} = \frac{1}{K} \sum_c \mathrm{IoU}_c$$
#
# The numerator counts the pixels that prediction and ground truth share, the denominator those of either. VOC has $K =
# 21$: 20 classes and the background. Pixels without ground truth (*void*, 255) do not count.
#
# In the code, `update` adds an image to the matrix $n$, `(K, K + 1)`. Its last column holds ignored pixels, which only
# pseudo labels have.

# %% tags=["remove-input"]
display.source(metrics.ConfusionMatrix.update, metrics.class_iou)

# %% [markdown]
# Take two images of four pixels, with *background* (0) and *cat* (1):

# %%
tiny = metrics.ConfusionMatrix(num_classes=2)
tiny.update(prediction=np.array([0, 0, 1, 1]), target=np.array([0, 0, 0, 1]))
tiny.update(prediction=np.array([0, 0, 0, 0]), target=np.array([0, 0, 0, 1]))
print(tiny.matrix[:, :2])
print("IoU", tiny.iou().round(3), "mIoU", round(tiny.miou(), 3))

# %% [markdown]
# By hand: the background has $5 / (6 + 6 - 5) = 0.714$, the cat $1 / (2 + 2 - 1) = 0.333$. The mean is 0.524, although
# 6 of 8 pixels are right. It is *not* the mean over images, which would be 0.479.
#
# ## Three tests
#
# - *Single scale:* the network sees each image once.
# - *Multi-scale:* it sees the image at several sizes. At each pixel and class the largest probability counts.
# - *CRF:* a conditional random field then moves the borders to where the colours change.

# %% tags=["remove-input"]
display.source(inference.multi_scale_maximum)

# %% [markdown]
# The sides of a rescaled input are multiples of the output stride, as in training. With other sides the masks shift by
# some pixels.

# %% tags=["remove-output"]
network = inference.on_device(safn.load(model.folder), p.accelerator)
photos, seconds = folder.photos(val), {}
shown = {"flip": p.flip, "largest": p.largest}
seconds["single"], _ = inference.predict(
    network,
    network.normalisation,
    photos,
    stage.folder / "single",
    **shown,
)
with_crf = p.crf and is_installed()
seconds["multi"], seconds["crf"] = inference.predict(
    network,
    network.normalisation,
    photos,
    stage.folder / "multi",
    p.test_scales,
    refined=stage.folder / "crf" if with_crf else None,
    processes=p.crf_processes,
    **shown,
)

# %% tags=["remove-cell"]
names = {"single": "single scale", "multi": "multi-scale", "crf": "multi-scale + CRF"}
protocols = ["single", "multi", *(["crf"] if with_crf else [])]
last = protocols[-1]  # the best that is there
matrices, counts = {}, {}
for protocol in protocols:
    scored = evaluation.score_masks(folder, val, stage.folder / protocol)
    matrices[protocol], counts[protocol] = scored
    evaluation.save_counts(stage.folder / f"counts_{protocol}.npz", counts[protocol])
masked = folder.with_mask(val)
own = RunName.parse(p.run)
maps = records.read(p.runs, Stage.MAPS, own.base)
bound = records.read(p.runs, Stage.EVALUATE, RunName(seed=own.seed, supervised=True))

# %% tags=["remove-input"]
display.text(
    "The dense CRF is not installed, so there are two tests only. On photographs of VOC it adds"
    " about 2 points of mIoU. `make crf` installs it where there is a C++ compiler."
) if p.crf and not with_crf else None

# %% tags=["hide-input"]
rows = []
if maps:
    value = maps.record["metrics"]["classifier_only_val_miou"]
    rows.append(("maps of chapter 4 (CAM baseline)", value, tables.MISSING))
for q in protocols:
    interval = tables.interval(*metrics.interval(counts[q]))
    rows.append((names[q], matrices[q].miou(), interval))
above = bound.record["metrics"].get(f"val_miou_{last}") if bound else None
if bound and not own.supervised:
    rows.append((f"fully supervised, {names[last]}", above, tables.MISSING))
result = pd.DataFrame(rows, columns=["test", "mIoU (%)", "95 % interval"])
result["mIoU (%)"] = 100 * result["mIoU (%)"].astype(float)
tables.show(
    result,
    f"mIoU on {len(masked)} validation images, with a bootstrap interval over images.",
)

# %% tags=["remove-input"]
if own.supervised:
    upper = "This network was trained on ground-truth masks. It is meant as the **upper bound** for pseudo labels."
elif bound:
    upper = (
        "*Fully supervised* is the same network, trained on ground-truth masks. In the same test it is "
        "meant as the **upper bound** for pseudo labels."
    )
    if above is not None and above < matrices[last].miou():
        upper += (
            " In this run it is lower than the network that learned from pseudo labels. Each was "
            "trained once, and another seed may reverse that."
        )
else:
    upper = (
        "The **upper bound** for pseudo labels is meant to be the same network, trained on "
        "ground-truth masks. Its run, `masks_seed0`, had not ended when this chapter was "
        "executed. Chapter 11 has its number."
    )
display.text(
    f"On {len(masked)} validation images the network has {number(100 * matrices['single'].miou())} %"
    f" at a single scale and {number(100 * matrices['multi'].miou())} % at several."
    + (f" The CRF makes it {number(100 * matrices['crf'].miou())} %." if with_crf else "")
    + (" The first row is the classifier alone: its maps, cut at a threshold." if maps else "")
    + " The interval says what other images of the same kind would change. It does not say what"
    f" another training would.\n\n{upper}",
    masked,
)

# %% [markdown]
# ## Which classes fail, and why?
#
# The last column says where the missed pixels of a class go: the class that most of them are taken for.

# %% tags=["hide-input"]
classes = ["background", *folder.classes]
per_class = pd.DataFrame({names[q]: 100 * matrices[q].iou() for q in protocols}, classes)
missed = matrices[last].matrix[:, :-1].copy()
np.fill_diagonal(missed, 0)
taken_for = pd.Series([classes[k] for k in missed.argmax(1)], classes)
taken_for[missed.sum(1) == 0] = tables.MISSING
tables.show(
    per_class.assign(**{"missed pixels, taken for": taken_for}),
    f"IoU (%) of {len(masked)} validation images by class. Bold: the best test of a class.",
).highlight_max(axis=1, subset=list(per_class), props="font-weight: bold")

# %% tags=["remove-input"]
weak = per_class[names[last]].nsmallest(3)
to_background = int((taken_for.iloc[1:] == "background").sum())
display.text(
    "The weakest classes: "
    + ", ".join(f"{name} ({number(value)} %)" for name, value in weak.items())
    + f". {to_background} of the {len(folder.classes)} object classes lose most pixels to the background:"
    " the network misses their parts. The others are mixed up with another class.",
    masked,
)

# %% tags=["remove-input"]
display.text(
    "On photographs (three seeds, multi-scale with CRF) *chair* has an IoU of "
    f"{statements.recorded(Stage.EVALUATE, 'per_class', 'crf', 'chair')} %. The fully "
    "supervised network has "
    f"{statements.recorded(Stage.EVALUATE, 'per_class', 'crf', 'chair', configuration='masks')} "
    "%, so the pseudo labels are not to blame: the legs of a chair are thinner than a pixel of "
    "the feature map. *Diningtable* is different, with "
    f"{statements.recorded(Stage.EVALUATE, 'per_class', 'crf', 'diningtable')} % against "
    + statements.recorded(Stage.EVALUATE, "per_class", "crf", "diningtable", configuration="masks")
    + " %. There the pseudo labels cost most."
)

# %% [markdown]
# ## Small or large objects?

# %% tags=["hide-input"]
by_size = pd.DataFrame({names[q]: metrics.iou_by_size(counts[q]) for q in protocols})
tables.show(
    100 * by_size,
    f"Foreground IoU (%) of {len(masked)} validation images by the object's share of the image."
    " Bold: the best test of a size.",
).highlight_max(axis=1, props="font-weight: bold")

# %% tags=["remove-input"]
small, medium, large = (number(100 * value) for value in by_size[names[last]])
display.text(
    f"With the last test, small objects have {small} %, medium ones {medium} %, and large ones"
    f" {large} %. Two pixels off are little on a large object and most of a small one.",
    masked,
)

# %% [markdown]
# ## Examples

# %% tags=["hide-input"]
display.figure(
    galleries.image_gallery(
        folder,
        galleries.examples(folder, val, 5),
        masks={names[q]: stage.folder / q for q in protocols},
        scores=galleries.image_miou(folder, val, counts[last]),
    ),
    "Predictions on validation images, from a small object to a large one. The number is the mIoU of the image"
    " in the last test.",
    "One row an image: the image, its predicted mask in each test, and the ground truth where there is one.",
)

# %% [markdown]
# Several scales fill holes, and the CRF follows the border. Neither repairs a wrong name.
#
# ## What should I see?
#
# The table sets this run beside recorded runs of the same data and settings. Is a value outside its range? See
# [My number is low](../book/recipes.md#my-number-is-low).

# %% tags=["remove-input"]
scores = evaluation_scores(counts)
scores |= {f"seconds_{q}": seconds[q] for q in protocols}  # crf: network and CRF side by side
done = stage.finish(
    scores,
    init=model.record["init"],
    detector=model.record.get("detector"),
    supervision=model.record["supervision"],
    per_class={q: dict(zip(classes, matrices[q].iou())) for q in protocols},
)
checks.compare(done, source)

# %% tags=["remove-input"]
display.text(
    "**On photographs** (three recorded runs, 743 validation images of VOC 2012, "
    "EfficientNet-Lite0, U2-Net-p) the three tests give "
    f"{statements.recorded(Stage.EVALUATE, 'metrics', 'val_miou_single')} %, "
    f"{statements.recorded(Stage.EVALUATE, 'metrics', 'val_miou_multi')} % and "
    f"{statements.recorded(Stage.EVALUATE, 'metrics', 'val_miou_crf')} %. The upper bound "
    "with CRF is "
    f"{statements.recorded(Stage.EVALUATE, 'metrics', 'val_miou_crf', configuration='masks')} "
    "% (one seed). With CRF, small objects have "
    f"{statements.recorded(Stage.EVALUATE, 'metrics', 'val_iou_crf small (< 10 %)')} % IoU, "
    "and large ones "
    f"{statements.recorded(Stage.EVALUATE, 'metrics', 'val_iou_crf large (> 30 %)')} %."
)

# %% [markdown]
# ## The same on photographs
#
# The network comes with the package ([try it](17_try_your_photograph.ipynb)). It was trained on 1,631 other
# photographs. The test is multi-scale, with CRF where it is installed.

# %% tags=["hide-input"]
display.figure(
    photographs.columns(
        ["photograph", "segmentation", "ground truth"],
        *photographs.free_steps("kingfisher", "dog", "horses", "hedgehog"),
    ),
    "DeepLab-LargeFOV on four photographs. Two have a ground truth, drawn by hand.",
    "Four rows. The masks of the bird and the dog follow their outlines. The horses are"
    " outlined well but have the colour of cows, the hedgehog has that of a sheep.",
) if p.run == photographs.MAIN else None

# %% [markdown]
# Bird and dog fit. The horses have good outlines and the wrong name: they are taken for cows. The hedgehog is called a
# sheep. VOC has no hedgehog, and the network can only choose among its 20 classes.
#
# ## Takeaways
#
# - mIoU is one matrix over all pixels of all images, one IoU a class, and their mean.
# - A number means something between two others of the same test: the CAM baseline below, the fully supervised network
#   above.
# - Where the upper bound fails too, better pseudo labels cannot help.
#
# ## Exercises
#
# 1. What mIoU has a network that calls everything background? What is its share of right pixels?
#
# <details><summary>Solution</summary>
#
# ```python
# nothing = metrics.ConfusionMatrix(len(classes))
# for image_id in folder.with_mask(val):
#     target = folder.mask(image_id)
#     nothing.update(np.zeros_like(target), target)
# right = np.trace(nothing.matrix[:, :-1]) / nothing.matrix.sum()
# print(round(100 * nothing.miou(), 1), round(100 * right, 1))
# ```
# The IoU of the background is the share of right pixels, and every other class has 0. So the mIoU is that share
# divided by the number of classes.
#
# </details>
#
# 2. Is the gain of the multi-scale test significant?
#
# <details><summary>Solution</summary>
#
# ```python
# draws = 100 * metrics.bootstrap([counts["single"], counts["multi"]])
# np.percentile(draws[:, 1] - draws[:, 0], [2.5, 97.5]).round(1)
# ```
# Draw the images again and again, the same ones for both tests. If the interval does not hold 0, the gain is
# significant for images of this kind. This is a *paired* bootstrap: that some images are difficult for both tests
# cancels out.
#
# </details>
#
# 3. How far is the mean over images from the mIoU?
#
# <details><summary>Solution</summary>
#
# ```python
# print(round(100 * np.nanmean(metrics.mean_iou(counts["single"])), 1))
# print(round(100 * matrices["single"].miou(), 1))
# ```
# An image has two or three classes, and the background is one of them. So the mean over images is much higher, and
# says less about rare classes.
#
# </details>
#
# ## Next
#
# [Chapter 8](08_aggregation.ipynb) asks whether attention beats max and average pooling.
# [What we learned](12_what_we_learned.ipynb) has the answer.
#
# <details><summary>Run this chapter yourself</summary>
#
# In the folder `notebooks`, without the CRF and in a folder of its own:
#
# ```
# papermill 07_evaluate.ipynb out.ipynb -p crf false -p runs ../runs/mine
# ```
#
# - It reads `00_data` and `06_train_segmentation/<run>`. What is missing is made first.
# - It writes `07_evaluate/<run>`: the predictions in `single/`, `multi/` and `crf/` as indexed PNG, and the counts of each
#   image.
# - It takes a minute on 2 cores for the synthetic images, and 15 minutes for the 743 photographs of `voc-subset`.
#
# </details>
