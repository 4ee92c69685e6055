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
# # Data
#
# Makes or checks the data set that every later stage reads.
#
# | | |
# |---|---|
# | **Reads** | nothing (embedded emoji data), or a folder in VOC layout |
# | **Writes** | `runs/<profile>/00_data/default`: the lists `train.txt`, `val.txt`, the generated data, `record.json` |
# | **Command** | `papermill 00_data.ipynb out.ipynb -p runs ../runs/mine -p data_folder /path/to/voc` |
# | **Expected** | no problem found; 1.5 labels an image (emoji), 1.75 (photographs, profile `voc-subset`; all of `train_aug` has 1.555) |
# | **Time** | half a minute on 2 cores (emoji, or 2,374 photographs) |
#
# The embedded data are scenes of [OpenMoji](https://openmoji.org) glyphs (CC BY-SA 4.0) of the 20 VOC classes. They stand
# before sky, water, grass, walls and floors, beside a few unlabelled distractors. The background does not depend on the
# class. Scenes are no substitute for photographs. They let every stage run anywhere, and the size of each object is known.

# %%
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import display

from safn import data
from safn.datasets import emoji
from safn_book import charts, checks, galleries, settings, stages
from safn_book.run_names import Stage

charts.use_style()

# %% tags=["parameters"]
# parameters
runs = "../runs/emoji"  # folder of the outputs of all stages
data_folder = ""  # folder in VOC layout; empty: generate the emoji data
train_images = 240  # emoji: number of training images
val_images = 120  # emoji: number of validation images
image_size = 128  # emoji: side in pixels
seed = 0  # emoji: seed of the generator
limit = 0  # use only so many training and so many validation images (0: all)

# %%
p = settings.read(globals())

# %%
stage = stages.open_stage(p, Stage.DATA)
if p.data_folder:
    root = Path(p.data_folder).resolve()
else:
    root = stage.folder
    emoji.generate(root, p.train_images, p.val_images, p.image_size, p.seed)
folder = data.VOCFolder(root)
problems = folder.verify()
if problems:
    raise data.DataError.from_problems(f"{root}: {len(problems)} problems", problems)
print(f"{root.name}: no problem found")

# %% [markdown]
# ## What is in it

# %%
lists = {split: folder.ids(name, p.limit) for split, name in (("train", "train_aug"), ("val", "val"))}
for split, ids in lists.items():
    (stage.folder / f"{split}.txt").write_text("\n".join(ids) + "\n")
labels = {split: np.stack([folder.label(i) for i in ids]) for split, ids in lists.items()}
images_per_class = pd.DataFrame({split: array.sum(0).astype(int) for split, array in labels.items()}, folder.classes)
display(charts.bars(images_per_class, "images", width=11, rotate=60))
pd.DataFrame(
    {
        split: {"images": len(ids), "labels an image": round(float(labels[split].sum(1).mean()), 3)}
        for split, ids in lists.items()
    }
)

# %% [markdown]
# Six training images with their true masks. Training never reads these masks: they only score what the stages make.

# %%
shown = [i for i in lists["train"] if folder.mask_path(i)][:6]
galleries.image_gallery(folder, shown)

# %% [markdown]
# ## Check

# %%
content = data.content_fingerprint(folder, lists["train"] + lists["val"])
metrics = {
    "train_images": len(lists["train"]),
    "val_images": len(lists["val"]),
    "labels_an_image": float(labels["train"].sum(1).mean()),
}
done = stage.finish(metrics, root="." if root == stage.folder else str(root), data=content)
checks.compare(done, done)
