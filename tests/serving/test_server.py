"""`hand1000 serve` as a process: answers, errors, concurrency, a client that hangs up, and the end."""

import base64
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image

from hand1000.gestures import gesture_phrase
from tests.support.mlflow_server import free_port, serving
from tests.support.serving import GESTURES, PROMPTS, get, metric, post
from tests.support.short_demo import ROOT
from tests.support.tiny_pipelines import SAMPLER, pipeline_of

BODY = {"prompt": PROMPTS["four"], "seed": 5}
PNG = "image/png"
SETTINGS = {**SAMPLER, "autoguidance_interval": [0.0, 1.0], "sampler": "ddim", "batch_size": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny model."""
    path = tmp_path_factory.mktemp("served") / "model"
    pipeline_of(*GESTURES, strong=True).save_pretrained(path)
    return path


def serve_command(model: Path, port: int, *options: str) -> list[str]:
    start = "import sys; from hand1000.cli.main import main; sys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-c", start, "serve", "--model", str(model), "--port", str(port), *options]


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    """A running server with batches of two and room for eight requests."""
    url = f"http://127.0.0.1:{free_port()}"
    command = serve_command(folder, int(url.rpartition(":")[2]), "--batch-size", "2", "--max-queue", "8")
    with serving(command, f"{url}/readyz", folder.parent / "log", {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}):
        yield url


def test_png_answer_says_what_it_was_made_of(server: str, folder: Path) -> None:
    answer = post(f"{server}/generate", BODY, accept=PNG)
    assert (answer.status, answer.headers["content-type"]) == (200, PNG)
    image = Image.open(io.BytesIO(answer.body))
    assert image.size == (32, 32)
    assert image.text["prompt"] == unquote(answer.headers["hand1000-prompt"]) == PROMPTS["four"]
    assert image.text["seed"] == answer.headers["hand1000-seed"] == "5"
    assert image.text["gesture"] == answer.headers["hand1000-gesture"] == "four"
    assert image.text["model"] == answer.headers["hand1000-model"] == str(folder)
    assert image.text["model_digest"] == answer.headers["hand1000-model-digest"]
    assert json.loads(image.text["settings"]) == json.loads(answer.headers["hand1000-settings"]) == SETTINGS
    assert image.text["Software"].startswith("hand1000 ")
    assert post(f"{server}/generate", BODY, accept=PNG).body == answer.body
    other = post(f"{server}/generate", {**BODY, "seed": 6}, accept=PNG)
    assert Image.open(io.BytesIO(other.body)).tobytes() != image.tobytes()


def test_json_answer_holds_the_same_images(server: str) -> None:
    answer = post(f"{server}/generate", {**BODY, "seed": 4, "num_images": 3}).json
    assert [image["seed"] for image in answer["images"]] == [4, 5, 6] and answer["settings"] == SETTINGS
    png = post(f"{server}/generate", BODY, accept=PNG).body
    assert base64.b64decode(answer["images"][1]["image"]) == png


def test_prompt_beyond_ascii_is_kept(server: str) -> None:
    prompt = f"é {gesture_phrase('ok')}"
    answer = post(f"{server}/generate", {"prompt": prompt}, accept=PNG)
    assert unquote(answer.headers["hand1000-prompt"]) == Image.open(io.BytesIO(answer.body)).text["prompt"] == prompt


@pytest.mark.parametrize(
    ("body", "headers", "status", "fault"),
    [
        ({**BODY, "steps": 5}, {}, 400, "steps: unknown; did you mean num_inference_steps?"),
        ({**BODY, "negative_prompt": "x"}, {}, 400, "negative_prompt: unknown"),
        ({**BODY, "seed": None}, {}, 400, "seed: null; give an integer, 0 to 2147483647"),
        ({**BODY, "num_inference_steps": True}, {}, 400, "num_inference_steps: True is not accepted"),
        ({**BODY, "num_inference_steps": 8.5}, {}, 400, "num_inference_steps: 8.5 is not accepted"),
        ({"prompt": "a hand"}, {}, 400, "contains the phrase of none"),
        ({"prompt": "red " * 12 + PROMPTS["ok"]}, {}, 400, "reads 14 tokens, which end before the phrase"),
        ({**BODY, "num_images": 64, "num_inference_steps": 100}, {}, 400, "6400 steps; at most 5000"),
        ({**BODY, "num_images": 2}, {"Accept": PNG}, 400, "a PNG holds one image"),
        (b'{"prompt": "x", "seed": 1, "seed": 2}', {}, 400, "seed is given several times; give it once"),
        (b"{", {}, 400, "the body is not JSON"),
        (b"[" * 20_000, {}, 400, "the body is not JSON"),
        (b"\xff", {}, 400, "the body is not JSON"),
        (b" " * 28_097, {}, 413, "the body has more than 28096 bytes"),
        (BODY, {"Content-Type": "text/csv"}, 415, "send application/json"),
        (BODY, {"Accept": "image/webp"}, 406, "accept image/png or application/json"),
    ],
)
def test_fault_of_a_request_is_answered(server: str, body: object, headers: dict, status: int, fault: str) -> None:
    answer = post(f"{server}/generate", body, **{"accept": headers.get("Accept", "*/*"), **headers})
    assert answer.status == status and fault in answer.json["error"]


def test_query_is_refused(server: str) -> None:
    answer = post(f"{server}/generate?steps=5", BODY)
    assert (answer.status, answer.json["error"]) == (400, "steps: no query is accepted; send a JSON body")


def test_openapi_document_has_bounds_defaults_and_examples(server: str) -> None:
    operation = get(f"{server}/openapi.json").json["paths"]["/generate"]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    steps = content["schema"]["properties"]["num_inference_steps"]
    assert (steps["minimum"], steps["maximum"], steps["default"]) == (1, 1000, 3)
    assert {"200", "400", "503", "504"} <= set(operation["responses"])
    for example in content["examples"].values():
        assert post(f"{server}/generate", example["value"]).status == 200


def test_threads_get_the_bytes_that_each_would_get_alone(server: str) -> None:
    bodies = [
        {"prompt": PROMPTS[GESTURES[index % 2]], "seed": index, "num_inference_steps": 2 + index % 3}
        for index in range(16)
    ]
    alone = [post(f"{server}/generate", body, accept=PNG).body for body in bodies]
    assert len(set(alone)) == len(bodies)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda body: post(f"{server}/generate", body, accept=PNG).body, bodies))
    assert together == alone


def test_full_queue_answers_503_and_every_request_is_counted(server: str) -> None:
    before = {status: metric(server, f'hand1000_requests_total{{status="{status}"}}') for status in (200, 503)}
    body = {**BODY, "num_inference_steps": 60}
    expected = post(f"{server}/generate", body, accept=PNG).body
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda _: post(f"{server}/generate", body, accept=PNG), range(40)))
    refused = [answer for answer in answers if answer.status == 503]
    assert refused and all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert "the queue is full with 8 requests" in refused[0].json["error"]
    drawn = [answer.body for answer in answers if answer.status == 200]
    assert len(drawn) + len(refused) == 40 and set(drawn) == {expected}
    after = {status: metric(server, f'hand1000_requests_total{{status="{status}"}}') for status in (200, 503)}
    assert after == {200: before[200] + len(drawn) + 1, 503: before[503] + len(refused)}
    assert metric(server, "hand1000_queue_length") == 0


def wait_until(is_true, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_client_that_hangs_up_stops_its_work(server: str) -> None:
    steps = metric(server, "hand1000_steps_total")
    connection = http.client.HTTPConnection(server.removeprefix("http://"))
    body = json.dumps({**BODY, "num_images": 5, "num_inference_steps": 1000})
    connection.request("POST", "/generate", body, {"Content-Type": "application/json"})
    wait_until(lambda: metric(server, "hand1000_steps_total") > steps + 5)
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()
    wait_until(lambda: metric(server, 'hand1000_requests_total{status="499"}') == 1)
    stopped = metric(server, "hand1000_steps_total")
    time.sleep(0.5)
    # The step in progress may have ended since.
    assert metric(server, "hand1000_steps_total") <= stopped + 1 < steps + 1000
    assert post(f"{server}/generate", BODY).status == 200


@pytest.fixture
def process(folder: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    """A server of its own, which the test ends, with a time limit of four seconds and six of grace."""
    port = free_port()
    command = serve_command(folder, port, "--timeout-seconds", "4", "--grace-seconds", "6")
    with open(tmp_path / "log", "w") as log:
        running = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        )
        try:
            url = f"http://127.0.0.1:{port}"

            def is_ready() -> bool:
                try:
                    return get(f"{url}/readyz").status == 200
                except OSError:
                    return False

            wait_until(is_ready, 100)
            yield running, url
        finally:
            running.kill()
            running.wait()


def test_slow_request_times_out_and_termination_is_graceful(process: tuple[subprocess.Popen, str]) -> None:
    running, url = process
    slow = post(f"{url}/generate", {**BODY, "num_images": 5, "num_inference_steps": 1000})
    assert slow.status == 504 and "not finished within 4 seconds" in slow.json["error"]
    wait_until(lambda: metric(url, "hand1000_queue_length") == 0)
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as stalled:
        stalled.sendall(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
        assert b"408" in stalled.recv(1000)
    steps = metric(url, "hand1000_steps_total")
    body = {**BODY, "num_inference_steps": 40}
    with ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(post, f"{url}/generate", body, PNG)
        wait_until(lambda: metric(url, "hand1000_steps_total") > steps + 2)
        running.send_signal(signal.SIGTERM)
        assert accepted.result(30).status == 200
    assert running.wait(20) == 0
    with pytest.raises(OSError):
        get(f"{url}/healthz")


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("--model", "models:/none@champion", "--registry", "."), "no MLflow here"),
        (("--model", "nowhere"), "nowhere: no model there"),
        (("--model", "nowhere", "--batch-size", "0"), "serve: batch_size"),
    ],
)
def test_fault_of_the_command_is_one_line(options: tuple, fault: str, monkeypatch, capsys, tmp_path: Path) -> None:
    from hand1000.cli.main import main

    monkeypatch.chdir(tmp_path)
    assert main(["serve", *options]) == 2
    error = capsys.readouterr().err
    assert fault in error and len(error.splitlines()) == 1
