"""Numbers in the prose are those of ``results/``."""

from __future__ import annotations

import json

import exported
import pytest
from exported import RUN

from safn_book import quotes
from safn_book.pages import ROOT

MAIN = "attention_1-0.75-0.5_seed0"
VAL, ALONE = "val_miou", "classifier_only_val_miou"


@pytest.fixture
def folder(tmp_path):
    exported.write(tmp_path)
    return tmp_path


def test_numbers_of_the_text_are_those_of_the_records(folder):
    quote = lambda inner: quotes.glued(f"maps {{={inner}}}.", folder)  # noqa: E731
    assert quote(f"photos:{RUN}:map_miou") == "maps 40.0."
    assert quote("photos:attention_1-0.5:map_miou") == "maps 42.0 ± 2.0."
    assert quote(f"photos:{RUN}:weight 1:.2f") == "maps 0.90."
    assert quote("photos:09_scales:maps, learned") == "maps 41.0."
    (folder / "bench.json").write_text(json.dumps({"rows": [{"what": "maps, folder", "value": 1.464}]}))
    assert quote("bench:maps, folder:value") == "maps 1.46." and quote("bench:maps, folder:value:.1f") == "maps 1.5."
    assert quote("photos:08_aggregation:differences/maps/a - b/points:+.2f") == "maps +0.26."
    assert quote("photos:08_aggregation:by_size/maps/attention/small") == "maps 20.0."
    (folder / "attention.csv").write_text(
        'images,change,weight 1,map mIoU (%)\n9,default,0.71,30\n9,crop = 96,0.5254,24.17\n9,"scales = (1,)",,24\n'
    )
    assert (
        quote("attention:9 crop = 96:map mIoU (%)") == "maps 24.2."
        and quote("attention:9 default:weight 1") == "maps 0.710."
    )
    assert quotes.glued("no number, {a: b}", folder) == "no number, {a: b}"
    text = "{=photos:none:map_miou} {=photos:attention_1-0.5:nothing} {=else:a:b} {=bench:a:value} {=photos:attention_1-0.5+maps:val_miou_crf}"
    text += " {=photos:08_aggregation:differences/maps/a - d/points} {=photos:08_aggregation:by_size/maps} {=attention:8 default:weight 1}"
    text += " {=photos:attention_1-0.5+maps:val_miou_crf:.2f} {=attention:9 scales = (1,):weight 1}"
    with pytest.raises(KeyError) as error:
        quotes.glued(text, folder)
    assert all(match[0] in str(error.value) for match in quotes.QUOTE.finditer(text))


@pytest.mark.parametrize("page", sorted((ROOT / "book").glob("*.md")), ids=lambda page: page.name)
def test_every_number_that_a_page_quotes_is_recorded(page):
    assert not quotes.QUOTE.search(quotes.glued(page.read_text()))


FIRST = "=evidence:attention_1-0.75-0.5"  # the number that the README begins with
AHEAD = "=evidence:08_aggregation:differences"
EMOJI = "=evidence-emoji:attention_1-0.75-0.5"
QUOTES = [  # what cannot be glued, for it is read where no book is built
    ("02_baseline", f"emoji, seed 0: validation mAP {{=evidence-emoji:02_baseline:val_mAP}}, alone {{=evidence-emoji:02_baseline:{ALONE}}} val mIoU"),
    ("03_train_safn", f"validation mAP {{{EMOJI}:val_mAP}} (emoji, three seeds), {{{FIRST}:val_mAP}} (photographs, profiles `voc-subset` and `evidence`, three seeds)"),
    ("04_localization_maps", f"training images {{{EMOJI}:map_miou}} (emoji, three seeds), {{{FIRST}:map_miou}} (photographs, profiles `voc-subset` and `evidence`, three seeds)"),
    ("05_pseudo_ground_truth", f"{{{EMOJI}:pseudo_miou_drop}} / {{{EMOJI}:pseudo_miou_background}} (emoji, three seeds)"),
    ("05_pseudo_ground_truth", f"{{{FIRST}:pseudo_miou_drop}} / {{{FIRST}:pseudo_miou_background}} (photographs, profiles `voc-subset` and `evidence`, three seeds)"),
    ("07_evaluate", f"{{{EMOJI}:{VAL}_single}} / {{{EMOJI}:{VAL}_multi}} / {{{EMOJI}:{VAL}_crf}} (emoji, three seeds)"),
    ("07_evaluate", f"{{{FIRST}:{VAL}_single}} / {{{FIRST}:{VAL}_multi}} / {{{FIRST}:{VAL}_crf}} (photographs, profile `evidence`, three seeds)"),
    ("07_evaluate", f"{{=voc-subset:{MAIN}:{VAL}_single}} / {{=voc-subset:{MAIN}:{VAL}_multi}} / {{=voc-subset:{MAIN}:{VAL}_crf}} (`voc-subset`, seed 0)"),
    ("07_evaluate", f"has {{=evidence-emoji:masks_seed0:{VAL}_single}} / {{=evidence-emoji:masks_seed0:{VAL}_multi}} / {{=evidence-emoji:masks_seed0:{VAL}_crf}} "
                    f"instead of {{{EMOJI}_seed0:{VAL}_single}} / {{{EMOJI}_seed0:{VAL}_multi}} / {{{EMOJI}_seed0:{VAL}_crf}}:"),
    ("08_aggregation", f"above the maximum by {{{AHEAD}/maps/attention - max/points:.1f}} points, above the average by {{{AHEAD}/maps/attention - avg/points:.1f}} (three seeds); "
                       f"segmentations, multi-scale: by {{{AHEAD}/segmentation, multiple scales/attention - max/points:.1f}} and {{{AHEAD}/segmentation, multiple scales/attention - avg/points:.1f}} (one seed;"),
    ("11_comparison", f"{{{EMOJI}:{VAL}_multi}} (multi-scale) against {{{EMOJI}:{ALONE}}} on emoji, {{{FIRST}:{VAL}_multi}} against {{{FIRST}:{ALONE}}} on photographs"),
    ("README.md", "mIoU of the maps {=evidence:attention_1-0.75-0.5:map_miou}, against {=evidence:max_1-0.75-0.5:map_miou} for the maximum, "
                  "{=evidence:avg_1-0.75-0.5:map_miou} for the average, and {=evidence:attention_1:map_miou} for one scale."),
    ("README.md", f"**{{{FIRST}:{VAL}_crf}} val mIoU** with multi-scale test and CRF ({{{FIRST}:{VAL}_multi}} multi-scale, {{{FIRST}:{VAL}_single}}"),
    ("README.md", f"has {{{FIRST}:pseudo_miou_drop}} mIoU (255, {{{FIRST}:ignored_share}} % of the pixels, dropped; {{{FIRST}:pseudo_miou_background}} as"),
    ("README.md", "six views (120 images; {=choices:six views, drop:points:.1f} points of pseudo ground truth, 255 dropped), the sides of the test's copies (120; {=choices:whole cells, several scales:points:.1f} points of segmentation, multi-scale),"),
    ("README.md", f"Of seed 0, multi-scale and CRF: attention {{{FIRST}_seed0:{VAL}_crf}}, two scales {{=evidence:attention_1-0.75_seed0:{VAL}_crf}}, one scale {{=evidence:attention_1_seed0:{VAL}_crf}}, "
                  f"maximum {{=evidence:max_1-0.75-0.5_seed0:{VAL}_crf}}, average {{=evidence:avg_1-0.75-0.5_seed0:{VAL}_crf}}, "
                  f"the saliency's foreground without that of the maps {{{FIRST}_seed0+saliency:{VAL}_crf}}, true masks instead of labels {{=evidence:masks_seed0:{VAL}_crf}}; "
                  f"the attention with larger crops and one more pass (profile `voc-subset`) {{=voc-subset:{MAIN}:{VAL}_crf}}."),
]  # fmt: skip


@pytest.mark.parametrize(("where", "quote"), QUOTES)
def test_notebooks_and_readme_quote_what_is_recorded(where, quote):
    path = ROOT / (where if "." in where else f"notebooks/{where}.py")
    assert quotes.glued(quote) in " ".join(path.read_text().replace("\n# ", " ").split())
