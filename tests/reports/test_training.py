"""The review page of a training run: its content, and that external text cannot become HTML."""

import base64
import hashlib
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from hand1000.core.errors import Hand1000Error
from hand1000.data.items import Problem
from hand1000.evaluation.drift import Drift, GestureDrift
from hand1000.evaluation.gate_report import GateReport, GateResult
from hand1000.registry.review import ReviewCommands
from hand1000.reports.run import FinishedRun
from hand1000.reports.training import ReportedCandidate, count_data, describe_run, write_report
from tests.support.finished_run import CHAMPION_URI, COLORS, URI, candidate, make_run

EVIL = "</style></p><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>\"'&"
DRIFT = Drift(
    images=(8, 12),
    features=(GestureDrift(gesture="call", mean=0.25, largest=1.5),),
    vocabulary=0.125,
    new_words=(EVIL,),
    lost_words=(),
    box_sides=(None, None),
    box_distance=None,
)


class ParsedPage(HTMLParser):
    """Tags with their attributes, the text, and the tags that are not closed."""

    VOID = {"meta", "img", "br", "input"}

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
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write the page of a run and return it."""

    def write_page(run: FinishedRun, registered: ReportedCandidate | None = None) -> str:
        write_report(tmp_path / "report.html", run, registered or candidate())
        return (tmp_path / "report.html").read_text()

    return write_page


def test_the_page_is_complete_and_makes_no_requests(review_page: Path) -> None:
    page = review_page.read_text()
    parsed = ParsedPage(page)
    assert parsed.open == []
    for expected in (
        "“making phone call hand gesture”", URI, CHAMPION_URI, f"hand1000 review promote {URI} --champion 2",
        "gesture accuracy ↑", "KID-H ↓", "real images: 0.95", "small", "bicubic", "seed 1001", "no hand", "near-copy",
        "truncated", "filtered images: small hand", "captions by blip2", " of 4", "12.3 s", "1 h 01 min",
        "Stage III, images per second",
        "Stage III: UNet", "norm of the gradient", "learning rate", "lambda_: 0.7", "hand1000 generate --model",
        "Prompts without the gesture", "Apache-2.0", "There is no champion", "drawn at random by seed 1000",
    ):  # fmt: skip
        assert expected in parsed.text or expected in page, expected
    assert {tag for tag, _ in parsed.tags} & {"link", "iframe", "object", "base"} == set()
    sources = [value for _, attrs in parsed.tags for name, value in attrs.items() if name in ("src", "srcset")]
    assert len(sources) > 200 and all(source.startswith("data:image/") for source in sources)
    assert all(attrs["href"].startswith("#") for tag, attrs in parsed.tags if tag == "a")
    assert "url(" not in page and "@import" not in page


def test_only_the_pages_own_script_may_run(review_page: Path) -> None:
    page = review_page.read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="(.*?)"', page)
    assert policy.startswith("default-src 'none'; img-src data:") and f"script-src &#39;sha256-{digest}&#39;" in policy


def test_images_of_the_models_are_not_mixed_up(review_page: Path) -> None:
    images = [attrs for tag, attrs in ParsedPage(review_page.read_text()).tags if tag == "img"]
    for (model, color), image in zip(COLORS.items(), images, strict=False):
        assert image["alt"].startswith("candidate: " if model == "tuned" else f"{model}: ")
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(image["src"].split(",")[1]))))
        assert pixels.shape == (32, 32, 3) and np.abs(pixels.mean(axis=(0, 1)) - color).max() < 5


def test_failed_gates_come_first_with_an_override(write: Write, tmp_path: Path) -> None:
    gates = [
        GateResult(name="detection rate", gesture=None, rule="at least 0.8", value=0.9, low=0.85, high=0.95,
                   champion=0.8, passed=True),
        GateResult(name="KID-H", gesture="call", rule="at most 0.1 above the champion's 0.5", value=None, low=0.2,
                   high=0.4, champion=0.5, passed=False),
    ]  # fmt: skip
    run = make_run(tmp_path / "run", num_images=10, gates=GateReport(champion=CHAMPION_URI, results=tuple(gates)))
    text = ParsedPage(write(run)).text
    assert "✗ Failed 1 of 2 gates failed" in text and "needs one to be promoted" in text
    failed = "✗ failed KID-H, call at most 0.1 above the champion's 0.5 not measured Δ +0.2 to +0.4 0.5"
    assert f"{failed} ✓ passed detection rate at least 0.8 0.9 0.85 to 0.95 0.8" in text


def test_the_first_model_has_a_page_without_a_champion(write: Write, tmp_path: Path) -> None:
    text = ParsedPage(write(make_run(tmp_path / "run", num_images=10, champion=False))).text
    assert "the first model: there is no champion to compare with" in text and "difference to base" in text
    assert "Roll back" not in text


def test_drift_since_the_champion_is_shown(write: Write, tmp_path: Path) -> None:
    page = write(make_run(tmp_path / "run", num_images=10, drift=DRIFT))
    assert "8 before, 12 now" in page and "changed by 0.250 standard deviations" in page
    assert EVIL not in page
    page = write(make_run(tmp_path / "other", num_images=10, drift_note=f"not kept: {EVIL}"))
    assert "not kept" in page and EVIL not in page


def test_three_hands_earn_no_better(write: Write, tmp_path: Path) -> None:
    page = write(make_run(tmp_path / "run", num_images=4))
    assert "too few to tell (n = 3)" in page and "conclusion better" not in page.partition("<body>")[2]


def test_external_text_cannot_become_html(write: Write, tmp_path: Path) -> None:
    harmless = ParsedPage(write(make_run(tmp_path / "harmless", num_images=10)))
    evil = {"run_key": EVIL, "base_model": EVIL, "base_identity": EVIL, "data_digest": EVIL, "champion": EVIL}
    gate = GateResult(name=EVIL, gesture=EVIL, rule=EVIL, value=1, low=0, high=2, champion=1, passed=True)
    gates = GateReport(champion=EVIL, results=(gate,), notes=(EVIL,))
    run = make_run(tmp_path / "evil", num_images=10, texts=lambda index: f"{EVIL}{index}", gates=gates, **evil)
    commands = ReviewCommands(compare=EVIL, promote=EVIL, reject=EVIL, rollback=EVIL)
    page = write(run, candidate(uri=EVIL, commands=commands, registry=EVIL, seconds={EVIL: 1.0}))
    parsed = ParsedPage(page)
    assert parsed.open == [] and page.count("<script") == 1 and "http://evil.example/x>" not in page
    assert {tag for tag, _ in parsed.tags} == {tag for tag, _ in harmless.tags}
    names = [{name for _, attrs in tags for name in attrs} for tags in (parsed.tags, harmless.tags)]
    assert names[0] <= names[1] and parsed.text.count("alert(1)") >= 50


def test_a_run_of_two_images_without_history_has_a_page(write: Write, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", num_images=2, general_images=None)
    for folder in (run.fusion, *run.embeddings, run.trained):
        (folder / "history.jsonl").write_text("")
    text = ParsedPage(write(run, candidate(seconds={}))).text
    assert "Stage III: learning rate" in text and "Stage III: UNet" not in text and "total" not in text.split()


def test_the_page_shows_what_an_export_loses(write: Write, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", num_images=2)
    text = " ".join(ParsedPage(write(run)).text.split())
    assert "Model and export on the first 48 test prompts" in text
    assert "gesture accuracy ↑ 0.625 0.4375 -0.1875 -0.31 to -0.05 48" in text and "KID-H ↓ 0.8 1.6 – – 48" in text
    assert run.tracked_metrics["export/gesture accuracy"] == 0.4375


def test_the_page_shows_what_became_of_other_gestures(write: Write, tmp_path: Path) -> None:
    text = " ".join(ParsedPage(write(make_run(tmp_path / "run", num_images=2))).text.split())
    assert "candidate: shows it base: shows a trained gesture" in text
    assert "ok 4 4 · · · 4 4 palm 4 4 4 · · · 4 all 8 8 4 · · 4 8" in text
    run = make_run(tmp_path / "without", num_images=2)
    for path in run.evaluation.glob("other_*.json"):
        path.unlink()
    assert "shows a trained gesture" not in ParsedPage(write(run)).text


def test_an_unreadable_image_is_named(write: Write, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", num_images=3)
    (run.tuned_images / "000001.png").write_bytes(b"no image")
    with pytest.raises(Hand1000Error, match="000001.png: not a readable image"):
        write(run)


def test_a_page_of_large_photos_stays_small(monkeypatch: pytest.MonkeyPatch, write: Write, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", num_images=30, side=256)
    monkeypatch.setattr("hand1000.reports.training._TABLE_BYTES", 100_000)
    described = describe_run(run, candidate())
    assert described["thumbnails"].side == 64 and described["thumbnails"].num_images < 90
    page = write(run)
    assert "only the first" in " ".join(page.split()) and page.count("<tr data-faults") == 30


def test_the_run_time_leaves_out_what_is_not_known(review_page: Path) -> None:
    rows = re.findall(r"<tr><th>(\w+)</th><td>([^<]* (?:s|min|memory))</td></tr>", review_page.read_text())
    assert rows == [
        ("train_fusion", "12.3 s"),
        ("train_unet", "1 h 01 min, at most 7.2 GiB of memory"),
        ("total", "1 h 01 min"),
    ]


def test_captions_shortened_before_the_phrase_are_counted() -> None:
    problem = Problem(kind="box not usable", count=4, names=("a.png", "b.png", "c.png"), remedy="correct it")
    preparation = SimpleNamespace(train=3, test=2, unusable=[], filter_counts={}, problems=(problem,))
    records = [SimpleNamespace(captioner="")] * 3
    captions = {str(number): SimpleNamespace(shortened=number < 2) for number in range(3)}
    run = SimpleNamespace(caption_records=captions, training_records=records, preparation=preparation)
    counts = count_data(run, [])
    assert counts["captions shortened before the phrase"] == "2 of 3"
    assert counts["not used: box not usable"] == "4 (a.png; b.png; c.png and 1 more); correct it"
