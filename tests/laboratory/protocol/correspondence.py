"""Which function of the model stands for which of the packages, so that both are changed together.

Whoever changes the protocol changes the model first: it is small, and says within minutes whether
the change loses something. Then the code. The model imports nothing of the packages; only the
test that these names exist does.
"""

from __future__ import annotations

LOG = {
    "disk.File": "wal.files.unsynced:FileHistory",
    "disk.Directory": "wal.files.unsynced:DirectoryHistory",
    "log_values.Header": "wal.segments.format:SegmentHeader",
    "log_values.Marker": "wal.checkpoint_marker:Marker",
    "log_values.Scan.frames": "wal.segments.reader:FrameSource.frames",
    "log_values.Scan.evidence": "wal.segments.reader:FrameSource.evidence",
    "log_judgement.read_marker": "wal.judgement:read_marker",
    "log_judgement.Judgement.read": "wal.judgement:Judgement.read",
    "log_judgement.Judgement._follow": "wal.judgement:Judgement._scan",
    "log_judgement.Judgement._read_frames": "wal.judgement:Judgement._scan_frames",
    "log_judgement.Judgement._judge_tail": "wal.judgement:Judgement._judge_tail",
    "log_judgement.Judgement._check_newest": "wal.judgement:Judgement._check_newest",
    "log_judgement.Judgement._check_clean": "wal.judgement:Judgement._check_clean",
    "log_judgement.Judgement.next_id": "wal.judgement:Judgement.next_id",
    "log_opening.open_log": "wal.opening:_Assembly.assemble",
    "log_opening._consult": "wal.recovery:consult",
    "log_opening._settle": "wal.recovery:settle",
    "log_opening._show": "wal.recovery:show",
    "log_opening._create_marker": "wal.checkpoint_marker:CheckpointMarker.create",
    "log_opening._adopt_spares": "wal.segments.pool:SparePool.adopt",
    "log_opening._go_on": "wal.opening:_Assembly._writer",
    "log_opening._begin_segment": "wal.opening:_Assembly._begin_segment",
    "log_opening._take_dead": "wal.opening:_Assembly._dead",
    "log_segments.MarkerFile.write": "wal.checkpoint_marker:CheckpointMarker.write",
    "log_writing.Log._make_room": "wal.append_buffer:AppendBuffer.make_room_locked",
    "log_writing.Log.rotate": "wal.append_buffer:AppendBuffer.rotate_locked",
    "log_writing.Log.seal": "wal.append_buffer:AppendBuffer.seal_locked",
    "log_writing.Log.witness": "wal.append_buffer:AppendBuffer.witness_locked",
    "log_writing.Log.round": "wal.rounds:Rounds._round",
    "log_writing.Log._write_out": "wal.rounds:Rounds._activate",
    "log_segments.activate": "wal.segments.writer:SegmentWriter.activate",
    "log_writing.Log._roll_back": "wal.segments.writer:SegmentWriter.drop_after",
    "log_writing.Log.stream": "wal.entry_writer:EntryWriter",
    "log_writing.Log.checkpoint": "wal.checkpointer:Checkpointer._checkpoint",
    "log_writing.Log._pass": "wal.checkpointer:Checkpointer._advance_marker",
    "log_writing.Log._recycle": "wal.segments.pool:SparePool.recycle",
    "log_writing.Log._keep": "wal.segments.retention:Retention.keep",
    "log_writing.Log.close": "wal.closing:Closing._mark_clean",
}

STORE = {
    "store_files.Manifest": "kvstore.tables.manifest:Manifest",
    "store_files.Place.write_manifest": "kvstore.tables.manifest:write_manifest",
    "store_files.Place.write_beside": "kvstore.tables.manifest:write_beside",
    "store_files.Place.put_in_place": "kvstore.tables.manifest:put_in_place",
    "store_files.Place.is_backup": "kvstore.upkeep.restoring:is_backup",
    "store_files.Place.begin_log": "wal.opening:begin",
    "store_model.open_store": "kvstore.opening:_open_for_writing",
    "store_model._prepare": "kvstore.directory:Directory.prepare",
    "store_model._restore": "kvstore.upkeep.restoring:restore",
    "store_model.Store.remove_orphans": "kvstore.background.catalog:Catalog.remove_orphans",
    "store_model.Store.settle": "kvstore.background.catalog:Catalog.settle",
    "store_model.Store._install": "kvstore.background.catalog:Catalog._install_locked",
    "store_model.Store._change": "kvstore.background.catalog:Catalog._change_locked",
    "store_model.Store.checkpoint": "kvstore.background.checkpointing:Checkpoint.checkpoint_to",
    "store_model.Store.compact": "kvstore.background.catalog:Catalog.replace",
    "store_model.Store.back_up": "kvstore.upkeep.backup:back_up",
    "store_model.Store._bring": "kvstore.upkeep.backup:_Backup._bring_tables",
}
