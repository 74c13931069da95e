"""Inferneo's guide to batching, with what it has its readers copy imported instead.

The client stands for `InferneoClient("http://localhost:8000")`, or any client in the style of OpenAI's.
"""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from carpool.compat.inferneo import (
    AdaptiveBatcher,
    DynamicBatcher,
    benchmark_batch_sizes,
    chunked_batch_process,
    plot_batch_performance,
    robust_batch_process,
    stream_batch_process,
)

MODEL = "meta-llama/Llama-2-7b-chat-hf"


class Completions:
    """Answers with the last word of what it is asked."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def create(self, *, model: str, prompt: list[str], **params: Any) -> Any:
        self.sizes.append(len(prompt))
        return SimpleNamespace(choices=[SimpleNamespace(text=one.split()[-1]) for one in prompt])


class Chats:
    def create(self, *, model: str, messages: list[list[dict[str, str]]], **params: Any) -> Any:
        last = [conversation[-1]["content"].split()[-1] for conversation in messages]
        return SimpleNamespace(
            choices=[SimpleNamespace(message=SimpleNamespace(content=word)) for word in last]
        )


def main() -> None:
    completions = Completions()
    client = SimpleNamespace(completions=completions, chat=SimpleNamespace(completions=Chats()))

    with DynamicBatcher(client, MODEL) as batcher:
        requests = [
            batcher.add_request("Explain quantum computing"),
            batcher.add_request("What is blockchain?"),
            batcher.add_request("Describe cloud computing", priority=-1),
            batcher.add_request([{"role": "user", "content": "What is AI?"}]),
            batcher.add_request(
                [
                    {"role": "user", "content": "Explain machine learning"},
                    {"role": "user", "content": "What are the types?"},
                ]
            ),
        ]
        batcher.process_batch()
        for request in requests:
            print(request["prompt"], "->", request["response"])

    with AdaptiveBatcher(client, MODEL) as adaptive:
        choices = adaptive.process_batch(["Test prompt"] * 50)
        assert [choice.text for choice in choices] == ["prompt"] * 50

    prompts = ["Prompt " + str(i) for i in range(1000)]
    for i, response in enumerate(stream_batch_process(prompts, client, MODEL)):
        assert response == str(i)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large_dataset.txt"
        path.write_text("\n".join(prompts))
        assert chunked_batch_process(path, client, MODEL) == [str(i) for i in range(1000)]

    results = robust_batch_process(prompts[:100], client, MODEL)
    success_count = sum(1 for r in results if r is not None)
    print(f"Success rate: {success_count}/{len(results)}")

    figures = benchmark_batch_sizes(client, MODEL, ["Test prompt"] * 100, [1, 8, 64])
    if find_spec("matplotlib"):
        with tempfile.TemporaryDirectory() as folder:
            plot_batch_performance(figures, Path(folder) / "performance.png")
    optimal = max(figures, key=lambda size: figures[size]["requests_per_second"])
    print(f"{len(completions.sizes)} batches; optimal batch size here: {optimal}")


if __name__ == "__main__":
    main()
