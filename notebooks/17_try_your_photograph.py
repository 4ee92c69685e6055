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
# # Try your photograph
#
# Two trained networks come with the package. What do they make of a photograph of yours?
#
# Open this notebook with `make lab`, write the path of an image file between the quotes, and run all cells. It takes
# seconds and needs no graphics card. Nothing leaves your computer. Without a path it shows a photograph that comes with
# the package.
#
# Paper: Sec. III. Background: [the method](../book/method.md) and [SAFN in 25 lines](16_safn_in_25_lines.ipynb). Code:
# [`safn.load`](../book/api_safn.md).

# %% tags=["parameters"]
photograph = ""  # path of an image file; empty: the cow of the package
labels = ""  # what it shows, such as "cow, person"; empty: found by SAFN

# %%
from safn.datasets.free_photographs import free_photographs
from safn_book import display, tables
from safn_book.photographs import Steps, columns

cow = free_photographs()["cow"]
names = [name.strip() for name in labels.split(",") if name.strip()]
mask = None if photograph else cow.mask
steps = Steps(photograph or cow.path, names or None, mask)
display.figure(
    columns(["photograph"], steps),
    f"The photograph: {steps.name}.",
    f"The photograph {steps.name}, as the networks see it.",
)

# %% [markdown]
# ## Which classes does it show?
#
# SAFN is a classifier for the 20 classes of VOC 2012. It was trained on 1,631 photographs, with image labels only. It
# gives each class a probability. Classes above 50 % become the labels, unless you gave your own.

# %%
probabilities = dict(zip(steps.classes, steps.scores.tolist()))
likely = sorted(probabilities, key=probabilities.get, reverse=True)[:5]
tables.percent(
    {name: probabilities[name] for name in likely},
    "Probability of the five likeliest classes.",
)

# %% tags=["remove-input"]
shown = steps.classes[steps.shown_class]
found = [name for name, label in zip(steps.classes, steps.labels) if label]
display.text(
    f"The labels are: {', '.join(found)}. The maps below are those of *{shown}*."
    if found
    else "No class reaches 50 %: no label, no map. Give a label in the first cell."
)

# %% [markdown]
# ## Where is it?
#
# A localization map is made of the class features, divided by their maximum (Eq. 4). There is one for each of the three
# scales, and the fused map of all three. Bright pixels speak for the class.

# %%
display.figure(
    columns(["photograph", "scale maps", "map"], steps),
    f"Maps of the class {shown} at each scale, and the fused map.",
    f"A photograph, and four maps of the class {shown} laid over it.",
)

# %% [markdown]
# ## Which scale counts?
#
# Scale attention gives each scale a weight at each pixel (Eq. 1). The three weights of a pixel sum to 1.

# %%
display.figure(
    columns(["photograph", "scale weights"], steps),
    "Weights of the three scales.",
    "A photograph, and one map for the weight of each scale.",
)

# %% tags=["remove-input"]
means = steps.scale_weights.mean((1, 2))
pairs = zip(steps.scales, means)
words = [f"{weight:.2f} for scale {scale:g}" for scale, weight in pairs]
display.text(f"On average the weights are {words[0]}, {words[1]} and {words[2]}.")

# %% [markdown]
# Most photographs look alike here, because this attention has learned to prefer scale 1.
# [What we learned](12_what_we_learned.ipynb) says what it is worth.
#
# ## Which pixels become pseudo labels?
#
# The map says which class, and the saliency map says which pixels stand out. Algorithm 1 makes pseudo labels of both.
# Pale pixels are ignored: they stand out, but no class claims them.

# %%
display.figure(
    columns(["photograph", "saliency", "pseudo labels"], steps),
    "Saliency map of U2-Net-p in six views, and pseudo labels by Algorithm 1.",
    "A photograph, its saliency map, and its pseudo labels in the colours of VOC.",
)

# %% [markdown]
# ## A mask without any label
#
# The second network, DeepLab, has learned from the pseudo labels of the 1,631 photographs. It needs no label, no map
# and no saliency.

# %%
display.figure(
    columns(["photograph", "pseudo labels", "segmentation", "ground truth"], steps),
    f"Segmentation at five scales{' and the CRF' if steps.refine else ''}. "
    "The ground truth, where there is one, was drawn by hand.",
    "A photograph, its pseudo labels, its segmentation, and its ground truth.",
)

# %% tags=["remove-input"]
truth = steps.ground_truth is not None
display.text(
    f"Overlap of *{shown}* with the ground truth, divided by their union (IoU): "
    f"{100 * steps.iou(steps.pseudo_label):.1f} % for the pseudo labels, where they are not "
    f"ignored, and {100 * steps.iou(steps.segmentation):.1f} % for the segmentation."
    if truth
    else "There is no ground truth to compare them with."
)

# %% [markdown]
# A folder of photographs needs one command:
#
# ```shell
# python -m safn predict voc my-photographs masks
# ```
#
# ## A class that it does not know
#
# VOC has no hedgehog. The network cannot say "something else", so it calls a pixel background or one of its 20 classes:

# %%
hedgehog = Steps(free_photographs()["hedgehog"].path)
top = hedgehog.classes[hedgehog.shown_class]
display.figure(
    columns(["photograph", "map", "pseudo labels", "segmentation"], hedgehog),
    f"What the networks make of a hedgehog. The map is that of {top}.",
    "A hedgehog in grass. All three pictures cover it, under other names.",
)

# %% tags=["remove-input"]
shares = hedgehog.shares().items()
called = " and ".join(f"{name} ({100 * share:.0f} %)" for name, share in shares)
display.text(
    f"The classifier calls it a {top}, with {100 * hedgehog.scores.max():.1f} %. "
    f"The segmentation covers the animal with other classes: {called} of the photograph. "
    "The place is right and the name is not. "
    "A high probability does not say that the class is known."
)

# %% [markdown]
# Do not use these networks where an error matters. The [model card](../book/model_card.md) says how good they are. For
# classes of your own, [train your own](../book/own_photos.md).
#
# ## Photographs to try
#
# These come with the package. All are free of rights: CC0 or in the public domain. No network was trained on them.

# %% tags=["remove-input"]
import pandas as pd

rows = [
    [name, one.shows, one.author, one.licence, "yes" if one.mask else ""] for name, one in free_photographs().items()
]
titles = ["name", "it shows", "author", "licence", "ground truth"]
tables.show(pd.DataFrame(rows, columns=titles))

# %% [markdown]
# `free_photographs()["dog"].path` is the file, and `.source` the page of its author.
#
# ## Takeaways
#
# - A label and a photograph are enough for maps and pseudo labels. DeepLab then needs the photograph alone.
# - The networks know 20 classes, and give everything else one of their names.
#
# ## Exercises
#
# 1. Ten photographs come with the package. For which is the likeliest class not the label?
#
# <details><summary>Solution</summary>
#
# ```python
# from safn_book.photographs import free_steps
#
# for one in free_steps():
#     likeliest = one.scores.argsort()[::-1][:2]
#     print(one.name, [(one.classes[k], round(float(one.scores[k]), 2)) for k in likeliest])
# ```
# The horses are called cow, with 97 %. The hedgehog has no label that would be right. The chair is the likeliest class of
# its photograph, but with 32 % it would not become a label. Look at the second place of the astronaut, too.
#
# </details>
#
# 2. Make the photograph eight times smaller. What do the two networks still see?
#
# <details><summary>Solution</summary>
#
# ```python
# import tempfile
# from pathlib import Path
#
# with tempfile.TemporaryDirectory() as folder:
#     path = Path(folder) / "small.png"
#     steps.picture.reduce(8).save(path)
#     small = Steps(path, names or None)
#     print(small.picture.size, small.scores.max(), small.shares())
# ```
# The classifier enlarges the photograph to 288 pixels and still finds the cow, with 99.8 %. DeepLab takes the 63 × 47 pixels
# as they are and finds nothing: at its stride of 16 the image has 4 × 3 places.
#
# </details>
#
# ## Next
#
# [Your own photos](../book/own_photos.md) trains both networks on classes of your choice.
