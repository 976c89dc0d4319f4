"""The store on top of the log: opening, checkpoints, compactions, emptying, backups."""

from __future__ import annotations

from tests.laboratory.protocol.disk import Failed
from tests.laboratory.protocol.log_values import Damage
from tests.laboratory.protocol.store_files import (
    BACKUP,
    BACKUP_NEW,
    MANIFEST,
    MANIFEST_NEW,
    Manifest,
    OpenLog,
    Refused,
)


def open_store(place, rules, owner, *, empty=False):
    """Open a store for writing. ``empty``: flag "n"."""
    manifest = _prepare(place, rules, empty=empty)
    if not place.is_backup(manifest) and not manifest.is_fresh and not place.log.names:
        raise Damage("the log is missing")
    manifest = _restore(place, rules, manifest)
    store = Store(place, rules, owner, manifest)
    store.remove_orphans()
    store.open_log()
    return store


def _prepare(place, rules, *, empty):
    """The manifest to go on with. Creates what is missing, empties what is to be emptied."""
    root = place.root
    found = place.read_manifest()
    if empty and root.names and rules.clearing_first:
        found = Manifest(object(), clearing=True)
    if found is None and BACKUP in root.names:
        raise Refused
    if found is None and (place.log.names or place.tables.names):
        raise Damage("the manifest is missing")
    if found is not None and found.clearing and (empty or rules.settle_clearing):
        place.write_manifest(found, rules)
    clearing = found is not None and (found.clearing or (empty and not rules.clearing_first))
    if clearing:
        place.remove_all(place.log)
        place.remove_all(place.tables)
    place.root.sync()  # for tables/, whose name is durable here all the same
    if found is None or clearing:
        if not rules.manifest_before_log:
            place.begin_log(0)
        found = Manifest(object())
        place.write_manifest(found, rules)
    elif found.is_fresh and rules.settle_fresh:
        place.write_manifest(found, rules)
    return found


def _restore(place, rules, manifest):
    """Make a backup a store of its own."""
    mark = place.read_mark()
    if mark is None:
        return manifest
    if mark == manifest.store:
        if rules.log_before_new_id:
            _begin_log(place, rules, manifest.last)
        manifest = manifest._replace(store=object())
    if rules.new_id_before_unmarking:
        place.write_manifest(manifest, rules)
    place.root.remove(BACKUP)
    place.root.sync()
    if not rules.new_id_before_unmarking:
        place.write_manifest(manifest, rules)
    if not rules.log_before_new_id:
        _begin_log(place, rules, manifest.last)
    return manifest


def _begin_log(place, rules, last):
    if rules.empty_log_first:
        place.remove_all(place.log)
    place.begin_log(last)


class Store:
    """An open store. Its manifest in memory is the last one that was put in place for certain."""

    def __init__(self, place, rules, owner, manifest):
        self.place = place
        self.disk = place.disk
        self.rules = rules
        self.owner = owner
        self.manifest = manifest
        self.next_number = manifest.next_number
        self.settled = False
        self.doubtful = []
        self.log = None

    # -- opening -----------------------------------------------------------------------------------

    def remove_orphans(self):
        """Remove what crashes left in tables/."""
        named = {table.name for table in self.manifest.tables}
        names = [name for name in self.place.tables.names if name not in named]
        numbers = [name[1] for name in names if name[0] == "table"]
        if numbers:
            if self.rules.new_numbers:
                self.next_number = max(self.next_number, *(number + 1 for number in numbers))
            if self.rules.settle_before_orphans:
                self.settle()
        self.place.discard(names)

    def open_log(self):
        """Replay what no table holds, and show the owner what there is."""
        self.place.check_tables(self.manifest)
        self.place.root.sync()  # for the log's directory
        self.log = OpenLog(self.place)
        last = self.manifest.last
        if last < self.log.passed:
            raise Damage(f"the tables end at {last}, the log begins after {self.log.passed}")
        if self.log.last < last:
            raise Damage(f"the log ends at {self.log.last}, the tables at {last}")
        covered = last if self.rules.skip_covered else self.log.passed
        shown = [id for table in self.manifest.tables for id in table.ids]
        shown += [id for id in self.log.file.entries if id > covered]
        self.owner.show(shown)

    # -- the catalog -------------------------------------------------------------------------------

    def settle(self):
        """Make sure that the manifest is durable, not just there."""
        if not self.settled:
            self.place.write_manifest(self.manifest, self.rules)
            self.settled = True

    def _install(self, ids):
        """Make a table, and give it its number, durably."""
        number = self.next_number
        self.next_number += 1
        place = self.place
        table, draft = place.make_table(number, ids, synced=self.rules.sync_table)
        try:
            place.tables.rename(draft, table.name)
            if self.rules.sync_tables:
                place.tables.sync()
        except Failed:
            place.discard([draft, table.name])
            raise
        return table

    def _change(self, tables, last, fresh):
        """A new manifest; what is in doubt is removed once that has succeeded."""
        number = self.next_number
        manifest = self.manifest._replace(tables=tables, last=last, next_number=number)
        place, rules = self.place, self.rules
        try:
            place.write_beside(MANIFEST_NEW, manifest, synced=rules.sync_manifest)
        except Failed:
            place.discard([fresh.name])
            raise
        doubtful, self.doubtful = self.doubtful, [*self.doubtful, fresh.name]
        try:
            place.put_in_place(MANIFEST_NEW, MANIFEST, settled=rules.sync_root)
        except Failed:
            if not rules.doubtful_tables:
                place.discard([fresh.name])
            raise
        self.settled = True
        self.doubtful = []
        self.manifest = manifest
        place.discard(doubtful)

    # -- what a store does -------------------------------------------------------------------------

    def put(self, count, synced):
        """Write some entries of which each has to survive as a whole; ``None``: buffered."""
        ids = [self.owner.next_id() for _ in range(count)]
        self.log.write(ids, synced=synced)
        self.owner.handed(ids, synced)

    def checkpoint(self):
        """Put what the log holds into a table, and have the log let go of it."""
        log = self.log
        log.sync()
        self.owner.handed([], True)
        last, after = log.last, self.manifest.last
        if last > after:
            from_id = after if self.rules.skip_covered else log.passed
            table = self._install([id for id in log.file.entries if id > from_id])
            self._change((table, *self.manifest.tables), last, table)
        elif self.rules.settle_before_passing:
            self.settle()
        log.pass_to(last)

    def compact(self):
        """Make one table of all."""
        old = self.manifest.tables
        if len(old) > 1:
            table = self._install([id for each in old for id in each.ids])
            self._change((table,), self.manifest.last, table)
            self.place.discard([each.name for each in old])

    def close(self):
        """The log is synced and shut down."""
        self.log.sync()
        self.owner.handed([], True)

    # -- backups -----------------------------------------------------------------------------------

    def back_up(self, target, linked):
        """Bring the tables to another place, then a manifest that names them."""
        self.checkpoint()
        manifest, rules = self.manifest, self.rules
        earlier = self._earlier(target)
        if earlier is None and rules.mark_first:
            target.put(BACKUP_NEW, BACKUP, ("of", manifest.store))
        kept = earlier.tables if earlier is not None else ()
        for table in manifest.tables:
            if not (table in kept and target.has(table)):
                self._bring(target, table, linked)
        if rules.sync_backup_tables:
            target.tables.sync()
        self.owner.backing_up([id for table in manifest.tables for id in table.ids])
        target.write_manifest(manifest, rules)
        if earlier is None and not rules.mark_first:
            target.put(BACKUP_NEW, BACKUP, ("of", manifest.store))
        self.owner.backed_up()
        named = {table.name for table in manifest.tables}
        target.discard([name for name in target.tables.names if name not in named])

    def _earlier(self, target):
        """The manifest of an earlier backup of this store; Refused for anything else."""
        earlier, mark = target.read_manifest(), target.read_mark()
        names = set(target.root.names) - {BACKUP_NEW}
        if names and (mark != self.manifest.store or (earlier and earlier.store != mark)):
            raise Refused
        return earlier

    def _bring(self, target, table, linked):
        tables, draft = target.tables, target.draft()
        if target.has(table):  # an attempt that did not get far left it
            if self.rules.rename_left_tables:
                tables.rename(table.name, draft)
                tables.rename(draft, table.name)
            return
        target.discard([table.name])
        if linked:
            self.disk.count("link", table.name)
            file = tables.names[draft] = self.place.tables.names[table.name]
            tables.changes.append([None, draft, file, False])
        else:
            file = tables.create(draft, 2)
            self.disk.write(file, 0, table.parts)
            self.disk.sync(file)
        tables.rename(draft, table.name)
