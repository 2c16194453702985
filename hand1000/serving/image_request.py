"""A request for images: its fields, and the check that says in one line what is wrong with one."""

import copy
import threading
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from hand1000.captions.token_limit import check_prompt
from hand1000.config.sampler import CALL_FIELDS, SamplerSettings, describe_range
from hand1000.config.serving import ServingLimits
from hand1000.core.errors import Hand1000Error
from hand1000.gestures import find_gesture_in_prompt, gesture_phrase
from hand1000.serving.errors import InvalidRequestError

if TYPE_CHECKING:
    from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline

MAX_SEED = 2**31 - 1
_MAX_VALUE_LENGTH = 60


class ImageRequest(BaseModel):
    """Body of a request. The class of a loaded model adds `SamplerSettings`' fields with the model's own defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    prompt: str = Field(description="What to draw, with the phrase of the gesture.")
    gesture: str = Field("", description="HaGRID's name of the gesture; by default inferred from the prompt's phrase.")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="Random seed of the first image; each next image adds 1.")
    num_images: int = Field(1, ge=1, description="Number of images.")


@dataclass(frozen=True)
class ImageSpec:
    """All that an image depends on.

    Attributes:
        prompt: The prompt.
        gesture: The gesture; "" for a model that knows none.
        seed: Random seed, 0 to 2^63 - 1.
        settings: Names and values of the sampler's settings; images of equal settings can share a batch.
    """

    prompt: str
    gesture: str
    seed: int
    settings: tuple[tuple[str, Any], ...]

    @property
    def num_inference_steps(self) -> int:
        """Number of sampling steps."""
        return int(dict(self.settings)["num_inference_steps"])


class RequestParser:
    """The check of requests to one model; safe to use from several threads.

    Attributes:
        body_model: The class of `ImageRequest` with the model's own defaults, for the OpenAPI document.
        gestures: The gestures that the model knows.
    """

    def __init__(self, pipeline: "Hand1000Pipeline", limits: ServingLimits) -> None:
        self.limits = limits
        self.gestures: tuple[str, ...] = tuple(pipeline.fusion.gestures) if pipeline.fusion is not None else ()
        self._has_guidance = pipeline.guidance_denoiser is not None
        self._defaults = pipeline.sampler_settings()
        self._schedule = pipeline.backbone.schedule
        # A tokenizer changes while it is used, and the pipeline uses its own in another thread.
        self._token_limit = pipeline.backbone.limit_of(copy.deepcopy(pipeline.tokenizer))
        self._tokenizer_lock = threading.Lock()
        self.body_model = _make_body_model(self._defaults, limits)

    def parse(self, values: object) -> list[ImageSpec]:
        """Check a request's body and return its images.

        Raises:
            InvalidRequestError: Names the field at fault and what is accepted.
        """
        if not isinstance(values, Mapping):
            raise InvalidRequestError(f"the body is not an object; send one with the fields {', '.join(self._fields)}")
        for name, value in values.items():
            if name not in self._fields:
                raise InvalidRequestError(self._describe_unknown(str(name), self._fields))
            if value is None:
                raise InvalidRequestError(f"{name}: null; give {self._describe(name)}, or leave the field out")
        try:
            request = self.body_model.model_validate(dict(values))
        except ValidationError as error:
            raise InvalidRequestError(self._describe_fault(error)) from error
        return self._plan(request)

    def parse_rows(self, prompts: Sequence[object], params: Mapping[str, object]) -> list[ImageSpec]:
        """Check one image per prompt, the seeds from `params["seed"]` upward; further values are those of a body.

        Raises:
            InvalidRequestError: Names the row, or the parameter, at fault and what is accepted.
        """
        accepted = [name for name in self._fields if name not in ("prompt", "num_images")]
        for name in params:
            if name not in accepted:
                raise InvalidRequestError(self._describe_unknown(str(name), accepted))
        if not 1 <= len(prompts) <= self.limits.max_images:
            raise InvalidRequestError(f"{len(prompts)} prompts; send 1 to {self.limits.max_images} per request")
        specs: list[ImageSpec] = []
        for row, prompt in enumerate(prompts):
            try:
                (spec,) = self.parse({"prompt": prompt, **params})
            except InvalidRequestError as error:
                text = str(error)
                raise InvalidRequestError(f"prompt {row}{text[6:]}" if text.startswith("prompt") else text) from error
            specs.append(ImageSpec(spec.prompt, spec.gesture, spec.seed + row, spec.settings))
        self._check_work(len(specs), specs[0].num_inference_steps)
        return specs

    @property
    def _fields(self) -> list[str]:
        return list(self.body_model.model_fields)

    def _plan(self, request: ImageRequest) -> list[ImageSpec]:
        values = {name: getattr(request, name) for name in CALL_FIELDS}
        try:
            # The body's class has checked all but the order of the interval and the length of the noise schedule.
            settings = self._defaults.with_call_values(**values)
            self._schedule.start_sampling(settings.sampler, settings.num_inference_steps, settings.eta)
        except Hand1000Error as error:
            raise InvalidRequestError(str(error)) from error
        if settings.autoguidance_scale > 1 and not self._has_guidance:
            raise InvalidRequestError(
                f"autoguidance_scale: {settings.autoguidance_scale} needs a guidance denoiser; this model has none, "
                "give 1"
            )
        self._check_work(request.num_images, settings.num_inference_steps)
        self._check_text(request.prompt)
        gesture = self._find_gesture(request.prompt, request.gesture)
        self._check_window(request.prompt, gesture)
        key = tuple((name, _hashable(getattr(settings, name))) for name in CALL_FIELDS)
        return [ImageSpec(request.prompt, gesture, request.seed + index, key) for index in range(request.num_images)]

    def _check_work(self, images: int, steps: int) -> None:
        if images * steps > self.limits.max_image_steps:
            raise InvalidRequestError(
                f"num_inference_steps: {steps} for {images} images are {images * steps} steps; "
                f"at most {self.limits.max_image_steps} are accepted per request"
            )

    def _find_gesture(self, prompt: str, gesture: str) -> str:
        if not self.gestures:
            if gesture:
                raise InvalidRequestError(f"gesture: {gesture!r}; this model knows none, leave the field out")
            return ""
        if gesture and gesture not in self.gestures:
            raise InvalidRequestError(
                f"gesture {gesture!r}: this model knows {', '.join(self.gestures)} only; give one of them"
            )
        try:
            return gesture or find_gesture_in_prompt(prompt, self.gestures)
        except Hand1000Error as error:
            raise InvalidRequestError(str(error)) from error

    def _check_text(self, prompt: str) -> None:
        if not prompt.strip() or len(prompt) > self.limits.max_prompt_length:
            raise InvalidRequestError(
                f"prompt: {len(prompt)} characters; give a text of 1 to {self.limits.max_prompt_length} characters"
            )
        # Neither the tokenizer nor a PNG can hold half a character or a control code.
        if any(unicodedata.category(character) in ("Cc", "Cs") and not character.isspace() for character in prompt):
            raise InvalidRequestError("prompt: contains a control code or half a character; give plain text")

    def _check_window(self, prompt: str, gesture: str) -> None:
        """Check that the text encoder reads the whole prompt, and in it the phrase of the gesture."""
        phrase = gesture_phrase(gesture) if gesture else ""
        try:
            with self._tokenizer_lock:
                unread = check_prompt(prompt, phrase, self._token_limit, need_phrase=True)
        except Hand1000Error as error:
            raise InvalidRequestError(str(error)) from error
        if unread:
            raise InvalidRequestError(
                f"prompt: the text encoder reads {self._token_limit.max_text_tokens} tokens, which leaves out the last "
                f"{unread}; use fewer words"
            )

    def _describe_unknown(self, name: str, accepted: Sequence[str]) -> str:
        # "steps" is part of a field's name, other slips are close to one.
        near = [field for field in accepted if name and name in field] or get_close_matches(name, accepted, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        text = name[:_MAX_VALUE_LENGTH] if name.isprintable() else repr(name[:_MAX_VALUE_LENGTH])
        return f"{text}: unknown; {hint}accepted: {', '.join(accepted)}"

    def _describe_fault(self, error: ValidationError) -> str:
        first = error.errors()[0]
        name = str(first["loc"][0])
        if first["type"] == "missing":
            return f"{name}: missing; give {self._describe(name)}"
        value = repr(first["input"])
        value = value if len(value) <= _MAX_VALUE_LENGTH else f"{value[:_MAX_VALUE_LENGTH]}..."
        return f"{name}: {value} is not accepted; give {self._describe(name)}"

    def _describe(self, name: str) -> str:
        """Say what a field accepts."""
        if name in CALL_FIELDS:
            kinds = {"num_inference_steps": "an integer, ", "autoguidance_interval": "", "sampler": ""}
            kind = kinds.get(name, "a number, ")
            return f"{kind}{describe_range(name)}"
        return {
            "prompt": f"a text of 1 to {self.limits.max_prompt_length} characters",
            "gesture": f"one of {', '.join(self.gestures)}"
            if self.gestures
            else "no value, this model knows no gesture",
            "seed": f"an integer, 0 to {MAX_SEED}",
            "num_images": f"an integer, 1 to {self.limits.max_images}",
        }[name]


def _make_body_model(defaults: SamplerSettings, limits: ServingLimits) -> type[ImageRequest]:
    """Return the body's class of a model, whose defaults and limits the OpenAPI document states."""
    fields: dict[str, Any] = {
        "prompt": (str, Field(description=ImageRequest.model_fields["prompt"].description)),
        "num_images": (
            int,
            Field(1, ge=1, le=limits.max_images, description=ImageRequest.model_fields["num_images"].description),
        ),
    }
    for name in CALL_FIELDS:
        info = SamplerSettings.model_fields[name]
        annotation = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
        fields[name] = (annotation, Field(getattr(defaults, name), description=info.description))
    return create_model("GenerateBody", __base__=ImageRequest, **fields)


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
