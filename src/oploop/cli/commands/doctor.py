"""`oploop doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oploop.cli import options
from oploop.cli.command import Cli, error_json
from oploop.cli.command import command as make
from oploop.cli.opening import with_workspace

if TYPE_CHECKING:
    from oploop.cli.checkup import Finding
    from oploop.cli.out import Out
    from oploop.workspace import Workspace


@make("doctor", example="oploop doctor\noploop doctor --env prod --select ticket_priority")
@options.environment
@options.selection
@options.wait
def command(cli: Cli, environment: str, select: tuple[str, ...], exclude: tuple[str, ...], wait: float | None) -> int:
    """Check config, credentials, fields and the warehouse; change nothing.

    Calls each app with its credentials, asks it to describe what the syncs write, and holds the syncs against the
    models as they are built. Each line that begins with a cross says what is wrong, where, and how to mend it.
    """

    async def work(ws: Workspace) -> list[Finding]:
        from oploop.cli.checkup import examine
        from oploop.cli.progress import Progress
        from oploop.selection import Selection

        with Progress(cli.out, ws.runtime.monotonic, "asking the apps"):
            return await examine(ws, Selection(select, exclude))

    findings = with_workspace(cli, work, environment=environment, read_only=True, wait=wait)
    code = max((f.error.exit_code for f in findings if f.error is not None), default=0)
    checks = [{"check": f.name, "ok": f.ok, "message": f.text, **_mend(f)} for f in findings]
    cli.out.data({"status": "failed" if code else "ok", "checks": checks})
    _print(cli.out, findings)
    return code


def _mend(f: Finding) -> dict[str, object]:
    if f.error is None:
        return {"mend": None, "place": None}
    data = error_json(f.error)
    return {"mend": data["mend"], "place": data["place"]}


def _print(out: Out, findings: list[Finding]) -> None:
    from oploop.cli.out import pad
    from oploop.cli.show import clean, count

    width = max(len(f.name) for f in findings)
    for f in findings:
        out.line(f"{out.mark(f.ok)} {pad(f.name, width)}  {clean(str(f.error) if f.error is not None else f.text)}")
    wrong = sum(1 for f in findings if f.ok is False)
    out.line()
    out.line(f"{count(wrong, 'thing')} to mend; nothing was changed" if wrong else "all is well; nothing was changed")
