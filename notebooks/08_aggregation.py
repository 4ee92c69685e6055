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
# same. Recorded runs with several seeds, on photographs too: [what we learned](12_what_we_learned.ipynb).
#
# | | |
# |---|---|
# | **Reads** | `07_evaluate/<run>` and the stages before it, of each run in `experiments` |
# | **Writes** | `08_aggregation/default`: `table4.csv`, `table5.csv` |
# | **Command** | `papermill 08_aggregation.ipynb out.ipynb -p runs ../runs/mine` |
# | **Expected** | maps on photographs: attention above the maximum by 1.2 points, above the average by 2.0 (three seeds); segmentations, multi-scale: by 0.7 and 1.4 (one seed; the paper's span is 0.3 points) |
# | **Time** | half a minute on 2 cores (emoji), of which Table 5 takes most; minutes for each run that is missing |

# %%
import pandas as pd
from IPython.display import Markdown, display

from safn_book import charts, checks, conclusions, cost, published, results, settings, stages
from safn_book.run_names import Stage
from safn_book.tables import show, with_short_names

charts.use_style()

# %% tags=["parameters"]
# parameters
runs = "../runs/emoji"  # folder of the outputs of all stages
experiments = ["attention_1-0.75-0.5_seed0", "max_1-0.75-0.5_seed0", "avg_1-0.75-0.5_seed0"]  # runs to compare
missing_segmentation = "make"  # of a run: make (train it first), or leave (compare what there is of it)
bootstrap = 1000  # resampled image sets
cost_steps = 8  # training steps and maps timed for each aggregation, Table 5 (0: leave it out)

# %%
p = settings.read(globals())

# %%
source, folder, *_ = stages.load_data(p.runs)
compared = results.load_runs(p.runs, p.experiments, p.missing_segmentation)
stage = stages.open_stage(p, Stage.AGGREGATION, inputs=[source, *compared.ends])
ours = results.overview(compared.table)
ours.to_csv(stage.folder / "table4.csv")
show(with_short_names(ours), f"This run, percent. {results.seeds_note(compared.table)}")

# %% [markdown]
# *mAP* is that of the classifier on validation images. *Localization maps* (at their best threshold) and *pseudo labels*
# (ignored pixels counted as background) have the mIoU on training images. The segmentation has the mIoU on validation
# images, without CRF. Each column uses only the seeds that all of its rows have. A value without ± comes from one seed.
#
# The paper's Table 4 follows. It was measured on VOC 2012 val with another saliency detector, another backbone and more
# training images than any run of this book. Only the order of its rows can be compared with ours.

# %%
show(published.table(4).drop(columns="protocol"), published.CAPTIONS[4])

# %% [markdown]
# ## Is the difference significant?
# Differences of mIoU in points. *Images* is a 95 % confidence interval from a paired bootstrap over images. *Images and
# seeds* adds the variation between training seeds. A difference is called significant if three seeds were trained and
# the second interval does not contain 0. One of twenty such comparisons is a false alarm.

# %%
differences = conclusions.differences(compared, "aggregation", p.bootstrap)
main = compared.table["configuration"][0]
ahead = conclusions.against(differences, main)
for measure, rows in ahead.groupby("measure", sort=False):
    what = results.MEASURES[measure]
    display(Markdown(conclusions.conclusion(rows, what.title)))
    display(show(conclusions.comparison(compared.table, ahead, measure), f"{what.heading}: mIoU (%) and points"))
charts.differences(differences)

# %% [markdown]
# ## Which objects gain?
# Foreground IoU (%) of maps, pseudo labels and segmentation, grouped by how much of the image the class covers. Bars are
# means over the seeds that all configurations have. Whiskers are their standard deviation.

# %%
by_size, spread = (results.by_size(compared.table, statistic) for statistic in ("mean", "std"))
for measure, sizes in by_size.items():
    what = results.MEASURES[measure]
    display(Markdown(f"**{what.heading}.** {conclusions.size_statement(sizes)}"))
    display(
        charts.bars(with_short_names(sizes), f"{what.title}\nforeground IoU (%)", with_short_names(spread[measure]))
    )

# %% [markdown]
# ## What does attention cost? (Table 5)
# Time and memory for each image. The three networks take turns in one process, with the crop and the batch of this run.
# The memory of a training step is counted from the sizes of its tensors. The paper measured on a GPU that it does not
# name, so only ratios to average pooling are compared.

# %%
trained = stages.require(p.runs, Stage.TRAIN_SAFN, p.experiments[0], restored=True).record["parameters"]
setup = {name: trained[name] for name in ("backbone", "crop", "batch_size", "freeze")}
workload = cost.Workload(num_classes=len(folder.classes), scales=tuple(trained["scales"]), **setup)
table5 = pd.DataFrame()
if p.cost_steps:
    measured, ratios = cost.measure(workload, p.cost_steps)
    table5 = cost.ratios_beside_paper(ratios)
    units = dict(zip(cost.COLUMNS, ("training (ms)", "maps (ms)", "memory (MB)")))
    display(show(with_short_names(measured.rename(columns=units)), "Cost of an image in this run"))
    display(show(with_short_names(table5), "Cost divided by that of average pooling: this run, and Table 5", digits=3))
    training, extraction, memory = ratios.loc["attention"]
    text = f"Attention takes {training:.2f} times the training time of average pooling, {extraction:.2f} times that of"
    display(Markdown(f"{text} its maps, and {memory:.2f} times the memory."))
table5.to_csv(stage.folder / "table5.csv")

# %% [markdown]
# ## Check

# %%
final = compared.table.set_index("run")["val_miou_multi"]
scores = {f"val_miou_multi {run}": value for run, value in final.items()}
done = stage.finish(
    scores,
    differences=differences.to_dict("records"),
    by_size={measure: sizes.to_dict() for measure, sizes in by_size.items()},
)
checks.compare(done, source)
