"""Language models that complete captions: behind an OpenAI-compatible endpoint, or loaded by transformers."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, Protocol

from hand1000.config.caption_settings import CompletionSettings
from hand1000.core.devices import best_device
from hand1000.core.errors import Hand1000Error, one_line, translate_load_errors
from hand1000.storage.hub import fetch_model_folder, model_identity
from hand1000.storage.pretrained import check_vocabulary, load_model, load_part

MAX_NEW_TOKENS = 160
"""Most tokens of an answer. A caption has at most 77 tokens of another tokenizer, so a longer answer is refused."""

_TIMEOUT_SECONDS = 60
_MAX_RETRIES = 4
_CONCURRENCY = 8

Message = dict[str, str]
"""One message of a chat: its `role` and `content`."""


class Writer(Protocol):
    """A language model that answers chats."""

    name: str
    """Name of the model with its revision."""

    def answer(self, chats: Sequence[Sequence[Message]], attempt: int) -> list[str]:
        """Return one answer per chat, in their order; `attempt` counts from 0 and rises when an answer is refused."""


def load_writer(settings: CompletionSettings, endpoint_key: str = "") -> Writer | None:
    """Return the writer that `settings` name, or None to complete by the rule."""
    if settings.writer == "endpoint":
        return EndpointWriter(settings.url, settings.model, endpoint_key)
    return LocalWriter(settings.source) if settings.writer == "local" else None


class EndpointWriter:
    """Any server that speaks OpenAI's `/v1/chat/completions`: vLLM, llama.cpp, Ollama, `transformers serve`.

    Args:
        url: Address of the server, such as `http://localhost:8000/v1`.
        model: The server's name of the model.
        key: Bearer token; empty sends none. It appears in no log, error or name.
    """

    def __init__(self, url: str, model: str, key: str = "") -> None:
        if not url.startswith(("http://", "https://")):
            raise Hand1000Error(f"{url}: not the address of a chat endpoint; give http://... or https://...")
        self.url, self.model, self._key = url.rstrip("/"), model, key
        self.name = f"{model} at an endpoint"

    @cached_property
    def _session(self) -> Any:
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3.util import Retry

        session = requests.Session()
        retry = Retry(
            _MAX_RETRIES,
            backoff_factor=0.5,
            status_forcelist=(429, 500, 502, 503, 504),
            allowed_methods=None,
            raise_on_status=False,
        )
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=retry, pool_maxsize=_CONCURRENCY))
        if self._key:
            session.headers["Authorization"] = f"Bearer {self._key}"
        return session

    def answer(self, chats: Sequence[Sequence[Message]], attempt: int) -> list[str]:
        """Return one answer per chat, in their order.

        Raises:
            Hand1000Error: The server cannot be reached, refuses, or answers something else.
        """
        with ThreadPoolExecutor(_CONCURRENCY) as pool:
            return list(pool.map(lambda chat: self._answer_chat(chat, attempt), chats))

    def _answer_chat(self, chat: Sequence[Message], attempt: int) -> str:
        import requests

        # A second attempt needs another seed and temperature, or it returns the first answer again.
        body = {
            "model": self.model,
            "messages": list(chat),
            "max_tokens": MAX_NEW_TOKENS,
            "seed": attempt,
            "temperature": 0.3 * attempt,
        }
        try:
            response = self._session.post(f"{self.url}/chat/completions", json=body, timeout=_TIMEOUT_SECONDS)
            if not response.ok:
                raise Hand1000Error(f"{self.url}: answered {response.status_code}: {one_line(response.text)[:200]}")
            return str(response.json()["choices"][0]["message"]["content"] or "")
        except requests.JSONDecodeError as error:
            raise Hand1000Error(f"{self.url}: not the answer of a chat endpoint") from error
        except requests.RequestException as error:
            raise Hand1000Error(f"{self.url}: cannot be reached: {one_line(error)[:200]}") from error
        except (KeyError, IndexError, TypeError) as error:
            raise Hand1000Error(f"{self.url}: not the answer of a chat endpoint: {error!r} is missing") from error


class LocalWriter:
    """A chat model of transformers (LLaMA 3 in the paper) whose first attempt decodes greedily."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.name = model_identity(source)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        device = best_device()
        dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
        folder = fetch_model_folder(self.source)
        tokenizer = load_part(AutoTokenizer, folder, "a chat model's tokenizer", padding_side="left")
        model = load_model(AutoModelForCausalLM, folder, "a chat model", dtype=dtype)
        check_vocabulary(tokenizer, model.get_input_embeddings(), self.source)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer, model.to(device)

    def answer(self, chats: Sequence[Sequence[Message]], attempt: int) -> list[str]:
        """Return one answer per chat of a batch, in their order; attempts after the first sample."""
        import torch

        tokenizer, model = self._loaded
        # The template of the chats comes with the model.
        with translate_load_errors(self.source, "a chat model"):
            inputs = tokenizer.apply_chat_template(
                [list(chat) for chat in chats],
                add_generation_prompt=True,
                padding=True,
                return_dict=True,
                return_tensors="pt",
            ).to(model.device)
        options: dict[str, Any] = {"do_sample": False}
        if attempt:
            torch.manual_seed(attempt)
            options = {"do_sample": True, "temperature": 0.3 * attempt}
        with torch.inference_mode():
            tokens = model.generate(
                **inputs, max_new_tokens=MAX_NEW_TOKENS, pad_token_id=tokenizer.pad_token_id, **options
            )
        new = tokens[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]
