"""What each object looks like, whole: a minimal record is completed so that it satisfies the API's own schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from oploop.apps.stripe.streams import STREAMS

KINDS = ("customers", "charges", "refunds", "subscriptions", "invoices", "products", "prices")
#: The API's name of one record, and the beginning of its id.
OBJECT: Mapping[str, str] = {kind: kind.removesuffix("s") for kind in (*KINDS, "events")}
PREFIX: Mapping[str, str] = {
    "customers": "cus",
    "charges": "ch",
    "refunds": "re",
    "subscriptions": "sub",
    "invoices": "in",
    "products": "prod",
    "prices": "price",
    "events": "evt",
}
DAY = 86_400
PERIOD: Mapping[str, int] = {"day": DAY, "week": 7 * DAY, "month": 30 * DAY, "year": 365 * DAY}

_NO_ADDRESS = dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"))
_CARD = {
    "brand": "visa",
    "checks": {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass"},
    "country": "US",
    "exp_month": 8,
    "exp_year": 2030,
    "fingerprint": "AOB934RVNwzk6xtn",
    "funding": "credit",
    "installments": None,
    "last4": "4242",
    "mandate": None,
    "network": "visa",
    "three_d_secure": None,
    "wallet": None,
}


def _nulls(names: str) -> dict[str, Any]:
    return dict.fromkeys(names.split())


#: Every field with its value where a record says nothing else. Nested values are shared and never changed in place.
TEMPLATES: Mapping[str, dict[str, Any]] = {
    "customers": {
        **_nulls("address currency default_source description discount email name phone shipping test_clock"),
        "balance": 0,
        "delinquent": False,
        "invoice_prefix": "0F10A5C1",
        "invoice_settings": _nulls("custom_fields default_payment_method footer rendering_options"),
        "livemode": False,
        "metadata": {},
        "next_invoice_sequence": 1,
        "preferred_locales": [],
        "tax_exempt": "none",
    },
    "charges": {
        **_nulls("application application_fee application_fee_amount balance_transaction customer description"),
        **_nulls("failure_balance_transaction failure_code failure_message invoice on_behalf_of payment_intent"),
        **_nulls("receipt_email receipt_number review shipping source_transfer statement_descriptor"),
        **_nulls("statement_descriptor_suffix transfer_data transfer_group"),
        "amount_refunded": 0,
        "billing_details": {"address": _NO_ADDRESS, **_nulls("email name phone")},
        "calculated_statement_descriptor": "OPLOOP SANDBOX",
        "captured": True,
        "disputed": False,
        "fraud_details": {},
        "livemode": False,
        "metadata": {},
        "outcome": {
            "network_status": "approved_by_network",
            "reason": None,
            "risk_level": "normal",
            "risk_score": 32,
            "seller_message": "Payment complete.",
            "type": "authorized",
        },
        "paid": True,
        "payment_method": "card_1PgaftB7WZ01zgkWm3waTcFp",
        "payment_method_details": {"card": _CARD, "type": "card"},
        "receipt_url": None,
        "refunded": False,
        "status": "succeeded",
    },
    "refunds": {
        **_nulls("balance_transaction charge payment_intent reason receipt_number source_transfer_reversal"),
        **_nulls("transfer_reversal"),
        "metadata": {},
        "status": "succeeded",
    },
    "subscriptions": {
        **_nulls("application application_fee_percent billing_thresholds cancel_at canceled_at days_until_due"),
        **_nulls("default_payment_method default_source description discount ended_at latest_invoice"),
        **_nulls("next_pending_invoice_item_invoice on_behalf_of pause_collection pending_invoice_item_interval"),
        **_nulls("pending_setup_intent pending_update schedule test_clock transfer_data trial_end trial_start"),
        "automatic_tax": {"enabled": False},
        "cancel_at_period_end": False,
        "cancellation_details": _nulls("comment feedback reason"),
        "collection_method": "charge_automatically",
        "default_tax_rates": [],
        "livemode": False,
        "metadata": {},
        "payment_settings": {
            **_nulls("payment_method_options payment_method_types"),
            "save_default_payment_method": "off",
        },
        "status": "active",
        "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
    },
    "invoices": {
        **_nulls("account_tax_ids application application_fee_amount charge custom_fields customer customer_address"),
        **_nulls("customer_email customer_name customer_phone customer_shipping default_payment_method default_source"),
        **_nulls("description discount due_date ending_balance footer from_invoice hosted_invoice_url invoice_pdf"),
        **_nulls("last_finalization_error latest_revision next_payment_attempt number on_behalf_of payment_intent"),
        **_nulls("quote receipt_number rendering_options shipping_cost shipping_details statement_descriptor"),
        **_nulls("subscription subtotal_excluding_tax tax test_clock webhooks_delivered_at"),
        "account_country": "US",
        "account_name": "oploop sandbox",
        "amount_shipping": 0,
        "attempt_count": 0,
        "attempted": False,
        "auto_advance": False,
        "automatic_tax": {"enabled": False, "status": None},
        "billing_reason": "manual",
        "collection_method": "charge_automatically",
        "customer_tax_exempt": "none",
        "customer_tax_ids": [],
        "default_tax_rates": [],
        "discounts": [],
        "livemode": False,
        "metadata": {},
        "paid_out_of_band": False,
        "payment_settings": _nulls("default_mandate payment_method_options payment_method_types"),
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "starting_balance": 0,
        "status": "draft",
        "status_transitions": _nulls("finalized_at marked_uncollectible_at paid_at voided_at"),
        "total_discount_amounts": [],
        "total_tax_amounts": [],
    },
    "products": {
        **_nulls("default_price description package_dimensions shippable statement_descriptor tax_code unit_label url"),
        "active": True,
        "images": [],
        "livemode": False,
        "metadata": {},
    },
    "prices": {
        **_nulls("custom_unit_amount lookup_key nickname recurring tiers_mode transform_quantity unit_amount"),
        "active": True,
        "billing_scheme": "per_unit",
        "livemode": False,
        "metadata": {},
        "tax_behavior": "unspecified",
    },
}

#: What a record must say itself.
NEEDS: Mapping[str, frozenset[str]] = {
    "customers": frozenset(),
    "charges": frozenset(("amount", "currency")),
    "refunds": frozenset(("amount", "currency")),
    "subscriptions": frozenset(("customer", "items")),
    "invoices": frozenset(("currency",)),
    "products": frozenset(("name",)),
    "prices": frozenset(("currency", "product")),
}
_KNOWN = {kind: STREAMS[kind].columns.keys() | {"id", "object"} for kind in KINDS}


def complete(kind: str, record: Mapping[str, Any], record_id: str, now: int) -> dict[str, Any]:
    """A record with all its fields. Raises ValueError for a field that Stripe's object does not have, or that is missing."""
    strange = record.keys() - _KNOWN[kind]
    if strange:
        raise ValueError(f"Stripe's {OBJECT[kind]} has no field {sorted(strange)[0]!r}")
    lacking = NEEDS[kind] - record.keys()
    if lacking:
        raise ValueError(f"Stripe's {OBJECT[kind]} needs {sorted(lacking)[0]!r}")
    whole = {"id": record_id, "object": OBJECT[kind], "created": now, **TEMPLATES[kind], **record}
    derive = _DERIVE.get(kind)
    if derive is not None:
        whole |= {name: value for name, value in derive(whole).items() if name not in record}
    return whole


def _charge(c: dict[str, Any]) -> dict[str, Any]:
    paid = c["status"] == "succeeded"
    return {
        "amount_captured": c["amount"] if paid and c["captured"] else 0,
        "paid": paid,
        "refunded": 0 < c["amount"] <= c["amount_refunded"],
    }


def _product(p: dict[str, Any]) -> dict[str, Any]:
    return {"updated": p["created"]}


def _price(p: dict[str, Any]) -> dict[str, Any]:
    amount = p["unit_amount"]
    return {
        "type": "one_time" if p["recurring"] is None else "recurring",
        "unit_amount_decimal": None if amount is None else str(amount),
    }


def _invoice(i: dict[str, Any]) -> dict[str, Any]:
    total = i.get("total", i.get("amount_due", 0))
    paid = i["status"] == "paid"
    lines = {"data": [], "has_more": False, "object": "list", "url": f"/v1/invoices/{i['id']}/lines"}
    return {
        "amount_due": total,
        "amount_paid": total if paid else 0,
        "amount_remaining": 0 if paid else total,
        "lines": lines,
        "paid": paid,
        "period_end": i["created"],
        "period_start": i["created"],
        "subtotal": total,
        "total": total,
        "total_excluding_tax": total,
    }


def _subscription(s: dict[str, Any]) -> dict[str, Any]:
    """Periods count from the anchor in the first price's interval (a month has 30 days here); the present one is the
    one in which the subscription was last touched."""
    items = s["items"]["data"]
    price = items[0]["price"] if items else None
    recurring = (price or {}).get("recurring") or {"interval": "month", "interval_count": 1}
    length = PERIOD[recurring["interval"]] * recurring["interval_count"]
    anchor = s.get("billing_cycle_anchor", s.get("start_date", s["created"]))
    return {
        "billing_cycle_anchor": anchor,
        "currency": price["currency"] if price else "usd",
        "current_period_end": s.get("current_period_start", anchor) + length,
        "current_period_start": anchor,
        "start_date": s["created"],
    }


_DERIVE: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "charges": _charge,
    "products": _product,
    "prices": _price,
    "invoices": _invoice,
    "subscriptions": _subscription,
}

#: Fields that objects did not have yet in older versions of the API.
_LATER = frozenset(
    ("amount_captured", "automatic_tax", "images", "lines", "payment_settings", "tax_behavior", "tax_exempt")
)


def older(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as an older version of the API renders it: some fields are not there yet, one is that has since gone."""
    return {**{k: v for k, v in record.items() if k not in _LATER}, "account_balance": 0}


ACCOUNT: Mapping[str, Any] = {
    "id": "acct_1OploopSandbox00",
    "object": "account",
    "business_profile": {"name": "oploop sandbox", "url": None},
    "business_type": "company",
    "capabilities": {"card_payments": "active", "transfers": "active"},
    "charges_enabled": True,
    "country": "US",
    "created": 1_234_567_890,
    "default_currency": "usd",
    "details_submitted": True,
    "email": "sandbox@oploop.example",
    "metadata": {},
    "payouts_enabled": True,
    "type": "standard",
}
BALANCE: Mapping[str, Any] = {
    "object": "balance",
    "available": [{"amount": 0, "currency": "usd", "source_types": {"card": 0}}],
    "livemode": False,
    "pending": [{"amount": 0, "currency": "usd", "source_types": {"card": 0}}],
}
