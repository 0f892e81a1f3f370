"""`socratune loop`, `promote` and `rollback`: the self-guided loop from a terminal."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows.stopping import Stoppable
from flows.terminal import Changes, ProfileArgument, Verbose, changes_of, console, quiet_prefect, say_begin, stop
from tasks.contracts.failures import DataError, SocratuneError


def register_loop(app: typer.Typer) -> None:
    """Add the commands of this file to the command line."""
    app.command()(loop)
    app.command()(promote)
    app.command()(rollback)


def loop(
    profile: ProfileArgument,
    rounds: Annotated[int, typer.Option(min=0, help="Rounds to make, fewer where the loop ends itself; 0 = only show those that were made")] = 1,
    changes: Changes = None,
    verbose: Verbose = False,
) -> None:
    """Make rounds of the self-guided loop: the last accepted student samples, pairs are made, one epoch trained, and a gate accepts or reverts.

    Examples: socratune loop demo; socratune loop demo --rounds 3; socratune loop demo --rounds 0
    """
    overrides = changes_of(profile, changes)
    quiet_prefect(verbose=verbose)
    out = Console()
    try:
        with Stoppable() as stoppable:
            say_begin(profile, overrides)
            stoppable.find_server()
            from flows.loop_progress import loop_with_progress

            made = stoppable.run(loop_with_progress(profile, overrides, rounds=rounds, console=console, width=out.width))
    except SocratuneError as error:
        stop(error)
    out.print(made)


def promote(
    profile: ProfileArgument,
    target: Annotated[str, typer.Argument(metavar="RUN|ROUND", help="A run folder under data/runs, or the number of a round; 0 is the loop's start")],
    changes: Changes = None,
) -> None:
    """Make a round's or a run's student the accepted one: ask, evaluate and the next round follow it.

    Examples: socratune promote demo 2; socratune promote demo data/runs/RUN
    """
    _point(profile, changes, target)


def rollback(profile: ProfileArgument, changes: Changes = None) -> None:
    """Take back the last change of the accepted student, by the gate or by hand; again to go further back.

    Example: socratune rollback demo
    """
    _point(profile, changes, None)


def _point(profile: str, changes: list[str] | None, target: str | None) -> None:
    if target is not None and not target.isdecimal() and not Path(target).is_dir():
        stop(DataError(f"{target} is neither a run folder nor the number of a round (looked in {Path.cwd()}); run folders lie under data/runs"))
    overrides = changes_of(profile, changes)
    quiet_prefect(verbose=False)
    from flows.loop_progress import point

    try:
        typer.echo(asyncio.run(point(profile, overrides, target=target)))
    except SocratuneError as error:
        stop(error)
