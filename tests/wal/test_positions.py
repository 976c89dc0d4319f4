"""Positions in 16 bytes, there and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal import LogPosition
from wal.positions import MAX_OFFSET, STREAMED

POSITIONS = st.builds(
    LogPosition, st.integers(0, 2**64 - 1), st.integers(0, MAX_OFFSET), st.integers(0, STREAMED)
)


@given(POSITIONS)
def test_round_trip(position: LogPosition) -> None:
    data = position.to_bytes()
    assert len(data) == 16
    for buffer in (data, bytearray(data), memoryview(data)):
        assert LogPosition.from_bytes(buffer) == position  # type: ignore[arg-type]


def test_layout() -> None:
    """As docs/wal-format.md has it: u64, 40 bits, 24 bits."""
    data = LogPosition(0x0102, 0x0304050607, 0x08090A).to_bytes()
    assert data.hex() == "020100000000000007060504030a0908"
    assert LogPosition(1, 0).to_bytes()[-3:] == b"\xff\xff\xff"


@pytest.mark.parametrize(
    "position",
    [
        LogPosition(0, MAX_OFFSET + 1, 0),
        LogPosition(0, -1, 0),
        LogPosition(0, 0, STREAMED + 1),
        LogPosition(0, 0, -1),
    ],
)
def test_what_does_not_fit(position: LogPosition) -> None:
    with pytest.raises(ValueError, match="out of range"):
        position.to_bytes()


@pytest.mark.parametrize("data", [b"", b"x" * 15, b"x" * 17])
def test_a_wrong_length(data: bytes) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        LogPosition.from_bytes(data)


@pytest.mark.parametrize("data", ["x" * 16, 16, None, [0] * 16])
def test_not_bytes(data: object) -> None:
    with pytest.raises(TypeError, match="16 bytes"):
        LogPosition.from_bytes(data)  # type: ignore[arg-type]
