"""Streams and objects that an account may have and the app cannot list: known ones, and others made when they are named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

V = TypeVar("V")


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


__all__ = ["Named"]
