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
# # Saliency maps
#
# Class-agnostic maps of what stands out (Sec. III-C). The paper takes DSS; here it is **U2-Net-p** unless a folder of
# maps is given. Name the detector beside every number.
#
# | | |
# |---|---|
# | **Reads** | `00_data` |
# | **Writes** | `01_saliency/default`: `<id>.png`, 8-bit grey, one for each training image |
# | **Command** | `papermill 01_saliency.ipynb out.ipynb -p runs ../runs/mine -p saliency_folder /my/maps` |
# | **Expected** | crisp maps of single objects, weaker on small and on crowded ones |
# | **Time** | 1.5 minutes on one core (emoji), 0.14 s a photograph and look on two |

# %%
import sys
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from safn import evaluation, map_files, saliency
from safn_book import charts, checks, galleries, settings, stages
from safn_book.run_names import Stage

charts.use_style()

# %% tags=["parameters"]
# parameters
runs = "../runs/emoji"  # folder of the outputs of all stages
saliency_folder = ""  # folder of <id>.png maps made elsewhere; empty: U2-Net-p
missing_saliency = "error"  # images without a map in that folder: error, skip, or map-only (their own maps alone)
views = 1  # looks at each image, averaged: 1, 2 (mirrored too) or 6 (four overlapping parts too)
threads = 0  # processor threads of the detector (0: all)

# %%
p = settings.read(globals())

# %%
source, folder, train, _ = stages.load_data(p.runs)
stage = stages.open_stage(p, Stage.SALIENCY, inputs=[source])
if p.saliency_folder:
    without = map_files.copy_saliency(Path(p.saliency_folder), train, stage.folder, p.missing_saliency)
else:
    without, detector = [], saliency.U2NetP(p.threads)
    todo = [i for i in train if not (stage.folder / f"{i}.png").exists()]
    for image_id in tqdm(todo, "saliency", mininterval=2, file=sys.stdout):
        found = saliency.multi_view_saliency(detector, folder.image(image_id), p.views)
        map_files.save_saliency(stage.folder / f"{image_id}.png", found)
made = [i for i in train if i not in set(without)]
print(f"{len(made)} maps, {len(without)} images without one")

# %% [markdown]
# ## How good are they?
# Scored against the union of all classes: mean absolute error, and IoU of the best threshold. An object that is none
# of the classes is salient without being foreground, so neither can be perfect.

# %%
scores = evaluation.score_saliency(folder, made, stage.folder)
pd.Series(scores).round(3).to_frame("value")

# %%
shown = [i for i in made if folder.mask_path(i)][:4]
galleries.image_gallery(folder, shown, saliency=stage.folder)

# %% [markdown]
# ## Check

# %%
looked = "U2-Net-p" if p.views == 1 else f"U2-Net-p, {p.views} views"
done = stage.finish(scores, detector=Path(p.saliency_folder).name or looked)
checks.compare(done, source)
