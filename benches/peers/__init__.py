"""Who takes part in the comparison: one file per contender, none of which is imported before it is opened."""

from __future__ import annotations

from .aiodataloader_ import AioDataLoader
from .async_batcher_ import AsyncBatcher
from .batched_ import BatchedAio, BatchedThread
from .bentoml_ import BentoML
from .carpool_ import Carpool, CarpoolCaller
from .contender import Asked, Contender, Door, Form, Handler, Peer, awaited_handler
from .hand import Bare, Direct, Hand, Leader
from .ray_ import Ray

ALL: dict[str, Contender] = {
    contender.name: contender
    for contender in (
        Carpool(),
        CarpoolCaller(),
        Hand(),
        Bare(),
        Direct(),
        Leader(),
        BatchedAio(),
        BatchedThread(),
        AsyncBatcher(),
        AioDataLoader(),
        Ray(),
        BentoML(),
    )
}
"""Contenders by name, in the order of the tables."""

__all__ = ["ALL", "Asked", "Contender", "Door", "Form", "Handler", "Peer", "awaited_handler"]
