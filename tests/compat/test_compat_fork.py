"""Front doors in a forked child: everything begins anew there, locks that were held at the fork included."""

from __future__ import annotations

import os

import pytest

from gates import run_script

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

FORKED = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
from carpool.compat import batched, modal
from carpool.compat.ray_serve import batch

class Model:
    @batched.dynamically(batch_size=4, timeout_ms=0)
    def doubled(self, items: list[int]) -> list[int]:
        return [item * 2 for item in items]

    @batch(max_batch_size=4, batch_wait_timeout_s=0)
    async def tripled(self, items: list[int]) -> list[int]:
        return [item * 3 for item in items]

app = modal.App()

@app.cls()
class Adder:
    @modal.enter()
    def load(self) -> None:
        entering.set()
        go_on.wait(10)

    @modal.batched(max_batch_size=4, wait_ms=0)
    async def plus(self, items: list[int]) -> list[int]:
        return [item + 1 for item in items]

    @modal.exit()
    def free(self) -> None:
        say("freed in", "parent" if os.getpid() == parent else "child")

parent, entering, go_on, model = os.getpid(), threading.Event(), threading.Event(), Model()

def use() -> tuple[int, int, int]:
    return model.doubled(1), asyncio.run(model.tripled(1)), Adder().plus.remote(1)
"""


def in_child(code: str) -> str:
    body = "\n".join(f"    {line}" for line in code.splitlines())
    return f"""
child = os.fork()
if not child:
{body}
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def test_what_was_used_before_is_used_after() -> None:
    said = run_script(
        FORKED
        + "go_on.set()\nsay(*use())\n"
        + in_child("say(*use())")
        + "say(*use())\napp.stop()\n"
    )
    # The instance of the parent is the parent's to free.
    assert said == ["2 3 2", "2 3 2", "2 3 2", "freed in parent"]


def test_a_fork_in_the_middle_of_the_first_use() -> None:
    said = run_script(
        FORKED
        + """
first = threading.Thread(target=use)
first.start()
entering.wait(10)
"""
        + in_child("go_on.set()\nsay(*use())\napp.stop()")
        + "go_on.set()\nfirst.join()\napp.stop()\n"
    )
    assert said == ["2 3 2", "freed in child", "freed in parent"]
