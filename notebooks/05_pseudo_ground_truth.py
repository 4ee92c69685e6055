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
# # 5 Pseudo labels
#
# A segmentation network must be told the class of every pixel. We only know which classes an image shows. Who draws the
# masks?
#
# We have two hints. A localization map knows the class of an object, but its outline is blurred. A saliency map knows
# the outline of what stands out, but not its class. We keep what both agree on (Eq. 5), and choose a class for each
# pixel (Algorithm 1).
#
# Paper: Sec. III-C and Fig. 3. Method: [pseudo labels](../book/method.md#pseudo-labels). Code:
# [`safn.pseudo`](../book/api_safn.md#pseudo-labels).

# %% tags=["hide-cell"]
import numpy as np
import pandas as pd

from safn import evaluation, map_files, metrics, pseudo
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
from safn_book.run_names import RunName, Stage
from safn_book.scores import (
    Sources,
    counts_of_list,
    oracle_pseudo_labels,
    pseudo_label_class_scores,
    pseudo_label_scores,
    threshold_sweep,
)
from safn_book.tables import number

charts.use_style()

# %% tags=["parameters", "hide-input"]
# parameters
runs = "../runs/emoji"  # folder of the outputs of all stages
run = "attention_1-0.75-0.5_seed0"  # whose localization maps
combine = "harmonic"  # harmonic (Eq. 5); controls: maps or saliency alone
gamma = 0.2  # background where the confidence is below (Algorithm 1)
ignore_saliency = 0.5  # ignore background with a saliency above (1: never)
ignore_confidence = 0.9  # ignore pixels with two confidences above (1: never)

# %% tags=["remove-cell"]
p = settings.read(globals())
run = RunName.parse(p.run).combined(p.combine)
source, folder, train, _ = stages.load_data(p.runs)
saliency = stages.require(p.runs, Stage.SALIENCY)
maps = stages.require(p.runs, Stage.MAPS, p.run)
stage = stages.open_stage(p, Stage.PSEUDO_LABELS, run, inputs=[source, saliency, maps])
rules = {
    "gamma": p.gamma,
    "ignore_saliency": p.ignore_saliency,
    "ignore_confidence": p.ignore_confidence,
    "combine": p.combine,
}
absent = saliency.record["parameters"].get("missing_saliency", "error")

# %% [markdown]
# ## Both have to agree
#
# Let $M_c$ be the map of class $c$ and $S$ the saliency map, both between 0 and 1. The confidence of class $c$ at pixel
# $(i, j)$ is their harmonic mean:
#
# $$H_c(i, j) = \frac{2}{1 / M_c(i, j) + 1 / S(i, j)} \tag{5}$$
#
# It stays near the smaller value, so each hint can veto the other.

# %% tags=["remove-input"]
display.source(pseudo.harmonic_mean)

# %% [markdown]
# `maps` holds $M$ of all $N$ classes, `(N, H, W)`, and `saliency` has shape `(H, W)`.
#
# ## Algorithm 1 at one pixel
#
# An image shows a *cat* and a *dog*. At one of its pixels $M_{cat} = 0.8$, $M_{dog} = 0.3$ and $S = 0.6$.
#
# 1. Eq. 5 gives $H_{cat} = 0.69$ and $H_{dog} = 0.40$.
# 2. The larger one is not below $\gamma = 0.2$, so the pixel is not background.
# 3. The map of the cat is the largest. The label is *cat*.
#
# Two kinds of pixels are ignored (value 255), and train nothing. One is background with high saliency: something stands
# there that no label names. The other has two confident classes, as on a border. Here are our pixel and three more.

# %%
cat, dog = [0.8, 0.8, 0.1, 0.95], [0.3, 0.3, 0.05, 0.92]
M = np.array([[cat], [dog]])  # maps of two classes, (2, 1, 4)
S = np.array([[0.6, 0.1, 0.9, 0.95]])  # saliency, (1, 4)
H = pseudo.harmonic_mean(M, S)  # Eq. 5
G = pseudo.pseudo_ground_truth(M, S, labels=[1, 1])  # Algorithm 1

# %% tags=["hide-input"]
by_hand = pd.DataFrame(
    {
        "M cat": M[0, 0],
        "M dog": M[1, 0],
        "S": S[0],
        "H cat": H[0, 0],
        "H dog": H[1, 0],
    }
)
names = {0: "background", 1: "cat", 2: "dog", 255: "ignored"}
by_hand["label"] = [names[value] for value in G[0].tolist()]
tables.show(by_hand, "Algorithm 1 at four pixels, with default thresholds.", digits=2)

# %% [markdown]
# The second pixel has no confidence above $\gamma$. The third is background, but salient. The fourth has two confident
# classes. In the code, `present` are the labels of the image.

# %% tags=["remove-input"]
display.source(pseudo.pseudo_ground_truth)

# %% [markdown]
# ## The labels of this run

# %% tags=["remove-output"]
left_out = map_files.write_pseudo_labels(
    folder,
    train,
    maps.folder / "train",
    saliency.folder,
    stage.folder,
    absent,
    **rules,
)

# %% tags=["remove-cell"]
train = [i for i in train if i not in set(left_out)]
salient = [i for i in train if (saliency.folder / f"{i}.png").exists()]
masked = folder.with_mask(train)
_, counts = evaluation.score_masks(folder, train, stage.folder)
scores = pseudo_label_scores(folder, train, counts)
print(f"{len(train)} masks, {len(left_out)} images left out")
print(f"{len(train) - len(salient)} masks made of their maps alone")

# %% tags=["hide-input"]
display.figure(
    galleries.image_gallery(
        folder,
        galleries.examples(folder, salient, 4),
        maps={"localization map": maps.folder / "train"},
        saliency=saliency.folder,
        masks={"pseudo label": stage.folder},
        scores=galleries.image_miou(folder, train, counts),
    ),
    "From maps to pseudo labels: training images, from a small object to a large one. The"
    " number is the mIoU of the image.",
    "One row an image: the image, a blurred localization map, a saliency map with sharp"
    " outlines, the pseudo label, and the ground truth where there is one.",
)

# %% tags=["remove-input"]
sizes = [number(100 * scores[f"pseudo_iou {size}"]) for size in metrics.SIZES]
display.text(
    "The map finds the object, and the saliency map cuts it out. Where one of the two"
    " misses a part, the pseudo label misses it, too. A thing beside the object that stands"
    " out gets the same label: see the rows with a low number."
    f" Over all {len(masked)} training images with a mask, the IoU of small objects is"
    f" {sizes[0]} %. It is {sizes[1]} % for medium objects, and {sizes[2]} % for large"
    " ones.",
    masked,
)

# %% [markdown]
# ## How good are they?
#
# Ground-truth masks measure them, by the mIoU: the overlap of label and mask, averaged over the classes. Ignored pixels
# count *as background*. To exclude them would reward a method that ignores what is difficult. The folded table has
# the other two conventions.

# %% tags=["hide-input"]
listed = len(counts_of_list(folder, train, counts))
background = scores["pseudo_miou_background"]
quality = [
    ("maps alone, best threshold", len(masked), maps.record["metrics"]["map_miou"]),
    ("pseudo labels", len(masked), background),
]
if 0 < listed < len(masked):
    own = scores["pseudo_miou_background_train_list"]
    quality.append(("pseudo labels, official train list only", listed, own))
quality = pd.DataFrame(quality, columns=["labels", "images", "mIoU (%)"])
quality["mIoU (%)"] = 100 * quality["mIoU (%)"].astype(float)
tables.show(
    quality,
    f"Training images. Ignored pixels count as background. Data: {checks.data_words(source)}.",
)

# %% tags=["hide-cell"]
conventions = {
    "ignored pixels excluded": scores["pseudo_miou_drop"],
    "counted as background": scores["pseudo_miou_background"],
    "counted as errors": scores["pseudo_miou_wrong"],
    "share of ignored pixels": scores["ignored_share"],
}
tables.percent(
    conventions,
    f"mIoU of the pseudo labels of {len(masked)} training images, by convention.",
)

# %% tags=["remove-input"]
display.text(
    f"The pseudo labels have an mIoU of {number(100 * background)} %, and"
    f" {number(100 * scores['ignored_share'])} % of their pixels are ignored."
    " The first row has the maps alone, cut off at the threshold that suits them best.",
    masked,
)

# %% [markdown]
# ## Which classes fail?
#
# *Precision* is the share of right pixels among those called a class. *Recall* is the share of a class that is found.

# %% tags=["hide-input"]
precision, recall = metrics.precision_recall(counts.sum(0))
by_class = pd.DataFrame(
    {
        "IoU (%)": 100 * metrics.class_iou(counts.sum(0), "background"),
        "precision (%)": 100 * precision,
        "recall (%)": 100 * recall,
    },
    ["background", *folder.classes],
)
tables.show(
    by_class,
    f"Pseudo labels of {len(masked)} training images by class.",
)

# %% tags=["remove-input"]
weak = by_class["IoU (%)"].nsmallest(3)
missed = int((by_class["recall (%)"] < by_class["precision (%)"]).sum())
display.text(
    "The weakest classes: "
    + ", ".join(f"{name} ({number(value)} %)" for name, value in weak.items())
    + f". In {missed} of {len(by_class)} classes the recall is below the precision: the"
    " labels miss more of the class than they add to it. In the others they add more.",
    masked,
)

# %% tags=["remove-input"]
display.text(
    "On photographs, furniture is the weakest: it seldom stands out in a room. Of the pixels "
    "called *chair* only "
    f"{statements.recorded(Stage.PSEUDO_LABELS, 'per_class', 'precision', 'chair')} % are "
    "chair. Of the pixels of dining tables only "
    f"{statements.recorded(Stage.PSEUDO_LABELS, 'per_class', 'recall', 'diningtable')} % are "
    "found."
)

# %% [markdown]
# ## Are the thresholds right?
#
# The paper gives $\gamma = 0.2$, and no value for ignored pixels. From this run (dashed) we move one threshold at a
# time.

# %% tags=["remove-cell"]
sources = Sources(folder, salient, maps.folder / "train", saliency.folder)
moved = threshold_sweep(sources, rules)
moved.to_csv(stage.folder / "thresholds.csv", index=False)
tried = min(150, len(folder.with_mask(salient)))

# %% tags=["hide-input"]
display.figure(
    charts.sensitivity(moved, rules),
    f"Pseudo labels of {tried} training images while one threshold moves: mIoU above, ignored pixels below.",
    "Three columns, one a threshold. Above, three lines of mIoU, one for each convention"
    " for ignored pixels. Below, the share of ignored pixels.",
) if tried else None

# %% tags=["remove-input"]
gammas = moved[moved["threshold"] == "gamma"].set_index("value")
display.text(
    f"With ignored pixels as background, the mIoU at gamma {p.gamma:g} is"
    f" {number(gammas['background'][p.gamma])} %. "
    + (
        "No other gamma of the row does better."
        if gammas["background"].fillna(0).idxmax() == p.gamma
        else f"The best gamma of the row is {gammas['background'].fillna(0).idxmax():g}, with"
        f" {number(gammas['background'].max())} %. Whoever takes that value has chosen a"
        " setting with masks, and has to say so beside the result."
    ),
    masked,
)

# %% [markdown]
# The labels look better if ignored pixels are excluded, and worse if they count as background or as errors.
#
# ## Maps or saliency: which holds them back?
#
# We replace one input at a time by the ground truth (an oracle), and ignore nothing.

# %% tags=["hide-input"]
threshold, limits = saliency.record["metrics"]["saliency_threshold"], {}
if salient and threshold is not None:
    limits = oracle_pseudo_labels(sources, threshold, p.gamma, p.combine)
tables.percent(
    limits,
    f"mIoU on {tried} training images, with one input replaced.",
) if limits else None

# %% tags=["remove-input"]
display.text(
    f"The labels have {number(100 * limits['pseudo labels'])} %. With the ground-truth"
    f" foreground they have {number(100 * limits['ground-truth foreground'])} %, and with"
    f" ground-truth classes {number(100 * limits['ground-truth classes'])} %. The larger"
    " step names the input to improve: the saliency map gives the foreground, the maps"
    " give the classes."
) if limits else display.text("No image has both a mask and a saliency map.")

# %% [markdown]
# ## What should I see?
#
# The table sets this run beside recorded runs of the same data and settings. Is a value outside its range? See
# [My number is low](../book/recipes.md#my-number-is-low).

# %% tags=["remove-input"]
evaluation.save_counts(stage.folder / "counts.npz", counts)
per_class = pd.DataFrame(pseudo_label_class_scores(folder, train, counts))
done = stage.finish(
    scores,
    init=maps.record["init"],
    detector=saliency.record["detector"],
    left_out=left_out,
    per_class=per_class.to_dict(),
    thresholds=moved.to_dict("records"),
    limits=limits,
)
checks.compare(done, source)

# %% tags=["remove-input"]
display.text(
    "**On photographs** (three recorded runs with 1,631 training images of VOC 2012, "
    "EfficientNet-Lite0 and U2-Net-p) the maps have "
    f"{statements.recorded(Stage.MAPS, 'metrics', 'map_miou')} % mIoU, and the pseudo labels "
    f"{statements.recorded(Stage.PSEUDO_LABELS, 'metrics', 'pseudo_miou_background')} %. With "
    "ground-truth classes they would have "
    f"{statements.recorded(Stage.PSEUDO_LABELS, 'limits', 'ground-truth classes')} %, and with "
    "the ground-truth foreground "
    f"{statements.recorded(Stage.PSEUDO_LABELS, 'limits', 'ground-truth foreground')} % "
    "(seed 0, 150 images). There the saliency holds the labels back."
)

# %% [markdown]
# ## The same on photographs
#
# The classifier comes with the package ([try it](17_try_your_photograph.ipynb)). It was trained on 1,631 other
# photographs.

# %% tags=["hide-input"]
display.figure(
    photographs.columns(
        ["photograph", "map", "saliency", "pseudo labels", "ground truth"],
        *photographs.free_steps("cow", "dog", "chair", "horses"),
    ),
    "Maps, saliency maps and pseudo labels of four photographs. Two have a ground truth, drawn by hand.",
    "Four rows. The labels of the cows and the dog have sharp outlines. Of the chair only the"
    " seat is labelled, and the rest is ignored. Most of the horses is ignored.",
) if p.run == photographs.MAIN else None

# %% [markdown]
# The saliency turns one blurred spot into three cows. Most of the chair is salient where its map is dark: it is
# ignored, not called background. The horses fail, because their map lies on the grass.
#
# ## Takeaways
#
# - Eq. 5 keeps what map and saliency agree on. Algorithm 1 takes the class of the largest map.
# - The mIoU of pseudo labels means little without its convention for ignored pixels.
# - On photographs a better saliency detector would help more than better maps.
#
# ## Exercises
#
# 1. A pixel has $M = 0.5$ and $S = 0.3$. Which label does it get with $\gamma = 0.2$, and with 0.4?
#
# <details><summary>Solution</summary>
#
# ```python
# for gamma in (0.2, 0.4):
#     print(pseudo.pseudo_ground_truth([[[0.5]]], [[0.3]], [1], gamma))
# ```
# Eq. 5 gives $H = 2 / (2 + 3.33) = 0.375$. So it is foreground with 0.2, and background with 0.4. It is not ignored,
# because its saliency is not above 0.5.
#
# </details>
#
# 2. Take the *minimum* of map and saliency in the place of Eq. 5. Why does little change?
#
# <details><summary>Solution</summary>
#
# Let $a$ be the smaller and $b$ the larger value. Then $H = 2a \cdot b / (a + b)$, and $b / (a + b)$ lies between 1/2
# and 1. So $H$ lies between $a$ and $2a$, and the minimum with a threshold between $\gamma / 2$ and $\gamma$ gives similar
# labels:
# ```python
# matrix = metrics.ConfusionMatrix(len(folder.classes) + 1)
# for target, M, S, labels in sources.masked():
#     lower = np.minimum(M, S)
#     label = np.where(lower.max(0) < 0.15, 0, 1 + M.argmax(0))
#     matrix.update(label, target)
# 100 * matrix.miou()
# ```
# Compare it with the first row of the last table, where nothing is ignored either.
#
# </details>
#
# 3. Which of the two inputs alone makes better labels? Run the two controls.
#
# <details><summary>Solution</summary>
#
# ```
# papermill 05_pseudo_ground_truth.ipynb out.ipynb -p combine saliency
# papermill 05_pseudo_ground_truth.ipynb out.ipynb -p combine maps
# ```
# They are runs of their own, and take half a minute each. On photographs the saliency alone nearly equals both together,
# and the maps alone are far behind:
# ```python
# for name in ("", "+saliency", "+maps"):
#     run = f"attention_1-0.75-0.5{name}"
#     place = Stage.PSEUDO_LABELS, "metrics", "pseudo_miou_background"
#     print(run, statements.recorded(*place, configuration=run))
# ```
#
# </details>
#
# ## Next
#
# [Chapter 6](06_train_segmentation.ipynb) trains a segmentation network on these labels.
#
# <details><summary>Run this chapter yourself</summary>
#
# In the folder `notebooks`, with another threshold and in a folder of its own:
#
# ```
# papermill 05_pseudo_ground_truth.ipynb out.ipynb -p gamma 0.3 -p runs ../runs/mine
# ```
#
# - It reads `00_data`, `01_saliency` and `04_localization_maps/<run>`. What is missing is made first.
# - It writes `05_pseudo_ground_truth/<run>`: indexed masks `<id>.png` with 255 for ignored pixels, and `thresholds.csv`.
# - It takes half a minute on 2 cores for the synthetic images, and a minute for the 1,631 photographs of `voc-subset`.
#
# </details>
