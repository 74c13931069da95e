"""What an error of a handler says about the machine: out of memory, or a device that is lost to this process.

Known by type where there is one, else by the words of the libraries. Nothing is imported for it: an error of a
library that was never imported cannot be met. An error raised `from` such a one, or while that was handled, counts as that, and so
does a group with one in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from carpool._exceptions import BatcherDead
from carpool._watch import events

__all__ = ["cause_of_death", "is_lost", "is_out_of_memory"]

#: How many errors are looked at; a chain of causes may be a ring.
_DEEPEST = 20

#: Types of their own for memory: torch's (CUDA, XPU, MPS), TensorFlow's, CuPy's.
_MEMORY_TYPES = {
    ("torch", "OutOfMemoryError"),
    ("tensorflow", "ResourceExhaustedError"),
    ("cupy", "OutOfMemoryError"),
}
#: Of a RuntimeError: torch on CUDA, ROCm, MPS and CPU, cuBLAS and cuDNN, JAX, ONNX Runtime.
_MEMORY_WORDS = re.compile(
    r"out of memory|can't allocate memory|not enough memory|failed to allocate memory|bad allocation"
    r"|(CUBLAS|CUDNN)_STATUS_ALLOC_FAILED|RESOURCE_EXHAUSTED",
    re.IGNORECASE,
)

#: Libraries whose errors need not be a RuntimeError to be one of the device.
_DEVICE_LIBRARIES = {"torch", "cupy", "cupy_backends", "numba", "pycuda", "jaxlib", "tensorflow"}
_DEVICE = re.compile(r"cuda|hip|nvrtc", re.IGNORECASE)
#: Errors after which every further call of the process fails alike: those of which the CUDA runtime's reference
#: says that the process must be ended and started anew, by their texts and by their names.
_LOST_WORDS = re.compile(
    r"device-side assert|illegal memory access|illegal instruction|unspecified launch failure|misaligned address"
    r"|hardware stack error|invalid program counter|launch timed out and was terminated"
    r"|operation not supported on global/shared address space|uncorrectable (ecc|nvlink) error"
    r"|(cudaError|hipError|CUDA_ERROR_|hipError_?)"
    r"(_?assert|illegal_?(address|instruction)|launch_?(failed|failure|timeout)|misaligned_?address"
    r"|hardware_?stack_?error|invalid_?(pc|address_?space)|(ecc|nvlink)_?uncorrectable|tensor_?memory_?leak)",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there was too little memory, of the host or of a device: fewer at once may fit."""
    return any(_lacks_memory(one) for one in _causes(error))


def is_lost(error: BaseException) -> bool:
    """Whether this process can use its device no more, whatever it tries."""
    return any(_lost_device(one) for one in _causes(error))


def cause_of_death(name: str, error: BaseException) -> BatcherDead | None:
    """What the later callers of the batcher `name` get after `error`; None where it can go on."""
    if not is_lost(error):
        return None
    events.device_lost(name, error)
    dead = BatcherDead(
        f"{name}: its handler raised {type(error).__name__}, after which this process can use its device no "
        f"more; end the process and start another: {_first_line(error)}"
    )
    dead.__cause__ = error
    return dead


def _lacks_memory(error: BaseException) -> bool:
    if issubclass(type(error), MemoryError):
        return True
    if any((_library(kind), kind.__name__) in _MEMORY_TYPES for kind in type(error).__mro__):
        return True
    return issubclass(type(error), RuntimeError) and bool(_MEMORY_WORDS.search(_text(error)))


def _lost_device(error: BaseException) -> bool:
    if not issubclass(type(error), RuntimeError) and not any(
        _library(kind) in _DEVICE_LIBRARIES for kind in type(error).__mro__
    ):
        return False
    text = _text(error)
    return bool(_DEVICE.search(text)) and bool(_LOST_WORDS.search(text))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from or while that was handled, and those of groups."""
    left, seen = [error], 0
    while left and seen < _DEEPEST:
        one = left.pop()
        seen += 1
        yield one
        if _is_group(one):
            left += reversed(one.exceptions)  # type: ignore[attr-defined]
        before = _CAUSE.__get__(one) or (None if _SILENT.__get__(one) else _CONTEXT.__get__(one))
        if before is not None:
            left.insert(0, before)


#: Of the exception itself, whatever its class makes of these names.
_vars: Any = vars(BaseException)
_CAUSE, _CONTEXT = _vars["__cause__"], _vars["__context__"]
_SILENT = _vars["__suppress_context__"]


def _is_group(error: BaseException) -> bool:
    # A builtin from CPython 3.11 on; the package of that name before.
    return any(
        kind.__name__ == "BaseExceptionGroup" for kind in type(error).__mro__
    ) and isinstance(getattr(error, "exceptions", None), tuple)


def _library(kind: type) -> str:
    return str(kind.__module__).partition(".")[0]


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # its own __str__: anything may come
        return ""


def _first_line(error: BaseException) -> str:
    lines = _text(error).splitlines()
    return lines[0] if lines else ""
