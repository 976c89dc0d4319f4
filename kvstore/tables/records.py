"""What the manifest says about a table."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from typing import Final

from kvstore.tables.format import DamageError

MOST_BOUND_BYTES: Final = 64
TABLE_ID_BYTES: Final = 16
MOST_NUMBER: Final = (1 << 62) - 2
"""No number in a manifest comes near; a greater one was never written by a store. A log can still
be begun behind it."""
_SUFFIX: Final = ".table"


@dataclass(frozen=True)
class TableRecord:
    """One table's entry in the manifest.

    >>> record = TableRecord(7, bytes(16), 1000, 5, 1, 9, 3, 0, b"a", b"c", None, 30)
    >>> record.name, TableRecord.unpack(record.pack()) == record
    ('000000000007.table', True)
    """

    number: int
    table_id: bytes
    """16 random bytes, in the file too."""
    size: int
    footer_crc: int
    """It vouches for the footer, and that for the sections."""
    first_entry_id: int
    last_entry_id: int
    items: int
    """Tombstones too."""
    tombstones: int
    low: bytes
    """At or below the first key; at most 64 bytes."""
    high: bytes | None
    """At or above the last key; at most 64 bytes. None: no bound."""
    compression: str | None
    value_bytes: int
    """Of all values together, blobs too."""

    @property
    def name(self) -> str:
        """The name of the file."""
        return table_name(self.number)

    def pack(self) -> list[object]:
        """As a list for msgpack."""
        return list(astuple(self))

    @classmethod
    def unpack(cls, packed: object) -> TableRecord:
        """From such a list; DamageError if it cannot be one."""
        if not isinstance(packed, list) or len(packed) != len(fields(cls)):
            raise DamageError("a table's record has another length")
        record = cls(*packed)
        if not _is_sound(record):
            raise DamageError("a table's record makes no sense")
        return record


def _is_sound(record: TableRecord) -> bool:
    numbers = (
        record.number,
        record.size,
        record.footer_crc,
        record.first_entry_id,
        record.last_entry_id,
        record.items,
        record.tombstones,
        record.value_bytes,
    )
    return (
        all(type(number) is int and 0 <= number <= MOST_NUMBER for number in numbers)
        and type(record.table_id) is bytes
        and len(record.table_id) == TABLE_ID_BYTES
        and type(record.low) is bytes
        and type(record.high) in (bytes, type(None))
        and type(record.compression) in (str, type(None))
    )


def table_name(number: int) -> str:
    """The file name of a table.

    >>> table_name(7)
    '000000000007.table'
    """
    return f"{number:012d}{_SUFFIX}"


def number_of(name: str) -> int | None:
    """The number in a table's file name, None for any other name.

    >>> number_of("000000000007.table"), number_of("7.table"), number_of("notes.txt")
    (7, None, None)
    """
    digits = name.removesuffix(_SUFFIX)
    if not (digits.isascii() and digits.isdecimal()):
        return None
    number = int(digits)
    return number if name == table_name(number) and number < MOST_NUMBER else None


def lower_bound(key: bytes) -> bytes:
    """At most 64 bytes that are not above the key."""
    return key[:MOST_BOUND_BYTES]


def upper_bound(key: bytes) -> bytes | None:
    r"""At most 64 bytes that are not below the key; None if there are none.

    >>> upper_bound(b"key"), upper_bound(b"a" * 62 + b"b\xff\xff")[-2:]
    (b'key', b'ac')
    """
    if len(key) <= MOST_BOUND_BYTES:
        return key
    cut = key[:MOST_BOUND_BYTES].rstrip(b"\xff")
    return cut[:-1] + bytes((cut[-1] + 1,)) if cut else None
