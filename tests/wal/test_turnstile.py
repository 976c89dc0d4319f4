"""The turnstile: one at a time, first come first served, and nobody's turn is lost."""

from __future__ import annotations

import threading

import pytest

from wal.turnstile import Turnstile


def waiting(turnstile, number, order):
    """A thread that waits for its turn, and tells when it had it."""

    def run():
        turnstile.acquire(number)
        order.append(number)
        turnstile.release(number)

    before = len(turnstile._queue)
    thread = threading.Thread(target=run)
    thread.start()
    while len(turnstile._queue) == before:
        threading.Event().wait(0.001)
    return thread


def test_who_came_first_goes_first():
    turnstile, order = Turnstile(), []
    turnstile.acquire("first")
    threads = [waiting(turnstile, number, order) for number in range(8)]
    turnstile.release("first")
    for thread in threads:
        thread.join(10)
    assert order == list(range(8))


def test_a_wait_that_ends_gives_its_place_up():
    turnstile, order = Turnstile(), []
    turnstile.acquire("first")
    assert not turnstile.acquire("impatient", timeout=0.001)
    thread = waiting(turnstile, 1, order)
    turnstile.release("first")
    thread.join(10)
    assert order == [1]
    assert turnstile.acquire("last", timeout=0)


def test_letting_go_twice_takes_nothing_from_the_next():
    turnstile = Turnstile()
    turnstile.acquire("first")
    turnstile.release("first")
    turnstile.acquire("second")
    turnstile.release("first")
    assert not turnstile.acquire("third", timeout=0)


def test_a_wait_without_end_may_be_asked_for():
    turnstile = Turnstile()
    assert turnstile.acquire("one", timeout=float("inf"))


@pytest.mark.parametrize("given", [False, True], ids=["before", "after"])
def test_an_interrupt_gives_the_turn_up(given, monkeypatch):
    """An interrupt just before or after the turn was given left it with a thread that had gone."""
    turnstile = Turnstile()
    turnstile.acquire("first")

    class Interrupted:
        """A lock in whose second ``acquire`` the turn comes, or not, and then the interrupt."""

        def __init__(self):
            self.acquired = 0

        def acquire(self, timeout=-1):
            self.acquired += 1
            if self.acquired == 2:
                if given:
                    turnstile.release("first")
                raise KeyboardInterrupt

        def release(self):
            pass

    with monkeypatch.context() as patched:
        patched.setattr("wal.turnstile.threading.Lock", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            turnstile.acquire("second")
    turnstile.release("second")
    turnstile.release("first")
    assert turnstile.acquire("third", timeout=0)
