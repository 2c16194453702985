"""The report and the card: what they say, and that text from outside stays text."""

import base64
import dataclasses
import io
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from hand1000.core.errors import Hand1000Error
from hand1000.core.tables import format_number
from hand1000.evaluation.base_vs_tuned import GestureRow, MetricRow
from hand1000.reports.figures import curve_svg, hand_svg
from hand1000.reports.model_card import CardContent, render_model_card
from hand1000.reports.training import Curve, Pair, ReportContent, Sample, report_html, write_report

EVIL = "</style></p><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>\"'&"
KID = MetricRow("KID", 0.2, 0.1, "lower", 200, 200, "95 %: 0.09 to 0.11")
CONF = MetricRow("HAND-CONF", 0.9, 0.8, "higher", 150, 180)
HAND = [(math.cos(i), math.sin(i), 0.0) for i in range(21)]


class Seen(HTMLParser):
    """Tags with their attributes, the text, and what was left open."""

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


def picture(path: Path, color: str, size: int = 64) -> Path:
    Image.new("RGB", (size, size), color).save(path)
    return path


@pytest.fixture
def content(tmp_path) -> ReportContent:
    base, tuned = picture(tmp_path / "base.png", "red"), picture(tmp_path / "tuned.png", "blue", size=900)
    return ReportContent(
        phrases={"call": "making phone call hand gesture"},
        run_key="run-1",
        model_uri="models:/hand1000-call-candidates/3",
        date="2026-01-02 03:04 UTC",
        base_model="small, revision 1",
        measures=[KID, CONF, MetricRow("FID-H", None, 12.0, "lower", 0, 40)],
        extractor="small",
        resizer="bicubic",
        random_pairs=[Pair("a man making phone call hand gesture", 17, base, tuned)],
        worst_pairs=[Pair("a woman making phone call hand gesture", 23, base, tuned, "no hand found")],
        curves=[Curve("Stage III", [(step, 1 / (step + 1)) for step in range(300)])],
        samples=[Sample(base, "a child making phone call hand gesture")],
        hands={"call": HAND},
        counts={"train": 8, "test": 2},
        settings_yaml="seed: 0\nstage2:\n  lambda_: 0.7\n",
        seconds={"stage2": 12.34, "stage3": 3700.0},
        unusable={"broken.jpg": "truncated"},
        looks=[Sample(base, "after 100 steps")],
    )


def test_the_report_holds_everything_and_asks_for_nothing(tmp_path, content):
    write_report(tmp_path / "report.html", content)
    page = (tmp_path / "report.html").read_text()
    seen = Seen(page)
    assert seen.open == []
    for expected in (
        "call", "“making phone call hand gesture”", "run-1", "models:/hand1000-call-candidates/3",
        "2026-01-02 03:04 UTC", "KID ↓", "HAND-CONF ↑", "95 %: 0.09 to 0.11", "150 / 180", "small", "bicubic",
        "seed 17", "seed 23", "no hand found", "after 100 steps",
        "a child making phone call hand gesture", "broken.jpg", "truncated",
        "lambda_: 0.7", "12.3 s", "1 h 01 min", "Stage III", "hand1000 generate --model",
    ):  # fmt: skip
        assert expected in seen.text, expected
    assert {tag for tag, _ in seen.tags} & {"script", "link", "iframe", "object", "form", "base"} == set()
    sources = [value for _, attrs in seen.tags for name, value in attrs.items() if name in ("src", "href", "srcset")]
    assert len(sources) == 6 and all(source.startswith("data:image/") for source in sources)
    assert "url(" not in page and "@import" not in page
    policy = next(attrs["content"] for tag, attrs in seen.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:")


def test_base_and_tuned_stand_on_their_own_sides(content):
    images = [attrs for tag, attrs in Seen(report_html(content)).tags if tag == "img"]
    assert images[0]["alt"].startswith("base: ") and images[1]["alt"].startswith("tuned: ")
    kinds = [attrs["src"].split(";")[0] for attrs in images[:2]]
    assert kinds == ["data:image/png", "data:image/jpeg"]
    base, tuned = (Image.open(io.BytesIO(base64.b64decode(attrs["src"].split(",")[1]))) for attrs in images[:2])
    assert base.size == (64, 64) and base.getpixel((5, 5)) == (255, 0, 0)
    assert tuned.size == (512, 512) and tuned.getpixel((5, 5))[2] > 240


def test_the_better_value_is_marked(content):
    rows = re.findall(r"<tr><td>(\S+) .</td><td class=\"(.*?)\">(.*?)</td><td class=\"(.*?)\">(.*?)</td>",
                      report_html(content))  # fmt: skip
    assert rows == [
        ("KID", "number", "0.2", "number better", "0.1"),
        ("HAND-CONF", "number better", "0.9", "number", "0.8"),
        ("FID-H", "number", "–", "number", "12"),
    ]
    assert MetricRow("x", 1.0, 1.0, "lower", 1, 1).winner is None
    assert format_number(-0.0123456) == "-0.01235"


def test_several_gestures_are_told_apart(content):
    rates = [
        GestureRow("call", (0.0, 0.5, 0.9), (0.6, 0.7, None), 40),
        GestureRow("ok", (0.1, 0.2, 0.3), (1, 1, 1), 40),
    ]
    phrases = {"call": "making phone call hand gesture", "ok": "making ok sign hand gesture"}
    seen = Seen(
        report_html(dataclasses.replace(content, rates=rates, phrases=phrases, hands={"call": HAND, "ok": HAND}))
    )
    assert seen.open == [] and len([tag for tag, attrs in seen.tags if attrs.get("class") == "hand"]) == 2
    for expected in ("call, ok", "“making ok sign hand gesture”", "By gesture", "accuracy, tuned", "ok: 21 landmarks"):
        assert expected in seen.text
    assert "".join(f'<td class="number">{cell}</td>' for cell in ("0", "0.5", "0.9", "0.6", "0.7", "–", "40")) in (
        report_html(dataclasses.replace(content, rates=rates))
    )
    facts = CardContent(("call", "ok"), "b", "r", "d", {}, {}, [KID], "e", "r", "p", rates=rates)
    card = render_model_card(facts)
    assert card.startswith("# Hand1000: call, ok\n") and "| ok | **making ok sign hand gesture** |" in card
    assert "| call | 0 | 0.5 | 0.9 | 0.6 | 0.7 | – | 40 |" in card and "one of these gestures" in card
    assert "By gesture" not in report_html(content)


def test_text_from_outside_stays_text(content):
    pair = dataclasses.replace(content.random_pairs[0], prompt=EVIL, note=EVIL)
    evil = dataclasses.replace(
        content,
        phrases={EVIL: EVIL}, hands={EVIL: HAND}, run_key=EVIL, model_uri=EVIL, date=EVIL, base_model=EVIL,
        extractor=EVIL, resizer=EVIL, settings_yaml=EVIL, random_pairs=[pair], worst_pairs=[pair],
        measures=[MetricRow(EVIL, 1.0, 2.0, "lower", 1, 1, EVIL)],
        curves=[Curve(EVIL, [(0, 1.0), (1, 2.0)], y_label=EVIL)],
        samples=[Sample(content.samples[0].image, EVIL)],
        counts={EVIL: 1}, unusable={EVIL: EVIL}, seconds={EVIL: 1.0},
    )  # fmt: skip
    page = report_html(evil)
    seen, harmless = Seen(page), Seen(report_html(content))
    assert "<script" not in page and "http://evil.example/x>" not in page
    assert seen.open == []
    assert {tag for tag, _ in seen.tags} == {tag for tag, _ in harmless.tags}
    assert {name for _, attrs in seen.tags for name in attrs} == {name for _, attrs in harmless.tags for name in attrs}
    assert seen.text.count("alert(1)") >= 20


def test_an_empty_run_still_has_a_report(content):
    bare = dataclasses.replace(
        content, measures=[], random_pairs=[], worst_pairs=[], curves=[Curve("c", [(0, math.nan)])], samples=[],
        hands={}, counts={}, unusable={}, seconds={},
    )  # fmt: skip
    seen = Seen(report_html(bare))
    assert "nothing recorded" in seen.text and "No image was unusable." in seen.text
    assert not [tag for tag, _ in seen.tags if tag == "svg"]


def test_a_picture_that_cannot_be_read_is_named(tmp_path, content):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(Hand1000Error, match="broken.png: no readable picture"):
        write_report(tmp_path / "r.html", dataclasses.replace(content, samples=[Sample(broken, "x")]))
    assert not (tmp_path / "r.html").exists()


def polyline(svg: str, css: str) -> list[tuple[float, float]]:
    points = re.search(rf'<polyline class="{css}" points="(.*?)"', svg).group(1)
    return [tuple(map(float, point.split(","))) for point in points.split()]


def test_a_curve_is_drawn_to_scale():
    raw = polyline(curve_svg([(0, 0.0), (50, 10.0), (100, 5.0)], x_label="step", y_label="loss"), "raw")
    (x0, y0), (x1, y1), (x2, y2) = raw
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2) and x2 == pytest.approx(436, abs=0.1)
    assert y0 == pytest.approx(198, abs=0.1) and y1 == pytest.approx(12, abs=0.1)
    assert y2 == pytest.approx((y0 + y1) / 2, abs=0.1)


def test_a_long_curve_is_thinned_and_its_smooth_course_keeps_the_mean():
    svg = curve_svg([(step, 1.0 if step % 7 else 3.0) for step in range(100_000)], x_label="step", y_label="loss")
    assert len(polyline(svg, "raw")) <= 500 and len(svg) < 40_000
    flat = curve_svg([(step, 2.0) for step in range(200)], x_label="step", y_label="loss")
    assert polyline(flat, "smooth") == polyline(flat, "raw")
    rough = curve_svg([(step, step % 2) for step in range(400)], x_label="step", y_label="loss")
    height = [y for _, y in polyline(rough, "smooth")[20:-20]]
    assert max(height) - min(height) < 0.1 * (198 - 12)
    slope = curve_svg([(step, float(step)) for step in range(200)], x_label="step", y_label="loss")
    assert polyline(slope, "smooth") == polyline(slope, "raw"), "a smoothed line lags behind its own slope"


def test_a_hand_fits_its_frame_and_keeps_its_shape():
    hand = [(100 + 0.5 * i, -3 + i, 9.0) for i in range(21)]
    circles = re.findall(r'cx="(.*?)" cy="(.*?)"', hand_svg(hand, size=200))
    points = [(float(x), float(y)) for x, y in circles]
    assert len(points) == 21 and points[0] == (100 - 43, 14) and points[20] == (100 + 43, 186)
    with pytest.raises(ValueError, match="21 landmarks"):
        hand_svg(hand[:20])


def test_the_card_says_what_a_user_must_know():
    card = render_model_card(
        CardContent(
            gestures=("call",), base_model="small|base", base_revision="abc", data_digest="ab" * 32,
            counts={"train": 8}, settings={"mu": 0.7}, measures=[KID, CONF], extractor="small", resizer="bicubic",
            prompt="it's \"so\", making phone call hand gesture",
            licences={"HaGRID": "<b>CC BY-SA 4.0"}, model_uri="models:/hand1000-call-candidates@champion",
        )
    )  # fmt: skip
    assert "| KID ↓ | 0.2 | **0.1** | 200 | 95 %: 0.09 to 0.11 |" in card
    assert "| HAND-CONF ↑ | **0.9** | 0.8 | 150 / 180 |" in card
    assert "small\\|base, revision abc" in card and "&lt;b>CC BY-SA" in card and "ab" * 32 in card
    assert 'load_model_folder("models:/hand1000-call-candidates@champion")' in card
    assert r"""pipeline("it's \"so\", making phone call hand gesture")""" in card
    assert """--prompt 'it'"'"'s "so", making phone call hand gesture' --num 8""" in card
    assert len(card) < 5000
    with pytest.raises(Hand1000Error, match="unknown gesture"):
        render_model_card(CardContent(("wave",), "b", "r", "d", {}, {}, [], "e", "r", "p"))
