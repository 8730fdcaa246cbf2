"""Only time in which a training could work counts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from napari_microaunet.distillation.work_clock import WorkClock

COUNT = """
import sys
from napari_microaunet.distillation.work_clock import WorkClock
with WorkClock() as clock:
    print("began", flush=True)
    sys.stdin.readline()
    print(clock.seconds(), flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="a signal of POSIX")
def test_while_the_process_is_halted_no_time_passes() -> None:
    process = subprocess.Popen(  # noqa: S603 - our own code
        [sys.executable, "-c", COUNT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "began\n"
    began = time.monotonic()
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(3)
    os.kill(process.pid, signal.SIGCONT)
    time.sleep(0.5)
    counted = float(process.communicate("\n")[0])
    passed = time.monotonic() - began
    assert 0.2 < counted < passed - 2.5


def test_it_goes_on_from_where_it_was_and_stands_still_in_the_end() -> None:
    with WorkClock(60.0) as clock:
        time.sleep(0.3)
        during = clock.seconds()
    assert 60.1 < during <= clock.seconds() < 65
    after = clock.seconds()
    time.sleep(0.2)
    assert clock.seconds() == after
