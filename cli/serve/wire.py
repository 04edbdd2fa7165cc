"""What the models of all APIs have in common."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """Takes JSON's own types only, and no field that it does not know: what cannot be kept is never ignored."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Sent(BaseModel):
    """What is sent to clients."""


Crops = Annotated[int, Field(ge=1, le=16)] | Literal["auto"]
Neutral = Literal[0] | None
"""A field that changes nothing at this value, and may have no other."""

Schema = dict[str, Any]
