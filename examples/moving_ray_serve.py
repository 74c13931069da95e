"""Ray Serve's batching tutorial with one import changed; Ray itself is not needed.

The generator stands for a language model: it goes on with the words it has read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from carpool.compat import ray_serve as serve

TEXTS = [
    "Once upon a time,",
    "Hi my name is Lewis and I like to",
    "My name is Mary, and my favorite",
    "My name is Clara and I am",
    "My name is Julien and I like to",
    "Today I accidentally",
    "My greatest wish is to",
    "In a galaxy far far away",
    "My best talent is",
]


class BatchTextGenerator:
    def __init__(self) -> None:
        self.sizes: list[int] = []

    @serve.batch(max_batch_size=4, batch_wait_timeout_s=0)
    async def handle_batch(self, inputs: list[str]) -> list[str]:
        print("Our input array has length:", len(inputs))
        self.sizes.append(len(inputs))
        await asyncio.sleep(0.01)  # the model computes
        return [f"{text} {text.split()[0].lower()}" for text in inputs]

    async def __call__(self, text: str) -> str:
        result: str = await self.handle_batch(text)
        return result

    @serve.batch(max_batch_size=4, batch_wait_timeout_s=0.01)
    async def words(self, inputs: list[str]) -> AsyncIterator[list[object]]:
        texts = [text.split() for text in inputs]
        for step in range(max(map(len, texts))):
            yield [words[step] if step < len(words) else StopIteration for words in texts]


async def main() -> None:
    generator = BatchTextGenerator()
    results = await asyncio.gather(*map(generator, TEXTS))
    assert results == [f"{text} {text.split()[0].lower()}" for text in TEXTS]
    assert sum(generator.sizes) == len(TEXTS)
    assert len(generator.sizes) == 3

    async def told(text: str) -> str:
        return " ".join([str(word) async for word in generator.words(text)])

    assert await asyncio.gather(*map(told, TEXTS)) == TEXTS
    print("Result returned:", results)


if __name__ == "__main__":
    asyncio.run(main())
