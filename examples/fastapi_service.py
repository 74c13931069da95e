"""A web service whose concurrent requests share one call of the model.

Serve it with `uvicorn fastapi_service:app`. Run as a script it asks itself, in this process, on
behalf of fifty clients at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from carpool import QueueFull, batched


@batched(max_batch_size=16, wait_ms=5, max_queue=1_000)
def count_words(texts: list[str]) -> list[int]:
    """Stands for a model: what costs time here costs it once per batch."""
    return [len(text.split()) for text in texts]


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with count_words:  # on the way out: answer what was accepted, then close
        yield


app = FastAPI(lifespan=lifespan)


class Text(BaseModel):
    text: str


@app.post("/words")
async def words(body: Text) -> dict[str, int]:
    try:
        return {"words": await count_words.acall(body.text)}
    except QueueFull as full:
        raise HTTPException(503, str(full), headers={"Retry-After": "1"}) from full


@app.get("/stats")
def stats() -> dict[str, float]:
    now = count_words.stats
    return {"answered": now.answered, "batches": now.batches, "mean_size": now.batch_sizes.mean}


async def main() -> None:
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service") as client,
    ):
        replies = await asyncio.gather(
            *(client.post("/words", json={"text": "word " * n}) for n in range(50))
        )
        assert [reply.json()["words"] for reply in replies] == list(range(50))
        print((await client.get("/stats")).json())


if __name__ == "__main__":
    asyncio.run(main())
