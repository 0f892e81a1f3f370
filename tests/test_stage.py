"""The stage decorator on a real Prefect server: what is reused, what is recomputed, and what a damaged artifact does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID

import pytest
from filelock import FileLock
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, LogFilter, LogFilterFlowRunId
from prefect.context import get_run_context
from prefect.settings import PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from tasks.contracts.artifacts import ArtifactRoot, TableRef
from tasks.contracts.failures import SocratuneError
from tasks.contracts.rows import Example
from tasks.stage import Context, Table, Work, table_stage
from tasks.watch import Progress, State, listen

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_server")]
CALLS: list[str] = []


def example(text: str) -> Example:
    return Example(qid="", arm="facts", prompt="", completion=text, answer="", weight=1.0, verdict_factor=1.0, reasoning_factor=1.0)


@table_stage("write", version=1, run_name="write {text}")
async def write(work: Work, *, text: str, source: Path | None = None) -> Table[Example]:
    """One row."""
    CALLS.append(text)
    work.progress(1, 1, "wrote")
    return Table([example(text)], Example, {"length": len(text)})


@table_stage("copy", version=1, run_name="copy")
async def copy(work: Work, *, rows: TableRef[Example]) -> Table[Example]:
    """The rows it is given."""
    CALLS.append("copy")
    return Table(work.root.read(rows, Example), Example, {})


@table_stage("break", version=1, run_name="break")
async def broken(work: Work) -> Table[Example]:
    """Fails half-way."""
    (work.folder / "half").write_text("half", encoding="utf-8")
    raise SocratuneError("no")


@flow(name="chain")
async def chain(folder: str, text: str) -> tuple[TableRef[Example], TableRef[Example], str]:
    context = Context(root=ArtifactRoot(Path(folder)), execution=None)  # type: ignore[arg-type]
    first = await write(context, text=text)
    return first, await copy(context, rows=first), str(get_run_context().flow_run.id)  # type: ignore[union-attr]


async def states(run: str) -> dict[str, str]:
    """States by task run name, once the server has heard of the end of each: it learns of task states through events."""
    async with get_client() as client, asyncio.timeout(30):
        while True:
            runs = await client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run])))
            if runs and all(each.state and each.state.is_final() for each in runs):
                return {each.name: each.state_name or "" for each in runs}


async def test_a_second_run_computes_nothing_and_shows_cached(tmp_path: Path) -> None:
    CALLS.clear()
    first = await chain(str(tmp_path), "hello")
    second = await chain(str(tmp_path), "hello")
    assert CALLS == ["hello", "copy"]
    assert first[:2] == second[:2]
    assert await states(second[2]) == {"write hello": "Cached", "copy": "Cached"}
    assert ArtifactRoot(tmp_path).record(first[0])["summary"] == {"length": 5}


@pytest.mark.parametrize("damage", ["flip", "delete", "record"])
async def test_a_damaged_artifact_is_recomputed_and_what_follows_is_not(tmp_path: Path, damage: str) -> None:
    first, _, _ = await chain(str(tmp_path), "hello")
    table = tmp_path / first.path / "part-0.parquet"
    if damage == "flip":
        content = bytearray(table.read_bytes())
        content[20] ^= 1
        table.write_bytes(content)
    else:
        (table if damage == "delete" else table.with_name("artifact.json")).unlink()
    CALLS.clear()
    again, _, _ = await chain(str(tmp_path), "hello")
    assert CALLS == ["hello"]
    assert again == first


async def test_a_result_record_without_its_artifact_is_not_believed(tmp_path: Path) -> None:
    first, second, _ = await chain(str(tmp_path), "hello")
    assert (tmp_path / first.path / "result.json").is_file()
    for item in (tmp_path / second.path).glob("*"):
        if item.name != "result.json":
            item.unlink()
    CALLS.clear()
    await chain(str(tmp_path), "hello")
    assert CALLS == ["copy"]


async def test_another_recipe_is_another_artifact(tmp_path: Path) -> None:
    one, _, _ = await chain(str(tmp_path), "hello")
    other, _, _ = await chain(str(tmp_path), "world")
    assert one.path != other.path


async def test_files_count_by_content(tmp_path: Path) -> None:
    context = Context(root=ArtifactRoot(tmp_path), execution=None)  # type: ignore[arg-type]
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("same", encoding="utf-8")
    CALLS.clear()

    @flow(name="files")
    async def files() -> list[TableRef[Example]]:
        return [await write(context, text="x", source=tmp_path / name) for name in ("a.txt", "b.txt")]

    one, other = await files()
    assert (one, CALLS) == (other, ["x"])
    (tmp_path / "b.txt").write_text("changed", encoding="utf-8")
    assert (await files())[1] != other


async def test_a_failed_stage_leaves_no_artifact(tmp_path: Path) -> None:
    context = Context(root=ArtifactRoot(tmp_path), execution=None)  # type: ignore[arg-type]

    @flow(name="breaks")
    async def breaks() -> None:
        await broken(context)

    with pytest.raises(SocratuneError, match="no"):
        await breaks()
    assert not list(tmp_path.rglob("artifact.json"))


async def test_progress_reaches_the_listener(tmp_path: Path) -> None:
    heard: list[Progress] = []
    with listen(heard.append):
        await chain(str(tmp_path), "hello")
    assert {each.stage for each in heard} == {"write hello", "copy"}
    ends = [(each.stage, each.state, each.note) for each in heard if each.state is not State.RUNNING and each.state is not State.STARTED]
    assert ends == [("write hello", State.DONE, "1 rows"), ("copy", State.DONE, "1 rows")]
    heard.clear()
    with listen(heard.append):
        await chain(str(tmp_path), "hello")
    assert [(each.stage, each.state) for each in heard] == [("write hello", State.REUSED), ("copy", State.REUSED)]


async def test_a_flow_runs_log_tells_each_stage_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="prefect.flow_runs")  # the tests run with errors only
    caplog.set_level("INFO", logger="prefect.task_runs")
    with temporary_settings({PREFECT_LOGGING_TO_API_ENABLED: True}):
        runs = [(await chain(str(tmp_path), "hello"))[2] for _ in range(2)]
    assert any(line.startswith("write hello: finished in ") for line in await log_of(runs[0], until="copy: finished"))
    assert any(line.startswith("write hello: reused, it took ") for line in await log_of(runs[1], until="copy: reused"))


async def log_of(run: str, *, until: str) -> list[str]:
    """The messages of a flow run's Logs tab, once one of them begins with `until`: logs are sent in batches."""
    only = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[UUID(run)]))
    async with get_client() as client, asyncio.timeout(30):
        while True:
            lines = [each.message for each in await client.read_logs(only)]
            if any(line.startswith(until) for line in lines):
                return lines
            await asyncio.sleep(0.2)


async def test_a_finished_stage_holds_no_lock(tmp_path: Path) -> None:
    await chain(str(tmp_path), "hello")
    locks = list(tmp_path.glob("data/.work/*/lock"))
    assert len(locks) == 2
    for path in locks:
        with FileLock(path, timeout=0):
            assert path.is_file()


async def test_two_runs_at_once_compute_once(tmp_path: Path) -> None:
    CALLS.clear()
    one, other = await asyncio.gather(chain(str(tmp_path), "hello"), chain(str(tmp_path), "hello"))
    assert one[:2] == other[:2]
    assert sorted(CALLS) == ["copy", "hello"]


@table_stage("half", version=1, run_name="half")
async def half(work: Work, *, enough: int) -> Table[Example]:
    """Partial while it was called fewer than `enough` times."""
    CALLS.append("half")
    return Table([example("x")], Example, {}, partial=CALLS.count("half") < enough)


async def test_a_partial_table_serves_its_run_and_is_made_again_by_the_next(tmp_path: Path) -> None:
    CALLS.clear()

    @flow(name="halves")
    async def halves() -> int:
        context = Context(root=ArtifactRoot(tmp_path), execution=None)  # type: ignore[arg-type]
        return len(context.root.read(await half(context, enough=2), Example))

    assert [await halves() for _ in range(3)] == [1, 1, 1]
    assert CALLS == ["half", "half"]
