"""Run the benchmarks and print one table: `python -m bench [NAME ...]`, or `make bench`."""

from __future__ import annotations

import sys

from bench import apps_read, changes, diff, first_load, http_delivery, limit, memory, read_stripe, startup, turn
from bench.table import Row, render

ALL = {
    "startup": startup.run,
    "read": read_stripe.run,
    "apps_read": apps_read.run,
    "turn": turn.run,
    "diff": diff.run,
    "first_load": first_load.run,
    "plan_unchanged": changes.plan_unchanged,
    "changed_1pct": changes.changed_1pct,
    "http_delivery": http_delivery.run,
    "calls": http_delivery.calls,
    "limit": limit.run,
    "memory": memory.run,
}


def main() -> None:
    names = sys.argv[1:] or list(ALL)
    unknown = [n for n in names if n not in ALL]
    if unknown:
        sys.exit(f"no benchmark {', '.join(unknown)}; there are: {', '.join(ALL)}")
    rows: list[Row] = []
    for name in names:
        print(f"running {name} ...", file=sys.stderr, flush=True)
        rows += ALL[name]()
    print(render(rows))


if __name__ == "__main__":
    main()
