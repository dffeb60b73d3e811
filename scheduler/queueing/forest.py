"""Which tenant stands under which: a forest made of names that may be missing or wrong.

Every tenant names at most one parent. A parent that does not exist, or that leads back to
the tenant itself, cannot be refused at admission (an object's rules do not see others), so
it is read here: below a missing parent a tenant is a root until the parent comes, and of a
cycle the member that comes first by name is a root. Neither depends on the order of arrival.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

ROOT = ""  # the cohort of all tenants without a parent
Move = tuple[str, str]  # (tenant, its new parent)


class Forest:
    """Parents as declared and as they count. Changes cost the depth of what is touched."""

    def __init__(self) -> None:
        self.parents: dict[str, str] = {}  # of each tenant there is, as it counts: ROOT or a tenant there is
        self._declared: dict[str, str] = {}
        self._naming: dict[str, set[str]] = defaultdict(set)  # parent, also a missing one → who names it
        self._cycles: dict[str, tuple[str, ...]] = {}  # where it is cut → its members, each under the next
        self._cut_of: dict[str, str] = {}  # member → where its cycle is cut

    def __contains__(self, name: str) -> bool:
        return name in self._declared

    def put(self, name: str, parent: str) -> list[Move]:
        """A tenant that is new (it starts as a root) or names another parent. Returns who moves, in order.

        No step of that order makes a cycle, so that sums over subtrees can follow it.
        """
        moves: list[Move] = []
        new = name not in self._declared
        if not new:
            if self._declared[name] == parent:
                return moves
            self._unlink(name, moves)
        else:
            self.parents[name] = ROOT
        self._declared[name] = parent
        if parent:
            self._naming[parent].add(name)
        self._link(name, moves)
        if new:
            for child in sorted(self._naming.get(name, set()) - {name}):
                self._link(child, moves)
        return moves

    def remove(self, name: str) -> list[Move]:
        """A tenant is gone: whoever stood under it is a root. Returns who moves, in order."""
        moves: list[Move] = []
        if name not in self._declared:
            return moves
        self._unlink(name, moves)
        for child in sorted(self._naming.get(name, ())):
            if self.parents[child] == name:
                self._move(child, ROOT, moves)
        del self._declared[name], self.parents[name]
        return moves

    def upwards(self, name: str) -> Iterator[str]:
        """The tenant, its parent, and so on up to a root; without `ROOT`. A stranger stands alone."""
        while name:
            yield name
            name = self.parents.get(name, ROOT)

    def missing(self) -> Iterator[tuple[str, str]]:
        """(tenant, the parent that it names and that does not exist)."""
        for parent in sorted(self._naming):
            if parent not in self._declared:
                for child in sorted(self._naming[parent]):
                    yield child, parent

    def cycles(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """(where it is cut, its members, each under the next and the last under the first)."""
        yield from sorted(self._cycles.items())

    def has_children(self, name: str) -> bool:
        """Whether any tenant stands under it."""
        return name in self._naming and any(self.parents[child] == name for child in self._naming[name])

    def _link(self, name: str, moves: list[Move]) -> None:
        # `name` is a root here. A way up that comes back to it never passes a cut: nothing leaves a cycle.
        parent = self._declared[name]
        if parent not in self._declared:
            return
        way = [parent]
        while way[-1] != name and self.parents[way[-1]]:
            way.append(self.parents[way[-1]])
        if way[-1] != name:
            self._move(name, parent, moves)
            return
        cut = min(way)
        at = way.index(cut)
        self._cycles[cut] = tuple(way[at:] + way[:at])
        self._cut_of.update(dict.fromkeys(way, cut))
        if cut != name:
            self._move(cut, ROOT, moves)
            self._move(name, parent, moves)

    def _unlink(self, name: str, moves: list[Move]) -> None:
        naming = self._naming.get(self._declared[name])
        if naming is not None:
            naming.discard(name)
            if not naming:
                del self._naming[self._declared[name]]
        if self.parents[name]:
            self._move(name, ROOT, moves)
        cut = self._cut_of.get(name)
        if cut is not None:
            for member in self._cycles.pop(cut):
                del self._cut_of[member]
            if cut != name:
                self._move(cut, self._declared[cut], moves)

    def _move(self, name: str, parent: str, moves: list[Move]) -> None:
        self.parents[name] = parent
        moves.append((name, parent))
