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
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 10 Figures 4, 5 and 6
#
# A mean over a thousand images hides how a method fails. So the paper shows pictures in its Sec. IV: good segmentations
# (Figure 4), localization maps at each scale (Figure 5) and maps of each method (Figure 6). This chapter draws the same
# figures from the run at hand.
#
# Pictures persuade more than they should, so nobody chose these. Rows are spaced evenly from small objects to large
# ones. The paper does not say how its examples were chosen. What pictures cannot show is measured in [what we
# learned](12_what_we_learned.ipynb). The equations stand in [the method](../book/method.md).

# %% tags=["hide-input"]
import safn
from safn import evaluation, loading
from safn_book import charts, checks, display, galleries, settings, stages
from safn_book.run_names import RunName, Stage
from safn_book.tables import METHODS

charts.use_style()

# %% tags=["parameters", "hide-input"]
# parameters
runs = "../runs/emoji"  # folder of the outputs of all stages
experiments = ["attention_1-0.75-0.5_seed0", "max_1-0.75-0.5_seed0", "avg_1-0.75-0.5_seed0"]  # the main one first
baseline = "attention_1_seed0"  # the run of one scale, Fig. 6 (c); empty: the column is left out
second = ""  # a run <run>@<backbone>-<head> of another segmentation network, Fig. 4 (d); empty: no such column
examples = 6  # rows of each figure

# %% tags=["remove-cell"]
p = settings.read(globals())
source, folder, train, val = stages.load_data(p.runs)
plain = stages.require(p.runs, Stage.BASELINE)
wanted = [run for run in (*p.experiments, p.baseline) if run]
maps = {run: stages.require(p.runs, Stage.MAPS, run) for run in wanted}
main = p.experiments[0]
ends = [stages.require(p.runs, Stage.EVALUATE, run) for run in (main, p.second) if run]
inputs = [source, plain, *ends, *maps.values()]
stage = stages.open_stage(p, Stage.FIGURES, inputs=inputs)
data = checks.data_words(source)

# %% [markdown]
# ## Figure 4: segmentations
#
# The network was trained on pseudo labels. It has never seen a ground-truth mask, nor any of these images. The paper's
# second network is DeepLab-ASPP on a ResNet. It stands here where the profile trains one.

# %% tags=["hide-input"]
last = list(ends[0].record["per_class"])[-1]  # the most thorough test
predictions = [end.folder / last for end in ends]
titles = ("prediction", "second network")
shown = galleries.examples(folder, val, p.examples)
masks = dict(zip(titles, predictions))
figure = galleries.image_gallery(folder, shown, masks=masks, letters=True)
caption = f"Validation images, from small objects to large ones: {data}."
alt = "Images beside the predicted mask and the ground-truth mask."
display.figure(figure, caption, alt)

# %% [markdown]
# **What to look for.** Outlines follow the object where the saliency maps did. A mask may have the right outline and
# the wrong class. Small objects are the first to be missed.
#
# ### Where it succeeds and where it fails
#
# These are images of the best tenth and of the worst tenth. Beside each row stands its own mIoU.

# %% tags=["hide-input"]
counts = evaluation.load_counts(ends[0].folder / f"counts_{last}.npz")
figure = galleries.best_and_worst(folder, val, counts, predictions[0], p.examples)
caption = f"The best and the worst tenth of the validation images: {data}."
alt = "The first rows show good masks, the last rows wrong or missing ones."
display.figure(figure, caption, alt)

# %% [markdown]
# ## Figure 5: maps of small and of large objects
#
# The paper's argument stands in this figure. At scale 1 the map of a large object covers a part of it. At scale 0.5
# the map of a small object spills over its border. First we show one network, the main experiment's, at each scale
# alone:

# %%
network = safn.load(stages.require(p.runs, Stage.TRAIN_SAFN, main).folder)
shown = galleries.by_object_size(folder, train, p.examples)
size = maps[main].record["parameters"]["size"]
samples = loading.PlainSet(folder, shown, network.normalisation, size)
alone = galleries.scale_maps(network, samples)

# %% tags=["hide-input"]
figure = galleries.image_gallery(folder, shown, maps=alone, letters=True)
caption = f"Maps of one network at each scale alone, small objects first. Training images: {data}."
alt = "The smaller the scale, the wider and the smoother the maps."
display.figure(figure, caption, alt)

# %% [markdown]
# Then the maps of each aggregation, each from the network that was trained with it:

# %% tags=["hide-input"]
names = {run: METHODS[RunName.parse(run).aggregation] for run in p.experiments}
pooled = {name: maps[run].folder / "train" for run, name in names.items()}
figure = galleries.image_gallery(folder, shown, maps=pooled, letters=True)
caption = f"Maps of each aggregation for the same training images: {data}."
alt = "Maps of the three aggregations beside the ground truth."
display.figure(figure, caption, alt)

# %% [markdown]
# **What to look for.** Compare the first row with the last one. An empty map means that the network finds no evidence
# at that scale, which happens to small objects. The maps of scale 0.5 are coarse for all sizes. Where all columns of a
# row look alike, the aggregation does not matter. [Chapter 8](08_aggregation.ipynb) measures how much it matters.
#
# ## Figure 6: from the plain classifier to SAFN
#
# The first map is Grad-CAM of the plain classifier ([chapter 2](02_baseline.ipynb)). Then come our network with one
# scale, if it was trained, and SAFN.

# %% tags=["hide-input"]
columns = {"plain, Grad-CAM": plain.folder / "train"}
if p.baseline:
    columns["baseline, 1 scale"] = maps[p.baseline].folder / "train"
columns["SAFN"] = maps[main].folder / "train"
shown = galleries.examples(folder, train, p.examples)
figure = galleries.image_gallery(folder, shown, maps=columns, letters=True)
caption = f"Maps of three networks, small objects first. Training images: {data}."
alt = "Maps of Grad-CAM, of one scale and of SAFN beside the ground truth."
display.figure(figure, caption, alt)

# %% [markdown]
# **What to look for.** How much of the object does each map cover, and how much of its surroundings? Do you see a
# difference between one scale and SAFN? [Chapter 9](09_scales.ipynb) measures it.
#
# ## Takeaways
#
# - Failures are as instructive as successes, so both are shown.
# - Figures of chosen examples prove nothing. Figures of examples that nobody chose prove little.
#
# ## Exercises
#
# 1. Show the six images with the smallest objects. At which scale are their maps best?
#
# <details><summary>Solution</summary>
#
# At scale 1, as far as the network finds them at all.
#
# ```python
# smallest = galleries.by_object_size(folder, train, 40)[:6]
# samples = loading.PlainSet(folder, smallest, network.normalisation, size)
# alone = galleries.scale_maps(network, samples)
# galleries.image_gallery(folder, smallest, maps=alone)
# ```
#
# </details>
#
# 2. Which class fails most often among the worst images?
#
# <details><summary>Solution</summary>
#
# The answer depends on the run. This counts the labels of the worst tenth:
#
# ```python
# from safn.metrics import mean_iou
#
# masked = folder.with_mask(val)
# worst = mean_iou(counts).argsort()[: len(masked) // 10]
# labels = sum(folder.label(masked[k]) for k in worst)
# dict(zip(folder.classes, labels.astype(int)))
# ```
#
# </details>
#
# ## Next
#
# [The paper's tables](11_comparison.ipynb) beside the numbers of this run.
#
# <details><summary>Run this chapter yourself</summary>
#
# `papermill 10_figures.ipynb out.ipynb -p runs ../runs/mine` in the folder `notebooks`. It takes half a minute. It reads
# `02_baseline`, and stages 03, 04 and 07 of each run in `experiments`. It writes a record to `10_figures/default`.
#
# </details>

# %% tags=["remove-cell"]
done = stage.finish({})
