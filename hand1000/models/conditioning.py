"""The text conditioning of a denoiser, of which only the tokens pass through the fusion."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Conditioning:
    """The text conditioning of B images.

    Attributes:
        tokens: Embeddings of the tokens, (B, L, D): e, g or h. Only these are fused and optimized. Those of a whole
            dataset may be `TensorRows` or `FusedEmbeddings`, of which only rows can be used.
        pooled: One vector per text, (B, P), for a backbone that takes one. It stays the caption's own, as a stock
            pipeline computes it, so that a model with the fusion folded in gets the same.
    """

    tokens: "torch.Tensor"
    pooled: "torch.Tensor | None" = None

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: "slice | Sequence[int] | torch.Tensor") -> Self:
        """The conditioning of the images at `rows`; an index alone would drop the batch's dimension."""
        return self.map(lambda tensor: tensor[rows])

    def map(self, function: "Callable[[torch.Tensor], torch.Tensor]") -> Self:
        """Apply a function to each tensor."""
        return type(self)(function(self.tokens), None if self.pooled is None else function(self.pooled))

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move or cast the tensors, with the arguments of `torch.Tensor.to`."""
        return self.map(lambda tensor: tensor.to(*args, **kwargs))

    def select(self, rows: "slice | Sequence[int]") -> Self:
        """The conditioning of the images at `rows`, whose tokens are read only when they are used."""
        from hand1000.storage.tensor_rows import select_rows

        return self.map(lambda tensor: select_rows(tensor, rows))

    def with_tokens(self, tokens: Any) -> Self:
        """Return the same conditioning with other tokens, (B, L, D)."""
        return replace(self, tokens=tokens)

    def expand(self, count: int) -> Self:
        """Repeat the conditioning of one image for `count` images."""
        return self.map(lambda tensor: tensor.expand(count, *tensor.shape[1:]))

    @classmethod
    def cat(cls, parts: "Sequence[Conditioning]") -> Self:
        """Join batches, in order."""
        import torch

        pooled = [part.pooled for part in parts if part.pooled is not None]
        return cls(torch.cat([part.tokens for part in parts]), torch.cat(pooled) if pooled else None)

    @classmethod
    def where(cls, chosen: "torch.Tensor", first: "Conditioning", second: "Conditioning") -> Self:
        """Take each image's conditioning from `first` where `chosen`, (B,) bool, and else from `second`."""
        import torch

        pooled = None
        if first.pooled is not None and second.pooled is not None:
            pooled = torch.where(chosen[:, None], first.pooled, second.pooled)
        return cls(torch.where(chosen[:, None, None], first.tokens, second.tokens), pooled)
