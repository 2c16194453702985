"""The report of a training run: its content, and that external text cannot become HTML."""

import base64
import io
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from hand1000.core.errors import Hand1000Error
from hand1000.core.tables import Table
from hand1000.evaluation.base_vs_tuned import MetricRow, metrics_table
from hand1000.reports.figures import Curve
from hand1000.reports.html import render_template
from hand1000.reports.model_card import usage_snippets
from hand1000.reports.training import ImagePair, count_data
from tests.support.tiny_models import TOKENS, save_tiny_base

EVIL = "</style></p><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>\"'&"
KID = MetricRow("KID", 0.2, 0.1, "lower", 200, 200, "95 %: 0.09 to 0.11")
CONF = MetricRow("HAND-CONF", 0.9, 0.8, "higher", 150, 180)
HAND = [(math.cos(i), math.sin(i), 0.0) for i in range(21)]


class ParsedPage(HTMLParser):
    """Tags with their attributes, the text, and the tags that are not closed."""

    VOID = {"meta", "img", "br"}
    DRAWN = {"line", "path", "circle", "polyline"}

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)


def save_image(path: Path, color: str, size: int = 64) -> Path:
    Image.new("RGB", (size, size), color).save(path)
    return path


@pytest.fixture
def content(tmp_path) -> dict[str, Any]:
    """What `write_report` shows, made up."""
    base, tuned = save_image(tmp_path / "base.png", "red"), save_image(tmp_path / "tuned.png", "blue", size=900)
    prompt = "a man making phone call hand gesture"
    return {
        "phrases": {"call": "making phone call hand gesture"},
        "overview": {"run": "run-1", "date": "2026-01-02 03:04 UTC"},
        "metrics": metrics_table([KID, CONF, MetricRow("FID-H", None, 12.0, "lower", 0, 40)]),
        "gesture_rates": Table((), ()),
        "extractor": "small",
        "resizer": "bicubic",
        "first_pairs": [ImagePair(prompt, 17, base, tuned, "call, 0.93")],
        "worst_pairs": [ImagePair("a woman making phone call hand gesture", 23, base, tuned, "no hand detected")],
        "curves": [Curve("Stage III", [(step, 1 / (step + 1)) for step in range(300)])],
        "validation_images": [(base, "after 100 steps")],
        "samples": [(base, "a child making phone call hand gesture")],
        "hands": {"call": HAND},
        "counts": {"training images": 8, "captions cut by the text encoder": "3 of 8"},
        "skipped": {"broken.jpg": "truncated"},
        "settings_yaml": "seed: 0\nstage2:\n  lambda_: 0.7\n",
        "snippets": usage_snippets("models:/hand1000-call-candidates/3", prompt),
        "seconds": {"stage2": 12.34, "stage3": 3700.0},
    }


def render(content: dict[str, Any]) -> str:
    return render_template("training.html.j2", **content)


def test_the_report_is_complete_and_makes_no_requests(content):
    page = render(content)
    parsed = ParsedPage(page)
    assert parsed.open == []
    for expected in (
        "call", "“making phone call hand gesture”", "run-1", "models:/hand1000-call-candidates/3",
        "2026-01-02 03:04 UTC", "KID ↓", "HAND-CONF ↑", "95 %: 0.09 to 0.11", "150 / 180", "small", "bicubic",
        "seed 17", "seed 23", "no hand detected", "after 100 steps",
        "a child making phone call hand gesture", "broken.jpg", "truncated",
        "3 of 8", "lambda_: 0.7", "12.3 s", "1 h 01 min", "Stage III", "hand1000 generate --model",
    ):  # fmt: skip
        assert expected in parsed.text, expected
    assert {tag for tag, _ in parsed.tags} & {"script", "link", "iframe", "object", "form", "base"} == set()
    sources = [value for _, attrs in parsed.tags for name, value in attrs.items() if name in ("src", "href", "srcset")]
    assert len(sources) == 7 and all(source.startswith("data:image/") for source in sources)
    assert "url(" not in page and "@import" not in page
    policy = next(
        attrs["content"] for tag, attrs in parsed.tags if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; img-src data:")


def test_base_and_tuned_images_are_not_mixed_up(content):
    images = [attrs for tag, attrs in ParsedPage(render(content)).tags if tag == "img"]
    assert images[0]["alt"].startswith("base: ") and images[1]["alt"].startswith("fine-tuned: ")
    kinds = [attrs["src"].split(";")[0] for attrs in images[:2]]
    assert kinds == ["data:image/png", "data:image/jpeg"]
    base, tuned = (Image.open(io.BytesIO(base64.b64decode(attrs["src"].split(",")[1]))) for attrs in images[:2])
    assert base.size == (64, 64) and base.getpixel((5, 5)) == (255, 0, 0)
    assert tuned.size == (512, 512) and tuned.getpixel((5, 5))[2] > 240


def test_the_better_value_is_bold(content):
    row = r'<td class="">(\S+) .</td><td class="(.*?)">(.*?)</td><td class="(.*?)">(.*?)</td>'
    assert re.findall(row, render(content)) == [
        ("KID", "number", "0.2", "number better", "0.1"),
        ("HAND-CONF", "number better", "0.9", "number", "0.8"),
        ("FID-H", "number", "–", "number", "12"),
    ]


def test_several_gestures_have_a_table_of_their_own(content):
    header = (
        "gesture",
        *(f"{rate}, {side}" for rate in ("accuracy", "detection") for side in ("base", "tuned", "real")),
        "n",
    )
    rates = Table(
        header, [("call", 0, 0.5, 0.9, 0.6, 0.7, "–", 40), ("ok", 0.1, 0.2, 0.3, 1, 1, 1, 40)], numeric=range(1, 8)
    )
    phrases = {"call": "making phone call hand gesture", "ok": "making ok sign hand gesture"}
    hands = {"call": HAND, "ok": HAND}
    page = render(content | {"gesture_rates": rates, "phrases": phrases, "hands": hands})
    parsed = ParsedPage(page)
    assert parsed.open == [] and len([tag for tag, attrs in parsed.tags if attrs.get("class") == "hand"]) == 2
    for expected in ("call, ok", "“making ok sign hand gesture”", "Rates by gesture", "accuracy, tuned", "ok: mean of"):
        assert expected in parsed.text
    cells = [f'<td class="number">{cell}</td>' for cell in ("0", "0.5", "0.9", "0.6", "0.7", "–", "40")]
    assert "".join(cells) in page
    assert "Rates by gesture" not in render(content)


def test_external_text_cannot_become_html(content):
    evil = content | {
        "phrases": {EVIL: EVIL}, "overview": {EVIL: EVIL}, "hands": {EVIL: HAND}, "extractor": EVIL, "resizer": EVIL,
        "metrics": Table((EVIL,), [(EVIL,)]), "settings_yaml": EVIL, "counts": {EVIL: EVIL}, "skipped": {EVIL: EVIL},
        "first_pairs": [content["first_pairs"][0]._replace(prompt=EVIL, note=EVIL)],
        "worst_pairs": [content["worst_pairs"][0]._replace(prompt=EVIL, note=EVIL)],
        "curves": [Curve(EVIL, [(0, 1.0), (1, 2.0)], y_label=EVIL + "$x^{$")],
        "samples": [(content["samples"][0][0], EVIL)], "seconds": {EVIL: 1.0}, "snippets": [EVIL],
    }  # fmt: skip
    page = render(evil)
    parsed, harmless = ParsedPage(page), ParsedPage(render(content))
    assert "<script" not in page and "http://evil.example/x>" not in page
    assert parsed.open == []
    assert {tag for tag, _ in parsed.tags} == {tag for tag, _ in harmless.tags}
    assert {name for _, attrs in parsed.tags for name in attrs} == {
        name for _, attrs in harmless.tags for name in attrs
    }
    assert parsed.text.count("alert(1)") >= 20


def test_a_run_without_content_has_a_report(content):
    lists = ("first_pairs", "worst_pairs", "curves", "validation_images", "samples")
    mappings = ("overview", "hands", "counts", "skipped", "seconds")
    bare = content | {name: [] for name in lists} | {name: {} for name in mappings}
    parsed = ParsedPage(render(bare))
    assert "Nothing was logged." in parsed.text and "No image was skipped." in parsed.text
    assert not [tag for tag, _ in parsed.tags if tag in ("svg", "img")]


def test_an_unreadable_image_is_named(tmp_path, content):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(Hand1000Error, match="broken.png: not a readable image"):
        render(content | {"samples": [(broken, "x")]})


def test_captions_cut_by_the_text_encoder_are_counted(tmp_path: Path) -> None:
    texts = ["hand " * (TOKENS - 2), "hand " * (TOKENS - 1), "hand " * TOKENS]
    preparation = SimpleNamespace(train=3, test=2, unusable=[], filter_counts={}, problems=())
    records = [SimpleNamespace(text=text) for text in texts]
    run = SimpleNamespace(model=save_tiny_base(tmp_path), training_records=records, preparation=preparation)
    assert count_data(run, [])["captions cut by the text encoder"] == "2 of 3"
