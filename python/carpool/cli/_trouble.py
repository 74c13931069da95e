"""What ends a run before its time, and the exit status of each."""

from __future__ import annotations

import errno
import os

__all__ = ["BROKEN_PIPE", "FAILED_ROWS", "HANDLER", "INPUT", "OUTPUT", "STOPPED", "Trouble"]

#: Some rows failed; all others are written.
FAILED_ROWS = 1
#: The input cannot be read, or is not what the output was made of.
INPUT = 3
#: The output, or the errors file, cannot be written.
OUTPUT = 4
#: The handler cannot be loaded or set up.
HANDLER = 5
#: Interrupted, as after Ctrl-C.
STOPPED = 130
#: Nobody reads the output any more.
BROKEN_PIPE = 141


class Trouble(Exception):
    """A run that cannot go on: the text is for whoever started it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def of_input(name: str, error: Exception) -> Trouble:
    """The input cannot be read."""
    return Trouble(INPUT, f"cannot read {name}: {reason(error)}")


def of_output(name: str, error: OSError) -> Trouble:
    """The output cannot be written."""
    if error.errno == errno.EPIPE:
        return Trouble(BROKEN_PIPE, "")
    return Trouble(OUTPUT, f"cannot write {name}: {reason(error)}")


def reason(error: Exception) -> str:
    """Why, in the words of the system where it has some."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return f"{type(error).__name__}: {error}"
