"""An image model: images of one shape from many threads, stacked; a dict of heads goes back in rows.

The model is built here, with random weights; one from a library takes its place as it is.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from carpool import CollateError, batched
from carpool.collate import Stack

torch.manual_seed(0)
trunk = torch.nn.Sequential(
    torch.nn.Conv2d(3, 8, 3, stride=4), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1)
).eval()
classes = torch.nn.Linear(8, 5).eval()


@batched(max_batch_size=16, wait_ms=2, collate=Stack(), context=torch.inference_mode)
def classify(images: Any) -> dict[str, Any]:
    # (n, 3, height, width) uint8, as it came: what is normalised is the batch, once.
    features = trunk(torch.from_numpy(images).float() / 255).flatten(1)
    return {"features": features, "label": classes(features).argmax(1)}


def main() -> None:
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (3, 64, 64), "uint8") for _ in range(60)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(classify, images))
    assert all(answer["features"].shape == (8,) for answer in answers)
    again = classify.rows(np.stack(images))
    assert again["label"].tolist() == [int(answer["label"]) for answer in answers]
    try:
        classify("no image")
    except CollateError as error:
        print(f"refused: {error}")
    print(f"{classify.stats.answered} images in {classify.stats.batches} batches")
    classify.close()


if __name__ == "__main__":
    main()
