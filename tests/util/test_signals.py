"""Signals have another handler inside a block."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from semi_nnunet.util.signals import handled


def test_a_handler_is_called_inside_the_block_and_removed_after_an_error() -> None:
    previous, seen = signal.getsignal(signal.SIGUSR1), []
    with pytest.raises(KeyError), handled(("SIGUSR1", "SIGNOTHING"), lambda n, _: seen.append(n)):
        os.kill(os.getpid(), signal.SIGUSR1)
        raise KeyError
    assert seen == [signal.SIGUSR1] and signal.getsignal(signal.SIGUSR1) is previous


def test_ignored_signals_may_stay_ignored() -> None:
    previous = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with handled(("SIGUSR1",), lambda *_: None, only_by_default=True):
            assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
        with handled(("SIGUSR1",), lambda *_: None):
            assert signal.getsignal(signal.SIGUSR1) != signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_other_threads_change_nothing() -> None:
    previous, inside = signal.getsignal(signal.SIGUSR1), []

    def look() -> None:
        with handled(("SIGUSR1",), lambda *_: None):
            inside.append(signal.getsignal(signal.SIGUSR1))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert inside == [previous]
