"""Items into one batch, and its rows back: `collate(items) -> batch`, `split(output, n) -> rows`.

```python
from carpool.collate import Lists

assert Lists().collate([1, 2]) == [1, 2]
assert Lists().split(["a", "b"], 2) == ["a", "b"]
```

A batcher takes one as `collate=`; each works without a batcher, too. numpy and torch are looked for when the
first items ask for them.
"""

from carpool._types import Collate

from ._lists import Lists
from ._pad import Pad
from ._ragged import Ragged, RaggedBatch
from ._stack import Stack

__all__ = ["Collate", "Lists", "Pad", "Ragged", "RaggedBatch", "Stack"]
