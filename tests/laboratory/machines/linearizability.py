"""Decides whether a history of a store could have come from one that does one thing after another.

A history is *linearizable* (Herlihy and Wing, "Linearizability: A Correctness Condition for
Concurrent Objects", TOPLAS 12(3), 1990) if each operation can be given a moment between its begin
and its end such that, done at these moments one by one, all saw what they saw.

**Method.** The search of Wing and Gong ("Testing and Verifying Concurrent Objects", JPDC 17, 1993)
in the just-in-time form of Lowe ("Testing for Linearizability", CCPE 29(4), 2017): the events are
gone through in the order of time with the set of all *configurations* that explain them so far. A
configuration is a state of the keys, and which of the open operations have taken effect. An
operation is made to take effect no earlier than some operation has to, which is when it returns;
then every order of open operations that ends with it is tried. Configurations are kept in a set, so
none is gone on from twice. An open operation that changes nothing, and fits the state, takes effect
at once: that cannot forbid anything later. One whose caller was never told is free to take effect
from its begin on, or never.

**Locality.** A history is linearizable if and only if its part for each object is (Herlihy and
Wing, theorem 1). So keys that no operation saw or left together are decided apart: a history of
single-key operations key by key; one with batches, transactions and scans as a whole.

**Crashes.** What is read after a crash, before anything else, is a read of all keys that begins
after every end: *durable linearizability* (Izraelevitz, Mendes and Scott, "Linearizability of
Persistent Memory Objects under a Full-System-Crash Failure Model", DISC 2016). Where operations
were acknowledged whose durability does not outlast the crash, it is their *buffered* form: some
moment, the *cut*, has the recovered state, and what does outlast the crash took effect before it.

**Bounds.** No more than :data:`MOST_OPEN` operations may be open at a time, and no more than
:data:`MOST_CONFIGURATIONS` be looked at between two events, or the answer is
:class:`UndecidedError`, an error as well. Within them the answer is exact, both ways.
"""

from __future__ import annotations

from tests.laboratory.machines.history import Operation, Other

MOST_OPEN = 24
MOST_CONFIGURATIONS = 200_000


class NotLinearizableError(AssertionError):
    """No order explains the history. Says at which operation the last explanation ended."""


class UndecidedError(AssertionError):
    """The history is beyond the bounds."""


def check(operations, initial, *, recovered=None, lasting=None):
    """Raise NotLinearizableError unless some order of the operations explains them all.

    Args:
        operations: The history.
        initial: What each key held before; absent ones need not be named.
        recovered: What was there after the crash that ended the history, if one did.
        lasting: The durabilities that outlast that crash, if there were others; None: all do.

    Returns:
        How many parts it was decided in, and how many configurations were looked at.
    """
    told = [each for each in operations if each.ended is not None or each.left]
    if recovered is not None and lasting is not None:
        keys = sorted({*initial, *recovered, *(key for each in told for key in each.keys)})
        cut = Operation("the crash", "all", 0, _end_of(told), {k: recovered.get(k) for k in keys})
        return 1, _Search(keys, initial, told, cut, lasting).run()
    count = looked = 0
    for keys in parts(told, {*initial, *(recovered or ())}):
        part = [each for each in told if not each.keys.isdisjoint(keys)]
        if recovered is not None:
            end = _end_of(told)
            seen = {key: recovered.get(key) for key in keys}
            part.append(Operation("recover", "all", end, end + 1, seen))
        looked += _Search(sorted(keys), initial, part).run()
        count += 1
    return count, looked


def parts(operations, keys=()):
    """The sets of keys that operations saw or left together, directly or through others."""
    found = [{key} for key in keys]
    for operation in operations:
        together = set(operation.keys)
        if together:
            apart = [part for part in found if part.isdisjoint(together)]
            together.update(*(part for part in found if not part.isdisjoint(together)))
            found = [*apart, together]
    return found


def _end_of(operations):
    return 1 + max((max(each.begun, each.ended or 0) for each in operations), default=0)


class _Search:
    """The configurations that explain a history so far: (state, mask of the open that are done).

    The state is a tuple of the values in the order of the keys and, last, whether the cut is past.
    """

    def __init__(self, keys, initial, operations, cut=None, lasting=()):
        self._names = keys
        places = {key: at for at, key in enumerate(keys)}
        self._operations = operations if cut is None else [*operations, cut]
        self._cut = cut
        self._seen = [
            [(places[key], value) for key, value in each.seen.items()] for each in self._operations
        ]
        self._left = [
            [(places[key], value) for key, value in each.left.items()] for each in self._operations
        ]
        self._before_the_cut = [
            each.ended is not None and each.durability in lasting for each in self._operations
        ]
        self._changes = [bool(each.left) or each is cut for each in self._operations]
        self._open = []
        self._ended = []
        self._looked = 0
        self._configurations = {((*(initial.get(key) for key in keys), False), 0)}

    def run(self):
        """Go through all events; how many configurations were looked at."""
        for _, returns, number in sorted(self._events()):
            if returns:
                self._return(number)
                self._ended.append(number)
            else:
                self._open.append(number)
                if len(self._open) > MOST_OPEN:
                    raise UndecidedError(f"more than {MOST_OPEN} operations are open at a time")
                self._configurations = {self._read_at_once(*each) for each in self._configurations}
        return self._looked

    def _events(self):
        for number, operation in enumerate(self._operations):
            yield operation.begun, False, number
            if operation.ended is not None:
                yield operation.ended, True, number

    def _return(self, number):
        """Keep the explanations in which an operation has taken effect by now."""
        bit = 1 << number
        reached, left = {*self._configurations}, [*self._configurations]
        done = set()
        while left:
            state, mask = left.pop()
            if mask & bit:
                done.add((state, mask ^ bit))
                continue
            for following in self._following(state, mask):
                if following not in reached:
                    reached.add(following)
                    left.append(following)
        self._looked += len(reached)
        if len(reached) > MOST_CONFIGURATIONS:
            raise UndecidedError(
                f"more than {MOST_CONFIGURATIONS} configurations between two events"
            )
        if not done:
            raise NotLinearizableError(self._explain(number))
        self._open.remove(number)
        self._configurations = done

    def _following(self, state, mask):
        """The configurations in which one more of the open operations has taken effect."""
        for number in self._open:
            if not mask >> number & 1 and self._fits(number, state):
                yield self._read_at_once(self._after(number, state), mask | 1 << number)

    def _read_at_once(self, state, mask):
        """The same with all open operations done that fit and change nothing."""
        for number in self._open:
            if not (self._changes[number] or mask >> number & 1) and self._fits(number, state):
                mask |= 1 << number
        return state, mask

    def _fits(self, number, state):
        if state[-1] and self._before_the_cut[number]:
            return False
        for at, value in self._seen[number]:
            if isinstance(value, Other):
                if state[at] == value.than:
                    return False
            elif state[at] != value:
                return False
        return True

    def _after(self, number, state):
        values = [*state]
        for at, value in self._left[number]:
            values[at] = value
        if self._operations[number] is self._cut:
            values[-1] = True
        return tuple(values)

    def _explain(self, number):
        """What was the case when the last explanation ended."""
        states = sorted({str(self._shown(state)) for state, _ in self._configurations})
        lines = [
            "no order explains",
            f"  {self._operations[number]}",
            "while these were open",
            *(f"  {self._operations[each]}" for each in self._open if each != number),
            "after these had ended",
            *(f"  {self._operations[each]}" for each in self._ended[-8:]),
            f"which may have left, in {len(self._configurations)} explanations,",
            *(f"  {state}" for state in states[:8]),
        ]
        return "\n".join(lines)

    def _shown(self, state):
        """A state in words; after the cut it is marked."""
        told = [
            f"{key.decode('latin-1')}={None if value is None else value[:12].decode('latin-1')}"
            for key, value in zip(self._names, state, strict=False)
        ]
        return ", ".join([*told, "after the cut"] if state[-1] else told)
