"""``submit(…, wait=False)``: a ticket at once, or None and nothing has happened."""

from __future__ import annotations

import threading

import pytest

import wal
from tests.wal.support import PATIENCE, Holding, Recorder

BUFFER = wal.Durability.BUFFER


def refuse():
    raise AssertionError("nothing is to be decided on")


@pytest.mark.parametrize("durability", list(wal.Durability))
def test_it_is_as_any_submit(place, durability):
    log = place.open()
    order = []
    ticket = log.submit(
        [b"x"], lambda *_: order.append("committed"), durability, lambda: order.append("decided"),
        wait=False,
    )  # fmt: skip
    assert ticket is not None
    assert ticket.wait(PATIENCE) == 1
    assert order == ["decided", "committed"]


def test_what_decide_raises_comes_through(place):
    def no():
        raise LookupError

    log = place.open()
    with pytest.raises(LookupError):
        log.submit([b"x"], decide=no, wait=False)
    assert log.last_entry_id == 0


def test_not_while_an_entry_is_open(place):
    log = place.open()
    entry = log.begin_entry()
    entry.write_chunk(b"x")
    told = []
    thread = threading.Thread(
        target=lambda: told.append(log.submit([b"y"], decide=refuse, wait=False))
    )
    thread.start()
    thread.join(PATIENCE)
    assert told == [None]
    entry.commit()
    assert log.submit([b"y"], wait=False).wait(PATIENCE) == entry.id + 1


def test_not_for_an_entry_that_is_streamed(place):
    log = place.open()
    assert log.submit([bytes(300_000)], decide=refuse, wait=False) is None
    assert log.append([b"x"]) == 1


def test_not_into_a_full_buffer(place):
    log = place.open(buffer_bytes=4 << 10, preallocate_bytes=1 << 20)
    accepted = 0
    while log.submit([bytes(1000)], None, BUFFER, wait=False) is not None:
        accepted += 1
        assert accepted < 500
    assert accepted > 0
    assert log.submit([bytes(1000)], None, BUFFER, refuse, wait=False) is None
    log.sync()
    assert log.submit([bytes(1000)], None, BUFFER, wait=False) is not None


def test_not_while_checkpoints_have_to_catch_up(place):
    log = place.open(manager := Holding(), max_sealed_segments=1, buffer_bytes=1 << 20)
    written = 0
    while written < 100:
        ticket = log.submit([bytes(20_000)], wait=False)
        if ticket is not None:
            ticket.wait(PATIENCE)
        elif log.stats().segments_sealed > 1:
            break
        else:  # it only waits for a spare segment
            log.append([bytes(20_000)])
        written += 1
    assert written < 100
    assert log.submit([bytes(20_000)], decide=refuse, wait=False) is None
    manager.proceed.set()
    log.append([bytes(20_000)])
    log.shutdown()
    assert len(manager.checkpointed + place.recovered()) == written + 1


def test_a_rotation_to_a_spare_that_is_ready_is_no_reason(place):
    log = place.open()
    log.append([bytes(40_000)])
    segments = set()
    for _ in range(3):
        log.checkpoint_active(wait=True)  # which leaves a spare
        ticket = log.submit([bytes(40_000)], wait=False)
        assert ticket is not None
        ticket.wait(PATIENCE)
        segments.add(ticket.segment_id)
    assert len(segments) == 3


def test_refusals_are_raised(place):
    log = place.open(manager := Recorder())
    log.shutdown()
    with pytest.raises(wal.LogClosedError):
        log.submit([b"x"], wait=False)
    assert manager.checkpoints == []
    with place.open(read_only=True) as reader, pytest.raises(wal.ReadOnlyLogError):
        reader.submit([b"x"], wait=False)
