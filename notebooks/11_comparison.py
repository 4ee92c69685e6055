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
# record: [records](15_records.ipynb).
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
from IPython.display import Markdown, display

from safn.data import VOC_CLASSES
from safn_book import charts, checks, published, results, settings, stages
from safn_book.run_names import Stage
from safn_book.tables import show, with_short_names

charts.use_style()

# %% tags=["parameters"]
# parameters
runs = "../runs/emoji"  # folder of the outputs of all stages
experiments = ["attention_1-0.75-0.5_seed0"]  # the first is the main experiment

# %%
p = settings.read(globals())

# %%
source, folder, train, val = stages.load_data(p.runs)
plain = stages.require(p.runs, Stage.BASELINE)
compared = results.load_runs(p.runs, p.experiments)
stage = stages.open_stage(p, Stage.COMPARISON, inputs=[source, plain, *compared.ends])
main = compared.table.iloc[0]
print(f"{len(train)} training images, {len(val)} validation images")

# %% [markdown]
# ## From stage to stage
# *Labels from maps only* and *foreground from saliency only* are controls: their pseudo labels use one of the two inputs.
# Another segmentation network on the same pseudo labels is named after a comma. *Fully supervised* is trained on
# ground-truth masks, the upper bound.

# %%
compared.table.set_index("run")[list(results.COLUMNS)].mul(100).round(1).to_csv(stage.folder / "summary.csv")
summary = with_short_names(results.over_seeds(compared.table, results.COLUMNS))
show(summary.rename(columns=results.COLUMNS).T, f"This run, percent. {results.seeds_note(compared.table)}")

# %% [markdown]
# ## Is the segmentation better than the classifier alone?
# The maps of a classifier are a segmentation themselves: its predicted classes, at the best threshold of the training
# images. Scores on validation images, first seed.

# %%
alone = pd.Series(
    {
        "plain classifier, Grad-CAM": plain.record["metrics"]["classifier_only_val_miou"],
        "SAFN, maps of the predicted classes": main["classifier_only_val_miou"],
        "segmentation, single scale": main["val_miou_single"],
        "segmentation, multi-scale": main["val_miou_multi"],
    },
    dtype=float,
)
gain = main["val_miou_multi"] - main["classifier_only_val_miou"]
display(show(alone.mul(100).to_frame("mIoU (%)"), "Segmentation of the validation images"))
Markdown(f"The segmentation network changes the mIoU of the maps by **{100 * gain:+.1f} points**.")

# %% [markdown]
# ## Tables 1 and 2
# As published: mIoU (%) on VOC 2012, trained on 10,582 images (`10K`) or more. A run of this book stands below the table
# of its own segmentation network, and only if it was trained on photographs of VOC. Its test score would need the
# evaluation server.

# %%
ours = results.main_runs(compared.table)
protocol = list(compared.ends[0].record["per_class"])[-1]
comparable = bool(source.record["parameters"]["data_folder"]) and folder.classes == VOC_CLASSES  # not emoji scenes
means = ours.groupby("network")[f"val_miou_{protocol}"].mean()
for number, network in enumerate(published.NETWORKS.values(), 1):
    table = published.table(number)
    if comparable and network in means:
        own = {"method": "SAFN (this run)", "training": f"{len(train):,}", "val": 100 * means[network]}
        table = pd.concat([table, pd.DataFrame([own])], ignore_index=True)
    table = table.drop(columns=["reference", "protocol"])
    display(show(table, published.CAPTIONS[number], best=["val", "test"]))

# %% [markdown]
# ## Table 3: by class
# IoU (%) of this run, mean over its seeds. The published columns of the same segmentation network stand beside it if the
# run was trained on photographs of VOC. Otherwise see [the published numbers](../book/published.md).

# %%
evaluations = {(stage, run): record for (stage, run), record in compared.records.items() if run in set(ours["run"])}
per_class = results.by_class(evaluations, "07_evaluate", protocol)
per_class.loc["mean"] = per_class.mean()
if comparable:
    per_class = per_class.join(published.table(3).add_suffix(", paper"))
per_class.round(1).to_csv(stage.folder / "per_class.csv")
show(with_short_names(per_class), f"IoU (%) of each class, {results.PROTOCOLS[protocol]}")

# %% [markdown]
# ## Check

# %%
scores = {f"val_miou_{k}": main[f"val_miou_{k}"] for k in compared.ends[0].record["per_class"]}
done = stage.finish({**scores, "gain_over_classifier_alone": gain})
checks.compare(done, source)
