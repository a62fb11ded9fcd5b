"""All benchmarks, one after the other, each in a process of its own: ``python -m benchmarks``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run every module of this folder; the exit code is the number of those that failed."""
    names = sorted(f.stem for f in Path(__file__).parent.glob("*.py") if not f.stem.startswith("__"))
    failed = 0
    for name in names:
        print(f"\n== {name}", flush=True)
        failed += subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
