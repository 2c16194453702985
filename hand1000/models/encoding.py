"""Captions and prompts as text embeddings."""

import torch


def count_truncated(tokenizer, texts: list[str]) -> int:
    """How many texts are longer than the text encoder reads, so that their end is lost."""
    lengths = [len(ids) for ids in tokenizer(texts, truncation=False).input_ids] if texts else []
    return sum(length > tokenizer.model_max_length for length in lengths)


@torch.no_grad()
def encode_texts(text_encoder, tokenizer, texts: list[str], batch_size: int = 64) -> torch.Tensor:
    """The last hidden states e of `texts`, (N, L, D) on the text encoder's device.

    Every text is computed once: repeated captions, which data sets are full of, share their embedding.
    """
    unique = sorted(set(texts))
    ids = tokenizer(
        unique, padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
    ).input_ids.to(text_encoder.device)
    embeddings = torch.cat(
        [text_encoder(ids[start : start + batch_size]).last_hidden_state for start in range(0, len(ids), batch_size)]
    )
    place = {text: index for index, text in enumerate(unique)}
    return embeddings[[place[text] for text in texts]]
