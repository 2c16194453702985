"""The page to try a model, in a real browser."""

import io
import socket
import sys
from argparse import Namespace

import pytest
from PIL import Image, ImageChops

from hand1000.cli.demo import load_columns
from hand1000.cli.main import main
from hand1000.config.serving import ServingLimits
from hand1000.core.errors import Hand1000Error
from hand1000.pipelines.generation import generate
from hand1000.pipelines.pipeline_hand1000 import build_pipeline
from hand1000.registry.connection import connect
from hand1000.registry.versions import CHAMPION
from hand1000.serving.model import ModelInfo
from hand1000.serving.playground import build_page, draw, get_base, launch_page, make_column
from tests.support.mlflow_server import free_port
from tests.support.registration import record_and_register
from tests.support.tiny_models import fresh_base, save_tiny_base, tiny_base
from tests.support.tiny_pipelines import SAMPLER, fusion_of, pipeline_of

PROMPT = "a red hand, making four fingers up hand gesture"
INFOS = {"base": "inside", "champion": "models:/hand1000-four/1", "candidate": "models:/hand1000-four-candidates/2"}


def tuned_pipeline():
    """A model of two gestures that contains its base model."""
    settings = SAMPLER | {"autoguidance_scale": 2.0}
    fusion = fusion_of("four", "ok", strong=True)
    pipeline = build_pipeline(tiny_base(), tuned=fresh_base().unet, fusion=fusion, **settings)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def pipelines():
    tuned = tuned_pipeline()
    return {"base": get_base(tuned), "champion": pipeline_of("four"), "candidate": tuned}


@pytest.fixture(scope="module")
def address(pipelines):
    columns = [make_column(name, pipelines[name], ModelInfo(text, ""), ServingLimits()) for name, text in INFOS.items()]
    page = build_page(columns)
    yield launch_page(page, "127.0.0.1", free_port(), block=False)
    page.close()


@pytest.fixture
def page(browser, address):
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.requested = set()
    page.on("request", lambda request: page.requested.add(request.url.split("/")[2]))
    page.goto(address)
    page.get_by_role("button", name="Draw", exact=True).wait_for()
    yield page
    page.close()


def start(page, prompt: str) -> None:
    page.get_by_label("Prompt, with the phrase").fill(prompt)
    page.get_by_role("button", name="Draw", exact=True).click()


def wait_until_drawn(page, seed: int = 0) -> None:
    page.get_by_text(f"{INFOS['candidate']}, seed {seed}").wait_for()
    page.wait_for_function("document.querySelectorAll('.columns img').length == 3")


def shown_images(page) -> list[Image.Image]:
    sources = [image.get_attribute("src") for image in page.locator(".columns img").all()]
    return [Image.open(io.BytesIO(page.request.get(source).body())).convert("RGB") for source in sources]


def test_each_model_draws_what_it_draws_alone(page, pipelines, address):
    start(page, PROMPT)
    wait_until_drawn(page)
    assert page.locator(".columns img").first.bounding_box()["width"] > 300, "the images are too small to judge"
    first = shown_images(page)
    for shown, (name, pipeline) in zip(first, pipelines.items(), strict=True):
        settings = {"mu": 0.3, "guidance_scale": 3.0, "num_inference_steps": 3}
        (expected,) = generate(pipeline, [PROMPT], [0], batch_size=1, **settings)
        assert ImageChops.difference(shown, expected).getbbox() is None, name
    page.get_by_role("button", name="Draw with the next seed").click()
    wait_until_drawn(page, seed=1)
    assert all(ImageChops.difference(*pair).getbbox() for pair in zip(first, shown_images(page), strict=True))
    assert page.requested == {address.split("/")[2]}, "the page reaches another host"


def test_a_fault_is_shown_below_the_image(page):
    start(page, "<img src=x> a red hand")
    page.wait_for_function("document.querySelectorAll('.columns .caption p')[2]?.innerText.includes('not drawn')")
    captions = page.locator(".columns .caption p").all_inner_texts()
    assert "seed 0" in captions[0]
    assert "add 'making four fingers up hand gesture'" in captions[1]
    assert "<img src=x>" in captions[2] and "four, ok" in captions[2]
    assert page.locator(".columns .caption img").count() == 0


def test_nothing_is_off_a_narrow_screen(page):
    page.set_viewport_size({"width": 400, "height": 800})
    start(page, PROMPT)
    wait_until_drawn(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_only_this_machine_reaches_it(address):
    port = int(address.rstrip("/").rpartition(":")[2])
    with socket.socket() as other:  # Another address of this machine.
        assert other.connect_ex(("127.0.0.2", port)) != 0
    page = build_page([make_column("one", pipeline_of("four"), ModelInfo("x", ""), ServingLimits())])
    with pytest.raises(Hand1000Error, match=f"cannot listen on 127.0.0.1:{port}"):
        launch_page(page, "127.0.0.1", port)


def test_requests_are_bounded_as_a_server_bounds_them(pipelines):
    limits = ServingLimits(max_image_steps=50)
    column = make_column("candidate", pipelines["candidate"], ModelInfo("x", ""), limits)
    for values, message in (
        ({"num_inference_steps": 51}, "at most 50 are accepted"),
        ({"mu": 1.5}, "mu: 1.5 is not accepted"),
        ({"seed": -1}, "seed: -1 is not accepted"),
        ({"gesture": "peace"}, "knows four, ok only"),
    ):
        with pytest.raises(Hand1000Error, match=message):
            draw(column, {"prompt": PROMPT, **values})


def options(**values: object) -> Namespace:
    return Namespace(**{"champion": None, "base": None, "registry": None, **values})


def test_the_champion_of_a_candidate_is_beside_it(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    folder = tmp_path / "model"
    tuned_pipeline().save_pretrained(folder)
    tracking = connect(tmp_path)
    uri = record_and_register(tracking, folder, "run-1", gesture="four").uri
    alone = load_columns(options(model=uri, registry=str(tmp_path)))
    assert [column.title for column in alone] == ["base", "candidate"]
    copy = tracking.client.copy_model_version(uri, "hand1000-four")
    tracking.client.set_registered_model_alias("hand1000-four", CHAMPION, str(copy.version))
    columns = load_columns(options(model=uri, registry=str(tmp_path)))
    assert [column.title for column in columns] == ["base", "champion", "candidate"]
    assert columns[1].model.info.version == "models:/hand1000-four/1"
    base = save_tiny_base(tmp_path / "base")
    columns = load_columns(options(model=str(folder), base=str(base)))
    assert [column.model.info.version for column in columns] == [str(base), str(folder)]
    assert draw(columns[0], {"prompt": PROMPT}).size == (32, 32)


def test_without_gradio_one_line_names_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo", "--model", "nowhere"]) == 2
    assert "demo: gradio is missing; pip install 'hand1000[demo]'" in capsys.readouterr().err
