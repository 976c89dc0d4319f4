"""The turnstile: one at a time, first come first served, and nobody's turn is lost."""

from __future__ import annotations

import threading

import pytest

from wal.turnstile import Turnstile


def waiting(turnstile, number, order):
    """A thread that waits for its turn, and tells when it had it."""

    def run():
        with turnstile:
            order.append(number)

    before = len(turnstile._queue)
    thread = threading.Thread(target=run)
    thread.start()
    while len(turnstile._queue) == before:
        threading.Event().wait(0.001)
    return thread


def test_who_came_first_goes_first():
    turnstile, order = Turnstile(), []
    turnstile.acquire()
    threads = [waiting(turnstile, number, order) for number in range(8)]
    turnstile.release()
    for thread in threads:
        thread.join(10)
    assert order == list(range(8))


def test_a_wait_that_ends_gives_its_place_up():
    turnstile, order = Turnstile(), []
    turnstile.acquire()
    assert not turnstile.acquire(timeout=0.001)
    thread = waiting(turnstile, 1, order)
    turnstile.release()
    thread.join(10)
    assert order == [1]
    assert turnstile.acquire(timeout=0)


def test_an_interrupt_gives_the_turn_up(monkeypatch):
    """An interrupt may come just after the turn has been given."""
    turnstile = Turnstile()
    turnstile.acquire()

    class Interrupted:
        """A lock in whose second ``acquire`` the turn comes, and then the interrupt."""

        def __init__(self):
            self.acquired = 0

        def acquire(self, timeout=-1):
            self.acquired += 1
            if self.acquired == 2:
                turnstile.release()
                raise KeyboardInterrupt

        def release(self):
            pass

    monkeypatch.setattr("wal.turnstile.threading.Lock", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        turnstile.acquire()
    assert turnstile.acquire(timeout=0)
