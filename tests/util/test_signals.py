"""Signals are handled for a while, and then as before."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from semi_nnunet.util.signals import handled


def test_a_signal_calls_the_handler_inside_alone_whatever_happens() -> None:
    before, seen = signal.getsignal(signal.SIGUSR1), []
    with pytest.raises(KeyError), handled(("SIGUSR1", "SIGNOTHING"), lambda n, _: seen.append(n)):
        os.kill(os.getpid(), signal.SIGUSR1)
        raise KeyError
    assert seen == [signal.SIGUSR1] and signal.getsignal(signal.SIGUSR1) is before


def test_what_is_ignored_may_stay_so() -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with handled(("SIGUSR1",), lambda *_: None, only_by_default=True):
            assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
        with handled(("SIGUSR1",), lambda *_: None):
            assert signal.getsignal(signal.SIGUSR1) != signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_other_threads_change_nothing() -> None:
    before, inside = signal.getsignal(signal.SIGUSR1), []

    def look() -> None:
        with handled(("SIGUSR1",), lambda *_: None):
            inside.append(signal.getsignal(signal.SIGUSR1))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert inside == [before]
