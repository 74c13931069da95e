"""The two optional packages that items are made of, each imported where the first item asks for it."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["loaded_torch", "numpy", "torch"]


def numpy() -> Any:
    """numpy.

    Raises:
        ImportError: it is not installed; the text names the extra.
    """
    try:
        import numpy
    except ImportError as error:
        raise ImportError(
            "numbers, lists and buffers are collated into numpy arrays; "
            "pip install 'carpool[numpy]'"
        ) from error
    return numpy


def torch() -> Any:
    """torch.

    Raises:
        ImportError: it is not installed; the text names the extra.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError("this needs torch; pip install 'carpool[torch]'") from error
    return torch


def loaded_torch() -> Any:
    """torch if the program has imported it, else None: without it no item is a tensor."""
    return sys.modules.get("torch")
