"""A loaded model with its worker: what the HTTP server, MLflow's model code and the page to try it share."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hand1000
from hand1000.config.base import validate_settings
from hand1000.config.serving import ServingLimits
from hand1000.core.documents import read_yaml
from hand1000.serving.drawing import make_drawer
from hand1000.serving.errors import RefusedImageError
from hand1000.serving.image_request import ImageSpec, RequestParser
from hand1000.serving.worker import Job, Worker

if TYPE_CHECKING:
    from PIL import Image

    from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline
    from hand1000.serving.safety import SafetyChecker


@dataclass(frozen=True)
class ModelInfo:
    """Which model draws.

    Attributes:
        version: Its address, such as `models:/hand1000-four/3`, never an alias.
        digest: Digest of its weights, the tag `hand1000.model_digest` of a registered version.
    """

    version: str
    digest: str


class ServedModel:
    """A pipeline behind a queue.

    Attributes:
        pipeline: The pipeline, which only the worker may call.
        info: Which model it is.
        limits: Bounds on requests and on the queue.
        parser: The check of requests.
        worker: The queue.
    """

    def __init__(
        self,
        pipeline: "Hand1000Pipeline",
        info: ModelInfo,
        limits: ServingLimits,
        safety_checker: "SafetyChecker | None" = None,
    ) -> None:
        self.pipeline = pipeline
        self.info = info
        self._safety_checker = safety_checker
        self.limits = limits
        self.parser = RequestParser(pipeline, limits)
        self.worker = Worker(make_drawer(pipeline, limits.batch_size), limits)

    def submit(self, values: object) -> Job:
        """Check the body of a request and put it into the queue.

        Raises:
            InvalidRequestError: Names the field at fault.
            UnavailableError: The queue is full, or the server is stopping.
        """
        return self.worker.submit(self.parser.parse(values))

    def describe(self, spec: ImageSpec) -> dict[str, str]:
        """Return what an image was made of, by the names of the PNG's text fields."""
        settings = {name: list(value) if isinstance(value, tuple) else value for name, value in spec.settings}
        return {
            "Software": f"hand1000 {hand1000.__version__}",
            "model": self.info.version,
            "model_digest": self.info.digest,
            "prompt": spec.prompt,
            "gesture": spec.gesture,
            "seed": str(spec.seed),
            "settings": json.dumps({**settings, "batch_size": self.limits.batch_size}),
        }

    def encode_png(self, image: "Image.Image", spec: ImageSpec) -> bytes:
        """Return an image as PNG with its description; equal images of equal requests give equal bytes."""
        from PIL.PngImagePlugin import PngInfo

        text = PngInfo()
        for name, value in self.describe(spec).items():
            text.add_itxt(name, value)
        buffer = io.BytesIO()
        image.save(buffer, format="PNG", pnginfo=text)
        return buffer.getvalue()

    def encode_images(self, job: Job) -> list[bytes]:
        """Return the images of a finished job as PNG.

        Raises:
            RefusedImageError: The safety checker refused one.
        """
        images = job.future.result(0)
        if self._safety_checker is not None:
            refused = self._safety_checker.find_refused(images)
            if any(refused):
                seeds = [str(spec.seed) for spec, is_refused in zip(job.specs, refused, strict=True) if is_refused]
                raise RefusedImageError(
                    f"the safety checker refused the images of the seeds {', '.join(seeds)}; "
                    "choose another seed or prompt"
                )
        return [self.encode_png(image, spec) for image, spec in zip(images, job.specs, strict=True)]


def load_served_model(
    uri: str, *, registry: str | Path | None = None, limits: ServingLimits, safety_checker: Path | None = None
) -> ServedModel:
    """Load a model; an alias is resolved once, here.

    Args:
        uri: As for `hand1000.load_pipeline`.
        registry: As for `hand1000.load_pipeline`.
        limits: Bounds on requests and on the queue.
        safety_checker: Folder of a `StableDiffusionSafetyChecker`, which refuses images.

    Raises:
        Hand1000Error: There is no model at `uri`, or its files are missing or damaged.
    """
    from hand1000.registry.load import find_version, load_model_folder
    from hand1000.registry.versions import MODEL_DIGEST
    from hand1000.storage.digests import tree_manifest

    digest = None
    if uri.startswith("models:"):
        version = find_version(uri, registry=registry)
        uri, digest = version.uri, version.tags.get(MODEL_DIGEST)
    folder = load_model_folder(uri, registry=registry)
    return _load(folder, ModelInfo(uri, digest or tree_manifest(folder).digest), limits, safety_checker)


def load_logged_model(folder: Path, config: Mapping[str, Any]) -> ServedModel:
    """Load the model of a folder that MLflow logged or downloaded.

    Args:
        folder: Folder of the file `MLmodel`.
        config: MLflow's `model_config`: the folder `weights_dir`, and fields of `ServingLimits`.

    Raises:
        Hand1000Error: An unknown or invalid limit, or a missing or damaged file.
    """
    from hand1000.registry.load import MANIFEST, load_model_folder, read_manifest
    from hand1000.storage.digests import tree_manifest

    values = dict(config)
    weights = load_model_folder(str(folder / values.pop("weights_dir")))
    limits = validate_settings(ServingLimits, values, "model_config")
    manifest = folder / MANIFEST
    digest = (read_manifest(manifest) if manifest.is_file() else tree_manifest(weights)).digest
    model_id = (read_yaml(folder / "MLmodel") or {}).get("model_id")
    return _load(weights, ModelInfo(f"models:/{model_id}" if model_id else str(folder), digest), limits, None)


def _load(folder: Path, info: ModelInfo, limits: ServingLimits, safety_checker: Path | None) -> ServedModel:
    # These imports take seconds, so that they follow the check of the address.
    from hand1000.pipelines.pipeline_hand1000 import load_pipeline
    from hand1000.serving.safety import SafetyChecker

    checker = SafetyChecker(safety_checker) if safety_checker is not None else None
    return ServedModel(load_pipeline(folder), info, limits, checker)
