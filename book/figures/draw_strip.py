"""Draw strip.png: each step of SAFN on a photograph, by the networks that come with the package.

python book/figures/draw_strip.py
"""

import io
from pathlib import Path

from PIL import Image

from safn_book import charts, photographs
from safn_book.galleries import gallery

COLOURS = 255  # of the PNG, which stays below 200 kB

charts.use_style()
(dog,) = photographs.free_steps("dog")
steps = list(photographs.STEPS)
lines = [dog.row(steps[:4]), dog.row(steps[4:])]
figure = gallery(lines, dog.classes)
figure.axes[0].set_title("photograph: dog")
for axis in figure.axes:
    axis.set_title(axis.get_title().replace("\n", " ").replace(" of", ","), fontsize=9.5)
drawn = io.BytesIO()
figure.savefig(drawn, format="png", dpi=120)
picture = Image.open(drawn).convert("RGB").quantize(COLOURS)
picture.save(Path(__file__).with_name("strip.png"), optimize=True)
