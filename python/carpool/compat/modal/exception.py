"""`modal.exception`: what can go wrong in this front door, with Modal's names."""

from __future__ import annotations

__all__ = ["Error", "InputCancellation", "InvalidError"]


class Error(Exception):
    """The root of these errors."""


class InvalidError(Error):
    """A decorator, a call or an output does not keep to the rules."""


class InputCancellation(Error):
    """The call whose result is asked for was cancelled."""
