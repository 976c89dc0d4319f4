"""The rules of the protocol, each with a switch: what is promised must fail without it.

A rule that holds alone is one without which the model finds a loss or a false alarm. A *second
line* is one that nothing in the model needs as long as another rule holds; it is tried together
with that one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace


def _rule(sentence):
    return field(default=True, metadata={"sentence": sentence})


class _Switches:
    __slots__ = ()

    def without(self, *names):
        """The same rules but for some."""
        return replace(self, **dict.fromkeys(names, False))

    @classmethod
    def sentences(cls):
        """What each rule says, by its name."""
        return {each.name: each.metadata["sentence"] for each in fields(cls)}


@dataclass(frozen=True, slots=True)
class LogRules(_Switches):
    """The rules of the log: writing, checkpointing, recovery."""

    rewrite_before_sync: bool = _rule(
        "Recovery writes what it read again before it syncs: a sync proves nothing about cells "
        "that an earlier, failed sync left clean."
    )
    rewrite_witness: bool = _rule(
        "A witness is written again too, unless the evidence is of an entry behind it: entries "
        "that are shown can only be read through it."
    )
    settle_marker: bool = _rule(
        "Recovery writes the newest marker slot again, and syncs it, before it rests on it."
    )
    settle_names: bool = _rule(
        "Recovery syncs the directory before it shows anything: else an abandoned segment comes "
        "back."
    )
    fresh_segment: bool = _rule(
        "After a crash a fresh segment is begun: a torn region is never appended to."
    )
    id_limit: bool = _rule(
        "The header bounds the ids that may have been given out; after a crash they go on there."
    )
    highest_in_marker: bool = _rule(
        "The marker says which ids were given out, rolled-back ones too, for a clean reopening."
    )
    increasing_ids: bool = _rule("A segment's id is above every earlier segment's.")
    committed_previous: bool = _rule(
        "A header's previous_last_id is the last committed entry, not one that was rolled back."
    )
    nothing_beyond_end: bool = _rule(
        "Nothing above a successor's previous_last_id is ever read, by salvage neither."
    )
    sync_header: bool = _rule("A header is synced before its file gets a segment's name.")
    sync_names_at_activation: bool = _rule(
        "The directory is synced before an entry is written to a new segment."
    )
    strict_rotation: bool = _rule(
        "A segment is synced whole before anything of its successor exists."
    )
    never_back: bool = _rule(
        "The write position never goes back: bytes of a rolled-back entry seal the segment."
    )
    latch: bool = _rule("After a failed sync nothing more is written.")
    latch_forbids_clean: bool = _rule("A log that has latched never writes the clean mark.")
    durable_evidence: bool = _rule(
        "A frame's durable_id is written only after the sync that it tells of."
    )
    salts: bool = _rule(
        "Frames carry their segment's salt: what is left of the file's earlier life, and what a "
        "payload holds, is none."
    )
    every_cell: bool = _rule(
        "An entry counts if every part of it is right, not by its header and end alone."
    )
    end_covers: bool = _rule(
        "An entry's end vouches for which chunks came before it, not just for their number."
    )
    slots_in_turn: bool = _rule("The marker's slots are written in turn.")
    marker_before_recycling: bool = _rule(
        "The marker passes a segment, durably, before its file is taken away."
    )
    names_before_reuse: bool = _rule(
        "The directory is synced before a byte of a recycled file changes."
    )
    remove_clean_mark: bool = _rule(
        "A clean reopening removes the clean mark, durably, before the first append."
    )
    doubtful_slot: bool = _rule(
        "A slot that cannot be read may be that of an opening which went on: then the other one's "
        "clean mark is not believed."
    )
    evidence_behind_flaw: bool = _rule(
        "Headers behind a flaw count as evidence: they tell damage from a torn tail."
    )
    chain: bool = _rule(
        "A segment must follow where the one before it ends, and end where its successor says."
    )
    marker_names_newest: bool = _rule(
        "The newest segment that the marker knows to hold something durable must be there."
    )
    clean_mark_exact: bool = _rule("After a clean shutdown the log must end exactly at its mark.")


LOG_TOGETHER = (("never_back", "end_covers"),)
"""Second lines of the log: either of two may be left out, not both."""

LOG_DAMAGE = ("evidence_behind_flaw", "chain", "marker_names_newest", "salts")
"""Rules of the log without which damage goes unnoticed, or is seen where there is none."""

LOG_UNNEEDED = ("names_before_reuse", "clean_mark_exact")
"""Rules of the log that the model can do without: a header that is not the name's own is found
out; the marker's durable id tells of all that the clean mark vouches for."""


@dataclass(frozen=True, slots=True)
class StoreRules(_Switches):
    """The rules of the store on top of the log: tables, manifest, emptying, backups."""

    sync_table: bool = _rule("A table is synced before it gets its number.")
    sync_tables: bool = _rule("tables/ is synced before a manifest names what is new in it.")
    sync_manifest: bool = _rule("A manifest is synced before it gets its name.")
    sync_root: bool = _rule(
        "The store's directory is synced before the log's marker passes what the manifest covers."
    )
    settle_fresh: bool = _rule(
        "A manifest without a table is written again by each opening: else, after a sync of the "
        "directory that failed, no manifest may be what is durable, or one that says clearing."
    )
    settle_before_orphans: bool = _rule(
        "The manifest that was found is written again before orphans are removed: the one before "
        "it, which may name them, may be what is durable."
    )
    settle_before_passing: bool = _rule(
        "The manifest that was found is written again before the log lets go of what it covers."
    )
    doubtful_tables: bool = _rule(
        "Where putting a manifest in place failed, nothing that it names is removed until a later "
        "change has succeeded."
    )
    new_numbers: bool = _rule("No table's number is used twice, not even an orphan's.")
    skip_covered: bool = _rule(
        "Entries up to the manifest's last_entry_id are neither replayed nor put in a table again."
    )
    clearing_first: bool = _rule(
        "Emptying a store begins with a manifest that says so, and ends with a fresh one."
    )
    settle_clearing: bool = _rule(
        "An opening that goes on with emptying writes the manifest that says so again: else, after "
        "a sync that failed, the one before it comes back without its log and tables."
    )
    manifest_before_log: bool = _rule(
        "A new store has its manifest before its log: a log without a manifest is damage."
    )
    mark_first: bool = _rule("A backup's mark is durable before anything else is there.")
    sync_backup_tables: bool = _rule("A backup's tables/ is synced before its manifest names them.")
    rename_left_tables: bool = _rule(
        "Tables that an earlier attempt left are renamed again: else no sync covers their names "
        "after one that failed."
    )
    log_before_new_id: bool = _rule(
        "A backup's log is begun before the manifest has the new id that makes it count."
    )
    empty_log_first: bool = _rule(
        "What an earlier attempt left in a backup's log is removed before the log is begun."
    )
    new_id_before_unmarking: bool = _rule(
        "A backup's mark is removed only after the manifest has another id than the mark."
    )


STORE_UNNEEDED = ("new_numbers", "empty_log_first", "new_id_before_unmarking")
"""Rules of the store that the model can do without: with the manifest settled nothing names an
orphan any more; a log that was begun in a backup has no entries; and with its log begun, what is
neither marked nor has an id of its own is a whole store, though it shares its id with another."""
