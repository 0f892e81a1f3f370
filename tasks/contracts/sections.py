"""What every section of a profile is: frozen, complete, without unknown keys; and the kinds of number in it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0.0)]
Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class Section(BaseModel):
    """Nothing in a section has a default: a profile is complete, and a number has one home, in YAML, with its reason beside it."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
