"""Asking the server: a batch of prompts, or of conversations, in; its choices, one for each, out."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import carpool
from carpool.compat._home import Home

__all__ = ["PARAMS", "InferneoClient", "Server", "close_client", "kind_of", "outcome_of", "text_of"]

#: What the guide asks every completion for.
PARAMS = {"max_tokens": 100, "temperature": 0.7}

#: How conversations reach the server.
CHATS = ("together", "apart")

#: Where asynchronous clients run. One for all and for good: what a client keeps open belongs to its event loop.
_home = Home("clients of carpool.compat.inferneo")


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


def kind_of(item: Any) -> str:
    """ "prompt", "tokens" or "conversation": a server takes them at different places.

    Raises:
        TypeError: it is none of them.
    """
    if isinstance(item, str):
        return "prompt"
    if isinstance(item, Sequence) and item and not isinstance(item, bytes):
        if all(isinstance(one, int) for one in item):
            return "tokens"
        if all(isinstance(one, Mapping) or hasattr(one, "role") for one in item):
            return "conversation"
    raise TypeError(
        f"a request is a prompt, its tokens, or a conversation (a list of messages), not {item!r}"
    )


def text_of(choice: Any) -> Any:
    """The text of a choice: of a completion, or of a message of a conversation. Of an exception itself."""
    if isinstance(choice, Exception):
        return choice
    message = getattr(choice, "message", None)
    return choice.text if message is None else message.content


def outcome_of(response: Any) -> Any:
    """The response itself: that of an asynchronous client is waited for."""
    return _home.run(response) if inspect.isawaitable(response) else response


def close_client(client: Any) -> None:
    """Closes a client; an asynchronous one on the event loop on which its connections live.

    Args:
        client: has `close()`, which may be `async def`.
    """
    outcome_of(client.close())


class Server:
    """A model behind a client. Each batch is asked for by a thread of its own.

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

    def choices(self, items: list[Any]) -> list[Any]:
        """The choices of a batch of prompts or of conversations, one for each, in their order. Of conversations apart,
        an exception in the place of a choice fails that one alone.

        Raises:
            carpool.BatchLengthError: the server did not give one choice for each.
            Exception: what the client raised.
        """
        if kind_of(items[0]) != "conversation":
            return self._ask(self.client.completions.create, items, prompt=items)
        create = self.client.chat.completions.create
        if self.chats == "together":
            return self._ask(create, items, messages=items)
        return self._ask_apart(create, items)

    def texts(self, items: list[Any]) -> list[Any]:
        """As `choices`, their texts."""
        return [text_of(choice) for choice in self.choices(items)]

    def _ask(self, create: Callable[..., Any], items: list[Any], **what: Any) -> list[Any]:
        return _in_order(outcome_of(create(model=self.model_id, **what, **self.params)), items)

    def _ask_apart(self, create: Callable[..., Any], items: list[Any]) -> list[Any]:
        def ask(conversation: Any) -> Any:
            try:
                return create(model=self.model_id, messages=conversation, **self.params)
            except Exception as error:
                return error

        # As many threads as there are requests that block.
        with ThreadPoolExecutor(len(items)) as threads:
            asked = [threads.submit(contextvars.copy_context().run, ask, one) for one in items]
            responses = [one.result() for one in asked]
        slow = [at for at, one in enumerate(responses) if inspect.isawaitable(one)]
        if slow:
            found = _home.run(_all_of([responses[at] for at in slow]))
            for at, response in zip(slow, found, strict=True):
                responses[at] = response
        return [_choice_of(response, one) for response, one in zip(responses, items, strict=True)]


async def _all_of(responses: list[Any]) -> list[Any]:
    return await asyncio.gather(*responses, return_exceptions=True)


def _choice_of(response: Any, conversation: Any) -> Any:
    if isinstance(response, Exception):
        return response
    if isinstance(response, BaseException):
        raise response
    try:
        return _in_order(response, [conversation])[0]
    except Exception as error:
        return error


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
