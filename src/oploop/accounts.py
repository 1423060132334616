"""The fields of the accounts behind a project's apps: asked for once, and held against `fields.lock`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping

from oploop.activate import locked
from oploop.apps.base import Account, App
from oploop.apps.defects import defect, named
from oploop.apps.transport import Refused, bare
from oploop.errors import FixConfig, OploopError, Place, did_you_mean
from oploop.project import AppBlock, FieldsLock, Project, Sync, write_fields_lock
from oploop.records import Field
from oploop.warehouse.base import Warehouse

#: Stands in for the raw table where an expression is to name a column alone.
_RAW = "__raw"


@contextlib.contextmanager
def asking(block: AppBlock) -> Iterator[None]:
    """What goes wrong while an app is asked is to be mended in its block, at the key that the message names."""
    try:
        yield
    except OploopError as e:
        e.place = e.place or block.place_named(str(e))
        raise


async def whose(app: App, block: AppBlock) -> Account:
    """Whose account answers; FixConfig, with its place, when the app refuses the question itself."""
    with asking(block), named(f"asking {app.name} whose account it is"):
        try:
            return await app.check()
        except Refused as e:
            asked = e.answer.request
            said = f"{asked.method} {bare(asked.url)} was refused: {e.message}"
            raise FixConfig(said, mend="check base_url, and what these credentials may do") from e


class AccountFields:
    """What the accounts tell of their objects' fields. `app`: an app of the project by its name."""

    def __init__(self, project: Project, app: Callable[[str], App]) -> None:
        self._project, self._app = project, app
        self._described: dict[tuple[str, str], Mapping[str, Field]] = {}
        self._fresh: FieldsLock = {}
        self._named: dict[tuple[str, str], Field] = {}
        self.kept = 0  #: names that were added to `fields.lock`

    async def described(self, app: str, object_name: str) -> Mapping[str, Field]:
        """An object's fields as its account describes them, by each name that stands for one."""
        name = (app, object_name)
        if name not in self._described:
            try:
                self._described[name] = await self._app(app).describe(object_name)
            except OploopError as e:
                raise e.at(self._project.apps[app].place) from None
            except Exception as e:
                raise defect(f"describing {app}.{object_name}", e) from e
        return self._described[name]

    async def held(self, sync: Sync) -> locked.Held:
        """The fields of a sync's object, held against the lock."""
        return await self._held(sync.app, sync.object, [*sync.key, *(m.field for m in sync.fields)])

    async def _held(self, app: str, object_name: str, names: Iterable[str]) -> locked.Held:
        target = f"{app}.{object_name}"
        held = locked.hold(await self.described(app, object_name), self._project.locked.get(target, {}), names)
        if held.fresh:
            self._fresh.setdefault(target, {}).update(held.fresh)
        return held

    def keep(self) -> None:
        """Write to `fields.lock` the custom fields that the project was found to name for the first time.

        A folder that cannot be written keeps no command from its work: a runner's checkout is thrown away anyway.
        """
        if self._fresh:
            known = self._project.locked
            both = {t: {**known.get(t, {}), **self._fresh.get(t, {})} for t in {*known, *self._fresh}}
            with contextlib.suppress(FixConfig):
                write_fields_lock(self._project.root, both)
                self._project.locked.update(both)
                self.kept += sum(len(names) for names in self._fresh.values())
                self._fresh = {}

    async def find(self, uses: Mapping[tuple[str, str], Place | None]) -> None:
        """Find the fields that models name by `@field(app.object, 'title')`, and where. FixConfig for what is not there."""
        for (target, title), place in uses.items():
            try:
                self._named[target, title] = await self._found(target, title)
            except OploopError as e:
                raise e.at(place) from None

    async def _found(self, target: str, title: str) -> Field:
        app, _, object_name = target.partition(".")
        if app not in self._project.apps:
            mend = did_you_mean(app, self._project.apps)
            raise FixConfig(f"@field({target}, '{title}'): there is no app {app!r}", mend=mend)
        objects = self._app(app).objects
        if object_name not in objects:
            mend = did_you_mean(object_name, objects)
            raise FixConfig(f"@field({target}, '{title}'): {app} has no object {object_name!r}", mend=mend)
        held = await self._held(app, object_name, [title])
        if title in held.lost:
            raise FixConfig(f"@field({target}, '{title}'): the field {held.lost[title]}", mend="mend the model")
        found = held.fields.get(title)
        if found is None:
            mend = did_you_mean(title, held.fields)
            raise FixConfig(f"@field({target}, '{title}'): there is no such field", mend=mend)
        return found

    def sql(self, warehouse: Warehouse, target: str, title: str) -> str:
        """What `@field` stands for: the field's value from the raw table's column, which is named alone."""
        found = self._named.get((target, title))
        if found is None:
            raise FixConfig(f"@field({target}, '{title}') cannot be resolved here", mend="name the raw column instead")
        if found.source is None:
            raise FixConfig(f"@field({target}, '{title}'): the field cannot be read back", mend="mend the model")
        return warehouse.field_value(found.source, found.type, _RAW).replace(f'"{_RAW}".', "")


__all__ = ["AccountFields"]
