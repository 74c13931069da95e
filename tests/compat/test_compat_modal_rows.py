"""The front door of Modal: what its guide says in passing, line by line: decorators that do not go together, calls that were
spawned, options of every form, concurrency wherever it is asked for, and that nothing of the guide's table is missing."""

from __future__ import annotations

import asyncio
import gc
import pickle
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from carpool.compat import modal
from carpool.compat.modal import exception
from gates import Gate, auntil, in_thread, until

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "moving" / "modal.md"


@pytest.fixture
def app() -> Iterator[modal.App]:
    made = modal.App("test")
    yield made
    made.stop()


def echo(items: list[Any]) -> list[Any]:
    return items


batched = modal.batched(max_batch_size=4, wait_ms=0)


class Plain:
    def method(self, items: list[Any]) -> list[Any]:
        return items


# --------------------------------------------------------------------------- what goes together


@pytest.mark.parametrize(
    ("decorate", "text"),
    [
        (
            lambda app: batched(Plain),
            "Cannot apply `@modal.batched` to a class. Hint: consider applying to a method instead.",
        ),
        (
            lambda app: modal.method()(Plain),
            "Cannot apply `@modal.method` to a class. Hint: consider applying to a method instead.",
        ),
        (lambda app: batched(3), "The object wrapped by `@modal.batched` must be callable."),
        (
            lambda app: batched(app.function()(echo)),
            "Cannot stack `@modal.batched` on top of `@app.function`. Hint: swap the order of the decorators.",
        ),
        (
            lambda app: modal.concurrent(max_inputs=2)(app.cls()(Plain)),
            "Cannot stack `@modal.concurrent` on top of `@app.cls()`. Hint: swap the order of the decorators.",
        ),
        (
            lambda app: modal.fastapi_endpoint()(batched(echo)),
            "Callable decorators cannot be combined with web interface decorators.",
        ),
        (
            lambda app: modal.method()(modal.fastapi_endpoint()(echo)),
            "Callable decorators cannot be combined with web interface decorators.",
        ),
        (
            lambda app: app.function()(Plain.method),
            "The `@app.function` decorator cannot be used on class methods. "
            "Please use `@app.cls` with `@modal.method` instead.",
        ),
        (
            lambda app: app.function()(batched(Plain.method)),
            "The `@app.function` decorator cannot be used on class methods. "
            "Swap with `@modal.method` or one of the Web Function decorators.",
        ),
        (lambda app: modal.App(3), "Invalid value for `name`: Must be string."),  # type: ignore[arg-type]
        (lambda app: app.local_entrypoint(name=3), "Invalid value for `name`: Must be string."),
    ],
)
def test_what_does_not_go_together(
    app: modal.App, decorate: Callable[[modal.App], Any], text: str
) -> None:
    with pytest.raises(modal.InvalidError) as caught:
        decorate(app)
    assert str(caught.value) == text


def test_functions_are_no_classes(app: modal.App) -> None:
    with pytest.raises(TypeError, match=r"cannot be used on a class. Please use `@app.cls`"):
        app.function()(Plain)


def test_fields_take_names_and_have_defaults(app: modal.App) -> None:
    @app.cls()
    class Model:
        size: int = modal.parameter()
        limit: int = modal.parameter(default=5)

        @modal.method()
        def get(self) -> tuple[int, int]:
            return self.size, self.limit

    with pytest.raises(modal.InvalidError, match="Can't use positional arguments"):
        Model(3).get.local()
    assert Model(size=3).get.remote() == (3, 5)

    # Without `app.cls` it is a class like any other.
    plain = Model.user_cls()
    assert plain.limit == 5
    with pytest.raises(AttributeError, match="no default value"):
        _ = plain.size


# --------------------------------------------------------------------------------------- calls


def test_parameters_by_name_only(app: modal.App, run: Callable[..., Any]) -> None:
    @app.function()
    @modal.batched(max_batch_size=4, wait_ms=0)
    def add(xs: list[int], /, ys: list[int], *, zs: list[int]) -> list[int]:
        return [x + y + z for x, y, z in zip(xs, ys, zs, strict=True)]

    @app.cls()
    class Model:
        @modal.batched(max_batch_size=4, wait_ms=0)
        async def add(self, *, xs: list[int], ys: list[int]) -> list[int]:
            return [x + y for x, y in zip(xs, ys, strict=True)]

    assert add.remote(1, 2, zs=3) == add.remote(1, zs=3, ys=2) == 6
    assert list(add.starmap([(1, 2), (3, 4)], kwargs={"zs": 10})) == [13, 17]
    assert add.local([1], [2], zs=[3]) == [6]

    async def main() -> None:
        assert await Model().add.remote.aio(xs=1, ys=2) == 3
        assert await Model().add.remote.aio(1, ys=2) == 3

    run(main())


def test_results_are_for_loops_of_either_kind(app: modal.App, run: Callable[..., Any]) -> None:
    doubled = app.function()(
        modal.batched(max_batch_size=4, wait_ms=0)(lambda items: [item * 2 for item in items])
    )

    async def main() -> None:
        assert [n async for n in doubled.map(range(10))] == [2 * n for n in range(10)]
        assert [n async for n in doubled.starmap([(1,), (2,)])] == [2, 4]
        found = [n async for n in doubled.map(range(10), order_outputs=False)]
        assert sorted(found) == [2 * n for n in range(10)]

    run(main())
    results = doubled.map(range(10))
    assert (next(results), next(results)) == (0, 2)
    assert list(results) == [2 * n for n in range(2, 10)]


@pytest.mark.parametrize("wrapped", [None, False, True])
def test_returned_exceptions_are_never_wrapped(
    app: modal.App, run: Callable[..., Any], wrapped: bool | None
) -> None:
    @app.function()
    def fail(n: int) -> int:
        raise LookupError(n)

    how: Any = {"return_exceptions": True, "wrap_returned_exceptions": wrapped}
    assert [type(one) for one in fail.map([1, 2], **how)] == [LookupError] * 2
    assert [type(one) for one in fail.starmap([(1,)], **how)] == [LookupError]

    async def main() -> None:
        assert [type(one) async for one in fail.map.aio([1], **how)] == [LookupError]
        assert [type(one) async for one in fail.starmap.aio([(1,)], **how)] == [LookupError]

    run(main())


@pytest.mark.parametrize("form", ["blocking", "aio"])
def test_for_each_tells_an_error_before_slower_ones_end(
    app: modal.App, gate: Gate, run: Callable[..., Any], form: str
) -> None:
    @app.function()
    @modal.concurrent(max_inputs=2)
    def held(n: int) -> Any:
        if n:
            raise LookupError(n)
        return gate.run([n])

    if form == "blocking":
        with pytest.raises(LookupError):
            held.for_each(range(2))
    else:

        async def main() -> None:
            with pytest.raises(LookupError):
                await held.for_each.aio(range(2))

        run(main())
    gate.open()


def test_an_exception_in_the_place_of_an_output(app: modal.App) -> None:
    @app.function()
    @modal.batched(max_batch_size=3, wait_ms=600_000)
    def parse(texts: list[str]) -> list[Any]:
        return [int(text) if text.isdigit() else ValueError(text) for text in texts]

    first, bad, last = [parse.spawn(text) for text in ("1", "x", "3")]
    assert (first.get(), last.get()) == (1, 3)
    with pytest.raises(ValueError, match="x"):
        bad.get()


# ---------------------------------------------------------------------------- calls that were spawned


def test_whoever_waits_for_a_call_is_told_that_it_was_cancelled(
    app: modal.App, gate: Gate, run: Callable[..., Any]
) -> None:
    held = app.function()(modal.batched(max_batch_size=1, wait_ms=0)(gate.handler))
    running = held.spawn(1)
    gate.entered()
    waiter = in_thread(running.get)

    async def main() -> None:
        waiting = asyncio.ensure_future(running.get.aio())
        await auntil(lambda: bool(running._waiting))
        # From another thread: it must wake this loop.
        await asyncio.to_thread(running.cancel)
        with pytest.raises(exception.InputCancellation):
            await waiting
        with pytest.raises(exception.InputCancellation):
            await running.get.aio(timeout=0)
        running.cancel()

    run(main())
    with pytest.raises(exception.InputCancellation):
        waiter.result(20)
    gate.open()
    assert held.remote(2) == ("answer", 2)
    ended = held.spawn(3)
    assert ended.get() == ("answer", 3)
    ended.cancel()
    assert ended.get() == ("answer", 3)


def test_a_wait_that_was_given_up_leaves_nothing_behind(
    app: modal.App,
    new_gate: Callable[..., Gate],
    run: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(item: Any) -> Any:
        raise LookupError(item)

    gate = new_gate(fail)
    held = app.function()(modal.batched(max_batch_size=1, wait_ms=0)(gate.handler))
    call = held.spawn(1)
    gate.entered()

    async def main() -> None:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await call.get.aio(timeout=0)
        waiting = asyncio.ensure_future(call.get.aio())
        await auntil(lambda: bool(call._waiting))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not call._waiting
        gate.open()
        with pytest.raises(LookupError):
            await call.get.aio()

    run(main())
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_gathering_calls(
    app: modal.App, new_gate: Callable[..., Gate], run: Callable[..., Any]
) -> None:
    gate = new_gate()
    held = app.function()(modal.batched(max_batch_size=1, wait_ms=0)(gate.handler))

    @app.function()
    def fail(n: int) -> int:
        raise LookupError(n)

    # One is held at the gate: the error does not wait for it.
    slow = held.spawn(1)
    with pytest.raises(LookupError):
        modal.FunctionCall.gather(slow, fail.spawn(2))

    async def main() -> None:
        with pytest.raises(LookupError):
            await modal.FunctionCall.gather.aio(slow, fail.spawn(3))
        gate.open()
        assert await modal.FunctionCall.gather.aio(slow, held.spawn(4)) == [
            ("answer", 1),
            ("answer", 4),
        ]
        assert await modal.FunctionCall.gather.aio() == []

    run(main())
    assert modal.FunctionCall.gather(held.spawn(5), slow) == [("answer", 5), ("answer", 1)]
    assert modal.FunctionCall.gather() == []
    stuck = new_gate()
    given_up = app.function()(batched(stuck.handler)).spawn(6)
    stuck.entered()
    given_up.cancel()
    with pytest.raises(exception.InputCancellation):
        modal.FunctionCall.gather(slow, given_up)
    stuck.open()


def test_a_call_has_one_result(app: modal.App, run: Callable[..., Any]) -> None:
    call = app.function()(batched(echo)).spawn(7)
    assert call.get(index=0) == 7
    with pytest.raises(IndexError):
        call.get(index=1)

    async def main() -> None:
        assert await call.get.aio(index=0) == 7
        with pytest.raises(IndexError):
            await call.get.aio(index=1)

    run(main())


# --------------------------------------------------------------------------------- concurrency


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize("where", ["class", "method", "with_concurrency", "nowhere"])
def test_concurrency_of_methods(app: modal.App, gate: Gate, kind: str, where: str) -> None:
    most = 1 if where == "nowhere" else 3
    concurrent = modal.concurrent(max_inputs=3)

    @modal.batched(max_batch_size=1, wait_ms=0)
    def call(self: Any, items: list[Any]) -> list[Any]:
        return gate.run(items)

    @modal.batched(max_batch_size=1, wait_ms=0)
    async def acall(self: Any, items: list[Any]) -> list[Any]:
        return await gate.arun(items)

    method: Any = call if kind == "def" else acall
    user_cls: Any = type("Model", (), {"call": concurrent(method) if where == "method" else method})
    made = app.cls()(concurrent(user_cls) if where == "class" else user_cls)
    if where == "with_concurrency":
        made = made.with_concurrency(max_inputs=3)
    call_of = made().call
    calls = [call_of.spawn(n) for n in range(6)]
    gate.entered(most)
    until(lambda: call_of.stats.pending == 6 - most)
    gate.open()
    assert [one.get() for one in calls] == [("answer", n) for n in range(6)]
    assert gate.most_running == most
    made.stop()


def inner(self: Any, n: int) -> int:
    return n * 2


named = modal.App("named")


@named.cls()
class Named:
    """Its method has another name than its function."""

    double = modal.method()(inner)

    @modal.method()
    def twice(self, n: int) -> int:
        return self.double.local(n) + self.double.remote(n)  # type: ignore[no-any-return]


def test_methods_go_by_their_names_in_the_class() -> None:
    assert Named().twice.remote(3) == 12
    assert pickle.loads(pickle.dumps(Named().double)).remote(4) == 8
    named.stop()


def test_threads_and_loops_share_an_object(app: modal.App, run: Callable[..., Any]) -> None:
    sizes: list[int] = []

    @app.cls()
    class Model:
        @modal.batched(max_batch_size=8, wait_ms=1)
        @modal.method()
        async def echo(self, items: list[int]) -> list[int]:
            sizes.append(len(items))
            return items

    async def main(start: int) -> list[int]:
        calls = (Model().echo.remote.aio(n) for n in range(start, start + 50))
        return await asyncio.gather(*calls)

    with ThreadPoolExecutor(8) as threads:
        loops = [threads.submit(run, main(100 * n)) for n in range(2)]
        many = threads.submit(lambda: list(Model().echo.map(range(500, 600))))
        singles = [threads.submit(Model().echo.remote, n) for n in range(50)]
        for n, one in enumerate(loops):
            assert one.result(30) == list(range(100 * n, 100 * n + 50))
        assert many.result(30) == list(range(500, 600))
        assert [one.result(30) for one in singles] == list(range(50))
    assert sum(sizes) == 250
    assert max(sizes) <= 8


# ------------------------------------------------------------------------------ what is ignored


@pytest.mark.parametrize(
    "name",
    [
        "CloudBucketMount",
        "Cron",
        "Image",
        "Mount",
        "NetworkFileSystem",
        "Period",
        "Proxy",
        "Retries",
        "SchedulerPlacement",
        "Secret",
        "Volume",
        "gpu",
    ],
)
def test_descriptions_take_any_form(name: str, run: Callable[..., Any]) -> None:
    kind = getattr(modal, name)
    made = kind("x", y=1)
    assert isinstance(made, kind)
    assert isinstance(kind.from_name("x", create_if_missing=True), kind)
    assert made.commit().reload() is made
    with made.batch_upload() as upload:
        upload.put_file("a", "b")
    assert list(made.listdir("/")) == []
    with pytest.raises(AttributeError):
        _ = made._private
    with pytest.raises(AttributeError):
        _ = kind._private

    async def main() -> None:
        await made.commit.aio()
        async with made.batch_upload():
            pass

    run(main())


def test_options_of_functions_change_nothing(app: modal.App) -> None:
    function = app.function(cpu=2, memory=512, enable_memory_snapshot=True)(batched(echo))
    other = function.with_options(gpu="H100", timeout=3)
    assert (other.remote(1), function.remote(2)) == (1, 2)
    assert other.get_raw_f() is echo
    with pytest.raises(TypeError, match="has no option"):
        function.with_options(gpus="H100")
    other.stop()


def test_output_may_be_enabled() -> None:
    with modal.enable_output():
        pass


# -------------------------------------------------------------------------------------- the web


def test_endpoints_answer_other_origins(app: modal.App, run: Callable[..., Any]) -> None:
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("fastapi")

    @app.function()
    @modal.fastapi_endpoint(method="POST", requires_proxy_auth=True, custom_domains=["a.b"])
    def greet(name: str) -> str:
        return f"hello {name}"

    async def main() -> None:
        transport = httpx.ASGITransport(app=app.asgi())
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            asked = {"Origin": "http://else.where", "Access-Control-Request-Method": "POST"}
            before = await client.options("/", headers=asked)
            assert before.status_code == 200
            assert "access-control-allow-origin" in before.headers
            reply = await client.post("/", params={"name": "you"}, headers=asked)
            assert reply.json() == "hello you"
            assert "access-control-allow-origin" in reply.headers

    run(main())


# ------------------------------------------------------------------------------------ the guide


def test_the_guide_has_a_row_for_each_name() -> None:
    rows = [line for line in GUIDE.read_text().splitlines() if line.startswith("|")]
    named = set(re.findall(r"[A-Za-z_]+", " ".join(re.findall(r"`[^`]+`", " ".join(rows)))))
    assert set(modal.__all__) <= named
    calls = {name for name in vars(modal.Function) if not name.startswith("_")}
    calls |= {"remote", "map", "starmap", "for_each", "spawn"}
    assert calls - {"get_raw_f", "stop"} <= named
    assert "get_raw_f" in named


def test_what_needs_the_platform_is_not_there(app: modal.App) -> None:
    for name in ("Dict", "Queue", "Sandbox", "asgi_app", "web_server"):
        assert not hasattr(modal, name)
    for thing, name in ((modal.Function, "from_name"), (modal.Cls, "from_name"), (app, "deploy")):
        assert not hasattr(thing, name)


def test_no_thread_is_left_behind(app: modal.App) -> None:
    before = threading.active_count()

    @app.cls()
    @modal.concurrent(max_inputs=3)
    class Model:
        @modal.batched(max_batch_size=4, wait_ms=0)
        async def echo(self, items: list[int]) -> list[int]:
            return items

    assert list(Model().echo.map(range(20))) == list(range(20))
    app.stop()
    until(lambda: threading.active_count() <= before)
