"""Rules of the machine over the store: upkeep, backups, and who reads beside the writer."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

import kvstore
from tests.laboratory.machines import store_draws as draw
from tests.laboratory.machines.store_model import ROOT, read_all
from tests.laboratory.machines.store_player import FAILED
from tests.laboratory.machines.store_remains import Backup, opened
from tests.laboratory.machines.store_steps import step


class Beside:
    """For a RuleBasedStateMachine."""

    @rule(what=st.sampled_from(["sync", "checkpoint", "checkpoint", "compact"]))
    @step
    def upkeep(self, player, what):
        if player.attempt(what, getattr(player.db, what)) is not FAILED:
            player.model.survives_power_loss()

    @rule(number=st.integers(0, 1))
    @step
    def back_up(self, player, number):
        path, contents = f"backup-{number}", player.model.contents
        backup = player.backups.setdefault(path, Backup())
        backup.maybe.append(contents)
        if player.attempt("backup", lambda: player.db.backup(path)) is not FAILED:
            player.model.survives_power_loss()
            backup.sure, backup.maybe[:] = contents, []
            player.counts["backups"] += 1
            player.check_backup(player.system.killed_state(), path, backup, "made")

    @rule(number=st.integers(0, 1))
    @step
    def restore(self, player, number):
        """What the backup's directory holds, as a store of its own: in a copy of all files."""
        backup = player.backups.get(f"backup-{number}", Backup())
        if backup.sure is None:
            return
        files = player.system.killed_state()
        with kvstore.open(f"backup-{number}", "w", file_system=files) as db:
            contents = read_all(db)
            assert contents in [backup.sure, *backup.maybe]
            db.put(b"!", b"restored")
        with kvstore.open(f"backup-{number}", "r", file_system=files) as db:
            contents[ROOT][b"!"] = b"restored"
            assert read_all(db) == contents
        report = kvstore.verify(f"backup-{number}", file_system=files)
        assert report.ok, str(report)

    # -- beside the writer -------------------------------------------------------------------------

    @rule(anew=st.integers(0, 3))
    @step
    def look_beside(self, player, anew):
        """What a handle for reading shows is a durable state, and never older than before."""
        if player.reader is not None and not anew:
            player.reader.close()
            player.reader = None
        if player.reader is None:
            options = player.options
            found = player.attempt(
                "open beside", lambda: opened(player.system, "r", **options), reading=True
            )
            if found is FAILED:
                return
            player.reader = found
        elif player.attempt("refresh", player.reader.refresh, reading=True) is FAILED:
            return
        self.read_beside(player)

    def read_beside(self, player):
        reader, model = player.reader, player.model
        found = player.attempt("read beside", lambda: read_all(reader), reading=True)
        if found is not FAILED:
            shown = model.find(found, reader.last_entry_id, player.shown, "beside the writer")
            assert shown < len(model.versions), "what is in doubt is shown beside the writer"
            player.shown = shown
            model.survives_power_loss(shown)
            player.counts["looks beside"] += 1

    @rule(number=draw.numbers, everything=st.booleans())
    @step
    def read_changes(self, player, number, everything):
        """The feed shows commits whole, in order, without a gap, and only durable ones."""
        model = player.model
        model.durable_up_to(player.db.stats().durable_entry_id)
        begin = number % len(model.versions)
        after = None if everything else model.versions[begin].id
        found = player.attempt("changes", lambda: self.changes(player, after), reading=True)
        if found is FAILED:
            return
        if isinstance(found, kvstore.ChangesLostError):
            if after is None:
                assert not player.calm, "what is kept is lost, though no checkpoint is under way"
                return
            assert begin < len(model.versions) - 1, "nothing is lost where nothing follows"
            assert found.oldest_id > model.versions[begin + 1].id, f"{found}, after {after}"
            return
        ids = [version.id for version in model.versions]
        told = list(found)
        first = begin + 1 if not everything else ids.index(told[0]) if told else model.durable + 1
        expected = model.versions[first : first + len(told)]
        assert told == [version.id for version in expected], f"{told} after {after} of {ids}"
        assert first + len(told) > model.durable, f"{told} lacks durable ones of {ids}"
        for version in expected:
            assert found[version.id] == version.changes(), f"of entry {version.id}"
        if told:
            model.survives_power_loss(first + len(told) - 1)

    def changes(self, player, after):
        told = {}
        complete = True
        try:
            for change in player.db.changes(after=after):
                if complete:
                    assert change.entry_id not in told
                    told[change.entry_id] = {}
                told[change.entry_id][change.namespace] = dict(change.items)
                complete = change.completes
        except kvstore.ChangesLostError as error:
            return error
        assert complete
        return told
