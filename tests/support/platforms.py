"""Marks of tests that need what not every system has that phi3v runs on."""

import os
import sys
from pathlib import Path

import pytest

needs_posix = pytest.mark.skipif(os.name != "posix", reason="the system has no POSIX signals, pipes and shell")
needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system has no /proc")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="of Linux alone")
