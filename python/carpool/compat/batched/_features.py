"""Rows of features to a padded batch, and the output of a model back to rows; for numpy and torch alike.

A row is what one item has of every feature: a dict of arrays or tensors. Shapes are written without the axis of
the items: a row of token ids has shape (length,), its batch (n, longest).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from ._handler import Shape, check_length

__all__ = ["features_shape", "kind_of", "length_of", "split_features", "stack_rows"]

SIDES = ("right", "left")


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic))


def _array_of(name: str, value: Any) -> Any:
    if _is_tensor(value) or _is_array(value):
        return value
    raise TypeError(
        f"a row of the feature {name!r} must be a numpy array or a torch tensor, "
        f"not {value!r} ({type(value).__name__})"
    )


def split_features(features: Any) -> list[dict[str, Any]]:
    """The rows of a call: a dict for each item.

    Args:
        features: by name an array or tensor of shape (n, ...), or a list of n arrays or tensors, whose lengths may
            differ.

    Raises:
        TypeError: it is no dict of those.
        ValueError: it has no feature, or no row, or features with different numbers of rows.
    """
    if not isinstance(features, Mapping):
        raise TypeError(
            f"features must be a dict of arrays or tensors by name, not a {type(features).__name__}"
        )
    if not features:
        raise ValueError("a call needs at least one feature; it has none")
    counts = {name: _count(name, rows) for name, rows in features.items()}
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{name}: {count}" for name, count in counts.items())
        raise ValueError(f"features must have the same number of rows; here they have {shown}")
    count = next(iter(counts.values()))
    if not count:
        raise ValueError("a call needs at least one row; it has none")
    return [
        {name: _array_of(name, rows[at]) for name, rows in features.items()} for at in range(count)
    ]


def _count(name: str, rows: Any) -> int:
    if not hasattr(type(rows), "__len__") or getattr(rows, "ndim", 1) == 0:
        raise TypeError(
            f"the feature {name!r} must be an array, a tensor or a list of those, with a row for each item, "
            f"not {rows!r} ({type(rows).__name__})"
        )
    return len(rows)


def kind_of(row: Mapping[str, Any]) -> Any:
    """What rows must have in common to be stacked: names, dtypes, devices, and shapes but for the first axis."""
    return frozenset(
        (
            name,
            type(value).__module__.partition(".")[0],
            str(value.dtype),
            len(value.shape),
            tuple(value.shape[1:]),
            str(getattr(value, "device", "cpu")),
        )
        for name, value in row.items()
    )


def length_of(content: Any) -> int:
    """The length that `max_batch_length` counts: of a row of features that of its first feature, of what has no
    length 1, of None 0."""
    if content is None:
        return 0
    if isinstance(content, Mapping):
        return length_of(next(iter(content.values()), None))
    shape = getattr(content, "shape", None)
    if shape is not None:
        return int(shape[0]) if len(shape) else 1
    return len(content) if hasattr(type(content), "__len__") else 1


def features_shape(settings: Mapping[str, Any]) -> Shape:
    """Rows of features in, padded; in the output a row per item, or per head (a list) or name (a dict) as many rows.

    Raises:
        ValueError: `padding_side` is neither "right" nor "left".
        TypeError: `pad_tokens` is no dict.
    """
    pad_tokens, side = settings["pad_tokens"], settings["padding_side"]
    if side not in SIDES:
        raise ValueError(f"padding_side must be 'right' or 'left', not {side!r}")
    tokens = {} if pad_tokens is None else pad_tokens
    if not isinstance(tokens, Mapping):
        raise TypeError(
            f"pad_tokens must be a dict of a value for each feature, or None, not {pad_tokens!r}"
        )
    spread: bool = settings["spread_kwargs"]
    pads: dict[frozenset[str], Any] = {}

    def arguments(items: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        names = frozenset(items[0])
        pad = pads.get(names)
        if pad is None:
            from carpool.collate import Pad

            pad = pads[names] = Pad({name: tokens.get(name, 0) for name in names}, side=side)
        batch = pad.collate(items)
        return ((), batch) if spread else ((batch,), {})

    return Shape(arguments, _rows_of)


def _rows_of(output: Any, count: int) -> Any:
    """A row for each item: of a list one per head, of a dict one per name, else of the output itself."""
    if isinstance(output, Mapping):
        columns = {name: _column(part, count) for name, part in output.items()}
        return [{name: part[at] for name, part in columns.items()} for at in range(count)]
    if isinstance(output, list):
        heads = [_column(part, count) for part in output]
        if not heads:
            check_length(0, count)
        return [[part[at] for part in heads] for at in range(count)]
    return _column(output, count)


def _column(part: Any, count: int) -> Any:
    if getattr(part, "ndim", 1) == 0 or not hasattr(type(part), "__len__"):
        raise TypeError(
            f"the output of a batch must be an array, a tensor, a list of those (heads) or a dict of those, with a "
            f"row for each item; here one is {part!r} ({type(part).__name__})"
        )
    check_length(len(part), count)
    # A view of a row would keep the whole batch alive.
    if _is_tensor(part):
        return [row.clone() for row in part]
    if _is_array(part):
        return [row.copy() for row in part]
    return part


def stack_rows(rows: list[Any]) -> Any:
    """The result of a call from those of its rows: stacked, by head or name where there are several."""
    first = rows[0]
    if isinstance(first, Mapping):
        return {name: _stack([row[name] for row in rows]) for name in first}
    if isinstance(first, list):
        return [_stack(list(head)) for head in zip(*rows, strict=True)]
    return _stack(rows)


def _stack(rows: list[Any]) -> Any:
    stack: Callable[[list[Any]], Any]
    if _is_tensor(rows[0]):
        stack = sys.modules["torch"].stack
    elif _is_array(rows[0]):
        stack = sys.modules["numpy"].stack
    else:
        return rows
    return stack(rows)
