"""An open table file: checked pieces of it, and look-ups in them.

Every byte is verified before it is used: the footer when the file is opened, a block or a 64 KiB
piece of a section when it is read. What was read is kept by the reader itself, a list index away
from a look-up, and counted by the cache, which takes it back when there is too much.

Files are read and not mapped. A touch of a mapped file makes the system map all of the *folio*
around it, 832 KiB on average with Linux 6.18 and ext4 whatever ``madvise`` was told, so that mapped
memory cannot be kept to a budget; and a mapped file that is cut short ends the process. A read of
16 KiB from the system's cache costs about 4 us, a mapped touch and its checksum about 3.
"""

from __future__ import annotations

import struct
import weakref
from array import array
from bisect import bisect_left, bisect_right
from functools import partial
from typing import TYPE_CHECKING, Final

from kvstore.errors import FormatVersionError
from kvstore.tables import format as fmt
from kvstore.tables.blobs import TableBlob
from kvstore.tables.compression import codec_of
from kvstore.tables.filters import HASH_BITS, STARTS, hash_of
from kvstore.tables.format import GRANULE, GRANULE_BITS, DamageError, Section
from kvstore.tables.records import TableRecord
from kvstore.tables.slots import MOST_PROBES, SLOT, place_of
from kvstore.values import MISSING, Found, Page, PlainPage
from wal.files import File

if TYPE_CHECKING:
    from kvstore.tables.cache import Cache
    from kvstore.tables.table import Table

_FOOTER_GUESS: Final = 4096
_SERIAL_BITS: Final = 40
_ITEM_OVERHEAD: Final = 100
_SEARCHES: Final = 3
_ENDS: Final = struct.Struct("<II")
_LAST_ENDS: Final = fmt.TAIL.size + _ENDS.size
"""How far before a block's end the two offsets of its first record are."""


class TableReader:
    """A file whose header and footer :func:`open_reader` has checked.

    All methods raise DamageError for damage, and may be called from many threads.
    """

    def __init__(self, file: File, record: TableRecord, footer: fmt.Footer, cache: Cache) -> None:
        self.file = file
        self.record = record
        self.footer = footer
        self.codec = codec_of(footer.compression)
        self._cache = cache
        self._token = cache.new_serial() << _SERIAL_BITS
        self._items, self._buckets = footer.items, footer.buckets
        self._filter_at = _offset(footer.section(fmt.FILTER))
        self._marks_at = self._filter_at + 2 * (self._buckets + 1)
        self._slots_at = _offset(footer.section(fmt.SLOTS))
        self._section_crcs = [(each, _read_crcs(file, each)) for each in footer.sections]
        # Verified pieces of sections by granule, and blocks by number (only where not compressed);
        # they are set and dropped under the cache's lock.
        self._pieces: list[bytes | None] = [None] * ((record.size >> GRANULE_BITS) + 1)
        self._blocks: list[bytes | None] = [None] * footer.blocks
        self._searches = bytearray(footer.blocks)
        self._self = weakref.ref(self)
        self._index: tuple[list[bytes], array[int], array[int]] | None = None

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly these bytes, unverified."""
        data = self.file.read_at(offset, length)
        if len(data) != length:
            raise DamageError("the file is cut short", offset)
        return data

    # ------------------------------------------------------------------ sections

    def check_sections(self, granule: int, data: fmt.Bytes) -> None:
        """Verify what sections have in a granule, of which ``data`` is all that the file has."""
        base = granule << GRANULE_BITS
        for section, crcs in self._section_crcs:
            start, stop = max(section.offset, base), min(section.end, base + GRANULE)
            if start < stop:
                piece = data[start - base : stop - base]
                if fmt.crc_at(self.record.table_id, start, piece) != crcs[granule]:
                    raise DamageError("a section's checksum does not match", start)

    def verify_sections(self) -> None:
        """Verify every byte of every section, whatever was verified before."""
        for section in self.footer.sections:
            for granule in section.granules:
                base = granule << GRANULE_BITS
                size = min(GRANULE, self.record.size - base)
                self.check_sections(granule, self.read_at(base, size))

    def section(self, start: int, stop: int) -> bytes:
        """Verified bytes of a section."""
        granule = start >> GRANULE_BITS
        piece = self._pieces[granule] or self._read_piece(granule)
        at = start & (GRANULE - 1)
        data = piece[at : at + stop - start]
        if len(data) == stop - start:
            return data
        if not data or start > stop:
            raise DamageError("a place that cannot be", start)
        return data + self.section((granule + 1) << GRANULE_BITS, stop)

    def _read_piece(self, granule: int) -> bytes:
        base = granule << GRANULE_BITS
        piece = self.read_at(base, min(GRANULE, self.record.size - base))
        self.check_sections(granule, piece)
        with self._cache.lock:
            if self._pieces[granule] is None:
                self._pieces[granule] = piece
                self._cache.count_piece(self._self, ~granule, len(piece))
        return piece

    def drop(self, piece: int) -> None:
        """See :class:`kvstore.tables.cache.Holder`."""
        if piece < 0:
            self._pieces[~piece] = None
        else:
            self._blocks[piece] = None

    @property
    def index(self) -> tuple[list[bytes], array[int], array[int]]:
        """The separator, the offset and the length of each block; loaded when first asked for."""
        index = self._index
        if index is None:
            index = self._index = self._load_index()
        return index

    def _load_index(self) -> tuple[list[bytes], array[int], array[int]]:
        place = self.footer.section(fmt.INDEX)
        assert place is not None
        pieces = [
            self.section(max(place.offset, at), min(place.end, at + GRANULE))
            for at in range(place.granules.start << GRANULE_BITS, place.end, GRANULE)
        ]
        index = fmt.decode_index(b"".join(pieces), self.footer.blocks, place.offset)
        for start, length in zip(index[1], index[2], strict=True):
            if start < fmt.HEADER_BYTES or start + length > place.offset:
                raise DamageError("the index names a block that cannot be", place.offset)
        return index

    # ------------------------------------------------------------------ blocks

    def _read_block(self, number: int) -> bytes:
        """A verified block, as it is in the file."""
        block = self._blocks[number]
        if block is None:
            _, offsets, lengths = self.index
            at = offsets[number]
            block = self.read_at(at, lengths[number])
            fmt.check_block(block, fmt.seed(self.record.table_id, at), at)
        return block

    def _keep_block(self, number: int) -> bytes:
        block = self._read_block(number)
        with self._cache.lock:
            if self._blocks[number] is None:
                self._blocks[number] = block
                self._cache.count_piece(self._self, number, len(block))
        return block

    def page(self, number: int, table: Table, *, keep: bool) -> Page:
        """A decoded block, which must not be changed; ``keep``: put it into the cache."""
        token = self._token | number
        page = self._cache.block(token)
        if page is not None:
            return page
        block, at = self._read_block(number), self.index[1][number]
        page = fmt.decode_block(block, self.codec, partial(_blob, table), at)
        keys, values = page
        kinds = {bytes} if type(page) is PlainPage else set(map(type, values))
        if not kinds <= {bytes, type(None), TableBlob}:
            raise DamageError("a block has something else than values", at)
        if keep and TableBlob not in kinds:  # a blob in the cache would keep its table alive
            self._cache.add_block(token, page, self._raw_length(block) + _ITEM_OVERHEAD * len(keys))
        return page

    def _raw_length(self, block: bytes) -> int:
        length: int = fmt.TAIL.unpack(block[-fmt.TAIL.size :])[0]
        return length

    # ------------------------------------------------------------------ look-ups

    def get(self, key: bytes, table: Table) -> Found:
        """The key's value, MISSING if it is not here."""
        buckets = self._buckets
        if not buckets:
            return self._search(key, table)
        hashed = hash_of(key)
        bucket = hashed * buckets >> HASH_BITS
        at = self._filter_at + 2 * bucket
        first, last = STARTS.unpack(self.section(at, at + 4))
        first += bucket * self._items // buckets
        last += (bucket + 1) * self._items // buckets
        marks = self.section(self._marks_at + first, self._marks_at + last)
        mark = hashed & 0xFF
        found = marks.find(mark)
        if found < 0:
            return MISSING
        if not self._slots_at:
            return self._search(key, table)
        for _ in range(MOST_PROBES):
            at = self._slots_at + 4 * (first + found)
            slot = SLOT.unpack(self.section(at, at + 4))[0]
            value = self._look_at(slot, key, table)
            if value is not MISSING:
                return value
            found = marks.find(mark, found + 1)
            if found < 0:
                return MISSING
        return self._search(key, table)

    def _look_at(self, slot: int, key: bytes, table: Table) -> Found:
        """The value of the record that a slot names, if it is the key's."""
        number, record = place_of(slot)
        if number >= len(self._blocks):
            raise DamageError("a slot names a block that is not there", self._slots_at)
        if self.codec is not None:
            keys, values = self.page(number, table, keep=True)
            if record >= len(keys):
                raise DamageError("a slot names a record that is not there", self._slots_at)
            return values[record] if keys[record] == key else MISSING
        block = self._blocks[number] or self._keep_block(number)
        wanted = fmt.encoded_key(key)
        end, begin = _ENDS.unpack_from(block, -_LAST_ENDS - 4 * record)
        if not block.startswith(wanted, begin):
            return MISSING
        begin += len(wanted)
        if block[begin] == fmt.BIN8:
            return block[begin + 2 : end]
        return self._value(block[begin:end], number, table)

    def _search(self, key: bytes, table: Table) -> Found:
        """The key's value, by bisecting the index and then a block."""
        number = bisect_right(self.index[0], key) - 1
        if number < 0:
            return MISSING
        page = self._cache.block(self._token | number)
        if page is None and (self.codec is not None or self._is_in_demand(number)):
            page = self.page(number, table, keep=True)
        if page is not None:
            return _value_in(page, key)
        block = self._blocks[number] or self._keep_block(number)
        found = fmt.find_in_block(block, key)
        return MISSING if found is None else self._value(found, number, table)

    def _is_in_demand(self, number: int) -> bool:
        """Whether a block is searched so often that it should be decoded.

        A search of a decoded block takes a third of the time; to decode it takes three times as
        long. At every fourth search it costs little where the cache is too small to keep it.
        """
        searches = self._searches[number] = (self._searches[number] + 1) & _SEARCHES
        return not searches

    def _value(self, encoded: bytes, number: int, table: Table) -> Found:
        at = self.index[1][number]
        return fmt.decode_value(encoded, partial(_blob, table), at)  # type: ignore[return-value]


def _value_in(page: Page, key: bytes) -> Found:
    keys, values = page
    at = bisect_left(keys, key)
    return values[at] if at < len(keys) and keys[at] == key else MISSING


def _read_crcs(file: File, section: Section) -> dict[int, int]:
    return fmt.decode_section_crcs(file.read_at(section.end, 4 * len(section.granules)), section)


def _offset(section: Section | None) -> int:
    return section.offset if section is not None else 0


def _blob(table: Table, code: int, data: bytes) -> TableBlob:
    if code != fmt.BLOB_EXT:
        raise FormatVersionError(f"a table has a value of unknown kind {code}")
    if len(data) != fmt.BLOB_REFERENCE.size:
        raise ValueError("a blob's reference has another length")
    offset, length, crc = fmt.BLOB_REFERENCE.unpack(data)
    if offset + length > table.record.size:
        raise ValueError("a blob goes beyond the file")
    return TableBlob(table, offset, length, crc)


def open_reader(file: File, record: TableRecord, cache: Cache) -> TableReader:
    """The reader of an open file, which it takes over; DamageError if it is not that table."""
    size = file.size()
    if size != record.size or size < fmt.LEAST_TABLE_BYTES:
        reason = f"the file must have {record.size} bytes and has {size}"
        raise DamageError(reason, min(size, record.size))
    fmt.check_header(file.read_at(0, fmt.HEADER_BYTES), record.table_id)
    start = max(0, size - _FOOTER_GUESS)
    tail = file.read_at(start, size - start)
    if len(tail) != size - start:
        raise DamageError("the file is cut short", start)
    at = size - fmt.footer_bytes(tail, size)
    if at < start:
        tail = file.read_at(at, size - at)
    footer = fmt.decode_footer(tail[at - size :], record.table_id, at, record.footer_crc)
    if (footer.items, footer.tombstones) != (record.items, record.tombstones):
        raise DamageError("the footer's counts are not those of the manifest", at)
    return TableReader(file, record, footer, cache)
