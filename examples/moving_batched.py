"""Code written for the library `batched`, with one import changed.

The embedder stands for a sentence transformer: it makes a vector of each sentence.
"""

from __future__ import annotations

import asyncio

import numpy as np
from numpy.typing import NDArray

from carpool.compat import batched
from carpool.compat.batched import aio, inference

Vector = NDArray[np.float32]


class SentenceEmbedder:
    def __init__(self, size: int = 8) -> None:
        self.size = size
        self.batches = 0

    @batched.dynamically
    def embed_sentences(self, sentences: list[str]) -> list[Vector]:
        self.batches += 1
        return [self.encode(sentence) for sentence in sentences]

    def encode(self, sentence: str) -> Vector:
        vector = np.zeros(self.size, dtype=np.float32)
        for letter in sentence:
            vector[ord(letter) % self.size] += 1
        return vector


@batched.dynamically(batch_size=64)
def my_function(items: list[int]) -> list[str]:
    return [f"{item * 2}" for item in items]


@inference.dynamically(pad_token={"input_ids": 0})
def my_inference_function(features: dict[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    logits: NDArray[np.int64] = features["input_ids"].sum(axis=1)
    return logits


@aio.dynamically(batch_size=64, timeout_ms=20.0, small_batch_threshold=10)
def my_async_function(items: list[int]) -> list[int]:
    return [item * 2 for item in items]


@aio.inference.dynamically(pad_token={"input_ids": 0})
async def my_async_inference_function(
    features: dict[str, NDArray[np.int64]],
) -> list[NDArray[np.int64]]:
    return [features["input_ids"].sum(axis=1), features["input_ids"].max(axis=1)]


async def main() -> None:
    embedder = SentenceEmbedder()
    single_sent = "This is a test sentence."
    embedding = embedder.embed_sentences(single_sent)
    awaited_embedding = await embedder.embed_sentences.acall(single_sent)
    assert embedding.tolist() == awaited_embedding.tolist()

    batch_sentences = [f"This is test sentence number {i}." for i in range(1000)]
    batch_embeddings = embedder.embed_sentences(batch_sentences)
    awaited_batch_embeddings = await embedder.embed_sentences.acall(batch_sentences)
    assert len(batch_embeddings) == len(awaited_batch_embeddings) == 1000
    assert embedder.batches < 100
    print(embedder.embed_sentences.stats)

    assert my_function(2) == "4"
    assert my_function([2, 3, 4]) == ["4", "6", "8"]
    assert await my_function.acall(2) == "4"
    assert await my_function.acall([2, 3, 4]) == ["4", "6", "8"]
    print(my_function.stats)

    data = {"input_ids": [np.array([1, 2]), np.array([3, 4, 5])]}
    print(my_inference_function(data), await my_inference_function.acall(data))

    assert await my_async_function(2) == 4
    assert await my_async_function([2, 3, 4]) == [4, 6, 8]
    print(my_async_function.stats)

    totals, largest = await my_async_inference_function(data)
    print(totals, largest, my_async_inference_function.stats)


if __name__ == "__main__":
    asyncio.run(main())
