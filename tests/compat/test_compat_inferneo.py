"""The front door of Inferneo's guide, through the real `openai` client, against a small server of our own."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from openai_server import LocalServer

import carpool
from carpool.compat.inferneo import (
    AdaptiveBatcher,
    DynamicBatcher,
    InferneoClient,
    benchmark_batch_sizes,
    chunked_batch_process,
    close_client,
    plot_batch_performance,
    robust_batch_process,
    stream_batch_process,
)
from gates import LIMIT, in_thread, until

openai = pytest.importorskip("openai")

MODEL = "small-model"
NEVER_S = 600.0


@pytest.fixture
def server() -> Iterator[LocalServer]:
    made = LocalServer()
    yield made
    made.close()


@pytest.fixture
def client(server: LocalServer) -> Iterator[Any]:
    with InferneoClient(server.url, max_retries=0) as made:
        yield made


def say(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


class Hold:
    """Holds the server's answers until the test lets them go."""

    def __init__(self, server: LocalServer) -> None:
        self._asked = threading.Semaphore(0)
        self._go = threading.Event()
        server.before = self.before

    def before(self, body: dict[str, Any]) -> None:
        self._asked.release()
        assert self._go.wait(LIMIT)

    def asked(self) -> None:
        assert self._asked.acquire(timeout=LIMIT)

    def go(self) -> None:
        self._go.set()


# ------------------------------------------------------------------------------- the client


def test_the_client_takes_batches(server: LocalServer, client: Any) -> None:
    assert isinstance(client, openai.OpenAI)
    prompts = ["one", "two"]
    responses = client.completions.create(model=MODEL, prompt=prompts, max_tokens=100)
    assert [choice.text for choice in responses.choices] == ["re: one", "re: two"]
    conversations = [say("one"), [*say("a"), *say("two")]]
    chats = client.chat.completions.create(model=MODEL, messages=conversations, max_tokens=150)
    assert [choice.message.content for choice in chats.choices] == ["re: one", "re: two"]
    assert str(InferneoClient(f"{server.url}/v1/").base_url) == f"{server.url}/v1/"


# ---------------------------------------------------------------------------- DynamicBatcher


def test_requests_are_answered(server: LocalServer, client: Any) -> None:
    before = time.time()
    with DynamicBatcher(client, MODEL, max_batch_size=3, max_wait_time=NEVER_S) as batcher:
        requests = [batcher.add_request(text) for text in ("a", "b", "c")]
        assert [request["future"].result(20) for request in requests] == ["re: a", "re: b", "re: c"]
    assert server.batches == [["a", "b", "c"]]
    assert (server.requests[0]["max_tokens"], server.requests[0]["temperature"]) == (100, 0.7)
    assert server.requests[0]["model"] == MODEL
    for request, text in zip(requests, "abc", strict=True):
        assert request["prompt"] == text
        assert before <= request["timestamp"] <= batcher.last_batch_time
        assert request["response"] == f"re: {text}"
        assert "error" not in request


def test_a_lone_request_is_answered_in_time(server: LocalServer, client: Any) -> None:
    with DynamicBatcher(client, MODEL, max_wait_time=0.001) as batcher:
        assert batcher.add_request("alone")["future"].result(20) == "re: alone"


def test_processing_at_once(server: LocalServer, client: Any) -> None:
    with DynamicBatcher(client, MODEL, max_wait_time=NEVER_S) as batcher:
        assert not batcher.should_process_batch()
        batcher.process_batch()
        requests = [batcher.add_request(f"prompt {n}") for n in range(5)]
        assert batcher.pending_requests == requests
        batcher.process_batch()
        assert [request["response"] for request in requests] == [
            f"re: prompt {n}" for n in range(5)
        ]
        assert batcher.pending_requests == []
    assert [len(batch) for batch in server.batches] == [5]
    assert batcher.stats.answered == 5


def test_when_a_batch_is_due(server: LocalServer, client: Any) -> None:
    hold = Hold(server)
    with DynamicBatcher(client, MODEL, max_batch_size=2, max_wait_time=NEVER_S) as batcher:
        batcher.add_request("a")
        assert not batcher.should_process_batch()
        batcher.add_request("b")
        assert batcher.should_process_batch()
        hold.asked()
        hold.go()
    with DynamicBatcher(client, MODEL, max_batch_size=2, max_wait_time=0) as batcher:
        batcher.add_request("a")
        batcher.process_batch()


def test_nothing_is_dropped_under_many_threads(server: LocalServer, client: Any) -> None:
    with DynamicBatcher(client, MODEL, max_batch_size=8, max_wait_time=0.005) as batcher:
        with ThreadPoolExecutor(16) as threads:
            requests = list(threads.map(batcher.add_request, map(str, range(200))))
        texts = [request["future"].result(20) for request in requests]
    assert texts == [f"re: {n}" for n in range(200)]
    assert max(map(len, server.batches)) <= 8
    assert sum(map(len, server.batches)) == 200


def test_requests_from_coroutines(
    server: LocalServer, client: Any, run: Callable[..., Any]
) -> None:
    async def main() -> None:
        with DynamicBatcher(client, MODEL, max_batch_size=4, max_wait_time=0.005) as batcher:
            requests = [batcher.add_request(str(n)) for n in range(10)]
            assert [await one["future"] for one in requests] == [f"re: {n}" for n in range(10)]

    run(main())


def test_errors_are_in_the_requests_or_raised(server: LocalServer, client: Any) -> None:
    server.before = lambda body: 500
    with DynamicBatcher(client, MODEL, max_wait_time=NEVER_S) as batcher:
        requests = [batcher.add_request(text) for text in "ab"]
        batcher.process_batch()
        for request in requests:
            assert "told to fail" in request["error"]
            assert "response" not in request
            assert isinstance(request["future"].exception(), openai.InternalServerError)
        batcher.add_request("c")
        with pytest.raises(openai.InternalServerError):
            batcher.process_batch(errors="raise")
        with pytest.raises(ValueError, match="errors must be"):
            batcher.process_batch(errors="hide")


def test_another_number_of_choices_is_an_error(server: LocalServer, client: Any) -> None:
    server.change = lambda choices: choices[1:]
    with DynamicBatcher(client, MODEL, max_batch_size=2, max_wait_time=NEVER_S) as batcher:
        requests = [batcher.add_request(text) for text in "ab"]
        for request in requests:
            with pytest.raises(carpool.BatchLengthError, match="1 choices for a batch of 2"):
                request["future"].result(20)


def test_choices_go_by_their_index(server: LocalServer, client: Any) -> None:
    server.change = lambda choices: choices[::-1]
    with DynamicBatcher(client, MODEL, max_batch_size=3, max_wait_time=NEVER_S) as batcher:
        requests = [batcher.add_request(text) for text in "abc"]
        assert [one["future"].result(20) for one in requests] == ["re: a", "re: b", "re: c"]


def test_priorities(server: LocalServer, client: Any) -> None:
    hold = Hold(server)
    with DynamicBatcher(client, MODEL, max_batch_size=1, max_wait_time=0) as batcher:
        batcher.add_request("first")
        hold.asked()
        batcher.add_request("later", priority=1)
        batcher.add_request("usual")
        batcher.add_request("now", priority=-1)
        hold.go()
        batcher.process_batch()
    assert server.batches == [["first"], ["now"], ["usual"], ["later"]]


def test_conversations_in_one_request(server: LocalServer, client: Any) -> None:
    with DynamicBatcher(client, MODEL, max_batch_size=2, max_wait_time=NEVER_S) as batcher:
        asked = [say("one"), "plain", [*say("a"), *say("two")], "text"]
        requests = [batcher.add_request(one) for one in asked]
        texts = [request["future"].result(20) for request in requests]
    assert texts == ["re: one", "re: plain", "re: two", "re: text"]
    assert sorted(server.batches, key=str) == [["plain", "text"], [asked[0], asked[2]]]


def test_conversations_apart(server: LocalServer, client: Any) -> None:
    server.before = lambda body: 500 if body["messages"] == say("bad") else None
    with DynamicBatcher(
        client, MODEL, max_batch_size=3, max_wait_time=NEVER_S, chats="apart"
    ) as batcher:
        requests = [batcher.add_request(say(text)) for text in ("one", "bad", "two")]
        batcher.process_batch()
        assert [one.get("response") for one in requests] == ["re: one", None, "re: two"]
        assert isinstance(requests[1]["future"].exception(), openai.InternalServerError)
    assert len(server.requests) == 3
    with pytest.raises(ValueError, match="chats must be"):
        DynamicBatcher(client, MODEL, chats="often")


@pytest.mark.parametrize("chats", ["together", "apart"])
def test_asynchronous_clients(server: LocalServer, chats: str) -> None:
    client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    with DynamicBatcher(
        client, MODEL, max_batch_size=2, max_wait_time=0.01, chats=chats, max_tokens=7
    ) as batcher:
        requests = [batcher.add_request(one) for one in ("a", "b", say("c"), say("d"))]
        texts = [request["future"].result(20) for request in requests]
    close_client(client)
    assert texts == ["re: a", "re: b", "re: c", "re: d"]
    assert server.requests[0]["max_tokens"] == 7


def test_the_end_of_a_batcher(server: LocalServer, client: Any) -> None:
    batcher = DynamicBatcher(client, MODEL, max_wait_time=NEVER_S)
    request = batcher.add_request("last")
    batcher.close()
    assert request["response"] == "re: last"
    with pytest.raises(carpool.BatcherClosed):
        batcher.add_request("late")
    assert batcher.pending_requests == []


def test_a_cancelled_request_is_not_sent(server: LocalServer, client: Any) -> None:
    with DynamicBatcher(client, MODEL, max_wait_time=NEVER_S) as batcher:
        kept, given_up = batcher.add_request("kept"), batcher.add_request("given up")
        assert given_up["future"].cancel()
        batcher.process_batch(errors="raise")
        assert given_up["error"] == "cancelled"
        assert kept["response"] == "re: kept"
    assert server.batches == [["kept"]]


# --------------------------------------------------------------------------- AdaptiveBatcher


@pytest.mark.parametrize(
    ("throughputs", "sizes"),
    [
        ([10, 20], [8, 8]),
        ([10, 20, 30], [8, 8, 16]),
        ([10, 20, 30, 40, 50, 60], [8, 8, 16, 32, 64, 64]),
        ([30, 20, 10], [8, 8, 4]),
        ([30, 20, 10, 5, 2, 1, 0.5], [8, 8, 4, 2, 1, 1, 1]),
        ([10, 10, 9.5, 9.0], [8, 8, 8, 8]),
        ([10, 10, 10, 8], [8, 8, 8, 4]),
    ],
)
def test_the_rule_of_sizes(throughputs: list[float], sizes: list[int]) -> None:
    batcher = AdaptiveBatcher(None, MODEL)
    found = []
    for throughput in throughputs:
        batcher.update_batch_size(1.0, throughput)  # type: ignore[arg-type]
        found.append(batcher.batch_size)
    assert found == sizes
    batcher.update_batch_size(1.0, 0)
    assert len(batcher.performance_history) == len(throughputs)
    assert batcher.performance_history[0]["batch_size"] == 8


def test_ten_batches_are_remembered() -> None:
    batcher = AdaptiveBatcher(None, MODEL)
    for _ in range(30):
        batcher.update_batch_size(0.0, 5)
    assert len(batcher.performance_history) == 10
    assert set(batcher.performance_history[0]) == {"batch_size", "throughput", "timestamp"}
    batcher.batch_size = 1000
    assert batcher.batch_size == batcher.max_batch_size == 64


def test_every_prompt_is_answered(server: LocalServer, client: Any) -> None:
    # By this clock each batch is faster than the one before.
    now, calls = 0.0, 0

    def clock() -> float:
        nonlocal now, calls
        calls += 1
        now += 1 / calls
        return now

    with AdaptiveBatcher(client, MODEL, initial_batch_size=2, clock=clock) as batcher:
        choices = batcher.process_batch([str(n) for n in range(300)])
        assert [choice.text for choice in choices] == [f"re: {n}" for n in range(300)]
        assert batcher.process_batch([]) == []
        (chat,) = batcher.process_batch([say("hello")])
        assert chat.message.content == "re: hello"
    sizes = [len(batch) for batch in server.batches]
    assert sizes[0] <= 2
    assert 2 < max(sizes) <= 64
    assert sum(sizes) == 301


def test_errors_halve_the_size(server: LocalServer, client: Any) -> None:
    server.before = lambda body: 500 if "bad" in body["prompt"] else None
    with AdaptiveBatcher(client, MODEL, initial_batch_size=8) as batcher:
        with pytest.raises(openai.InternalServerError):
            batcher.process_batch(["bad"])
        assert batcher.batch_size == 4
        batcher.batch_size = 1
        results = batcher.process_batch(["a", "bad", "b"], errors="return")
        assert [getattr(one, "text", None) for one in results] == ["re: a", None, "re: b"]
        assert isinstance(results[1], openai.InternalServerError)
        batcher.batch_size = 1
        assert len(batcher.process_batch(["bad", "c"], errors="skip")) == 1


def test_threads_share_an_adaptive_batcher(server: LocalServer, client: Any) -> None:
    with AdaptiveBatcher(client, MODEL) as batcher:

        def ask(start: int) -> list[str]:
            choices = batcher.process_batch([str(n) for n in range(start, start + 50)])
            return [choice.text for choice in choices]

        with ThreadPoolExecutor(4) as threads:
            for n, texts in enumerate(threads.map(ask, range(0, 400, 100))):
                assert texts == [f"re: {100 * n + i}" for i in range(50)]


# ------------------------------------------------------------------- lists, streams and files


def test_streams_are_lazy_and_in_order(server: LocalServer, client: Any) -> None:
    read: list[int] = []

    def source() -> Iterator[str]:
        for n in range(10_000):
            read.append(n)
            yield f"Prompt {n}"

    results = stream_batch_process(source(), client, MODEL, batch_size=16, max_tokens=3)
    assert read == []
    assert next(results) == "re: Prompt 0"
    assert len(read) < 500
    for n, text in enumerate(results, 1):
        assert text == f"re: Prompt {n}"
        if n == 200:
            break
    results.close()  # type: ignore[attr-defined]
    assert len(read) < 1000
    assert max(map(len, server.batches)) <= 16
    assert server.requests[0]["max_tokens"] == 3


def test_streams_send_full_batches(server: LocalServer, client: Any) -> None:
    texts = list(stream_batch_process([str(n) for n in range(100)], client, MODEL, batch_size=16))
    assert texts == [f"re: {n}" for n in range(100)]
    assert len(server.batches) <= 10
    assert list(stream_batch_process([], client, MODEL)) == []


@pytest.mark.parametrize(
    ("errors", "second"), [("none", None), ("return", openai.InternalServerError)]
)
def test_what_failed_in_a_stream(
    server: LocalServer, client: Any, errors: str, second: Any
) -> None:
    server.before = lambda body: 500 if "bad" in body["prompt"] else None
    results = list(
        stream_batch_process(["a", "bad", "b"], client, MODEL, batch_size=1, errors=errors)
    )
    assert (results[0], results[2]) == ("re: a", "re: b")
    assert results[1] is None if second is None else isinstance(results[1], second)


def test_streams_that_raise(server: LocalServer, client: Any) -> None:
    server.before = lambda body: 500 if "bad" in body["prompt"] else None
    results = stream_batch_process(["a", "bad"], client, MODEL, batch_size=1, errors="raise")
    assert next(results) == "re: a"
    with pytest.raises(openai.InternalServerError):
        next(results)
    with pytest.raises(ValueError, match="errors must be one of"):
        stream_batch_process(["a"], client, MODEL, errors="hide")


def test_files(server: LocalServer, client: Any, tmp_path: Path) -> None:
    path = tmp_path / "large_dataset.txt"
    path.write_text("".join(f"  line {n} ä\n" for n in range(75)) + "last", encoding="utf-8")
    results = chunked_batch_process(path, client, MODEL, chunk_size=40, batch_size=8)
    assert results == [*(f"re: line {n} ä" for n in range(75)), "re: last"]
    assert max(map(len, server.batches)) <= 8
    server.before = lambda body: 500
    assert chunked_batch_process(str(path), client, MODEL) == [None] * 76
    with pytest.raises(OSError):
        chunked_batch_process(tmp_path / "absent", client, MODEL)


def test_what_failed_is_tried_again(server: LocalServer, client: Any) -> None:
    tries: dict[str, int] = {}

    def before(body: dict[str, Any]) -> int | None:
        for prompt in body["prompt"]:
            tries[prompt] = tries.get(prompt, 0) + 1
        return (
            500 if any(prompt == "bad" or tries[prompt] == 1 for prompt in body["prompt"]) else None
        )

    server.before = before
    results = robust_batch_process(["a", "bad", "b"], client, MODEL, batch_size=1, backoff_s=0)
    assert results == ["re: a", None, "re: b"]
    assert tries == {"a": 2, "bad": 3, "b": 2}
    tries.clear()
    assert robust_batch_process(["a"], client, MODEL, max_retries=1, backoff_s=0) == [None]
    assert tries == {"a": 1}
    with pytest.raises(openai.InternalServerError):
        robust_batch_process(["bad"], client, MODEL, backoff_s=0, errors="raise")
    with pytest.raises(ValueError, match="max_retries"):
        robust_batch_process(["a"], client, MODEL, max_retries=0)


# ----------------------------------------------------------------------------------- measuring


def fake_client(create: Callable[..., Any]) -> Any:
    return SimpleNamespace(completions=SimpleNamespace(create=create))


def test_measuring(server: LocalServer, client: Any) -> None:
    results = benchmark_batch_sizes(client, MODEL, ["Test prompt"] * 10, [1, 4, 16])
    assert [len(batch) for batch in server.batches] == [1] * 10 + [4, 4, 2] + [10]
    assert list(results) == [1, 4, 16]
    assert max(results.keys(), key=lambda x: results[x]["requests_per_second"]) in (1, 4, 16)


def test_figures_of_a_measurement() -> None:
    now = [0.0]

    def create(**asked: Any) -> None:
        if len(asked["prompt"]) == 3:
            raise OSError("three")
        now[0] += 0.5

    results = benchmark_batch_sizes(
        fake_client(create), MODEL, ["x"] * 4, [2, 3], errors="skip", clock=lambda: now[0]
    )
    assert results == {
        2: {
            "avg_time_per_request": 0.25,
            "requests_per_second": 4.0,
            "total_time": 1.0,
            "total_requests": 4,
        },
        3: {
            "avg_time_per_request": 0.5,
            "requests_per_second": 2.0,
            "total_time": 0.5,
            "total_requests": 1,
        },
    }
    failing = fake_client(lambda **asked: 1 / 0)
    assert benchmark_batch_sizes(failing, MODEL, ["x"], [1], errors="skip") == {}
    with pytest.raises(ZeroDivisionError):
        benchmark_batch_sizes(failing, MODEL, ["x"], [1])
    with pytest.raises(ValueError, match="at least 1"):
        benchmark_batch_sizes(failing, MODEL, ["x"], [0])
    with pytest.raises(ValueError, match="errors must be"):
        benchmark_batch_sizes(failing, MODEL, ["x"], [1], errors="hide")


RESULTS = {
    4: {"requests_per_second": 40.0, "avg_time_per_request": 0.025},
    1: {"requests_per_second": 10.0, "avg_time_per_request": 0.1},
}


def test_drawing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path))
    plt = pytest.importorskip("matplotlib.pyplot")
    figure = plot_batch_performance(RESULTS, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1000
    left, right = figure.axes
    assert left.get_lines()[0].get_xydata().tolist() == [[1.0, 10.0], [4.0, 40.0]]
    assert right.get_lines()[0].get_xydata().tolist() == [[1.0, 0.1], [4.0, 0.025]]
    shown: list[bool] = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    plot_batch_performance(RESULTS)
    assert shown == [True]
    plt.close("all")


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"carpool\[openai\]"):
        InferneoClient()
    with pytest.raises(ImportError, match=r"carpool\[plot\]"):
        plot_batch_performance(RESULTS)


def test_any_client_of_that_style() -> None:
    def create(**asked: Any) -> Any:
        return SimpleNamespace(choices=[SimpleNamespace(text=f"re: {p}") for p in asked["prompt"]])

    with DynamicBatcher(fake_client(create), MODEL, max_wait_time=0) as batcher:
        call = in_thread(lambda: batcher.add_request("a")["future"].result(20))
        assert call.result(20) == "re: a"
    until(lambda: batcher.pending_requests == [])
