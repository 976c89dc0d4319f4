"""An open table file: checked pieces of it, and look-ups in them.

Every byte is verified before it is used: the footer when the file is opened, a block or a section
when it is read, a single record by the check in its slot. What is read of sections is kept by the
reader itself and counted by the cache, which takes pieces back when there is too much.

Files are read and not mapped. A touch of a mapped file makes the system map all of the *folio*
around it, 832 KiB on average with Linux 6.18 and ext4 whatever ``madvise`` was told, so that mapped
memory cannot be kept to a budget; and a mapped file that is cut short ends the process. A read of
a record from the system's cache costs about 0.8 us, a mapped touch 0.3.
"""

from __future__ import annotations

import weakref
from array import array
from bisect import bisect_left, bisect_right
from functools import partial
from typing import TYPE_CHECKING, Final

from crc32c import crc32c
from msgpack import ExtType

from kvstore.errors import FormatVersionError
from kvstore.tables import format as fmt
from kvstore.tables.blobs import TableBlob
from kvstore.tables.compression import codec_of
from kvstore.tables.directory import Directory, directory_bytes, probe
from kvstore.tables.filters import FACTOR, HASH_BITS, MOST_HASH, SIEVE_BITS, hash_of
from kvstore.tables.format import BIN8, BIN16, GRANULE, GRANULE_BITS, DamageError, Section, Stored
from kvstore.tables.records import TableRecord
from kvstore.tables.slots import CHECK_MASK, MOST_PROBES, PLACE_BITS, block_and_record, check_of
from kvstore.values import MISSING, Found, Page, PlainPage
from wal.files import File

if TYPE_CHECKING:
    from kvstore.tables.cache import Cache
    from kvstore.tables.table import Table

_FOOTER_GUESS: Final = 4096
_SERIAL_BITS: Final = 40
_ITEM_OVERHEAD: Final = 100
_READ_AT_ONCE: Final = 1 << 20
_ROOM: Final = 5 / 4
_LEAST_ROOM: Final = 24
"""Of a record, beside its key, an average one and a quarter is read at once, and so many bytes."""
_LONGEST_RECORD: Final = 4 << 20


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
        self._directory: Directory | None = None
        self._room = int(_ROOM * record.value_bytes / max(1, record.items)) + _LEAST_ROOM
        self._room = min(self._room, fmt.BLOCK_BYTES)
        self._section_crcs = [(each, _read_crcs(file, each)) for each in footer.sections]
        # Verified pieces of sections by granule; they come and go under the cache's lock.
        self._pieces: dict[int, bytes] = {}
        self._self = weakref.ref(self)
        self._index: tuple[list[bytes], array[int], array[int]] | None = None

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly these bytes, unverified."""
        data = self.file.read_at(offset, length)
        if len(data) != length:
            raise DamageError("the file is cut short", offset)
        return data

    # ------------------------------------------------------------------ sections

    def check_sections(self, start: int, data: fmt.Bytes) -> None:
        """Verify what sections have in some granules from ``start``, which ``data`` has whole."""
        stop, table_id = start + len(data), self.record.table_id
        view = memoryview(data)
        for section, crcs in self._section_crcs:
            at, end = max(section.offset, start), min(section.end, stop)
            while at < end:
                cut = min((at | (GRANULE - 1)) + 1, end)
                if (
                    fmt.crc_at(table_id, at, view[at - start : cut - start])
                    != crcs[at >> GRANULE_BITS]
                ):
                    raise DamageError("a section's checksum does not match", at)
                at = cut

    def verify_sections(self) -> None:
        """Verify every byte of every section, whatever was verified before."""
        for section in self.footer.sections:
            for at in range(section.offset, section.end, _READ_AT_ONCE):
                self._read_section(at, min(at + _READ_AT_ONCE, section.end))

    def section(self, start: int, stop: int) -> bytes:
        """Verified bytes of a section."""
        granule = start >> GRANULE_BITS
        piece = self._pieces.get(granule) or self._read_piece(granule)
        at = start & (GRANULE - 1)
        data = piece[at : at + stop - start]
        if len(data) == stop - start:
            return data
        if not data or start > stop:
            raise DamageError("a place that cannot be", start)
        return data + self.section((granule + 1) << GRANULE_BITS, stop)

    def _read_piece(self, granule: int) -> bytes:
        piece = self._read_granules(granule, granule + 1)
        with self._cache.lock:
            if granule not in self._pieces:
                self._pieces[granule] = piece
                self._cache.count_piece(self._self, granule, len(piece))
        return piece

    def _read_granules(self, first: int, last: int) -> bytes:
        start = first << GRANULE_BITS
        data = self.read_at(start, min(last << GRANULE_BITS, self.record.size) - start)
        self.check_sections(start, data)
        return data

    def _read_section(self, start: int, stop: int) -> bytes:
        """Verified bytes of a section, of which no piece is kept."""
        first = start >> GRANULE_BITS
        data = self._read_granules(first, stop + GRANULE - 1 >> GRANULE_BITS)
        at = start - (first << GRANULE_BITS)
        return data[at : at + stop - start]

    def drop(self, piece: int) -> None:
        """See :class:`kvstore.tables.cache.Holder`."""
        self._pieces.pop(piece, None)

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
        data = self._read_section(place.offset, place.end)
        index = fmt.decode_index(data, self.footer.blocks, place.offset)
        for start, length in zip(index[1], index[2], strict=True):
            if start < fmt.HEADER_BYTES or start + length > place.offset:
                raise DamageError("the index names a block that cannot be", place.offset)
        return index

    # ------------------------------------------------------------------ blocks

    def _read_block(self, number: int) -> bytes:
        """A verified block, as it is in the file."""
        _, offsets, lengths = self.index
        at = offsets[number]
        block = self.read_at(at, lengths[number])
        fmt.check_block(block, fmt.seed(self.record.table_id, at), at)
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

    def get(self, key: bytes, crc: int, table: Table) -> Found:
        """The value of the key, whose crc32c that is; MISSING if it is not here."""
        directory = self._directory
        if directory is None:
            return self._get_unloaded(key, crc, table)
        hashed = crc * FACTOR & MOST_HASH
        if not directory.sieve[hashed & directory.mask] >> (hashed >> SIEVE_BITS) & 1:
            return MISSING
        bucket = hashed * directory.buckets >> HASH_BITS
        starts, marks = directory.starts, directory.marks
        last = starts[bucket + 1]
        found = marks.find(hashed & 0xFF, starts[bucket], last)
        if found < 0:
            return MISSING
        slots, probes = directory.slots, 0
        while found >= 0:
            probes += 1
            if not slots or probes > MOST_PROBES:
                return self._search(key, table)
            value = self._look_at(directory.records[slots[found]], key, crc, table)
            if value is not MISSING:
                return value
            found = marks.find(hashed & 0xFF, found + 1, last)
        return MISSING

    def _get_unloaded(self, key: bytes, crc: int, table: Table) -> Found:
        """As :meth:`get`, before there is a directory, or without room for one."""
        if not self.footer.buckets:
            return self._search(key, table)
        claim = self._cache.claim(directory_bytes(self.footer))
        if claim is not None:
            self._directory = Directory(self.footer, self._read_section, claim)
            return self.get(key, crc, table)
        for probes, record in enumerate(probe(self.footer, self.section, hash_of(crc))):
            if record is None or probes >= MOST_PROBES:
                return self._search(key, table)
            value = self._look_at(record, key, crc, table)
            if value is not MISSING:
                return value
        return MISSING

    def records_of(self, crc: int) -> list[int | None]:
        """The records of the keys that may have a crc32c, None for each without."""
        return list(probe(self.footer, self.section, hash_of(crc)))

    def _look_at(self, record: int, key: bytes, crc: int, table: Table) -> Found:
        """The value of a record, if it is the key's."""
        if self.codec is not None:
            return self._look_into_block(record, key, table)
        data = self.file.read_at(record >> PLACE_BITS, self._room + len(key))
        # For a key below 256 bytes and a value below 64 KiB: 2.0 us, where _look_closer takes 4.
        # The check vouches for the bytes, the heads must say where they end: else a value could be
        # made of which a part has the same check.
        at = len(key) + 2
        if data.startswith(key, 2) and data[0] == BIN8 and data[1] == at - 2:
            kind = data[at]
            if kind == BIN8:
                start, end = at + 2, at + 2 + data[at + 1]
            elif kind == BIN16:
                start, end = at + 3, at + 3 + (data[at + 1] << 8 | data[at + 2])
            else:
                return self._look_closer(record, key, data, table)
            if end <= len(data):
                value = data[start:end]
                if crc32c(value, crc) == record & CHECK_MASK:
                    return value
        return self._look_closer(record, key, data, table)

    def _look_closer(self, record: int, key: bytes, data: bytes, table: Table) -> Found:
        """As :meth:`_look_at`, for all that is not a short value behind the key itself."""
        at = record >> PLACE_BITS

        def read(length: int) -> bytes:
            if length > _LONGEST_RECORD:
                raise DamageError("a record is too long", at)
            return self.read_at(at, length)

        found, stored = fmt.decode_record(data, read, at)
        if check_of(crc32c(found), stored) != record & CHECK_MASK:
            raise DamageError("a record's checksum does not match", at)
        return self._shown(stored, table) if found == key else MISSING

    def _shown(self, stored: Stored, table: Table) -> Found:
        return _blob(table, *stored) if isinstance(stored, ExtType) else stored

    def _look_into_block(self, record: int, key: bytes, table: Table) -> Found:
        number, at = block_and_record(record >> PLACE_BITS)
        if number >= self.footer.blocks:
            raise DamageError("a record is said to be in a block that is not there")
        keys, values = self.page(number, table, keep=True)
        if at >= len(keys):
            raise DamageError("a record is said to be where there is none")
        return values[at] if keys[at] == key else MISSING

    def _search(self, key: bytes, table: Table) -> Found:
        """The key's value, by bisecting the index and then a block."""
        number = bisect_right(self.index[0], key) - 1
        return MISSING if number < 0 else _value_in(self.page(number, table, keep=True), key)


def _value_in(page: Page, key: bytes) -> Found:
    keys, values = page
    at = bisect_left(keys, key)
    return values[at] if at < len(keys) and keys[at] == key else MISSING


def _read_crcs(file: File, section: Section) -> dict[int, int]:
    return fmt.decode_section_crcs(file.read_at(section.end, 4 * len(section.granules)), section)


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
