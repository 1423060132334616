"""One change's way to Stripe (docs.stripe.com/api/customers).

One object a call; there is no bulk endpoint. `metadata` merges, and "" unsets a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from oploop.apps.base import new_values
from oploop.apps.documents import nested
from oploop.apps.stripe.client import StripeClient
from oploop.apps.stripe.streams import OBJECTS
from oploop.apps.transport import Answer, LostAnswer, Refused
from oploop.errors import RetryLater
from oploop.records import Change, Op, Outcome, Receipt


async def send_change(client: StripeClient, step_id: str, op: Op, change: Change) -> Receipt:
    """Create, update or delete one customer; says what became of it and never raises for one record's sake.

    A wrong credential (FixConfig) does raise: it stops all.
    """
    call = _call(op, change)
    if isinstance(call, str):
        return Receipt(change.number, Outcome.REJECTED, change.remote_id, call)
    path, form = call
    key = f"{step_id}:{change.number}"
    try:
        if op is Op.REMOVE:
            answer = await client.delete(path)
        else:
            answer = await _post(client, path, form, key, again=op is Op.UPDATE)
        made = str(answer.written(dict, "id")["id"])  # each answer of Stripe's names its record
    except LostAnswer as e:
        return Receipt(change.number, Outcome.UNKNOWN, change.remote_id, str(e))
    except RetryLater as e:
        return Receipt(change.number, Outcome.RETRY, change.remote_id, str(e))
    except Refused as e:
        if op is Op.REMOVE and e.status == 404 and e.code == "resource_missing":  # it is gone, as was wanted
            return Receipt(change.number, Outcome.OK, change.remote_id, version=e.answer.date_micros())
        return Receipt(change.number, _refusal(e), change.remote_id, str(e), e.answer.date_micros())
    return Receipt(change.number, Outcome.OK, made, version=answer.date_micros())


def _call(op: Op, change: Change) -> tuple[str, dict[str, Any]] | str:
    """(path, parameters) of a change, or why it cannot be one."""
    if op in (Op.UPDATE, Op.REMOVE):
        customer = change.remote_id or change.key.get("id")
        if not customer:
            return "the customer's id is not known"
        form = nested(change.fields, "metadata") if op is Op.UPDATE else {}
        return f"/v1/customers/{quote(str(customer), safe='')}", form
    if "id" in change.key:
        return "Stripe chooses the ids of customers; use another key to create them, or mode: update"
    fields = {name: value for name, value in new_values(OBJECTS["customers"], change).items() if value is not None}
    return "/v1/customers", nested(fields, "metadata")


async def _post(client: StripeClient, path: str, form: Mapping[str, Any], key: str, *, again: bool) -> Answer:
    """Post under a key. A failure that Stripe saved under it is answered for a day whatever is done; setting fields to
    values may be done twice without harm (`again`), so it is then sent under a second key of the same intent."""
    try:
        return await client.post(path, form, key=key)
    except (Refused, LostAnswer) as e:
        saved = e.answer is not None and e.answer.status >= 500 and "idempotent-replayed" in e.answer.headers
        if not (again and saved):
            raise
        return await client.post(path, form, key=f"{key}:again")


def _refusal(e: Refused) -> Outcome:
    if e.status >= 500:
        return Outcome.UNKNOWN
    return Outcome.RETRY if e.status in (408, 409, 429) else Outcome.REJECTED
