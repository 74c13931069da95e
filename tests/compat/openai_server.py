"""A small server in the style of OpenAI's, on 127.0.0.1, that tells the tests what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Listener(ThreadingHTTPServer):
    # Many clients may come at once.
    request_queue_size = 128


class LocalServer:
    """Answers completions and chats, a batch or one at a time. `before` runs ahead of each answer; what it returns
    is the status, 200 for None. With `keeps` it keeps connections open, as servers do."""

    def __init__(self, keeps: bool = False) -> None:
        self.requests: list[dict[str, Any]] = []
        self.before: Callable[[dict[str, Any]], int | None] = lambda body: None
        self.change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = lambda choices: (
            choices
        )
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1" if keeps else "HTTP/1.0"

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = json.loads(self.rfile.read(length))
                status, answer = owner.answer(self.path, body)
                sent = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            def log_message(self, *args: Any) -> None: ...

        self._server = Listener(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.requests.append(body)
        status = self.before(body) or 200
        if status != 200:
            return status, {"error": {"message": "told to fail"}}
        chat = path == "/v1/chat/completions"
        asked = body["messages"] if chat else body["prompt"]
        many = asked if isinstance(asked[0], list) or not chat else [asked]
        choices: list[dict[str, Any]] = []
        for index, one in enumerate(many):
            choice: dict[str, Any] = {"index": index, "finish_reason": "stop", "logprobs": None}
            if chat:
                choice["message"] = {"role": "assistant", "content": f"re: {one[-1]['content']}"}
            else:
                choice["text"] = f"re: {one}"
            choices.append(choice)
        return 200, {
            "id": "cmpl-1",
            "object": "chat.completion" if chat else "text_completion",
            "created": 1,
            "model": body["model"],
            "choices": self.change(choices),
        }

    @property
    def batches(self) -> list[Any]:
        """The prompts, or the conversations, of each request."""
        return [body.get("prompt", body.get("messages")) for body in list(self.requests)]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
