"""The pages of sweeps, method comparison and captions: content, and that external text is escaped."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hand1000.captions.metrics import CaptionMetrics, caption_metrics_table
from hand1000.captions.records import CaptionRecord
from hand1000.config.sweep import Sweep, SweepPoint
from hand1000.evaluation.image_results import ImageResult
from hand1000.evaluation.metrics import Metrics
from hand1000.reports.comparison import write_image_grid
from hand1000.reports.html import render_template
from hand1000.reports.sweep import Trainings, write_sweeps

EVIL, ESCAPED = "<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"

IMAGE = ImageResult.model_construct(predicted_gesture="four", target_gesture="four")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "image.png")
    return tmp_path / "image.png"


def make_metrics(**fields: object) -> Metrics:
    names = ("fid", "kid", "fid_h", "kid_h", "hand_conf", "intra_prompt_distance", "memorization_rate")
    values: dict[str, object] = dict.fromkeys(names)
    return Metrics.model_construct(
        **values | {"gesture_accuracy": 0.5, "detection_rate": 1.0, "n_fake": 10, "images": (IMAGE, IMAGE)} | fields
    )


def test_the_sweep_page_shows_a_table_and_a_plot_of_each(tmp_path: Path) -> None:
    points = [SweepPoint(label=label, images=None, changes={}) for label in ("a", EVIL)]
    trainings = [
        Trainings(tuned=[make_metrics(**fields)], base=[make_metrics()], paired=[], general={})
        for fields in ({}, {"gesture_accuracy": 0.75})
    ]
    sweep = Sweep(title=f"A thing {EVIL}", axis="", points=points)
    write_sweeps(tmp_path, "four", {"thing": sweep}, {"thing": trainings})
    page = (tmp_path / "sweeps.html").read_text()
    assert EVIL not in page and page.count(ESCAPED) == 3 and "data:image/jpeg" in page
    assert '<td class="number">0.75 (' in page and "| base model | 0.5 (" in (tmp_path / "thing.md").read_text()
    assert Image.open(tmp_path / "thing.png").size[0] > 1000


def test_the_image_grid_has_a_row_per_method(tmp_path: Path, image: Path) -> None:
    images = {gesture: {name: [image, image] for name in ("sd", "hand1000")} for gesture in ("four", "ok")}
    write_image_grid(tmp_path / "grid.png", images)
    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    # Each small image is enlarged to 64 pixels.
    assert (grid == (255, 0, 0)).all(axis=2).sum() == 2 * 4 * 64 * 64


def test_the_captions_page_shows_every_captioner(image: Path) -> None:
    metrics = CaptionMetrics(
        captioner="blip2", clip=None, n=1, image_caption_similarity=None, caption_caption_similarity=None,
        with_phrase=1.0, words=3.0, vocabulary=3,
    )  # fmt: skip
    record = CaptionRecord.model_construct(file_name="x", captioner="blip2", caption=EVIL, text="a hand, waving")
    page = render_template(
        "captions.html.j2", gesture="four", metrics=caption_metrics_table([metrics]), rows=[(image, [record, record])]
    )
    assert EVIL not in page and page.count(ESCAPED) == 2 and page.count("<b>a hand, waving</b>") == 2
    assert '<td class="number">–</td>' in page and page.count("<article>") == 1
