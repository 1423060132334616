"""What can be read from Stripe, as data: columns, and how later reads learn of changes.

Columns and their types are the top-level fields of the API's own schema (github.com/stripe/openapi) as of the pinned
version; ids that the API can expand are text, as they are never expanded here; money is in minor units (cents).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from oploop.records import ColumnType, Stream

#: The API version that every request is pinned to, and whose fields the columns are.
API_VERSION = "2022-11-15"

#: Seconds after a change until its event is listed for sure. Stripe promises no number; a read looks back further.
EVENT_LAG = 10.0


@dataclass(frozen=True, slots=True)
class Resource:
    """How one stream is read: its list, and the events that tell of changes (docs.stripe.com/api/events/types).

    `events` carry the record itself; `deletes` are those of them after which it is gone; `touches` carry another
    object, whose named field holds the id of the record that changed. At most 20 types in all: the API takes no more.
    """

    stream: Stream
    object: str  #: the API's name of one record
    required: frozenset[str]  #: fields without which a record is not of the pinned version
    events: frozenset[str]
    deletes: frozenset[str] = frozenset()
    touches: Mapping[str, str] = field(default_factory=dict)
    filters: Mapping[str, str] = field(default_factory=dict)  #: query parameters without which the list is not whole

    @property
    def path(self) -> str:
        """Where its records are listed; one stands at `{path}/{id}`."""
        return f"/v1/{self.stream.name}"

    @property
    def types(self) -> list[str]:
        """All event types that are asked for, sorted."""
        return sorted(self.events | self.touches.keys())


def _columns(
    *, text: str, integer: str = "", number: str = "", boolean: str = "", unix: str = "", json: str = ""
) -> dict[str, ColumnType]:
    """Columns by name, `id` first, from blank-separated names by type."""
    typed = {
        ColumnType.TEXT: text,
        ColumnType.INTEGER: integer,
        ColumnType.NUMBER: number,
        ColumnType.BOOLEAN: boolean,
        ColumnType.UNIX: unix,
        ColumnType.JSON: json,
    }
    named = {name: kind for kind, names in typed.items() for name in names.split()}
    return {name: named[name] for name in ["id", *sorted(named.keys() - {"id"})]}


COLUMNS: Mapping[str, Mapping[str, ColumnType]] = {
    "customers": _columns(
        text="currency default_source description email id invoice_prefix name object phone tax_exempt test_clock",
        integer="balance next_invoice_sequence",
        boolean="delinquent livemode",
        unix="created",
        json=(
            "address cash_balance discount invoice_credit_balance invoice_settings metadata preferred_locales "
            "shipping sources subscriptions tax tax_ids"
        ),
    ),
    "charges": _columns(
        text=(
            "application application_fee balance_transaction calculated_statement_descriptor currency customer "
            "description failure_balance_transaction failure_code failure_message id invoice object on_behalf_of "
            "payment_intent payment_method receipt_email receipt_number receipt_url review source_transfer "
            "statement_descriptor statement_descriptor_suffix status transfer transfer_group"
        ),
        integer="amount amount_captured amount_refunded application_fee_amount",
        boolean="captured disputed livemode paid refunded",
        unix="created",
        json=(
            "billing_details fraud_details metadata outcome payment_method_details radar_options refunds shipping "
            "transfer_data"
        ),
    ),
    "refunds": _columns(
        text=(
            "balance_transaction charge currency description failure_balance_transaction failure_reason id "
            "instructions_email object payment_intent reason receipt_number source_transfer_reversal status "
            "transfer_reversal"
        ),
        integer="amount",
        unix="created",
        json="metadata next_action",
    ),
    "subscriptions": _columns(
        text=(
            "application collection_method currency customer default_payment_method default_source description id "
            "latest_invoice object on_behalf_of pending_setup_intent schedule status test_clock"
        ),
        integer="days_until_due",
        number="application_fee_percent",
        boolean="cancel_at_period_end livemode",
        unix=(
            "billing_cycle_anchor cancel_at canceled_at created current_period_end current_period_start ended_at "
            "next_pending_invoice_item_invoice start_date trial_end trial_start"
        ),
        json=(
            "automatic_tax billing_thresholds cancellation_details default_tax_rates discount items metadata "
            "pause_collection payment_settings pending_invoice_item_interval pending_update transfer_data "
            "trial_settings"
        ),
    ),
    "invoices": _columns(
        text=(
            "account_country account_name application billing_reason charge collection_method currency customer "
            "customer_email customer_name customer_phone customer_tax_exempt default_payment_method "
            "default_source description footer hosted_invoice_url id invoice_pdf latest_revision number object "
            "on_behalf_of payment_intent quote receipt_number statement_descriptor status subscription test_clock"
        ),
        integer=(
            "amount_due amount_paid amount_remaining amount_shipping application_fee_amount attempt_count "
            "ending_balance post_payment_credit_notes_amount pre_payment_credit_notes_amount starting_balance "
            "subscription_proration_date subtotal subtotal_excluding_tax tax total total_excluding_tax"
        ),
        boolean="attempted auto_advance livemode paid paid_out_of_band",
        unix="created due_date next_payment_attempt period_end period_start webhooks_delivered_at",
        json=(
            "account_tax_ids automatic_tax custom_fields customer_address customer_shipping customer_tax_ids "
            "default_tax_rates discount discounts from_invoice last_finalization_error lines metadata "
            "payment_settings rendering_options shipping_cost shipping_details status_transitions "
            "threshold_reason total_discount_amounts total_tax_amounts transfer_data"
        ),
    ),
    "products": _columns(
        text="default_price description id name object statement_descriptor tax_code unit_label url",
        boolean="active livemode shippable",
        unix="created updated",
        json="images metadata package_dimensions",
    ),
    "prices": _columns(
        text=(
            "billing_scheme currency id lookup_key nickname object product tax_behavior tiers_mode type "
            "unit_amount_decimal"
        ),
        integer="unit_amount",
        boolean="active livemode",
        unix="created",
        json="currency_options custom_unit_amount metadata recurring tiers transform_quantity",
    ),
}

#: What the API's schema says that each record has.
REQUIRED: Mapping[str, str] = {
    "customers": "created id livemode object",
    "charges": (
        "amount amount_captured amount_refunded billing_details captured created currency disputed id "
        "livemode metadata object paid refunded status"
    ),
    "refunds": "amount created currency id object",
    "subscriptions": (
        "automatic_tax billing_cycle_anchor cancel_at_period_end collection_method created currency "
        "current_period_end current_period_start customer id items livemode metadata object start_date status"
    ),
    "invoices": (
        "amount_due amount_paid amount_remaining amount_shipping attempt_count attempted automatic_tax "
        "collection_method created currency default_tax_rates lines livemode object paid paid_out_of_band "
        "payment_settings period_end period_start post_payment_credit_notes_amount "
        "pre_payment_credit_notes_amount starting_balance status_transitions subtotal total total_tax_amounts"
    ),
    "products": "active created id images livemode metadata name object updated",
    "prices": "active billing_scheme created currency id livemode metadata object product type",
}


def _events(prefix: str, names: str) -> frozenset[str]:
    return frozenset(f"{prefix}.{name}" for name in names.split())


def _resource(
    name: str,
    description: str,
    events: frozenset[str],
    *,
    deletes: frozenset[str] = frozenset(),
    touches: Mapping[str, str] | None = None,
    filters: Mapping[str, str] | None = None,
) -> Resource:
    stream = Stream(name, ("id",), COLUMNS[name], lag=EVENT_LAG, description=description)
    required = frozenset(REQUIRED[name].split())
    return Resource(stream, name.removesuffix("s"), required, events, deletes, touches or {}, filters or {})


_DISCOUNTS = ("customer.discount.created", "customer.discount.updated", "customer.discount.deleted")
_DISPUTES = _events("charge.dispute", "created updated closed funds_reinstated funds_withdrawn")

RESOURCES: Mapping[str, Resource] = {
    resource.stream.name: resource
    for resource in (
        _resource(
            "customers",
            "people and companies that pay",
            _events("customer", "created updated deleted"),
            deletes=frozenset({"customer.deleted"}),
            touches=dict.fromkeys(_DISCOUNTS, "customer"),
        ),
        _resource(
            "charges",
            "attempts to take money; `amount` in minor units, `amount_refunded` grows with refunds",
            # there is no charge.created: a charge begins as pending, succeeded or failed
            _events("charge", "captured expired failed pending refunded succeeded updated"),
            touches=dict.fromkeys(_DISPUTES, "charge"),
        ),
        _resource(
            "refunds",
            "money given back",
            _events("refund", "created updated failed") | {"charge.refund.updated"},
        ),
        _resource(
            "subscriptions",
            "recurring agreements, ended ones too",
            # customer.subscription.deleted only says that it ended: the record stays, with status canceled
            _events(
                "customer.subscription",
                "created updated deleted paused resumed trial_will_end pending_update_applied pending_update_expired",
            ),
            touches=dict.fromkeys(_DISCOUNTS, "subscription"),
            filters={"status": "all"},
        ),
        _resource(
            "invoices",
            "what was billed, drafts too",
            _events(
                "invoice",
                "created updated deleted finalized finalization_failed marked_uncollectible paid "
                "payment_action_required payment_failed payment_succeeded sent voided overdue overpaid will_be_due",
            ),
            deletes=frozenset({"invoice.deleted"}),
        ),
        _resource(
            "products",
            "what is sold",
            _events("product", "created updated deleted"),
            deletes=frozenset({"product.deleted"}),
        ),
        _resource(
            "prices",
            "what products cost; `unit_amount` in minor units",
            _events("price", "created updated deleted"),
            deletes=frozenset({"price.deleted"}),
        ),
    )
}

STREAMS: Mapping[str, Stream] = {name: resource.stream for name, resource in RESOURCES.items()}
