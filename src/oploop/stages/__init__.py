"""The stages of the loop, as `loop.py` calls them: each opens nothing, takes a Workspace, and returns what the next needs.

reading   preflight, extract, build, bind: from apps and git to models and bound syncs
planning  validate, diff and plan, with what keeps a sync from being sent
sending   deliver, ledger
recovering  deliveries that died: into the ledger, once what can be made once more is
looking   verify: what the apps hold now of what was sent
"""
