#!/usr/bin/env python3
"""Shows that the loom models and the simulation can fail: breaks the source in one place at a time
and runs what is named for it.

    python3 rust/carpool-core/tests/mutations [--list | --check] [NAME ...]

The crate is copied, so the working tree is never touched. Every mutation must still compile, and its
model must fail; one that survives (or no longer applies, because the source has changed) makes this
exit with 1. Needs nothing but the standard library and cargo.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from learning import LEARNING
from lives import LIVES
from many import MANY
from models import MODELS
from mutation import TESTS, UNITS, Mutation

CRATE = Path(__file__).resolve().parent.parent.parent
ROOT = CRATE.parent.parent
MUTATIONS = MODELS + LIVES + MANY + LEARNING


def copy_crate(to: Path) -> None:
    """The crate alone, with what the models and the tests need and no other dependency."""
    # Not with the times of the originals: cargo would take the last build for a fresh one.
    shutil.copytree(CRATE / "src", to / "src", copy_function=shutil.copy)
    shutil.copytree(CRATE / "tests/support", to / "tests/support", copy_function=shutil.copy)
    shutil.copytree(CRATE / "tests/plainly", to / "tests/plainly", copy_function=shutil.copy)
    shutil.copytree(CRATE / "tests/contest", to / "tests/contest", copy_function=shutil.copy)
    for test in ("loom", *TESTS):
        folder = Path("tests") / test
        if (CRATE / folder).exists():
            shutil.copytree(CRATE / folder, to / folder, copy_function=shutil.copy)
        else:
            (to / "tests").mkdir(exist_ok=True)
        shutil.copy(CRATE / "tests" / f"{test}.rs", to / "tests" / f"{test}.rs")
    shutil.copy(ROOT / "Cargo.lock", to / "Cargo.lock")
    manifest = (CRATE / "Cargo.toml").read_text()
    manifest = re.sub(r"(?ms)^\[(\[bench\]|lints)\].*?(?=^\[|\Z)", "", manifest)
    manifest = re.sub(r"(?m)^criterion = .*\n", "", manifest)
    workspace = (ROOT / "Cargo.toml").read_text()
    edition = re.search(r"(?m)^edition = .*$", workspace)
    version = re.search(r"(?m)^version = .*$", workspace)
    if not (edition and version):
        sys.exit("Cargo.toml names no version and edition")
    manifest = re.sub(r"(?m)^(?!name|description)\w[\w-]*\.workspace = true\n", "", manifest)
    manifest = manifest.replace("[package]\n", f"[package]\n{edition[0]}\n{version[0]}\n", 1)
    (to / "Cargo.toml").write_text(manifest + "\n[workspace]\n")


def cargo(crate: Path, target: Path, test: str, *args: str) -> tuple[int, str]:
    """Runs a loom model by its name, another test, or the unit tests."""
    env = os.environ | {
        "RUSTFLAGS": "--cap-lints allow",
        "RUST_BACKTRACE": "0",
        "CARGO_TARGET_DIR": str(target),
    }
    command = ["cargo", "test", "--quiet"]
    if test == UNITS:
        command += ["--lib", *args]
    elif test in TESTS:
        command += ["--test", test, *args]
    else:
        env["RUSTFLAGS"] += " --cfg loom"
        env["LOOM_MAX_PREEMPTIONS"] = "2"
        env["CARGO_TARGET_DIR"] += "/loom"
        # Without link-time optimization a mutation compiles in a second.
        env["CARGO_PROFILE_RELEASE_LTO"] = "off"
        env["CARGO_INCREMENTAL"] = "1"
        command += ["--test", "loom", "--release", *args]
        if "--no-run" not in args:
            command += ["--", *(["--exact", test] if test else [])]
    try:
        done = subprocess.run(
            command,
            cwd=crate,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
            text=True,
            errors="replace",
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 124, "timeout"
    return done.returncode, done.stdout


def verdict(chosen: Mutation, crate: Path, target: Path) -> str:
    """Nothing when it was caught, else what is wrong."""
    before: dict[Path, str] = {}
    try:
        for edit in chosen.edits:
            path = crate / "src" / edit.file
            source = path.read_text()
            before.setdefault(path, source)
            if source.count(edit.old) != 1:
                return f"applies {source.count(edit.old)} times to {edit.file}: bring it up to date"
            path.write_text(source.replace(edit.old, edit.new))
        code, output = cargo(crate, target, chosen.model, "--no-run")
        if code != 0:
            return "does not compile\n" + output
        code, output = cargo(crate, target, chosen.model)
        if code == 124:
            return "its model does not end"
        if code == 0:
            missing = "0 passed" in output
            return f"no model {chosen.model}" if missing else f"SURVIVES {chosen.model}"
        return ""
    finally:
        for path, text in before.items():
            path.write_text(text)


def stale(chosen: Mutation) -> str:
    """Nothing when the source has each of its places once, else what is wrong."""
    for edit in chosen.edits:
        count = (CRATE / "src" / edit.file).read_text().count(edit.old)
        if count != 1:
            return f"applies {count} times to {edit.file}: bring it up to date"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("names", nargs="*", help="mutations to try; all without")
    parser.add_argument("--list", action="store_true", help="print the names and their models")
    parser.add_argument("--check", action="store_true", help="only that each applies to the source")
    options = parser.parse_args()
    if options.list:
        for one in MUTATIONS:
            print(f"{one.name:40} {one.model}")
        return 0
    unknown = set(options.names) - {one.name for one in MUTATIONS}
    if unknown:
        parser.error(f"no such mutation: {', '.join(sorted(unknown))}")
    chosen = [one for one in MUTATIONS if not options.names or one.name in options.names]
    if options.check:
        wrong = [f"{one.name}: {stale(one)}" for one in chosen if stale(one)]
        print(*wrong, f"{len(chosen) - len(wrong)} of {len(chosen)} mutations apply", sep="\n")
        return 1 if wrong else 0
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "mutations"
    bad = 0
    with tempfile.TemporaryDirectory(prefix="carpool-mutations-") as folder:
        crate = Path(folder)
        copy_crate(crate)
        for test in ("", UNITS, *TESTS):
            code, output = cargo(crate, target, test)
            if code != 0:
                print(output, "\nthis fails on the source as it is", sep="")
                return 1
        for one in chosen:
            start = time.monotonic()
            wrong = verdict(one, crate, target)
            bad += bool(wrong)
            took = time.monotonic() - start
            print(
                f"{'NOT CAUGHT' if wrong else 'caught':10} {one.name:40} {took:5.1f} s  {wrong}",
                flush=True,
            )
    print(f"{len(chosen) - bad} of {len(chosen)} mutations caught")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
