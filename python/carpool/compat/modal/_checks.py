"""What settings, functions, calls and outputs may be, with Modal's texts."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any

from .exception import InvalidError

__all__ = [
    "Batching",
    "batching",
    "check_function",
    "check_name",
    "check_no_method",
    "check_output",
    "concurrency",
    "known_options",
    "no_positional",
]

MOST_PER_BATCH = 1000
LONGEST_WAIT_MS = 600_000

#: (max_batch_size, wait_ms)
Batching = tuple[int, int]

#: What describes a container or its place in the cloud; here nothing depends on it.
DESCRIBING = (
    "allow_concurrent_inputs", "block_network", "buffer_containers", "cloud", "cloud_bucket_mounts", "concurrency_limit",
    "container_idle_timeout", "cpu", "enable_memory_snapshot", "env", "ephemeral_disk", "experimental_options", "gpu",
    "i6pn", "image", "include_source", "is_generator", "keep_warm", "max_containers", "max_inputs", "memory",
    "min_containers", "mounts", "network_file_systems", "nonpreemptible", "proxy", "region", "restrict_modal_access",
    "restrict_output", "retries", "routing_region", "scaledown_window", "schedule", "scheduler_placement", "secrets",
    "serialized", "single_use_containers", "startup_timeout", "tags", "timeout", "volumes",
)  # fmt: skip


def no_positional(given: object, suggestion: str) -> None:
    """
    Raises:
        InvalidError: something is given where a decorator takes keywords only, most often the function itself.
    """
    if given is not None:
        raise InvalidError(
            f"Positional arguments are not allowed. Did you forget parentheses? Suggestion: `@{suggestion}()`."
        )


def batching(max_batch_size: Any, wait_ms: Any) -> Batching:
    """The two settings of `batched`, checked.

    Raises:
        InvalidError: one is no int or out of range.
    """
    if not _is_int(max_batch_size) or max_batch_size < 1:
        raise InvalidError("max_batch_size must be a positive integer.")
    if max_batch_size > MOST_PER_BATCH:
        raise InvalidError(f"max_batch_size cannot be greater than {MOST_PER_BATCH}.")
    if not _is_int(wait_ms) or wait_ms < 0:
        raise InvalidError("wait_ms must be a non-negative integer.")
    if wait_ms > LONGEST_WAIT_MS:
        raise InvalidError(f"wait_ms cannot be greater than {LONGEST_WAIT_MS}.")
    return max_batch_size, wait_ms


def concurrency(max_inputs: Any, target_inputs: Any) -> int:
    """How many batches (or calls, where there are none) may run at once.

    Raises:
        InvalidError: a number is no positive int, or the target is beyond the limit.
        TypeError: there is no limit.
    """
    for name, value in (("max_inputs", max_inputs), ("target_inputs", target_inputs)):
        if value is not None and (not _is_int(value) or value < 1):
            raise InvalidError(f"`{name}` must be a positive integer.")
    if max_inputs is not None and target_inputs is not None and target_inputs > max_inputs:
        raise InvalidError("`target_inputs` parameter cannot be greater than `max_inputs`.")
    if max_inputs is None:
        raise TypeError("`@modal.concurrent()` missing required argument: `max_inputs`.")
    most: int = max_inputs
    return most


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def check_name(name: object) -> None:
    """
    Raises:
        InvalidError: the name of an app or entrypoint is no string.
    """
    if name is not None and not isinstance(name, str):
        raise InvalidError("Invalid value for `name`: Must be string.")


def check_no_method(function: Callable[..., Any], suggestion: str) -> None:
    """
    Raises:
        InvalidError: `app.function` decorates what is defined in the body of a class.
    """
    path = str(getattr(function, "__qualname__", "")).split(".")
    if len(path) > 1 and path[-2] != "<locals>":
        raise InvalidError(
            f"The `@app.function` decorator cannot be used on class methods. {suggestion}"
        )


def check_function(function: Callable[..., Any]) -> None:
    """
    Raises:
        InvalidError: it cannot be batched: a generator, or one with defaults, `*args` or `**kwargs`.
    """
    name = function.__name__
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidError(f"Modal batched function {name} cannot return generators")
    for one in inspect.signature(function).parameters.values():
        if one.default is not one.empty:
            raise InvalidError(f"Modal batched function {name} does not accept default arguments.")
        if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            raise InvalidError(f"Modal batched function {name} does not accept {one}.")


def item_of(
    name: str, parameters: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, ...]:
    """The values of one call of a batched function, in the order of its parameters.

    Raises:
        InvalidError: the arguments do not fit.
    """
    if not kwargs and len(args) == len(parameters):
        return args
    if len(args) + len(kwargs) != len(parameters):
        raise InvalidError(
            f"Modal batched function {name} takes {len(parameters)} positional arguments, but one invocation in the "
            f"batch has {len(args) + len(kwargs)}."
        )
    values = dict(zip(parameters, args, strict=False))
    for key, value in kwargs.items():
        if key not in parameters:
            raise InvalidError(
                f"Modal batched function {name} got unexpected keyword argument {key} in one invocation in the batch."
            )
        if key in values:
            raise InvalidError(
                f"Modal batched function {name} got multiple values for argument {key} in one invocation in the batch."
            )
        values[key] = value
    return tuple(values[one] for one in parameters)


def check_output(name: str, output: Any, count: int) -> list[Any]:
    """The output of a batched function.

    Raises:
        InvalidError: it is no list, or of another length than the inputs.
    """
    if not isinstance(output, list):
        raise InvalidError(f"Output of batched function {name} must be a list.")
    if len(output) != count:
        raise InvalidError(
            f"Output of batched function {name} must be a list of equal length as its inputs."
        )
    return output


def known_options(what: str, options: dict[str, Any]) -> list[str]:
    """The names of options that describe a container.

    Raises:
        TypeError: one is not known.
    """
    for name in options:
        if name not in DESCRIBING:
            close = difflib.get_close_matches(name, DESCRIBING, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"{what} has no option {name!r}{hint}")
    return sorted(name for name, value in options.items() if value is not None)
