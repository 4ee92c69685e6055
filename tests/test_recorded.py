"""Tables and pages of the recorded runs, and the numbers that the text quotes."""

from __future__ import annotations

import json

import pytest

from safn import recorded

RUN, MAIN = "attention_1-0.5_seed0", "attention_1-0.75-0.5_seed0"
VAL, ALONE = "val_miou", "classifier_only_val_miou"


def record(stage: str, run: str, metrics: dict, parameters: dict | None = None, **more) -> dict:
    head = {
        "stage": stage,
        "run": run,
        "metrics": metrics,
        "parameters": parameters or {},
        "commit": "abc",
        "seconds": 61.2,
    }
    return {**head, "fingerprint": "f00", "finished": "2026", "machine": "one", **more}


@pytest.fixture
def folder(tmp_path):
    """An exported file of three seeds, two of which have been evaluated, with a control; and files that are none."""
    trained = {"scales": [1.0, 0.5], "crop": 320, "learning_rate": 0.005, "attention_factor": 0.4, "backbone": "lite"}
    weights = {"weight 1": 0.9, "weight 0.5": 0.1, "weight spread 1": 0.05, "weight spread 0.5": 0.05}
    records = [record("00_data", "default", {"train_images": 9, "val_images": 4}, data="d1")]
    for seed, maps in enumerate((0.40, 0.42, 0.44)):
        run = f"attention_1-0.5_seed{seed}"
        records.append(record("03_train_safn", run, {"val_mAP": 0.8, **weights}, trained, init="imagenet"))
        records.append(record("04_localization_maps", run, {"map_miou": maps, "map_miou_train_list": maps + 0.1}))
    for run, miou in ((RUN, 0.5), (f"{RUN}+maps", None)):
        records.append(record("07_evaluate", run, {"val_miou_crf": miou}, {}, detector="u2netp"))
    gap = {"measure": "maps", "difference": "a - b", "points": 0.26, "each seed": "+0.3", "all to": None}
    sizes = {"maps": {"attention": {"small": 20.04, "large": 50.0}}}
    records.append(record("08_aggregation", "default", {}, differences=[gap], by_size=sizes))
    records.append(record("09_scales", "default", {"maps, learned": 0.41}, replaced=[], correlations=[]))
    (tmp_path / "photos.json").write_text(json.dumps(records))
    (tmp_path / "kills.json").write_text('{"kills": []}')
    (tmp_path / "expected.json").write_text("[1]")
    return tmp_path


def test_only_exported_files_are_read(folder, tmp_path):
    assert list(recorded.exported(folder)) == ["photos"]
    (tmp_path / "none").mkdir()
    assert recorded.overview(tmp_path / "none") == "No run is recorded yet.\n" and not recorded.weights(
        tmp_path / "none"
    )


def test_a_control_has_the_classifier_and_the_maps_of_its_run(folder):
    runs = recorded.runs_of(recorded.exported(folder)["photos"]).set_index("run")
    assert runs.loc[f"{RUN}+maps", ["val_mAP", "map_miou", "seed"]].to_list() == [0.8, 0.40, 0]
    assert runs["configuration"].to_list() == [
        "attention_1-0.5",
        "attention_1-0.5+maps",
        "attention_1-0.5",
        "attention_1-0.5",
    ]


def test_each_row_leads_to_the_record_of_its_run(folder, tmp_path):
    text = recorded.overview(folder)
    link = recorded.label("photos", RUN)
    assert f"| [{RUN}](#{link}) | 80.0 | 40.0 | - / - / - | - | - / - / 50.0 |" in text
    assert "9 training and 4 validation images (fingerprint `d1`)" in text and "saliency: u2netp" in text
    recorded.write_pages(tmp_path / "pages", folder)
    page = (tmp_path / "pages" / "photos.md").read_text()
    assert f"({link})=\n## {RUN}" in page and "commit `abc`, 61 s, fingerprint `f00`, 2026" in page
    assert "learning_rate 0.005" in page and "- Numbers: map_miou 0.4, " in page and "- Numbers: val_miou_crf -" in page


def test_numbers_of_the_text_are_those_of_the_records(folder):
    quote = lambda inner: recorded.glued(f"maps {{={inner}}}.", folder)  # noqa: E731
    assert quote(f"photos:{RUN}:map_miou") == "maps 40.0."
    assert quote("photos:attention_1-0.5:map_miou") == "maps 42.0 ± 2.0."
    assert quote(f"photos:{RUN}:weight 1:.2f") == "maps 0.90."
    assert quote("photos:09_scales:maps, learned") == "maps 41.0."
    (folder / "bench.json").write_text(json.dumps({"rows": [{"what": "maps, folder", "value": 1.464}]}))
    assert quote("bench:maps, folder:value") == "maps 1.46." and quote("bench:maps, folder:value:.1f") == "maps 1.5."
    assert recorded.glued("no number, {a: b}", folder) == "no number, {a: b}"
    text = "{=photos:none:map_miou} {=photos:attention_1-0.5:nothing} {=else:a:b} {=bench:a:value} {=photos:attention_1-0.5+maps:val_miou_crf}"
    with pytest.raises(KeyError) as error:
        recorded.glued(text, folder)
    assert all(part in str(error.value) for part in text.split())


@pytest.mark.parametrize("page", sorted((recorded.ROOT / "book").glob("*.md")), ids=lambda page: page.name)
def test_every_number_that_a_page_quotes_is_recorded(page):
    assert not recorded.QUOTE.search(recorded.glued(page.read_text()))


EMOJI, PHOTOS = f"=emoji:{MAIN}", f"=voc-subset:{MAIN}"
QUOTES = [  # what cannot be glued, for it is read where no book is built
    ("02_baseline", f"emoji, seed 0: validation mAP {{=emoji:02_baseline:val_mAP}}, alone {{=emoji:02_baseline:{ALONE}}} val mIoU"),
    ("03_train_safn", f"validation mAP {{{EMOJI}:val_mAP}} (emoji, seed 0), {{{PHOTOS}:val_mAP}} (VOC subset"),
    ("04_localization_maps", f"training images {{{EMOJI}:map_miou}} (emoji, seed 0), {{{PHOTOS}:map_miou}} (VOC subset"),
    ("05_pseudo_ground_truth", f"{{{EMOJI}:pseudo_miou_drop}} / {{{EMOJI}:pseudo_miou_background}} (emoji, seed 0)"),
    ("05_pseudo_ground_truth", f"{{{PHOTOS}:pseudo_miou_drop}} / {{{PHOTOS}:pseudo_miou_background}} (VOC subset)"),
    ("07_evaluate", f"{{{EMOJI}:{VAL}_single}} / {{{EMOJI}:{VAL}_multi}} / {{{EMOJI}:{VAL}_crf}} (emoji, seed 0)"),
    ("07_evaluate", f"{{{PHOTOS}:{VAL}_single}} / {{{PHOTOS}:{VAL}_multi}} / {{{PHOTOS}:{VAL}_crf}} (VOC subset)"),
    ("07_evaluate", f"several ({{=emoji:masks_seed0:{VAL}_single}}, {{=emoji:masks_seed0:{VAL}_multi}})"),
    ("11_comparison", f"{{{EMOJI}:{VAL}_multi}} (multi-scale) against {{{EMOJI}:{ALONE}}} on emoji, seed 0"),
    ("README.md", f"**{{{PHOTOS}:{VAL}_crf}} val mIoU** with multi-scale test and CRF ({{{PHOTOS}:{VAL}_multi}} multi-scale, {{{PHOTOS}:{VAL}_single}}"),
    ("README.md", f"has {{{PHOTOS}:pseudo_miou_drop}} mIoU (255, {{{PHOTOS}:ignored_share}} % of"),
    ("README.md", f"maps {{{PHOTOS}:map_miou}} at the best threshold"),
    ("README.md", f"mean weights {{{PHOTOS}:weight 1:.2f}} / {{{PHOTOS}:weight 0.75:.2f}} / {{{PHOTOS}:weight 0.5:.2f}}"),
]  # fmt: skip


@pytest.mark.parametrize(("where", "quote"), QUOTES)
def test_notebooks_and_readme_quote_what_is_recorded(where, quote):
    path = recorded.ROOT / (where if "." in where else f"notebooks/{where}.py")
    assert recorded.glued(quote) in " ".join(path.read_text().replace("\n# ", " ").split())


def test_the_evidence_has_means_differences_and_sizes(folder):
    text = recorded.evidence("photos", folder)
    assert "| attention, 1 / 0.5 | 80.0 ± 0.0 | 42.0 ± 2.0 |" in text and "over 3 seeds" in text
    assert "| attention, 1 / 0.5 | 52.0 ± 2.0 |" in text and "official train list" in text
    assert "| attention, 1 / 0.5 | 50.0 |" in text and "| attention, 1 / 0.5+maps | - |" not in text
    assert "| maps | a - b | 0.3 | +0.3 | - |" in text and "| small | 20.0 |" in text
    assert "Rank correlation" not in text
    assert recorded.evidence("none", folder) == "Nothing is recorded yet.\n"


def test_learnt_weights_come_from_the_exported_runs(folder):
    row = f"| photos | `{RUN}` | 320 | 0.002, sgd | 0.900 / 0.100 | 0.050 / 0.050 |"
    assert row in recorded.weights(folder)


def test_the_figure_of_an_exported_file_stands_beside_it_the_same_each_time(folder):
    recorded.draw(folder / "photos.json")
    drawn = (folder / "photos.svg").read_bytes()
    recorded.draw(folder / "photos.json")
    assert (folder / "photos.svg").read_bytes() == drawn and drawn.startswith(b"<?xml")
    maps = recorded.of_seeds(recorded.exported(folder)["photos"]).axes[0]
    assert [len(line.get_xdata()) for line in maps.lines] == [
        0,
        3,
        2,
    ]  # of the control no dot; three dots and their mean
