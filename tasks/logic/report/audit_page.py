"""The data audit as one self-contained HTML page, in the look of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.logic.audit import MOST_SHIFT, Finding
from tasks.logic.overlap import ALIKE
from tasks.logic.report.audit_view import headline, remarks, verdict
from tasks.logic.report.charts import class_share_chart
from tasks.logic.report.render import CHIPS, environment


def render_audit(figures: Mapping[str, Any], *, generated_at: str, command: str) -> str:
    """The audit as one page; `figures` is what `audit_figures` made. Everything from outside is escaped."""
    teachers, shift = figures["teachers"], figures["max_shift"]
    telling = [each for each in teachers if each["finding"] != Finding.FILTERED]
    beside = [step["yes_share"] for each in telling for step in each["steps"] if step["yes"] + step["no"]]
    shares = [(each["name"], class_share_chart(each["steps"], max_shift=shift, beside=beside)) for each in telling]
    return (
        environment()
        .get_template("audit.html")
        .render(
            audit=figures,
            title=headline(figures),
            verdicts=[verdict(each, figures) for each in teachers],
            remarks=remarks(figures),
            most_shift=MOST_SHIFT,
            alike=ALIKE,
            pipeline=class_share_chart(figures["class_shares"], max_shift=shift),
            shares=[(name, chart) for name, chart in shares if chart],
            grids=_grids(figures["overlaps_named"]),
            generated_at=generated_at,
            command=command,
            chips=CHIPS,
        )
    )


def _grids(lines: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], dict[str, dict[str, Mapping[str, Any]]]]:
    """Overlaps of published splits as tables: by the two splits, then by part of the left and part of the right."""
    grids: dict[tuple[str, str], dict[str, dict[str, Mapping[str, Any]]]] = {}
    for line in lines:
        (left, left_part), (right, right_part) = (line[side].split("/") for side in ("left", "right"))
        grids.setdefault((left, right), {}).setdefault(left_part, {})[right_part] = line
    return grids
