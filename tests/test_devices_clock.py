import threading

import pytest

from devices.clock import ManualClock, SystemClock, wait_for
from gently_bluesky.errors import MoveTimeoutError


def test_a_manual_clock_moves_only_when_it_is_slept_on_or_advanced() -> None:
    clock = ManualClock(epoch=1000.0)
    assert (clock.time(), clock.monotonic()) == (1000.0, 0.0)
    clock.sleep(2.5)
    clock.advance(0.5)
    assert (clock.time(), clock.monotonic()) == (1003.0, 3.0)


def test_a_manual_clock_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="does not go back"):
        ManualClock().advance(-1)


def test_a_manual_clock_loses_no_time_between_threads() -> None:
    clock = ManualClock()

    def sleep_often() -> None:
        for _ in range(500):
            clock.sleep(1)

    threads = [threading.Thread(target=sleep_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.monotonic() == 2000


def test_the_system_clock_grows() -> None:
    clock = SystemClock()
    before = clock.monotonic()
    clock.sleep(0.0)
    assert clock.monotonic() >= before
    assert clock.time() > 1.6e9


def test_waiting_ends_with_the_condition() -> None:
    clock = ManualClock()
    wait_for(lambda: clock.monotonic() >= 3, clock, timeout_s=10, what="three seconds")
    assert 3 <= clock.monotonic() < 3.1


def test_waiting_ends_with_an_error_that_says_what_was_waited_for() -> None:
    clock = ManualClock()
    with pytest.raises(MoveTimeoutError, match=r"the moon: not within 5 s"):
        wait_for(lambda: False, clock, timeout_s=5, what="the moon", error=MoveTimeoutError)
    assert 5 <= clock.monotonic() < 5.1
