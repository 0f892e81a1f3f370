"""`socratune ledger`: look after the ledger of teacher replies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from flows.terminal import stop
from tasks.contracts.failures import SocratuneError

ledger_app = typer.Typer(no_args_is_help=True, help="Look after the ledger of teacher replies: nothing in it is ever paid twice.")
LedgerFile = Annotated[Path, typer.Option("--ledger", help="The ledger; execution.ledger of a profile")]


@ledger_app.command()
def stats(ledger: LedgerFile = Path("data/ledger.sqlite")) -> None:
    """Count replies, tokens and dollars; JSON on standard output."""
    _on_ledger("stats", ledger)


@ledger_app.command()
def verify(ledger: LedgerFile = Path("data/ledger.sqlite")) -> None:
    """Check every row against its checksum and the file's structure; exit code 1 when something is wrong."""
    _on_ledger("verify", ledger)


@ledger_app.command("export")
def export_replies(file: Annotated[Path, typer.Argument(help="Parquet file to write")], ledger: LedgerFile = Path("data/ledger.sqlite")) -> None:
    """Write all replies to a Parquet file, for another machine or as a recording.

    A whole run is then repeated with neither key nor network: --set recipe.teacher.kind=recorded --set recipe.teacher.recordings=[FILE]
    """
    _on_ledger("export", ledger, file)


@ledger_app.command("import")
def import_replies(
    file: Annotated[Path, typer.Argument(help="Parquet file that `ledger export` wrote")], ledger: LedgerFile = Path("data/ledger.sqlite")
) -> None:
    """Add replies that were bought elsewhere. They do not count as spent here."""
    _on_ledger("import", ledger, file)


@ledger_app.command("forget-batches")
def forget_batches(ledger: LedgerFile = Path("data/ledger.sqlite")) -> None:
    """Give up batches that the provider still works on, so that their questions can be asked anew. What it answers in them is paid and lost."""
    _on_ledger("forget-batches", ledger)


def _on_ledger(action: str, ledger: Path, file: Path | None = None) -> None:
    from tasks.ledger import look_after

    try:
        report = look_after(action, ledger=ledger, file=file)
    except SocratuneError as error:
        stop(error)
    typer.echo(json.dumps(report, indent=1))
    if report.get("faults"):
        raise typer.Exit(1)
