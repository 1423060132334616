"""The modelled data on its way back: validate and diff (one statement), plan, deliver, ledger.

bind     a sync's words -> BoundSync: typed SQL expressions over the model and the raw table
diff     BoundSync -> plan table: each row that is not the same, with what is to be done and why
plan     plan table -> Plan: counts, guardrails, steps, calls and time
deliver  Plan -> receipts, with an intent in the journal before each call
ledger   journal + plan table -> oploop.changes, state per field, identities, parked
"""
