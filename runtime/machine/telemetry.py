"""The one switch of the telemetry in the libraries underneath: off, unless it is asked for."""

from __future__ import annotations

import os

TELEMETRY_OPT_IN = "PHI3V_TELEMETRY"
"""Set to 1 to leave the libraries' own telemetry on."""


def telemetry_wanted() -> bool:
    """Whether somebody asked for it."""
    return os.environ.get(TELEMETRY_OPT_IN) == "1"


def switch_off_genais_telemetry() -> None:
    """To be called before onnxruntime-genai is imported, whose uploader starts then."""
    if not telemetry_wanted():
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
