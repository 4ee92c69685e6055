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
# # 1 Saliency maps
#
# A localization map knows roughly where a dog is. It does not know where the dog ends. What does?
#
# A saliency detector marks what stands out from its surroundings, with a crisp outline, and does not ask what it is.
# The two complete one another: the map names the class, and the saliency map draws the outline
# ([chapter 5](05_pseudo_ground_truth.ipynb)). In this chapter we make a saliency map for each training image, and
# measure how far it can be trusted.
#
# Paper: Sec. III-C. Method: [pseudo labels](../book/method.md#pseudo-labels). Code:
# [`safn.saliency`](../book/api_safn.md#saliency-maps).

# %% tags=["hide-cell"]
import sys
from pathlib import Path

from tqdm import tqdm

from safn import evaluation, map_files, saliency
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

charts.use_style()

# %% tags=["parameters", "hide-input"]
# parameters
runs = "../runs/emoji"  # folder of the outputs of all stages
saliency_folder = ""  # folder of your own maps <id>.png; empty: U2-Net-p makes them
missing_saliency = "error"  # no map in that folder: error, skip, or map-only
views = 1  # averaged views: 1, 2 (with the mirror image) or 6 (with four parts)
threads = 0  # threads of the detector (0: all)

# %% tags=["remove-cell"]
p = settings.read(globals())

# %% [markdown]
# ## Is this still weak supervision?
#
# The detector was trained on masks: on photographs of other data sets, with the salient object drawn, without a class.
# So SAFN is weakly supervised on *its* images and classes, but it does not do without masks altogether. The paper
# follows most earlier work here.
#
# The paper takes the detector DSS. Ours is **U2-Net-p** ([references](../book/references.md)), which runs on a CPU and
# installs by itself. Name the detector beside every number, because it decides much of the result.
#
# ## The detector
#
# An image is resized to 320 × 320 pixels. The network returns one value for each pixel, which is stretched to 0..1 and
# resized to the image:

# %% tags=["remove-input"]
display.source(saliency.U2NetP.__call__)

# %% [markdown]
# A small object has few pixels at 320 × 320. So the profiles for photographs average six views: the image, its mirror
# image, and four overlapping parts, which are seen larger. This is not in the paper.

# %% tags=["remove-input"]
display.source(saliency.multi_view_saliency)

# %% tags=["hide-cell"]
source, folder, train, _ = stages.load_data(p.runs)
stage = stages.open_stage(p, Stage.SALIENCY, inputs=[source])

# %%
if p.saliency_folder:
    without = map_files.copy_saliency(
        folder,
        train,
        Path(p.saliency_folder),
        stage.folder,
        p.missing_saliency,
    )
else:
    without, detector = [], saliency.U2NetP(p.threads)
    todo = [i for i in train if not (stage.folder / f"{i}.png").exists()]
    for image_id in tqdm(todo, "saliency", mininterval=2, file=sys.stdout):
        found = saliency.multi_view_saliency(
            detector,
            folder.image(image_id),
            p.views,
        )
        map_files.save_saliency(stage.folder / f"{image_id}.png", found)
made = [i for i in train if i not in set(without)]

# %% [markdown]
# ## Does it find the objects?
#
# The ground truth $G$ is 1 on the pixels of any class, else 0. Two measures compare the map $S$ with it, without the
# void pixels:
#
# $$\mathrm{MAE} = \frac{1}{|P|} \sum_{p \in P} |S_p - G_p|$$
#
# $$\mathrm{IoU} = \frac{|\{S \ge t\} \cap \{G = 1\}|}{|\{S \ge t\} \cup \{G = 1\}|}$$
#
# $P$ are the pixels of an image, and the mean absolute error (MAE) is averaged over the images. The IoU (intersection
# over union) is taken over all images, at the best threshold $t$.

# %% tags=["hide-cell"]
scores = evaluation.score_saliency(folder, made, stage.folder)

# %% tags=["hide-input"]
tables.percent(
    {
        "mean absolute error (0 is perfect)": scores["saliency_mae"],
        "IoU with the foreground (100 is perfect)": scores["saliency_iou"],
    },
    f"Saliency of {len(made)} training images against the union of all classes.",
)

# %% tags=["remove-input"]
display.text(
    f"The IoU is {tables.number(100 * scores['saliency_iou'])} %, at the threshold "
    f"{tables.number(scores['saliency_threshold'], 2)}. No detector without "
    "classes can reach 100 %: a thing that is none of the classes stands out as well, and an "
    "object behind others does not. The pseudo labels of chapter 5 inherit both faults.",
    folder.with_mask(made),
)

# %% tags=["hide-input"]
shown = galleries.by_object_size(folder, made, 5)
display.figure(
    galleries.image_gallery(folder, shown, saliency=stage.folder),
    "Training images of this data set, from small objects to large ones, with their saliency.",
    "Five rows with an image, its saliency map from black to yellow, and its mask.",
)

# %% [markdown]
# In a good row the saliency has the outline of the mask. Two failures are typical. The detector finds other things,
# beside the object or in its place. Or it misses a small object, and the whole map is dark or blurred.
#
# ## What should I see?
#
# The table sets this run beside recorded runs of the same data and settings. Is a value outside its range? See
# [My number is low](../book/recipes.md#my-number-is-low).

# %% tags=["remove-input"]
looked = "U2-Net-p" if p.views == 1 else f"U2-Net-p, {p.views} views"
done = stage.finish(scores, detector=Path(p.saliency_folder).name or looked)
checks.compare(done, source)

# %% tags=["remove-input"]
display.text(
    "**On photographs** (recorded run, 1,631 training images of VOC 2012, six views) the IoU is "
    f"{statements.recorded(Stage.SALIENCY, 'metrics', 'saliency_iou')} % and the mean absolute "
    f"error {statements.recorded(Stage.SALIENCY, 'metrics', 'saliency_mae')} %. Photographs of "
    "VOC hold several objects, and only some of them stand out."
)

# %% [markdown]
# ## The same on photographs

# %% tags=["hide-input"]
display.figure(
    photographs.columns(
        ["photograph", "saliency", "ground truth"],
        *photographs.free_steps("kingfisher", "cow", "cat"),
    ),
    "U2-Net-p in six views on three of the free photographs. The masks were drawn by hand.",
    "The saliency shows the bird with a piece of its branch, the cow with two more cows far away, "
    "and the kitten together with its ball of wool, which the mask leaves out.",
)

# %% [markdown]
# The cow is found with its outline, and so are the two cows far away. Most of the branch below the bird is left out, as
# it should be. But the ball of wool stands out as much as the kitten. Wool is no class of VOC, and chapter 5 will have
# to call it cat.
#
# ## Takeaways
#
# - Saliency knows the outline and no class. Maps know the class and no outline.
# - The detector was trained on masks of other images. SAFN itself learns from none.
# - What the saliency misses, no pseudo label can have.
#
# ## Exercises
#
# 1. What is the mean absolute error of a map that is black everywhere?
#
# <details><summary>Solution</summary>
#
# ```python
# import numpy as np
#
# masks = [folder.mask(i) for i in folder.with_mask(made)]
# np.mean([(mask[mask < 255] > 0).mean() for mask in masks])
# ```
# It is the share of the foreground. A detector with a larger error would be worse than none.
#
# </details>
#
# 2. Do six views help on the kingfisher and the sheep?
#
# <details><summary>Solution</summary>
#
# ```python
# import numpy as np
#
# import safn
#
# for steps in photographs.free_steps("kingfisher", "sheep"):
#     for views in (1, 2, 6):
#         found = saliency.multi_view_saliency(
#             photographs.detector(), steps.picture, views
#         )
#         counts = safn.ConfusionMatrix(2)
#         truth = steps.ground_truth
#         counts.update((found > 0.5).astype(int), np.where(truth < 255, truth > 0, 255))
#         print(steps.name, views, counts.iou()[1].round(3))
# ```
# No. The IoU of the sheep is 0.99 with any number of views. That of the kingfisher rises from 0.96 to 0.98 with the mirror
# image and falls to 0.90 with the parts, in which the branch stands out. Six views pay where small objects stand beside
# large ones ([what the paper leaves open](../book/open_points.md)).
#
# </details>
#
# 3. Use saliency maps of your own.
#
# <details><summary>Solution</summary>
#
# `papermill 01_saliency.ipynb out.ipynb -p runs ../runs/mine -p saliency_folder /my/maps` reads `<id>.png`, 8-bit grey,
# one for each training image. `missing_saliency` says what happens where one is missing.
#
# </details>
#
# ## Next
#
# [Chapter 2](02_baseline.ipynb) asks how far a classifier gets without saliency and without scales.
#
# <details><summary>Run this chapter yourself</summary>
#
# In the folder `notebooks`, with six views and in a folder of its own:
#
# ```
# papermill 01_saliency.ipynb out.ipynb -p runs ../runs/mine -p views 6
# ```
#
# - It reads `00_data`. What is missing is made first.
# - It writes `01_saliency/default`: `<id>.png`, 8-bit grey, for each training image.
# - It takes a minute on one core for the synthetic images. A photograph takes 0.14 s a view on two cores.
#
# </details>
