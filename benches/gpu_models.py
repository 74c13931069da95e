"""The models of `gpu.py`, built in place with random weights, and the items that they are asked with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

__all__ = ["MODELS", "Model"]


class Model(NamedTuple):
    """A model, and where its items come from."""

    name: str
    make: Callable[[], Any]
    item: Callable[[torch.Generator], Any]


class Ranker(nn.Module):  # type: ignore[misc, unused-ignore]
    """Layers that are over before the next is launched: (n, width) to (n, 1)."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for _ in range(layers):
            parts += [nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width)]
        self.layers = nn.Sequential(*parts, nn.Linear(width, 1))

    def forward(self, batch: Any) -> Any:
        return self.layers(batch)


class Encoder(nn.Module):  # type: ignore[misc, unused-ignore]
    """A transformer encoder of token numbers, (n, tokens) to (n, width)."""

    def __init__(self, width: int, layers: int, heads: int, tokens: int) -> None:
        super().__init__()
        self.words = nn.Embedding(1000, width)
        self.places = nn.Parameter(torch.randn(tokens, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, batch: Any) -> Any:
        return self.layers(self.words(batch) + self.places).mean(dim=1)


def _rows(width: int) -> Callable[[torch.Generator], Any]:
    return lambda seed: torch.randn(width, generator=seed).to(torch.bfloat16)


def _words(tokens: int) -> Callable[[torch.Generator], Any]:
    return lambda seed: torch.randint(0, 1000, (tokens,), generator=seed)


#: By size: for a GPU, and so small that a run on a CPU is over soon.
MODELS = {
    "cuda": [
        Model("small", lambda: Ranker(1024, 6), _rows(1024)),
        Model("medium", lambda: Encoder(512, 6, 8, 128), _words(128)),
        Model("large", lambda: Encoder(1280, 24, 20, 256), _words(256)),
    ],
    "cpu": [
        Model("small", lambda: Ranker(32, 2), _rows(32)),
        Model("medium", lambda: Encoder(16, 1, 2, 8), _words(8)),
        Model("large", lambda: Encoder(32, 2, 2, 16), _words(16)),
    ],
}
