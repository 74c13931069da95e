"""A loop of one's own: `Batcher` gathers, the loop decides what to do with each batch.

Here it answers good items and refuses bad ones, item by item. The loop ends by itself once the
batcher is closed and everything accepted has been answered.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from carpool import Batcher


def serve(batcher: Batcher[str, float]) -> None:
    for batch in batcher:
        print(f"batch of {len(batch)}, left because: {batch.reason}")
        for index, text in enumerate(batch.items):
            try:
                batch.set(index, float(text))
            except ValueError as error:
                batch.fail_item(index, error)


def main() -> None:
    batcher: Batcher[str, float] = Batcher(max_batch_size=8, wait_ms=2)
    loop = threading.Thread(target=serve, args=(batcher,))
    loop.start()

    # Blocking callers on many threads: each waits for its own answer alone.
    texts = [str(number / 2) for number in range(20)]
    with ThreadPoolExecutor(10) as callers:
        assert list(callers.map(batcher, texts)) == [float(text) for text in texts]

    # A future in place of waiting; a bad item fails by itself.
    good, bad = batcher.submit("2.5"), batcher.submit("two and a half")
    assert good.result() == 2.5
    print("refused:", bad.exception())

    batcher.close()
    loop.join()


if __name__ == "__main__":
    main()
