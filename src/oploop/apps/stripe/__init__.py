"""Stripe: customers, charges, refunds, subscriptions, invoices, products, prices in; customers out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oploop.apps.stripe.app import StripeApp, StripeConfig

if TYPE_CHECKING:
    from oploop.apps.stripe.sandbox import StripeSandbox

__all__ = ["StripeApp", "StripeConfig", "StripeSandbox"]


def __getattr__(name: str) -> Any:
    """The sandbox brings a web server with it; it is loaded only when asked for."""
    if name == "StripeSandbox":
        from oploop.apps.stripe.sandbox import StripeSandbox

        return StripeSandbox
    raise AttributeError(name)
