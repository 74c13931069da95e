"""Code written for Modal, with one import changed: everything runs in this process.

Run it as it is, or as `modal run` would: `python -m carpool.compat.modal run examples/moving_modal.py`.
The models are small ones that stand for a language model and an image model.
"""

from __future__ import annotations

from carpool.compat import modal

app = modal.App("llm-batched")

image = modal.Image.debian_slim(python_version="3.11").pip_install("torch", "transformers")


@app.function()
@modal.batched(max_batch_size=2, wait_ms=1000)
async def batch_add(xs: list[int], ys: list[int]) -> list[int]:
    print(f"batch_add of {xs} and {ys}")
    return [x + y for x, y in zip(xs, ys, strict=True)]


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


if __name__ == "__main__":
    with app.run():
        main()
