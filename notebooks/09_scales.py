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
# seeds, on photographs too: [what the attention does](../book/evidence.md).
#
# | | |
# |---|---|
# | **Reads** | `07_evaluate/<run>` and the stages before it, of each run in `experiments` |
# | **Writes** | `09_scales/default`: `table6.csv`, `objects_<run>.csv`, `replaced.csv` |
# | **Command** | `papermill 09_scales.ipynb out.ipynb -p runs ../runs/mine` |
# | **Expected** | in the paper 1 point between one scale and three; on photographs the maps of one, two and three cannot be told apart, on emoji scenes two look better than three |
# | **Time** | half a minute on 2 cores; minutes for each run that is missing |

# %%
from IPython.display import display

from safn_book import charts, checks, galleries, results, settings, stages, studies
from safn_book.run_names import Stage

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
table, ends = results.collect(p.runs, p.experiments, p.missing_segmentation)
stage = stages.open_stage(p, Stage.SCALES, inputs=[source, *ends])
print(results.seeds_sentence(table))
ours = results.overview(table, "scales")
ours

# %% [markdown]
# All in percent, as in the chapter before, each column of the seeds that all of its rows have. Beside them the published numbers, of VOC 2012 val with DSS and, by their
# level, VGG16 (the paper does not say): **not comparable in level**, only in order.

# %%
beside = results.beside_published(ours, 6)
beside.to_csv(stage.folder / "table6.csv")
beside

# %% [markdown]
# Is a difference more than chance? See the chapter before for the intervals.

# %%
gaps = results.differences(p.runs, table, "scales", p.bootstrap)
gaps.round(2)

# %% [markdown]
# ## By object size
# The paper's claim is about size: smaller copies complete the maps of large objects and blur those of small ones.
# Foreground IoU (%) of the localization maps at each run's best threshold, training images, of their
# pseudo ground truth, and of the segmentation at the last of its tests, validation images; means over the seeds that all have, whiskers: their standard deviation.

# %%
by_size, spread = (results.by_size(table, "scales", of) for of in ("mean", "std"))
for measure, sizes in by_size.items():
    display(charts.bars(sizes, f"{measure}\nforeground IoU (%)", spread[measure]), sizes.round(1))

# %% [markdown]
# ## Do the weights know the size of an object?
# The weights that the main experiment's networks learnt, one network a seed, averaged over the pixels of each class of
# training images with a mask (`study_images` of them, evenly spaced), and their rank correlation with the share of the image that the class covers
# (interval: resampled images). In the plot each network has its lines: medians over groups of as many objects each, and
# bands from the first to the third quartile.

# %%
shown = [i for i in train if folder.mask_path(i)]
shown = galleries.spaced(shown, p.study_images or len(shown))
main = list(results.of_main(table)["run"])
studied = studies.study_runs(p.runs, folder, shown, main)
grouped, correlations, replaced = (of(studied) for of in (studies.by_share, studies.correlations, studies.scores))
if studied:
    for run, (objects, _) in studied.items():
        objects.to_csv(stage.folder / f"objects_{run}.csv", index=False)
    display(charts.weights_by_size(grouped), correlations)
if left := [run for run in main if run not in studied]:
    print(f"not studied, for want of masks, of an attention, or of the network (restored runs): {', '.join(left)}")

# %% [markdown]
# ## What if they were others?
# The same network and the same class features, but in Eq. 2 other weights in the place of the learned ones: their mean
# over the validation images (no attention at all, only a preference), the learned ones with the pixels of each image
# shuffled (the place is lost), equal weights, or one scale alone. mIoU (%) of the maps at each one's best threshold,
# and their foreground IoU by object size. *More than learned* has the 95 % interval of a paired bootstrap over images. If the
# interval holds 0, it cannot be told that what was taken away contributed anything. Each network, and the means over the seeds:

# %%
replaced.to_csv(stage.folder / "replaced.csv", index=False)
means = replaced.drop(columns=[studies.FROM, studies.TO], errors="ignore")
means = means.groupby("weights", sort=False).mean(numeric_only=True)
display(replaced)
means.round(2)

# %% [markdown]
# ## Check

# %%
scores = {f"val_miou_multi {run}": value for run, value in zip(table["run"], table["val_miou_multi"], strict=True)}
scores |= {f"maps, {weights}": row["mIoU"] / 100 for weights, row in means.iterrows()}
done = stage.finish(
    scores,
    differences=gaps.to_dict("records"),
    by_size={what: table.to_dict() for what, table in by_size.items()},
    weights_by_size=grouped.to_dict("records"),
    correlations=correlations.to_dict("records"),
    replaced=replaced.to_dict("records"),
)
checks.compare(done, source)
