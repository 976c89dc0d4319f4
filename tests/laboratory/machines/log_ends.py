"""What a power loss leaves of a log: examined in some states, and gone on from in one."""

from __future__ import annotations

from tests.laboratory.machines.log_player import Player
from tests.wal.promises import BUFFER, FSYNC
from wal.files.faulty import FaultyFileSystem


def lose_power(player, seed, *, states, limit=8):
    """Examine some of the states that may be left, and go on from one of them; how many."""
    left = [*player.system.crash_states(seed=seed, limit=limit)]
    player.known.handed = 0
    chosen = [left[(seed + n) % len(left)] for n in range(min(states, len(left)))]
    for state in chosen:
        examine(player.known, state.copy(), state.label)
    player.go_on_with(FaultyFileSystem(left[seed % len(left)]))
    return len(chosen)


def examine(known, system, label):
    """Open what a crash left, hold it against what is known, go on in it, and open it again."""
    try:
        player = Player(FaultyFileSystem(system), known.copy())
        if not known.perhaps:
            player.look_beside()
        assert player.open()
        player.append([30], FSYNC)
        player.append([20], BUFFER)
        player.close()
        assert player.open()
        player.checkpoint(wait=True)
        player.close()
        assert dict(player.known.store).items() <= player.known.archive.items(), "not archived"
    except BaseException as error:
        raise AssertionError(f"{label}: {error!r}") from error
