"""What is there or not: associations between records, members of static lists; and the lists that HubSpot gives whole.

Sources: developers.hubspot.com, API reference: associations v4 (batch read, default, archive), lists v3 (search,
memberships), owners.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from typing import Any

from oploop.apps.arrow import table_from_records
from oploop.apps.base import micros
from oploop.apps.hubspot.client import Client, next_after, results_of
from oploop.apps.hubspot.objects import LISTS, MEMBERSHIPS, OWNERS, PAIRS, STREAMS, pair_of
from oploop.apps.lists import Page, whole
from oploop.apps.transport import Answer, Refused
from oploop.records import Batch, Change, Op, Outcome, ReadOptions, Receipt, Step, Stream

PAGE = 100
MEMBERS_PAGE = 250
LISTS_PAGE = 500
STATIC = ("MANUAL", "SNAPSHOT")


def gone_or_there(
    stream: Stream,
    ids: Sequence[str],
    there: Mapping[str, dict[str, Any]],
    bare: Callable[[str], dict[str, Any]],
    at: datetime,
) -> Batch:
    """Those of a stream's records that are there by their ids, and of the others the bare ids, as deleted."""
    rows = [there.get(i) or bare(i) for i in dict.fromkeys(ids)]
    gone = [r["id"] not in there for r in rows]
    table = table_from_records(stream, rows, versions=micros(at), extracted_at=at, deleted=gone)
    return Batch(stream.name, table)


class Associations:
    """Pairs of associated records of two types."""

    def __init__(self, client: Client, stream: Stream) -> None:
        self._client, self._stream = client, stream

    async def _types(self) -> tuple[str, str]:
        pair = pair_of(self._stream.name)
        assert pair is not None
        return await self._client.type_of(pair[0]), await self._client.type_of(pair[1])

    def read(self, options: ReadOptions) -> AsyncGenerator[Batch]:
        """All pairs; see `_pages`."""
        return whole(self._stream, self._pages(), options.exclude)

    async def _pages(self) -> AsyncGenerator[Page]:
        """The list of the left records shows up to 100 of each one's right ones; more are asked for."""
        left, right = await self._types()
        asked = {"limit": PAGE, "properties": "hs_object_id", "associations": right}
        async with aclosing(self._client.listed(f"crm/v3/objects/{left}", asked)) as pages:
            async for page in pages:
                rows: list[dict[str, Any]] = []
                more: list[str] = []
                for record in page.records:
                    for told in (record.get("associations") or {}).values():
                        if next_after(told) is not None:
                            more.append(str(record["id"]))
                        else:
                            rows += _rows(str(record["id"]), ((str(t["id"]), t["type"]) for t in told["results"]))
                if more:
                    rows += await self.of(left, right, more)
                yield replace(page, records=rows)

    async def of(self, left: str, right: str, ids: Sequence[str]) -> list[dict[str, Any]]:
        """The pairs of some left records."""
        rows: list[dict[str, Any]] = []
        inputs: list[dict[str, str]] = [{"id": i} for i in ids]
        while inputs:
            body = {"inputs": inputs[:PAIRS]}
            answer = await self._client.ask(f"crm/v4/associations/{left}/{right}/batch/read", body)
            inputs = inputs[PAIRS:]
            for found in results_of(answer):
                number = str(found["from"]["id"])
                rows += _rows(
                    number, ((str(t["toObjectId"]), _label(a)) for t in found["to"] for a in t["associationTypes"])
                )
                after = next_after(found)
                inputs += [{"id": number, "after": after}] if after is not None else []
        return rows

    async def fetch(self, ids: Sequence[str]) -> Batch:
        left, right = await self._types()
        there = {r["id"]: r for r in await self.of(left, right, sorted({i.partition(":")[0] for i in ids}))}
        return gone_or_there(self._stream, ids, there, _pair, self._client.runtime.now())

    async def send(self, step: Step) -> list[Receipt]:
        left, right = await self._types()
        path = f"crm/v4/associations/{left}/{right}/batch"
        if step.op is Op.REMOVE:
            pairs = [(c, _pair(c.remote_id or _id(c))) for c in step.changes]
            body = {"inputs": [{"from": {"id": p["from_id"]}, "to": [{"id": p["to_id"]}]} for _, p in pairs]}
            answer = await self._client.write("POST", f"{path}/archive", body, safe=True)
            return [Receipt(c.number, Outcome.OK, p["id"], version=answer.date_micros()) for c, p in pairs]
        wanted = {_id(c): c for c in step.changes}
        links = [(i.partition(":")[0], i.partition(":")[2]) for i in wanted]
        failed = await associate(self._client, f"{path}/associate/default", links, None)
        at = micros(self._client.runtime.now())
        return [
            Receipt(c.number, Outcome.REJECTED, error=failed[i])
            if i in failed
            else Receipt(c.number, Outcome.OK, i, version=failed.at or at)
            for i, c in wanted.items()
        ]


class Failed(dict[str, str]):
    """Why pairs ("from:to") were refused; `at`: the app's time of the answer."""

    at: int | None = None


async def associate(
    client: Client, path: str, links: Sequence[tuple[str, str]], types: Sequence[Mapping[str, Any]] | None
) -> Failed:
    """Associate pairs. What a batch's answer does not show as done is tried by itself, so that each gets its own reason."""
    failed = Failed()
    inputs = [{"from": {"id": a}, "to": {"id": b}, **({"types": list(types)} if types else {})} for a, b in links]
    try:
        answer = await client.write("POST", path, {"inputs": inputs}, safe=True)
    except Refused as e:
        if len(links) > 1:
            raise
        failed[":".join(links[0])], failed.at = str(e), e.answer.date_micros()
        return failed
    failed.at = answer.date_micros()
    body = answer.written(dict, "results")
    done = {f"{_number(r, 'from')}:{_number(r, 'to')}" for r in body["results"]}
    left = [link for link in links if ":".join(link) not in done]
    if len(links) == 1 and left:
        said = [str(e.get("message")) for e in body.get("errors") or () if e.get("message")]
        failed[":".join(left[0])] = "; ".join(said) or "HubSpot did not associate them, and does not say why"
    elif left:
        for link in left:
            failed.update(await associate(client, path, [link], types))
    return failed


def _number(result: Mapping[str, Any], side: str) -> str:
    """The id of one side of an association in an answer: {"from": {"id"}} or {"fromObjectId"}."""
    told = result.get(side)
    return str(told["id"] if isinstance(told, Mapping) else result.get(f"{side}ObjectId"))


def _label(kind: Mapping[str, Any]) -> str:
    return str(kind.get("label") or f"{kind.get('category')} {kind.get('typeId')}")


def _rows(number: str, linked: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    types: dict[str, list[str]] = {}
    for to, kind in linked:
        types.setdefault(to, []).append(kind)
    return [{**_pair(f"{number}:{to}"), "types": sorted(kinds)} for to, kinds in types.items()]


def _pair(pair: str) -> dict[str, Any]:
    left, _, right = pair.partition(":")
    return {"id": pair, "from_id": left, "to_id": right}


def _id(change: Change) -> str:
    """A pair's id, from its key: (from_id, to_id) or (list_id, record_id)."""
    whole = {**change.fields, **change.key}
    names = ("from_id", "to_id") if "from_id" in whole else ("list_id", "record_id")
    return ":".join(str(whole[n]) for n in names)


class Lists:
    """Lists, their members, owners: read whole each time."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def read(self, name: str, options: ReadOptions) -> AsyncGenerator[Batch]:
        pages = {LISTS: self._lists, OWNERS: self._owners, MEMBERSHIPS: self._members}[name]
        return whole(STREAMS[name], pages(), options.exclude)

    async def _lists(self, kinds: Sequence[str] = ()) -> AsyncGenerator[Page]:
        offset = 0
        while True:
            body = {"offset": offset, "count": LISTS_PAGE, "additionalProperties": ["hs_list_size"]}
            began = self._client.runtime.now()
            answer = await self._client.ask(
                "crm/v3/lists/search", {**body, "processingTypes": list(kinds)} if kinds else body
            )
            yield Page.of(answer, results_of(answer, "lists"), began)
            if not answer.json().get("hasMore"):
                return
            offset = int(answer.json()["offset"])

    def _owners(self) -> AsyncGenerator[Page]:
        return self._client.listed("crm/v3/owners/", {"limit": PAGE})

    async def _members(self) -> AsyncGenerator[Page]:
        async with aclosing(self._lists(STATIC)) as parts:
            async for lists in parts:
                for found in lists.records:
                    async with aclosing(self._members_of(str(found["listId"]))) as pages:
                        async for page in pages:
                            yield page

    async def _members_of(self, list_id: str) -> AsyncGenerator[Page]:
        path = f"crm/v3/lists/{list_id}/memberships"
        async with aclosing(self._client.listed(path, {"limit": MEMBERS_PAGE})) as pages:
            async for page in pages:
                members = [_member(list_id, str(m["recordId"]), m.get("membershipTimestamp")) for m in page.records]
                yield replace(page, records=members)

    async def fetch(self, ids: Sequence[str]) -> Batch:
        """Whether these are members: the lists are read until all are found, or to their end."""
        found: dict[str, dict[str, Any]] = {}
        for list_id in dict.fromkeys(i.partition(":")[0] for i in ids):
            wanted = {i for i in ids if i.partition(":")[0] == list_id}
            try:
                async with aclosing(self._members_of(list_id)) as pages:
                    async for page in pages:
                        found |= {m["id"]: m for m in page.records if m["id"] in wanted}
                        if wanted <= found.keys():
                            break
            except Refused as e:
                if e.status != 404:  # a list that is gone has no members
                    raise
        now = self._client.runtime.now()
        return gone_or_there(STREAMS[MEMBERSHIPS], ids, found, lambda i: _member(*i.split(":", 1)), now)

    async def send(self, step: Step) -> list[Receipt]:
        """One call for each list of the step."""
        by_list: dict[str, list[tuple[Change, str]]] = {}
        for change in step.changes:
            pair = change.remote_id or _id(change)
            by_list.setdefault(pair.partition(":")[0], []).append((change, pair))
        what, receipts = "remove" if step.op is Op.REMOVE else "add", []
        for list_id, changes in by_list.items():
            records = [pair.partition(":")[2] for _, pair in changes]
            try:
                answer = await self._client.write(
                    "PUT", f"crm/v3/lists/{list_id}/memberships/{what}", records, safe=True
                )
            except Refused as e:
                gone = e.status == 404 and step.op is Op.REMOVE
                receipts += [
                    Receipt(
                        c.number,
                        Outcome.OK if gone else Outcome.REJECTED,
                        p if gone else None,
                        None if gone else str(e),
                    )
                    for c, p in changes
                ]
                continue
            told = answer.written(dict, "recordIdsMissing" if what == "add" else "recordIdsRemoved")
            missing = set(map(str, told["recordIdsMissing"])) if what == "add" else set()
            receipts += [_receipt(c, pair, missing, answer) for c, pair in changes]
        return receipts


def _receipt(change: Change, pair: str, missing: set[str], answer: Answer) -> Receipt:
    if pair.partition(":")[2] in missing:
        return Receipt(change.number, Outcome.REJECTED, error=f"there is no record {pair.partition(':')[2]}")
    return Receipt(change.number, Outcome.OK, pair, version=answer.date_micros())


def _member(list_id: str, record_id: str, since: str | None = None) -> dict[str, Any]:
    return {"id": f"{list_id}:{record_id}", "list_id": list_id, "record_id": record_id, "membershipTimestamp": since}
