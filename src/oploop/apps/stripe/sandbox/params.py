"""What a call takes: form pairs into typed values; a parameter that Stripe does not know is refused, as Stripe does.

A reader takes (text or nested dict, parameter's name) and returns the value, or raises ApiError. "" unsets a value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Reads = Callable[[Any, str], Any]

MAX_TEXT = 5000
_KEY = re.compile(r"^([^\[\]]+)((?:\[[^\[\]]*\])*)$")


class ApiError(Exception):
    """An answer that is an error, in Stripe's shape. `checked`: it was found before anything began, so it is not saved."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        type: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        checked: bool = True,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.checked = checked
        named = {"code": code, "message": message, "param": param, "type": type, **(more or {})}
        if code is not None:
            named["doc_url"] = f"https://stripe.com/docs/error-codes/{code.replace('_', '-')}"
        self.body = {"error": {name: value for name, value in named.items() if value is not None}}


def missing(kind: str, record_id: str, param: str, *, status: int = 404) -> ApiError:
    """There is no such object: 404 where it is the address, 400 where a parameter names it."""
    return ApiError(
        f"No such {kind}: '{record_id}'", status=status, code="resource_missing", param=param, checked=False
    )


def nest(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Form pairs as nested dicts: a[b]=1, a[c]=2, t[]=x, t[]=y -> {"a": {"b": "1", "c": "2"}, "t": {"0": "x", "1": "y"}}."""
    tree: dict[str, Any] = {}
    for name, value in pairs:
        match = _KEY.match(name)
        if match is None:
            raise unknown(name)
        path = [match[1], *re.findall(r"\[([^\[\]]*)\]", match[2])]
        node = tree
        for step in path[:-1]:
            inner = node.setdefault(step or str(len(node)), {})
            if not isinstance(inner, dict):
                raise ApiError(f"Invalid {path[0]}", param=path[0])
            node = inner
        node[path[-1] or str(len(node))] = value
    return tree


def unknown(name: str) -> ApiError:
    return ApiError(f"Received unknown parameter: {name}", code="parameter_unknown", param=name)


def read(tree: Mapping[str, Any], takes: Mapping[str, Reads], required: Iterable[str] = ()) -> dict[str, Any]:
    """The parameters of a call, typed; all that `takes` does not name is refused."""
    for name in tree:
        if name not in takes:
            raise unknown(name)
    for name in required:
        if tree.get(name) in (None, ""):
            raise ApiError(f"Missing required param: {name}.", code="parameter_missing", param=name)
    return {name: takes[name](value, name) for name, value in tree.items()}


def text(limit: int = MAX_TEXT) -> Reads:
    """Text of so many characters at the most; "" is None."""

    def reads(value: Any, name: str) -> str | None:
        if not isinstance(value, str):
            raise ApiError(f"Invalid string: {value}", param=name)
        if len(value) > limit:
            raise ApiError(
                f"Invalid string: {value[:12]}…; must be at most {limit} characters", code="string_too_long", param=name
            )
        return value or None

    return reads


def email(value: Any, name: str) -> str | None:
    """An address, as far as Stripe looks: something, an @, something with a point."""
    found: str | None = text(512)(value, name)
    if found is not None and not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", found):
        raise ApiError(f"Invalid email address: {found}", code="email_invalid", param=name)
    return found


def integer(low: int | None = None, high: int | None = None, *, code: str = "parameter_invalid_integer") -> Reads:
    def reads(value: Any, name: str) -> int | None:
        if value == "":
            return None
        if not isinstance(value, str) or not re.fullmatch(r"-?\d+", value):
            raise ApiError(f"Invalid integer: {value}", code="parameter_invalid_integer", param=name)
        number = int(value)
        if (low is not None and number < low) or (high is not None and number > high):
            raise ApiError(f"This value must be between {low} and {high} (got {number}).", code=code, param=name)
        return number

    return reads


def boolean(value: Any, name: str) -> bool:
    if value not in ("true", "false"):
        raise ApiError(f"Invalid boolean: {value}", param=name)
    return bool(value == "true")


def decimal(value: Any, name: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"\d+(\.\d{1,12})?", value):
        raise ApiError(f"Invalid decimal: {value}", param=name)
    return value


def currency(value: Any, name: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z]{3}", value):
        raise ApiError(f"Invalid currency: {value}.", code="parameter_invalid_string", param=name)
    return value.lower()


def one_of(*choices: str) -> Reads:
    def reads(value: Any, name: str) -> str | None:
        if value == "" and "" in choices:
            return None
        if value not in choices:
            raise ApiError(f"Invalid {name}: must be one of {', '.join(choices)}", param=name)
        return str(value)

    return reads


def texts(limit: int = MAX_TEXT, *, most: int = 1000) -> Reads:
    """A list of texts."""

    def reads(value: Any, name: str) -> list[str]:
        if value == "":
            return []
        found = [text(limit)(one, name) or "" for one in _items(value, name)]
        if len(found) > most:
            raise ApiError(f"Array {name} exceeded maximum {most} allowed elements.", param=name)
        return found

    return reads


def shape(takes: Mapping[str, Reads], required: Iterable[str] = ()) -> Reads:
    """A nested object; "" unsets it as a whole. Unset parts are None."""

    def reads(value: Any, name: str) -> dict[str, Any] | None:
        if value == "":
            return None
        if not isinstance(value, dict):
            raise ApiError(f"Invalid object: {name}", param=name)
        try:
            return read(value, takes, required)
        except ApiError as e:
            inner = e.body["error"].get("param")
            raise ApiError(
                str(e), status=e.status, code=e.body["error"].get("code"), param=f"{name}[{inner}]"
            ) from None

    return reads


def items(takes: Mapping[str, Reads], required: Iterable[str] = ()) -> Reads:
    """A list of nested objects."""
    one = shape(takes, required)

    def reads(value: Any, name: str) -> list[Any]:
        return [one(item, f"{name}[{n}]") for n, item in enumerate(_items(value, name))]

    return reads


def _items(value: Any, name: str) -> list[Any]:
    if not isinstance(value, dict) or not all(key.isdigit() for key in value):
        raise ApiError(f"Invalid array: {name}", param=name)
    return [value[key] for key in sorted(value, key=int)]


def metadata(value: Any, name: str) -> dict[str, str | None] | None:
    """What to set; None values unset their keys, None as a whole unsets all (docs.stripe.com/api/metadata)."""
    if value == "":
        return None
    if not isinstance(value, dict):
        raise ApiError("Invalid hash", param=name)
    for key, one in value.items():
        param = f"{name}[{key}]"
        if not isinstance(one, str):
            raise ApiError("Metadata values must be strings", param=param)
        if len(key) > 40:
            raise ApiError(
                f"Metadata keys can have up to 40 characters, but you passed in a key that is {len(key)} characters. "
                f"Invalid key: {key}",
                param=param,
            )
        if len(one) > 500:
            raise ApiError(
                "Metadata values can have up to 500 characters, but you passed in a value that is "
                f"{len(one)} characters. Invalid value: {one[:50]}…",
                param=param,
            )
    return {key: one or None for key, one in value.items()}


def created(value: Any, name: str) -> dict[str, int]:
    """A time, or bounds for one: {"gte": s, "lt": s}; seconds since 1970."""
    whole = integer()
    if isinstance(value, str):
        second = whole(value, name)
        return {"gte": second, "lte": second}
    found: dict[str, int] = shape(dict.fromkeys(("gt", "gte", "lt", "lte"), whole))(value, name)
    return found


_TEXT, _INT = text(), integer()
EXPAND: Mapping[str, Reads] = {"expand": texts()}
ADDRESS = shape(dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"), _TEXT))
SHIPPING = shape({"address": ADDRESS, "name": _TEXT, "phone": _TEXT}, ["address", "name"])
COLLECTION = one_of("charge_automatically", "send_invoice")
COMMON: Mapping[str, Reads] = {**EXPAND, "metadata": metadata}

_CUSTOMER: Mapping[str, Reads] = {
    **COMMON,
    "address": ADDRESS,
    "balance": _INT,
    "description": _TEXT,
    "email": email,
    "invoice_prefix": text(12),
    "name": text(256),
    "next_invoice_sequence": integer(1),
    "phone": text(20),
    "preferred_locales": texts(),
    "shipping": SHIPPING,
    "tax_exempt": one_of("", "exempt", "none", "reverse"),
}
_CHARGE: Mapping[str, Reads] = {
    **COMMON,
    "customer": text(500),
    "description": text(40000),
    "receipt_email": email,
    "shipping": SHIPPING,
    "transfer_group": _TEXT,
}
_PERIODS = one_of("day", "month", "week", "year")
_RECURRING = shape(
    {"interval": _PERIODS, "interval_count": integer(1), "usage_type": one_of("licensed", "metered")}, ["interval"]
)
_PRODUCT: Mapping[str, Reads] = {
    **COMMON,
    "active": boolean,
    "description": text(40000),
    "images": texts(),
    "name": _TEXT,
    "shippable": boolean,
    "statement_descriptor": text(22),
    "unit_label": text(12),
    "url": _TEXT,
}
_PRICE: Mapping[str, Reads] = {
    **COMMON,
    "active": boolean,
    "lookup_key": text(200),
    "nickname": _TEXT,
    "tax_behavior": one_of("exclusive", "inclusive", "unspecified"),
}
_SUBSCRIPTION: Mapping[str, Reads] = {
    **COMMON,
    "cancel_at": _INT,
    "cancel_at_period_end": boolean,
    "collection_method": COLLECTION,
    "days_until_due": integer(0),
    "description": text(500),
    "trial_end": _INT,
}
_INVOICE: Mapping[str, Reads] = {
    **COMMON,
    "auto_advance": boolean,
    "collection_method": COLLECTION,
    "days_until_due": integer(0),
    "description": text(1500),
    "due_date": _INT,
    "footer": _TEXT,
    "statement_descriptor": text(22),
}
_AMOUNT = integer(1, 99_999_999, code="amount_too_large")

#: What creating takes, and what of it must be there.
CREATE: Mapping[str, tuple[Mapping[str, Reads], tuple[str, ...]]] = {
    "customers": (_CUSTOMER, ()),
    "charges": (
        {
            **_CHARGE,
            "amount": _AMOUNT,
            "currency": currency,
            "source": _TEXT,
            "statement_descriptor": text(22),
            "statement_descriptor_suffix": text(22),
        },
        ("amount", "currency"),
    ),
    "refunds": (
        {
            **COMMON,
            "amount": _AMOUNT,
            "charge": _TEXT,
            "reason": one_of("duplicate", "fraudulent", "requested_by_customer"),
        },
        ("charge",),
    ),
    "subscriptions": (
        {
            **_SUBSCRIPTION,
            "customer": _TEXT,
            "trial_period_days": integer(0),
            "items": items({"price": _TEXT, "quantity": integer(0), "metadata": metadata}, ["price"]),
        },
        ("customer", "items"),
    ),
    "invoices": ({**_INVOICE, "customer": _TEXT, "subscription": _TEXT, "currency": currency}, ("customer",)),
    "products": ({**_PRODUCT, "id": _TEXT}, ("name",)),
    "prices": (
        {
            **_PRICE,
            "billing_scheme": one_of("per_unit"),
            "currency": currency,
            "product": _TEXT,
            "product_data": shape({"name": _TEXT, "metadata": metadata, "active": boolean, "id": _TEXT}, ["name"]),
            "recurring": _RECURRING,
            "unit_amount": integer(0),
            "unit_amount_decimal": decimal,
        },
        ("currency",),
    ),
}

#: What changing takes.
UPDATE: Mapping[str, Mapping[str, Reads]] = {
    "customers": _CUSTOMER,
    "charges": _CHARGE,
    "refunds": COMMON,
    "subscriptions": {
        **_SUBSCRIPTION,
        "items": items(
            {
                "id": _TEXT,
                "price": _TEXT,
                "quantity": integer(0),
                "deleted": boolean,
                "metadata": metadata,
            }
        ),
        "proration_behavior": one_of("always_invoice", "create_prorations", "none"),
    },
    "invoices": _INVOICE,
    "products": _PRODUCT,
    "prices": _PRICE,
}

#: What deleting takes (a subscription is cancelled).
DELETE: Mapping[str, Mapping[str, Reads]] = {
    "subscriptions": {**EXPAND, "invoice_now": boolean, "prorate": boolean},
}

_PAGE: Mapping[str, Reads] = {
    **EXPAND,
    "created": created,
    "ending_before": _TEXT,
    "limit": integer(1, 100),
    "starting_after": _TEXT,
}

#: What a list takes besides `_PAGE`: filters by equality with a field of that name.
EQUAL: Mapping[str, Mapping[str, Reads]] = {
    "customers": {"email": _TEXT},
    "charges": {"customer": _TEXT, "payment_intent": _TEXT, "transfer_group": _TEXT},
    "refunds": {"charge": _TEXT, "payment_intent": _TEXT},
    "subscriptions": {"customer": _TEXT, "collection_method": COLLECTION},
    "invoices": {
        "customer": _TEXT,
        "subscription": _TEXT,
        "collection_method": COLLECTION,
        "status": one_of("draft", "open", "paid", "uncollectible", "void"),
    },
    "products": {"active": boolean, "shippable": boolean, "url": _TEXT},
    "prices": {"active": boolean, "currency": currency, "product": _TEXT, "type": one_of("one_time", "recurring")},
    "events": {},
}
_SUBSCRIPTION_STATUS = one_of(
    "active", "all", "canceled", "ended", "incomplete", "incomplete_expired", "past_due", "paused", "trialing", "unpaid"
)
_OTHER: Mapping[str, Mapping[str, Reads]] = {
    "subscriptions": {"status": _SUBSCRIPTION_STATUS, "price": _TEXT},
    "products": {"ids": texts()},
    "prices": {"lookup_keys": texts(most=10)},
    "events": {"type": _TEXT, "types": texts(most=20)},
}
LIST: Mapping[str, Mapping[str, Reads]] = {
    kind: {**_PAGE, **equal, **_OTHER.get(kind, {})} for kind, equal in EQUAL.items()
}
