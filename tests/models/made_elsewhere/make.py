"""Make the files in this folder anew: each exporter in an environment of its own, with the versions pinned beside it.

    python tests/models/made_elsewhere/make.py                    # all of them, in temporary environments
    python tests/models/made_elsewhere/make.py trees --environments ~/exporters

Needs nothing but Python 3.11 to 3.13 and a package index; TensorFlow alone takes 1.5 GB on disk while it runs. Models
are drawn from fixed seeds; files made twice on one machine are equal but for names that exporters number anew.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
MAKERS = ("keras", "jax", "trees")
"""``NAME_models.py`` makes the files of each, with the packages of ``NAME.txt``."""


def make(maker: str, environments: Path) -> None:
    """Install what a maker needs, unless that was done before, and run it."""
    place = environments / maker
    python = place / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    pins = HERE / f"{maker}.txt"
    done = place / "installed.txt"
    if not done.exists() or done.read_text() != pins.read_text():
        venv.create(place, with_pip=True, clear=True)
        _call(python, "-m", "pip", "install", "--quiet", "--requirement", str(pins))
        done.write_text(pins.read_text())
    _call(python, str(HERE / f"{maker}_models.py"), str(HERE))


def _call(python: Path, *arguments: str) -> None:
    command: Sequence[str] = [str(python), *arguments]
    if status := subprocess.run(command, check=False).returncode:
        sys.exit(f"make: '{' '.join(command)}' left with status {status}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="make", description=__doc__.partition("\n")[0])
    parser.add_argument("makers", nargs="*", metavar="maker", help=f"{', '.join(MAKERS)} (default: all)")
    parser.add_argument("--environments", type=Path, help="keep them in this folder, for the next time")
    options = parser.parse_args()
    if unknown := set(options.makers) - set(MAKERS):
        parser.error(f"no maker {', '.join(sorted(unknown))}; there are {', '.join(MAKERS)}")
    with tempfile.TemporaryDirectory(prefix="ozgraph-makers-") as temporary:
        for maker in options.makers or MAKERS:
            make(maker, options.environments or Path(temporary))


if __name__ == "__main__":
    main()
