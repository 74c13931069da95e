"""The front door of Modal: classes, their objects, `enter` and `exit`, and endpoints on the web."""

from __future__ import annotations

import asyncio
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import carpool
from carpool.compat import modal
from gates import in_thread, run_script


@pytest.fixture
def app() -> Iterator[modal.App]:
    made = modal.App("test")
    yield made
    made.stop()


placed = modal.App("placed")


@placed.cls()
class Placed:
    limit = 9
    factor: int = modal.parameter(default=2)

    @staticmethod
    def doubled(n: int) -> int:
        return 2 * n

    @modal.batched(max_batch_size=4, wait_ms=0)
    def times(self, items: list[int]) -> list[int]:
        return [item * self.factor for item in items]


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_the_life_of_an_object(app: modal.App, run: Callable[..., Any], kind: str) -> None:
    life: list[str] = []

    if kind == "def":

        @app.cls()
        class Model:
            @modal.enter()
            def load(self) -> None:
                life.append("load")
                self.factor = 3

            @modal.enter()
            def warm(self) -> None:
                life.append("warm")

            @modal.batched(max_batch_size=4, wait_ms=0)
            def times(self, items: list[int]) -> list[int]:
                return [item * self.factor for item in items]

            @modal.exit()
            def free(self) -> None:
                life.append("free")

    else:

        @app.cls()
        class Model:  # type: ignore[no-redef]
            @modal.enter()
            async def load(self) -> None:
                life.append("load")
                self.factor = 3
                self.loop = asyncio.get_running_loop()

            @modal.enter()
            def warm(self) -> None:
                life.append("warm")

            @modal.batched(max_batch_size=4, wait_ms=0)
            async def times(self, items: list[int]) -> list[int]:
                assert asyncio.get_running_loop() is self.loop
                return [item * self.factor for item in items]

            @modal.exit()
            async def free(self) -> None:
                assert asyncio.get_running_loop() is self.loop
                life.append("free")

    model = Model()
    assert life == []
    assert model.times.remote(1) == 3
    assert list(model.times.map(range(20))) == [3 * n for n in range(20)]

    async def main() -> None:
        calls = (Model().times.remote.aio(n) for n in range(20))
        assert await asyncio.gather(*calls) == [3 * n for n in range(20)]

    run(main())
    assert life == ["load", "warm"]
    app.stop()
    app.stop()
    assert life == ["load", "warm", "free"]
    assert Model().times.remote(2) == 6
    assert life == ["load", "warm", "free", "load", "warm"]


def test_enter_runs_once_however_many_begin(app: modal.App) -> None:
    entered: list[int] = []

    @app.cls()
    @modal.concurrent(max_inputs=4)
    class Model:
        @modal.enter()
        def load(self) -> None:
            entered.append(threading.get_ident())

        @modal.method()
        def echo(self, n: int) -> int:
            return n

        @modal.method()
        def local(self) -> int:
            return 7

    calls = [in_thread(Model().echo.remote, n) for n in range(20)]
    assert [call.result(20) for call in calls] == list(range(20))
    assert Model().local.local() == 7
    assert len(entered) == 1


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_enter_may_use_the_object(app: modal.App, kind: str) -> None:
    class Model:
        @modal.method()
        def echo(self, n: int) -> int:
            return n

    if kind == "def":

        def load(self: Any) -> None:
            self.found = self.echo.local(3)

        Model.load = modal.enter()(load)  # type: ignore[attr-defined]
    else:

        async def aload(self: Any) -> None:
            self.found = self.echo.local(3)

        Model.load = modal.enter()(aload)  # type: ignore[attr-defined]
    model = app.cls()(Model)()
    assert model.echo.remote(1) == 1
    assert model.found == 3


def test_an_object_for_each_set_of_arguments(app: modal.App) -> None:
    @app.cls()
    class Model:
        def __init__(self, factor: int, more: Any = None) -> None:
            self.factor = factor

        @modal.batched(max_batch_size=4, wait_ms=0)
        def times(self, items: list[int]) -> list[int]:
            return [item * self.factor for item in items]

        def plain(self) -> int:
            return self.factor

    two, ten = Model(2), Model(10)
    assert (two.times.remote(3), ten.times.remote(3)) == (6, 30)
    assert (two.factor, ten.plain()) == (2, 10)
    assert Model(2).times is two.times
    assert Model(2, more=[1]).times is Model(2, more=[1]).times
    assert Model(2, more=[1]).times is not Model(2, more=[2]).times
    assert Model(1).times is not Model(True).times
    # What can be neither hashed nor pickled is never the same.
    lock = [threading.Lock()]
    assert Model(2, more=lock).times is not Model(2, more=lock).times
    assert Model(2).times.local([1, 2]) == [2, 4]


def test_parameters() -> None:
    assert Placed().times.remote(3) == 6
    assert Placed(factor=5).times.remote(3) == 15
    for wrong in (lambda: Placed(3), lambda: Placed(size=3)):
        with pytest.raises(modal.InvalidError):
            wrong().times.local([1])
    app = modal.App()

    @app.cls()
    class Needs:
        name: str = modal.parameter()
        fixed: int = modal.parameter(default=4, init=False)

        @modal.method()
        def get(self) -> Any:
            return self.name, self.fixed

    assert Needs(name="x").get.remote() == ("x", 4)
    with pytest.raises(modal.InvalidError, match="needs its parameter 'name'"):
        Needs().get.local()
    app.stop()
    placed.stop()


def test_decorators_in_either_order(app: modal.App) -> None:
    @app.cls(gpu="A100")
    class Server:
        @modal.concurrent(max_inputs=2)
        @modal.batched(max_batch_size=32)
        @modal.method()
        def process(self, items: list[int]) -> list[int]:
            return items

    @app.cls()
    class Other:
        @modal.method()
        @modal.batched(max_batch_size=2, wait_ms=0)
        def process(self, items: list[int]) -> list[int]:
            return items

    assert list(Server().process.map(range(32))) == list(range(32))
    assert Other().process.remote(1) == 1


def test_methods_call_each_other(app: modal.App) -> None:
    @app.cls()
    class Model:
        @modal.method()
        def outer(self, n: int) -> int:
            return self.inner.remote(n) + self.helper(n) + self.inner.local(n)  # type: ignore[no-any-return]

        @modal.method()
        def inner(self, n: int) -> int:
            return n * 2

        def helper(self, n: int) -> int:
            return n * 100

    assert Model().outer.remote(1) == 104


def test_methods_that_do_not_go_together(app: modal.App) -> None:
    def two() -> Any:
        class Two:
            @modal.batched(max_batch_size=2)
            def one(self, items: list[int]) -> list[int]:
                return items

            @modal.batched(max_batch_size=2)
            def other(self, items: list[int]) -> list[int]:
                return items

        return Two

    def mixed() -> Any:
        class Mixed:
            @modal.batched(max_batch_size=2)
            def one(self, items: list[int]) -> list[int]:
                return items

            @modal.method()
            def other(self, item: int) -> int:
                return item

        return Mixed

    def default() -> Any:
        class Default:
            @modal.batched(max_batch_size=2)
            def one(self, items: Any = ()) -> list[int]:
                return list(items)

        return Default

    for make, text in [
        (two, "Modal class Two can only have one batched function."),
        (mixed, "Modal class Mixed with a modal batched function cannot have other modal methods."),
        (default, "Modal batched function one does not accept default arguments."),
    ]:
        with pytest.raises(modal.InvalidError) as caught:
            app.cls()(make())
        assert str(caught.value) == text
    with pytest.raises(TypeError, match="must be used on a class"):
        app.cls()(modal.method()(lambda self: 1))
    with pytest.raises(modal.InvalidError, match="cannot be combined with lifecycle"):
        modal.enter()(modal.method()(lambda self: 1))


def test_the_class_itself_has_no_methods(app: modal.App) -> None:
    with pytest.raises(AttributeError, match="Did you forget to instantiate the class"):
        _ = Placed.times  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = Placed.nothing  # type: ignore[attr-defined]
    assert (Placed.limit, Placed.doubled(2)) == (9, 4)


def test_what_enter_raises_reaches_every_caller(app: modal.App) -> None:
    @app.cls()
    class Broken:
        @modal.enter()
        def load(self) -> None:
            raise OSError("no model")

        @modal.batched(max_batch_size=2, wait_ms=0)
        def echo(self, items: list[int]) -> list[int]:
            return items

    for _ in range(2):
        with pytest.raises(carpool.SetupError) as caught:
            Broken().echo.remote(1)
        assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(OSError, match="no model"):
        Broken().echo.local([1])


def test_with_batching_of_a_class(app: modal.App) -> None:
    sizes: list[int] = []

    @app.cls()
    class Model:
        @modal.batched(max_batch_size=1, wait_ms=0)
        def echo(self, items: list[int]) -> list[int]:
            sizes.append(len(items))
            return items

    large = Model.with_batching(max_batch_size=3, wait_ms=600_000)
    assert list(large().echo.map(range(6))) == list(range(6))
    assert list(Model().echo.map(range(2))) == [0, 1]
    assert sizes == [3, 3, 1, 1]
    assert Model.with_concurrency(max_inputs=3)().echo._settings["max_inputs"] == 3
    assert Model.with_options(gpu="H100")().echo.remote(1) == 1
    with pytest.raises(modal.InvalidError):
        Model.with_batching(max_batch_size=0, wait_ms=1)


def test_subclasses(app: modal.App) -> None:
    class Base:
        @modal.enter()
        def load(self) -> None:
            self.loaded = ["base"]

        @modal.batched(max_batch_size=2, wait_ms=0)
        def echo(self, items: list[int]) -> list[Any]:
            return [(item, tuple(self.loaded)) for item in items]

    @app.cls()
    class Derived(Base):
        @modal.enter()
        def more(self) -> None:
            self.loaded.append("derived")

    assert Derived().echo.remote(1) == (1, ("base", "derived"))


def test_objects_travel(app: modal.App) -> None:
    again = pickle.loads(pickle.dumps(Placed(factor=7)))
    assert again.times.remote(3) == 21
    assert pickle.loads(pickle.dumps(Placed(factor=7).times)).remote(2) == 14
    assert pickle.loads(pickle.dumps(Placed)) is Placed
    placed.stop()


def test_exit_runs_at_the_end_of_the_process() -> None:
    said = run_script("""
from carpool.compat import modal
app = modal.App()
@app.cls()
class Model:
    @modal.batched(max_batch_size=2, wait_ms=0)
    async def echo(self, items: list[int]) -> list[int]:
        return items
    @modal.exit()
    async def free(self):
        say("freed")
say(Model().echo.remote(1))
""")
    assert said == ["1", "freed"]


# --------------------------------------------------------------------------------------- web


def client_of(app: modal.App) -> Any:
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("fastapi")
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app.asgi()), base_url="http://test", timeout=20
    )


def test_an_endpoint_with_batches_behind_it(app: modal.App, run: Callable[..., Any]) -> None:
    sizes: list[int] = []

    @app.function()
    @modal.batched(max_batch_size=2, wait_ms=50)
    async def batch_add(xs: list[int], ys: list[int]) -> list[int]:
        sizes.append(len(xs))
        return [x + y for x, y in zip(xs, ys, strict=True)]

    @app.function()
    @modal.fastapi_endpoint(method="POST", docs=True)
    async def add(body: dict[str, int]) -> dict[str, int]:
        return {"result": await batch_add.remote.aio(body["x"], body["y"])}

    async def main() -> None:
        async with client_of(app) as client:
            bodies = [{"x": 1, "y": 300}, {"x": 2, "y": 200}, {"x": 3, "y": 100}]
            answers = await asyncio.gather(*(client.post("/", json=body) for body in bodies))
            assert [answer.json() for answer in answers] == [
                {"result": 301},
                {"result": 202},
                {"result": 103},
            ]
            assert (await client.get("/")).status_code == 405
            assert (await client.get("/openapi.json")).status_code == 200
            assert (await client.post("/", json={"x": "a"})).status_code == 422

    run(main())
    assert sorted(sizes) == [1, 2]


def test_several_endpoints_and_methods(app: modal.App, run: Callable[..., Any]) -> None:
    @app.function()
    @modal.fastapi_endpoint()
    def greet(name: str = "you") -> str:
        return f"hello {name}"

    @app.cls()
    class Model:
        @modal.enter()
        def load(self) -> None:
            self.word = "bye"

        @modal.fastapi_endpoint(label="farewell")
        async def leave(self, name: str) -> str:
            return f"{self.word} {name}"

        @modal.fastapi_endpoint(label="plain")
        def plain(self, name: str) -> str:
            return f"{self.word}, {name}"

    async def main() -> None:
        async with client_of(app) as client:
            assert (await client.get("/greet/")).json() == "hello you"
            assert (await client.get("/farewell/", params={"name": "me"})).json() == "bye me"
            assert (await client.get("/plain/", params={"name": "me"})).json() == "bye, me"
            assert (await client.get("/farewell/")).status_code == 422
            assert (await client.get("/greet/openapi.json")).status_code == 404

    run(main())
    assert greet.remote("x") == "hello x"


def test_the_end_of_the_server_stops_the_app(app: modal.App) -> None:
    testing = pytest.importorskip("fastapi.testclient")
    life: list[str] = []

    @app.cls()
    class Model:
        @modal.fastapi_endpoint()
        def echo(self, n: int) -> int:
            return n

        @modal.exit()
        def free(self) -> None:
            life.append("free")

    with testing.TestClient(app.asgi()) as client:
        assert client.get("/", params={"n": 3}).json() == 3
        assert life == []
    assert life == ["free"]


def test_what_an_endpoint_needs(app: modal.App, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi")
    with pytest.raises(modal.InvalidError, match="no function decorated"):
        app.asgi()
    with pytest.raises(modal.InvalidError, match="method must be one of"):
        modal.fastapi_endpoint(method="FETCH")
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(ImportError, match=r"carpool\[fastapi\]"):
        app.asgi()
