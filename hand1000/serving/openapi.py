"""The part of the OpenAPI document that FastAPI cannot derive: bodies that the model's own parser reads."""

from typing import Any

from hand1000.gestures import gesture_phrase
from hand1000.serving.model import ServedModel

_ERRORS = {
    400: "A field is unknown, missing or out of range; `error` names it and what is accepted.",
    406: "Neither PNG nor JSON is accepted.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    422: "The safety checker refused an image.",
    500: "The model failed.",
    503: "The queue is full or the server is stopping; try again after `Retry-After` seconds.",
    504: "The images were not finished in time.",
}


def describe_generate(model: ServedModel) -> dict[str, Any]:
    """Return the request, the answers and examples of `/generate` for this model."""
    prompt = ", ".join(["a hand", *map(gesture_phrase, model.parser.gestures[:1])])
    examples = {
        "short": {"summary": "The model's own settings", "value": {"prompt": prompt}},
        "full": {
            "summary": "Seed and settings",
            "value": {"prompt": prompt, "seed": 7, "num_inference_steps": 20, "eta": 0.0},
        },
        "several": {"summary": "Several images, in JSON", "value": {"prompt": prompt, "num_images": 4}},
    }
    body = model.parser.body_model.model_json_schema()
    error = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
    answer = {
        "type": "object",
        "properties": {
            "model": {"type": "string"},
            "model_digest": {"type": "string"},
            "prompt": {"type": "string"},
            "gesture": {"type": "string"},
            "settings": {"type": "object"},
            "images": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "seed": {"type": "integer"},
                        "image": {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png"},
                    },
                },
            },
        },
    }
    responses: dict[str, Any] = {
        "200": {
            "description": "The images; model, seed and settings are in headers and in the PNG's text fields, too.",
            "content": {
                "image/png": {"schema": {"type": "string", "format": "binary"}},
                "application/json": {"schema": answer},
            },
        }
    }
    for status, description in _ERRORS.items():
        responses[str(status)] = {"description": description, "content": {"application/json": {"schema": error}}}
    content = {"application/json": {"schema": body, "examples": examples}}
    return {"requestBody": {"required": True, "content": content}, "responses": responses}
