"""The demo's project folder: made from the files beside this module, and never over anybody's own work."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from urllib.parse import urlsplit

import orjson

from oploop.errors import FixConfig

DEFAULT = Path("acme-demo")
#: The sandboxes' keys: under names of their own, so that real ones in the environment are never sent to them.
SECRETS: Mapping[str, str] = {
    "ACME_STRIPE_API_KEY": "sk_test_oploop",
    "ACME_ZENDESK_API_TOKEN": "zd_test_oploop",
    "ACME_SEGMENT_WRITE_KEY": "wk_test_oploop",
}
_OURS = ("models", "syncs", "audits", "tests")
_GITIGNORE = ".oploop/\n.env\nwarehouse.duckdb*\nsegment-logs/\n.cache/\nlogs/\n"


def check(folder: Path) -> None:
    """FixConfig unless the folder is new, empty, or a demo's that nobody has changed."""
    if folder.exists() and not folder.is_dir():
        raise FixConfig(f"{folder} is no folder", mend="choose another with --folder")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if [p.name for p in folder.iterdir()] == [".oploop"] and not (folder / ".oploop" / "state.sqlite").exists():
        return  # a demo was interrupted while it filled its sandboxes
    made = _made(folder)
    if made is None:
        raise FixConfig(f"{folder} is not empty, and no demo's folder", mend="choose another with --folder")
    changed = sorted(name for name, digest in _present(folder).items() if made.get(name) != digest)
    changed += sorted(made.keys() - _present(folder).keys())
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise FixConfig(
            f"{folder} has changes of your own ({changed[0]}{more})",
            mend=f"go on there with oploop demo --serve --folder {folder}, or choose another with --folder",
        )


def make(folder: Path, urls: Mapping[str, str]) -> None:
    """Write the project for apps at these addresses."""
    written: dict[str, str] = {}
    for name, content in _templates():
        if name == "oploop.yml":
            for app, url in urls.items():
                content = content.replace(f"__{app.upper()}__", url)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        written[name] = _digest(path)
    (folder / ".gitignore").write_text(_GITIGNORE, encoding="utf-8")
    env = folder / ".env"
    env.write_text("".join(f"{k}={v}\n" for k, v in SECRETS.items()), encoding="utf-8")
    env.chmod(0o600)
    marker = _marker(folder)
    marker.write_bytes(orjson.dumps(written, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))


def clear(folder: Path) -> None:
    """Empty a demo's folder (see `check`) for the next one; what an earlier demo did not make stays."""
    for name in _made(folder) or {}:
        (folder / name).unlink(missing_ok=True)
    for path in folder.glob("warehouse.duckdb*"):
        path.unlink(missing_ok=True)
    for name in (".oploop", "segment-logs"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "fields.lock").unlink(missing_ok=True)
    state = folder / ".oploop"
    state.mkdir(parents=True, mode=0o700)


def ports(folder: Path) -> dict[str, int]:
    """On which ports a demo's project expects its apps. FixConfig when it is no demo's."""
    from oploop.project import load_project

    if _made(folder) is None:
        raise FixConfig(f"{folder} is no demo's folder", mend="make one with oploop demo, or name it with --folder")
    found: dict[str, int] = {}
    blocks = load_project(folder).apps
    for app in ("stripe", "zendesk", "segment"):
        url = str(blocks[app].options.get("base_url", "")) if app in blocks else ""
        port = urlsplit(url).port
        if port is None:
            raise FixConfig(f"apps.{app} of {folder / 'oploop.yml'} has no base_url on this machine")
        found[app] = port
    return found


def is_demo(folder: Path) -> bool:
    """Whether a demo made this folder."""
    return _made(folder) is not None


def _marker(folder: Path) -> Path:
    return folder / ".oploop" / "demo.json"


def _made(folder: Path) -> dict[str, str] | None:
    """The files that a demo wrote into a folder, with their digests; None: no demo did."""
    try:
        made: dict[str, str] = orjson.loads(_marker(folder).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return made


def _present(folder: Path) -> dict[str, str]:
    """The project's files as they stand, by name."""
    found = [p for name in _OURS for p in (folder / name).rglob("*") if p.is_file()]
    found += [folder / name for name in ("oploop.yml", "README.md") if (folder / name).exists()]
    return {p.relative_to(folder).as_posix(): _digest(p) for p in found}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _templates() -> Iterator[tuple[str, str]]:
    """(name, text) of each file of the project, as it is in the package."""

    def walk(at: Traversable, prefix: str) -> Iterator[tuple[str, str]]:
        for entry in sorted(at.iterdir(), key=lambda e: e.name):
            if entry.is_dir():
                yield from walk(entry, f"{prefix}{entry.name}/")
            elif not entry.name.startswith((".", "__")):
                yield prefix + entry.name, entry.read_text(encoding="utf-8")

    return walk(files("oploop.demo") / "project", "")
