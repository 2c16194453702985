"""Take the screenshot of a review page: python docs/review_page.py path/to/report.html docs/review-page.png."""

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

report, screenshot = map(Path, sys.argv[1:])
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1400, "height": 1100})
    page.goto(report.resolve().as_uri())
    page.check("#landmarks")
    image = Image.open(io.BytesIO(page.screenshot()))
    browser.close()
# 256 colors are enough for a page, and a quarter of the bytes.
image.convert("RGB").quantize(256).save(screenshot, optimize=True)
