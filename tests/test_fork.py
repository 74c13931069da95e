"""Fork: the child starts afresh, the parent notices nothing, nobody waits for what stayed behind."""

from __future__ import annotations

import os

import pytest

from gates import run_script

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

FORKED = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
import concurrent.futures
from carpool import batched, Batcher, BatchAbandoned, BatcherClosed
def child(function):
    pid = os.fork()
    if pid == 0:
        signal.alarm(15)  # a child that hangs is killed, which its exit status then shows
        try:
            function()
            os._exit(0)
        except BaseException as error:
            say("child failed:", repr(error))
            os._exit(3)
    return os.waitpid(pid, 0)[1]
def raises(kind, function):
    try:
        result = function()
    except kind:
        return True
    say("no", kind, "but", repr(result))
    return False
go, entered = threading.Event(), threading.Event()
def gated(items):
    if "held" in items:
        entered.set()
        go.wait(15)
    return [(item, os.getpid()) for item in items]
"""


@pytest.mark.parametrize("executor", ["thread", "caller"])
def test_an_idle_function_works_in_both(executor: str) -> None:
    said = run_script(
        FORKED
        + f"""
f = batched(gated, executor={executor!r})
parent = os.getpid()
assert f(1) == (1, parent)
def inside():
    assert f.stats.submitted == 0, f.stats
    assert f.healthy
    assert f(2) == (2, os.getpid())
    assert f.submit(3).result(10) == (3, os.getpid())
    async def main(): return await f.acall(4)
    assert asyncio.run(main()) == (4, os.getpid())
    assert f.stats.submitted == 3
    assert f.close() is True
say(child(inside))
say(f(5) == (5, parent), f.stats.submitted)
"""
    )
    assert said == ["0", "True 2"]


def test_an_unused_function_works_in_both() -> None:
    said = run_script(FORKED + "f = batched(gated)\nsay(child(lambda: f(1)), f(2)[0])")
    assert said == ["0 2"]


@pytest.mark.parametrize("executor", ["loop", "thread"])
def test_async_handlers_work_in_both(executor: str) -> None:
    said = run_script(
        FORKED
        + f"""
@batched(executor={executor!r})
async def f(items):
    await asyncio.sleep(0)
    return [item + 1 for item in items]
async def main(): return await f(1), await f.acall(2)
assert asyncio.run(main()) == (2, 3)
def inside(): assert asyncio.run(main()) == (2, 3)
say(child(inside))
say(asyncio.run(main()))
"""
    )
    assert said == ["0", "(2, 3)"]


def test_with_requests_in_flight_and_pending() -> None:
    said = run_script(
        FORKED
        + """
f = batched(gated, max_batch_size=1)
parent = os.getpid()
running = f.submit("held"); entered.wait()
pending = f.submit("pending")
def inside():
    go.set()
    for future in (running, pending):
        assert raises(BatchAbandoned, lambda: future.result(10))
        assert raises(BatchAbandoned, future.result)
    assert f(1) == (1, os.getpid())
    assert f.stats.pending == f.stats.in_flight == 0
say(child(inside))
say(running.done(), pending.done(), f.stats.pending, f.stats.in_flight)
go.set()
say(running.result(10) == ("held", parent), pending.result(10) == ("pending", parent))
"""
    )
    assert said == ["0", "False False 1 1", "True True"]


@pytest.mark.parametrize("executor", ["thread", "caller"])
def test_while_a_setup_is_running(executor: str) -> None:
    said = run_script(
        FORKED
        + f"""
setups = []
def setup():
    setups.append(os.getpid())
    entered.set()
    go.wait(15)
f = batched(gated, setup=setup, executor={executor!r})
first = threading.Thread(target=f, args=(1,)); first.start(); entered.wait()
def inside():
    go.set()
    assert f(2) == (2, os.getpid())
    assert setups[-1] == os.getpid()
say(child(inside))
go.set()
first.join()
say(f(3) == (3, os.getpid()), len(setups))
"""
    )
    assert said == ["0", "True 1"]


@pytest.mark.parametrize("way", ["thread", "caller", "loop"])
def test_a_child_runs_a_setup_of_its_own(way: str) -> None:
    said = run_script(
        FORKED
        + f"""
setups = []
def setup(): setups.append(os.getpid())
if {way!r} == "loop":
    @batched(setup=setup)
    async def g(items): return items
    def f(item):
        async def main(): return await g(item)
        return asyncio.run(main())
else:
    f = batched(gated, setup=setup, executor={way!r})
f(1)
def inside():
    f(2), f(3)
    assert setups == [os.getppid(), os.getpid()], setups
say(child(inside))
f(4)
say(setups == [os.getpid()])
"""
    )
    assert said == ["0", "True"]


def test_a_future_that_was_answered_before_stays_so() -> None:
    said = run_script(
        FORKED
        + """
f = batched(gated)
future = f.submit(1)
assert future.result(10)[0] == 1
def inside(): assert future.result(0)[0] == 1 and future.done()
say(child(inside))
"""
    )
    assert said == ["0"]


def test_futures_of_the_parent_do_not_hang_wait_or_await_in_the_child() -> None:
    said = run_script(
        FORKED
        + """
f = batched(gated)
f.submit("held"); entered.wait()
first, second, third = f.submit("a"), f.submit("b"), f.submit("c")
def inside():
    async def main(): return await first
    assert raises(BatchAbandoned, lambda: asyncio.run(main()))
    def asked():  # it may be raised or returned, but not awaited for ever
        error = second.exception(10)
        if error: raise error
    assert raises(BatchAbandoned, asked)
    third.cancel()
    assert raises((BatchAbandoned, concurrent.futures.CancelledError), lambda: third.result(10))
say(child(inside))
go.set()
say(first.result(10)[0], second.result(10)[0], third.result(10)[0])
"""
    )
    assert said == ["0", "a b c"]


def test_an_awaitable_of_the_parent_raises_in_the_child() -> None:
    said = run_script(
        FORKED
        + """
f = batched(gated)
kept = []
async def parent():
    kept.append(f.acall("held"))
    await asyncio.to_thread(entered.wait)
    kept.append(f.acall("pending"))
    status = child(inside)
    go.set()
    say(status, [(await one)[0] for one in kept])
def inside():
    async def wait(one): return await one
    def in_fresh_thread():  # this thread still believes to be in the parent's loop
        for one in kept:
            assert raises(BatchAbandoned, lambda: asyncio.run(asyncio.wait_for(wait(one), 10)))
        return f(1)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(in_fresh_thread).result(12)[0] == 1
asyncio.run(parent())
"""
    )
    assert said == ["0 ['held', 'pending']"]


def test_methods_and_batchers_start_afresh_too() -> None:
    said = run_script(
        FORKED
        + """
class Model:
    @batched
    def m(self, items): return [item + 1 for item in items]
model = Model()
assert model.m(1) == 2
b = Batcher(max_queue=2)
mine = b.submit("parent's")
def inside():
    assert model.m(5) == 6 and Model().m(6) == 7
    assert b.stats.pending == 0
    future = b.submit("child's")
    batch = b.next_batch(timeout=10)
    assert batch.items == ["child's"]
    batch.complete(["ok"])
    assert future.result(0) == "ok"
    assert raises(BatchAbandoned, lambda: mine.result(10))
    b.close()
say(child(inside))
batch = b.next_batch()
say(batch.items)
batch.complete(["still here"])
say(mine.result(0), model.m(2))
b.close()
"""
    )
    assert said == ["0", '["parent\'s"]', "still here 3"]


def test_a_batch_of_the_parent_is_nobody_s_business_in_the_child() -> None:
    said = run_script(
        FORKED
        + """
b = Batcher()
future = b.submit("a")
batch = b.next_batch()
def inside():
    global batch
    try: batch.complete([1])
    except Exception: pass
    del batch
    gc.collect()
    assert raises(BatchAbandoned, lambda: future.result(10)) if not future.done() or future.exception() else True
say(child(inside))
batch.complete(["parent's answer"])
say(future.result(0))
b.close()
"""
    )
    assert said == ["0", "parent's answer"]


def test_a_closed_function_stays_closed() -> None:
    said = run_script(
        FORKED
        + """
f = batched(gated)
f(1)
f.close()
def inside():
    assert raises(BatcherClosed, lambda: f(1))
    assert not f.healthy
say(child(inside))
"""
    )
    assert said == ["0"]


def test_while_other_threads_begin_to_use_their_functions() -> None:
    said = run_script(
        FORKED
        + """
stop = threading.Event()
def begin():
    while not stop.is_set():
        with batched(gated, executor="caller") as f: f(1)
threads = [threading.Thread(target=begin) for _ in range(3)]
for thread in threads: thread.start()
def inside():
    with batched(gated) as f: assert f(2) == (2, os.getpid())
statuses = {child(inside) for _ in range(40)}
stop.set()
for thread in threads: thread.join(10)
say(statuses)
"""
    )
    assert said == ["{0}"]


def test_forks_under_load() -> None:
    said = run_script(
        FORKED
        + """
f = batched(gated, max_concurrent_batches=2, max_batch_size=8)
stop = threading.Event()
wrong = []
def circle(base):
    number = base
    while not stop.is_set():
        number += 1
        if f(number) != (number, parent): wrong.append(number)
async def loop():
    while not stop.is_set():
        for item, pid in await asyncio.gather(*[f.acall(n) for n in range(10)]):
            if pid != parent: wrong.append(item)
parent = os.getpid()
threads = [threading.Thread(target=circle, args=(n * 10**6,)) for n in range(3)] + [threading.Thread(target=lambda: asyncio.run(loop()))]
for thread in threads: thread.start()
while f.stats.answered < 100: time.sleep(0)
def inside():
    assert f(7) == (7, os.getpid())
    assert [future.result(10)[0] for future in [f.submit(n) for n in range(20)]] == list(range(20))
statuses = [child(inside) for _ in range(25)]
stop.set()
for thread in threads: thread.join(10)
say(set(statuses), wrong, any(thread.is_alive() for thread in threads), f(1) == (1, parent))
"""
    )
    assert said == ["{0} [] False True"]


def test_a_child_that_leaves_in_the_ordinary_way_leaves_in_order() -> None:
    said = run_script(
        FORKED
        + """
f = batched(gated, max_batch_size=1)
f(1)
running = f.submit("held"); entered.wait()
f.submit("pending")
pid = os.fork()
if pid == 0:
    signal.alarm(15)
    f(2)
    sys.exit(0)
say(os.waitpid(pid, 0)[1])
go.set()
say(running.result(10)[0])
"""
    )
    assert said[-2:] == ["0", "held"]


def test_while_another_thread_makes_what_is_made_once() -> None:
    said = run_script(
        FORKED
        + """
import builtins
ordinary = builtins.__import__
arrived, go_on = threading.Event(), threading.Event()
def held(name, *args, **kwargs):
    # What the first call of a process looks up; the thread stays in the midst of it.
    if name == "threading" and not arrived.is_set():
        arrived.set()
        go_on.wait(20)
    return ordinary(name, *args, **kwargs)
other = threading.Thread(target=lambda: batched(gated)(1))
builtins.__import__ = held
other.start()
say(arrived.wait(10))
def inside():
    with batched(gated) as f: assert f(2) == (2, os.getpid())
say(child(inside))
go_on.set()
other.join(10)
say(other.is_alive())
"""
    )
    assert said == ["True", "0", "False"]


def test_no_first_call_imports_anything_of_ours() -> None:
    """A fork in the middle of an import leaves the child with a lock that nobody lets go of."""
    said = run_script(
        FORKED
        + """
def bad(items): raise ValueError
f, wrong = batched(gated), batched(lambda items: None)
late = batched(gated, timeout_ms=1, max_batch_size=1)
@batched
async def a(items):
    await asyncio.sleep(0)
    return items
b = Batcher()
def ours(): return {name for name in sys.modules if name.startswith("carpool")}
before = ours()
f(1), f.submit(2).result(10), f.options(priority=1)(3)
raises(Exception, lambda: wrong(1))
assert raises(ZeroDivisionError, lambda: batched(lambda items: 1 / 0)(1))
async def main():
    assert await a(1) == 1
    assert (await f.acall(2))[0] == 2
    await f.submit(3)
    waiting = asyncio.create_task(b.anext_batch())
    answer = b.acall(4)
    (await waiting).complete([5])
    assert await answer == 5
asyncio.run(main())
late.submit("held"); entered.wait()
assert raises(TimeoutError, lambda: late.submit(1).result(10))
go.set()
b.close()
say(sorted(ours() - before))
"""
    )
    assert said == ["[]"]
