"""Draw docs/gestures.png, one rendered image of each gesture: python docs/gestures.py."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from hand1000.data.render.people import make_person
from hand1000.data.render.rendered_image import make_image
from hand1000.gestures import HAGRID_V2, NO_GESTURE

SIZE, LABEL, COLUMNS = 96, 14, 7


def draw_overview() -> Image.Image:
    """Return a grid of all gestures with their names."""
    gestures = (*HAGRID_V2, NO_GESTURE)
    rows = -(-len(gestures) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * SIZE, rows * (SIZE + LABEL)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, gesture in enumerate(gestures):
        person = make_person(gesture, np.random.default_rng([1, index]))
        image = make_image(gesture, person, np.random.default_rng([2, index]), size=SIZE, samples=25)
        left, top = index % COLUMNS * SIZE, index // COLUMNS * (SIZE + LABEL)
        draw.text((left + 2, top + 2), gesture, fill="black")
        sheet.paste(Image.fromarray(image.pixels), (left, top + LABEL))
    return sheet


if __name__ == "__main__":
    draw_overview().save(Path(__file__).with_name("gestures.png"), optimize=True)
