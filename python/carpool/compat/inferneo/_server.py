"""Asking the server: a batch of prompts, or of conversations, in; its choices, one for each, out."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import carpool

__all__ = ["PARAMS", "InferneoClient", "Server", "text_of"]

#: What the guide asks every completion for.
PARAMS = {"max_tokens": 100, "temperature": 0.7}

#: How conversations reach the server.
CHATS = ("together", "apart")


def InferneoClient(base_url: str = "http://localhost:8000", **options: Any) -> Any:
    """A client of the package `openai` for the server at `base_url`.

    Args:
        base_url: with or without `/v1` at its end.
        **options: of `openai.OpenAI`; `api_key` may be left out.

    Raises:
        ImportError: openai is not installed (`carpool[openai]`).
    """
    try:
        import openai
    except ImportError as error:
        raise ImportError(
            "InferneoClient needs openai: install the extra, pip install 'carpool[openai]'"
        ) from error
    url = base_url.rstrip("/")
    options.setdefault("api_key", "none")
    return openai.OpenAI(base_url=url if url.endswith("/v1") else f"{url}/v1", **options)


def is_conversation(item: Any) -> bool:
    """Whether an item is a conversation, a list of messages, and no prompt."""
    return isinstance(item, Sequence) and not isinstance(item, str)


def text_of(choice: Any) -> Any:
    """The text of a choice: of a completion, or of a message of a conversation."""
    message = getattr(choice, "message", None)
    return choice.text if message is None else message.content


class Server:
    """A model behind a client.

    Args:
        client: has `completions.create`, and `chat.completions.create` for conversations; both may be `async def`.
        model_id: the model.
        params: of each request; added to `max_tokens=100, temperature=0.7`.
        chats: "together" sends a batch of conversations as one request, as the guide does; "apart" sends them at the
            same time, a request each, for servers that know no batches of them.

    Raises:
        ValueError: `chats` is neither.
    """

    def __init__(self, client: Any, model_id: str, params: dict[str, Any], chats: str) -> None:
        if chats not in CHATS:
            raise ValueError(f"chats must be 'together' or 'apart', not {chats!r}")
        self.client, self.model_id, self.chats = client, model_id, chats
        self.params = {**PARAMS, **params}

    async def choices(self, items: list[Any]) -> list[Any]:
        """The choices of a batch of prompts or of conversations, one for each, in their order.

        Raises:
            carpool.BatchLengthError: the server did not give one choice for each.
            Exception: what the client raised.
        """
        if not is_conversation(items[0]):
            return _in_order(await self._ask(self.client.completions.create, prompt=items), items)
        create = self.client.chat.completions.create
        if self.chats == "together":
            return _in_order(await self._ask(create, messages=items), items)
        apart = (self._ask_apart(create, one) for one in items)
        # An exception in the place of a choice fails that conversation alone.
        return list(await asyncio.gather(*apart, return_exceptions=True))

    async def _ask(self, create: Callable[..., Any], **what: Any) -> Any:
        response = create(model=self.model_id, **what, **self.params)
        return await response if inspect.isawaitable(response) else response

    async def _ask_apart(self, create: Callable[..., Any], conversation: Any) -> Any:
        def ask() -> Any:
            return create(model=self.model_id, messages=conversation, **self.params)

        response = await asyncio.to_thread(ask)
        if inspect.isawaitable(response):
            response = await response
        return _in_order(response, [conversation])[0]


def _in_order(response: Any, items: list[Any]) -> list[Any]:
    choices = list(response.choices)
    if len(choices) != len(items):
        raise carpool.BatchLengthError(
            f"the server gave {len(choices)} choices for a batch of {len(items)}"
        )
    numbers = [getattr(choice, "index", None) for choice in choices]
    if sorted(one for one in numbers if isinstance(one, int)) == list(range(len(items))):
        choices.sort(key=lambda choice: int(choice.index))
    return choices
