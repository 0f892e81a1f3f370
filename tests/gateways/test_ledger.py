"""The ledger: what a key is made of, what survives, who may spend."""

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contracts.asks import Ask, Usage
from tasks.contracts.failures import ArtifactError, BudgetReached, TeacherRefused
from tasks.contracts.rows import Outcome
from tasks.gateways.ledger import Ledger
from tasks.gateways.ledger_files import export_ledger, import_ledger, ledger_stats, lost_rows, verify_ledger
from tasks.gateways.prices import Price
from tasks.gateways.simulated_teacher import Fault
from tasks.gateways.teacher import Reply, Request, Settings
from tasks.logic.estimate import Known
from tests.gateways.bench import asks, questions

REPLY = Reply(text="a", finish_reason="stop", model="m", tokens_in=3, tokens_out=4, request_id="r", tries=2, seconds=0.5)

_requests = st.fixed_dictionaries(
    {
        "messages": st.lists(st.sampled_from([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]), max_size=2).map(tuple),
        "sample": st.integers(0, 2),
        "source": st.sampled_from(["/v1", "/v2"]),
        "model": st.sampled_from(["m", "n"]),
        "temperature": st.sampled_from([0, 0.0, 1.0]),
        "max_tokens": st.integers(1, 2),
        "reask": st.integers(0, 2),
        "schema": st.sampled_from([None, {"type": "object"}]),
    }
)


def _key(request, *, qid="q", attempts=1, hinted=False):
    ask = Ask(qid=qid, sample=request["sample"], messages=request["messages"], hinted=hinted, schema=request["schema"])
    sampling = Settings(model=request["model"], temperature=request["temperature"], max_tokens=request["max_tokens"], attempts=attempts)
    return Request(ask=ask, reask=request["reask"], messages=ask.messages, settings=sampling).key(request["source"])


@given(_requests, _requests)
def test_keys_differ_exactly_when_requests_differ(one, other):
    assert (_key(one) == _key(other, qid="another", attempts=5, hinted=True)) == (one == other)


@given(text=st.text(st.characters()), usd=st.none() | st.floats(0, 9))
def test_a_reply_comes_back_as_it_was_stored(tmp_path_factory, text, usd):
    reply = replace(REPLY, text=text)
    with Ledger(tmp_path_factory.mktemp("ledger") / "l.sqlite", budget_usd=None) as ledger:
        assert ledger.find("k") is None
        ledger.record("k", reply, source="/v1", usd=usd)
        assert ledger.find("k") == reply
        assert ledger.usage() == Usage(calls=1, retries=1, tokens_in=3, tokens_out=4, usd=usd or 0.0)


def _write(path: Path, first: int) -> None:
    with Ledger(path, budget_usd=1e9) as ledger:
        for number in range(first, first + 150):
            reservation = ledger.reserve(1.0)
            assert reservation is not None
            ledger.record(str(number), REPLY, source="/v1", usd=1.0, reservation=reservation)


def test_two_processes_write_one_file(tmp_path):
    path = tmp_path / "new" / "ledger.sqlite"
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_write, args=(path, first)) for first in (0, 100)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    with Ledger(path, budget_usd=300.5) as ledger:
        assert all(ledger.find(str(number)) == REPLY for number in range(250))
        assert ledger.spent() == 300.0  # both buyers of the 50 shared keys paid
        assert ledger.reserve(0.5) is not None  # nothing is left reserved


def test_a_file_that_is_no_ledger_or_a_later_one_is_refused(tmp_path):
    text = tmp_path / "text"
    text.write_text("not a database " * 100)
    with pytest.raises(ArtifactError, match=r"execution\.ledger"):
        Ledger(text, budget_usd=None)
    later = tmp_path / "later"
    Ledger(later, budget_usd=None).close()
    db = sqlite3.connect(later)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ArtifactError, match="version 99"):
        Ledger(later, budget_usd=None)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 3), st.floats(0, 1)), max_size=40))
def test_no_interleaving_of_two_owners_passes_the_cap(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("ledger") / "l.sqlite"
    with Ledger(path, budget_usd=5.0) as one, Ledger(path, budget_usd=5.0) as other:
        held: list[tuple[Ledger, int, float]] = []
        for number, (action, usd, share) in enumerate(steps):
            if action < 2:
                owner = (one, other)[action]
                reservation = owner.reserve(usd)
                room = 5.0 - one.spent() - sum(worst for _, _, worst in held)
                assert (reservation is not None) == (usd <= room) or abs(usd - room) < 1e-9
                if reservation is not None:
                    held.append((owner, reservation, usd))
            elif held:
                owner, reservation, worst = held.pop()
                owner.record(str(number), REPLY, source="/v1", usd=worst * share, reservation=reservation)
            assert one.spent() + sum(worst for _, _, worst in held) <= 5.0 + 1e-9


def test_a_dead_process_does_not_hold_its_reservation_for_ever(tmp_path):
    path = tmp_path / "ledger.sqlite"
    script = (
        "import os, sys, pathlib; from tasks.gateways.ledger import Ledger; "
        "ledger = Ledger(pathlib.Path(sys.argv[1]), budget_usd=1.0); assert ledger.reserve(0.9); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)]).returncode == 9
    with Ledger(path, budget_usd=1.0) as ledger:
        mine = ledger.reserve(0.9)
        assert mine is not None
        assert ledger.reserve(0.2) is None  # a living one keeps its own
        ledger.release(mine)
        assert ledger.reserve(0.2) is not None


async def test_the_budget_holds_under_64_calls_and_raising_it_goes_on(bench, serve):
    server = serve()
    bench.in_flight = 64
    bench.budget = 0.5
    with pytest.raises(BudgetReached, match="raise the cap"):
        await bench.ask(asks(150))
    with Ledger(bench.ledger, budget_usd=None) as ledger:
        spent = ledger.spent()
    assert 0.4 < spent <= 0.5
    before = bench.kept()
    assert 0 < before < 150
    assert server.calls == before
    bench.budget = 100.0
    answers, usage = await bench.ask(asks(150))
    assert {answer.outcome for answer in answers} == {Outcome.OK}
    assert (usage.cached, server.calls) == (before, 150)


async def test_a_paid_model_needs_a_price(bench, serve):
    server = serve()
    bench.settings = replace(bench.settings, model="my-own-model")
    with pytest.raises(TeacherRefused, match="no price is known"):
        await bench.ask(asks(1))
    assert server.calls == 0
    bench.price = Price(input=1.0, cached_input=0.5, output=2.0, origin="given")
    (answer,), usage = await bench.ask(asks(1))
    assert answer.outcome == Outcome.OK
    assert usage.usd == pytest.approx((usage.tokens_in + 2 * usage.tokens_out) / 1e6)


def _flip(path: Path, needle: bytes) -> None:
    """Change one byte of the file, inside `needle`."""
    content = bytearray(path.read_bytes())
    assert content.count(needle) == 1
    content[content.index(needle) + len(needle) // 2] ^= 1
    path.write_bytes(bytes(content))


async def test_a_damaged_row_alone_is_bought_again(bench, serve):
    server = serve()
    wanted = asks(20)
    await bench.ask(wanted)
    victim = wanted[7]
    with Ledger(bench.ledger, budget_usd=None) as ledger:
        ledger.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (request_id,) = [entry.reply.request_id for entry in ledger.entries() if questions(20)[7].facts[0][:20] in entry.reply.text][:1]
    _flip(bench.ledger, f'"request_id":"{request_id}"'.encode())
    with Ledger(bench.ledger, budget_usd=None) as ledger:
        (fault,) = verify_ledger(ledger)
        assert "fails its checksum" in fault
        assert len(ledger_stats(ledger).damaged) == 1
    answers, usage = await bench.ask(wanted)
    assert (usage.calls, usage.cached, server.calls) == (1, 19, 21)
    assert answers[7].ask == victim
    with Ledger(bench.ledger, budget_usd=None) as ledger:
        assert verify_ledger(ledger) == []
    assert (await bench.ask(wanted))[1].calls == 0


@settings(max_examples=30, deadline=None)
@given(where=st.integers(min_value=0), bit=st.integers(0, 7))
def test_any_flipped_byte_of_a_row_is_noticed(tmp_path_factory, where, bit):
    path = tmp_path_factory.mktemp("ledger") / "l.sqlite"
    with Ledger(path, budget_usd=None) as ledger:
        ledger.record("k" * 64, replace(REPLY, text="word " * 50), source="/v1", usd=0.25)
        (body,) = ledger.db.execute("SELECT body FROM replies").fetchone()
        ledger.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(path.read_bytes())
    content[content.index(body.encode()) + where % len(body)] ^= 1 << bit
    path.write_bytes(bytes(content))
    with Ledger(path, budget_usd=None) as ledger:
        assert ledger.find("k" * 64) is None
        assert ledger.damaged == {"k" * 64}


def test_a_second_machine_imports_what_the_first_exported(tmp_path):
    export = tmp_path / "ledger.parquet"
    with Ledger(tmp_path / "one.sqlite", budget_usd=None) as one:
        for number in range(30):
            one.record(f"k{number}", replace(REPLY, text=f"reply {number} \ud800"), source="/v1", usd=0.5)
        assert export_ledger(one, export) == 30
    with Ledger(tmp_path / "two.sqlite", budget_usd=1.0) as two:
        two.record("k3", replace(REPLY, text="mine"), source="/v1", usd=0.5)
        assert import_ledger(two, export) == 29
        assert import_ledger(two, export) == 0
        assert two.spent() == 0.5
        found = two.find("k3"), two.find("k4")
        assert [reply.text for reply in found if reply] == ["mine", "reply 4 ?"]
        assert ledger_stats(two).replies == {("/v1", "m", "online"): 1, ("/v1", "m", "imported"): 29}


def test_a_file_that_is_no_export_is_refused(tmp_path):
    path = tmp_path / "x.parquet"
    path.write_bytes(b"no parquet")
    with Ledger(tmp_path / "l.sqlite", budget_usd=None) as ledger, pytest.raises(ArtifactError, match="ledger export"):
        import_ledger(ledger, path)


_CHILD = """
import asyncio, sys, pathlib
from tests.gateways.bench import Bench, asks
asyncio.run(Bench(ledger=pathlib.Path(sys.argv[1])).ask(asks(60)))
"""


async def test_kill_9_loses_only_calls_in_flight(bench, serve):
    server = serve(dict.fromkeys(range(21, 61), Fault(shape="held")))
    child = subprocess.Popen([sys.executable, "-c", _CHILD, str(bench.ledger)])
    deadline = time.monotonic() + 60
    while server.calls < 20 + bench.in_flight or bench.kept() < 20:
        assert child.poll() is None, "the child ended by itself"
        assert time.monotonic() < deadline, "the child never came to its 28th call"
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert (server.calls, bench.kept()) == (20 + bench.in_flight, 20)
    server.faults = {}
    server.hold.set()
    answers, usage = await bench.ask(asks(60))
    assert {answer.outcome for answer in answers} == {Outcome.OK}
    assert (usage.cached, usage.calls) == (20, 40)
    assert server.calls == 60 + bench.in_flight


def test_a_living_process_keeps_its_reservation_however_long_it_waits(tmp_path):
    with Ledger(tmp_path / "l.sqlite", budget_usd=1.0) as ledger:
        assert ledger.reserve(0.9)
        ledger.db.execute("UPDATE reservations SET made_at = made_at - 100000")
        assert ledger.reserve(0.2) is None
        ledger.db.execute("UPDATE reservations SET host = 'elsewhere'")  # nobody can look whether that one lives
        assert ledger.reserve(0.2)


def test_a_flipped_byte_in_a_key_costs_that_row_at_most(tmp_path):
    path = tmp_path / "l.sqlite"
    keys = [f"{number:02d}" * 32 for number in range(60)]
    with Ledger(path, budget_usd=None) as ledger:
        for key in keys:
            ledger.record(key, REPLY, source="/v1", usd=0.25)
        ledger.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(path.read_bytes())
    content[content.rindex(f"{keys[7]}/v1".encode()) + 5] ^= 1  # in the row itself, not in its index
    path.write_bytes(bytes(content))
    with Ledger(path, budget_usd=None) as ledger:
        assert set(keys) - ledger.find_many(keys).keys() <= {keys[7]}
        assert len(verify_ledger(ledger)) >= 1
        assert export_ledger(ledger, tmp_path / "saved.parquet") == 59


def test_a_ledger_whose_structure_is_damaged_says_so_and_what_to_do(tmp_path):
    path = tmp_path / "l.sqlite"
    with Ledger(path, budget_usd=None) as ledger:
        for number in range(500):
            ledger.record(f"{number:064d}", REPLY, source="/v1", usd=0.25)
        ledger.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(path.read_bytes())
    for page in range(8, len(content) // 4096):
        content[page * 4096] = 0xFF  # no kind of page
    path.write_bytes(bytes(content))
    with Ledger(path, budget_usd=None) as ledger:
        assert verify_ledger(ledger)
        with pytest.raises(ArtifactError, match="ledger export"):
            ledger.find_many(f"{number:064d}" for number in range(500))
        assert export_ledger(ledger, tmp_path / "saved.parquet") < 500


@pytest.mark.parametrize("page", range(6, 26, 3))
def test_of_a_ledger_with_a_zeroed_page_everything_else_is_saved_and_the_rest_alone_is_bought_again(tmp_path, page):
    path, keys = tmp_path / "l.sqlite", [f"{number:064d}" for number in range(500)]
    with Ledger(path, budget_usd=None) as ledger:
        for key in keys:
            ledger.record(key, REPLY, source="/v1", usd=0.25)
        ledger.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(path.read_bytes())
    content[page * 4096 : (page + 1) * 4096] = bytes(4096)
    path.write_bytes(bytes(content))
    with Ledger(path, budget_usd=None) as ledger:
        assert verify_ledger(ledger)
        saved = export_ledger(ledger, tmp_path / "saved.parquet")
        lost = lost_rows(ledger, kept=saved)
    assert saved >= 480, "a page holds some ten or twenty rows"
    with Ledger(tmp_path / "new.sqlite", budget_usd=None) as ledger:
        assert import_ledger(ledger, tmp_path / "saved.parquet") == saved
        assert len(ledger.find_many(keys)) == saved
        assert lost in (0, 500 - saved)  # the index alone knows what was lost; where it is what was damaged, nothing was


def test_a_disk_that_is_full_is_one_line_and_keeps_every_reply(tmp_path):
    path = tmp_path / "l.sqlite"
    with Ledger(path, budget_usd=None) as ledger:
        ledger.record("first", REPLY, source="/v1", usd=0.25)
        (pages,) = ledger.db.execute("PRAGMA page_count").fetchone()
        ledger.db.execute(f"PRAGMA max_page_count = {pages + 2}")  # SQLite's own imitation of a disk with so much room
        long = replace(REPLY, text="long " * 500)
        with pytest.raises(ArtifactError, match=r"l\.sqlite: database or disk is full; make room on its disk and run again") as caught:
            any(not ledger.record(f"{number}", long, source="/v1", usd=0.25) for number in range(1000))
        assert "\n" not in str(caught.value)
        assert ledger.find("first") == REPLY
    with Ledger(path, budget_usd=None) as ledger:
        assert ledger.record("after", REPLY, source="/v1", usd=0.25)
        assert ledger.usage().calls == len([entry for entry in ledger.entries() if not isinstance(entry, str)])


@pytest.mark.parametrize(("content", "words"), [(b"no database at all, but a text of some length " * 40, "not a database"), (None, "unable to open")])
def test_what_is_no_ledger_is_one_line(tmp_path, content, words):
    path = tmp_path / "l.sqlite"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(ArtifactError, match=words) as caught:
        Ledger(path, budget_usd=None)
    assert "\n" not in str(caught.value)
    assert "execution.ledger" in str(caught.value)


def test_a_ledger_that_was_cut_short_is_one_line(tmp_path):
    path = tmp_path / "l.sqlite"
    with Ledger(path, budget_usd=None) as ledger:
        for number in range(300):
            ledger.record(f"{number:064d}", REPLY, source="/v1", usd=0.25)
        ledger.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path.write_bytes(path.read_bytes()[: 4096 * 12])
    with pytest.raises(ArtifactError, match="ledger export") as caught, Ledger(path, budget_usd=None) as ledger:
        ledger.find_many(f"{number:064d}" for number in range(300))
    assert "\n" not in str(caught.value)


def test_the_usual_reply_counts_dated_versions_of_a_model_no_other_model_and_no_reply_of_one_word(tmp_path):
    with Ledger(tmp_path / "l.sqlite", budget_usd=None) as ledger:
        for number, (model, tokens) in enumerate([("gpt-4o", 10), ("gpt-4o-2024-08-06", 30), ("gpt-4o", 5), ("gpt-4o-mini", 500), ("gpt-4", 700)]):
            ledger.record(str(number), replace(REPLY, model=model, tokens_out=tokens), source="/v1", usd=0.0)
        assert ledger.usual("gpt-4o", above=5) == Known(tokens_out=20.0, seconds=0.5)
        assert ledger.usual("gpt-5", above=5) is None
