"""What a store has promised at a moment, and what it looks like from outside."""

from __future__ import annotations

from typing import NamedTuple


def contents(db):
    """All keys and values, of the root and of every namespace, by the way to them."""
    found = {}
    places = [((), db)]
    while places:
        way, place = places.pop()
        found.update(((*way, key), value) for key, value in place.scan())
        places += [((*way, name), place.namespace(name)) for name in place.namespaces()]
    return found


class Promise(NamedTuple):
    """What may be found in a store: one of these models, and of them not one of the first few.

    Models follow each other as writes do; ``acknowledged`` is the number of the first that a
    writer's opening may show. Who only reads beside it may be shown an earlier one, back to
    ``seen``. The last is what there would be if everything begun had been done.
    """

    path: str
    models: tuple
    acknowledged: int = 0
    must_exist: bool = True

    @property
    def key(self):
        """Two promises with the same key are the same."""
        models = tuple(hash(frozenset(model.items())) for model in self.models)
        return self.path, models, self.acknowledged, self.must_exist

    def allows(self, found):
        """Whether a writer's opening may show this."""
        return found in self.models[self.acknowledged :]

    def check(self, found, label):
        """Hold what an opening showed against it."""
        allowed = [told(model) for model in self.models[self.acknowledged :]]
        assert self.allows(found), f"{label}: {told(found)} is none of {allowed}"

    def shown(self, found):
        """What is promised once a writer's opening has shown this."""
        last = max(n for n, model in enumerate(self.models) if model == found)
        return Promise(self.path, self.models[: last + 1], last)

    def begun(self, model):
        """What is promised while one more write is under way."""
        return self._replace(models=(*self.models, model))

    def done(self):
        """What is promised when all has been acknowledged."""
        return self._replace(acknowledged=len(self.models) - 1)


def told(model):
    """A model in few words."""
    return {
        key: value if len(value) < 12 else f"{len(value)} bytes" for key, value in model.items()
    }


class Known:
    """What the caller of one store knows of it while it works."""

    def __init__(self, path):
        self.path = path
        self.models = [{}]
        self.acknowledged = 0
        self.begun = 0
        self.floor = 0  # when it was last empty for good
        self.exists = False  # an opening that makes one has returned
        self.touched = False

    @property
    def now(self):
        return self.models[-1]

    def begin(self, model):
        self.models.append(model)
        self.begun += 1

    def take_back(self):
        """The last one begun has failed, alone: nothing of it was written."""
        self.models = self.models[:-1]
        self.begun -= 1

    def acknowledge(self):
        self.acknowledged = self.begun

    def show(self, found):
        """An opening has shown this: nothing that was begun behind it is there, or ever will be."""
        self.promise().check(found, "opened")
        while self.now != found:
            self.take_back()
        self.acknowledge()

    def promise(self):
        models = tuple(self.models[self.floor : self.begun + 1])
        return Promise(self.path, models, self.acknowledged - self.floor, self.exists)
