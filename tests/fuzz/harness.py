# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Runs a fuzz target: with atheris where it is installed, else by plain mutation of the seeds.

    pip install atheris
    python tests/fuzz/fuzz_weights.py --seconds 120
    python tests/fuzz/fuzz_results.py --seconds 120

A target takes bytes and raises for every outcome but the two allowed: it reads them, or it raises the one error that
names the file. Running code from them is a finding too: an audit hook watches commands, processes and connections.

Corpus: the seeds are made by the targets themselves from small valid files, and what atheris adds stays in a temporary
folder. The input of a finding is committed as ``tests/fuzz/corpus/<target>/<first 12 of its SHA-1>`` together with the
repair; ``tests/reliability/test_fuzz_corpus.py`` replays seeds and findings in every test run.
"""

import argparse
import hashlib
import importlib.util
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
FORBIDDEN = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen", "socket.connect")

Target = Callable[[bytes], None]
_watching = [False]


class CodeRanError(BaseException):
    """A file made the process do something that reading never does."""


def _audit(event: str, arguments: tuple) -> None:
    if _watching[0] and event in FORBIDDEN:
        _watching[0] = False
        msg = f"{event}{arguments} while a file was read"
        raise CodeRanError(msg)


sys.addaudithook(_audit)


def guarded(target: Target) -> Target:
    """The target with the audit hook on."""

    def run(data: bytes) -> None:
        _watching[0] = True
        try:
            target(data)
        finally:
            _watching[0] = False

    return run


def corpus(name: str) -> list[bytes]:
    """Inputs of earlier findings."""
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]


def mutate(generator: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """One to four random edits: bits, bytes, lengths, cuts, repeats and pieces of other seeds."""
    content = bytearray(data)
    for _ in range(generator.randint(1, 4)):
        place = generator.randrange(len(content) + 1)
        end = min(len(content), place + generator.randint(1, 16))
        other = generator.choice(others)
        start = generator.randrange(len(other) + 1)
        edit = generator.randrange(6)
        if edit == 0 and place < len(content):
            content[place] ^= 1 << generator.randrange(8)
        elif edit == 1:
            content[place:end] = generator.randbytes(end - place)
        elif edit == 2:
            del content[place:end]
        elif edit == 3:
            content[place:place] = content[place:end] * generator.randint(1, 3)
        elif edit == 4:
            content[place:end] = other[start : start + generator.randint(1, 32)]
        else:
            content[place:end] = generator.choice((b"\0" * 8, b"\xff" * 8, b"\x7f\xff\xff\xff", b'"', b"\n", b"{" * 40))
    return bytes(content)


def main(name: str, target: Target, seeds: Iterable[bytes], covered: Iterable[Callable]) -> None:
    """Fuzz for some time, and say how many inputs were tried.

    Args:
        name (str): Folder of the corpus.
        target (Target): The target.
        seeds (Iterable[bytes]): Small valid and hostile inputs.
        covered (Iterable[Callable]): Functions whose branches guide atheris; all of torch would take minutes to load.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="how long (%(default)s)")
    parser.add_argument("--plain", action="store_true", help="mutate without atheris")
    arguments = parser.parse_args()
    inputs = [*seeds, *corpus(name)]
    if importlib.util.find_spec("atheris") is None or arguments.plain:
        _plain(name, target, inputs, arguments.seconds)
        return
    import atheris

    for function in covered:
        atheris.instrument_func(function)
    with tempfile.TemporaryDirectory() as folder:
        for data in inputs:
            (Path(folder) / hashlib.sha1(data).hexdigest()).write_bytes(data)
        options = [f"-max_total_time={arguments.seconds}", "-max_len=65536", f"-artifact_prefix={folder}-finding-"]
        atheris.Setup([sys.argv[0], folder, *options, "-timeout=20", "-rss_limit_mb=4096"], guarded(target))
        atheris.Fuzz()


def _plain(name: str, target: Target, inputs: list[bytes], seconds: int) -> None:
    generator, tried, end = random.Random(0), 0, time.monotonic() + seconds
    run = guarded(target)
    while time.monotonic() < end:
        data = mutate(generator, generator.choice(inputs), inputs) if tried >= len(inputs) else inputs[tried]
        try:
            run(data)
        except BaseException:
            path = CORPUS / name / hashlib.sha1(data).hexdigest()[:12]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            print(f"Finding after {tried} inputs: {path}")
            raise
        tried += 1
    print(f"{name}: {tried} inputs in {seconds} s, no finding.")
