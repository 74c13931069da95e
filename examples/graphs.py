"""A model replayed as CUDA graphs, one per size of batch; without a GPU the same program runs in main memory.

The model is built here, with random weights.
"""

from __future__ import annotations

import torch

from carpool import batched
from carpool.collate import Stack

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.GELU(), torch.nn.Linear(128, 10)).to(
    DEVICE
)


@batched(
    max_batch_size=16,
    batch_sizes=[1, 4, 16],
    collate=Stack(),
    device=DEVICE,
    graphs=True,
    context=torch.inference_mode,
)
def classify(batch: torch.Tensor) -> torch.Tensor:
    return model(batch)


def main() -> None:
    classify.warmup(torch.zeros(64))
    rows = torch.randn(100, 64)
    answers = classify.rows(rows)
    with torch.inference_mode():
        expected = model(rows.to(DEVICE)).cpu()
    assert torch.allclose(answers, expected, atol=1e-3)
    stats = classify.stats
    print(f"{stats.answered} rows in {stats.batches} batches on {DEVICE}")
    classify.close()


if __name__ == "__main__":
    main()
