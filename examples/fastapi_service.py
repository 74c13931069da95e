"""A web service whose concurrent requests share one call of the model.

Batches form from requests that arrive together; a client that hangs up takes its request along; when there are more
than the model can take, clients are told so, and when to come back.

Serve it with `uvicorn fastapi_service:app`. Run as a script it asks itself, in this process, on behalf of fifty
clients at once.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel

from carpool import STOP, BatcherClosed, DeadlineExceeded, QueueFull, batched

T = TypeVar("T")


class Model:
    """Stands for a model: what costs time here costs it once per batch."""

    def count(self, texts: list[str]) -> list[int]:
        return [len(text.split()) for text in texts]


model = Model()


@batched(max_batch_size=16, wait_ms=5, max_queue=64, timeout_ms=2_000)
def count_words(texts: list[str]) -> list[int]:
    return model.count(texts)


@batched(max_batch_size=16, wait_ms=5, max_queue=64)
def repeat_words(texts: list[str]) -> Iterator[list[Any]]:
    """A word per step, as a language model would give tokens."""
    words = [text.split() for text in texts]
    for step in range(max(map(len, words), default=0)):
        yield [row[step] if step < len(row) else STOP for row in words]


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with count_words, repeat_words:  # on the way out: answer what was accepted, then close
        yield


app = FastAPI(lifespan=lifespan)


def busy(request: Request, status: int, error: Exception) -> JSONResponse:
    """Too much to do, and when there may be less: after the batches that are pending now."""
    stats = (repeat_words if request.url.path == "/repeat" else count_words).stats
    batches = stats.pending / 16 + 1
    seconds = max(1, math.ceil(batches * stats.run_ms.mean / 1e3))
    return JSONResponse({"detail": str(error)}, status, headers={"Retry-After": str(seconds)})


@app.exception_handler(QueueFull)
async def too_many(request: Request, error: Exception) -> Response:
    return busy(request, 429, error)


@app.exception_handler(DeadlineExceeded)
@app.exception_handler(BatcherClosed)
async def too_late(request: Request, error: Exception) -> Response:
    return busy(request, 503, error)


async def while_connected(request: Request, answer: Coroutine[Any, Any, T]) -> T | None:
    """The answer; None if the client hung up before. Then its request is cancelled, and never runs if it was still
    waiting for its batch."""

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answering, leaving = asyncio.create_task(answer), asyncio.create_task(left())
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        return answering.result() if answering.done() else None
    finally:
        answering.cancel()
        leaving.cancel()


class Text(BaseModel):
    text: str


@app.post("/words")
async def words(body: Text, request: Request) -> dict[str, int | None]:
    return {"words": await while_connected(request, count_words.acall(body.text))}


@app.post("/repeat")
async def repeat(body: Text) -> StreamingResponse:
    # One that hangs up cancels the response, and with that its stream: the row is free.
    stream = repeat_words.acall(body.text)
    return StreamingResponse((word + "\n" async for word in stream), media_type="text/plain")


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
        reply = await client.post("/repeat", json={"text": "passengers share a ride"})
        print(reply.text.split())


if __name__ == "__main__":
    asyncio.run(main())
