"""Pictures of pages, by headless Chromium: the same that a person would open."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

SIZE = "1600,1000"


def picture(url: str, path: Path, *, seconds: int = 15) -> None:
    """Take a picture of a page once its scripts have had so many seconds."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                program,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                f"--user-data-dir={profile}",
                f"--window-size={SIZE}",
                f"--virtual-time-budget={1000 * seconds}",
                f"--timeout={4000 * seconds}",
                f"--screenshot={path}",
                url,
            ],
            check=True,
            capture_output=True,
            timeout=300,
        )
    assert path.stat().st_size > 10_000, f"nothing to see at {url}"
