"""The example service behind a real server, asked by a real HTTP client over TCP."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from carpool import batched
from gates import LIMIT, Gate, auntil, identity, until

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
uvicorn = pytest.importorskip("uvicorn")

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "fastapi_service.py"


@pytest.fixture
def service() -> ModuleType:
    """The example, anew: its functions close with their server."""
    spec = importlib.util.spec_from_file_location("service_under_test", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # pydantic looks annotations up in there.
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["asyncio", "uvloop"])
def address(request: pytest.FixtureRequest, service: ModuleType) -> Iterator[str]:
    """Where it is served, by uvicorn in a thread of its own."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    config = uvicorn.Config(
        service.app, port=0, loop=request.param, ws="none", log_level="warning", lifespan="on"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started or not thread.is_alive())
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(LIMIT)
    assert not thread.is_alive()
    assert not service.count_words.healthy


@pytest.fixture
def held(service: ModuleType, gate: Gate) -> Gate:
    """The service's model waits at a gate; an answer is how long the text is."""
    held = Gate(len)
    service.model.count = held.run
    return held


@pytest.fixture
def held_words(service: ModuleType, new_gate: Callable[..., Gate]) -> Gate:
    """A stream in the place of the service's, whose handler waits at a gate before its only step."""
    held = new_gate()

    @batched(max_batch_size=1, max_queue=3)
    def repeat_words(texts: list[str]) -> Iterator[list[Any]]:
        held.run(texts)
        yield ["once"] * len(texts)

    service.repeat_words = repeat_words
    return held


def asking(address: str, main: Callable[[Any], Any]) -> Any:
    """Runs `main(client)` with a client that opens as many connections as it needs."""

    async def go() -> Any:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx.AsyncClient(base_url=address, limits=limits, timeout=LIMIT) as client:
            return await main(client)

    return asyncio.run(go())


def text(length: int) -> dict[str, str]:
    return {"text": "x" * length}


def test_concurrent_requests_share_batches(address: str, service: ModuleType) -> None:
    async def main(client: Any) -> None:
        replies = await asyncio.gather(
            *(client.post("/words", json={"text": "word " * n}) for n in range(300))
        )
        busy = [reply for reply in replies if reply.status_code == 429]
        for n, reply in enumerate(replies):
            if reply.status_code == 200:
                assert reply.json() == {"words": n}
            else:
                assert reply in busy
        assert len(busy) < 300
        stats = (await client.get("/stats")).json()
        assert stats["answered"] == 300 - len(busy)
        assert stats["batches"] < stats["answered"]

    asking(address, main)
    assert identity(service.count_words.stats)


def test_while_the_model_is_busy_the_next_batch_fills(
    address: str, service: ModuleType, held: Gate
) -> None:
    async def main(client: Any) -> None:
        first = asyncio.ensure_future(client.post("/words", json=text(0)))
        await held.aentered()
        others = [asyncio.ensure_future(client.post("/words", json=text(n))) for n in range(1, 33)]
        await auntil(lambda: service.count_words.stats.pending == 32)
        held.open()
        replies = await asyncio.gather(first, *others)
        assert [reply.json()["words"] for reply in replies] == list(range(33))
        assert [len(batch) for batch in held.batches] == [1, 16, 16]

    asking(address, main)


def test_a_client_that_hangs_up_takes_its_request_along(
    address: str, service: ModuleType, held: Gate
) -> None:
    async def main(client: Any) -> None:
        first = asyncio.ensure_future(client.post("/words", json=text(1)))
        await held.aentered()
        gone = [asyncio.ensure_future(client.post("/words", json=text(9))) for _ in range(5)]
        stays = asyncio.ensure_future(client.post("/words", json=text(2)))
        await auntil(lambda: service.count_words.stats.pending == 6)
        for one in gone:
            one.cancel()
        await auntil(lambda: service.count_words.stats.pending == 1)
        held.open()
        assert (await first).json() == {"words": 1}
        assert (await stays).json() == {"words": 2}
        assert "x" * 9 not in held.items
        assert service.count_words.stats.cancelled == 5

    asking(address, main)


def test_overload_is_told_with_a_time_to_come_back(
    address: str, service: ModuleType, held: Gate
) -> None:
    async def main(client: Any) -> None:
        first = asyncio.ensure_future(client.post("/words", json=text(0)))
        await held.aentered()
        queue = [asyncio.ensure_future(client.post("/words", json=text(n))) for n in range(1, 65)]
        await auntil(lambda: service.count_words.stats.pending == 64)
        refused = await client.post("/words", json=text(99))
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        assert "64 requests are pending" in refused.json()["detail"]
        held.open()
        replies = await asyncio.gather(first, *queue)
        assert [reply.json()["words"] for reply in replies] == list(range(65))
        # Afterwards there is room again.
        assert (await client.post("/words", json=text(7))).json() == {"words": 7}

    asking(address, main)


def test_one_that_has_waited_too_long_is_told_so(
    address: str, service: ModuleType, held: Gate
) -> None:
    service.count_words.configure(timeout_ms=50)

    async def main(client: Any) -> None:
        first = asyncio.ensure_future(client.post("/words", json=text(1)))
        await held.aentered()
        late = await client.post("/words", json=text(2))
        assert late.status_code == 503
        assert int(late.headers["Retry-After"]) >= 1
        held.open()
        assert (await first).json() == {"words": 1}

    asking(address, main)


def test_words_are_streamed(address: str, service: ModuleType) -> None:
    async def main(client: Any) -> None:
        replies = await asyncio.gather(
            *(client.post("/repeat", json={"text": "word " * n}) for n in range(20))
        )
        assert [reply.text.split() for reply in replies] == [["word"] * n for n in range(20)]

    asking(address, main)
    assert service.repeat_words.stats.batches < 20


def test_a_client_that_hangs_up_frees_its_stream(address: str, service: ModuleType) -> None:
    async def main(client: Any) -> None:
        # Far more than the buffers of a connection hold.
        body = {"text": ("word" * 1000 + " ") * 10_000}
        async with client.stream("POST", "/repeat", json=body) as reply:
            async for line in reply.aiter_lines():
                assert line == "word" * 1000
                break
            assert service.repeat_words.stats.in_flight == 1
        await auntil(lambda: service.repeat_words.stats.in_flight == 0)

    asking(address, main)
    assert identity(service.repeat_words.stats)


def test_streams_that_wait_are_bounded_and_given_up(
    held_words: Gate, address: str, service: ModuleType
) -> None:
    def ask(client: Any, text: str) -> Any:
        return asyncio.ensure_future(client.post("/repeat", json={"text": text}))

    async def main(client: Any) -> None:
        first = ask(client, "first")
        await held_words.aentered()
        gone, stays, last = [ask(client, text) for text in ("gone", "stays", "last")]
        await auntil(lambda: service.repeat_words.stats.pending == 3)
        # Its own queue counts for it, not that of the other endpoint.
        refused = await client.post("/repeat", json={"text": "refused"})
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        assert "3 requests are pending" in refused.json()["detail"]
        gone.cancel()
        await auntil(lambda: service.repeat_words.stats.pending == 2)
        held_words.open()
        for one in (first, stays, last):
            assert (await one).text == "once\n"
        assert "gone" not in held_words.items
        assert service.repeat_words.stats.cancelled == 1

    asking(address, main)
    assert identity(service.repeat_words.stats)


def test_a_closed_function_is_told_so(address: str, service: ModuleType) -> None:
    service.count_words.close()
    service.repeat_words.close()

    async def main(client: Any) -> None:
        for path in ("/words", "/repeat"):
            reply = await client.post(path, json={"text": "late"})
            assert reply.status_code == 503
            assert int(reply.headers["Retry-After"]) >= 1

    asking(address, main)


def test_the_wait_that_is_told_grows_with_the_queue(service: ModuleType) -> None:
    def told(path: str) -> int:
        request = SimpleNamespace(url=SimpleNamespace(path=path))
        return int(service.busy(request, 429, ValueError()).headers["Retry-After"])

    def stats(pending: int, mean_ms: float) -> Any:
        return SimpleNamespace(
            stats=SimpleNamespace(pending=pending, run_ms=SimpleNamespace(mean=mean_ms))
        )

    # Four batches of two seconds each, and the one that comes with the next request.
    service.count_words, service.repeat_words = stats(64, 2_000), stats(0, 100)
    assert (told("/words"), told("/repeat")) == (10, 1)
