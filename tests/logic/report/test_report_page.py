"""The HTML page: complete, escaped, self-contained, and honest about what happened."""

from __future__ import annotations

import hashlib
import html
import re
from base64 import b64encode
from html.parser import HTMLParser
from typing import Any

import pytest
from jinja2 import UndefinedError

from tasks.contracts.failures import DataError
from tasks.logic.report.render import render_report
from tasks.logic.report.view import LossCurve
from tests.logic.report.sample_run import sample_summary, sample_view

VOID = {"meta", "link", "br", "input"}


class Page(HTMLParser):
    """Collects what the tests ask for, and fails on tags that do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.addresses: list[str] = []
        self.heading = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        if "id" in values:
            self.ids.append(values["id"])
        for name in ("href", "src", "srcset", "data", "action", "poster"):
            if name in values:
                (self.targets if values[name].startswith("#") else self.addresses).append(values[name])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "h1" in self.open:
            self.heading += data


BARE: dict[str, Any] = dict.fromkeys(("curves", "preference_loss", "margins", "selection", "transcripts", "provenance", "notes"), ()) | {"reliability": {}}


@pytest.fixture(scope="module")
def text():
    return render_report(sample_view())


def test_the_page_is_well_formed_and_its_links_lead_somewhere(text):
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert {target.removeprefix("#") for target in page.targets} <= set(page.ids)
    assert "artifact-predict-ab12cd34" in page.ids
    assert {"#artifact-predict-ab12cd34", "#artifact-finetune-track_b-90ab33cd"} <= set(page.targets)


def test_the_page_asks_nobody_for_anything(text):
    page = Page(text)
    assert page.addresses == ["data:,"]  # the empty icon, so that a browser does not go and look for one
    assert not {"img", "iframe", "object", "embed"} & set(page.tags)
    data, script = re.findall(r"<script([^>]*)>(.*?)</script>", text, flags=re.DOTALL)
    assert data[0] == ' type="application/json" id="browser-data"'
    assert script[0] == ""
    digest = b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html.unescape(text)  # this one script may run, and no other
    assert "url(" not in text
    assert "@import" not in text
    assert "http://" not in text
    assert "https://" not in text
    assert "default-src 'none'" in text
    assert len(text) < 1_000_000


def test_every_part_of_a_run_is_in_the_page(text):
    summary = sample_summary()
    wanted = ["socratune run demo --set recipe.seed=2", "2031-02-03 04:05 UTC", "recipe.seed=2", "teacher agrees with gold", "44 BC is before 1876."]
    wanted += ["118,204", "0.14", "models/finetune/90ab33cd", "4be1c07a", "revision was not pinned", "The telephone came in 1876.", "beta 0.10, batch_mean"]
    wanted += [f"{100 * cell['accuracy']:.1f} %" for model in summary["models"].values() for cell in model["arms"].values()]
    wanted += [f"{100 * cell['accuracy']:.1f} %" for model in summary["controls"].values() for cell in model["arms"].values()]
    assert [part for part in wanted if part not in text] == []
    assert text.count('<details class="entry">') == 10
    assert text.count('<polyline class="curve') == 3 + 1 + 3 + 2 + 1 + 2  # losses, preference loss, log-ratios, dev by epoch, class shares, reliability


def test_text_from_outside_is_shown_and_never_run():
    nasty = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>"
    page = render_report(sample_view(teacher=nasty, notes=(nasty,), command=f"run {nasty}"))
    assert page.count("<script") == 2
    assert "<img" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 10 + 1 + 1
    Page(page)


def test_the_headline_says_what_happened_also_when_it_is_bad(text):
    assert Page(text).heading == "Track B beats Track A"
    level = render_report(sample_view(sample_summary({("track_b", "reasoning"): 0.53})))
    assert Page(level).heading == "No clear difference between Track B and Track A"
    worse = render_report(sample_view(sample_summary({("track_b", "reasoning"): 0.2})))
    assert Page(worse).heading == "Track B is worse than Track A"
    assert Page(render_report(sample_view(sample_summary(comparisons=[])))).heading == "Nothing was compared"


def test_a_run_without_training_transcripts_or_controls_still_renders():
    bare = sample_view(sample_summary(controls={}, test_reads=[], overrides={}), **BARE)
    page = render_report(bare)
    assert "Nothing was trained in this run." in page
    assert "No test split has been read." in page
    Page(page)


def test_a_diverged_training_is_told():
    with pytest.raises(DataError, match="diverged"):
        render_report(sample_view(curves=(LossCurve(model="track_b", points=((1, 2.0), (2, float("nan")))),)))


def test_an_incomplete_summary_is_refused():
    broken = sample_summary()
    del broken["models"]["track_b"]["arms"]["reasoning"]["balanced_accuracy"]
    with pytest.raises(UndefinedError, match="balanced_accuracy"):
        render_report(sample_view(broken))
