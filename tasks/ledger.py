"""Looking after the ledger from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.contracts.failures import ArtifactError
from tasks.gateways.batch_store import BatchStore
from tasks.gateways.ledger import Ledger
from tasks.gateways.ledger_files import export_ledger, import_ledger, ledger_stats, lost_rows, verify_ledger


def look_after(action: str, *, ledger: Path, file: Path | None) -> dict[str, Any]:
    """Do one of stats, verify, export, import, forget-batches; returns what to print. Raises ArtifactError where there is no ledger to read."""
    if action != "import" and not ledger.is_file():
        raise ArtifactError(f"{ledger} does not exist; name the ledger with --ledger FILE (execution.ledger of the profile, under execution.root)")
    with Ledger(ledger, budget_usd=None) as opened:
        match action:
            case "stats":
                counted = vars(ledger_stats(opened))
                lines = [{"source": source, "model": model, "mode": mode, "count": count} for (source, model, mode), count in counted["replies"].items()]
                return counted | {"replies": lines}
            case "verify":
                return {"faults": verify_ledger(opened)}
            case "forget-batches":
                return {"forgotten": BatchStore(opened).forget()}
            case "export":
                assert file is not None
                kept = export_ledger(opened, file)
                return {"file": str(file), "rows": kept, "lost": lost_rows(opened, kept=kept)}
            case _:
                assert file is not None
                return {"ledger": str(ledger), "new_rows": import_ledger(opened, file)}
