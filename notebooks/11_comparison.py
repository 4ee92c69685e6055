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
# # Comparison (Tables 1-3)
#
# Every run of the profile beside the published numbers: **what was measured on what stands in each row**. Numbers of
# emoji scenes, or of a part of VOC, are not comparable with published ones in level. All recorded runs, each with its
# record: [recorded runs](../book/recorded.md).
#
# | | |
# |---|---|
# | **Reads** | `02_baseline`, `07_evaluate/<run>` and the stages before it, of each run in `experiments` |
# | **Writes** | `11_comparison/default`: `summary.csv`, `per_class.csv` |
# | **Command** | `papermill 11_comparison.ipynb out.ipynb -p runs ../runs/mine` |
# | **Expected** | the segmentation clearly above the classifier alone: 40.4 ± 0.7 (multi-scale) against 23.0 ± 1.3 on emoji, 56.3 ± 0.2 against 34.5 ± 0.6 on photographs (profile `evidence`), three seeds each |
# | **Time** | seconds |

# %%
import pandas as pd
from IPython.display import display

from safn import data
from safn_book import charts, checks, published, results, settings, stages
from safn_book.run_names import Stage

# %% tags=["parameters"]
# parameters
runs = "../runs/emoji"  # folder of the outputs of all stages
experiments = ["attention_1-0.75-0.5_seed0"]  # the first is the main experiment

# %%
p = settings.read(globals())

# %%
source, folder, train, val = stages.load_data(p.runs)
plain = stages.require(p.runs, Stage.BASELINE)
table, ends = results.collect(p.runs, p.experiments)
stage = stages.open_stage(p, Stage.COMPARISON, inputs=[source, plain, *ends])
main = table.iloc[0]
print(f"{len(train)} training images, {len(val)} validation images; one row a run")

# %% [markdown]
# ## From stage to stage
# In percent. *Maps* and *pseudo ground truth* are scored on training images, the rest on validation images. A `+maps`
# or `+saliency` run is a control whose pseudo ground truth uses only that; `@` names another segmentation network on
# the same pseudo ground truth; `masks` is the fully supervised upper bound.

# %%
columns = results.COLUMNS
summary = table.set_index("run").reindex(columns=list(columns)).mul(100).round(1).rename(columns=columns)
summary.to_csv(stage.folder / "summary.csv")
summary.transpose()

# %% [markdown]
# ## Is the segmentation better than the classifier alone?
# The classifier alone: maps of the classes it predicts itself, cut at the best threshold of the training images.

# %%
alone = {
    "plain classifier + Grad-CAM": plain.record["metrics"]["classifier_only_val_miou"],
    "SAFN, maps only": main["classifier_only_val_miou"],
    "segmentation, single scale": main["val_miou_single"],
    "segmentation, multiple scales": main["val_miou_multi"],
}
charts.percent(pd.Series(alone, dtype=float))

# %% [markdown]
# ## Tables 1 and 2
# As published, VOC 2012, all 10,582 training images (`10K`) or more. Table 1 is of VGG16-based segmentation networks,
# Table 2 of ResNet-based ones. A run of this book stands below the table of *its own* network, DeepLab-LargeFOV on
# VGG16 or DeepLab-ASPP on ResNet-101, if the profile has one; its test column needs the evaluation server.

# %%
ours = results.of_main(table)
protocol = list(ends[0].record["per_class"])[-1]
print(f"this run: {results.PROTOCOLS[protocol]}, of {', '.join(ours['network'].unique())}")
for number, network in enumerate(published.NETWORKS.values(), 1):
    shown = published.table(number)[["method", "venue", "supervision", "training", "val", "test"]]
    shown = pd.concat([shown, results.own_row(ours, network, protocol, len(train))])
    display(shown.style.hide(axis="index").format(precision=1))

# %% [markdown]
# ## Table 3: by class
# IoU (%) of this run, mean over its seeds, beside the published column of the same network; the last test protocol of
# the run is shown.

# %%
beside = results.by_class(ours, ends, protocol)
if folder.classes == data.VOC_CLASSES:
    beside = results.beside_table3(beside)
beside.to_csv(stage.folder / "per_class.csv")
beside

# %% [markdown]
# ## Check

# %%
scores = {f"val_miou_{k}": main[f"val_miou_{k}"] for k in ends[0].record["per_class"]}
scores["gain_over_classifier_alone"] = main["val_miou_multi"] - main["classifier_only_val_miou"]
done = stage.finish(scores)
checks.compare(done, source)
