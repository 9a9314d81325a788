"""The last word to the lasers is "off", in real processes that are told to end in the middle of an exposure."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from devices import dark_on_signals
from tests.devices_rig import simulated

REPOSITORY = Path(__file__).parent.parent
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals between processes are POSIX")

# An exposure that would never end; its commands to the config groups are logged as they are given.
CHILD = """
import os, signal, sys, threading
from devices import dark_on_signals
from tests.devices_rig import address, simulated

def say(line):
    os.write(1, (line + chr(10)).encode())

exposing = threading.Event()

def frame(context):
    if context.number == 1:
        say("exposing")
        exposing.set()
        threading.Event().wait()
    return address(context)

dispim = simulated(frame_source=frame)
set_config = dispim.core.setConfig

def logged(group, preset):
    set_config(group, preset)
    say(f"{group}={preset}")

dispim.core.setConfig = logged
dispim.led.output.put("Open")
{setup}
threading.Thread(target=dispim.spim.trigger().wait, daemon=True).start()
{wait}
"""
ON, OFF = ["LED=Open", "Laser=488 only", "exposing"], ["Laser=ALL OFF", "LED=Closed"]


def told_to_end(number: int, setup: str, *, wait: str = "signal.pause()") -> tuple[int, list[str]]:
    """Send a signal in the middle of an exposure; exit status and what was said come out."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD.replace("{setup}", setup).replace("{wait}", wait)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    with process:
        assert process.stdout is not None
        said: list[str] = []
        try:
            for line in process.stdout:
                said.append(line.rstrip("\n"))
                if said[-1] == "exposing":
                    process.send_signal(number)
            return process.wait(60), said
        finally:
            process.kill()


@POSIX
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_switches_off_and_then_kills_as_it_would_have(name: str) -> None:
    number = getattr(signal, name)
    status, said = told_to_end(number, "dark_on_signals(dispim)")
    assert said == ON + OFF
    assert status == -number


@POSIX
def test_a_handler_of_the_application_has_its_turn_in_the_dark_and_can_light_again_afterwards() -> None:
    setup = """
def theirs(number, frame):
    say("theirs")
    try:
        dispim.led.drive("Open")
    except Exception as error:
        say(type(error).__name__)
    over.set()
over = threading.Event()
signal.signal(signal.SIGTERM, theirs)
dark_on_signals(dispim)
"""
    wait = "over.wait(); dispim.led.drive('Open'); dispim.led.all_off(); os._exit(7)"
    status, said = told_to_end(signal.SIGTERM, setup, wait=wait)
    assert said == [*ON, *OFF, "theirs", "ExposureStoppedError", "LED=Open", "LED=Closed"]
    assert status == 7


@POSIX
def test_an_event_loop_that_handles_the_signal_still_does() -> None:
    setup = """
import asyncio
async def serve():
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
    dark_on_signals(dispim)
    dispim.spim.trigger()
    await asked.wait()
    say("graceful")
    os._exit(3)
asyncio.run(serve())
"""
    status, said = told_to_end(signal.SIGTERM, setup)
    assert said == [*ON, *OFF, "graceful"]
    assert status == 3


@POSIX
def test_what_is_ignored_stays_ignored() -> None:
    """As under nohup, whose programs outlive their terminal."""
    setup = "signal.signal(signal.SIGHUP, signal.SIG_IGN); dark_on_signals(dispim)"
    wait = "exposing.wait(); signal.raise_signal(signal.SIGHUP); say('still there'); os._exit(0)"
    status, said = told_to_end(signal.SIGHUP, setup, wait=wait)
    assert said == [*ON, "still there"]
    assert status == 0


@POSIX
def test_a_laser_that_does_not_answer_keeps_neither_the_lamp_lit_nor_the_process_alive() -> None:
    setup = """
dark_on_signals(dispim)
dispim.core.faults.refused_presets.add(("Laser", "ALL OFF"))
"""
    status, said = told_to_end(signal.SIGTERM, setup)
    assert said == [*ON, "LED=Closed"]
    assert status == -signal.SIGTERM


def test_the_signals_are_given_back_and_only_our_own() -> None:
    before = signal.getsignal(signal.SIGTERM)
    give_back = dark_on_signals(simulated())
    assert signal.getsignal(signal.SIGTERM) is not before
    give_back()
    assert signal.getsignal(signal.SIGTERM) is before

    give_back = dark_on_signals(simulated())

    def theirs(*_: object) -> None:
        """Handle nothing."""

    signal.signal(signal.SIGTERM, theirs)
    try:
        give_back()
        assert signal.getsignal(signal.SIGTERM) is theirs
    finally:
        signal.signal(signal.SIGTERM, before)


def test_off_the_main_thread_nothing_is_done() -> None:
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=dark_on_signals, args=[simulated()])
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before
