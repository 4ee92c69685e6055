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
# # Evaluation
#
# mIoU on the validation images (Sec. IV-A): one scale; the maximum over several scales; and that with the dense CRF.
#
# | | |
# |---|---|
# | **Reads** | `00_data`, `06_train_segmentation/<run>` |
# | **Writes** | `07_evaluate/<run>`: predictions `single/`, `multi/`, `crf/` (indexed PNG) and the counts of each image |
# | **Command** | `papermill 07_evaluate.ipynb out.ipynb -p runs ../runs/mine -p crf false` |
# | **Expected** | mIoU single / multi-scale / CRF: 33.1 ± 2.0 / 40.4 ± 0.7 / 43.8 ± 1.0 (emoji, three seeds); 53.4 ± 0.2 / 56.3 ± 0.2 / 58.7 ± 0.6 (photographs, profile `evidence`, three seeds); 54.6 / 56.6 / 58.9 (`voc-subset`, seed 0) |
# | **Time** | 1 minute on 2 cores (emoji), 15 minutes for `voc-subset` |
#
# On emoji scenes, seed 0, the same network taught by true masks (`masks_seed0`) has 39.7 / 45.3 / 47.1 instead of
# 34.0 / 41.2 / 44.9: so much the pseudo ground truth costs.
#
# Each copy of an image gets sides that put the cells of the network where they were in its training crops (multiples of 16 for
# EfficientNet-Lite0): with others the masks of photographs lie some pixels beside the objects.
#
# The matrix is one 21 x 21 count over all pixels of the split, void left out; mIoU is its mean over the classes,
# background included.

# %%
import pandas as pd
from IPython.display import display

import safn
from safn import evaluation, inference, metrics
from safn.crf import is_installed
from safn_book import charts, checks, galleries, settings, stages
from safn_book.run_names import Stage
from safn_book.scores import evaluation_scores

charts.use_style()

# %% tags=["parameters"]
# parameters
runs = "../runs/emoji"  # folder of the outputs of all stages
run = "attention_1-0.75-0.5_seed0"  # which segmentation network
test_scales = [1, 1.25, 1.5]  # of the multi-scale test (paper: 0.5 to 1.5; emoji scenes are small already)
flip = False  # also the mirrored image, in each test (paper: no)
largest = 0  # long side in pixels to which larger photos are shrunk for the network (0: never)
crf = True  # also with the dense CRF
crf_processes = 0  # processes of the CRF (0: one a core)
accelerator = "auto"  # cpu, gpu, mps or auto

# %%
p = settings.read(globals())

# %%
source, folder, _, val = stages.load_data(p.runs)
model = stages.require(p.runs, Stage.TRAIN_SEGMENTATION, p.run)
stage = stages.open_stage(p, Stage.EVALUATE, p.run, inputs=[source, model])
network = inference.on_device(safn.load(model.folder), p.accelerator)
protocols = ["single", "multi"]
if p.crf and is_installed():
    protocols.append("crf")
elif p.crf:
    print(
        "The dense CRF is not installed, so the masks are scored without it. On VOC photographs it adds about 2 points"
    )
    print("of mIoU. `make crf` installs it, where there is a C++ compiler. Then run this notebook again.")
single, multi, crf = (stage.folder / q for q in ("single", "multi", "crf"))
photos, seconds = folder.photos(val), {}
shown = {"flip": p.flip, "largest": p.largest}
seconds["single"], _ = inference.predict(network, network.normalisation, photos, single, **shown)
refined = {"refined": crf if "crf" in protocols else None, "processes": p.crf_processes}
seconds["multi"], seconds["crf"] = inference.predict(
    network, network.normalisation, photos, multi, p.test_scales, **refined, **shown
)
matrices, counts = {}, {}
for protocol in protocols:
    matrices[protocol], counts[protocol] = evaluation.score_masks(folder, val, stage.folder / protocol)
    evaluation.save_counts(stage.folder / f"counts_{protocol}.npz", counts[protocol])

# %%
names = {"single": "single scale", "multi": "multi-scale", "crf": "multi-scale + CRF"}
pd.DataFrame(
    {
        names[q]: {
            "mIoU (%)": round(100 * matrices[q].miou(), 1),
            "95 % interval": metrics.interval(counts[q]),
            "seconds": round(seconds[q]),
        }
        for q in protocols
    }
).transpose()

# %% [markdown]
# ## By class

# %%
classes = ["background", *folder.classes]
per_class = pd.DataFrame({names[q]: 100 * matrices[q].iou() for q in protocols}, classes)
display(charts.bars(per_class, "IoU (%)", width=11, rotate=60))
per_class.round(1).transpose()

# %% [markdown]
# ## By object size
# Foreground IoU of the images grouped by how much of them the class covers.

# %%
by_size = pd.DataFrame({names[q]: metrics.iou_by_size(counts[q]) for q in protocols})
display(charts.bars(100 * by_size, "foreground IoU (%)"))
(100 * by_size).round(1)

# %% [markdown]
# ## Examples
# Evenly spaced over the validation list, not chosen.

# %%
shown = galleries.examples(folder, val, 5)
galleries.image_gallery(folder, shown, masks={names[q]: stage.folder / q for q in protocols})

# %% [markdown]
# ## Check

# %%
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
