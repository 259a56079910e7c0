"""Fetch the whole of Fashion-MNIST into ``data/full/fashion-mnist``, as ``make data`` does.

The images come from the Debian package ``dataset-fashion-mnist``, with ``apt-get download`` and ``dpkg-deb
-x``: nothing is installed and nothing needs root. Only the standard library is used, so that any Python runs
this.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = "dataset-fashion-mnist"
FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
OTHERWISE = (
    f"Get the four files {', '.join(FILES)} elsewhere (they are published with the paper "
    "'Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms') "
    "and put them into the folder."
)


def fetch(out: Path) -> None:
    """Download and unpack the package, and put its four files into a folder.

    Args:
        out: The folder; made where it does not exist.

    Raises:
        SystemExit: A tool is missing, or the download failed; the message says what to do.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is not on PATH: the data come from a Debian package.\n{OTHERWISE}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".fetching-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        # As root, apt-get would download as user _apt, who may not write here.
        command = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", PACKAGE]
        done = subprocess.run(command, cwd=folder, check=False)  # noqa: S603
        packages = sorted(folder.glob("*.deb"))
        if done.returncode or not packages:
            sys.exit(f"`{' '.join(command)}` failed; `apt-get update` as root renews apt's lists.\n{OTHERWISE}")
        subprocess.run(  # noqa: S603
            ["dpkg-deb", "-x", packages[0].name, "unpacked"],  # noqa: S607
            cwd=folder,
            check=True,
        )
        ready = folder / "ready"
        ready.mkdir()
        for file in FILES:
            found = sorted((folder / "unpacked").rglob(file))
            if not found:
                sys.exit(f"{packages[0].name} does not hold {file}.\n{OTHERWISE}")
            found[0].replace(ready / file)
        out.mkdir(exist_ok=True)
        for file in FILES:
            (ready / file).replace(out / file)
    print(f"{out}: {', '.join(FILES)}")


def main() -> None:
    """Fetch into the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path(__file__).parent / "full" / "fashion-mnist",
        help="folder to fill",
    )
    options = parser.parse_args()
    if all((options.out / file).is_file() for file in FILES):
        print(f"{options.out}: already there")
    else:
        fetch(options.out)


if __name__ == "__main__":
    main()
