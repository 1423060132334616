"""Records of an answer as JSON texts that become columns without a Python object for each of their values.

    body ─records_in─▶ the other members, Records ─Columns.of─▶ a list of values for each field

A page is first only cut into its records, which is all that its cursor takes (see `paging.ahead`); what a stream
declares of them is decoded later, in the declared types, nested values as the texts they are. Where a record does not
fit (a type, a name that is not declared), the decoder learns that once and goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple, overload

import msgspec
import orjson

from oploop.apps import jsonvalues
from oploop.apps.paging import at_once
from oploop.apps.policy import Answer, NotTheApi
from oploop.errors import FixData
from oploop.records import ColumnType

#: An app that gives more undeclared fields than that has names made of values; then dicts serve better.
MOST_UNDECLARED = 300
#: Bytes of an answer that tell whether it is written with blanks.
HEAD = 512
#: Bytes of an answer behind its list, in which the place of the next page is looked for.
END = 1_000
#: Records that are decoded in one turn (see `paging.meanwhile`): a tenth of a millisecond, or two.
TURN = 100
#: What msgspec says of a text that does not fit, or is nested deeper than it goes.
NO_FIT = (msgspec.MsgspecError, RecursionError)

_TYPES: Mapping[ColumnType, Any] = {
    ColumnType.TEXT: str | None,
    ColumnType.INTEGER: int | None,
    ColumnType.NUMBER: float | None,
    ColumnType.BOOLEAN: bool | None,
    ColumnType.TIMESTAMP: str | None,
    ColumnType.UNIX: int | float | None,
    ColumnType.UNIX_MS: int | float | None,
    ColumnType.DATE: str | None,
    ColumnType.JSON: msgspec.Raw,
}
#: What orjson makes of values that fit a type.
_FITS: Mapping[Any, frozenset[type]] = {
    str | None: frozenset({str, type(None)}),
    int | None: frozenset({int, type(None)}),
    float | None: frozenset({int, float, type(None)}),
    bool | None: frozenset({bool, type(None)}),
    int | float | None: frozenset({int, float, type(None)}),
}


class Records(Sequence[dict[str, Any]]):
    """Records by their JSON texts, without blanks; one is parsed when it is asked for.

    `texts`: bytes, or what has them (`msgspec.Raw`); or what gives them when somebody looks.
    """

    __slots__ = ("_texts",)

    def __init__(self, texts: Sequence[Any] | Callable[[], Sequence[Any]]) -> None:
        self._texts = texts

    @property
    def texts(self) -> Sequence[Any]:
        if callable(self._texts):
            self._texts = self._texts()
        return self._texts

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, at: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, at: slice) -> Records: ...
    def __getitem__(self, at: int | slice) -> dict[str, Any] | Records:
        return Records(self.texts[at]) if isinstance(at, slice) else _parsed(self.texts[at])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(_parsed, self.texts)

    @classmethod
    def of(cls, parts: Iterable[Records]) -> Records:
        """Several pages' records, one behind the other."""
        return cls([text for part in parts for text in part.texts])


def records_in(answer: Answer, name: str, *others: str) -> tuple[dict[str, Any], Records | None]:
    """The records of the list called `name`, and the `others` of the answer's members; None where there is no such list.

    Raises NotTheApi when the answer is no JSON; where the `others` stand at its end, only when somebody looks at the records.
    """
    told = _at_the_end(answer.body, name, others)
    return (told, Records(partial(_texts_in, answer, name))) if told is not None else _cut(answer, name, others)


def _at_the_end(body: bytes, name: str, others: Collection[str]) -> dict[str, Any] | None:
    """The `others` of an answer's members, if all of them stand behind its list of records; found without a look at that, so
    that the next page can be asked for before.

    What follows the end of some list, and is with a brace before it an object up to the end of the answer, are members of
    the answer itself: further inside, more would have been left to close.
    """
    if not others or not body.startswith(b'{"%s":[' % name.encode()):
        return None
    at = body.rfind(b'}],"', -END)
    if at < 0:
        return None
    try:
        told = jsonvalues.parsed(b"{" + body[at + 3 :])
    except ValueError:
        return None
    return {n: told[n] for n in others} if told.keys() >= set(others) and name not in told else None


def _texts_in(answer: Answer, name: str) -> Sequence[Any]:
    _, records = _cut(answer, name, ())
    if records is None:
        raise NotTheApi(answer)
    return records.texts


def _cut(answer: Answer, name: str, others: tuple[str, ...]) -> tuple[dict[str, Any], Records | None]:
    try:
        page = _envelope(name, others).decode(_compact(answer.body))
    except (*NO_FIT, UnicodeDecodeError):
        body = answer.json()
        found = body.get(name) if isinstance(body, dict) else None
        told = body if isinstance(body, dict) else {}
        if not isinstance(found, list) or not all(isinstance(r, dict) for r in found):
            return told, None
        return told, Records(list(map(written, found)))
    values = msgspec.structs.astuple(page)
    return {n: v for n, v in zip(others, values[1:], strict=True) if v is not msgspec.UNSET}, Records(values[0])


@lru_cache(256)
def _envelope(name: str, others: tuple[str, ...]) -> msgspec.json.Decoder[Any]:
    members: list[tuple[str, Any] | tuple[str, Any, Any]] = [("f0", list[msgspec.Raw])]
    members += [(f"f{i}", Any, msgspec.UNSET) for i in range(1, len(others) + 1)]
    names = dict(_numbered((name, *others)))
    return msgspec.json.Decoder(msgspec.defstruct("Envelope", members, rename=names))


def _compact(body: bytes) -> bytes:
    """The same JSON without blanks, so that a value has one text however the app lays it out."""
    head = body[:HEAD]
    spaced = b"\n" in head or b'": ' in head or b', "' in head or b'" :' in head
    return msgspec.json.format(body, indent=-1) if spaced else body


def _parsed(text: Any) -> dict[str, Any]:
    try:
        record = jsonvalues.parsed(bytes(text))
    except ValueError as e:
        raise FixData(f"an answer holds a record that is no JSON: {e}", mend="check base_url") from None
    if not isinstance(record, dict):
        raise FixData("an answer's list holds something that is no record", mend="check base_url")
    return record


def written(value: Any) -> bytes:
    """A parsed value as JSON text."""
    try:
        return jsonvalues.written(value)
    except orjson.JSONEncodeError:  # what it parses to a depth of 1,024 it writes to one of 254
        raise FixData(
            "an answer holds a record that is nested too deeply", mend="leave its field out by `exclude`"
        ) from None


_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def without(records: Records, hidden: Collection[str]) -> list[bytes]:
    """The records' texts less these members; what is left of them stands as it came."""
    return [_without(text, hidden) for text in records.texts]


def _without(text: Any, hidden: Collection[str]) -> bytes:
    try:
        return msgspec.json.encode({n: v for n, v in _MEMBERS.decode(text).items() if n not in hidden})
    except (*NO_FIT, UnicodeDecodeError):
        return written({n: v for n, v in _parsed(text).items() if n not in hidden})


def with_members(text: bytes, members: Mapping[str, msgspec.Raw]) -> bytes:
    """A record's text with other values of these members; what else is in it stands as it came."""
    return msgspec.json.encode({**_MEMBERS.decode(text), **members})


class Columns:
    """Decodes records to columns: those that are declared, and what else comes up."""

    def __init__(self, declared: Mapping[str, ColumnType]) -> None:
        self._types: Mapping[str, Any] = {n: _TYPES[k] for n, k in declared.items()}  #: never changed, but replaced
        self._declared = frozenset(declared)
        self._hopeless = False
        self._how: _Decoder | None = None

    @staticmethod
    @lru_cache(256)
    def cached(declared: tuple[tuple[str, ColumnType], ...]) -> Columns:
        """The one for these columns, which knows already what it has learned."""
        return Columns(dict(declared))

    def _decoder(self, records: Records) -> _Decoder | None:
        """What decodes such records. Its fields are in the order of a record's members: there msgspec looks first for the next
        one, and saves a quarter of its time."""
        types, how = self._types, self._how
        if how is not None and how.types is types:  # else another thread may have learned meanwhile
            return how
        names = tuple(dict.fromkeys([n for n in records[0] if n in types] + list(types)))
        fields = [
            (f"f{i}", types[name], None if name in self._declared else msgspec.UNSET) for i, name in enumerate(names)
        ]
        try:
            record = msgspec.defstruct(
                "Record", fields, rename=dict(_numbered(names)), forbid_unknown_fields=True, gc=False
            )
        except ValueError:  # a name that it does not take: with quotes, or control characters
            self._hopeless = True
            return None
        self._how = _Decoder(types, names, msgspec.json.Decoder(record).decode)
        return self._how

    def in_turns(self, records: Records) -> Generator[None, None, dict[str, Sequence[Any]] | None]:
        """Values by field: nested ones as `msgspec.Raw`, of a field that is not declared all of them so, UNSET where it is
        missing. None: these records must be parsed.
        """
        for _ in range(2):
            if self._hopeless or not records or (how := self._decoder(records)) is None:
                return None
            rows: list[tuple[Any, ...]] = []
            try:
                for start in range(0, len(records), TURN):
                    rows += map(msgspec.structs.astuple, map(how.decode, records.texts[start : start + TURN]))
                    yield
            except (*NO_FIT, UnicodeDecodeError):
                self._learn(records)
                continue
            columns = dict(zip(how.names, zip(*rows, strict=True), strict=True))
            yield
            return {n: v for n, v in columns.items() if n in self._declared or _any_set(v)}
        return None

    of = at_once(in_turns)

    def _learn(self, records: Records) -> None:
        """Look at records, one of which does not fit: at their names, and at values of other types than are declared."""
        parsed = list(records)
        types = dict(self._types)
        for name in sorted(set().union(*parsed) - types.keys()):
            types[name] = msgspec.Raw
        self._hopeless = len(types) - len(self._declared) > MOST_UNDECLARED
        for name, kind in types.items():
            fitting = _FITS.get(kind)
            if fitting is not None and not {type(r.get(name)) for r in parsed} <= fitting:
                types[name] = Any
        if types != self._types:
            self._types = types


class _Decoder(NamedTuple):
    """Decodes a record's text to a struct of these fields, of the types that were known when it was made."""

    types: Mapping[str, Any]
    names: tuple[str, ...]
    decode: Callable[[Any], Any]


def _any_set(values: Sequence[Any]) -> bool:
    return any(v is not msgspec.UNSET for v in values)


def texts_of(columns: Mapping[str, Sequence[Any]]) -> list[bytes]:
    """Rows of plain values as JSON texts, for an app that gives no records: {"name": value}, one a row."""
    if not columns:
        return []
    try:
        row = msgspec.defstruct(
            "Row", [(f"f{i}", Any) for i in range(len(columns))], rename=dict(_numbered(columns)), gc=False
        )
    except ValueError:  # names with quotes, or control characters
        return [orjson.dumps(dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True)]
    return msgspec.json.Encoder().encode_lines(list(map(row, *columns.values()))).split(b"\n")[:-1]


def _numbered(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    return ((f"f{i}", name) for i, name in enumerate(names))


__all__ = ["Columns", "Records", "records_in", "texts_of", "with_members", "without", "written"]
