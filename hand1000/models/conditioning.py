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
        lengths: Number of tokens of each text, (B,) int64, for a backbone that does not read those after them.
    """

    tokens: "torch.Tensor"
    pooled: "torch.Tensor | None" = None
    lengths: "torch.Tensor | None" = None

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: "slice | Sequence[int] | torch.Tensor") -> Self:
        """The conditioning of the images at `rows`; an index alone would drop the batch's dimension."""
        return self.map(lambda tensor: tensor[rows])

    def map(self, function: "Callable[[torch.Tensor], torch.Tensor]") -> Self:
        """Apply a function to each tensor."""
        values: list[Any] = [None if value is None else function(value) for value in vars(self).values()]
        return type(self)(*values)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move or cast the tensors, with the arguments of `torch.Tensor.to`; the lengths keep their type."""
        moved = self.map(lambda tensor: tensor.to(*args, **kwargs))
        if self.lengths is None:
            return moved
        return replace(moved, lengths=self.lengths.to(moved.tokens.device, copy=bool(kwargs.get("copy"))))

    def tensors(self) -> "list[torch.Tensor]":
        """All tensors, in order."""
        return [value for value in vars(self).values() if value is not None]

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

        columns = zip(*(vars(part).values() for part in parts), strict=True)
        values: list[Any] = [None if column[0] is None else torch.cat(column) for column in columns]
        return cls(*values)

    @classmethod
    def where(cls, chosen: "torch.Tensor", first: "Conditioning", second: "Conditioning") -> Self:
        """Take each image's conditioning from `first` where `chosen`, (B,) bool, and else from `second`."""
        import torch

        def mix(value: "torch.Tensor | None", other: "torch.Tensor | None") -> Any:
            if value is None or other is None:
                return None
            return torch.where(chosen.reshape(-1, *[1] * (value.ndim - 1)), value, other)

        return cls(*map(mix, vars(first).values(), vars(second).values()))
