"""Install torch for the tests and the demo: the CPU build wherever one can be had.

Left to itself, pip on Linux takes the CUDA build: gigabytes, of which nothing here uses a byte.
Run with the interpreter of the virtual environment; `--cpu-only` installs nothing rather than CUDA.
Writes the version that is installed, if any, as a constraint, so that no later pip command trades it
for another build.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

CPU_VERSION = Path(__file__).with_name("torch-cpu.txt")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CUDA_SIZE = "about 2.9 GB: torch and 15 CUDA packages"

PIP = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]


def installed() -> str | None:
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return None


def offered(*source: str) -> bool:
    """Whether pip finds there, and only there, a wheel of the CPU build for this interpreter."""
    probe = [*PIP, "--quiet", "--dry-run", "--no-deps", "--only-binary=:all:", *source]
    probe += ["--retries=0", "--timeout=10", "--constraint", str(CPU_VERSION), "torch"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def install(*arguments: str) -> None:
    subprocess.run([*PIP, *arguments, "torch"], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu-only", action="store_true", help="rather no torch than CUDA")
    parser.add_argument("--find-links", type=Path, help="folder that may hold a wheel")
    parser.add_argument("--constraint", type=Path, help="file to write the version to")
    options = parser.parse_args()

    folder: Path | None = options.find_links
    if installed():
        pass
    elif folder and folder.is_dir() and offered("--no-index", f"--find-links={folder}"):
        print(f"torch: the CPU build in {folder}", flush=True)
        install("--quiet", f"--find-links={folder}", "--constraint", str(CPU_VERSION))
    elif offered(f"--index-url={CPU_INDEX}"):
        print(f"torch: the CPU build of {CPU_INDEX}", flush=True)
        install("--quiet", f"--extra-index-url={CPU_INDEX}", "--constraint", str(CPU_VERSION))
    elif platform.system() != "Linux":
        print("torch: the index's build, which is for the CPU here", flush=True)
        install("--quiet")
    elif options.cpu_only:
        print("torch: no CPU build for this interpreter; what needs torch is skipped", flush=True)
    else:
        print(
            f"torch: no CPU build for this interpreter; downloading the CUDA build, {CUDA_SIZE}",
            flush=True,
        )
        install()

    if options.constraint:
        version = installed()
        options.constraint.write_text(f"torch=={version}\n" if version else "")


if __name__ == "__main__":
    main()
