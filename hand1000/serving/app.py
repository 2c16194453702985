"""The HTTP server of `hand1000 serve`: routes, answers and errors over `ServedModel`."""

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

import hand1000
from hand1000.config.serving import ServingLimits
from hand1000.core.documents import load_json
from hand1000.core.errors import Hand1000Error
from hand1000.serving.errors import (
    CanceledError,
    InvalidRequestError,
    RefusedImageError,
    RequestTimeoutError,
    UnavailableError,
)
from hand1000.serving.metrics import ServerMetrics
from hand1000.serving.model import ServedModel
from hand1000.serving.openapi import describe_generate
from hand1000.serving.worker import Job

_JSON, _PNG = "application/json", "image/png"
_HUNG_UP = 499
_BYTES_PER_CHARACTER = 12
"""Most bytes of a character in JSON, as two escapes."""
_BYTES_BESIDE_PROMPT = 4096
_STATUS: dict[type[Hand1000Error], int] = {
    InvalidRequestError: 400,
    RefusedImageError: 422,
    CanceledError: _HUNG_UP,
    UnavailableError: 503,
    RequestTimeoutError: 504,
}


class _HttpError(Hand1000Error):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def create_app(model: ServedModel) -> FastAPI:
    """Return the application that serves `model`."""
    app = FastAPI(
        title="hand1000",
        version=hand1000.__version__,
        description=f"Images of hand gestures by {model.info.version}. Equal requests give equal bytes.",
    )
    metrics = ServerMetrics(model)

    @app.post("/generate", openapi_extra=describe_generate(model), response_class=Response, summary="Generate images")
    async def generate(request: Request) -> Response:
        """Return one image as PNG, or one or several in JSON, as the header `Accept` asks."""
        start = time.monotonic()
        response = await _answer_errors(lambda: _generate(model, request))
        metrics.requests.labels(str(response.status_code)).inc()
        if response.status_code == HTTPStatus.OK:
            metrics.seconds.observe(time.monotonic() - start)
        return response

    @app.get("/healthz", summary="Whether the process works")
    async def healthz() -> Response:
        """Answer 200, or 503 if the process must be restarted."""
        return _report_state(model.worker.is_alive, "the worker has ended")

    @app.get("/readyz", summary="Whether a request would be accepted now")
    async def readyz() -> Response:
        """Answer 200, or 503 while the queue is full or the server is stopping."""
        return _report_state(model.worker.is_accepting, "the queue is full, or the server is stopping")

    @app.get("/metrics", summary="Prometheus' metrics")
    async def render_metrics() -> Response:
        """Return requests by status, the queue's length, images, steps and seconds."""
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return app


def _report_state(is_good: bool, fault: str) -> Response:
    return JSONResponse({"status": "ok" if is_good else fault}, 200 if is_good else 503)


async def _answer_errors(answer: Callable[[], Awaitable[Response]]) -> Response:
    """Return the answer, or an error as JSON with the field `error`."""
    headers = {}
    try:
        return await answer()
    except Hand1000Error as error:
        status = error.status if isinstance(error, _HttpError) else _STATUS.get(type(error), 400)
        message = str(error)
        if isinstance(error, UnavailableError):
            headers["Retry-After"] = str(error.retry_after)
    except Exception as error:
        # The worker has logged it.
        status, message = 500, f"the model failed: {type(error).__name__}; see the server's log"
    return JSONResponse({"error": message}, status, headers)


async def _generate(model: ServedModel, request: Request) -> Response:
    if request.query_params:
        raise InvalidRequestError(f"{next(iter(request.query_params))}: no query is accepted; send a JSON body")
    media_type = _choose_media_type(request.headers.get("accept", "*/*"))
    values = await _read_body(request, model.limits)
    if media_type == _PNG and isinstance(values, dict) and values.get("num_images", 1) != 1:
        raise InvalidRequestError(f"num_images: a PNG holds one image; accept {_JSON} for several")
    job = await asyncio.to_thread(model.submit, values)
    await _wait(model, request, job)
    images = await asyncio.to_thread(model.encode_images, job)
    if media_type == _PNG:
        return Response(images[0], media_type=_PNG, headers=_make_headers(model, job, 0))
    content = {
        "model": model.info.version,
        "model_digest": model.info.digest,
        "prompt": job.specs[0].prompt,
        "gesture": job.specs[0].gesture,
        "settings": json.loads(model.describe(job.specs[0])["settings"]),
        "images": [
            {"seed": spec.seed, "image": base64.b64encode(image).decode("ascii")}
            for spec, image in zip(job.specs, images, strict=True)
        ],
    }
    return JSONResponse(content, headers=_make_headers(model, job, 0))


def _choose_media_type(accept: str) -> str:
    """Return the first accepted media type of the two, JSON for any."""
    for item in accept.split(","):
        name = item.partition(";")[0].strip().lower()
        if name in (_PNG, "image/*"):
            return _PNG
        if name in (_JSON, "application/*", "*/*", ""):
            return _JSON
    raise _HttpError(406, f"Accept: {accept[:100]!r}; accept {_PNG} or {_JSON}")


async def _read_body(request: Request, limits: ServingLimits) -> Any:
    kind = request.headers.get("content-type", _JSON).partition(";")[0].strip().lower()
    if kind != _JSON:
        raise _HttpError(415, f"Content-Type: {kind[:100]!r}; send {_JSON}")
    most = _BYTES_PER_CHARACTER * limits.max_prompt_length + _BYTES_BESIDE_PROMPT
    body = bytearray()
    message: Mapping[str, Any] = {"more_body": True}
    try:
        async with asyncio.timeout(limits.timeout_seconds):
            while message.get("more_body"):
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise CanceledError("the client hung up")
                body += message.get("body", b"")
                if len(body) > most:
                    raise _HttpError(413, f"the body has more than {most} bytes; send a shorter prompt")
    except TimeoutError as error:
        raise _HttpError(408, f"the body did not arrive within {limits.timeout_seconds:g} seconds") from error
    try:
        return load_json(bytes(body))
    except ValueError as error:
        raise InvalidRequestError(f"the body is not JSON: {error}; send one object") from error


async def _wait(model: ServedModel, request: Request, job: Job) -> None:
    """Wait for the images; end the work on them if the client hangs up or the time is over."""
    images: asyncio.Future[Any] = asyncio.wrap_future(job.future)
    hung_up: asyncio.Future[Any] = asyncio.create_task(_wait_for_disconnect(request))
    try:
        done, _ = await asyncio.wait(
            {images, hung_up}, timeout=model.limits.timeout_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if images in done:
            images.result()
        elif hung_up in done:
            raise CanceledError("the client hung up")
        else:
            raise RequestTimeoutError(
                f"not finished within {model.limits.timeout_seconds:g} seconds; send fewer images or steps"
            )
    finally:
        hung_up.cancel()
        if not job.future.done():
            model.worker.cancel(job)
            # Nobody reads what the future ends with.
            images.add_done_callback(lambda future: future.cancelled() or future.exception())


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _make_headers(model: ServedModel, job: Job, index: int) -> dict[str, str]:
    """Return what an image was made of as headers; the texts are percent-encoded UTF-8."""
    description = model.describe(job.specs[index])
    names = ("model", "model_digest", "prompt", "gesture", "seed", "settings")
    return {
        f"Hand1000-{name.replace('_', '-').title()}": quote(description[name], safe=" ,:/@{}[]\"'") for name in names
    }
