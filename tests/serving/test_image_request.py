"""The check of a request's body: every fault is named with what is accepted, and nothing is ignored."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hand1000.config.sampler import CALL_FIELDS
from hand1000.config.serving import ServingLimits
from hand1000.gestures import gesture_phrase
from hand1000.serving.errors import InvalidRequestError
from hand1000.serving.image_request import ImageRequest, RequestParser
from tests.support.serving import GESTURES, PROMPTS
from tests.support.tiny_pipelines import pipeline_of

PARSER = RequestParser(pipeline_of(*GESTURES), ServingLimits(max_images=8, max_image_steps=3000, max_prompt_length=500))
PROMPT = PROMPTS["four"]
FIELDS = (*ImageRequest.model_fields, *CALL_FIELDS)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"steps": 5}, "^steps: unknown; did you mean num_inference_steps\\? accepted: prompt, gesture, seed"),
        ({"negative_prompt": "x"}, "^negative_prompt: unknown; .*accepted: prompt, gesture, seed"),
        ({"guidance": 2}, "did you mean guidance_scale"),
        ({"seed": None}, "^seed: null; give an integer, 0 to 2147483647, or leave the field out"),
        ({"mu": None}, "^mu: null; give a number, 0 to 1"),
        ({"seed": True}, "^seed: True is not accepted; give an integer"),
        ({"seed": -1}, "^seed: -1 is not accepted"),
        ({"seed": 2**31}, "^seed: 2147483648 is not accepted"),
        ({"num_inference_steps": 8.5}, "^num_inference_steps: 8.5 is not accepted; give an integer, 1 to 1000"),
        ({"num_inference_steps": True}, "^num_inference_steps: True is not accepted"),
        ({"num_inference_steps": 0}, "^num_inference_steps: 0 is not accepted"),
        ({"mu": "0.5"}, "^mu: '0.5' is not accepted; give a number, 0 to 1"),
        ({"mu": False}, "^mu: False is not accepted"),
        ({"guidance_scale": math.nan}, "^guidance_scale: nan is not accepted; give a number, 1 to 50"),
        ({"autoguidance_interval": [0.5, 0.5]}, "^autoguidance_interval: .*the lower first"),
        ({"autoguidance_interval": [0.5]}, "^autoguidance_interval: .*two ends"),
        ({"sampler": "euler"}, "^sampler: 'euler' is not accepted; give one of ddim, dpmpp_2m"),
        ({"autoguidance_scale": 2}, "^autoguidance_scale: 2.0 needs a guidance denoiser"),
        ({"gesture": "like"}, "^gesture 'like': this model knows four, ok only"),
        ({"gesture": "ok"}, "^prompt 'a red.*': lacks the phrase of the gesture; add 'making ok sign hand gesture'"),
        ({"num_images": 9}, "^num_images: 9 is not accepted; give an integer, 1 to 8"),
        ({"num_images": 4, "num_inference_steps": 1000}, "4000 steps; at most 3000 are accepted"),
        ({"prompt": "a hand"}, "contains the phrase of none of this model's gestures, four, ok"),
        ({"prompt": f"{PROMPT} and {PROMPTS['ok']}"}, "the phrase of four and of ok"),
        ({"prompt": 5}, "^prompt: 5 is not accepted; give a text of 1 to 500 characters"),
        ({"prompt": " "}, "^prompt: 1 characters; give a text of 1 to 500"),
        ({"prompt": "a" * 501}, "^prompt: 501 characters"),
        ({"prompt": f"{PROMPT}\0"}, "control code"),
        ({"prompt": f"\ud800 {PROMPT}"}, "half a character"),
        (
            {"prompt": "red " * 12 + PROMPT},
            "reads 14 tokens, which end before the phrase 'making four .*' does; shorten",
        ),
        ({"prompt": PROMPT + " red" * 12}, "reads 14 tokens, which leaves out the last .*; use fewer words"),
    ],
)
def test_fault_is_named_with_what_is_accepted(fields: dict, fault: str) -> None:
    with pytest.raises(InvalidRequestError, match=fault) as raised:
        PARSER.parse({"prompt": PROMPT, **fields})
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("body", [None, [], "prompt", 5, [{"prompt": PROMPT}]])
def test_a_body_that_is_no_object_is_rejected(body: object) -> None:
    with pytest.raises(InvalidRequestError, match="the body is not an object; send one with the fields prompt, "):
        PARSER.parse(body)
    with pytest.raises(InvalidRequestError, match="prompt: missing"):
        PARSER.parse({})


def test_a_short_request_gets_the_models_own_settings() -> None:
    first, second = PARSER.parse({"prompt": PROMPT, "seed": 2**31 - 1, "num_images": 2, "mu": 1})
    assert (first.gesture, first.seed, second.seed) == ("four", 2**31 - 1, 2**31)
    defaults = {name: value for name, value in pipeline_of(*GESTURES).sampler_settings() if name in CALL_FIELDS}
    assert dict(first.settings) == {**defaults, "mu": 1.0, "autoguidance_interval": (0.0, 1.0)}


def test_rows_share_parameters_and_count_the_seed_up() -> None:
    specs = PARSER.parse_rows([PROMPT, PROMPTS["ok"]], {"seed": 5, "eta": 0.25})
    assert [(spec.gesture, spec.seed) for spec in specs] == [("four", 5), ("ok", 6)]
    assert {dict(spec.settings)["eta"] for spec in specs} == {0.25}


@pytest.mark.parametrize(
    ("prompts", "params", "fault"),
    [
        ([PROMPT, "a hand"], {}, "^prompt 1 'a hand': contains the phrase of none"),
        ([PROMPT, None], {}, "^prompt 1: null"),
        ([PROMPT] * 9, {}, "^9 prompts; send 1 to 8"),
        ([], {}, "^0 prompts"),
        ([PROMPT], {"num_images": 2}, "^num_images: unknown"),
        ([PROMPT], {"prompt": "x"}, "^prompt: unknown"),
        ([PROMPT] * 4, {"num_inference_steps": 1000}, "4000 steps"),
    ],
)
def test_fault_of_a_row_or_parameter_is_named(prompts: list, params: dict, fault: str) -> None:
    with pytest.raises(InvalidRequestError, match=fault):
        PARSER.parse_rows(prompts, params)


def test_a_model_without_gestures_needs_no_phrase() -> None:
    from hand1000.pipelines.pipeline_hand1000 import build_pipeline
    from tests.support.tiny_models import tiny_base
    from tests.support.tiny_pipelines import SAMPLER

    parser = RequestParser(build_pipeline(tiny_base(), **SAMPLER), ServingLimits())
    assert parser.parse({"prompt": "a hand"})[0].gesture == ""
    with pytest.raises(InvalidRequestError, match="^gesture: 'four'; this model knows none"):
        parser.parse({"prompt": "a hand", "gesture": "four"})


def test_more_steps_than_the_noise_schedule_has_are_rejected() -> None:
    from diffusers import DDIMScheduler

    pipeline = pipeline_of(*GESTURES)
    pipeline.register_modules(scheduler=DDIMScheduler(num_train_timesteps=100))
    with pytest.raises(InvalidRequestError, match="num_inference_steps: 101 .*100 timesteps, so choose 1 to 100"):
        RequestParser(pipeline, ServingLimits()).parse({"prompt": PROMPT, "num_inference_steps": 101})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda items: st.lists(items, max_size=3) | st.dictionaries(st.text(max_size=10), items, max_size=3),
    max_leaves=5,
)
TEXTS = st.text(max_size=30).map(lambda text: f"{text} {PROMPT}") | st.text(max_size=600)
PLAUSIBLE = st.fixed_dictionaries(
    {"prompt": st.just(PROMPT) | TEXTS},
    optional={
        "gesture": st.sampled_from(["", "four", "ok", "like"]),
        "seed": st.integers(-2, 2**31),
        "num_images": st.integers(0, 9),
        "mu": st.floats(-0.5, 1.5) | st.integers(0, 1),
        "guidance_scale": st.floats(0, 60),
        "autoguidance_scale": st.floats(0.5, 2),
        "autoguidance_interval": st.lists(st.floats(-0.2, 1.2), max_size=3),
        "sampler": st.sampled_from(["ddim", "dpmpp_2m", "dpmpp_2m_sde", "unipc", "euler", ""]),
        "eta": st.floats(allow_nan=True),
        "num_inference_steps": st.integers(-1, 1100) | st.floats(1, 9),
    },
)


@settings(max_examples=400, deadline=None)
@given(JSON | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=8), JSON, max_size=6) | PLAUSIBLE)
def test_any_body_is_drawn_as_asked_or_refused_in_one_line(body: object) -> None:
    try:
        specs = PARSER.parse(body)
    except InvalidRequestError as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 800
        return
    assert isinstance(body, dict)
    assert len(specs) == body.get("num_images", 1)
    for index, spec in enumerate(specs):
        values = dict(spec.settings)
        assert spec.prompt == body["prompt"] and gesture_phrase(spec.gesture) in spec.prompt.lower()
        assert spec.seed == body.get("seed", 0) + index and 0 <= spec.seed < 2**31 + 8
        assert 0 <= values["mu"] <= 1 and 0 <= values["eta"] <= 1 and 1 <= values["guidance_scale"] <= 50
        for name in body.keys() & set(CALL_FIELDS):
            asked = body[name]
            assert type(asked) is not bool
            assert values[name] == (tuple(asked) if isinstance(asked, list) else asked)
