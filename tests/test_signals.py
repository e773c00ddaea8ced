from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from converter import signals
from converter.positional import read_at, write_at
from converter.signals import Stopped, check, checked, held_back, raised

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Assert that a test leaves all handlers as they were, and nothing pending."""
    before = [signal.getsignal(number) for number in NUMBERS]
    yield
    assert [signal.getsignal(number) for number in NUMBERS] == before
    assert (signals._blocks, signals._came) == ([], [])


def elsewhere(act: Callable[[], object]) -> BaseException | None:
    """Return what an act raises in another thread."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return errors[0] if errors else None


# What the command line does


@pytest.mark.parametrize("number", NUMBERS)
def test_each_signal_that_asks_to_end_raises_what_a_ctrl_c_does(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt) as caught, raised():
        signal.raise_signal(number)
    assert isinstance(caught.value, Stopped)
    assert (caught.value.number, caught.value.name) == (number, number.name)


@pytest.mark.parametrize("first", NUMBERS)
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_does_not_disturb_what_the_first_brought_about(
    first: signal.Signals, second: signal.Signals
) -> None:
    done: list[str] = []

    @raised()
    def work() -> None:
        try:
            signal.raise_signal(first)
        finally:
            signal.raise_signal(second)
            done.append("cleaned up")

    with pytest.raises(Stopped, match=str(int(first))):
        work()
    assert done


def test_a_ctrl_c_counts_whatever_came_before() -> None:
    @raised()
    def work() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Stopped, match=str(int(signal.SIGINT))):
        work()


def test_a_signal_that_is_ignored_or_handled_keeps_its_meaning() -> None:
    came: list[int] = []
    old = [
        signal.signal(signal.SIGHUP, signal.SIG_IGN),  # as nohup does
        signal.signal(signal.SIGTERM, lambda number, frame: came.append(number)),
    ]
    try:
        with raised():
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGTERM)
        with raised(), checked(), held_back():
            signal.raise_signal(signal.SIGHUP)
        assert came == [signal.SIGTERM]
        with checked():
            signal.raise_signal(signal.SIGTERM)
            assert came == [signal.SIGTERM]
        assert came == [signal.SIGTERM] * 2
    finally:
        signal.signal(signal.SIGHUP, old[0])
        signal.signal(signal.SIGTERM, old[1])


def test_another_thread_handles_no_signals_and_is_none_the_worse() -> None:
    def act() -> None:
        with raised(), checked(), held_back():
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
            assert not signals._blocks
            check()

    assert elsewhere(act) is None


# Where they raise


def test_in_a_checked_block_a_signal_raises_at_checks_in_any_thread() -> None:
    @checked()
    def work() -> None:
        check()
        signal.raise_signal(signal.SIGTERM)
        for _ in range(2):
            assert isinstance(elsewhere(check), Stopped)
        check()

    with pytest.raises(Stopped, match="15") as caught, raised():
        work()
    assert isinstance(caught.value.__context__, Stopped)  # once by the check, once by the end


def test_a_checked_block_that_checks_nothing_raises_at_its_end() -> None:
    done: list[str] = []

    @checked()
    def work() -> None:
        signal.raise_signal(signal.SIGINT)
        done.append("all")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done


def test_a_second_ctrl_c_does_not_wait_for_a_check() -> None:
    done: list[str] = []

    @checked()
    def work() -> None:
        signal.raise_signal(signal.SIGINT)
        done.append("half")
        signal.raise_signal(signal.SIGINT)
        done.append("all")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["half"]


def test_what_is_held_back_is_not_interrupted_by_anything() -> None:
    done: list[str] = []

    @held_back()
    def work() -> None:
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)
        check()
        assert elsewhere(check) is None
        done.append("all")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done


def test_what_was_held_back_raises_at_the_checks_of_the_block_around_it() -> None:
    done: list[str] = []

    @checked()
    def work() -> None:
        with held_back():
            signal.raise_signal(signal.SIGINT)
        done.append("what is held back")
        assert isinstance(elsewhere(check), Stopped)
        with held_back():
            check()
        done.append("all")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert len(done) == 2


def test_an_error_inside_is_known_to_what_a_signal_raises() -> None:
    @checked()
    def work() -> None:
        signal.raise_signal(signal.SIGINT)
        raise ValueError

    with pytest.raises(KeyboardInterrupt) as caught:
        work()
    assert isinstance(caught.value.__context__, ValueError)


@pytest.mark.parametrize("call", [read_at, write_at])
def test_reading_and_writing_are_where_signals_raise(
    tmp_path: Path, call: Callable[..., Any]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"1234")
    done: list[str] = []

    @checked()
    def work(fd: int) -> None:
        call(fd, bytearray(b"5678"), 0)
        signal.raise_signal(signal.SIGINT)
        done.append("half")
        call(fd, bytearray(b"9012"), 0)
        done.append("all")

    with path.open("r+b") as file, pytest.raises(KeyboardInterrupt):
        work(file.fileno())
    assert path.read_bytes() in (b"1234", b"5678")
    assert done == ["half"]
