"""Life cycle: import, pickling, Ctrl-C, interpreter exit."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import Any

import pytest

import picklable
from carpool import Batcher, QueueFull, batched
from gates import LIMIT, interrupt_script, outcome_of, run_script, start_script

# -- import ------------------------------------------------------------------------------------


def test_import_and_decoration_start_nothing_and_bring_nothing_heavy() -> None:
    said = run_script("""
def state():
    return threading.active_count(), len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))
for name in ("asyncio", "numpy", "torch"):
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[module]
before = state()
import carpool
from carpool import Batcher, batched
@batched
def f(items): return items
@batched(executor="caller", wait_ms=3)
def g(items): return items
class C:
    @batched
    def m(self, items): return items
C().m
b = Batcher()
say(state() == before)
say(sorted({"numpy", "torch", "uvloop"} & set(sys.modules)))
say(threading.active_count())
b.close()
""")
    assert said == ["True", "[]", "1"]


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="counts threads and descriptors in /proc"
)
def test_threads_and_descriptors_come_back_to_where_they_were() -> None:
    said = run_script("""
from carpool import batched
def state():
    return threading.active_count(), len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))
def round():
    f = batched(lambda items: items, max_concurrent_batches=2)
    g = batched(alike, executor="thread")
    async def main():
        assert await asyncio.gather(*[f.acall(n) for n in range(50)]) == list(range(50))
        assert await g(1) == 1
        await f.submit(1)
    asyncio.run(main())
    assert f(1) == 1
    f.close(); g.close()
    del f, g
async def alike(items): return items
round()
def settled(before):
    end = time.monotonic() + 10
    while state() != before and time.monotonic() < end:
        gc.collect(); time.sleep(0)
    return state() == before
before = (1, 1, state()[2])
settled(before)
before = state()
for _ in range(30): round()
say(settled(before), before, state())
""")
    assert said[0].startswith("True"), said


# -- pickling ----------------------------------------------------------------------------------


def test_a_function_at_module_level_pickles() -> None:
    assert picklable.double(1) == 2
    again = pickle.loads(pickle.dumps(picklable.double))
    assert again(4) == 8
    assert again.name == "double"


def test_it_arrives_in_another_process_without_its_state() -> None:
    picklable.double(1)
    model = picklable.Model(7)
    assert model.embed(1) == 7
    text = pickle.dumps((picklable.double, picklable.adouble, picklable.Model, model)).hex()
    said = run_script(f"""
import pickle
double, adouble, Model, model = pickle.loads(bytes.fromhex({text!r}))
say(double.stats.submitted, double(4), double.stats.submitted)
async def main(): say(await adouble(5))
asyncio.run(main())
say(model.embed.stats.submitted, model.embed(3), Model(2).embed(3))
""")
    assert said == ["0 8 1", "10", "0 21 6"]


def test_what_stands_in_the_main_module_pickles_by_every_protocol() -> None:
    said = run_script("""
import pickle
from carpool import batched
@batched
def f(items): return items
class Model:
    @batched
    def embed(self, items): return items
    class Part:
        @batched
        def encode(self, items): return items
model = Model()
for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
    for one in (f, Model.embed, Model.Part.encode):
        assert pickle.loads(pickle.dumps(one, protocol)) is one, (one, protocol)
    assert pickle.loads(pickle.dumps(model.embed, protocol))(3) == 3
say("all")
""")
    assert said == ["all"]


def test_an_instance_pickles_and_copies_after_use() -> None:
    model = picklable.Model(3)
    assert model.embed(2) == 6
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert again.embed.stats.submitted == 0
        assert again.embed(5) == 15
    assert vars(pickle.loads(pickle.dumps(model))) == {"scale": 3}


def test_a_bound_method_pickles_with_its_instance() -> None:
    model = picklable.Model(3)
    assert model.embed(2) == 6
    assert pickle.loads(pickle.dumps(model.embed))(5) == 15
    assert pickle.loads(pickle.dumps(model.encode))(5) == 8


def test_cloudpickle_carries_a_local_function_with_its_options() -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    factor = 5

    @batched(max_batch_size=2, wait_ms=3_600_000, name="local", max_queue=6)
    def f(items: list[int]) -> list[int]:
        return [item * factor for item in items]

    used = [f.submit(1), f.submit(2)]
    assert [future.result(20) for future in used] == [5, 10]
    again = pickle.loads(cloudpickle.dumps(f))
    assert again is not f
    assert again.name == "local"
    assert again.stats.submitted == 0
    pair = [again.submit(1), again.submit(2)]  # two fill a batch, so nobody waits the hour
    assert [future.result(20) for future in pair] == [5, 10]
    assert again.stats.reasons["full"] == 1
    assert f.stats.submitted == 2


def test_cloudpickle_carries_local_classes_and_async_functions() -> None:
    cloudpickle = pytest.importorskip("cloudpickle")

    class Local:
        @batched
        def embed(self, items: list[int]) -> list[int]:
            return [item + 1 for item in items]

    @batched(executor="thread")
    async def f(items: list[int]) -> list[int]:
        return [item + 2 for item in items]

    Local().embed(1)
    f.submit(1).result(20)
    again, function = pickle.loads(cloudpickle.dumps((Local, f)))
    assert again().embed(1) == 2
    assert function.submit(1).result(20) == 3


def test_a_function_pickles_while_its_requests_run() -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    f = batched(lambda items: items, wait_ms=3_600_000)
    future = f.submit(1)
    again = pickle.loads(cloudpickle.dumps(f))
    assert again.stats.pending == 0
    assert f.stats.pending == 1
    f.flush()
    assert future.result(20) == 1


def test_a_batcher_pickles_as_its_options() -> None:
    b: Batcher[int, int] = Batcher(max_batch_size=2, max_queue=3, name="carried")
    b.submit(1)
    again = pickle.loads(pickle.dumps(b))
    assert again.name == "carried"
    assert again.stats.submitted == 0
    for number in range(3):
        again.submit(number)
    with pytest.raises(QueueFull):
        again.submit(3)
    assert len(again.next_batch()) == 2
    for one in (b, again):
        one.close(drain=False)


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_process_pools_run_decorated_functions(method: str) -> None:
    said = run_script(f"""
import concurrent.futures, multiprocessing, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import picklable
if __name__ == "__main__":
    assert picklable.double(1) == 2
    context = multiprocessing.get_context({method!r})
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        say(list(pool.map(picklable.double, range(6))))
        say(os.getpid() not in set(pool.map(picklable.process, range(3))))
    say(picklable.double(2))
""")
    assert said == ["[0, 2, 4, 6, 8, 10]", "True", "4"]


# -- Ctrl-C ------------------------------------------------------------------------------------

HELD = """
from carpool import batched, Batcher, BatcherClosed
go = threading.Event()
started = threading.Event()
def hold(items):
    started.set()
    say("ready")
    go.wait(30)
    return items
def silent(items):
    started.set()
    go.wait(30)
    return items
"""

INTERRUPTED: dict[str, str] = {
    "call": "f = batched(hold)\nwait = lambda: f(1)",
    "result": "f = batched(hold)\nwait = lambda: f.submit(1).result()",
    "result in time": "f = batched(hold)\nwait = lambda: f.submit(1).result(timeout=25)",
    "exception": "f = batched(hold)\nwait = lambda: f.submit(1).exception()",
    "close": "f = batched(silent)\nf.submit(1)\nwait = lambda: (say('ready'), f.close())",
    "room": "f = batched(silent, max_queue=1, overflow='wait')\nf.submit(0); started.wait(); f.submit(1)\nwait = lambda: (say('ready'), f.submit(2))",
    "behind a caller": "f = batched(silent, executor='caller')\nthreading.Thread(target=f, args=(1,), daemon=True).start(); started.wait()\nwait = lambda: (say('ready'), f(2))",
    "parked caller": "f = batched(hold, executor='caller', wait_ms=3_600_000)\nwait = lambda: (say('ready'), f(2))",
    "waiting for company": "f = batched(hold, wait_ms=3_600_000)\nwait = lambda: (say('ready'), f(2))",
    "next_batch": "f = Batcher()\nwait = lambda: (say('ready'), f.next_batch())",
    "for": "f = Batcher()\nwait = lambda: (say('ready'), list(f))",
    "next_batch in time": "f = Batcher()\nwait = lambda: (say('ready'), f.next_batch(timeout=25))",
    "asyncio": "f = batched(hold)\nasync def main(): await f.acall(1)\nwait = lambda: asyncio.run(main())",
}


@pytest.mark.parametrize("where", INTERRUPTED)
def test_ctrl_c_ends_the_wait_while_the_handler_still_runs(where: str) -> None:
    process = start_script(
        HELD
        + INTERRUPTED[where]
        + """
try:
    wait()
    say("not interrupted")
except KeyboardInterrupt:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    say("interrupted", not go.is_set())
go.set()
f.close(drain=False, timeout=10)
say("closed")
"""
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert [line for line in interrupt_script(process) if line != "ready"] == [
        "interrupted True",
        "closed",
    ]


def test_ctrl_c_in_a_handler_run_by_its_caller() -> None:
    process = start_script("""
from carpool import batched
@batched(executor="caller")
def f(items):
    if items == ["again"]:
        return items
    say("ready")
    threading.Event().wait(30)
try:
    f(1)
except KeyboardInterrupt:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    say("interrupted")
say(f("again"))
""")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert interrupt_script(process) == ["interrupted", "again"]


def test_an_interrupted_caller_leaves_the_others_served() -> None:
    process = start_script(
        HELD
        + """
f = batched(silent)
results = []
other = threading.Thread(target=lambda: results.append(f("other")), daemon=True)
other.start()
started.wait()
try:
    say("ready")
    f("interrupted")
except KeyboardInterrupt:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
go.set()
other.join(10)
say(results, f("after"))
"""
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert [line for line in interrupt_script(process) if line != "ready"] == ["['other'] after"]


# -- interpreter exit --------------------------------------------------------------------------

AT_EXIT = """
futures = []
@atexit.register  # registered before any of carpool's, so it runs after them
def report():
    say("done", sum(future.done() for future in futures), "of", len(futures))
    say("errors", sorted({type(future.exception()).__name__ for future in futures if future.done() and not future.cancelled() and future.exception()}))
from carpool import batched, Batcher
stuck = threading.Event()
started = threading.Event()
def hang(items):
    started.set()
    stuck.wait()
    return items
async def ahang(items):
    started.set()
    await asyncio.sleep(3600)
"""


def test_exit_drains_what_is_quick() -> None:
    said = run_script(
        AT_EXIT
        + "f = batched(lambda items: items, max_batch_size=10)\nfutures += [f.submit(n) for n in range(1000)]"
    )
    assert said == ["done 1000 of 1000", "errors []"]


def test_exit_sends_off_what_waits_for_company() -> None:
    said = run_script(
        AT_EXIT
        + "f = batched(lambda items: items, wait_ms=3_600_000)\nfutures += [f.submit(n) for n in range(3)]"
    )
    assert said[0] == "done 3 of 3"


def test_exit_fails_what_is_pending_behind_a_handler_that_hangs() -> None:
    said = run_script(
        AT_EXIT
        + "f = batched(hang, max_batch_size=1)\nrunning = f.submit(0)\nstarted.wait()\nfutures += [f.submit(n) for n in range(5)]"
    )
    assert said == ["done 5 of 5", "errors ['BatcherClosed']"]


EXITS: dict[str, str] = {
    "never used": "f = batched(hang)\nb = Batcher()\nb.close()",
    "used and idle": "f = batched(lambda items: items)\nf(1)",
    "handler hangs": "f = batched(hang)\nf.submit(1)\nstarted.wait()",
    "several handlers hang": "fs = [batched(hang, max_batch_size=1, max_concurrent_batches=2) for _ in range(5)]\n[f.submit(n) for f in fs for n in range(5)]\nstarted.wait()",
    "async handler hangs on its worker": "f = batched(ahang, executor='thread')\nf.submit(1)\nstarted.wait()",
    "daemon threads blocked in calls": "f = batched(hang)\nfor n in range(20): threading.Thread(target=f, args=(n,), daemon=True).start()\nstarted.wait()",
    "daemon threads that keep calling": "f = batched(lambda items: items)\ndef circle():\n    while True: f(1)\nfor n in range(8): threading.Thread(target=circle, daemon=True).start()\nwhile f.stats.answered < 100: time.sleep(0)",
    "daemon threads that keep calling by caller": "f = batched(lambda items: items, executor='caller')\ndef circle():\n    while True: f(1)\nfor n in range(8): threading.Thread(target=circle, daemon=True).start()\nwhile f.stats.answered < 100: time.sleep(0)",
    "runner hangs": "f = batched(hang, executor='caller')\nfor n in range(3): threading.Thread(target=f, args=(n,), daemon=True).start()\nstarted.wait()",
    "a loop in a thread": "f = batched(hang)\nasync def main(): await asyncio.gather(*[f.acall(n) for n in range(5)])\nthreading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()\nstarted.wait()",
    "a loop that was given up": "f = batched(hang)\nasync def main():\n    global kept\n    kept = [f.acall(n) for n in range(5)]\nasyncio.run(main())\nstarted.wait()",
    "a waiting custom loop": "b = Batcher()\nthreading.Thread(target=lambda: list(b), daemon=True).start()",
    "a custom loop with a batch": "b = Batcher()\nfuture = b.submit(1)\nbatch = b.next_batch()\nb.submit(2)",
    "a setup that hangs": "f = batched(hang, setup=lambda: (started.set(), stuck.wait()))\nf.submit(1)\nstarted.wait()",
    "instances": "class C:\n    @batched\n    def m(self, items): started.set(); stuck.wait()\ncs = [C() for _ in range(5)]\n[c.m.submit(1) for c in cs]\nstarted.wait()",
    "cycles": "class C:\n    @batched\n    def m(self, items): return items\nfor _ in range(50):\n    c = C(); c.bound = c.m; c.m(1)",
    "submitted during the exit": "f = batched(lambda items: items)\nf(1)\n@atexit.register\ndef late():\n    try: f.submit(2)\n    except Exception: pass",
}


@pytest.mark.parametrize("how", EXITS)
def test_exit_is_orderly(how: str) -> None:
    process = start_script(AT_EXIT + EXITS[how])
    code, said, complaint = outcome_of(process, LIMIT)
    assert code == 0, (said, complaint)
    assert "Fatal" not in complaint
    assert "panicked" not in complaint


def test_exit_keeps_the_code_of_the_program() -> None:
    hanging = AT_EXIT + "f = batched(hang)\nf.submit(1)\nstarted.wait()\n"
    assert outcome_of(start_script(hanging + "sys.exit(7)"))[0] == 7
    code, _, complaint = outcome_of(
        start_script(hanging + "raise LookupError('the program s own')")
    )
    assert code == 1
    assert "the program s own" in complaint


def test_threads_that_end_after_main_are_served() -> None:
    said = run_script("""
from carpool import batched
f = batched(lambda items: [item + 1 for item in items])
main = threading.current_thread()
def late():
    main.join()
    try: say(f(1), f.submit(2).result(10))
    except RuntimeError as error: say(error)
threading.Thread(target=late).start()
""")
    # CPython 3.12 starts no thread any more by then; the caller is told at the call.
    refused = sys.version_info[:2] == (3, 12) and "can't create new thread" in said[0]
    assert said == ["2 3"] or refused


def test_exits_under_load_again_and_again() -> None:
    source = """
from carpool import batched
f = batched(lambda items: items, max_concurrent_batches=2)
async def loop():
    while True: await asyncio.gather(*[f.acall(n) for n in range(20)])
def circle():
    while True: f(1)
threading.Thread(target=lambda: asyncio.run(loop()), daemon=True).start()
for _ in range(3): threading.Thread(target=circle, daemon=True).start()
while f.stats.answered < 50: time.sleep(0)
"""
    running: list[subprocess.Popen[str]] = []
    outcomes: list[Any] = []
    for _ in range(10):
        running.append(start_script(source))
        if len(running) == 2:
            outcomes += [outcome_of(process) for process in running]
            running.clear()
    assert [code for code, _, _ in outcomes] == [0] * 10, outcomes
