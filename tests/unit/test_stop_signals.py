"""A signal is noted; a second one does what it did before; handlers are put back."""

import os
import signal

import pytest

from fovcache.probes.train.stepping import stop_signals
from fovcache.probes.train.stepping.stop_signals import StopSignals


def test_the_first_is_noted_and_its_repetition_too() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals() as signals:
        assert signals.name is None
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)  # as a launcher passes it on at once
        assert signals.name == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_one_later_does_what_it_did_before(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ended(Exception):
        pass

    def end(*_: object) -> None:
        raise Ended

    monkeypatch.setattr(stop_signals, "_SECOND_AFTER_S", 0.0)
    before = signal.signal(signal.SIGTERM, end)
    try:
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGTERM)
            assert signals.name == "SIGTERM"
            with pytest.raises(Ended):
                os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is end
        with StopSignals(is_alone=False) as signals:  # of several processes a launcher may send any number
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGTERM)
            assert signals.name == "SIGTERM"
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGINT)
            assert signals.name is None
    finally:
        signal.signal(signal.SIGINT, before)
