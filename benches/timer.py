"""A clock to the microsecond for the benches: Linux timerfd, by absolute CLOCK_MONOTONIC time.

`time.sleep` and the timers of asyncio and libuv are late by the kernel's timer slack (50 µs and more) or by
their own rounding to milliseconds; a timerfd has no slack. Blocking in `wait_until` releases the GIL, and the
same descriptor given to `loop.add_reader` wakes an event loop when it is due.
"""

from __future__ import annotations

import ctypes
import os

_CLOCK_MONOTONIC = 1
_TFD_TIMER_ABSTIME = 1
_TFD_CLOEXEC = 0o2000000
_TFD_NONBLOCK = 0o4000


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


_libc = ctypes.CDLL(None, use_errno=True)


class Timer:
    """One timerfd; times are those of `time.monotonic_ns`."""

    def __init__(self, *, blocking: bool) -> None:
        flags = _TFD_CLOEXEC | (0 if blocking else _TFD_NONBLOCK)
        self.fd: int = _libc.timerfd_create(_CLOCK_MONOTONIC, flags)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._spec = _Itimerspec()

    def arm(self, at_ns: int) -> None:
        """Makes the descriptor readable at this time, at once if it is past."""
        self._spec.value.seconds, self._spec.value.nanoseconds = divmod(
            max(at_ns, 1), 1_000_000_000
        )
        if _libc.timerfd_settime(self.fd, _TFD_TIMER_ABSTIME, ctypes.byref(self._spec), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")

    def rang(self) -> bool:
        """Clears the alarm; whether there was one."""
        try:
            os.read(self.fd, 8)
        except BlockingIOError:
            return False
        return True

    def wait_until(self, at_ns: int) -> None:
        """Blocks without the GIL until this time."""
        self.arm(at_ns)
        os.read(self.fd, 8)

    def close(self) -> None:
        os.close(self.fd)
