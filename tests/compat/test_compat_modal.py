"""The front door of Modal: decorators, batched functions, calls of every form, the app, what is ignored."""

from __future__ import annotations

import asyncio
import functools
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import carpool
from carpool.compat import modal
from carpool.compat.modal import exception
from gates import Gate, in_thread, until

NEVER_MS = 600_000


@pytest.fixture
def app() -> Any:
    made = modal.App("test")
    yield made
    made.stop()


def batched_of(app: modal.App, function: Callable[..., Any], **settings: Any) -> modal.Function:
    settings = {"max_batch_size": 4, "wait_ms": 0, **settings}
    return app.function()(modal.batched(**settings)(function))


def add(xs: list[int], ys: list[int]) -> list[int]:
    return [x + y for x, y in zip(xs, ys, strict=True)]


async def aadd(xs: list[int], ys: list[int]) -> list[int]:
    await asyncio.sleep(0)
    return [x + y for x, y in zip(xs, ys, strict=True)]


@pytest.fixture(params=[add, aadd], ids=["def", "async def"])
def adding(request: pytest.FixtureRequest, app: modal.App) -> modal.Function:
    return batched_of(app, request.param)


# --------------------------------------------------------------------------------- validation


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"max_batch_size": 0, "wait_ms": 1}, "max_batch_size must be a positive integer."),
        ({"max_batch_size": "a", "wait_ms": 1}, "max_batch_size must be a positive integer."),
        ({"max_batch_size": 1001, "wait_ms": 1}, "max_batch_size cannot be greater than 1000."),
        ({"max_batch_size": 1, "wait_ms": -1}, "wait_ms must be a non-negative integer."),
        ({"max_batch_size": 1, "wait_ms": 0.5}, "wait_ms must be a non-negative integer."),
        ({"max_batch_size": 1, "wait_ms": 600_001}, "wait_ms cannot be greater than 600000."),
    ],
)
def test_settings_of_batched(app: modal.App, settings: dict[str, Any], text: str) -> None:
    with pytest.raises(modal.InvalidError) as caught:
        modal.batched(**settings)
    assert str(caught.value) == text
    with pytest.raises(modal.InvalidError) as caught:
        batched_of(app, add).with_batching(**settings)
    assert str(caught.value) == text


def test_wait_ms_may_be_left_out(app: modal.App) -> None:
    made = modal.batched(max_batch_size=2)(add)
    assert made.batching == (2, 100)
    with pytest.raises(TypeError):
        modal.batched(wait_ms=3)


@pytest.mark.parametrize(
    ("decorate", "suggestion"),
    [
        (modal.batched, "modal.batched"),
        (modal.concurrent, "modal.concurrent"),
        (modal.method, "modal.method"),
        (modal.enter, "modal.enter"),
        (modal.exit, "modal.exit"),
        (modal.fastapi_endpoint, "modal.fastapi_endpoint"),
        (modal.App().function, "app.function"),
        (modal.App().cls, "app.cls"),
        (modal.App().local_entrypoint, "app.local_entrypoint"),
    ],
)
def test_parentheses_are_missed(decorate: Any, suggestion: str) -> None:
    with pytest.raises(modal.InvalidError) as caught:
        decorate(add)
    assert str(caught.value) == (
        f"Positional arguments are not allowed. Did you forget parentheses? "
        f"Suggestion: `@{suggestion}()`."
    )


def test_functions_that_cannot_be_batched(app: modal.App) -> None:
    def with_default(xs: list[int], ys: Any = 3) -> list[int]:
        return xs

    def generator(xs: list[int]) -> Any:
        yield xs

    async def agenerator(xs: list[int]) -> Any:
        yield xs

    def several(*xs) -> list[int]:  # type: ignore[no-untyped-def]
        return []

    for function, text in [
        (with_default, "Modal batched function with_default does not accept default arguments."),
        (generator, "Modal batched function generator cannot return generators"),
        (agenerator, "Modal batched function agenerator cannot return generators"),
        (several, "Modal batched function several does not accept *xs."),
    ]:
        with pytest.raises(modal.InvalidError) as caught:
            batched_of(app, function)
        assert str(caught.value) == text
    with pytest.raises(modal.InvalidError, match="decorates a function or method"):
        modal.batched(max_batch_size=2)(functools.partial(add))
    with pytest.raises(modal.InvalidError, match="twice"):
        modal.batched(max_batch_size=2)(modal.batched(max_batch_size=2)(add))


def test_settings_of_concurrent(app: modal.App) -> None:
    with pytest.raises(modal.InvalidError, match="cannot be greater than"):
        modal.concurrent(max_inputs=2, target_inputs=3)
    for missing in ({}, {"target_inputs": 2}):
        with pytest.raises(TypeError, match="missing required argument: `max_inputs`"):
            modal.concurrent(**missing)
    for wrong in ({"max_inputs": 0}, {"max_inputs": "a"}, {"target_inputs": -1}):
        with pytest.raises(modal.InvalidError, match="positive integer"):
            modal.concurrent(**wrong)
    with pytest.raises(modal.InvalidError, match="cannot be combined"):
        modal.enter()(modal.concurrent(max_inputs=2)(add))


def test_errors_have_modal_s_names() -> None:
    assert exception.InvalidError is modal.InvalidError
    assert issubclass(modal.InvalidError, modal.Error)
    assert modal.is_local()


# ---------------------------------------------------------------------------------- one call


def test_a_call_is_of_one_input(adding: modal.Function, run: Callable[..., Any]) -> None:
    assert adding.remote(1, 2) == 3
    assert adding.remote(1, ys=2) == 3
    assert adding.remote(ys=2, xs=1) == 3
    assert adding(4, 5) == 9

    async def main() -> None:
        assert await adding.remote.aio(1, 2) == 3
        assert await asyncio.create_task(adding.remote.aio(3, ys=2)) == 5
        answers = await asyncio.gather(*(adding.remote.aio(n, n) for n in range(100)))
        assert answers == [2 * n for n in range(100)]

    run(main())


def test_local_is_the_function_itself(app: modal.App, run: Callable[..., Any]) -> None:
    assert batched_of(app, add).local([1, 2], [3, 4]) == [4, 6]

    async def main() -> None:
        assert await batched_of(app, aadd).local([1], [2]) == [3]

    run(main())


def test_threads_and_loops_share_the_batches(
    adding: modal.Function, run: Callable[..., Any]
) -> None:
    async def main(start: int) -> list[int]:
        calls = (adding.remote.aio(n, 1) for n in range(start, start + 50))
        return await asyncio.gather(*calls)

    with ThreadPoolExecutor(8) as threads:
        loops = [threads.submit(run, main(100 * n)) for n in range(2)]
        lists = [
            threads.submit(lambda n=n: list(adding.starmap((n, i) for i in range(50))))
            for n in range(2)
        ]
        singles = [threads.submit(adding.remote, n, n) for n in range(50)]
        for n, loop in enumerate(loops):
            assert loop.result(30) == [i + 1 for i in range(100 * n, 100 * n + 50)]
        for n, many in enumerate(lists):
            assert many.result(30) == [n + i for i in range(50)]
        assert [one.result(30) for one in singles] == [2 * n for n in range(50)]


def test_spawn(app: modal.App, gate: Gate, run: Callable[..., Any]) -> None:
    held = batched_of(app, gate.handler, max_batch_size=1)
    first, second = held.spawn(1), held.spawn(2)
    gate.entered()
    with pytest.raises(TimeoutError):
        first.get(timeout=0)
    assert isinstance(first, modal.FunctionCall)
    assert first.object_id != second.object_id
    second.cancel()
    with pytest.raises(exception.InputCancellation):
        second.get()
    running = held.spawn(3)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await first.get.aio(timeout=0)
        gate.open()
        assert await first.get.aio() == ("answer", 1)
        third = await held.spawn.aio(4)
        assert await third.get.aio() == ("answer", 4)
        await third.cancel.aio()

    run(main())
    assert first.get() == first.get(timeout=1) == ("answer", 1)
    assert modal.FunctionCall.gather(first, running) == [("answer", 1), ("answer", 3)]
    assert gate.items == [1, 3, 4]


def test_a_cancelled_call_that_runs_leaves_its_batch_alone(app: modal.App, gate: Gate) -> None:
    held = batched_of(app, gate.handler, max_batch_size=2, wait_ms=NEVER_MS)
    first, second = held.spawn(1), held.spawn(2)
    gate.entered()
    first.cancel()
    with pytest.raises(exception.InputCancellation):
        first.get()
    gate.open()
    assert second.get() == ("answer", 2)


# ------------------------------------------------------------------------------------ batches


def test_a_full_batch_leaves_at_once_and_a_lone_input_in_time(app: modal.App) -> None:
    sizes: list[int] = []

    def echo(items: list[int]) -> list[int]:
        sizes.append(len(items))
        return items

    assert list(batched_of(app, echo, wait_ms=NEVER_MS).map(range(8))) == list(range(8))
    assert sizes == [4, 4]
    assert batched_of(app, echo, wait_ms=1).remote(1) == 1


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize("most", [1, 3])
def test_concurrent_batches(app: modal.App, gate: Gate, kind: str, most: int) -> None:
    handler = gate.handler if kind == "def" else gate.ahandler
    decorated = modal.concurrent(max_inputs=most)(
        modal.batched(max_batch_size=1, wait_ms=0)(handler)
    )
    held = app.function()(decorated)
    calls = [held.spawn(n) for n in range(6)]
    gate.entered(most)
    until(lambda: held.stats.pending == 6 - most)
    gate.open()
    assert [call.get() for call in calls] == [("answer", n) for n in range(6)]
    assert gate.most_running == most
    assert held.with_concurrency(max_inputs=2)._settings["max_inputs"] == 2


def test_async_functions_share_one_event_loop(app: modal.App) -> None:
    loops: set[Any] = set()

    async def echo(items: list[int]) -> list[int]:
        loops.add(asyncio.get_running_loop())
        return items

    decorated = modal.concurrent(max_inputs=4)(modal.batched(max_batch_size=1, wait_ms=0)(echo))
    held = app.function()(decorated)
    assert list(held.map(range(20))) == list(range(20))
    assert len(loops) == 1


def test_with_batching(app: modal.App) -> None:
    sizes: list[int] = []

    def echo(items: list[int]) -> list[int]:
        sizes.append(len(items))
        return items

    small = batched_of(app, echo, max_batch_size=1)
    large = small.with_batching(max_batch_size=3, wait_ms=NEVER_MS)
    assert list(large.map(range(6))) == list(range(6))
    assert list(small.map(range(2))) == [0, 1]
    assert sizes == [3, 3, 1, 1]
    large.stop()


def test_functions_that_are_not_batched(app: modal.App, run: Callable[..., Any]) -> None:
    @app.function()
    def greet(name: str, *more: str, mark: str = "!") -> str:
        return " ".join(["hello", name, *more]) + mark

    @app.function()
    async def agreet(name: str) -> str:
        await asyncio.sleep(0)
        return f"hello {name}"

    assert greet.remote("you") == "hello you!"
    assert greet.remote("you", "too", mark="?") == "hello you too?"
    assert list(greet.map("ab", kwargs={"mark": "."})) == ["hello a.", "hello b."]
    assert agreet.remote("you") == "hello you"
    assert greet.local("you") == "hello you!"
    with pytest.raises(TypeError):
        greet.remote()

    @app.function()
    def count(to: int) -> Any:
        yield from range(to)

    assert list(count.local(3)) == [0, 1, 2]
    with pytest.raises(modal.InvalidError, match="is a generator"):
        count.remote(3)


# -------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((1,), {}, "takes 2 positional arguments, but one invocation in the batch has 1."),
        ((1, 2, 3), {}, "takes 2 positional arguments, but one invocation in the batch has 3."),
        ((1,), {"zs": 2}, "got unexpected keyword argument zs in one invocation in the batch."),
        ((1,), {"xs": 2}, "got multiple values for argument xs in one invocation in the batch."),
    ],
)
def test_a_wrong_call_fails_its_caller_alone(
    app: modal.App, args: Any, kwargs: Any, text: str
) -> None:
    adding = batched_of(app, add, max_batch_size=2, wait_ms=NEVER_MS)
    good = adding.spawn(1, 2)
    with pytest.raises(modal.InvalidError) as caught:
        adding.remote(*args, **kwargs)
    assert str(caught.value) == f"Modal batched function add {text}"
    assert adding.remote(3, 4) == 7
    assert good.get() == 3


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ((1, 2), "must be a list."),
        (None, "must be a list."),
        ("ab", "must be a list."),
        ([1], "must be a list of equal length as its inputs."),
        ([1, 2, 3], "must be a list of equal length as its inputs."),
    ],
)
def test_outputs_are_lists(app: modal.App, output: Any, text: str) -> None:
    def wrong(items: list[int]) -> Any:
        return output

    function = batched_of(app, wrong, max_batch_size=2, wait_ms=NEVER_MS)
    calls = [function.spawn(n) for n in range(2)]
    for call in calls:
        with pytest.raises(modal.InvalidError) as caught:
            call.get()
        assert str(caught.value) == f"Output of batched function wrong {text}"


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize("error", [LookupError("no"), SystemExit(3)])
def test_every_input_of_a_failed_batch_is_told(
    app: modal.App, kind: str, error: BaseException
) -> None:
    def failing(items: list[int]) -> list[int]:
        raise error

    async def afailing(items: list[int]) -> list[int]:
        raise error

    function = batched_of(
        app, failing if kind == "def" else afailing, max_batch_size=2, wait_ms=NEVER_MS
    )
    calls = [function.spawn(n) for n in range(2)]
    kinds = LookupError if isinstance(error, LookupError) else carpool.HandlerError
    for call in calls:
        with pytest.raises(kinds):
            call.get()


def test_a_call_that_waits_for_itself_is_found_out(app: modal.App) -> None:
    @app.function()
    def once(n: int) -> int:
        return once.remote(n)  # type: ignore[no-any-return]

    @app.function()
    async def aonce(n: int) -> int:
        return await aonce.remote.aio(n)  # type: ignore[no-any-return]

    for function in (once, aonce):
        with pytest.raises(carpool.WouldDeadlock):
            function.remote(1)


# ------------------------------------------------------------------------------- app and the rest


def test_nothing_starts_before_the_first_call(app: modal.App) -> None:
    before = threading.active_count()
    batched_of(app, aadd)
    assert threading.active_count() <= before


def test_an_app_that_was_stopped_begins_anew(app: modal.App, run: Callable[..., Any]) -> None:
    adding = batched_of(app, aadd)
    before = threading.active_count()
    with app.run() as same:
        assert same is app
        assert adding.remote(1, 2) == 3
    until(lambda: threading.active_count() <= before)
    assert adding.remote(2, 3) == 5

    async def main() -> None:
        async with app.run():
            assert await adding.remote.aio(3, 4) == 7

    run(main())
    app.stop()
    until(lambda: threading.active_count() <= before)


def test_what_was_accepted_is_answered_at_the_end(app: modal.App, gate: Gate) -> None:
    held = batched_of(app, gate.handler, max_batch_size=1)
    calls = [held.spawn(n) for n in range(3)]
    gate.entered()
    end = in_thread(app.stop)
    gate.open()
    end.result(20)
    assert [call.get() for call in calls] == [("answer", n) for n in range(3)]


def test_what_describes_a_container_is_ignored_with_a_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    image = modal.Image.debian_slim(python_version="3.11").pip_install("torch").env({"A": "b"})
    with caplog.at_level(logging.INFO, logger="carpool"):
        app = modal.App("ignoring", image=image, secrets=[modal.Secret.from_name("s")])

        @app.function(
            gpu=modal.gpu.A100(count=2),
            volumes={"/data": modal.Volume.from_name("v", create_if_missing=True)},
            retries=modal.Retries(max_retries=3),
            schedule=modal.Period(days=1),
            timeout=None,
        )
        def echo(n: int) -> int:
            return n

        @app.cls(gpu="T4", container_idle_timeout=300)
        class Some:
            @modal.method()
            def echo(self, n: int) -> int:
                return n

    with image.imports():
        import json  # noqa: F401
    assert (echo.remote(1), Some().echo.remote(2)) == (1, 2)
    assert [record.getMessage() for record in caplog.records] == [
        "app ignoring runs in this process; ignored: image, secrets",
        "echo runs in this process; ignored: gpu, retries, schedule, volumes",
        "Some runs in this process; ignored: container_idle_timeout, gpu",
    ]
    app.stop()
    with pytest.raises(TypeError, match="has no option 'gpus'; did you mean 'gpu'"):
        app.function(gpus="A100")


def test_functions_have_names(app: modal.App) -> None:
    adding = app.function(name="adding")(modal.batched(max_batch_size=2)(add))
    assert app.registered_functions == {"adding": adding}
    assert adding.__name__ == "add"
    assert adding.get_raw_f() is add


def test_local_entrypoints(app: modal.App, run: Callable[..., Any]) -> None:
    @app.local_entrypoint()
    def main(n: int = 1) -> int:
        return n

    @app.local_entrypoint(name="other")
    async def amain() -> int:
        return 2

    assert main(n=3) == 3
    assert amain() == 2

    async def within() -> None:
        assert await amain() == 2

    run(within())
    with pytest.raises(
        modal.InvalidError, match=r"name: other\. Local entrypoint names must be unique\."
    ):
        app.local_entrypoint(name="other")(lambda: None)


SCRIPT = """
from __future__ import annotations
from typing import Any, Literal, Optional
import datetime
import pickle
import neighbour
from carpool.compat import modal
app = modal.App()
@app.function()
@modal.batched(max_batch_size=2, wait_ms=1)
def doubled(items: list[int]) -> list[int]:
    return [item * neighbour.TWO for item in items]
@app.local_entrypoint()
def main(number: int, word: str = "is"):
    print(word, pickle.loads(pickle.dumps(doubled)).remote(number))
@app.local_entrypoint()
async def other():
    print("other", await doubled.remote.aio(4))
@app.local_entrypoint()
def kinds(
    a_flag: bool, off: bool = True, size: Literal[1, 2] = 1, part: Optional[float] = None,
    many: int | None = 3, day: datetime.date | None = None, thing=None,
):
    print(a_flag, off, size, part, many, thing)
@app.local_entrypoint()
def days(day: datetime.datetime, *, thing: Any = 1):
    print(day.year, thing)
@app.local_entrypoint()
def rest(*words):
    print(words)
"""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["::main", "--number", "3"], 0, "is 6\n"),
        (["::main", "--number=3", "--word", "was"], 0, "was 6\n"),
        (["::other"], 0, "other 8\n"),
        ([""], 2, ""),
        (["::nobody"], 2, ""),
        (["::other", "--number", "3"], 2, ""),
        (["::main", "--number"], 2, ""),
        (["::main"], 2, ""),
        (["::main", "--number", "three"], 2, ""),
        (["::kinds"], 2, ""),
        (["::days", "--day", "2024-02-03"], 0, "2024 1\n"),
        (["::days", "--day", "2024-02-03", "--thing", "x"], 0, "2024 x\n"),
        (["::rest", "a", "--b"], 0, "('a', '--b')\n"),
        (["x"], 2, ""),
    ],
)
def test_running_an_entrypoint(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    check_run(tmp_path, SCRIPT, arguments, code, said)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["::kinds", "--a-flag"], 0, "True True 1 None 3 None\n"),
        (
            [
                "::kinds",
                "--no-a-flag",
                "--no-off",
                "--size=2",
                "--part=0.5",
                "--many=4",
                "--thing=t",
            ],
            0,
            "False False 2 0.5 4 t\n",
        ),
        (["::kinds", "--a-flag", "--size", "3"], 2, ""),
    ],
)
def test_kinds_of_arguments(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    check_run(
        tmp_path, SCRIPT.replace(" day: datetime.date | None = None,", ""), arguments, code, said
    )


def check_run(folder: Path, text: str, arguments: list[str], code: int, said: str) -> None:
    script = folder / "script.py"
    script.write_text(text)
    (folder / "neighbour.py").write_text("TWO = 2")
    outcome = subprocess.run(
        [
            sys.executable,
            "-m",
            "carpool.compat.modal",
            "run",
            f"{script}{arguments[0]}",
            *arguments[1:],
        ],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (outcome.returncode, outcome.stdout) == (code, said), outcome.stderr
    assert bool(outcome.stderr) == bool(code)
