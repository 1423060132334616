"""The stages of the loop, as `loop.py` calls them: each opens nothing, takes a Workspace, and returns what the next needs.

reading   preflight, extract, build, bind: from apps and git to models and bound syncs
planning  validate, diff and plan, with what keeps a sync from being sent
sending   deliver, ledger, recovery of deliveries that died
looking   verify: what the apps hold now of what was sent
"""
