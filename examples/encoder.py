"""A transformer's encoder: callers bring token ids of any length, the model sees padded batches.

The model is built here, with random weights; one from a library takes its place as it is.
"""

from __future__ import annotations

import asyncio

import torch

from carpool import batched
from carpool.collate import Pad


class Encoder(torch.nn.Module):  # type: ignore[misc]  # torch is not read by the checker
    """Token ids and their mask to one vector per text."""

    def __init__(self, words: int = 1000, width: int = 64) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(words, width, padding_idx=0)
        layer = torch.nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True)
        self.layers = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden = self.layers(self.embed(input_ids), src_key_padding_mask=attention_mask == 0)
        mask = attention_mask.unsqueeze(-1)
        return (hidden * mask).sum(1) / mask.sum(1)


torch.manual_seed(0)
model = Encoder().eval()


@batched(
    max_batch_size=32,
    wait_ms=2,
    collate=Pad({"input_ids": 0}, mask="attention_mask", multiple_of=8, max_length=512),
    context=torch.inference_mode,
)
def encode(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(batch["input_ids"], batch["attention_mask"])


async def main() -> None:
    texts = [torch.randint(1, 1000, (int(length),)) for length in torch.randint(3, 60, (100,))]
    vectors = await asyncio.gather(*(encode.acall({"input_ids": text}) for text in texts))
    with torch.inference_mode():
        for text, vector in zip(texts[:10], vectors, strict=False):
            alone = model(text[None], torch.ones(1, len(text), dtype=torch.int64))[0]
            assert torch.allclose(alone, vector, atol=1e-4)
    stats = encode.stats
    print(f"{stats.answered} texts in {stats.batches} batches, {stats.padding:.0%} padding")
    await encode.aclose()


if __name__ == "__main__":
    asyncio.run(main())
