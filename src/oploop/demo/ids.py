"""Ids that look as the vendors' do, the same for the same seed."""

from __future__ import annotations

import random
from datetime import UTC, datetime

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

DAY = 86_400


def stripe_id(chance: random.Random, prefix: str, length: int = 14) -> str:
    """Like cus_NffrFeUfNV2Hib."""
    return f"{prefix}_{''.join(chance.choices(_LETTERS, k=length))}"


def iso(seconds: float) -> str:
    """Seconds since 1970 as Zendesk writes a time: whole seconds, UTC."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
