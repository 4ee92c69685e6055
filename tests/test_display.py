import base64
import re

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from safn import inference, maps, network
from safn_book import display


def _figure():
    drawn = plt.figure()
    plt.close(drawn)
    return drawn


def test_a_figure_carries_its_caption_and_its_alternative_text_as_texts():
    shown = display.figure(_figure(), "Maps where M < 0.2", 'a "cat" & a dog').data
    assert "<figcaption>Maps where M &lt; 0.2</figcaption>" in shown
    assert 'alt="a &quot;cat&quot; &amp; a dog"' in shown
    assert 'src="data:image/png;base64,iVBORw0KGgo' in shown  # the first bytes of every PNG


@pytest.mark.parametrize(("caption", "alt"), [("", "a map"), ("Maps", " ")])
def test_a_figure_without_words_is_refused(caption, alt):
    with pytest.raises(ValueError, match="caption and an alternative text"):
        display.figure(_figure(), caption, alt)


def test_source_is_the_code_without_its_docstrings():
    shown = display.source(maps.localization_maps).data
    assert shown.startswith("```python\n# safn/maps.py\ndef localization_maps(")
    assert '"""' not in shown
    body = shown.split("\n", 2)[2].rsplit("\n", 1)[0]
    scope = dict(vars(maps))
    exec(body, scope)  # it is whole: it can be defined again
    assert scope["localization_maps"].__code__.co_names == maps.localization_maps.__code__.co_names


def test_source_of_a_method_begins_at_the_left():
    assert "\ndef forward(" in display.source(network.ScaleAttention.forward).data


def test_source_of_a_decorated_function_is_its_own():
    shown = display.source(inference.multi_scale_maximum).data
    assert "# safn/inference.py\n@torch.inference_mode()\ndef multi_scale_maximum(" in shown


def test_tables_are_offered_as_files_that_the_page_holds():
    table = pd.DataFrame({"mIoU": [39.2, 38.1]}, index=["max", "avg"])
    shown = display.downloads({"a.csv": table}).data
    data = re.search(r'download="a.csv" href="data:text/csv;base64,([^"]+)"', shown)[1]
    assert base64.b64decode(data).decode() == ",mIoU\nmax,39.2\navg,38.1\n" and "2 rows" in shown
