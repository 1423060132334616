"""`oploop sandbox`."""

from __future__ import annotations

import asyncio
import copy
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oploop.cli.command import Cli
from oploop.cli.command import command as make

if TYPE_CHECKING:
    from oploop.apps.sandbox import Sandbox


#: Lines of a block are no longer, where that can be helped.
WIDE = 110


@make("sandbox", example="oploop sandbox stripe zendesk\noploop sandbox zendesk --port 8802")
@click.argument("types", nargs=-1, required=True, metavar="TYPE...")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    metavar="N",
    help="The first one's port, the next one's is N+1 [default: free ones].",
)
@click.option(
    "--logs",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where a sandbox that leaves files puts them [default: ./TYPE-logs].",
)
def command(cli: Cli, types: tuple[str, ...], port: int | None, logs: Path | None) -> int:
    """Run stand-in servers for apps on this machine.

    Each is a real HTTP server on loopback that behaves as the vendor documents, empty at first. Prints its address
    and the lines for oploop.yml and .env; runs until Ctrl-C.
    """
    from oploop.apps.registry import sandbox_class

    made = [(t, *_make(sandbox_class(t), t, logs)) for t in types]
    cli.interrupted = lambda: "the sandboxes are gone, and with them what was in them"
    ports = [port + i if port is not None else 0 for i in range(len(made))]
    asyncio.run(_serve(cli, made, ports))
    return 0


def _make(cls: type[Sandbox], type_name: str, logs: Path | None) -> tuple[Sandbox, dict[str, Any]]:
    """A sandbox, and what its `default_config` wants beside the address."""
    takes = inspect.signature(cls.__init__).parameters
    more: dict[str, Any] = {"logs": (logs or Path(f"{type_name}-logs")).absolute()} if "logs" in takes else {}
    for folder in more.values():
        folder.mkdir(parents=True, exist_ok=True)  # the app of the block that is printed looks for it
    return cls(**more), more


async def _serve(cli: Cli, made: list[tuple[str, Sandbox, dict[str, Any]]], ports: list[int]) -> None:
    """Serve all until one of them ends or the user interrupts."""
    from oploop.errors import FixConfig

    async def one(type_name: str, sandbox: Sandbox, more: dict[str, Any], port: int) -> None:
        try:
            await sandbox.serve(port, ready=lambda url: _say(cli, type_name, sandbox, url, more))
        except OSError as e:
            raise FixConfig(f"cannot listen on port {port}: {e.strerror}", mend="choose another with --port") from None

    async with asyncio.TaskGroup() as group:
        for (type_name, sandbox, more), port in zip(made, ports, strict=True):
            group.create_task(one(type_name, sandbox, more, port))


def _say(cli: Cli, type_name: str, sandbox: Sandbox, url: str, more: dict[str, Any]) -> None:
    """The address, and the app's block for it."""
    config = _config(sandbox, url, more)
    block, variables = _without_secrets(type_name, config)
    cli.out.data({"type": type_name, "url": url, "block": {type_name: block}, "env": variables})
    cli.out.line(f"{cli.out.mark(True)} {cli.out.bold(sandbox.title)} at {url}")
    cli.out.line("    in oploop.yml, under apps:")
    cli.out.line(f"      {type_name}:")
    cli.out.lines(_block(block))
    if variables:
        cli.out.line("    in .env:")
        cli.out.lines(f"      {k}={v}" for k, v in variables.items())


def _block(block: dict[str, Any]) -> Iterator[str]:
    for key, value in block.items():
        if isinstance(value, str):  # a variable, an address: it needs no quotes
            yield f"        {key}: {value}"
        else:
            yield from _yaml(key, value, " " * 8)


def _yaml(name: str, value: Any, indent: str) -> Iterator[str]:
    """A member of the block as it is written into `oploop.yml`: on one line where it fits, else its own members below it."""
    flow = _flow(value)
    if not isinstance(value, dict) or len(indent) + len(name) + len(flow) < WIDE:
        yield f"{indent}{name}: {flow}"
        return
    yield f"{indent}{name}:"
    for inner, member in value.items():
        yield from _yaml(_flow(inner), member, indent + "  ")


def _flow(value: Any) -> str:
    """A value on one line, with quotes only where YAML needs them."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_/][\w./-]*", value) and value not in ("true", "false", "null"):
        return value
    import orjson

    return orjson.dumps(value).decode()


def _config(sandbox: Sandbox, url: str, more: dict[str, Any]) -> dict[str, Any]:
    """What a sandbox offers as its block; at the least its address."""
    offered = getattr(type(sandbox), "default_config", None)
    found: dict[str, Any] = offered(url, **more) if offered is not None else {"base_url": url}
    return {k: str(v) if isinstance(v, Path) else v for k, v in found.items()}


def _without_secrets(type_name: str, config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The block with variables in place of its secrets, nested ones too; and what these variables hold."""
    from oploop.apps.registry import app_class, known_types
    from oploop.project import secret_paths, value_at
    from oploop.project.secrets import variable_name

    block, variables = copy.deepcopy(config), dict[str, str]()
    if type_name not in known_types():
        return block, variables
    for path in secret_paths(app_class(type_name).Config, config):
        name = variable_name(type_name, "_".join(map(str, path)))
        variables[name] = value_at(config, path)
        value_at(block, path[:-1])[path[-1]] = f"${{{name}}}"
    return block, variables
