"""What Java has learned from one start of Apache Kafka: with it, each later one takes half of the time.

Most of a start goes into loading and linking thousands of classes. An ahead-of-time cache (JEP 483 and 515;
Java 25) keeps them as they were linked. It is made once for each Java and Kafka, from a broker that starts
and stops, and lies beside the jars. Java checks that it fits, and starts without it where it does not; so
whatever goes wrong in making it is told, and costs nothing but time.
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from deploy.broker_host import QUIET_JAVA, java_environment
from deploy.kafka_jars import BrokerUnavailableError, Say, exclusively

StartAndStop = Callable[[Sequence[str]], None]
"""Starts a broker with these options of Java, and stops it."""

CREATE_TIMEOUT_S = 120.0
"""Usual: 3 to 8 s."""

KEPT = 3
"""Start caches, 40 MB each: environments with other builds of Java use the same folder."""


def start_cache_options(
    java: Path, jars: Sequence[Path], cache_dir: Path, say: Say, start_and_stop: StartAndStop
) -> tuple[str, ...]:
    """Options of Java that make it use the start cache, which is made first where there is none yet.

    Args:
        java: the binary.
        jars: the class path.
        cache_dir: where the jars are; nothing is made where it cannot be written.
        say: told that it is made, or why that failed. It is tried once.
        start_and_stop: see there.
    """
    path = cache_dir / f"start-{_fingerprint(java, jars)}.aot"
    failed = path.with_suffix(".failed")
    if not path.exists() and not failed.exists():
        try:
            with exclusively(cache_dir):
                if not path.exists() and not failed.exists():  # by another process meanwhile
                    _make(path, failed, java, jars, say, start_and_stop)
        except BrokerUnavailableError:  # the folder is read-only: whoever filled it did without
            return ()
    return (f"-XX:AOTCache={path}",) if path.exists() else ()


def _fingerprint(java: Path, jars: Sequence[Path]) -> str:
    """Stands for this Java and these very files: Java would not use a cache of others."""
    home = java.resolve().parent.parent
    files = [home / "lib" / "modules", home / "lib" / "server" / "libjvm.so", *jars]
    told = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.exists()]
    return hashlib.sha256(repr((told, QUIET_JAVA)).encode()).hexdigest()[:16]


def _make(
    path: Path, failed: Path, java: Path, jars: Sequence[Path], say: Say, start_and_stop: StartAndStop
) -> None:
    say("preparing Apache Kafka for quick starts, once: some 15 s")
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="start-") as folder:
            learned, made = Path(folder) / "learned", Path(folder) / "made"
            start_and_stop(["-XX:AOTMode=record", f"-XX:AOTConfiguration={learned}"])
            _create(java, jars, learned, made)
            made.rename(path)
        _remove_oldest(path.parent)
    except (BrokerUnavailableError, OSError, subprocess.SubprocessError) as error:
        say(f"that failed, brokers start more slowly: {error}\n{failed} keeps it from being tried again")
        failed.write_text(f"{error}\n", "utf-8")


def _create(java: Path, jars: Sequence[Path], learned: Path, made: Path) -> None:
    """Have Java write the cache. Raises BrokerUnavailableError with what it said where it did not."""
    options = ["-XX:AOTMode=create", f"-XX:AOTConfiguration={learned}", f"-XX:AOTCache={made}"]
    done = subprocess.run(
        [str(java), *QUIET_JAVA, *options, "-cp", ":".join(map(str, jars))],
        check=False,
        capture_output=True,
        text=True,
        env=java_environment(),
        timeout=CREATE_TIMEOUT_S,
    )
    if not made.exists():
        raise BrokerUnavailableError(f"Java made no cache: {(done.stdout + done.stderr).strip()}")


def _remove_oldest(cache_dir: Path) -> None:
    """Keep `KEPT` start caches; a broker that runs on another one has it open until it ends."""
    newest_first = sorted(cache_dir.glob("start-*.aot"), key=lambda file: file.stat().st_mtime, reverse=True)
    for outdated in newest_first[KEPT:]:
        outdated.unlink(missing_ok=True)
