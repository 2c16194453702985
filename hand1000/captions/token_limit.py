"""The text encoder's window: how much of a text it reads, and whether a gesture's phrase is within it."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from hand1000.core.errors import Hand1000Error
from hand1000.storage.pretrained import check_config, load_part

_MAX_PROMPT_LENGTH, _MAX_LISTED = 80, 5
"""Characters of a prompt that an error repeats, and file names that a message lists."""

_MIN_TOKENS = 3
"""Least length of a text in tokens: start, one word and end."""


@dataclass(frozen=True)
class TokenLimit:
    """How much text the text encoder reads.

    Attributes:
        count: Number of tokens of a text, with those that mark start and end.
        max_tokens: Number of tokens that the text encoder reads.
        marks: Number of tokens that mark start and end, such as those of a chat.
    """

    count: Callable[[str], int]
    max_tokens: int
    marks: int = 2

    @property
    def max_text_tokens(self) -> int:
        """Number of tokens that the text encoder reads of a text itself."""
        return self.max_tokens - self.marks

    @classmethod
    def of(cls, tokenizer: Any) -> Self:
        """Return the limit of a tokenizer whose `model_max_length` is that of its text encoder."""
        return cls(lambda text: len(tokenizer(text, verbose=False).input_ids), tokenizer.model_max_length)

    def fits(self, text: str) -> bool:
        """Whether the text encoder reads all of `text`."""
        return self.count(text) <= self.max_tokens


def load_tokenizer(folder: Path, source: str, suffix: str = "") -> Any:
    """Load a CLIPTokenizer of a diffusers folder, limited to the positions of the text encoder beside it.

    Args:
        folder: The diffusers folder.
        source: What errors name.
        suffix: "_2" for the second tokenizer and text encoder of a model with several.

    Raises:
        Hand1000Error: A file is missing or is not a tokenizer's; or the tokenizer is not one of the text encoder: it
            has other tokens than that reads, or does not mark start and end.
    """
    from transformers import CLIPTokenizer

    path = folder / f"text_encoder{suffix}" / "config.json"
    config = check_config(path)
    positions, words = (config.get(name) for name in ("max_position_embeddings", "vocab_size"))
    if not isinstance(positions, int) or not isinstance(words, int) or positions < _MIN_TOKENS:
        raise Hand1000Error(f"{path}: max_position_embeddings and vocab_size are not those of a text encoder")
    tokenizer = load_part(CLIPTokenizer, folder / f"tokenizer{suffix}", "a tokenizer of CLIP")
    length = tokenizer.model_max_length
    if not isinstance(length, int | float) or not length >= _MIN_TOKENS:
        raise Hand1000Error(f"{source}: the tokenizer's model_max_length is {length!r:.40}, not a number of tokens")
    tokenizer.model_max_length = min(length, positions)
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= words:
        raise Hand1000Error(
            f"{source}: the tokenizer has token {largest}, but the text encoder reads {words} tokens; restore the "
            "tokenizer of this text encoder"
        )
    start, end, padding = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    token_ids = tokenizer("a hand", verbose=False).input_ids
    if None in (start, end, padding) or len(token_ids) < _MIN_TOKENS or token_ids[:1] + token_ids[-1:] != [start, end]:
        raise Hand1000Error(f"{source}: the tokenizer does not mark start and end; restore the tokenizer of CLIP")
    return tokenizer


def fit_caption(text: str, phrase: str, limit: TokenLimit) -> str:
    """Return `text` without as many whole words as exceed `limit`, and with `phrase`.

    The words before the phrase go first, from the last one on, then those after it. A text that fits stays as it is.

    Args:
        text: A caption; one without the phrase loses its last words.
        phrase: The phrase to keep, as it is spelled in the text.
        limit: How much the text encoder reads.

    Raises:
        Hand1000Error: The phrase alone is longer than the text encoder reads.
    """
    if limit.fits(text):
        return text
    before, found, after = text.partition(phrase)

    def keep_words(words: Sequence[str], build: Callable[[Sequence[str]], str]) -> str:
        too_many = bisect_left(range(1, len(words)), True, key=lambda count: not limit.fits(build(words[:count])))
        return build(words[:too_many])

    def with_words_before(words: Sequence[str]) -> str:
        return ", ".join(part for part in (" ".join(words).rstrip(" ,;"), found) if part) + after

    if limit.fits(with_words_before([])):
        return keep_words(before.rstrip(" ,").split(), with_words_before)
    if not limit.fits(found):
        raise Hand1000Error(
            f"the phrase {phrase!r} has {limit.count(found)} tokens, with those of start and end, of which the text "
            f"encoder reads {limit.max_tokens}; choose another base model"
        )
    return keep_words(after.split(), lambda words: " ".join([found, *words]))


def describe_shortened(names: Sequence[str], count: int, max_tokens: int) -> str:
    """Describe in one line that of `count` captions those of the files `names` were shortened."""
    listed = ", ".join(names[:_MAX_LISTED]) + (", ..." if len(names) > _MAX_LISTED else "")
    return (
        f"{len(names)} of {count} captions were shortened before the gesture's phrase to the {max_tokens} tokens that "
        f"the text encoder reads: {listed}"
    )


def check_prompt(prompt: str, phrase: str, limit: TokenLimit, *, need_phrase: bool = False) -> int:
    """Check that the text encoder reads the phrase of the gesture in a prompt.

    Args:
        prompt: The prompt, which is never shortened.
        phrase: Phrase of the gesture, in upper or lower case; "" checks nothing.
        limit: How much the text encoder reads.
        need_phrase: Whether the prompt must have the phrase.

    Returns:
        The number of tokens at the end of the prompt that the text encoder does not read.

    Raises:
        Hand1000Error: The phrase is missing though needed, or begins or ends beyond the text encoder's window.
    """
    text = " ".join(prompt.split())
    start = text if len(text) <= _MAX_PROMPT_LENGTH else f"{text[:_MAX_PROMPT_LENGTH]}..."
    before, found, _ = text.lower().partition(phrase) if phrase else ("", "", "")
    if phrase and not found and need_phrase:
        raise Hand1000Error(f"prompt {start!r}: lacks the phrase of the gesture; add {phrase!r}")
    if found and (excess := limit.count(before + found) - limit.max_tokens) > 0:
        raise Hand1000Error(
            f"prompt {start!r}: the text encoder reads {limit.max_text_tokens} tokens, which end before the phrase "
            f"{phrase!r} does; shorten the words before the phrase by {excess} tokens or more"
        )
    return max(0, limit.count(text) - limit.max_tokens)
