"""Commands that list what there is: finished runs, profiles, the version."""

from __future__ import annotations

from importlib.metadata import version as version_of
from pathlib import Path
from typing import Annotated

import typer


def register_lists(app: typer.Typer) -> None:
    """Add `runs`, `profiles` and `--version` to the command line."""
    app.command("runs")(runs)
    app.command("profiles")(profiles)
    app.callback()(start)


def runs(root: Annotated[Path, typer.Option(help="Where data/ lies (execution.root of the profile)")] = Path()) -> None:
    """List the finished runs, newest first: name, when, and what share each model got right. `show`, `pool` and `publish` take these names."""
    from tasks.runs import run_lines

    lines = run_lines(root)
    for line in lines:
        typer.echo(f"{line.name}  ({line.profile}, {line.when})\n    {line.figures}")
    if not lines:
        typer.echo(f"No finished run in {(root / 'data' / 'runs').resolve()}; socratune run demo makes one.")


def profiles() -> None:
    """List the profiles that come with the project, each with what it is for."""
    from tasks.contracts.profiles import profile_lines

    known = profile_lines(Path(__file__).resolve().parent.parent / "deployments" / "profiles")
    width = max(map(len, known))
    for name, line in known.items():
        typer.echo(f"{name:{width}}  {line}")


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"socratune {version_of('socratune')}")
        raise typer.Exit


def start(version: Annotated[bool, typer.Option("--version", help="Say the version and end", is_eager=True, callback=_say_version)] = False) -> None:
    """Options of the program itself."""
