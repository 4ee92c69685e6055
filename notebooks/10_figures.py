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
# [what we learned](12_what_we_learned.ipynb).
#
# | | |
# |---|---|
# | **Reads** | `02_baseline`, and stages 03, 04 and 07 of each run in `experiments` |
# | **Writes** | `10_figures/default`: a record only |
# | **Command** | `papermill 10_figures.ipynb out.ipynb -p runs ../runs/mine` |
# | **Expected** | pictures |
# | **Time** | half a minute |

# %%
import safn
from safn import evaluation, loading
from safn_book import charts, checks, galleries, settings, stages
from safn_book.run_names import RunName, Stage
from safn_book.tables import METHODS

charts.use_style()

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
maps = {run: stages.require(p.runs, Stage.MAPS, run) for run in [*p.experiments, p.baseline] if run}
main = p.experiments[0]
ends = [stages.require(p.runs, Stage.EVALUATE, run) for run in (main, p.second) if run]
stage = stages.open_stage(p, Stage.FIGURES, inputs=[source, plain, *ends, *maps.values()])

# %% [markdown]
# ## Figure 4: segmentation of validation images
# (a) image, (b) our prediction, then that of the second segmentation network where the profile has one (the paper's is
# DeepLab-ASPP on ResNet), and the ground truth.

# %%
predictions = [end.folder / list(end.record["per_class"])[-1] for end in ends]  # of the last test protocol
titles = ("prediction", "second network")
shown = galleries.examples(folder, val, p.examples)
galleries.image_gallery(folder, shown, masks=dict(zip(titles, predictions)), letters=True)

# %% [markdown]
# ### Where it succeeds and where it fails
# Validation images from the best and from the worst tenth. The mIoU of the image stands beside the row.

# %%
counts = evaluation.load_counts(ends[0].folder / f"counts_{predictions[0].name}.npz")
galleries.best_and_worst(folder, val, counts, predictions[0], p.examples)

# %% [markdown]
# ## Figure 5: maps of small and of large objects
# (a) image, then the maps of the main experiment's network at each scale alone, the maps of each aggregation, each from
# the network that was trained with it, and the ground truth. Small objects come first.

# %%
network = safn.load(stages.require(p.runs, Stage.TRAIN_SAFN, main).folder)
shown = galleries.by_object_size(folder, train, p.examples)
size = maps[main].record["parameters"]["size"]
alone = galleries.scale_maps(network, loading.PlainSet(folder, shown, network.normalisation, size))
pooled = {METHODS[RunName.parse(run).aggregation]: maps[run].folder / "train" for run in p.experiments}
galleries.image_gallery(folder, shown, maps=alone | pooled, letters=True)

# %% [markdown]
# ## Figure 6: from the plain classifier to SAFN
# (a) image, (b) the plain classifier with Grad-CAM, then our baseline with one scale where the run has it, SAFN, and the
# ground truth.

# %%
columns = {"plain, Grad-CAM": plain.folder / "train"}
if p.baseline:
    columns["baseline, 1 scale"] = maps[p.baseline].folder / "train"
columns["SAFN"] = maps[main].folder / "train"
shown = galleries.examples(folder, train, p.examples)
galleries.image_gallery(folder, shown, maps=columns, letters=True)

# %%
done = stage.finish({})
checks.compare(done, source)
