"""Code written for Modal, with one import changed: everything runs in this process.

Run it as it is, or as `modal run` would: `python -m carpool.compat.modal run examples/moving_modal.py`.
The models are small ones that stand for a language model and an image model.
"""

from __future__ import annotations

import asyncio

import httpx

from carpool.compat import modal

app = modal.App("llm-batched")

image = modal.Image.debian_slim(python_version="3.11").pip_install("torch", "transformers")


class SmallModel:
    def batch_predict(self, inputs: list[str]) -> list[str]:
        return [text.upper() for text in inputs]


@app.function()
@modal.batched(max_batch_size=2, wait_ms=1000)
async def batch_add(xs: list[int], ys: list[int]) -> list[int]:
    print(f"batch_add of {xs} and {ys}")
    return [x + y for x, y in zip(xs, ys, strict=True)]


@app.cls()
class BatchedClass:
    @modal.batched(max_batch_size=2, wait_ms=1000)
    async def batch_add(self, xs: list[int], ys: list[int]) -> list[int]:
        return [x + y for x, y in zip(xs, ys, strict=True)]


@app.cls(gpu="A100")
class BatchedModel:
    @modal.enter()
    def load(self) -> None:
        self.model = SmallModel()

    @modal.batched(max_batch_size=32, wait_ms=100)
    @modal.method()
    def predict(self, inputs: list[str]) -> list[str]:
        """
        Receives a batch of inputs automatically collected.
        Returns a list of outputs (one per input).
        """
        return self.model.batch_predict(inputs)


@app.cls(gpu="A100", image=image, container_idle_timeout=300)
class LLMServer:
    @modal.enter()
    def load_model(self) -> None:
        self.words = {"what": "that", "explain": "see", "how": "so"}
        self.batches: list[int] = []

    @modal.batched(max_batch_size=16, wait_ms=50)
    @modal.method()
    def generate(self, prompts: list[str]) -> list[str]:
        """Batch generate responses for multiple prompts"""
        self.batches.append(len(prompts))
        return [self.words.get(prompt.split()[0].lower(), "well") for prompt in prompts]

    @modal.exit()
    def say_goodbye(self) -> None:
        print(f"served batches of {self.batches}")


@app.cls(gpu="T4")
class ImageProcessor:
    @modal.enter()
    async def load(self) -> None:
        self.size = 4

    @modal.batched(max_batch_size=64, wait_ms=100)
    @modal.method()
    def embed_images(self, image_bytes_list: list[bytes]) -> list[list[float]]:
        """Batch image embedding"""
        return [[float(byte) for byte in picture[: self.size]] for picture in image_bytes_list]


@app.cls(gpu="A100")
class Server:
    @modal.concurrent(max_inputs=4)
    @modal.batched(max_batch_size=32)
    @modal.method()
    def process(self, items: list[int]) -> list[int]:
        return [item * item for item in items]


@app.function()
@modal.fastapi_endpoint(method="POST", docs=True)
async def add(body: dict[str, int]) -> dict[str, int]:
    result = await batch_add.remote.aio(body["x"], body["y"])
    return {"result": result}


@app.local_entrypoint()
async def main() -> None:
    inputs = [(1, 300), (2, 200), (3, 100)]
    sums = []
    async for result in batch_add.starmap.aio(inputs):
        print(f"Sum: {result}")
        sums.append(result)
    assert sums == [301, 202, 103]

    model = LLMServer()
    prompts = ["What is Python?", "Explain machine learning", "How does a GPU work?"]
    for prompt, answer in zip(prompts, list(model.generate.map(prompts)), strict=True):
        print(f"Q: {prompt}")
        print(f"A: {answer}\n")

    assert ImageProcessor().embed_images.remote(b"\x01\x02\x03\x04\x05") == [1.0, 2.0, 3.0, 4.0]
    assert list(Server().process.map(range(100))) == [n * n for n in range(100)]

    calls = (BatchedModel().predict.remote.aio(text) for text in "abc")
    assert await asyncio.gather(*calls) == ["A", "B", "C"]
    added = BatchedClass().batch_add.starmap([(1, 300), (2, 200)])
    assert list(added) == [301, 202]

    await ask_the_endpoint()


async def ask_the_endpoint() -> None:
    """Three requests of concurrent clients; a server would be given `app.asgi()`."""
    bodies = [{"x": 1, "y": 300}, {"x": 2, "y": 200}, {"x": 3, "y": 100}]
    transport = httpx.ASGITransport(app=app.asgi())
    async with httpx.AsyncClient(transport=transport, base_url="http://modal") as client:
        answers = await asyncio.gather(*(client.post("/", json=body) for body in bodies))
    for answer in answers:
        print(f"Sum: {answer.json()['result']}")


if __name__ == "__main__":
    with app.run():
        main()
