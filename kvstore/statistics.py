"""Where a store stands, as an immutable value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoreStats:
    """Where a store stands. A snapshot: it never changes."""

    last_entry_id: int
    """The last log entry that is visible."""
    durable_entry_id: int
    """The last log entry that is known to survive a power loss."""
    checkpoint_entry_id: int
    """Every log entry up to this one is in the tables."""
    replayed_entries: int
    """Log entries that opening the store had to apply."""
    memtable_items: int
    """Mutations in memory that are in no table yet."""
    tables: int
    table_items: int
    """What the tables hold, deletions that still hide something included."""
    table_bytes: int
