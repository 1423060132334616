"""A stand-in for Stripe's API: a real server on loopback that answers as docs.stripe.com/api says.

shapes.py   what each object looks like, whole
params.py   what each call takes; anything else is refused
store.py    objects in order, and the events that tell of their changes
books.py    what creating, changing and deleting does
server.py   HTTP: keys, idempotency, lists, errors
"""

from oploop.apps.stripe.sandbox.server import StripeSandbox

__all__ = ["StripeSandbox"]
