"""The report in a real browser: the browser of questions filters what the data say, nothing overflows, nobody is asked for anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tasks.logic.report.loop_page import render_loop
from tasks.logic.report.render import render_report
from tasks.logic.report.view import Transcript
from tests.logic.report.sample_experiments import full_view, many_transcripts
from tests.logic.report.sample_rounds import GATE, GOLD_YES, sample_rounds

pytestmark = pytest.mark.browser
SIZES = {"phone": 390, "desktop": 1280}
NASTY = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> & <!-- ]]>"
LONG = "Donaudampfschifffahrtsgesellschaftskapitänsmütze" * 4
# Text that leaves its box or the page, except in boxes that scroll: those say so by a shadow and can be reached by keyboard.
OVERFLOWING = """() => {
  const bad = [];
  for (const element of document.querySelectorAll("body *")) {
    if (element.closest(".scroll") || ["SCRIPT", "OPTION"].includes(element.tagName) || !element.getClientRects().length) continue;
    const words = (element.textContent || "").trim().slice(0, 40);
    if (element instanceof SVGTextElement) {
      const drawn = element.ownerSVGElement, inside = element.getBoundingClientRect();
      const box = (getComputedStyle(drawn).overflow === "visible" ? drawn.closest("section") : drawn).getBoundingClientRect();
      if (inside.left < box.left - 1 || inside.right > box.right + 1 || inside.bottom > box.bottom + 2) bad.push(`svg: ${words}`);
    } else if (element instanceof HTMLElement) {
      if (element.clientWidth && element.scrollWidth > element.clientWidth + 1) bad.push(`${element.tagName} ${element.className}: ${words}`);
      for (const node of element.childNodes) {
        if (node.nodeType !== Node.TEXT_NODE || !node.data.trim()) continue;
        const range = document.createRange();
        range.selectNodeContents(node);
        const box = (element.closest("section, .card, header, footer") || document.body).getBoundingClientRect();
        for (const part of range.getClientRects()) if (part.right > box.right + 1 || part.left < box.left - 1) bad.push(`text: ${words}`);
      }
    }
  }
  return bad;
}"""


@pytest.fixture(scope="module")
def transcripts() -> tuple[Transcript, ...]:
    first, *others = many_transcripts()
    strange = Transcript(qid=NASTY, question=f"{NASTY} {LONG}", gold="no", facts=(NASTY, LONG), draft=LONG, asked=(NASTY,), teacher=LONG, replies=first.replies)
    return (strange, *others)


@pytest.fixture(scope="module")
def report(transcripts: tuple[Transcript, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_report(full_view(transcripts=transcripts, command=f"socratune run {LONG}", notes=(LONG, NASTY))), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def loop_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a loop whose every name and reason is hostile or endless."""
    start, *others = sample_rounds()
    rounds = [start, *(replace(each, reasons=(*each.reasons, NASTY, LONG), student=f"models/align/{LONG}", parent=NASTY) for each in others)]
    text = render_loop(rounds, name=f"{LONG} {NASTY}", accepted=f"{LONG} {NASTY}", stopped=f"{NASTY} {LONG}", gold_yes=GOLD_YES, recipe=GATE, over_start=None)
    path = tmp_path_factory.mktemp("loop") / "loop.html"
    path.write_text(text, encoding="utf-8")
    return path


@contextmanager
def opened(chromium: Browser, path: Path, *, hash: str = "", **how: Any) -> Iterator[Page]:
    """A page in a window of its own. It fails where the page complains or asks anybody for anything."""
    context = chromium.new_context(**how)
    page, said = context.new_page(), list[str]()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if not request.url.startswith(("file:", "data:")) else None)
    page.goto(f"{path.as_uri()}{hash}")
    yield page
    assert said == []
    assert page.title() != "owned"
    context.close()


def right(item: Transcript, model: str) -> bool | None:
    return next((reply.right for reply in item.replies if reply.model == model), None)


def test_the_browser_of_questions_shows_what_is_asked_for(chromium: Browser, report: Path, transcripts: tuple[Transcript, ...]) -> None:
    with opened(chromium, report) as page:
        count, entries = page.locator("#browser-count"), page.locator("#browser-list > details")
        total = len(transcripts)
        expect(count).to_contain_text(f"{total} of {total} questions")
        for model in ("track_a", "track_b", "aligned"):
            for wanted in ("right", "wrong"):
                page.select_option(f"select[name={model}]", wanted)
                expected = sum(right(item, model) is (wanted == "right") for item in transcripts)
                expect(count).to_contain_text(f"{expected} of {total} questions")
            page.select_option(f"select[name={model}]", "")
        page.select_option("select[name=track_a]", "wrong")
        page.select_option("select[name=aligned]", "right")
        page.fill("input[name=q]", "CASE 1")
        both = [item for item in transcripts if right(item, "track_a") is False and right(item, "aligned") and "case 1" in item.question]
        expect(count).to_contain_text(f"{len(both)} of {total} questions")
        assert 15 < len(both) < total
        expect(entries).to_have_count(15)
        page.locator("#browser-more").click()
        expect(entries).to_have_count(min(30, len(both)))
        first = entries.first
        expect(first.locator("summary")).to_contain_text(both[0].question)
        first.locator("summary").focus()
        page.keyboard.press("Enter")
        for shown in (both[0].draft, both[0].replies[1].text, *both[0].facts):
            expect(first).to_contain_text(shown)
        page.click("button[type=reset]")
        expect(count).to_contain_text(f"{total} of {total} questions")
        page.fill("input[name=q]", "no such words anywhere")
        expect(count).to_contain_text(f"0 of {total} questions")
        expect(entries).to_have_count(0)


def test_a_link_brings_its_filter_along(chromium: Browser, report: Path, transcripts: tuple[Transcript, ...]) -> None:
    with opened(chromium, report) as page:
        page.select_option("select[name=track_b]", "wrong")
        page.fill("input[name=q]", "submarine")
        page.wait_for_function("location.hash.includes('submarine')")
        link = page.evaluate("location.hash")
    expected = sum(right(item, "track_b") is False and "submarine" in item.question for item in transcripts)
    with opened(chromium, report, hash=link) as page:
        expect(page.locator("#browser-count")).to_contain_text(f"{expected} of {len(transcripts)} questions")
        expect(page.locator("input[name=q]")).to_have_value("submarine")


def test_without_scripts_the_page_is_whole_and_says_what_is_missing(chromium: Browser, report: Path, transcripts: tuple[Transcript, ...]) -> None:
    with opened(chromium, report, java_script_enabled=False) as page:
        expect(page.locator("#browser-list > details")).to_have_count(10)
        expect(page.locator("#browser-count")).to_contain_text(f"10 of {len(transcripts)} questions")
        expect(page.locator("#browser-filters")).to_be_hidden()
        entry = page.locator("#browser-list > details").nth(1)
        entry.locator("summary").click()
        expect(entry.locator("pre").last).to_contain_text(transcripts[1].replies[-1].verdict)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
def test_nothing_overflows(chromium: Browser, report: Path, size: str, scheme: str) -> None:
    with opened(chromium, report, viewport={"width": SIZES[size], "height": 844}, color_scheme=scheme) as page:
        page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        page.wait_for_function("[...document.querySelectorAll('#browser-list > details')].every((each) => each.querySelector('.answers'))")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate(OVERFLOWING) == []


def test_dark_and_light_are_different_pages_and_both_can_be_read(chromium: Browser, report: Path) -> None:
    grounds = {}
    for scheme in ("light", "dark"):
        with opened(chromium, report, color_scheme=scheme) as page:
            grounds[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert page.evaluate(FAINT) == []
    assert grounds["light"] != grounds["dark"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
def test_the_page_of_a_loop_fits_and_can_be_read(chromium: Browser, loop_page: Path, size: str, scheme: str) -> None:
    with opened(chromium, loop_page, viewport={"width": SIZES[size], "height": 900}, color_scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate(OVERFLOWING) == []
        assert page.evaluate(FAINT) == []
        expect(page.locator("#dev figure")).to_have_count(6)
        expect(page.locator("#tails figure")).to_have_count(8)
        expect(page.locator("#dev figure").first.locator("path.cross")).to_have_count(1)  # the other reverted round answered nothing
        expect(page.locator("#dev figure").first.locator("circle.dot")).to_have_count(3)


# Words whose contrast with what lies behind them is below 4.5 (WCAG 2 AA), translucent grounds laid on top of one another.
FAINT = """() => {
  const parts = (colour) => { const found = colour.match(/[\\d.]+/g).map(Number); return found.length > 3 ? found : [...found, 1]; };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const light = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((each) => each / 255).map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const faint = new Set();
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!own || element instanceof SVGElement || !element.getClientRects().length || ["SCRIPT", "OPTION"].includes(element.tagName)) continue;
    const grounds = [];
    for (let at = element; at; at = at.parentElement) grounds.push(parts(getComputedStyle(at).backgroundColor));
    const ground = grounds.reverse().reduce((under, top) => over(top, under), [255, 255, 255, 1]);
    const ink = over(parts(getComputedStyle(element).color), ground);
    const [high, low] = [light(ink), light(ground)].sort((a, b) => b - a);
    if ((high + 0.05) / (low + 0.05) < 4.5) faint.add(`${element.tagName} ${element.className}: ${((high + 0.05) / (low + 0.05)).toFixed(2)}`);
  }
  return [...faint];
}"""
