"""The drawn figures are legible, and those in the repository are what their script draws."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

FOLDER = Path(__file__).resolve().parent.parent / "book" / "figures"


@pytest.fixture(scope="module")
def draw():
    """The script, which stands beside the scene that it draws."""
    sys.path.insert(0, str(FOLDER))
    try:
        import draw
    finally:
        sys.path.remove(str(FOLDER))
    return draw


@pytest.mark.parametrize("name", ["architecture", "map_generation", "pseudo_generation"])
def test_text_is_legible_inside_the_card_and_overlaps_no_other_text(draw, name):
    figure = getattr(draw, name)()
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [text for text in figure.axes[0].texts if text.get_text()]
    boxes = [text.get_window_extent(renderer) for text in texts]
    card = figure.bbox
    assert figure.get_figwidth() <= 8.4  # 800 pixels: the book's column
    for k, (text, box) in enumerate(zip(texts, boxes, strict=True)):
        assert text.get_fontsize() >= 9
        assert card.x0 < box.x0 and box.x1 < card.x1 and card.y0 < box.y0 and box.y1 < card.y1, text.get_text()
        hidden = [other.get_text() for other, b in zip(texts[:k], boxes[:k], strict=True) if box.overlaps(b)]
        assert not hidden, f"{text.get_text()} over {hidden}"


def test_one_scale_has_no_attention_to_draw(draw):
    with pytest.raises(ValueError, match="two or more scales"):
        draw.architecture((1,))


def test_the_script_draws_the_figures_of_the_repository(draw, tmp_path):
    draw.save(tmp_path)
    drawn = sorted(tmp_path.glob("*.svg"))
    assert [path.name for path in drawn] == sorted(path.name for path in FOLDER.glob("*.svg"))
    for path in drawn:
        committed = (FOLDER / path.name).read_text()
        if f"Matplotlib v{matplotlib.__version__}," in committed:  # another version may draw other paths
            assert path.read_text() == committed, f"python book/figures/draw.py draws another {path.name}"
