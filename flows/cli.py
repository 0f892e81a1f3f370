"""The command line: `socratune run PROFILE`, `plan`, `audit`, `ask PROFILE QUESTION`, `cross-validate`, then `show RUN`, `pool RUN...`, `publish RUN`, ..."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows.ledger_commands import ledger_app
from flows.list_commands import register_lists
from flows.loop_commands import register_loop
from flows.stopping import Stoppable
from flows.terminal import Changes, ProfileArgument, Verbose, any_terminal, changes_of, console, parse_changes, quiet_prefect, say_begin, stop
from tasks.contracts.failures import DataError, ProfileError, SocratuneError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help=(
        "A small student model learns to reason by asking a stronger teacher.\n\n"
        "First run, with neither GPU nor key: [bold]socratune run demo[/bold]. "
        "In Prefect: [bold]make up[/bold], then [bold]make run[/bold]."
    ),
)
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run: its name in `socratune runs`, how that begins (demo: its newest), last, or a folder")]
Root = Annotated[Path, typer.Option(help="Where data/ lies (execution.root of the profile)")]
app.callback()(any_terminal)
STAGES = ("teach", "train", "evaluate", "report")


@app.command()
def run(
    profile: ProfileArgument,
    until: Annotated[str, typer.Option(help="Stop after this flow: teach, train, evaluate or report")] = "report",
    changes: Changes = None,
    verbose: Verbose = False,
) -> None:
    """Run the pipeline on this machine. What is already stored for this recipe is not computed or paid again.

    Examples: socratune run demo; socratune run pocketqa --set recipe.seed=1; socratune run demo --until teach
    """
    if until not in STAGES:
        stop(ProfileError("--until", [f"{until!r} is not one of {', '.join(STAGES)}"]))
    overrides = changes_of(profile, changes)
    quiet_prefect(verbose=verbose)
    try:
        with Stoppable() as stoppable:
            say_begin(profile, overrides)
            stoppable.find_server()
            from flows.progress import run_with_progress

            outcome = stoppable.run(run_with_progress(profile, overrides, until=until, console=console))
    except SocratuneError as error:
        stop(error)
    console.print(outcome, crop=False)


@app.command()
def plan(
    profile: ProfileArgument,
    changes: Changes = None,
) -> None:
    """Say what a run would find stored, how many teacher calls it would make and what they would cost. Computes nothing, calls nobody.

    Example: socratune plan strategyqa-8gb --set recipe.sample.path=strategyqa_train.json
    """
    overrides = changes_of(profile, changes)
    quiet_prefect(verbose=False)
    try:
        with Stoppable(orchestrated=False) as stoppable:
            from flows.forecast import forecast_tables

            tables = stoppable.run(forecast_tables(profile, overrides))
    except SocratuneError as error:
        stop(error)
    console.print(tables)


@app.command()
def audit(
    profile: ProfileArgument,
    changes: Changes = None,
) -> None:
    """Judge a profile's teachers and splits before training: bias, agreement, overlaps, class shares; a page and JSON under data/audit. Calls nobody.

    Example: socratune audit strategyqa-recorded --set recipe.sample.path=FILE --set 'recipe.teacher.recordings=[FILE,FILE]'
    """
    overrides = changes_of(profile, changes)
    quiet_prefect(verbose=False)
    try:
        with Stoppable(orchestrated=False) as stoppable:
            from flows.audit import audit as audit_data
            from flows.audit import audit_tables

            audited = stoppable.run(audit_data(profile, overrides))
    except SocratuneError as error:
        stop(error)
    console.print(audit_tables(audited))


@app.command()
def ask(
    profile: Annotated[str, typer.Argument(help="A profile that was run, a run or `last`: its aligned student answers, with the run's own --set")],
    questions: Annotated[list[str] | None, typer.Argument(help="Anything that yes or no can answer; without any, one a line from standard input")] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Over the settings of the run whose student is asked")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a question")] = False,
) -> None:
    """Ask the aligned student questions of your own: its draft, its questions, its answers and its verdict. Trains nothing and asks no teacher.

    It is loaded once for all of them. Examples: socratune ask demo "Could Julius Caesar have used a telephone?"; socratune ask last < questions.txt
    """
    quiet_prefect(verbose=False)
    try:
        asked, overrides = questions or _lines(), parse_changes(changes or [])
        with Stoppable(orchestrated=False) as stoppable:
            from flows.ask import ask_profile, shown_consultation

            answered = stoppable.run(ask_profile(profile, overrides, asked, console=console))
    except SocratuneError as error:
        stop(error)
    if as_json:
        for each in answered:
            typer.echo(json.dumps(asdict(each)))
    else:
        Console().print(*map(shown_consultation, answered), sep="\n")


def _lines() -> list[str]:
    """Questions from standard input, one a line."""
    if sys.stdin.isatty():
        console.print("One question a line; Ctrl-D ends them and loads the student, once for all.")
    lines = [line for line in map(str.strip, sys.stdin) if line]
    if not lines:
        raise DataError('no question: give one, e.g. "Could Julius Caesar have used a telephone?", or one a line on standard input')
    return lines


@app.command()
def fetch(profile: Annotated[str, typer.Argument(help="The profile whose student is wanted")] = "demo") -> None:
    """Fetch a profile's student model and convert it once, without running anything else."""
    overrides = changes_of(profile, None)
    quiet_prefect(verbose=False)
    try:
        with Stoppable() as stoppable:
            say_begin(profile, overrides)
            stoppable.find_server()
            from flows.progress import run_with_progress

            outcome = stoppable.run(run_with_progress(profile, overrides, until="student", console=console))
    except SocratuneError as error:
        stop(error)
    console.print(outcome)


@app.command()
def score(
    benchmark: Annotated[str, typer.Argument(help="strategyqa")],
    pred: Annotated[Path, typer.Option(help="Predictions: JSON {qid: {answer, decomposition, paragraphs}}, {qid: yes|no} or a list of {qid, answer}")],
    gold: Annotated[Path, typer.Option(help="Gold questions: the official JSON list or JSONL, with qid and answer")],
) -> None:
    """Score a prediction file by the benchmark's official definition; JSON on standard output: accuracy, sari, recall_at_10, n, missing.

    sari wants a decomposition in both files, recall_at_10 paragraphs and gold evidence; without them the key is absent. A question that is missing from the
    predictions counts as 0 in every figure (the official evaluator refuses such a file), a null answer as wrong.

    Example: socratune score strategyqa --pred data/runs/RUN/predictions/aligned.json --gold strategyqa_train.json
    """
    from tasks.score import score_files

    try:
        typer.echo(json.dumps(score_files(benchmark, pred=pred, gold=gold)))
    except SocratuneError as error:
        stop(error)


@app.command()
def show(run_folder: RunName = "last", root: Root = Path()) -> None:
    """Print a finished run's results, comparisons and class shares as Markdown."""
    from tasks.runs import find_run, show_run

    try:
        typer.echo(show_run(find_run(run_folder, root=root)))
    except SocratuneError as error:
        stop(error)


@app.command()
def pool(runs: Annotated[list[str], typer.Argument(help="Runs, one a seed, a split or both: their names, or folders")], root: Root = Path()) -> None:
    """Pool the comparisons of several runs (seeds, splits) of one profile: runs and questions are resampled together, and each question counts once."""
    from tasks.runs import find_run, pool_runs

    try:
        typer.echo(pool_runs([find_run(name, root=root) for name in runs]))
    except SocratuneError as error:
        stop(error)


@app.command("cross-validate")
def cross_validate(
    profile: Annotated[str, typer.Argument(help="A StrategyQA profile in deployments/profiles or the path of a YAML file")],
    folds: Annotated[int, typer.Option(min=2, max=10, help="Into how many parts the questions are cut; each is tested once")] = 5,
    changes: Changes = None,
    verbose: Verbose = False,
) -> None:
    """Run the pipeline once a fold, each question tested once by a model that never saw it, and pool the comparisons. The same command goes on after a stop.

    Example: socratune cross-validate strategyqa-recorded --folds 5 --set recipe.sample.path=FILE --set 'recipe.teacher.recordings=[FILE]'
    """
    try:
        overrides = parse_changes(changes or [])
    except SocratuneError as error:
        stop(error)
    quiet_prefect(verbose=verbose)
    try:
        with Stoppable() as stoppable:
            say_begin(profile, overrides)
            stoppable.find_server()
            from flows.progress import cross_validate_with_progress

            pooled = stoppable.run(cross_validate_with_progress(profile, overrides, folds=folds, console=console))
    except SocratuneError as error:
        stop(error)
    typer.echo(pooled)


@app.command()
def publish(
    run_folder: RunName,
    model: Annotated[str, typer.Option(help="Whose adapter: aligned, track_b, track_a, ...")] = "aligned",
    out: Annotated[Path, typer.Option(help="A new or empty folder to prepare")] = Path("release"),
    root: Root = Path(),
) -> None:
    """Prepare a folder for the Hub: an adapter with its card, the curated data with its card. Uploads nothing; says the commands that would.

    Example: socratune publish last --model aligned --out release
    """
    from tasks.release import prepare_release
    from tasks.runs import find_run

    try:
        typer.echo(prepare_release(find_run(run_folder, root=root), model=model, out=out))
    except SocratuneError as error:
        stop(error)


app.add_typer(ledger_app, name="ledger")
register_loop(app)
register_lists(app)


if __name__ == "__main__":
    app()
