"""The defences against malicious updates taken away, one at a time: the attack each stands against is seen.

`python -m bench.mutants.attacks [--only CASE]`. One process board has every weakened module frozen in beside
the honest ones (bench/mutants/ota.py), and runs the case of the attacks suite that the defence is for.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import images
from bench.boards.catalogue import BoardRequest, Firmware
from bench.errors import BenchError
from bench.measure import FAIL, Measurement
from bench.mutants.planted import Mutant
from bench.results import CaseResult
from bench.rig import Rig, RigOptions
from bench.suites import attacks
from bench.suites.runner import Progress, run_suite

SEED = 5


def _without(name: str, file: str, case: str, *changes: tuple[str, str]) -> Mutant:
    return Mutant(name, file, case, changes)


MUTANTS = (
    _without(
        "manifest signature",
        "ota/agent.py",
        "manifest_by_another_key_is_refused",
        ("        if not await run_steps(signed):", "        if not await run_steps(signed) and False:"),
    ),
    _without(
        "certificate by the root",
        "wire/keys.py",
        "certificate_by_another_root_is_refused",
        ("    if kid != root.kid:", "    if False:"),
        (
            '    if not (yield from sign1_verify_steps(root, aad("cert"',
            '    if 0 and not (yield from sign1_verify_steps(root, aad("cert"',
        ),
    ),
    _without(
        "version floor",
        "ota/states.py",
        "release_below_the_floor_is_refused",
        ("    if version < state.floor:", "    if False:"),
    ),
    _without(
        "question before installing",
        "ota/agent.py",
        "offer_the_server_does_not_name_is_stale",
        ("        if not await self.authority.is_fresh(digest, self.questions()):", "        if False:"),
    ),
    _without(
        "nonce of the answer",
        "wire/fresh.py",
        "recorded_answer_names_no_release",
        ("    if nonce not in nonces:", "    nonce = (nonces or [nonce])[0]\n    if nonce not in nonces:"),
    ),
    _without(
        "session key of the answer",
        "wire/fresh.py",
        "forged_answer_names_no_release",
        ("    mac0_verify(key, aad(purpose, identity.site,", "    (key, aad(purpose, identity.site,"),
    ),
    _without(
        "hashes of chunks and files",
        "ota/install.py",
        "chunks_of_two_releases_do_not_mix",
        ("            if hashlib.sha256(data).digest() != file.read(_HASH_BYTES):", "            if False:"),
        ("            if found != file_hash:", "            if False:"),
    ),
    _without(
        "chunk expected next",
        "ota/install.py",
        "endless_data_fills_nothing",
        ("        return index == self.next_chunk and self", "        return self"),
    ),
    _without(
        "waiting without standing still",
        "ota/agent.py",
        "slow_server_delays_no_order",
        (
            "            self._progress.clear()\n            try:",
            "            self._progress.clear()\n            __import__('time').sleep(2)\n            try:",
        ),
    ),
    _without(
        "hardware and site",
        "ota/install.py",
        "bundle_for_other_hardware_is_refused",
        ('    if manifest.hardware != hardware or manifest.group not in ("", site):', "    if False:"),
    ),
    _without(
        "range of firmware images",
        "ota/install.py",
        "bundle_over_another_image_is_refused",
        ("    if not manifest.firmware_min <= image_version <= manifest.firmware_max:\n", "    if False:\n"),
    ),
    _without(
        "digest of the image",
        "ota/fits.py",
        "bundle_over_another_image_is_refused",
        ("            return file_hash == named\n", "            return True\n"),
    ),
    _without(
        "a bundle over an image it does not name",
        "ota/fits.py",
        "bundle_over_another_image_is_refused",
        ("    return not overlays\n", "    return True\n"),
    ),
    _without(
        "hash at every start",
        "ota/states.py",
        "bytes_changed_after_the_check_do_not_run",
        ("    if not is_whole(state.target(), state.other_hash):", "    if False:"),
    ),
    _without(
        "manifest signature, with the server owned",
        "ota/agent.py",
        "owned_server_installs_nothing_unsigned",
        ("        if not await run_steps(signed):", "        if not await run_steps(signed) and False:"),
    ),
    _without(
        "the image's own root key",
        "ota/install.py",
        "bundle_cannot_bring_its_own_root",
        ("    if path in _RESERVED:", "    if False:"),
    ),
    _without(
        "memory of the release key",
        "ota/authority.py",
        "new_release_key_needs_the_old_ones_word",
        ("        if known and epoch != known:", "        if False:"),
    ),
    _without(
        "old key's signature under a rotation",
        "ota/rotation.py",
        "new_release_key_needs_the_old_ones_word",
        (
            "        if kid != key.kid:\n            raise WireError(WRONG_KEY)\n",
            "        key = after.public\n",
        ),
        (
            "((before.public, by_old), (after.public, by_new))",
            "((before.public, by_new), (after.public, by_new))",
        ),
    ),
    _without(
        "retirement of a release key",
        "ota/authority.py",
        "retired_release_key_signs_nothing_more",
        ("        if known and epoch != known:", "        if known and epoch > known:"),
    ),
)


class _WeakRig(Rig):
    """A rig whose process boards have one defence less."""

    def __init__(self, binary: Path, folder: Path) -> None:
        super().__init__(RigOptions(BoardRequest("process"), SEED), folder)
        self._binary = binary

    @property
    def firmware(self) -> Firmware:
        return Firmware(self._binary, "weakened", images.MICROPYTHON_VERSION, False)


class _Verdict(Progress):
    """Keeps the last case's result."""

    result: CaseResult | None = None

    def suite_begins(self, suite: str, about: str, cases: int) -> None:
        pass

    def case_begins(self, suite: str, case: str) -> None:
        pass

    def case_ends(self, suite: str, result: CaseResult) -> None:
        self.result = result

    def measured(self, suite: str, figure: Measurement) -> None:
        pass

    def suite_ends(self, suite: str, seconds: float) -> None:
        pass


def image() -> Path:
    """The process board with every weakened module. Raises: BenchError(STALE_MUTANT), images.ImageError."""
    return images.build_changed({mutant.frozen: mutant.source() for mutant in MUTANTS})


def find(mutant: Mutant, binary: Path, folder: Path) -> CaseResult:
    """Run the case a defence is for without that defence. Raises: BenchError."""
    verdict = _Verdict()
    swap = f"terminal/{mutant.file}={mutant.frozen}"
    os.environ["TABLESIDE_SWAP"] = swap  # every board process started from here takes it along
    try:
        with _WeakRig(binary, folder) as rig:
            run_suite(rig, attacks.SUITE, verdict, mutant.where)
    finally:
        del os.environ["TABLESIDE_SWAP"]
    if verdict.result is None:
        raise BenchError("NO_SUCH_CASE", f"The attacks suite has no case {mutant.where!r}.")
    return verdict.result


def hunt(only: str | None, say: Callable[[str], None]) -> int:
    """Take every defence away in turn; returns how many were not missed. Raises: BenchError, ImageError."""
    say(f"one process board with {len(MUTANTS)} defences taken away is built, if it is not there")
    binary = image()
    unnoticed = 0
    for mutant in MUTANTS:
        if only not in (None, mutant.where):
            continue
        with tempfile.TemporaryDirectory(prefix="tableside-attacks-") as folder:
            result = find(mutant, binary, Path(folder))
        caught = result.outcome == FAIL
        unnoticed += not caught
        word = "caught  " if caught else "SURVIVED"
        say(f"{word} {result.seconds:5.1f} s  without {mutant.name}: {mutant.where}: {result.detail[:90]}")
    return unnoticed


def main() -> int:
    """Print the table; the exit code is 1 when a defence can go unnoticed, 2 when the bench cannot run."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.mutants.attacks", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--only", metavar="CASE", help="only the defences this case is for")
    arguments = parser.parse_args()
    try:
        return 1 if hunt(arguments.only, lambda text: print(text, flush=True)) else 0
    except (BenchError, images.ImageError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
