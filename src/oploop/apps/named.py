"""Streams and objects that depend on the account: those that it lists, each described when it is first named (Catalog), and
those that it cannot list (Named)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from oploop.errors import FixConfig, did_you_mean

V = TypeVar("V")
W = TypeVar("W")


class Named(Mapping[str, V], Generic[V]):
    """`known`, and whatever `make` makes of another name (None: no name of such a thing). It only tells that there may be one:
    the app's `check` asks the account for those in `known` that it was not given.
    """

    def __init__(self, known: Mapping[str, V], make: Callable[[str], V | None]) -> None:
        self.known = dict(known)
        self._make = make

    def __getitem__(self, name: str) -> V:
        if name not in self.known:
            made = self._make(name)
            if made is None:
                raise KeyError(name)
            self.known[name] = made
        return self.known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.known)

    def __len__(self) -> int:
        return len(self.known)


class Lazy(Mapping[str, V]):
    """Streams, or objects, by name; each is made when its entry is asked for, as it must be described for it."""

    asks = True  #: what names there are is asked of the account (see `asks_account`)

    def __init__(
        self, has: Callable[[str], bool], names: Callable[[], Iterator[str]], make: Callable[[str], V]
    ) -> None:
        self._has, self._names, self._make = has, names, make

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._has(name)

    def __iter__(self) -> Iterator[str]:
        return self._names()

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, name: str) -> V:
        return self._make(name)


def asks_account(names: Mapping[str, object]) -> bool:
    """Whether it takes a call to tell which names streams, or objects, have. A mapping of an app's own for which it does says so
    by an attribute `asks`."""
    return bool(getattr(names, "asks", False))


class Catalog(ABC, Generic[V]):
    """The things of an account (tables, objects), listed once, and each described once, when it is first named."""

    #: What a message says of a name that there is none of: "Salesforce has no object".
    lacks: str

    def __init__(self) -> None:
        self._names: Mapping[str, bool] | None = None
        self._found: dict[str, V | None] = {}

    @abstractmethod
    def listed(self) -> Mapping[str, bool]:
        """All names, and whether it can be written."""

    @abstractmethod
    def describe(self, name: str) -> V | None:
        """The thing of that name, which may be none that `listed` has; None when there is none."""

    def full(self, name: str) -> str:
        """A name as the account has it."""
        return name

    def names(self) -> Mapping[str, bool]:
        """All names, and whether it can be written."""
        if self._names is None:
            self._names = self.listed()
        return self._names

    def find(self, name: str) -> V | None:
        """The thing of that name; None when there is none."""
        full = self.full(name)
        if full not in self._found:
            self._found[full] = self.describe(full)
        return self._found[full]

    def has(self, name: str) -> bool:
        return self.find(name) is not None

    def get(self, name: str) -> V:
        """The same; FixConfig, with the nearest right name, when there is none."""
        found = self.find(name)
        if found is None:
            full = self.full(name)
            raise FixConfig(f"{self.lacks} {full!r}", mend=did_you_mean(full, self.names()))
        return found

    def each(self, make: Callable[[V], W], *, written: bool = False) -> Mapping[str, W]:
        """What `make` makes of each, by name; `written`: of those that can be written."""

        def names() -> Iterator[str]:
            return (name for name, can in self.names().items() if can or not written)

        return Lazy(self.has, names, lambda name: make(self.get(name)))


__all__ = ["Catalog", "Lazy", "Named", "asks_account"]
