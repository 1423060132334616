"""What creating, changing and deleting does to the store, and the events that tell of it."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

import orjson

from oploop.apps.stripe.sandbox.params import ApiError, missing
from oploop.apps.stripe.sandbox.shapes import DAY, KINDS, OBJECT, PREFIX, complete, older
from oploop.apps.stripe.sandbox.store import Shelf
from oploop.apps.stripe.streams import API_VERSION

ENDED = ("canceled", "incomplete_expired")
DECLINED_CARD = "tok_chargeDeclined"

_ALPHABET = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class Origin:
    """The request that caused a change, as its events name it."""

    request: str | None = None
    key: str | None = None


class Books:
    """All objects of the account and all its events. Times are seconds since 1970 by the sandbox's clock."""

    def __init__(self, now: Callable[[], int], random: Random) -> None:
        self.now = now
        self._random = random
        self.shelves = {kind: Shelf() for kind in KINDS}
        self.events = Shelf()
        self.tombstones: dict[str, dict[str, Any]] = {}
        self.account_version = API_VERSION  #: the version of the API that events are rendered in
        self.origin = Origin()

    def new_id(self, prefix: str) -> str:
        length = 14 if prefix in ("cus", "prod", "si") else 24
        return f"{prefix}_{''.join(self._random.choices(_ALPHABET, k=length))}"

    def get(self, kind: str, record_id: str, *, param: str | None = None) -> dict[str, Any]:
        """An object; ApiError 404 when the address names none, 400 when a parameter does."""
        found = self.shelves[kind].get(record_id)
        if found is None:
            raise missing(OBJECT[kind], record_id, param or "id", status=400 if param else 404)
        return found

    # -- filling ---------------------------------------------------------------------------------------------------

    def load(self, kind: str, records: Iterable[Mapping[str, Any]], *, emit: bool = False) -> None:
        """Put finished objects into the store; minimal ones are completed, known ids are replaced. `emit`: with events,
        as if it happened now; without, as if they had always been there. ValueError for a record that cannot be."""
        shelf = self.shelves[kind]
        before = [shelf.get(record.get("id", "")) for record in records] if emit else []
        try:
            rows = [self._whole(kind, record) for record in records]
        except ApiError as e:  # an item's price that is not there
            raise ValueError(str(e)) from None
        shelf.put_all(rows)
        for row, old in zip(rows, before, strict=False):
            self._tell(kind, row, _born(kind, row) if old is None else f"{_family(kind)}.updated", old)

    def _whole(self, kind: str, record: Mapping[str, Any]) -> dict[str, Any]:
        record_id = record.get("id") or self.new_id(PREFIX[kind])
        if kind == "subscriptions" and isinstance(record.get("items"), list):
            record = {**record, "items": self.subscription_items(record_id, record["items"])}
        return complete(kind, record, record_id, self.now())

    # -- changing --------------------------------------------------------------------------------------------------

    def create(self, kind: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """A new object from typed parameters."""
        record_id = params.get("id") or self.new_id(PREFIX[kind])
        if self.shelves[kind].get(record_id) is not None:
            raise ApiError(f"{OBJECT[kind].title()} already exists.", code="resource_already_exists", param="id")
        fields = {name: value for name, value in params.items() if name != "expand"}
        fields["metadata"] = {k: v for k, v in (fields.get("metadata") or {}).items() if v is not None}
        make = _CREATE.get(kind)
        if make is not None:
            fields = make(self, record_id, fields)
        row = complete(kind, fields, record_id, self.now())
        self.shelves[kind].put(row)
        self._tell(kind, row, _born(kind, row))
        if kind == "charges" and row["status"] == "failed":
            raise _declined(record_id)
        return row

    def update(self, kind: str, record_id: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """An object with some fields set; metadata merges. Nothing changed: no event."""
        old = self.get(kind, record_id)
        fields = {name: value for name, value in params.items() if name != "expand"}
        if "metadata" in fields:
            fields["metadata"] = _merged(old["metadata"] or {}, fields["metadata"])
        change = _UPDATE.get(kind)
        if change is not None:
            fields = change(self, old, fields)
        return self.change(kind, old, fields, *_UPDATED.get(kind, (f"{_family(kind)}.updated",)))

    def change(self, kind: str, old: dict[str, Any], fields: Mapping[str, Any], *events: str) -> dict[str, Any]:
        """Set fields of an object and tell of it, if that changes anything."""
        new = {**old, **fields}
        if new == old:
            return old
        self.shelves[kind].put(new)
        for event in events:
            self._tell(kind, new, event, old)
        return new

    def delete(self, kind: str, record_id: str) -> dict[str, Any]:
        """What deleting an object answers. A subscription is cancelled and stays."""
        row = self.get(kind, record_id)
        if kind == "subscriptions":
            return self.cancel(row)
        check = _MAY_DELETE.get(kind)
        if check is not None:
            check(self, row)
        if kind == "customers":
            for subscription in [s for s in self.shelves["subscriptions"] if s["customer"] == record_id]:
                if subscription["status"] not in ENDED:
                    self.cancel(subscription)
        self.shelves[kind].remove(record_id)
        tombstone = {"id": record_id, "object": OBJECT[kind], "deleted": True}
        if kind == "customers":
            self.tombstones[record_id] = tombstone
        self._tell(kind, row, f"{_family(kind)}.deleted")
        return tombstone

    def cancel(self, subscription: dict[str, Any]) -> dict[str, Any]:
        if subscription["status"] in ENDED:
            raise missing("subscription", subscription["id"], "id")
        now = self.now()
        reason = {**(subscription["cancellation_details"] or {}), "reason": "cancellation_requested"}
        ended = {"status": "canceled", "canceled_at": now, "ended_at": now, "cancellation_details": reason}
        return self.change("subscriptions", subscription, ended, "customer.subscription.deleted")

    def subscription_items(self, subscription: str, asked: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """The list of items of a subscription, each with its whole price."""
        data = [
            {
                "id": item.get("id") or self.new_id("si"),
                "object": "subscription_item",
                "billing_thresholds": None,
                "created": self.now(),
                "metadata": {k: v for k, v in (item.get("metadata") or {}).items() if v is not None},
                "price": item["price"]
                if isinstance(item["price"], dict)
                else self.get("prices", item["price"], param="items[price]"),
                "quantity": item.get("quantity", 1),
                "subscription": subscription,
                "tax_rates": [],
            }
            for item in asked
        ]
        url = f"/v1/subscription_items?subscription={subscription}"
        return {"object": "list", "data": data, "has_more": False, "url": url}

    def _tell(self, kind: str, row: Mapping[str, Any], event: str, old: Mapping[str, Any] | None = None) -> None:
        """Enter an event with the object as it now stands."""
        version = self.account_version
        shown = row if version == API_VERSION else older(row)
        data: dict[str, Any] = {"object": orjson.Fragment(orjson.dumps(shown))}
        if old is not None and not event.endswith(".deleted"):
            data["previous_attributes"] = _previous(old, row)
        self.events.put(
            {
                "id": self.new_id("evt"),
                "object": "event",
                "api_version": version,
                "created": self.now(),
                "data": data,
                "livemode": False,
                "pending_webhooks": 0,
                "request": {"id": self.origin.request, "idempotency_key": self.origin.key},
                "type": event,
            }
        )


def _family(kind: str) -> str:
    return "customer.subscription" if kind == "subscriptions" else OBJECT[kind]


def _born(kind: str, row: Mapping[str, Any]) -> str:
    """There is no charge.created: a charge is told of by its status."""
    return f"charge.{row['status']}" if kind == "charges" else f"{_family(kind)}.created"


_UPDATED: Mapping[str, tuple[str, ...]] = {"refunds": ("refund.updated", "charge.refund.updated")}


def _merged(old: Mapping[str, str], asked: Mapping[str, str | None] | None) -> dict[str, str]:
    """Metadata after a change: values merge, None unsets one, None as a whole unsets all."""
    new = {k: v for k, v in {**old, **asked}.items() if v is not None} if asked is not None else {}
    if len(new) > 50:
        raise ApiError("You can only have 50 keys in metadata", param="metadata")
    return new


def _previous(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """What changed, as it was; of metadata only the keys that changed."""
    gone = {name: value for name, value in old.items() if new.get(name) != value}
    if "metadata" in gone:
        was, now = old["metadata"] or {}, new["metadata"] or {}
        gone["metadata"] = {key: was.get(key) for key in {**was, **now} if was.get(key) != now.get(key)}
    return gone


# -- what is particular to a kind --------------------------------------------------------------------------------------


def _make_charge(books: Books, record_id: str, fields: dict[str, Any]) -> dict[str, Any]:
    source = fields.pop("source", None)
    customer = fields.get("customer")
    if customer is not None:
        books.get("customers", customer, param="customer")
    elif source is None:
        raise ApiError("Must provide source or customer.", code="parameter_missing")
    if source != DECLINED_CARD:
        return fields
    failure = {"failure_code": "card_declined", "failure_message": "Your card was declined."}
    return {**fields, **failure, "status": "failed"}


def _declined(charge: str) -> ApiError:
    more = {"charge": charge, "decline_code": "generic_decline"}
    return ApiError(
        "Your card was declined.", status=402, type="card_error", code="card_declined", checked=False, more=more
    )


def _make_refund(books: Books, record_id: str, fields: dict[str, Any]) -> dict[str, Any]:
    charge = books.get("charges", fields["charge"], param="charge")
    left = charge["amount_captured"] - charge["amount_refunded"]
    amount = fields.get("amount") or left
    if left <= 0:
        raise ApiError(
            f"Charge {charge['id']} has already been refunded.", code="charge_already_refunded", checked=False
        )
    if amount > left:
        raise ApiError(
            f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})",
            param="amount",
            checked=False,
        )
    refunded = charge["amount_refunded"] + amount
    whole = {"amount_refunded": refunded, "refunded": refunded == charge["amount"]}
    books.change("charges", charge, whole, "charge.refunded")
    return {**fields, "amount": amount, "currency": charge["currency"]}


def _make_subscription(books: Books, record_id: str, fields: dict[str, Any]) -> dict[str, Any]:
    books.get("customers", fields["customer"], param="customer")
    days = fields.pop("trial_period_days", None)
    now = books.now()
    trial_end = fields.get("trial_end") or (now + days * DAY if days else None)
    made = {**fields, "items": books.subscription_items(record_id, fields["items"])}
    if trial_end is not None:
        made |= {"status": "trialing", "trial_start": now, "trial_end": trial_end, "billing_cycle_anchor": trial_end}
        made |= {"current_period_start": now, "current_period_end": trial_end}
    return made


def _change_subscription(books: Books, old: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    if old["status"] in ENDED and fields.keys() - {"metadata"}:
        raise ApiError("A canceled subscription can only update its metadata.", checked=False)
    fields.pop("proration_behavior", None)
    if "items" in fields:
        fields["items"] = books.subscription_items(old["id"], _new_items(old["items"]["data"], fields["items"]))
    if "cancel_at_period_end" in fields:
        ends = fields["cancel_at_period_end"]
        fields["cancel_at"] = old["current_period_end"] if ends else None
        fields["canceled_at"] = books.now() if ends else None
    return fields


def _new_items(present: Iterable[dict[str, Any]], asked: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Items after a change: those named by id are changed or dropped, the others are added."""
    items = {item["id"]: item for item in present}
    added = []
    for one in asked:
        item_id = one.get("id")
        if item_id is None:
            if one.get("price") is None:
                raise ApiError("Missing required param: items[price].", code="parameter_missing", param="items[price]")
            added.append(dict(one))
        elif item_id not in items:
            raise missing("subscription item", item_id, "items[id]", status=400)
        elif one.get("deleted"):
            del items[item_id]
        else:
            items[item_id] = {**items[item_id], **{k: v for k, v in one.items() if k != "deleted" and v is not None}}
    return [*items.values(), *added]


def _make_invoice(books: Books, record_id: str, fields: dict[str, Any]) -> dict[str, Any]:
    customer = books.get("customers", fields["customer"], param="customer")
    days = fields.pop("days_until_due", None)
    due = fields.get("due_date") or (books.now() + days * DAY if days is not None else None)
    known = {"customer_email": customer["email"], "customer_name": customer["name"], "currency": "usd"}
    return {**known, **fields, "due_date": due}


def _make_price(books: Books, record_id: str, fields: dict[str, Any]) -> dict[str, Any]:
    data = fields.pop("product_data", None)
    if data is not None:
        fields["product"] = books.create("products", {k: v for k, v in data.items() if v is not None})["id"]
    if fields.get("product") is None:
        raise ApiError("Missing required param: product.", code="parameter_missing", param="product")
    books.get("products", fields["product"], param="product")
    text = fields.pop("unit_amount_decimal", None)
    if text is not None:
        fields["unit_amount_decimal"] = text
        fields["unit_amount"] = int(text) if text.isdigit() else None
    if fields.get("unit_amount") is None and text is None:
        raise ApiError("Missing required param: unit_amount.", code="parameter_missing", param="unit_amount")
    recurring = fields.get("recurring")
    if recurring is not None:
        usual: dict[str, Any] = {"aggregate_usage": None, "interval_count": 1, "usage_type": "licensed"}
        fields["recurring"] = usual | recurring
    return fields


def _change_invoice(books: Books, old: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    days = fields.pop("days_until_due", None)
    if days is not None:
        fields["due_date"] = old["created"] + days * DAY
    if old["status"] != "draft" and fields.keys() - {"metadata", "description", "auto_advance", "due_date"}:
        raise ApiError("Finalized invoices can't be updated in this way", checked=False)
    return fields


def _draft_only(books: Books, invoice: dict[str, Any]) -> None:
    if invoice["status"] != "draft":
        raise ApiError("You can only delete draft invoices.", code="invoice_not_editable", checked=False)


def _unused_only(books: Books, product: dict[str, Any]) -> None:
    if any(price["product"] == product["id"] for price in books.shelves["prices"]):
        raise ApiError("This product cannot be deleted because it has one or more user-created prices.", checked=False)


def _not_at_all(books: Books, row: dict[str, Any]) -> None:
    raise ApiError("Unrecognized request URL", status=404)


def invoice_step(books: Books, invoice_id: str, step: str) -> dict[str, Any]:
    """Finalize, pay or void an invoice."""
    old, now = books.get("invoices", invoice_id), books.now()
    at = dict(old["status_transitions"])
    fields: dict[str, Any]
    if step == "finalize" and old["status"] == "draft":
        number = f"{books.new_id('n')[2:10].upper()}-0001"
        fields = {"status": "open", "number": number, "status_transitions": {**at, "finalized_at": now}}
        return books.change("invoices", old, fields, "invoice.updated", "invoice.finalized")
    if step == "pay" and old["status"] == "open":
        paid = {"status": "paid", "paid": True, "attempted": True, "amount_paid": old["amount_due"]}
        fields = {**paid, "amount_remaining": 0, "status_transitions": {**at, "paid_at": now}}
        told = ("invoice.updated", "invoice.paid", "invoice.payment_succeeded")
        return books.change("invoices", old, fields, *told)
    if step == "void" and old["status"] == "open":
        fields = {"status": "void", "status_transitions": {**at, "voided_at": now}}
        return books.change("invoices", old, fields, "invoice.updated", "invoice.voided")
    raise ApiError(f"This invoice is {old['status']}: it cannot be asked to {step}.", checked=False)


_CREATE: Mapping[str, Callable[[Books, str, dict[str, Any]], dict[str, Any]]] = {
    "charges": _make_charge,
    "refunds": _make_refund,
    "subscriptions": _make_subscription,
    "invoices": _make_invoice,
    "prices": _make_price,
}
_UPDATE: Mapping[str, Callable[[Books, dict[str, Any], dict[str, Any]], dict[str, Any]]] = {
    "subscriptions": _change_subscription,
    "invoices": _change_invoice,
    "products": lambda books, old, fields: {**fields, "updated": books.now()},
}
_MAY_DELETE: Mapping[str, Callable[[Books, dict[str, Any]], None]] = {
    "invoices": _draft_only,
    "products": _unused_only,
    "charges": _not_at_all,
    "refunds": _not_at_all,
    "prices": _not_at_all,
}
