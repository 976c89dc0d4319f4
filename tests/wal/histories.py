"""Short lives of a log, for the tests that cut them short at every call.

:func:`history` is one that meets everything; each of :data:`OPERATIONS` is about one thing, and so
short that every state behind each of its calls can be tried.
"""

from __future__ import annotations

import itertools

import wal
from tests.wal.promises import BUFFER, WRITE, Caller
from wal.files.faulty import FaultyFileSystem, PowerLoss


def first_life(caller):
    caller.open()
    caller.append(100)
    caller.append(40, 0, 700)
    caller.stream(300, 200, 90)
    caller.append()
    caller.roll_back(60)  # dropped in the buffer
    caller.append(10, durability=WRITE)
    caller.append(20, durability=BUFFER)
    caller.append(30)
    caller.checkpoint()
    caller.roll_back(3000, 2500)  # bytes of it are in the file: the segment ends there
    caller.append(50)
    for _ in range(3):
        caller.append(900, 800)  # two to a segment
    caller.wait_for([caller.submit(200) for _ in range(3)])
    caller.close()


def second_life(caller):
    caller.open()
    caller.append(25, durability=BUFFER)
    caller.append(26, durability=WRITE)
    caller.sync()
    caller.stream(2500, 1500, 2001)  # longer than a segment
    caller.append(1000, durability=BUFFER)
    caller.checkpoint()
    for size in (1500, 1700, 1600, 1800):
        caller.append(size, durability=WRITE)
    caller.append(15)
    caller.append(16, durability=BUFFER)
    caller.close()


def third_life(caller):
    caller.open()
    caller.append(35)
    caller.checkpoint()
    caller.append(36, durability=WRITE)
    caller.close()


def history(caller):
    first_life(caller)
    second_life(caller)
    third_life(caller)


# -- one operation --------------------------------------------------------------------------------


def begin(caller):
    caller.open()
    caller.append(100)
    caller.stream(200, 30)


def checkpoint(caller):
    begin(caller)
    caller.append(40, durability=BUFFER)
    caller.checkpoint()
    caller.append(41)


def checkpoint_twice(caller):
    """The second one recycles a file that held other entries, and into that the third goes."""
    begin(caller)
    for size in (60, 61, 62):
        caller.checkpoint()
        caller.append(size)


def rotate(caller):
    begin(caller)
    for size in (1800, 1801, 1802, 1803):
        caller.append(size, durability=WRITE)
    caller.append(10)


def roll_back_what_was_written(caller):
    """Shorter entries follow a longer one that was taken back, of which bytes are in the file."""
    begin(caller)
    caller.roll_back(2000, 3001)
    for _ in range(4):
        caller.append(30)


def outgrow(caller):
    begin(caller)
    caller.stream(3000, 2500)
    caller.stream(5000)
    caller.append(30)


def shut_down_and_reopen(caller):
    begin(caller)
    caller.append(70, durability=WRITE)
    caller.close()
    caller.open()
    caller.append(71)
    caller.close()


def nothing_but_promises(caller):
    """Not one sync asked for: all of it may be lost, but only from the end."""
    caller.open()
    for size in (500, 501, 502):
        caller.append(size, durability=WRITE)
        caller.append(size, size, durability=BUFFER)
    caller.stream(900, 901, durability=WRITE)
    caller.append(10, durability=WRITE)
    caller.close()


OPERATIONS = [
    checkpoint,
    checkpoint_twice,
    rotate,
    roll_back_what_was_written,
    outgrow,
    shut_down_and_reopen,
    nothing_but_promises,
]


# -- cut short -----------------------------------------------------------------------------------


def cut_short(play, number, system, known=None, **options):
    """Play a history up to the power loss before a call; the caller, and whether there was one."""
    caller = Caller(system, known, **options)
    system.stop_at(number)
    try:
        play(caller)
    except (PowerLoss, wal.WalError) as error:
        if not system.lost_power:
            raise AssertionError(f"before call {number}: {error!r}") from error
    if system.lost_power:  # if need be without a word: a background thread met it
        caller.give_up()
    return caller, system.lost_power


def every_crash(play, fresh=FaultyFileSystem, known=None, *, start=1, step=1, **options):
    """Each crash of a history on a fresh system: its number, and the caller that it struck."""
    for number in itertools.count(start, step):
        caller, crashed = cut_short(play, number, fresh(), known and known.copy(), **options)
        if not crashed:
            caller.give_up()
            assert number > 1, "nothing was counted"
            return
        yield number, caller
