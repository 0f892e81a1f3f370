"""Every error a user can meet, drawn as a tree; each message says what to do next.

SocratuneError
├── ProfileError            a profile or an override is wrong; lists every fault at once
├── DataError               a question file, a recording or a prediction file is wrong
├── ArtifactError           an artifact is missing, damaged or of another shape
│   ├── NotFingerprintable  a recipe holds a value without a stable form
│   └── NotYet              a plan came to something that only a run can make
├── TeacherError            the teacher cannot answer
│   ├── TeacherRefused      the endpoint says no for good: key, quota, model, request
│   ├── NoReply             one question got no reply after all tries; the others go on
│   │   ├── NotRecorded     a recording does not hold the question
│   │   └── Rejected        the endpoint will never answer this question
│   ├── Stopped             other questions of the same run met one of the above, so these were not asked
│   └── TeacherUnavailable  the endpoint stays down, or asks for a longer wait than we take
├── BudgetReached           the ledger would spend more than its cap
├── GuardError              a preflight guard found a silent fault before it cost anything
│   └── UnbalancedCorpus    a filter moved the class shares further than the recipe allows
├── StudentError            a student cannot be fetched, checked or loaded
├── ServerError             no Prefect server answers
└── JobFailed               a training job ended badly; carries the end of its log
"""

from __future__ import annotations


class SocratuneError(Exception):
    """Base of all errors that are told to the user as one message, without a traceback."""


class ProfileError(SocratuneError):
    """One or more configuration faults, all listed in one message."""

    def __init__(self, source: str, faults: list[str]) -> None:
        self.faults = tuple(faults)
        several = f"{len(faults)} faults\n" + "\n".join(f"  - {fault}" for fault in faults)
        super().__init__(f"{source}: {faults[0] if len(faults) == 1 else several}")


class DataError(SocratuneError):
    """Input data that cannot be used as it is."""


class ArtifactError(SocratuneError):
    """An artifact that is missing, damaged, or not what the reader expects."""


class NotFingerprintable(ArtifactError):
    """A value that has no stable canonical form, so no address can be made of it."""


class NotYet(ArtifactError):
    """An artifact that is foreseen and not made yet, so nothing behind it can be foreseen."""


class TeacherError(SocratuneError):
    """The teacher cannot answer."""


class TeacherRefused(TeacherError):
    """A refusal that no retry can mend: wrong key, no quota, unknown model, malformed request."""


class NoReply(TeacherError):
    """One question got no reply after `tries` calls, the last of which ended with HTTP `status` (0: no answer). It becomes a failed row.

    `alike` is what the fault has in common with the same fault of other questions ("": nothing), `advice` what to do where all of them get it.
    """

    def __init__(self, message: str, *, tries: int, status: int = 0, alike: str = "", advice: str = "") -> None:
        self.tries = tries
        self.status = status
        self.alike = alike
        self.advice = advice
        super().__init__(message)


class Rejected(NoReply):
    """The endpoint refuses this one request for good; its row ends with `outcome`."""

    def __init__(self, message: str, *, outcome: str, tries: int, status: int, alike: str, advice: str) -> None:
        self.outcome = outcome
        super().__init__(message, tries=tries, status=status, alike=alike, advice=advice)


class NotRecorded(NoReply):
    """A recording does not hold what was asked."""

    def __init__(self) -> None:
        super().__init__("not in the recordings", tries=1)


class Stopped(TeacherError):
    """These questions were not asked because others of the run met an error that ends it."""

    def __init__(self) -> None:
        super().__init__("not asked: the run was stopped by another error; run again to go on")


class TeacherUnavailable(TeacherError):
    """The endpoint kept failing, or asked for a longer wait than one run should take."""


class BudgetReached(SocratuneError):
    """The next call could exceed the spending cap."""


class GuardError(SocratuneError):
    """A preflight guard found a fault that would otherwise have been silent."""


class UnbalancedCorpus(GuardError):
    """Class shares moved further than `recipe.curate.max_shift` allows."""


class StudentError(SocratuneError):
    """A student model that cannot be fetched, checked or loaded."""


class ServerError(SocratuneError):
    """No Prefect server answers where one is named, or the temporary one did not come up."""


class JobFailed(SocratuneError):
    """A training job ended with an error; the message carries the end of its log."""
