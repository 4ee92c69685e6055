"""The drawn figures: legible text, nothing cut off, the same files each time."""

from __future__ import annotations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from safn_book import drawings


@pytest.mark.parametrize(
    "draw",
    [
        drawings.architecture,
        lambda: drawings.architecture((1, 0.5), classes=3),
        lambda: drawings.architecture((1.5, 1, 0.75, 0.5)),
        drawings.map_generation,
        drawings.pseudo_generation,
    ],
)
def test_text_is_legible_inside_the_card_and_overlaps_no_other_text(draw):
    figure = draw()
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


def test_architecture_names_the_scales_and_classes():
    shown = "\n".join(text.get_text() for text in drawings.architecture((1, 0.5), classes=7).axes[0].texts)
    assert "scale 1" in shown and "scale 0.5" in shown and "0.75" not in shown and "= 7 maps" in shown


def test_one_scale_has_no_attention_to_draw():
    with pytest.raises(ValueError, match="two or more scales"):
        drawings.architecture((1,))


def test_saved_files_are_the_same_each_time(tmp_path):
    first = {path.name: path.read_bytes() for path in drawings.save(tmp_path / "a")}
    second = {path.name: path.read_bytes() for path in drawings.save(tmp_path / "b")}
    assert sorted(first) == ["architecture.svg", "map_generation.svg", "pseudo_generation.svg"]
    assert first == second
