"""The tokenizer of a language model that reads a prompt as the message of a user, such as Qwen3 in Z-Image."""

from pathlib import Path
from typing import Any

from hand1000.captions.token_limit import TokenLimit, load_tokenizer
from hand1000.core.errors import Hand1000Error, translate_load_errors
from hand1000.storage.pretrained import check_config, load_part

CHAT_TOKENS = 512
"""Tokens that are read of a chat: `max_sequence_length` of Z-Image's stock pipeline."""

_KIND = "a tokenizer of Qwen"
_FILES = ("tokenizer.json", "vocab.json")
"""Files with the words of Qwen, of which a tokenizer needs one."""

_PROBE = "a hand"


def render_chat(tokenizer: Any, text: str) -> str:
    """Return a prompt as a chat, after which the model would begin to think, as the stock pipeline reads it."""
    chat: str = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True, enable_thinking=True
    )
    return chat


def tokenize_chat(tokenizer: Any, text: str) -> list[int]:
    """Return the token ids of a prompt as a chat, cut at `CHAT_TOKENS` as the stock pipeline cuts them."""
    ids: list[int] = tokenizer(render_chat(tokenizer, text), verbose=False).input_ids
    return ids[:CHAT_TOKENS]


def chat_limit(tokenizer: Any) -> TokenLimit:
    """Return how much of a prompt is read as a chat."""

    def count(text: str) -> int:
        return len(tokenizer(render_chat(tokenizer, text), verbose=False).input_ids)

    return TokenLimit(count, CHAT_TOKENS, count(_PROBE) - len(tokenizer(_PROBE, verbose=False).input_ids))


def load_chat_tokenizer(path: Path, source: str) -> Any:
    """Load a Qwen2Tokenizer, which Qwen3 has too, with its chat template.

    Args:
        path: Folder of the tokenizer.
        source: What errors name.

    Raises:
        Hand1000Error: A file is missing or is not a tokenizer's, or the chat template does not hold a prompt.
    """
    from transformers import Qwen2Tokenizer

    # Without a file transformers makes a tokenizer that knows no word.
    if not any((path / file).is_file() for file in _FILES):
        raise Hand1000Error(f"{path}: cannot be loaded as {_KIND}: no {' or '.join(_FILES)}; restore it from a copy")
    tokenizer = load_part(Qwen2Tokenizer, path, _KIND)
    with translate_load_errors(str(path), _KIND):
        chat = render_chat(tokenizer, _PROBE)
    if _PROBE not in chat or chat_limit(tokenizer).max_text_tokens < 1:
        raise Hand1000Error(f"{source}: the tokenizer's chat template does not hold a prompt; restore the tokenizer")
    return tokenizer


def load_token_limit(folder: Path, source: str) -> TokenLimit:
    """Return how much of a text is read by the first text encoder of a diffusers folder, of CLIP or of Qwen3.

    Args:
        folder: The diffusers folder.
        source: What errors name.

    Raises:
        Hand1000Error: A file is missing or malformed.
    """
    config = check_config(folder / "text_encoder" / "config.json")
    if config.get("model_type") == "qwen3":
        return chat_limit(load_chat_tokenizer(folder / "tokenizer", source))
    return TokenLimit.of(load_tokenizer(folder, source))
