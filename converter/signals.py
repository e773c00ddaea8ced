"""Signals that ask a process to end: Ctrl-C, SIGTERM, SIGHUP. Where they raise, and where not.

Python runs their handlers between any two instructions of the main thread. An exception there may
leave a lock taken for ever, or something behind that was about to be noted down. So work on
several threads is ``checked``: signals raise where bytes are read or written, in whatever thread
that is. What must be done whole is ``held_back`` from them.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
# What Python does about them by itself: it dies at once, or raises KeyboardInterrupt.
_UNTOUCHED = (signal.SIG_DFL, signal.default_int_handler)

_blocks: list[bool] = []  # those that the main thread is in: whether signals are held back
_came: list[int] = []  # the signals that came meanwhile


class Stopped(KeyboardInterrupt):
    """The process was asked to end; what cleans up after a Ctrl-C cleans up after this."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.name = signal.Signals(number).name


@contextmanager
def raised() -> Iterator[None]:
    """Raise Stopped inside the block when a signal asks to end; after the first, a Ctrl-C only.

    Only in the main thread, where Python handles signals, and only for signals that neither
    whoever started the process (``nohup``) nor whoever calls this has given another meaning.
    """
    asked: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT or not asked:
            asked.append(number)
            raise Stopped(number)

    with ExitStack() as stack:
        for number in _numbers():
            handler = signal.getsignal(number)
            if handler in _UNTOUCHED:
                stack.callback(signal.signal, number, handler)
                signal.signal(number, stop)
        yield


@contextmanager
def checked() -> Iterator[None]:
    """Let signals raise at ``check`` and at the end of the block; a second Ctrl-C at once."""
    with _deferred(held=False):
        yield


@contextmanager
def held_back() -> Iterator[None]:
    """Let signals raise at the end of the block, or of the ``checked`` one that it is in."""
    with _deferred(held=True):
        yield


def check() -> None:
    """Raise Stopped, in any thread, if a signal came and is to raise at checks."""
    if _came and not any(_blocks):
        raise Stopped(_came[0])


@contextmanager
def _deferred(*, held: bool) -> Iterator[None]:
    with ExitStack() as stack:
        numbers = _numbers()
        if not _blocks:
            stack.callback(_raise)
            for number in numbers:
                _take_over(number, stack)
        if numbers:
            stack.callback(_blocks.pop)
            _blocks.append(held)
        yield


def _take_over(number: int, stack: ExitStack) -> None:
    """Note the signals of a number instead of handling them, if Python handles them."""
    handler = signal.getsignal(number)
    if not callable(handler):
        return

    def note(number: int, frame: FrameType | None) -> None:
        again = number in _came
        _came.append(number)
        if again and number == signal.SIGINT and not any(_blocks):
            handler(number, frame)

    stack.callback(signal.signal, number, handler)
    signal.signal(number, note)


def _raise() -> None:
    """Let the first of the signals that came raise what it raises, now that it may."""
    if _came and not _blocks:
        number = _came[0]
        _came.clear()
        signal.raise_signal(number)


def _numbers() -> list[int]:
    """Return the signals of this platform that ask to end; none where they are not handled."""
    if threading.current_thread() is not threading.main_thread():
        return []
    return [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
