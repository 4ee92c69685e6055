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
# # 0 Data
#
# A segmentation network usually learns from masks, which name the class of every pixel. Drawing them is slow. An image
# label only says *which* classes an image shows, and is made in seconds. What is in such a data set, and what may a
# network learn from it?
#
# This chapter makes or checks the data that all other chapters read: images, their labels, and masks that only measure.
#
# Paper: Sec. IV-A. Method: [what a run does](../book/method.md#what-a-run-does). Code:
# [`safn.data` and `safn.datasets`](../book/api_safn.md#data).

# %% tags=["hide-cell"]
from pathlib import Path

import numpy as np
import pandas as pd

from safn import data, verification
from safn.datasets import emoji
from safn_book import (
    charts,
    checks,
    display,
    galleries,
    photographs,
    settings,
    stages,
    tables,
)
from safn_book.run_names import Stage

charts.use_style()

# %% tags=["parameters", "hide-input"]
# parameters
runs = "../runs/emoji"  # folder of the outputs of all stages
data_folder = ""  # folder in VOC layout; empty: make synthetic images
train_images = 240  # number of synthetic training images
val_images = 120  # number of synthetic validation images
image_size = 128  # side of a synthetic image in pixels
seed = 0  # of the synthetic images
limit = 0  # use at most this many training and validation images (0: all)

# %% tags=["remove-cell"]
p = settings.read(globals())

# %% [markdown]
# ## Images, labels and masks
#
# The layout is that of PASCAL VOC 2012, which most papers on this subject use. It has 20 classes.
#
# - An **image** is a photograph of any size, a JPEG file.
# - Its **label** is a vector of 0 and 1, one number for each class. An image may show several classes.
# - A **mask** holds a number for each pixel: 0 for background, 1 to 20 for a class, 255 for *void*. Void pixels lie
#   along outlines, and nobody scores them.
# - A **list** names the images for training (`train_aug`) or for validation (`val`).
#
# Without a folder of your own, the notebook composes synthetic images. They show glyphs of the 20 classes before sky,
# water, grass, walls and floors, and a few glyphs of other things that have no label. They are no substitute for
# photographs. They let every stage run anywhere, and their masks are exact.

# %%
stage = stages.open_stage(p, Stage.DATA)
if p.data_folder:
    root = Path(p.data_folder).resolve()
else:
    root = stage.folder
    emoji.generate(root, p.train_images, p.val_images, p.image_size, p.seed)
folder = data.VOCFolder(root)
verification.verify(folder).settle(root)

# %% [markdown]
# `verify` opens every file. It lists all faults at once: damaged images, masks of another size, labels that differ from
# their mask. Here it found none.
#
# ## What does a label say?

# %% tags=["hide-cell"]
lists = {split: folder.ids(name, p.limit) for split, name in (("train", "train_aug"), ("val", "val"))}
for split, ids in lists.items():
    (stage.folder / f"{split}.txt").write_text("\n".join(ids) + "\n")
labels = {split: np.stack([folder.label(i) for i in ids]) for split, ids in lists.items()}

# %%
first = lists["train"][0]
label = folder.label(first)
[name for name, there in zip(folder.classes, label) if there], label

# %% [markdown]
# This is all that training knows of an image: its colours, and which classes it shows. Not where they are, not how many
# objects there are, not how large.
#
# ## How often does each class appear?

# %% tags=["hide-input"]
images_per_class = pd.DataFrame({split: array.sum(0).astype(int) for split, array in labels.items()}, folder.classes)
display.figure(
    charts.bars(
        images_per_class.rename(columns={"train": "training", "val": "validation"}),
        "images",
    ),
    "Number of images that show each class, in the training and the validation list.",
    "Bars for each class: the number of training images and of validation images.",
)

# %% tags=["hide-input"]
tables.show(
    pd.DataFrame(
        {
            "images": {split: len(ids) for split, ids in lists.items()},
            "labels an image": {split: float(labels[split].sum(1).mean()) for split in lists},
        }
    ).rename({"train": "training", "val": "validation"}),
    "Size of the two lists.",
    digits=2,
)

# %% tags=["remove-input"]
display.text(
    f"The rarest class is *{images_per_class.train.idxmin()}*: {images_per_class.train.min()} of the "
    f"{len(lists['train'])} training images show it. The most frequent one is "
    f"*{images_per_class.train.idxmax()}*, with {images_per_class.train.max()}. A class with "
    "few images is learned from few examples, and classes that often occur together are "
    "hard to separate by labels."
)

# %% [markdown]
# For comparison: `train_aug` of VOC 2012 has 10,582 photographs with 1.555 labels on average, and `val` has 1,449. Our
# labels come from VOC's annotations of objects. Another list circulates, which was derived from the masks. It differs
# on 817 photographs, and tells training what only masks can know.
#
# ## How large are the objects?
#
# Size matters in this book, because scale attention is meant for objects of different size. The rows go from a small
# object to a large one.

# %% tags=["hide-input"]
display.figure(
    galleries.image_gallery(
        folder,
        galleries.by_object_size(folder, lists["train"], 5),
    ),
    "Training images of this data set, from small objects to large ones, and their masks.",
    "Five rows with an image, and where there is a mask its objects in the colours of VOC.",
)

# %% [markdown]
# Training never reads these masks. They measure the maps and the pseudo labels, and they train the fully supervised
# network that the others are compared with.
#
# ## What should I see?
#
# The table sets this run beside recorded runs of the same data and settings. Is a value outside its range? See
# [My number is low](../book/recipes.md#my-number-is-low).

# %% tags=["remove-input"]
content = data.content_fingerprint(folder, lists["train"] + lists["val"])
metrics = {
    "train_images": len(lists["train"]),
    "val_images": len(lists["val"]),
    "labels_an_image": float(labels["train"].sum(1).mean()),
}
done = stage.finish(metrics, root="." if root == stage.folder else str(root), data=content)
checks.compare(done, done)

# %% [markdown]
# ## Photographs
#
# Ten photographs free of rights come with the package. No network of this book was trained on them. Six have a mask
# that was drawn by hand for this project.

# %% tags=["hide-input"]
display.figure(
    photographs.columns(
        ["photograph", "ground truth"],
        *photographs.free_steps("kingfisher", "cat", "dog"),
    ),
    "Three of the free photographs and their masks, drawn by hand.",
    "A kingfisher, a kitten and a dog. Each mask covers the animal, with a pale line of void pixels along its outline.",
)

# %% [markdown]
# ## Takeaways
#
# - An image label says what an image shows. *Where* has to come from somewhere else.
# - Masks of training images measure. They do not train SAFN.
# - Numbers of synthetic images and of photographs cannot be compared with each other.
#
# ## Exercises
#
# 1. Which share of the free photographs do the objects cover?
#
# <details><summary>Solution</summary>
#
# ```python
# from safn.datasets.free_photographs import free_photographs
#
# masks = {
#     name: data.load_mask(photograph.mask)
#     for name, photograph in free_photographs().items()
#     if photograph.mask
# }
# for name, mask in masks.items():
#     print(name, ((mask > 0) & (mask < 255)).mean().round(3))
# ```
# From 12 % (kingfisher) to 27 % (dog). All are *medium* in the tables of this book, which divide at 10 % and 30 %.
#
# </details>
#
# 2. A mask is a PNG with a palette. What happens if a program converts it to grey?
#
# <details><summary>Solution</summary>
#
# ```python
# from PIL import Image
#
# from safn.datasets.free_photographs import free_photographs
#
# path = free_photographs()["dog"].mask
# np.unique(Image.open(path)), np.unique(Image.open(path).convert("L"))
# ```
# The numbers 0, 12 and 255 become 0, 34 and 220: the brightness of their colours. *Dog* turns into a class that does not
# exist. `data.load_mask` reads the numbers.
#
# </details>
#
# 3. Which two classes occur together most often in the training images?
#
# <details><summary>Solution</summary>
#
# ```python
# together = labels["train"].T @ labels["train"]
# np.fill_diagonal(together, 0)
# one, two = np.unravel_index(together.argmax(), together.shape)
# folder.classes[one], folder.classes[two], int(together.max())
# ```
# The product of the label matrix with itself counts the images of each pair. For the synthetic images the pairs are drawn
# at random, so no pair is frequent. In 1,631
# photographs of VOC 2012 it is *bicycle* with *person*, in 94 of them.
#
# </details>
#
# ## Next
#
# [Chapter 1](01_saliency.ipynb) looks at the same images without any label, and finds what stands out.
#
# <details><summary>Run this chapter yourself</summary>
#
# In the folder `notebooks`, with your own data and in a folder of its own:
#
# ```
# papermill 00_data.ipynb out.ipynb -p runs ../runs/mine -p data_folder /path/to/voc
# ```
#
# - It reads a folder in VOC layout. Without one it makes synthetic images from [OpenMoji](https://openmoji.org) glyphs
#   (CC BY-SA 4.0). [Your own photographs](../book/own_photos.md) need only image labels.
# - It writes `00_data/default`: the lists `train.txt` and `val.txt`, the images where it made them, and `record.json`.
# - It takes half a minute on two cores, for the synthetic images or for 2,374 photographs.
#
# </details>
