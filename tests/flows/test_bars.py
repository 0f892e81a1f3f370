"""What a person sees while a run goes on, at a clock of the test's own."""

from __future__ import annotations

import io
from dataclasses import dataclass, field

import pytest
from rich.console import Console

from flows.bars import Bars, Lines
from flows.countdown import Countdown, expected
from flows.plan import open_plan
from tasks.watch import Progress, State
from tests.flows.pipeline import PROFILE


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Heard:
    """Words about stages at the times they are said, for a countdown."""

    countdown: Countdown
    clock: Clock = field(default_factory=Clock)

    def say(self, at: float, stage: str, state: State, share: float | None = None) -> None:
        self.clock.now = at
        self.countdown.hear(Progress(stage, 0, 0, "", state, share=share), now=at)


def test_the_time_left_is_known_from_the_start_counts_down_and_outlives_a_stall() -> None:
    heard = Heard(Countdown(["draft train", "finetune track_a"], before={"draft": 100.0, "finetune": 300.0}))
    assert heard.countdown.run_left(now=0) == 400
    heard.say(0, "draft train", State.STARTED)
    assert heard.countdown.stage_left("draft train", now=0) == 100
    assert heard.countdown.stage_left("draft train", now=40) == 60
    heard.say(50, "draft train", State.RUNNING, share=0.25)
    assert heard.countdown.stage_left("draft train", now=50) == 150, "its own pace is believed once a fifth is done"
    assert heard.countdown.stage_left("draft train", now=5000) > 0, "nothing was heard for long"
    heard.say(200, "draft train", State.DONE)
    slower = heard.countdown.run_left(now=200)
    assert slower is not None
    assert 300 < slower < 600, "the rest is slower too, half believed"


def test_reused_stages_and_those_that_never_come_leave_no_time() -> None:
    heard = Heard(Countdown(["draft train", "finetune track_a_matched", "grade"], before={"draft": 10.0, "finetune": 300.0, "grade": 5.0}))
    heard.say(0, "draft train", State.REUSED)
    heard.say(1, "grade", State.STARTED)
    assert heard.countdown.run_left(now=1) == 5
    assert (heard.countdown.ended, heard.countdown.total) == (2, 3)


def test_a_share_that_goes_back_is_not_believed() -> None:
    heard = Heard(Countdown(["pair"], before={"pair": 100.0}))
    heard.say(0, "pair", State.STARTED)
    heard.say(10, "pair", State.RUNNING, share=0.5)
    heard.say(10, "pair", State.RUNNING, share=0.1)
    assert heard.countdown.stage_left("pair", now=10) == 10


def test_a_profile_expects_its_stages_in_the_order_of_the_flow() -> None:
    stages = expected(open_plan(str(PROFILE)))
    assert stages[:5] == ("student", "sample train", "draft train", "sample dev", "draft dev")
    assert stages.index("finetune track_a") < stages.index("pair") < stages.index("predict aligned on dev") < stages.index("grade")


def test_without_a_terminal_there_is_a_line_a_stage_and_one_a_minute() -> None:
    clock, out = Clock(), io.StringIO()
    countdown = Countdown(["sample train", "draft train"], before={"draft": 200.0, "sample": 1.0})
    lines = Lines(Console(file=out, width=80), countdown, clock=clock)
    lines.hear(Progress("sample train", 1, 1, "24 rows", State.REUSED, seconds=1.25))
    lines.hear(Progress("draft train", 0, 0, "", State.STARTED))
    for second in range(1, 131):
        clock.now = second
        lines.hear(Progress("draft train", second, 260, f"{second} of 260 answered", share=second / 260))
        lines.tick()
    lines.hear(Progress("draft train", 1, 1, "24 rows", State.DONE, seconds=130.0))
    said = out.getvalue().splitlines()
    assert said[0] == "sample train: reused, it took 1.2 s (24 rows)"
    assert said[1].startswith("draft train: started; the whole run: 1/2, about 3 min 20 s left")
    assert said[2].startswith("draft train: 60/260, about 3 min 20 s left, 60 of 260 answered; the whole run: ")
    assert said[3].startswith("draft train: 120/260, about 2 min 20 s left")
    assert said[4] == "draft train: finished in 2 min 10 s (24 rows)"
    assert len(said) == 5


@pytest.mark.parametrize("width", [60, 80, 120])
def test_on_a_terminal_counts_and_times_are_whole_at_any_width(width: int) -> None:
    clock, out = Clock(), io.StringIO()
    countdown = Countdown(["draft train", "finetune shuffled_rationale"], before={"draft": 100.0, "finetune": 4000.0})
    console = Console(file=out, width=width, force_terminal=True, color_system=None, legacy_windows=False)
    bars = Bars(console, countdown, clock=clock)
    bars.hear(Progress("draft train", 1, 1, "24 rows", State.REUSED, seconds=75.0))
    bars.hear(Progress("finetune shuffled_rationale", 0, 0, "", State.STARTED))
    clock.now = 1000.0
    bars.hear(Progress("finetune shuffled_rationale", 1234, 2468, "a note that is long, " * 9, share=0.25))
    console.print(bars.renderable)
    shown = [line.rstrip() for line in out.getvalue().splitlines() if line.strip()]
    assert shown[0] == "draft train: reused, it took 1 min 15 s (24 rows)"
    stage, run = shown[1:]
    assert "1234/2468" in stage
    assert "16:40 50:00 left" in stage
    assert stage.endswith("…"), "the note gives way"
    assert "the whole run" in run
    assert "50:00 left" in run
    assert max(map(len, shown)) <= width
