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
# # Aggregation methods (Tables 4 and 5)
#
# Attention against the maximum and the average over the same scales: everything else, the batches included, is the
# same. Recorded runs with several seeds, on photographs too: [what the attention does](../book/evidence.md).
#
# | | |
# |---|---|
# | **Reads** | `07_evaluate/<run>` and the stages before it, of each run in `experiments` |
# | **Writes** | `08_aggregation/default`: `table4.csv`, `table5.csv` |
# | **Command** | `papermill 08_aggregation.ipynb out.ipynb -p runs ../runs/mine` |
# | **Expected** | maps on photographs: attention above the maximum by 1.2 points, above the average by 2.0 (three seeds); segmentations, multi-scale: by 0.7 and 1.4 (one seed; the paper's span is 0.3 points) |
# | **Time** | half a minute on 2 cores (emoji), of which Table 5 takes most; minutes for each run that is missing |

# %%
from types import SimpleNamespace

import pandas as pd
from IPython.display import display

from safn_book import charts, checks, cost, results, settings, stages
from safn_book.run_names import Stage

# %% tags=["parameters"]
# parameters
runs = "../runs/emoji"  # folder of the outputs of all stages
experiments = ["attention_1-0.75-0.5_seed0", "max_1-0.75-0.5_seed0", "avg_1-0.75-0.5_seed0"]  # runs to compare
missing_segmentation = "make"  # of a run: make (train it first), or leave (compare what there is of it)
bootstrap = 1000  # resampled image sets
cost_steps = 24  # training steps and maps timed for each aggregation, Table 5 (0: leave it out)

# %%
p = settings.read(globals())

# %%
source, folder, *_ = stages.load_data(p.runs)
table, ends = results.collect(p.runs, p.experiments, p.missing_segmentation)
stage = stages.open_stage(p, Stage.AGGREGATION, inputs=[source, *ends])
print(results.seeds_sentence(table))
ours = results.overview(table, "aggregation")
ours

# %% [markdown]
# All in percent: validation mAP of the classifier, best mIoU of the maps and mIoU of the pseudo ground truth (ignored
# pixels as background) on training images, and mIoU of the segmentation on validation images without CRF. A column is
# of the seeds that all of its rows have; a number without ± is of one.
#
# Beside them the published numbers. Ours are of this run's data, backbone and detector, theirs of VOC 2012 val with
# DSS and, by their level, VGG16 (the paper does not say): **not comparable in level**, only in order.

# %%
beside = results.beside_published(ours, 4)
beside.to_csv(stage.folder / "table4.csv")
beside

# %% [markdown]
# ## Is a difference more than chance?
# In points of mIoU, maps and pseudo ground truth on training images, segmentation on validation images. *Images*: 95 %
# interval of a paired bootstrap over images, which says what other images would change. *All*: that of another training
# as well, from the spread over the seeds; with three seeds it is wide. One is called better only if that interval leaves out
# 0, and if there are three seeds. Of twenty comparisons expect one false alarm.

# %%
gaps = results.differences(p.runs, table, "aggregation", p.bootstrap)
gaps.round(2)

# %% [markdown]
# ## By object size
# Foreground IoU (%) of the maps, of the pseudo ground truth, and of the segmentation at the last of its tests, grouped by how much of the image the class
# covers; means over the seeds that all have, whiskers: their standard deviation.

# %%
by_size, spread = (results.by_size(table, "aggregation", of) for of in ("mean", "std"))
for measure, sizes in by_size.items():
    display(charts.bars(sizes, f"{measure}\nforeground IoU (%)", spread[measure]), sizes.round(1))

# %% [markdown]
# ## What does it cost? (Table 5)
# Milliseconds an image of a training step and of the extraction of the maps (medians; the three networks take turns,
# with the crop and batch of this run, and ratios are those within a turn), and the memory that a training step has to
# hold, counted: weights, gradients, momentum, images and what is kept for the backward pass. Published are those of a
# GPU that is not named, its memory as the system showed it: **compare the ratios** to average pooling.

# %%
model = stages.require(p.runs, Stage.TRAIN_SAFN, p.experiments[0], restored=True)
trained = SimpleNamespace(**model.record["parameters"])
measured = cost.measure(trained, len(folder.classes), p.cost_steps) if p.cost_steps else ()
table5 = cost.beside(*measured) if measured else pd.DataFrame()
table5.to_csv(stage.folder / "table5.csv")
table5

# %% [markdown]
# ## Check

# %%
scores = {f"val_miou_multi {run}": value for run, value in zip(table["run"], table["val_miou_multi"], strict=True)}
done = stage.finish(
    scores,
    differences=gaps.to_dict("records"),
    by_size={what: table.to_dict() for what, table in by_size.items()},
)
checks.compare(done, source)
