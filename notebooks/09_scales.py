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
# # Sets of scales (Table 6)
#
# One scale, two, three: does looking at smaller copies of the image help, and which objects? Recorded runs with several
# seeds, on photographs too: [what we learned](12_what_we_learned.ipynb).
#
# | | |
# |---|---|
# | **Reads** | `07_evaluate/<run>` and the stages before it, of each run in `experiments` |
# | **Writes** | `09_scales/default`: `table6.csv`, `objects_<run>.csv`, `replaced.csv` |
# | **Command** | `papermill 09_scales.ipynb out.ipynb -p runs ../runs/mine` |
# | **Expected** | in the paper 1 point between one scale and three; on photographs the maps of one, two and three cannot be told apart, on emoji scenes two look better than three |
# | **Time** | half a minute on 2 cores; minutes for each run that is missing |

# %%
from IPython.display import Markdown, display

from safn_book import charts, checks, conclusions, galleries, published, results, settings, stages, studies
from safn_book.run_names import RunName, Stage
from safn_book.tables import show, with_short_names

charts.use_style()

# %% tags=["parameters"]
# parameters
runs = "../runs/emoji"  # folder of the outputs of all stages
experiments = ["attention_1-0.75-0.5_seed0", "attention_1_seed0", "attention_1-0.75_seed0"]  # runs to compare
missing_segmentation = "make"  # of a run: make (train it first), or leave (compare what there is of it)
bootstrap = 1000  # resampled image sets
study_images = 500  # training images on which the learned weights are studied (0: all)

# %%
p = settings.read(globals())

# %%
source, folder, train, _ = stages.load_data(p.runs)
compared = results.load_runs(p.runs, p.experiments, p.missing_segmentation)
stage = stages.open_stage(p, Stage.SCALES, inputs=[source, *compared.ends])
ours = results.overview(compared.table)
ours.to_csv(stage.folder / "table6.csv")
show(with_short_names(ours), f"This run, percent. {results.seeds_note(compared.table)}")

# %% [markdown]
# The columns are those of the chapter before. The paper's Table 6 follows. It was measured on VOC 2012 val with another
# saliency detector, another backbone and more training images than any run of this book. Only the order of its rows can
# be compared with ours.

# %%
show(published.table(6).drop(columns="protocol"), published.CAPTIONS[6])

# %% [markdown]
# ## Is the difference significant?
# The chapter before explains the intervals.

# %%
differences = conclusions.differences(compared, "scales", p.bootstrap)
main = compared.table["configuration"][0]
ahead = conclusions.against(differences, main)
for measure, rows in ahead.groupby("measure", sort=False):
    what = results.MEASURES[measure]
    display(Markdown(conclusions.conclusion(rows, what.title)))
    display(show(conclusions.comparison(compared.table, ahead, measure), f"{what.heading}: mIoU (%) and points"))
charts.differences(differences)

# %% [markdown]
# ## Which objects gain?
# The paper expects smaller scales to complete the maps of large objects and to blur those of small ones. Foreground IoU
# (%) of maps and pseudo labels on training images and of the segmentation on validation images, grouped by how much of
# the image the class covers. Bars are means over the seeds that all configurations have. Whiskers are their standard
# deviation.

# %%
by_size, spread = (results.by_size(compared.table, statistic) for statistic in ("mean", "std"))
for measure, sizes in by_size.items():
    what = results.MEASURES[measure]
    display(Markdown(f"**{what.heading}.** {conclusions.size_statement(sizes)}"))
    display(
        charts.bars(with_short_names(sizes), f"{what.title}\nforeground IoU (%)", with_short_names(spread[measure]))
    )

# %% [markdown]
# ## Do the weights follow the size of the object?
# The weights of the main experiment's networks, one for each seed, averaged over the pixels of each class of a training
# image. If the paper is right, the weight of scale 1 falls with the size of the object. The plot has one line for each
# network and scale: medians over groups of equally many objects, with a band from the first to the third quartile. The
# rank correlation has a 95 % interval over resampled images.

# %%
masked = [i for i in train if folder.mask_path(i)]
images = galleries.spaced(masked, p.study_images or len(masked))
networks = list(results.main_runs(compared.table)["run"])
studied = studies.study_runs(p.runs, folder, images, networks)
grouped = studies.weights_by_size(studied)
correlations = studies.weight_size_correlation(studied)
for run, study in studied.items():
    study.objects.to_csv(stage.folder / f"objects_{run}.csv", index=False)
if left_out := [run for run in networks if run not in studied]:
    print(f"without masks, attention or network, and not studied: {', '.join(left_out)}")
display(Markdown(conclusions.correlation_statement(correlations)))
if studied:
    display(charts.weights_by_size(grouped))
seeds = [RunName.parse(run).seed for run in correlations["run"]]
shown = correlations.drop(columns="run").assign(seed=seeds)
show(shown, "Rank correlation of the weight on an object with its size, with 95 % intervals", digits=2)

# %% [markdown]
# ## Do the learned weights matter?
# The same network and the same features, with other weights in Eq. 2. *Their mean* over the validation images keeps the
# preference for a scale and nothing else. *Shuffled pixels* keeps the weights of each image and loses their place. mIoU
# (%) of the maps at the best threshold of each. The *difference* to the learned weights has a 95 % interval of a paired
# bootstrap over images.

# %%
replaced = studies.replacement_scores(studied)
replaced.to_csv(stage.folder / "replaced.csv", index=False)
means = replaced.drop(columns=["from", "to"]).groupby("weights", sort=False).mean(numeric_only=True)
if studied:
    changes = conclusions.replaced_table(replaced)
    display(Markdown(conclusions.weights_statement(changes, len(studied))))
    display(show(changes, "Change of the map mIoU in points, and the networks in which it is significant", digits=2))
shown = means.drop(columns=["difference", "threshold"], errors="ignore").rename(index=conclusions.WEIGHTS)
show(shown.rename_axis(None), "mIoU and foreground IoU (%) of the maps, means over the networks")

# %% [markdown]
# ## Check

# %%
final = compared.table.set_index("run")["val_miou_multi"]
scores = {f"val_miou_multi {run}": value for run, value in final.items()}
scores |= {f"maps, {weights}": row["mIoU"] / 100 for weights, row in means.iterrows()}
done = stage.finish(
    scores,
    differences=differences.to_dict("records"),
    by_size={measure: sizes.to_dict() for measure, sizes in by_size.items()},
    weights_by_size=grouped.to_dict("records"),
    correlations=correlations.to_dict("records"),
    replaced=replaced.to_dict("records"),
)
checks.compare(done, source)
