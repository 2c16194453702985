"""The tokenizer of the small base model."""

from hand1000.models.small_base import build_tokenizer

CAPTIONS = ["a red hand", "a blue wall", "a hand"]


def test_tokenizer_is_reproducible_and_reads_any_text() -> None:
    """The library's own trainer numbers tokens by chance: a resumed training would have read other words."""
    import subprocess
    import sys

    code = (
        "from hand1000.models.small_base import build_tokenizer;"
        f"print(sorted(build_tokenizer({CAPTIONS!r}).get_vocab().items()))"
    )
    runs = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(2)}
    assert len(runs) == 1 and "hand</w>" in runs.pop()
    tokenizer = build_tokenizer(CAPTIONS)
    assert len(tokenizer("a red hand").input_ids) == 5
    assert tokenizer.decode(tokenizer("a zebra, é!").input_ids, skip_special_tokens=True).startswith("a zebra")
    assert len(tokenizer("word " * 100, truncation=True).input_ids) == tokenizer.model_max_length == 48
