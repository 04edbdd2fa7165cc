"""The one switch for the telemetry of the libraries underneath: off, unless it is asked for."""

from __future__ import annotations

import os

TELEMETRY_OPT_IN = "PHI3V_TELEMETRY"
"""Set to 1 to leave the libraries' own telemetry on."""


def telemetry_wanted() -> bool:
    """Whether the user asked for telemetry."""
    return os.environ.get(TELEMETRY_OPT_IN) == "1"


def switch_off_genais_telemetry() -> None:
    """Call this before importing onnxruntime-genai, which starts its uploader on import."""
    if not telemetry_wanted():
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
