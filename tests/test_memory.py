"""Memory: what a request took is given back, whatever became of it."""

from __future__ import annotations

import pytest

from gates import run_script

COMMON = """
from carpool import batched, Batcher, QueueFull
import resource
class Item: pass
def handler(items): return [(LookupError(item) if getattr(item, "bad", False) else Item()) for item in items]
def item(bad=False):
    made = Item()
    made.bad = bad
    return made
def quiet(function):
    try: function()
    except (LookupError, QueueFull): pass
def blocks():
    gc.collect()
    return sys.getallocatedblocks()
def settled(limit):
    # A worker may still be dropping its last batch.
    end = time.monotonic() + 10
    while (now := blocks()) > limit and time.monotonic() < end: time.sleep(0)
    return now
def resident():
    with open("/proc/self/statm") as file: return int(file.read().split()[1]) * resource.getpagesize()
"""

KINDS: dict[str, str] = {
    "call": "f = batched(handler)\ndef round():\n    for _ in range(500): f(item())",
    "failed call": "f = batched(handler)\ndef round():\n    for _ in range(500): quiet(lambda: f(item(True)))",
    "call run by its caller": "f = batched(handler, executor='caller')\ndef round():\n    for _ in range(500): f(item())",
    "failed call run by its caller": "f = batched(handler, executor='caller')\ndef round():\n    for _ in range(500): quiet(lambda: f(item(True)))",
    "future": "f = batched(handler)\ndef round():\n    for future in [f.submit(item()) for _ in range(500)]: future.result()",
    "failed future": "f = batched(handler)\ndef round():\n    for future in [f.submit(item(True)) for _ in range(500)]: future.exception()",
    "future with callback": "f = batched(handler)\ndef round():\n    for future in [f.submit(item()) for _ in range(500)]: future.add_done_callback(lambda done: None); future.result()",
    "cancelled future": "f = batched(handler, wait_ms=3_600_000, max_batch_size=10**6)\ndef round():\n    for future in [f.submit(item()) for _ in range(500)]: future.cancel()",
    "refused": "f = batched(handler, wait_ms=3_600_000, max_batch_size=10**6, max_queue=1)\nf.submit(item())\ndef round():\n    for _ in range(500): quiet(lambda: f.submit(item()))",
    "awaited": "f = batched(handler)\nasync def main(): await asyncio.gather(*[f.acall(item()) for _ in range(500)])\ndef round(): asyncio.run(main())",
    "awaited in coroutines": "f = batched(handler)\nasync def one(): return await f.acall(item())\nasync def main(): await asyncio.gather(*[one() for _ in range(500)])\ndef round(): asyncio.run(main())",
    "failed awaited": "f = batched(handler)\nasync def main(): await asyncio.gather(*[f.acall(item(True)) for _ in range(500)], return_exceptions=True)\ndef round(): asyncio.run(main())",
    "awaited future": "f = batched(handler)\nasync def main():\n    for future in [f.submit(item()) for _ in range(500)]: await future\ndef round(): asyncio.run(main())",
    "cancelled awaited": "f = batched(handler, wait_ms=3_600_000, max_batch_size=10**6)\nasync def main():\n    for one in [f.acall(item()) for _ in range(500)]: one.cancel()\ndef round(): asyncio.run(main())",
    "dropped awaitable": "f = batched(handler, wait_ms=3_600_000, max_batch_size=10**6)\nasync def main():\n    for _ in range(500): f.acall(item())\ndef round(): asyncio.run(main())",
    "loop executor": "@batched\nasync def f(items): return handler(items)\nasync def main(): await asyncio.gather(*[f(item()) for _ in range(500)])\ndef round(): asyncio.run(main())",
    "loop given up": "f = batched(handler, max_queue=10**6)\nasync def main():\n    global kept\n    kept = [f.acall(item()) for _ in range(500)]\ndef round():\n    asyncio.run(main())\n    f(item())",
    "custom loop": "b = Batcher(max_batch_size=100)\ndef round():\n    futures = [b.submit(item()) for _ in range(500)]\n    while batch := b.next_batch(block=False): batch.complete(handler(batch.items))\n    for future in futures: future.result()",
    "abandoned batches": "b = Batcher(max_batch_size=100)\ndef round():\n    futures = [b.submit(item()) for _ in range(500)]\n    while b.next_batch(block=False): pass\n    for future in futures: future.exception()",
    "functions": "def round():\n    for _ in range(20): f = batched(lambda items: items); f(1); f.close()",
    "dropped functions": "def round():\n    for _ in range(20): batched(lambda items: items)(1)",
    "instances": "class C:\n    @batched\n    def m(self, items): return items\ndef round():\n    for _ in range(20): C().m(1)",
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_request_gives_its_memory_back(kind: str) -> None:
    said = run_script(
        COMMON
        + KINDS[kind]
        + """
for _ in range(4): round()
before = blocks()
for _ in range(4): round()
# 2,000 requests or 80 batchers: anything kept for each of them shows, caches do not.
after = settled(before + 400)
say(after - before <= 400 or (before, after))
os._exit(0)
"""
    )
    assert said == ["True"]


def test_the_core_gives_its_memory_back_too() -> None:
    said = run_script(
        COMMON
        + """
f = batched(lambda items: items, max_batch_size=512)
async def main(rounds):
    for _ in range(rounds): await asyncio.gather(*[f.acall(number) for number in range(1000)])
asyncio.run(main(60))
before = resident()
asyncio.run(main(150))
grown = resident() - before
say(grown < 150_000 * 20 or grown)  # 20 bytes for each request would be a leak
"""
    )
    assert said == ["True"]
