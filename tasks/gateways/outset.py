"""Whether asking is worth going on: nothing is bought at full pace before a first reply could be used.

Shared by everything that a process asks of one teacher. A few calls go out first, one alone where a cap is to hold; they show whether the endpoint takes
requests of this kind, what a call really costs, and whether its replies can be used.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tasks.contracts.failures import NoReply, TeacherRefused
from tasks.gateways.prices import Price
from tasks.gateways.teacher import Reply, Request
from tasks.gateways.tokens import most_tokens

AT_FIRST = 5  # calls at once before a reply could be used; and refusals alike, with no reply between them, that end the run
IN_VAIN = 36  # replies, none of which could be used, that end the run


@dataclass
class Outset:
    """What came back so far. `answered`: some reply, now or in an earlier run; `useful`: one that could be used."""

    answered: bool = False
    useful: bool = False
    _alike: Counter[str] = field(default_factory=Counter)
    _last: NoReply | None = None
    _vain: dict[str, str] = field(default_factory=dict)  # why by key
    _inside: int = 0
    _moved: asyncio.Event = field(default_factory=asyncio.Event)
    _dear: tuple[float, float] = (1.0, 1.0)  # the most that a prompt, and a reply, took of what it was thought to take at most

    @asynccontextmanager
    async def place(self, *, capped: bool) -> AsyncIterator[None]:
        """A place among the first calls, without limit once a reply could be used."""
        while not self.useful and self._inside >= (1 if capped and not self.answered else AT_FIRST):
            self._moved.clear()
            await self._moved.wait()
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            self._moved.set()

    def heard(self, key: str, problem: str) -> None:
        """Note a reply, and why it cannot be used."""
        self.answered = True
        if self.useful:
            return
        self.useful = not problem
        self._vain[key] = problem
        self._moved.set()

    def refuse_vain(self) -> None:
        """Raise TeacherRefused before another call where none of some dozens of replies could be used."""
        if not self.useful and len(self._vain) >= IN_VAIN:
            problem, times = Counter(self._vain.values()).most_common(1)[0]
            raise TeacherRefused(
                f"none of the first {len(self._vain)} replies can be used ({times} times: {problem}); no more are bought. They are in the ledger; change "
                "recipe.teacher (max_tokens where replies are cut, response_format or model otherwise) and run again"
            )

    def refused(self, fault: NoReply) -> None:
        """Note a question without a reply."""
        if not self.answered:
            self._alike[fault.alike] += 1
            self._last = fault

    def refuse_alike(self, *, enough: int = AT_FIRST) -> None:
        """Raise TeacherRefused where all of at least `enough` questions so far, and more than one, got the same answer in place of a reply."""
        fault, times = self._last, self._alike.total()
        if not self.answered and fault is not None and fault.alike and len(self._alike) == 1 and times >= max(min(enough, AT_FIRST), 2):
            raise TeacherRefused(f"each of the first {times} calls got the same answer ({fault}), so no more are sent; {fault.advice}")

    def learn_cost(self, request: Request, reply: Reply) -> None:
        """Remember by how much a call passed what it was thought to cost at most."""
        most_in, most_out = most_tokens(request.messages), request.settings.max_tokens
        self._dear = max(self._dear[0], reply.tokens_in / max(most_in, 1)), max(self._dear[1], reply.tokens_out / max(most_out, 1))

    def worst_usd(self, request: Request, price: Price) -> float:
        """The most that a request costs, by what calls have come to cost."""
        dear_in, dear_out = self._dear
        return price.usd(tokens_in=round(most_tokens(request.messages) * dear_in), tokens_out=round(request.settings.max_tokens * dear_out))
