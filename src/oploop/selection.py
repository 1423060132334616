"""Which syncs a command is about: the words of `--select` and `--exclude`."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from oploop.errors import FixConfig, did_you_mean
from oploop.project import Project, Sync

#: What each model reads from: models and tables.
Parents = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which syncs: names, globs, `tag:T`, `app:A`, `model:M`, and with `+` a model's or a sync's kin (see `_kin`); empty selects all.
    Only those that are enabled, but for one that is selected by its name; with `off` any word means the others too."""

    select: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    off: bool = False

    def pick(self, project: Project, parents: Callable[[], Parents] = dict) -> list[Sync]:
        """The selected syncs by name; FixConfig for a word that means none, with the nearest right one. `parents` is asked only
        where a word has a `+`; see `Workspace.pick`."""
        chosen = [s for s in project.syncs.values() if s.enabled] if not self.select else []
        for word in self.select:
            hits = _meant(project, word, "--select", parents)
            chosen += [s for s in (hits if self.off else _enabled(hits, word)) if s not in chosen]
        # a mistyped name would send what was to be left out
        out = [s for word in self.exclude for s in _meant(project, word, "--exclude", parents)]
        return sorted((s for s in chosen if s not in out), key=lambda s: s.name)


def is_pattern(word: str) -> bool:
    """Whether a word of `--select` or `--exclude` has placeholders."""
    return any(c in word for c in "*?[")


def _meant(project: Project, word: str, option: str, parents: Callable[[], Parents]) -> list[Sync]:
    """The syncs of a word; FixConfig where there are none. A pattern may leave out what is not there."""
    if word.strip("+") != word:
        hits = _kin(project, word, parents())
    else:
        hits = [s for s in project.syncs.values() if matches(s, word)]
    if not hits and (option == "--select" or not is_pattern(word)):
        words = [w for w in re.split(r"[,\s]+", word) if w]
        several = f"one word each: {option} {f' {option} '.join(words)}" if len(words) > 1 else None
        says = f"{word!r} selects no sync" if option == "--select" else f"{option} {word!r} means no sync"
        models = [s.model for s in project.syncs.values()] if word.strip("+") != word else []
        raise FixConfig(says, mend=several or did_you_mean(word.strip("+"), [*project.syncs, *models]))
    return hits


def _enabled(hits: list[Sync], word: str) -> list[Sync]:
    """Of what a word selects, the syncs that are enabled, and the one of that very name; FixConfig where that leaves none."""
    left = [s for s in hits if s.enabled or s.name == word.strip("+")]
    if not left:
        names = sorted(s.name for s in hits)
        raise FixConfig(
            f"{word!r} selects only what is not enabled: {', '.join(names)}",
            mend=f"select it by name: --select {names[0]}",
        )
    return left


def matches(sync: Sync, word: str) -> bool:
    """Whether a selecting word without `+` means a sync."""
    kind, _, rest = word.partition(":")
    if rest and kind == "tag":
        return rest in sync.tags
    if rest and kind == "app":
        return rest == sync.app
    if rest and kind == "model":
        return fnmatch.fnmatchcase(sync.model, rest)
    return fnmatch.fnmatchcase(sync.name, word)


def _kin(project: Project, word: str, parents: Parents) -> list[Sync]:
    """The syncs of a word with `+`, as dbt and SQLMesh have it: `M+` those of the model (or raw table) and of all that is made of it,
    `+M` those of the model and of all that it is made of, `+M+` both. A sync stands behind its model: `+S` is the sync, and those of
    the models that its own is made of."""
    name = word.removeprefix("+").removesuffix("+")
    own = [s for s in project.syncs.values() if fnmatch.fnmatchcase(s.name, name)]
    known = {*parents, *(p for above in parents.values() for p in above), *(s.model for s in project.syncs.values())}
    wanted = {m for m in known if fnmatch.fnmatchcase(m, name)}
    children: dict[str, list[str]] = {}
    for model, above in parents.items():
        for parent in above:
            children.setdefault(parent, []).append(model)
    kin = set(wanted)
    if word.startswith("+"):
        kin |= _reached({*wanted, *(s.model for s in own)}, parents)
    if word.endswith("+"):
        kin |= _reached(wanted, children)
    return [s for s in project.syncs.values() if s in own or s.model in kin]


def _reached(start: Collection[str], ways: Parents) -> set[str]:
    """All that can be reached from some, one step at least away."""
    found: set[str] = set()
    todo = list(start)
    while todo:
        new = [n for n in ways.get(todo.pop(), ()) if n not in found]
        found.update(new)
        todo += new
    return found
