"""Whoever dies, driver or worker: no finished trial is lost, every other one is done again and comes out the same."""

import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_trials import LONG, SHORT, carry_out, entries, entry, found, trial
from trainings import ENVIRONMENT, started
from waiting import LONGEST, until

from triscale.data import Data
from triscale.errors import TriscaleError
from triscale.training.engine import peak_memory
from triscale.training.recipe import Cosine
from triscale.trials import Ledger, Outcome, Pictures, Probe, Progress, Workers, run_trial

pytestmark = pytest.mark.usefixtures("often")

DRIVER = Path(__file__).parent / "small_trials.py"
COUNT = 4
MORE = 8  # trials than are kept, for each driver that is killed at random
HALF = 2**29  # bytes


@pytest.fixture(scope="module")
def pool(data: Data) -> Iterator[Workers]:
    """One worker, which most of these tests kill: it is replaced. Who starts it has had more memory than it takes."""
    bytearray(b"x") * HALF
    pool = Workers(data, 1)
    yield pool
    pool.close()


class Killer:
    """Kills the worker in the middle of a trial, so many times, each a trial's begin apart."""

    def __init__(self, pool: Workers, times: int) -> None:
        self.pool, self.times, self.killed = pool, times, list[int]()

    def __call__(self, progress: Progress) -> None:
        (process,) = self.pool.processes
        if self.times and process not in self.killed and any(self.pool.progress().values()):
            os.kill(process, signal.SIGKILL)
            self.killed.append(process)
            self.times -= 1


def alive(process: int) -> bool:
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
def test_a_trial_whose_worker_is_killed_in_its_middle_is_done_again_and_comes_out_the_same(
    data: Data, pool: Workers, ledger: Ledger
) -> None:
    wanted = trial(data, recipe=LONG)
    kill = Killer(pool, 1)
    done = carry_out(ledger, pool, [entry(wanted)], kill)
    assert len(kill.killed) == 1
    outcome = done[wanted.key]
    assert outcome.worker.rpartition(":")[2] == str(pool.processes[0]) != str(kill.killed[0])
    assert found(outcome) == found(run_trial(wanted, Pictures(data)))
    lost, kept = ledger.rows()
    assert (lost["state"], kept["state"]) == ("FAIL", "COMPLETE")
    assert "SIGKILL" in lost["why"]


def test_the_memory_of_an_outcome_is_that_of_its_worker_and_not_of_its_driver(
    data: Data, pool: Workers, ledger: Ledger
) -> None:
    (outcome,) = carry_out(ledger, pool, [entry(trial(data))]).values()
    drivers = peak_memory(torch.device("cpu"))
    assert drivers > HALF
    assert 2**26 < outcome.memory < drivers - HALF // 2


@pytest.mark.slow
def test_after_three_deaths_the_set_ends_by_naming_the_trial_and_finished_ones_are_kept(
    data: Data, pool: Workers, ledger: Ledger
) -> None:
    short, long = entry(trial(data)), entry(trial(data, seed=7, recipe=replace(SHORT, epochs=500)))
    kill = Killer(pool, 3)

    def after_the_first(progress: Progress) -> None:
        if progress.done:
            kill(progress)

    with pytest.raises(
        TriscaleError, match=r"trial small, seed 7: its worker was ended by SIGKILL, as the system does"
    ):
        carry_out(ledger, pool, [short, long], after_the_first)
    assert len(kill.killed) == 3
    assert ledger.finished().keys() == {short.trial.key}
    assert ledger.counts() == {"COMPLETE": 1, "FAIL": 3, "RUNNING": 0, "WAITING": 0, "PRUNED": 0}
    assert carry_out(ledger, pool, [short]).keys() == {short.trial.key}


def test_a_trial_that_fails_by_itself_is_named_at_once_and_its_worker_lives_on(
    data: Data, pool: Workers, ledger: Ledger
) -> None:
    diverging = entry(trial(data, seed=3, recipe=replace(SHORT, epochs=3, rate=Cosine(peak=1e30), clip=None)))
    (process,) = pool.processes
    with pytest.raises(TriscaleError, match=r"trial small, seed 3: .*rate"):
        carry_out(ledger, pool, [diverging])
    assert pool.processes == [process]
    assert ledger.counts()["FAIL"] == 1
    assert len(carry_out(ledger, pool, [entry(trial(data))])) == 1


def test_a_worker_that_died_with_nothing_to_do_is_an_error_to_who_measures_and_replaced_for_who_trains(
    data: Data, pool: Workers, ledger: Ledger
) -> None:
    (process,) = pool.processes
    os.kill(process, signal.SIGKILL)
    until(lambda: not alive(process))
    wanted = trial(data)
    with pytest.raises(TriscaleError, match="small cannot be measured: its worker died"):
        pool.measure([Probe(wanted.architecture, 16, wanted.how)])
    assert len(carry_out(ledger, pool, [entry(wanted)])) == 1
    assert pool.processes != [process]


@pytest.fixture(scope="module")
def unhurt(data: Data) -> Iterator[tuple[Workers, list[int]]]:
    """Two workers, whom Ctrl-C reaches while Python starts; and their processes as they were."""
    with closing(Workers(data, 2)) as pool:
        before = pool.processes
        for process in before:
            os.kill(process, signal.SIGINT)
        yield pool, before


def test_only_the_workers_that_are_kept_are_left(unhurt: tuple[Workers, list[int]]) -> None:
    pool, (first, second) = unhurt
    pool.keep(1)
    assert pool.slots == 1
    assert pool.processes == [first]
    assert not alive(second)


def test_more_paces_than_workers_are_measured(data: Data, unhurt: tuple[Workers, list[int]]) -> None:
    pool, _ = unhurt
    wanted = trial(data)
    paces = pool.measure([Probe(wanted.architecture, 16, wanted.how)] * 3)
    assert len(paces) == 3
    assert min(paces) > 0


def test_ctrl_c_is_the_drivers_affair(data: Data, unhurt: tuple[Workers, list[int]], ledger: Ledger) -> None:
    pool, before = unhurt
    wanted, hit = entry(trial(data, recipe=LONG)), []

    def told(progress: Progress) -> None:
        if any(pool.progress().values()) and not hit:
            hit.append(pool.processes[0])
            os.kill(pool.processes[0], signal.SIGINT)

    done = carry_out(ledger, pool, [wanted], told)
    assert hit == pool.processes == before[:1]
    assert done[wanted.trial.key].worker.endswith(f":{before[0]}")
    assert ledger.counts()["FAIL"] == 0


def driver(digits: Path, place: Path, *words: object) -> list[str]:
    return [sys.executable, "-W", "error", str(DRIVER), str(digits), str(place), *map(str, words)]


def said(process: subprocess.Popen[str], begins: str) -> str:
    """The next line of it that begins so."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(begins):
            return line
    raise AssertionError(process.stderr.read() if process.stderr else "")


@pytest.mark.slow
def test_when_the_driver_is_killed_no_finished_trial_is_lost_and_no_process_is_left(
    digits: Path, data: Data, tmp_path: Path, pool: Workers
) -> None:
    place = tmp_path / "ledger.db"
    with started(line=driver(digits, place, COUNT, 1, "endless")) as process:
        workers = json.loads(said(process, "["))
        said(process, "done 2, 1 running")
        process.send_signal(signal.SIGKILL)
        process.wait()
        until(lambda: not any(map(alive, workers)))
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()

    wanted = entries(data, COUNT, LONG)
    with closing(Ledger(place, "study")) as ledger:
        kept = ledger.finished()
        assert len(kept) == 2
        assert ledger.requeue() == 1
        done = carry_out(ledger, pool, wanted)
        assert {key: done[key] for key in kept} == kept, "not done again"
        assert ledger.finished() == done
    pictures = Pictures(data)
    assert {key: found(one) for key, one in done.items()} == {
        one.trial.key: found(run_trial(one.trial, pictures)) for one in wanted
    }


@pytest.mark.slow
def test_a_driver_that_is_killed_at_random_moments_ends_with_the_outcomes_of_one_that_never_was(
    digits: Path, data: Data, tmp_path: Path
) -> None:
    chance, place, count = random.Random(0), tmp_path / "ledger.db", 0
    kept: dict[str, Outcome] = {}
    for kill in range(6):
        # However fast the machine is, no driver ends before it is killed: there is more to do each time, and no end.
        count = len(kept) + MORE
        with started(line=driver(digits, place, count, 2, "endless")) as process:
            workers = json.loads(said(process, "["))
            if kill % 2:  # from the moment on at which one of them ends; else while all of it begins
                while int(said(process, "done").split()[1].rstrip(",")) <= len(kept):
                    pass
            time.sleep(chance.uniform(0, 2))
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            until(lambda workers=workers: not any(map(alive, workers)))
        if place.exists():
            with closing(Ledger(place, "study")) as ledger:
                found_now = ledger.finished()
            assert found_now.items() >= kept.items()
            assert len(found_now) >= len(kept) + kill % 2, "one ended before the kill"
            kept = found_now
    print(f"{len(kept)} of {count} trials before the last driver")
    ended = subprocess.run(
        driver(digits, place, count, 2), capture_output=True, text=True, env=ENVIRONMENT, timeout=LONGEST
    )
    assert ended.returncode == 0, ended.stderr
    with closing(Ledger(place, "study")) as ledger:
        done = ledger.finished()
        assert done.items() >= kept.items()
        assert ledger.counts()["COMPLETE"] == count
    pictures = Pictures(data)
    wanted = entries(data, count, LONG)
    assert {key: found(one) for key, one in done.items()} == {
        one.trial.key: found(run_trial(one.trial, pictures)) for one in wanted
    }


def fetched(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=LONGEST) as answer:
        assert answer.status == 200
        content: bytes = answer.read()
        return content


@pytest.mark.slow
def test_the_dashboard_shows_the_ledger_while_trials_run_and_does_not_disturb_them(
    data: Data, pool: Workers, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody reads all the time, every page that reads many trials at once; the writer neither waits nor fails."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    wanted = entries(data, 12, LONG)  # for longer than the two seconds that it keeps an answer
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [str(Path(sys.executable).parent / "optuna-dashboard"), f"sqlite:///{ledger.path}", "--port", str(port)]
    pages = ["/dashboard", "/api/studies", "/api/studies/1", "/api/studies/1/param_importances", "/csv/1"]
    states: list[set[str]] = []
    with started(line=[*line, "--server", "wsgiref", "--quiet"]) as dashboard:

        def answers() -> bool:
            with suppress(OSError), closing(socket.create_connection(("127.0.0.1", port), 1)):
                return True
            return False

        assert until(answers, dashboard), dashboard.communicate()
        ended = threading.Event()

        def look() -> None:
            while not ended.is_set():
                contents = [fetched(f"http://127.0.0.1:{port}{page}") for page in pages]
                states.append({one["state"] for one in json.loads(contents[2])["trials"]})

        with ThreadPoolExecutor(1) as reader:
            looking = reader.submit(look)
            try:
                done = carry_out(ledger, pool, wanted)
            finally:
                ended.set()
            looking.result()

        def shown() -> list[float]:  # it looks anew every few seconds
            trials = json.loads(fetched(f"http://127.0.0.1:{port}/api/studies/1"))["trials"]
            return sorted(one["values"][0] for one in trials if one["state"] == "Complete")

        until(lambda: shown() == sorted(one.selection for one in done.values()))
    assert len(done) == len(wanted)
    assert ledger.finished() == done
    assert {"Waiting", "Running"} <= set.union(*states), "it was looked at in the middle"
    assert ledger.counts() == {"COMPLETE": 12, "FAIL": 0, "RUNNING": 0, "WAITING": 0, "PRUNED": 0}
    with closing(sqlite3.connect(ledger.path)) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert file.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    print(f"looked at {len(states)} times")
