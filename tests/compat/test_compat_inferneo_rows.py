"""The front door of Inferneo's guide, line by line: what goes wrong in a batch and whom it hurts, clients and settings that
change, everything that can be asked at once, and that nothing of the guide's table is missing."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from openai_server import LocalServer

import carpool
from carpool.compat import inferneo
from carpool.compat.inferneo import (
    AdaptiveBatcher,
    DynamicBatcher,
    InferneoClient,
    benchmark_batch_sizes,
    chunked_batch_process,
    close_client,
    robust_batch_process,
    stream_batch_process,
)
from gates import LIMIT, in_thread, until

openai = pytest.importorskip("openai")

MODEL = "small-model"
NEVER_S = 600.0
GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "moving" / "inferneo.md"


@pytest.fixture(params=[False, True], ids=["closes", "keeps"])
def server(request: pytest.FixtureRequest) -> Iterator[LocalServer]:
    made = LocalServer(request.param)
    yield made
    made.close()


@pytest.fixture
def client(server: LocalServer) -> Iterator[Any]:
    with InferneoClient(server.url, max_retries=0) as made:
        yield made


@pytest.fixture
def aclient(server: LocalServer) -> Iterator[Any]:
    made = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    yield made
    close_client(made)
    assert made.is_closed()


def say(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def fake_client(create: Callable[..., Any]) -> Any:
    return SimpleNamespace(completions=SimpleNamespace(create=create))


def echo(**asked: Any) -> Any:
    return SimpleNamespace(choices=[SimpleNamespace(text=f"re: {p}") for p in asked["prompt"]])


def poisoned(server: LocalServer) -> None:
    """What holds "bad" fails as a whole."""
    server.before = lambda body: 400 if "bad" in body.get("prompt", ()) else None


# ---------------------------------------------------------------------------- DynamicBatcher


def test_a_request_has_its_answer_before_its_future_ends() -> None:
    def failing(**asked: Any) -> Any:
        raise OSError("no")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for create, answer in ((echo, "response"), (failing, "error")):
            with DynamicBatcher(fake_client(create), MODEL, 4, max_wait_time=0) as batcher:

                def ask(answer: str = answer, batcher: DynamicBatcher = batcher) -> None:
                    for n in range(300):
                        request = batcher.add_request(str(n))
                        request["future"].exception(LIMIT)
                        assert answer in request
                        batcher.process_batch()

                for one in [in_thread(ask) for _ in range(4)]:
                    one.result(LIMIT)
    finally:
        sys.setswitchinterval(interval)


def test_settings_of_a_batcher_change(server: LocalServer, client: Any) -> None:
    with DynamicBatcher(None, "other", max_batch_size=8, max_wait_time=NEVER_S) as batcher:
        batcher.client, batcher.model_id = client, MODEL
        assert (batcher.client, batcher.model_id) == (client, MODEL)
        batcher.max_batch_size = 2
        requests = [batcher.add_request(text) for text in "ab"]
        assert [one["future"].result(LIMIT) for one in requests] == ["re: a", "re: b"]
        lone = batcher.add_request("c")
        batcher.max_wait_time = 0
        assert lone["future"].result(LIMIT) == "re: c"
        assert (batcher.max_batch_size, batcher.max_wait_time) == (2, 0)
        for name, wrong, error in (
            ("max_batch_size", 0, ValueError),
            ("max_batch_size", "a", TypeError),
            ("max_wait_time", -1, ValueError),
            ("max_wait_time", "a", TypeError),
        ):
            with pytest.raises(error, match=name):
                setattr(batcher, name, wrong)
    assert server.requests[0]["model"] == MODEL
    adaptive = AdaptiveBatcher(None, "other")
    adaptive.client, adaptive.model_id = client, MODEL
    assert adaptive.process_batch(["a"])[0].text == "re: a"
    assert (adaptive.client, adaptive.model_id) == (client, MODEL)
    adaptive.close()


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: DynamicBatcher(None, MODEL, 0), ValueError, "max_batch_size"),
        (lambda: DynamicBatcher(None, MODEL, 2.5), TypeError, "max_batch_size"),  # type: ignore[arg-type]
        (lambda: DynamicBatcher(None, MODEL, max_wait_time=-1), ValueError, "max_wait_time"),
        (lambda: DynamicBatcher(None, MODEL, max_wait_time="a"), TypeError, "max_wait_time"),  # type: ignore[arg-type]
        (lambda: DynamicBatcher(None, MODEL, on_error="hide"), ValueError, "on_error"),
        (lambda: AdaptiveBatcher(None, MODEL, 0), ValueError, "initial_batch_size"),
        (lambda: AdaptiveBatcher(None, MODEL, on_error="hide"), ValueError, "on_error"),
        (lambda: stream_batch_process([], None, MODEL, 0), ValueError, "batch_size"),
        (lambda: stream_batch_process([], None, MODEL, on_error="hide"), ValueError, "on_error"),
        (lambda: chunked_batch_process("x", None, MODEL, 0), ValueError, "chunk_size"),
        (lambda: robust_batch_process([], None, MODEL, True), TypeError, "batch_size"),
        (lambda: robust_batch_process([], None, MODEL, 1, 0), ValueError, "max_retries"),
        (lambda: robust_batch_process([], None, MODEL, backoff_s=-1), ValueError, "backoff_s"),
        (lambda: benchmark_batch_sizes(None, MODEL, [], [1.5]), TypeError, "batch size"),  # type: ignore[list-item]
    ],
)
def test_settings_are_told_by_their_names(
    make: Callable[[], Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=rf"^(a )?{text} must be"):
        make()


@pytest.mark.parametrize("wrong", [None, 5, b"bytes", [], ["words"], {"role": "user"}])
def test_what_is_no_request_fails_alone(server: LocalServer, client: Any, wrong: Any) -> None:
    with DynamicBatcher(client, MODEL, max_batch_size=2, max_wait_time=NEVER_S) as batcher:
        first = batcher.add_request("a")
        with pytest.raises(TypeError, match="a request is a prompt"):
            batcher.add_request(wrong)
        assert batcher.pending_requests == [first]
        batcher.add_request("b")
        assert first["future"].result(LIMIT) == "re: a"
    prompts = ["a", wrong, "b"]
    assert list(stream_batch_process(prompts, client, MODEL)) == ["re: a", None, "re: b"]
    assert robust_batch_process(prompts, client, MODEL, backoff_s=0) == ["re: a", None, "re: b"]
    with AdaptiveBatcher(client, MODEL) as adaptive:
        found = adaptive.process_batch(prompts, errors="return")
        assert isinstance(found[1], TypeError)
        assert [found[0].text, found[2].text] == ["re: a", "re: b"]


def test_tokens_are_prompts(server: LocalServer, client: Any) -> None:
    with DynamicBatcher(client, MODEL, max_batch_size=2, max_wait_time=NEVER_S) as batcher:
        requests = [batcher.add_request(one) for one in ("a", [1, 2], "b", [3])]
        texts = [one["future"].result(LIMIT) for one in requests]
    assert texts == ["re: a", "re: [1, 2]", "re: b", "re: [3]"]
    assert sorted(server.batches, key=str) == [["a", "b"], [[1, 2], [3]]]


@pytest.mark.parametrize("on_error", ["raise", "isolate"])
def test_a_prompt_that_fails_its_batch(server: LocalServer, client: Any, on_error: str) -> None:
    poisoned(server)
    with DynamicBatcher(
        client, MODEL, max_batch_size=8, max_wait_time=NEVER_S, on_error=on_error
    ) as batcher:
        prompts = [*"abcd", "bad", *"efg"]
        requests = [batcher.add_request(prompt) for prompt in prompts]
        batcher.process_batch()
        for prompt, request in zip(prompts, requests, strict=True):
            if on_error == "raise" or prompt == "bad":
                assert "told to fail" in request["error"]
                assert "response" not in request
                assert isinstance(request["future"].exception(), openai.BadRequestError)
            else:
                assert request["response"] == f"re: {prompt}"
                assert "error" not in request
    assert len(server.batches) == (1 if on_error == "raise" else 7)


def test_requests_from_threads_and_loops(
    server: LocalServer, client: Any, run: Callable[..., Any]
) -> None:
    async def main(start: int, batcher: DynamicBatcher) -> list[str]:
        requests = [batcher.add_request(str(n)) for n in range(start, start + 30)]
        return [await request["future"] for request in requests]

    with DynamicBatcher(client, MODEL, max_batch_size=8, max_wait_time=0.005) as batcher:
        with ThreadPoolExecutor(6) as threads:
            loops = [threads.submit(run, main(100 * n, batcher)) for n in range(3)]
            singles = list(threads.map(lambda n: batcher.add_request(str(n)), range(1000, 1060)))
            for n, one in enumerate(loops):
                assert one.result(30) == [f"re: {100 * n + i}" for i in range(30)]
        texts = [one["future"].result(LIMIT) for one in singles]
        assert texts == [f"re: {n}" for n in range(1000, 1060)]
    assert sum(map(len, server.batches)) == 150
    assert max(map(len, server.batches)) <= 8


class Together:
    """A server's answers that come when so many requests are there at once."""

    def __init__(self, server: LocalServer, requests: int) -> None:
        self._barrier = threading.Barrier(requests)
        server.before = self.before

    def before(self, body: dict[str, Any]) -> None:
        self._barrier.wait(LIMIT)


@pytest.mark.parametrize("kind", ["blocking", "asynchronous"])
def test_conversations_apart_are_asked_at_once(
    server: LocalServer, client: Any, aclient: Any, kind: str
) -> None:
    # More than asyncio's own threads.
    count = 40
    Together(server, count)
    asking = client if kind == "blocking" else aclient
    with DynamicBatcher(
        asking, MODEL, max_batch_size=count, max_wait_time=NEVER_S, chats="apart"
    ) as batcher:
        requests = [batcher.add_request(say(str(n))) for n in range(count)]
        texts = [one["future"].result(LIMIT) for one in requests]
    assert texts == [f"re: {n}" for n in range(count)]


@pytest.mark.parametrize("chats", ["together", "apart"])
def test_an_asynchronous_client_is_used_again(
    server: LocalServer, aclient: Any, chats: str
) -> None:
    client = aclient
    prompts = ["a", say("b"), "c"]
    for _ in range(3):
        found = robust_batch_process(
            prompts, client, MODEL, max_retries=1, errors="return", chats=chats
        )
        assert found == ["re: a", "re: b", "re: c"]
        with DynamicBatcher(client, MODEL, max_wait_time=0, chats=chats) as batcher:
            assert batcher.add_request("d")["future"].result(LIMIT) == "re: d"
        with AdaptiveBatcher(client, MODEL, chats=chats) as adaptive:
            assert adaptive.process_batch(["e"])[0].text == "re: e"
    results = benchmark_batch_sizes(client, MODEL, ["x"] * 4, [2])
    assert results[2]["total_requests"] == 4
    assert server.batches[-2:] == [["x", "x"], ["x", "x"]]


def test_a_conversation_that_is_cancelled_by_its_client(run: Callable[..., Any]) -> None:
    async def create(**asked: Any) -> Any:
        raise asyncio.CancelledError

    client = SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=create)))
    with DynamicBatcher(client, MODEL, max_wait_time=0, chats="apart") as batcher:
        with pytest.raises(carpool.HandlerError):
            batcher.add_request(say("a"))["future"].result(LIMIT)


# --------------------------------------------------------------------------- AdaptiveBatcher


def test_a_bad_prompt_hurts_nobody_else(server: LocalServer, client: Any) -> None:
    poisoned(server)
    with AdaptiveBatcher(client, MODEL, initial_batch_size=8) as batcher:
        found = batcher.process_batch([*"abcd", "bad", *"efg"], errors="return")
        assert [getattr(one, "text", "failed") for one in found] == [
            *(f"re: {one}" for one in "abcd"),
            "failed",
            *(f"re: {one}" for one in "efg"),
        ]
        assert isinstance(found[4], openai.BadRequestError)
        # The batch failed once, whatever became of its halves.
        assert batcher.batch_size == 4
        assert batcher.performance_history == []
        kept = batcher.process_batch(["a", "bad", "b"], errors="skip")
        assert [one.text for one in kept] == ["re: a", "re: b"]
        with pytest.raises(openai.BadRequestError):
            batcher.process_batch(["a", "bad"])


def test_batches_that_are_too_large_are_answered_in_parts(server: LocalServer, client: Any) -> None:
    server.before = lambda body: 413 if len(body["prompt"]) > 3 else None
    with AdaptiveBatcher(client, MODEL, initial_batch_size=16) as batcher:
        choices = batcher.process_batch([str(n) for n in range(50)])
        assert [choice.text for choice in choices] == [f"re: {n}" for n in range(50)]


def test_without_isolation_a_batch_fails_as_one(server: LocalServer, client: Any) -> None:
    poisoned(server)
    with AdaptiveBatcher(client, MODEL, on_error="raise") as batcher:
        found = batcher.process_batch(["a", "bad", "b"], errors="return")
        assert all(isinstance(one, openai.BadRequestError) for one in found)
    assert len(server.batches) == 1


def test_priorities_of_lists(server: LocalServer, client: Any) -> None:
    asked, go = threading.Semaphore(0), threading.Event()

    def before(body: dict[str, Any]) -> None:
        asked.release()
        assert go.wait(LIMIT)

    server.before = before
    with AdaptiveBatcher(client, MODEL, initial_batch_size=1) as batcher:
        calls = [in_thread(batcher.process_batch, ["first"])]
        assert asked.acquire(timeout=LIMIT)
        for pending, (prompt, priority) in enumerate((("later", 1), ("usual", 0), ("now", -1)), 1):
            calls.append(in_thread(partial(batcher.process_batch, [prompt], priority=priority)))
            until(lambda pending=pending: batcher._inner.stats.pending == pending)
        go.set()
        for call in calls:
            call.result(LIMIT)
        with pytest.raises(ValueError, match="priority"):
            batcher.process_batch(["a"], priority=1000)
    assert server.batches == [["first"], ["now"], ["usual"], ["later"]]


# ------------------------------------------------------------------- lists, streams and files


def test_a_batch_is_tried_again_as_a_batch(server: LocalServer, client: Any) -> None:
    statuses = iter([500, 503])
    server.before = lambda body: next(statuses, None)
    prompts = [str(n) for n in range(64)]
    found = robust_batch_process(prompts, client, MODEL, batch_size=16, backoff_s=0)
    assert found == [f"re: {prompt}" for prompt in prompts]
    assert [len(batch) for batch in server.batches] == [16] * 6


@pytest.mark.parametrize("on_error", ["raise", "isolate"])
def test_what_fails_each_time(server: LocalServer, client: Any, on_error: str) -> None:
    poisoned(server)
    prompts = [*"abc", "bad"]
    found = robust_batch_process(
        prompts, client, MODEL, batch_size=4, max_retries=2, backoff_s=0, on_error=on_error
    )
    if on_error == "raise":
        assert found == [None] * 4
        assert server.batches == [prompts] * 2
    else:
        assert found == ["re: a", "re: b", "re: c", None]
        assert server.batches[:2] == [prompts] * 2
        assert ["bad"] in server.batches


def test_of_conversations_apart_those_that_failed_are_tried_again(
    server: LocalServer, client: Any
) -> None:
    lock, tries = threading.Lock(), dict[str, int]()

    def before(body: dict[str, Any]) -> int | None:
        text = body["messages"][-1]["content"]
        with lock:
            tries[text] = tries.get(text, 0) + 1
            return 500 if text == "bad" or (text == "slow" and tries[text] == 1) else None

    server.before = before
    found = robust_batch_process(
        [say("a"), say("slow"), say("bad")], client, MODEL, backoff_s=0, chats="apart"
    )
    assert found == ["re: a", "re: slow", None]
    assert tries == {"a": 1, "slow": 2, "bad": 3}


@pytest.mark.parametrize("on_error", ["raise", "isolate"])
def test_neighbours_of_what_fails_in_a_stream(
    server: LocalServer, client: Any, tmp_path: Path, on_error: str
) -> None:
    poisoned(server)
    prompts = ["a", "bad", "b", "c"]
    lines = tmp_path / "prompts.txt"
    lines.write_text("\n".join(prompts))
    streamed = list(stream_batch_process(prompts, client, MODEL, 4, on_error=on_error))
    chunked = chunked_batch_process(lines, client, MODEL, batch_size=4, on_error=on_error)
    assert streamed == chunked
    assert streamed == ([None] * 4 if on_error == "raise" else ["re: a", None, "re: b", "re: c"])


# ------------------------------------------------------------------------------------ the guide


def test_the_guide_has_a_row_for_each_name() -> None:
    rows = [line for line in GUIDE.read_text().splitlines() if line.startswith("|")]
    named = set(re.findall(r"[A-Za-z_]+", " ".join(re.findall(r"`[^`]+`", " ".join(rows)))))
    assert set(inferneo.__all__) <= named
    for kind in (DynamicBatcher, AdaptiveBatcher):
        assert {name for name in vars(kind) if not name.startswith("_")} <= named
