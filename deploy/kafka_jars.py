"""The jars of Apache Kafka: which ones, where they are kept, and how they get there.

`kafka-jars.txt` beside this file pins every jar by its Maven coordinate and sha256. jgo downloads what is
missing into a cache folder, in Maven's own layout; what is there is checked against its sha256 each time, so
a download that was cut off or tampered with never reaches the Java machine. With a full cache neither the
network nor jgo is touched, and no resolver runs: resolving happened once, when the list was written.

`python -m deploy.kafka_jars` (part of `make pins`) resolves again and writes the list anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

KAFKA_VERSION = "4.3.0"
ENDPOINT = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.slf4j:slf4j-simple:1.7.36"
PINS_PATH = Path(__file__).with_name("kafka-jars.txt")
_DOWNLOADS_AT_ONCE = 8  # many small files: what takes the time is the round trip, not the bytes
INSTALL_HINT = "pip install 'nextclick[broker]'"

Say = Callable[[str], None]


class BrokerUnavailableError(Exception):
    """The local broker cannot run here; the message says why and what to do about it."""


@dataclass(frozen=True, slots=True)
class Jar:
    """One pinned jar: its Maven coordinate and the sha256 (hex) of its bytes."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def coordinate(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"

    def path_in(self, repository: Path) -> Path:
        """Where this jar lies in a folder with Maven's layout."""
        name = f"{self.artifact}-{self.version}.jar"
        return repository.joinpath(*self.group.split("."), self.artifact, self.version, name)

    def is_in(self, repository: Path) -> bool:
        """Whether the folder holds this jar, whole: its bytes are hashed, 43 MB for all of them."""
        try:
            with self.path_in(repository).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256
        except (FileNotFoundError, NotADirectoryError):
            return False


def pinned_jars(pins_path: Path = PINS_PATH) -> tuple[Jar, ...]:
    """The jars of the list, in class path order. Raises ValueError on a line that is no pin."""
    jars = []
    for number, line in enumerate(pins_path.read_text("utf-8").splitlines(), start=1):
        if line and not line.startswith("#"):
            try:
                coordinate, sha256 = line.split()
                group, artifact, version = coordinate.split(":")
            except ValueError as error:
                raise ValueError(f"{pins_path}:{number}: not 'group:artifact:version sha256'") from error
            jars.append(Jar(group, artifact, version, sha256))
    return tuple(jars)


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/nextclick/kafka-VERSION`, or the same under `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "nextclick" / f"kafka-{KAFKA_VERSION}"


def ensure_jars(
    cache_dir: Path | None = None, *, say: Say, repositories: dict[str, str] | None = None
) -> list[Path]:
    """Paths of all pinned jars, in class path order; fetches the missing ones and tells `say` about it.

    `repositories` (name to address) replaces where jgo looks: mirrors of the user's jgo settings, then Maven
    Central. Raises BrokerUnavailableError when a jar cannot be had or when jgo is needed but not installed.
    """
    cache_dir = default_cache_dir() if cache_dir is None else cache_dir
    jars = pinned_jars()
    missing = [jar for jar in jars if not jar.is_in(cache_dir)]
    if missing:
        with _exclusively(cache_dir):
            # Another process may have fetched them while this one waited for the lock.
            missing = [jar for jar in missing if not jar.is_in(cache_dir)]
            if missing:
                _fetch(missing, cache_dir, say, repositories)
    return [jar.path_in(cache_dir) for jar in jars]


def _fetch(missing: list[Jar], cache_dir: Path, say: Say, repositories: dict[str, str] | None) -> None:
    """Download the jars, several at a time. Raises BrokerUnavailableError at the first that fails."""
    say(f"fetching Apache Kafka {KAFKA_VERSION} once: {len(missing)} jars (43 MB in all) into {cache_dir}")
    began_s = time.monotonic()
    download = _downloader(cache_dir, repositories)
    with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
        pending = {pool.submit(download, jar): jar for jar in missing}
        try:
            for done, future in enumerate(as_completed(pending), start=1):
                _check(future, pending[future], cache_dir)
                if done % 10 == 0 or done == len(missing):
                    say(f"  {done} of {len(missing)} jars after {time.monotonic() - began_s:.0f} s")
        except BaseException:  # Ctrl-C included: what has not begun shall not begin
            pool.shutdown(cancel_futures=True)
            raise


def _check(future: Future[None], jar: Jar, cache_dir: Path) -> None:
    try:
        future.result()
    # jgo: RuntimeError = no repository has it; OSError = its network errors, or the disk's.
    except (OSError, RuntimeError) as error:
        raise BrokerUnavailableError(_fetch_failed(jar, cache_dir, error)) from error


def _downloader(cache_dir: Path, repositories: dict[str, str] | None) -> Callable[[Jar], None]:
    """A function that puts one jar into the cache and raises OSError or RuntimeError if it cannot."""
    try:
        from jgo.config import GlobalSettings
        from jgo.constants import MAVEN_CENTRAL_URL
        from jgo.maven import MavenContext
    except ImportError as error:
        raise BrokerUnavailableError(
            f"the package jgo, which fetches Apache Kafka, is missing: {INSTALL_HINT}"
        ) from error
    if repositories is None:
        # The user's own mirrors come first: many company networks reach nothing else.
        repositories = {**GlobalSettings.load().repositories, "central": MAVEN_CENTRAL_URL}
    context = MavenContext(repo_cache=cache_dir, local_repos=[], remote_repos=repositories)

    def download(jar: Jar) -> None:
        jar.path_in(cache_dir).unlink(missing_ok=True)  # a damaged copy would pass for the real one
        context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
        if not jar.is_in(cache_dir):
            jar.path_in(cache_dir).unlink(missing_ok=True)
            raise RuntimeError("what was downloaded has another sha256 than the pinned one")

    return download


def _fetch_failed(jar: Jar, cache_dir: Path, error: Exception) -> str:
    return (
        f"could not fetch {jar.coordinate}, a part of Apache Kafka {KAFKA_VERSION}: {error}\n"
        "Connect this machine to the network (a proxy goes into HTTPS_PROXY, a mirror of Maven Central into\n"
        f"the [repositories] section of ~/.config/jgo.conf), or copy {cache_dir}\n"
        "from a machine where `nextclick broker` has run once, or use an existing cluster:\n"
        "NEXTCLICK_BOOTSTRAP=host:port"
    )


@contextlib.contextmanager
def _exclusively(cache_dir: Path) -> Iterator[None]:
    """Hold the cache's lock, so that two processes never write the same jar."""
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        lock = (cache_dir / ".lock").open("w")
    except OSError as error:
        raise BrokerUnavailableError(f"cannot write Apache Kafka's jars into {cache_dir}: {error}") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_pins(pins_path: Path = PINS_PATH) -> int:
    """Resolve ENDPOINT with jgo, download every jar, write the list; returns how many jars it holds."""
    import jgo

    lines = []
    for artifact in jgo.resolve(ENDPOINT):
        with artifact.resolve().open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        lines.append(f"{artifact.groupId}:{artifact.artifactId}:{artifact.version} {sha256}\n")
    header = f"# Apache Kafka {KAFKA_VERSION} and all that it needs; written by `make pins`.\n"
    pins_path.write_text(header + "".join(lines), "utf-8")
    return len(lines)


if __name__ == "__main__":
    sys.stdout.write(f"{PINS_PATH}: {write_pins()} jars\n")
