"""The review page in a browser: sizes, print, keyboard, sorting, filters and enlarged images."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from hand1000.reports.training import write_report
from tests.support.finished_run import candidate, describe, make_run

CONTRAST = 4.5
"""WCAG's minimum for text."""

Open = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, review_page: Path) -> Iterator[Open]:
    """Open the review page; at the end, nothing may have been requested and no error logged."""
    problems: list[str] = []

    with ExitStack() as stack:

        def open_in_browser(width: int = 1400, height: int = 900, file: Path = review_page, **context: Any) -> Page:
            opened = stack.enter_context(browser.new_context(viewport={"width": width, "height": height}, **context))
            page = opened.new_page()
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("console", lambda message: problems.append(message.text))
            page.on("request", lambda request: problems.append(request.url) if "file:" not in request.url else None)
            page.goto(file.as_uri())
            return page

        yield open_in_browser
    assert [problem for problem in problems if not problem.startswith("data:")] == []


def in_view(page: Page, selector: str) -> bool:
    """Whether the first such element is inside the window."""
    box = page.locator(selector).first.bounding_box()
    size = page.viewport_size
    assert box is not None and size is not None
    return box["y"] >= 0 and box["y"] + box["height"] <= size["height"] and box["x"] + box["width"] <= size["width"]


def visible_names(page: Page) -> list[str]:
    return page.locator("#images tbody tr:not([hidden]) .prompt").all_inner_texts()


def test_verdict_and_commands_are_on_the_first_screen(open_page: Open) -> None:
    page = open_page()
    assert in_view(page, ".outcome") and in_view(page, ".gates tbody tr") and in_view(page, "text=review promote")
    assert in_view(page, "#worst .shots")
    page.click("nav >> text=Worst images")
    assert in_view(page, "#worst .shots") and in_view(page, "#worst .shots >> nth=3")


@pytest.mark.parametrize("width", [320, 400, 768])
def test_nothing_is_off_a_narrow_screen(open_page: Open, width: int) -> None:
    page = open_page(width, 800)
    page.click("#use summary")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # A table may be wider than its box, which then scrolls and can be reached by keyboard.
    assert page.evaluate("[...document.querySelectorAll('.table, pre')].every(box => box.offsetWidth <= innerWidth)")


def test_a_printed_page_is_black_on_white(open_page: Open) -> None:
    page = open_page(794, 1100, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    colors = page.evaluate(
        "[...document.querySelectorAll('body, .banner, .commands, pre, figure, th, td:not([style])')]"
        ".map(element => getComputedStyle(element).backgroundColor)"
    )
    assert set(colors) <= {"rgb(255, 255, 255)", "rgba(0, 0, 0, 0)", "color(srgb 0 0 0 / 0)"}
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert not page.locator("nav").is_visible() and not page.locator("#images").is_visible()
    assert page.locator("text=left out in print").is_visible() and page.locator("text=truncated").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.pdf(format="A4").startswith(b"%PDF")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(open_page: Open, scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    assert page.evaluate(
        """(minimum) => {
          const parse = (text) => text.match(/[\\d.]+/g).map(Number);
          const luminance = (color) => {
            const [r, g, b] = color.map((value) => value / 255)
              .map((value) => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const background = (element) => {
            for (let parent = element; parent; parent = parent.parentElement) {
              const color = parse(getComputedStyle(parent).backgroundColor);
              if (color.length === 3 || color[3] === 1) return color;
            }
          };
          const contrasts = [];
          for (const element of document.querySelectorAll("main *, nav *, header *")) {
            const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
            if (!text || !element.checkVisibility()) continue;
            const style = getComputedStyle(element);
            const color = element.closest("svg") ? style.fill : style.color;
            const values = [luminance(parse(color)), luminance(background(element))].sort((a, b) => a - b);
            contrasts.push([(values[1] + 0.05) / (values[0] + 0.05), element.outerHTML.slice(0, 80)]);
          }
          return contrasts.filter(([contrast]) => contrast < minimum);
        }""",
        CONTRAST,
    ) == []  # fmt: skip


def test_the_table_sorts_by_click_and_by_keyboard(open_page: Open) -> None:
    page = open_page()
    initial = visible_names(page)
    header = page.locator("#images th", has_text="seed")
    header.locator("button").focus()
    page.keyboard.press("Enter")
    ascending = visible_names(page)
    assert header.get_attribute("aria-sort") == "ascending" and ascending == [describe(index) for index in range(60)]
    page.keyboard.press("Space")
    assert visible_names(page) == ascending[::-1] and header.get_attribute("aria-sort") == "descending"
    page.keyboard.press("Enter")
    assert visible_names(page) == initial and header.get_attribute("aria-sort") is None
    page.click("#images th button:has-text('probability')")
    values = [float(text) for text in page.locator("#images td[data-value]:nth-child(5)").all_inner_texts()]
    assert values == sorted(values)


def test_filters_combine_and_reset(open_page: Open) -> None:
    page = open_page()
    assert page.locator("output").inner_text() == "60 of 60 images"
    page.select_option("[name=fault]", "wrong-gesture")
    wrong = {describe(index) for index in range(60) if index % 5 and index % 4 == 0}
    assert set(visible_names(page)) == wrong and page.locator("output").inner_text() == f"{len(wrong)} of 60 images"
    page.fill("[name=text]", "person 16")
    assert visible_names(page) == [describe(16)]
    page.click("text=Reset")
    # A polled expression would be evaluated from a string, which the page's policy forbids.
    expect(page.locator("output")).to_have_text("60 of 60 images")
    page.select_option("[name=change]", "gained")
    assert set(visible_names(page)) == {describe(index) for index in range(60) if index % 5 and index % 4 == 2}
    page.select_option("[name=found]", "no hand")
    assert visible_names(page) == []


def test_images_enlarge_and_close_by_keyboard(open_page: Open) -> None:
    page = open_page()
    button = page.locator("#images .zoom").first
    button.focus()
    assert "seed" in (button.get_attribute("aria-label") or "")
    page.keyboard.press("Enter")
    dialog = page.locator("dialog")
    assert dialog.is_visible() and dialog.locator("img").count() == 3
    first = dialog.locator("p").inner_text()
    page.keyboard.press("ArrowRight")
    assert dialog.locator("p").inner_text() != first
    page.keyboard.press("ArrowLeft")
    assert dialog.locator("p").inner_text() == first
    box = dialog.locator("img").first.bounding_box()
    assert box is not None and box["width"] > 300
    page.keyboard.press("Escape")
    assert not dialog.is_visible() and page.evaluate("document.activeElement.className") == "zoom"


def test_enlarged_images_skip_what_the_filter_hides(open_page: Open) -> None:
    page = open_page()
    page.select_option("[name=fault]", "wrong-gesture")
    count = len(visible_names(page))
    page.locator("#images tr:not([hidden]) .zoom").first.click()
    seen = set()
    for _ in range(count + 1):
        seen.add(page.locator("dialog p").inner_text())
        page.click("text=Next")
    assert len(seen) == count


def test_landmarks_are_drawn_on_request(open_page: Open) -> None:
    page = open_page()
    drawing = page.locator("#worst .landmarks").first
    assert not drawing.is_visible()
    page.check("text=Landmarks")
    image = page.locator("#worst .frame:has(.landmarks) img").first.bounding_box()
    assert drawing.is_visible() and drawing.bounding_box() == image


def test_focus_is_visible_and_reaches_every_control(open_page: Open) -> None:
    page = open_page()
    reached = []
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent.trim() || document.activeElement.id"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert {"Verdict", "Use", "landmarks", "Copy"} <= set(reached)


def test_commands_are_copied(open_page: Open) -> None:
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    page.locator(".copy").first.click()
    page.wait_for_selector("text=/Copied|Selected/")
    assert page.evaluate("getSelection().toString()").startswith("hand1000 review promote models:/hand1000-call")


def test_without_scripts_the_page_shows_everything(open_page: Open) -> None:
    page = open_page(java_script_enabled=False)
    assert page.locator("#images tbody tr").count() == 60 and page.locator("#images img").count() == 180
    assert not page.locator("#filter").is_visible() and not page.locator("dialog").is_visible()
    page.check("text=Landmarks")
    assert page.locator("#worst .landmarks").first.is_visible()


def test_external_text_does_not_run(open_page: Open, tmp_path: Path) -> None:
    def evil(index: int) -> str:
        return f"<img src=x onerror=document.title='run'></script><script>document.title='run'</script>{index}"

    write_report(tmp_path / "report.html", make_run(tmp_path / "run", num_images=5, texts=evil), candidate())
    page = open_page(file=tmp_path / "report.html")
    assert page.title() == "Hand1000: call" and page.locator("script").count() == 1
    page.locator(".zoom").first.click()
    assert "<img src=x" in page.locator("dialog p").inner_text()


def test_every_image_has_an_alternative_text(review_page: Path) -> None:
    images = re.findall(r"<img [^>]*>", review_page.read_text())
    assert len(images) > 200 and all(re.search(r' alt="[^"]+"', image) for image in images)
