"""An open table file: checked pieces of it, and look-ups in them.

Every byte is verified before it is used: the footer when the file is opened, a block or a 64 KiB
piece of a section when it is first touched. Where the file can be mapped the pieces are looked at
where they are; a flag for each tells what was verified since its memory was last given back.
Otherwise they are read, verified each time, and kept decoded in the cache.

A mapped file that somebody else shortens while it is open ends the process (SIGBUS), whatever maps
files. Nobody shortens tables: they are only ever created and removed.
"""

from __future__ import annotations

import mmap
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
from kvstore.values import MISSING, Found, Page
from wal.files import File

if TYPE_CHECKING:
    from kvstore.tables.cache import Cache
    from kvstore.tables.table import Table

_FOOTER_GUESS: Final = 4096
_SECTION_TOKEN: Final = 1 << 39
_SERIAL_BITS: Final = 40
_ITEM_OVERHEAD: Final = 100
_MARK: Final = 0xFF
_SEARCHES: Final = 3
_ENDS: Final = struct.Struct("<II")
_LAST_ENDS: Final = fmt.TAIL.size + _ENDS.size
"""How far before a block's end the two offsets of its first record are."""


class TableReader:
    """What the two ways to get at the bytes have in common. All methods raise DamageError.

    It is made by :func:`open_reader`, which has read and checked header and footer.
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
        raise NotImplementedError

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

    def block(self, number: int) -> fmt.Bytes:
        """A verified block, as it is in the file."""
        raise NotImplementedError

    def page(self, number: int, table: Table, *, keep: bool) -> Page:
        """A decoded block, which must not be changed; ``keep``: put it into the cache."""
        token = self._token | number
        page = self._cache.block(token)
        if isinstance(page, tuple):
            return page
        block, at = self.block(number), self.index[1][number]
        keys, values = fmt.decode_block(block, self.codec, partial(_blob, table), at)
        kinds = set(map(type, values))
        if not kinds <= {bytes, type(None), TableBlob}:
            raise DamageError("a block has something else than values", at)
        page = (keys, values)  # type: ignore[assignment]
        if keep and TableBlob not in kinds:  # a blob in the cache would keep its table alive
            nbytes = sum(map(len, keys)) + sum(map(len, filter(None, values)))  # type: ignore[arg-type]
            self._cache.add_block(token, page, nbytes + _ITEM_OVERHEAD * len(keys))  # type: ignore[arg-type]
        return page  # type: ignore[return-value]

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
        mark = hashed & _MARK
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
        if number >= self.footer.blocks:
            raise DamageError("a slot names a block that is not there", self._slots_at)
        keys, values = self.page(number, table, keep=True)
        if record >= len(keys):
            raise DamageError("a slot names a record that is not there", self._slots_at)
        return values[record] if keys[record] == key else MISSING

    def _search(self, key: bytes, table: Table) -> Found:
        """The key's value, by bisecting the index."""
        number = bisect_right(self.index[0], key) - 1
        if number < 0:
            return MISSING
        return _value_in(self.page(number, table, keep=True), key)


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


class UnmappedReader(TableReader):
    """Reads and verifies what it needs, and keeps it in the cache."""

    def section(self, start: int, stop: int) -> bytes:
        granule = start >> GRANULE_BITS
        base = granule << GRANULE_BITS
        if stop > base + GRANULE:
            cut = base + GRANULE
            return self.section(start, cut) + self.section(cut, stop)
        return self._granule(granule)[start - base : stop - base]

    def _granule(self, granule: int) -> bytes:
        token = self._token | _SECTION_TOKEN | granule
        data = self._cache.block(token)
        if not isinstance(data, bytes):
            base = granule << GRANULE_BITS
            data = self.read_at(base, min(GRANULE, self.record.size - base))
            self.check_sections(granule, data)
            self._cache.add_block(token, data, len(data))
        return data

    def block(self, number: int) -> bytes:
        _, offsets, lengths = self.index
        data = self.read_at(offsets[number], lengths[number])
        fmt.check_block(data, fmt.seed(self.record.table_id, offsets[number]), offsets[number])
        return data


class MappedReader(TableReader):
    """Looks at the mapped file; verified pieces are flagged, and counted against the cache."""

    def __init__(
        self, file: File, record: TableRecord, footer: fmt.Footer, cache: Cache, mapped: mmap.mmap
    ) -> None:
        super().__init__(file, record, footer, cache)
        file.close()  # the map has a descriptor of its own
        self._map = mapped
        self._view = memoryview(mapped)
        granules = (record.size >> GRANULE_BITS) + 2
        # Flags change under the cache's lock. A section's granule is flagged once the next one is
        # verified too: what begins in it may then be looked at without another check.
        self._sections_checked = bytearray(granules)
        self._blocks_checked = bytearray(footer.blocks)
        self._searches = bytearray(footer.blocks)
        self._touched = bytearray(granules)
        self._self = weakref.ref(self)

    def read_at(self, offset: int, length: int) -> bytes:
        data = bytes(self._view[offset : offset + length])
        if len(data) != length:
            raise DamageError("the file is cut short", offset)
        with self._cache.lock:
            self._touch(offset >> GRANULE_BITS, (offset + length) >> GRANULE_BITS)
        return data

    def section(self, start: int, stop: int) -> bytes:
        granule = start >> GRANULE_BITS
        if not self._sections_checked[granule]:
            self._check_from(granule)
        return self._map[start:stop]

    def _check_from(self, granule: int) -> None:
        for each in (granule, granule + 1):
            base = each << GRANULE_BITS
            self.check_sections(each, self._view[base : base + GRANULE])
        with self._cache.lock:
            self._sections_checked[granule] = 1
            self._touch(granule, granule + 1)

    def block(self, number: int) -> fmt.Bytes:
        _, offsets, lengths = self.index
        start = offsets[number]
        stop = start + lengths[number]
        block = self._view[start:stop]
        if not self._blocks_checked[number]:
            fmt.check_block(block, fmt.seed(self.record.table_id, start), start)
            with self._cache.lock:
                self._blocks_checked[number] = 1
                self._touch(start >> GRANULE_BITS, (stop - 1) >> GRANULE_BITS)
        return block

    def _touch(self, first: int, last: int) -> None:
        last = min(last, (self.record.size - 1) >> GRANULE_BITS)
        fresh = [each for each in range(first, last + 1) if not self._touched[each]]
        for granule in fresh:
            self._touched[granule] = 1
        if fresh:
            self._cache.count_mapped(self._self, fresh)

    def drop(self, granule: int) -> None:
        """See :class:`kvstore.tables.cache.Mapping`."""
        self._touched[granule] = 0
        self._sections_checked[granule] = 0
        if granule:
            self._sections_checked[granule - 1] = 0
        base = granule << GRANULE_BITS
        if self._index is not None:
            offsets = self._index[1]
            first = max(0, bisect_right(offsets, base) - 1)
            last = bisect_left(offsets, base + GRANULE)
            self._blocks_checked[first:last] = bytes(max(0, last - first))
        self._map.madvise(mmap.MADV_DONTNEED, base, min(GRANULE, self.record.size - base))

    # ------------------------------------------------------------------ without decoding a block

    def _look_at(self, slot: int, key: bytes, table: Table) -> Found:
        if self.codec is not None:
            return super()._look_at(slot, key, table)
        number, record = place_of(slot)
        _, offsets, lengths = self.index
        start = offsets[number]
        stop = start + lengths[number]
        if not self._blocks_checked[number]:
            self.block(number)
        end, begin = _ENDS.unpack_from(self._map, stop - _LAST_ENDS - 4 * record)
        found: bytes = self._map[start + begin : start + end]
        wanted = fmt.encoded_key(key)
        if not found.startswith(wanted):
            return MISSING
        return self._value(found[len(wanted) :], table, start)

    def _search(self, key: bytes, table: Table) -> Found:
        if self.codec is not None:
            return super()._search(key, table)
        number = bisect_right(self.index[0], key) - 1
        if number < 0:
            return MISSING
        page = self._cache.block(self._token | number)
        if page is None and self._is_in_demand(number):
            page = self.page(number, table, keep=True)
        if isinstance(page, tuple):
            return _value_in(page, key)
        _, offsets, lengths = self.index
        start = offsets[number]
        if not self._blocks_checked[number]:
            self.block(number)
        found = fmt.find_in_block(self._map, start, start + lengths[number], key)
        return MISSING if found is None else self._value(found, table, start)

    def _is_in_demand(self, number: int) -> bool:
        """Whether a block is searched so often that it should be decoded.

        A search of a decoded block takes a third of the time; to decode it takes three times as
        long. At every fourth search it costs little where the cache is too small to keep it.
        """
        searches = self._searches[number] = (self._searches[number] + 1) & _SEARCHES
        return not searches

    def _value(self, encoded: bytes, table: Table, at: int) -> Found:
        if encoded[0] == fmt.BIN8:
            return encoded[2:]
        return fmt.decode_value(encoded, partial(_blob, table), at)  # type: ignore[return-value]


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
    mapped = file.map()
    if mapped is None:
        return UnmappedReader(file, record, footer, cache)
    return MappedReader(file, record, footer, cache, mapped)
