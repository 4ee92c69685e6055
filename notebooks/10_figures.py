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
# # Figures 4, 5 and 6
#
# The paper's qualitative figures from the run at hand, in its order of columns. Examples are evenly spaced over the
# list of images, not chosen; the rows of Fig. 5 are ordered by object size. What they cannot show, the book measures:
# [what the attention does](../book/evidence.md).
#
# | | |
# |---|---|
# | **Reads** | `02_baseline`, and stages 03, 04 and 07 of each run in `experiments` |
# | **Writes** | `10_figures/default`: a record only |
# | **Command** | `papermill 10_figures.ipynb out.ipynb -p runs ../runs/mine` |
# | **Expected** | pictures |
# | **Time** | half a minute |

# %%
from safn import evaluation
from safn_book import checks, galleries, settings, stages
from safn_book.run_names import RunName, Stage

# %% tags=["parameters"]
# parameters
runs = "../runs/emoji"  # folder of the outputs of all stages
experiments = ["attention_1-0.75-0.5_seed0", "max_1-0.75-0.5_seed0", "avg_1-0.75-0.5_seed0"]  # the main one first
baseline = "attention_1_seed0"  # the run of one scale, Fig. 6 (c); empty: the column is left out
second = ""  # a run <run>@<backbone>-<head> of another segmentation network, Fig. 4 (d); empty: no such column
examples = 6  # rows of each figure

# %%
p = settings.read(globals())

# %%
source, folder, train, val = stages.load_data(p.runs)
plain = stages.require(p.runs, Stage.BASELINE)
shown = [*p.experiments, *([p.baseline] if p.baseline else [])]
maps = {run: stages.require(p.runs, Stage.MAPS, run) for run in shown}
main = p.experiments[0]
ends = [stages.require(p.runs, Stage.EVALUATE, run) for run in (main, p.second) if run]
stage = stages.open_stage(p, Stage.FIGURES, inputs=[source, plain, *ends, *maps.values()])

# %% [markdown]
# ## Figure 4: segmentation of validation images
# (a) image, (b) true mask, (c) ours, (d) ours with the second segmentation network, where the profile has one (the
# paper's: DeepLab-ASPP on ResNet).

# %%
predictions = [end.folder / list(end.record["per_class"])[-1] for end in ends]  # of the last test protocol
galleries.figure4(folder, val, predictions[0], p.examples, *predictions[1:])

# %% [markdown]
# ### Where it succeeds and where it fails
# Validation images from the best and from the worst tenth by their own mIoU, which stands beside the row.

# %%
counts = evaluation.load_counts(ends[0].folder / f"counts_{predictions[0].name}.npz")
galleries.best_and_worst(folder, val, counts, predictions[0], p.examples)

# %% [markdown]
# ## Figure 5: maps of small and of large objects
# (a) image, (b)-(d) maps of the main experiment's network at each scale alone, (e)-(g) aggregated by the maximum, the
# average and the attention, each from the network that was trained so, (h) true mask. Small objects first.

# %%
aggregated = {RunName.parse(run).aggregation: maps[run].folder / "train" for run in p.experiments}
galleries.figure5(folder, train, stages.require(p.runs, Stage.TRAIN_SAFN, main), maps[main], aggregated, p.examples)

# %% [markdown]
# ## Figure 6: from the plain classifier to SAFN
# (a) image, (b) the plain classifier with Grad-CAM, (c) our baseline, one scale, where the run has it, (d) SAFN.

# %%
columns = {
    "(b) plain + Grad-CAM": plain.folder / "train",
    **({"(c) baseline": maps[p.baseline].folder / "train"} if p.baseline else {}),
    "(d) SAFN": maps[main].folder / "train",
}
galleries.map_gallery(folder, train, columns, rows=p.examples)

# %%
done = stage.finish({})
checks.compare(done, source)
