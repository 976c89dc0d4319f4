"""What the rules of the machine over the store have in common: each is a step that is told of."""

from __future__ import annotations

import functools

from wal.files.faulty import PowerLoss


def step(function):
    """A rule's body: told of in the story, followed by what has to follow, whatever it was."""

    @functools.wraps(function)
    def run(self, **drawn):
        player = self.player
        told = ", ".join(f"{name}={value!r}" for name, value in drawn.items())
        player.note(f"{function.__name__}({told})")
        player.counts["steps"] += 1
        try:
            function(self, player, **drawn)
            player.settle()
            self.end_after_fault(player)
        except (Exception, PowerLoss) as error:
            self.failed = True
            story = "\n".join(player.story)
            raise AssertionError(f"{error!r}\nafter calls: what was done\n{story}") from error

    return run
