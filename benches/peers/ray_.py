"""Ray Serve's `@serve.batch`, without a cluster: the decorator alone.

Its queue asks the replica it runs in for its names (metrics carry them) and for how many requests it takes at
once (to warn about it). There is no replica here; a stand-in answers.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from .contender import Asked, AwaitedPeer, Door, in_its_form


class Ray(AwaitedPeer):
    name = "ray-serve"
    package = "ray[serve]"
    module = "ray.serve"
    big = True
    hint = ", half a gigabyte: pip install --group peers-big"

    def missing(self) -> str | None:
        import importlib.util

        # Looking for `ray.serve` itself would import all of `ray`.
        if importlib.util.find_spec("ray") is None:
            return f"{self.package} is not installed{self.hint}"
        return None

    def open(self, asked: Asked) -> Door:
        from ray import serve
        from ray.serve import context

        context._INTERNAL_REPLICA_CONTEXT = SimpleNamespace(
            _deployment_config=SimpleNamespace(max_ongoing_requests=10_000_000),
            app_name="bench",
            deployment="bench",
            replica_tag="bench",
            replica_id=SimpleNamespace(unique_id="bench"),
        )
        handler, close = in_its_form(asked)
        served: Any = serve.batch(
            max_batch_size=asked.max_batch_size, batch_wait_timeout_s=asked.wait_ms / 1000
        )(handler)
        return Door(served, close)
