"""What every command of the terminal shares: changes of a profile, a quiet Prefect, errors told and exit codes."""

from __future__ import annotations

import io
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import yaml
from rich.console import Console

from tasks.contracts.failures import BudgetReached, ProfileError, SocratuneError
from tasks.contracts.profiles import PROFILES, load_profile

BUDGET_REACHED = 3  # exit code
console = Console(stderr=True)

ProfileArgument = Annotated[str, typer.Argument(help="A profile in deployments/profiles (demo, pocketqa, ...) or the path of a YAML file")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Change one number of the profile, e.g. --set recipe.seed=1; repeat as needed")
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show Prefect's log lines")]


def parse_changes(changes: list[str]) -> dict[str, Any]:
    """`path=value` texts as a mapping; values are YAML scalars or lists. Raises ProfileError for every malformed one at once."""
    parsed: dict[str, Any] = {}
    faults = []
    for change in changes:
        path, equals, value = change.partition("=")
        try:
            parsed[path.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            faults.append(f"{change}: the value is not YAML ({str(error).splitlines()[0]})")
        if not equals or not path.strip():
            faults.append(f"{change}: write it as path=value, e.g. recipe.seed=1")
    if faults:
        raise ProfileError("--set", faults)
    return parsed


def changes_of(profile: str, changes: list[str] | None) -> dict[str, Any]:
    """The changes of a command, once they and its profile are checked; ends with every fault of them, before anything that takes seconds is imported."""
    try:
        overrides = parse_changes(changes or [])
        load_profile(profile, folder=PROFILES, overrides=overrides)
    except SocratuneError as error:
        stop(error)
    return overrides


def any_terminal() -> None:
    """What a terminal's encoding lacks is written as question marks, not refused."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def quiet_prefect(*, verbose: bool) -> None:
    """Settings that Prefect reads when it is imported: no telemetry, log lines only on request, a run's own only in its Logs tab."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    if not verbose:
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
        for runs in ("flow_runs", "task_runs"):
            os.environ.setdefault(f"PREFECT_LOGGING_LOGGERS_PREFECT_{runs.upper()}_LEVEL", "INFO")
            logging.getLogger(f"prefect.{runs}").propagate = False  # to the terminal, which tells them in its own way


def say_begin(profile: str, overrides: dict[str, Any]) -> None:
    """The first words of a command that takes seconds to begin. Raises ProfileError."""
    root = Path(load_profile(profile, folder=PROFILES, overrides=overrides).execution.root).absolute()
    console.print(
        f"Starting {profile}: what is stored in {root} is reused; the Prefect server takes some seconds", markup=False, highlight=False, soft_wrap=True
    )


def stop(error: SocratuneError, *, code: int = 1) -> NoReturn:
    """Tell an error and end; a budget that is used up has an exit code of its own, because a script may want to raise it and go on."""
    code = BUDGET_REACHED if isinstance(error, BudgetReached) else code
    console.print(f"[bold red]{type(error).__name__}[/bold red] ", end="")
    console.print(str(error), markup=False, highlight=False)
    raise typer.Exit(code)
