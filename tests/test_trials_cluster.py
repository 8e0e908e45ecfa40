"""Trials on a Ray cluster: the same outcomes as on this machine, also where a node dies in the middle."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import pytest
from fake_ray import FakeRay, install
from small_trials import LONG, MADE, SHORT, SMALL, carry_out, entries, entry, found, trial
from waiting import until

from triscale.data import Data
from triscale.errors import TriscaleError, UserError
from triscale.studies import DESIGNS, study
from triscale.training.recipe import Cosine
from triscale.trials import LEDGER, Cluster, Ledger, Pictures, Probe, Progress, Workers, cluster, run_trial
from triscale.trials.attempting import Pace
from triscale.trials.cluster import ROOMLESS, Needs, import_ray

pytestmark = pytest.mark.usefixtures("often")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A cluster of two nodes on this machine, of a processor each."""
    import_ray()
    from ray.cluster_utils import Cluster as Nodes

    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    yield nodes
    nodes.shutdown()


@pytest.mark.parametrize(
    ("needs", "resources", "times"),
    [
        (Needs(1, 0), {"CPU": 4.0}, 4),
        (Needs(3, 0), {"CPU": 4.0}, 1),
        (Needs(1, 0), {}, 0),
        (Needs(1, 1), {"CPU": 4.0}, 0),
        (Needs(1, 0.5), {"CPU": 4.0, "GPU": 1.0}, 2),
        (Needs(1, 0.1), {"CPU": 16.0, "GPU": 1.0}, 10),
        (Needs(2, 0.1), {"CPU": 8.0, "GPU": 1.0}, 4),
    ],
)
def test_a_node_does_as_many_trials_as_its_processors_and_gpus_allow(
    needs: Needs, resources: dict[str, float], times: int
) -> None:
    assert needs.times(resources) == times


def test_what_a_trial_needs_is_said_in_words() -> None:
    assert [str(Needs(1, 0)), str(Needs(4, 1)), str(Needs(2, 0.5))] == [
        "1 processor",
        "4 processors and 1 GPU",
        "2 processors and 0.5 GPU",
    ]


def test_no_more_trials_and_measurements_at_once_than_were_asked_for(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = install(FakeRay([3, 5], lambda asked: Pace(0.5)), monkeypatch)
    probes = [Probe(SMALL, 16, trial(data).how)] * 9
    for most, slots, measured in ((3, 3, 3), (20, 8, 9), (None, 8, 9)):
        ray.most = 0
        with closing(Cluster(data, "", most=most)) as pool:
            assert pool.slots == slots
            assert pool.measure(probes) == [0.5] * 9
        assert ray.most == measured, "where nobody limits it, Ray itself does what there is room for"


def test_where_no_node_has_room_for_what_runs_the_set_ends_after_a_while_and_finished_trials_are_kept(
    data: Data, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, endless = entry(trial(data)), entry(trial(data, seed=1))
    ray = install(FakeRay([1], lambda asked: MADE if asked == short.trial else None), monkeypatch)
    ray.leaving = True
    with closing(Cluster(data, "")) as pool:
        with pytest.raises(
            TriscaleError,
            match=r"^for 300 s no node of the cluster has had 1 processor for a trial; finished trials are kept: add "
            "such a node, and go on with --resume$",
        ):
            carry_out(ledger, pool, [short, endless])
        assert ROOMLESS < ray.now < ROOMLESS + 1
    assert ledger.finished().keys() == {short.trial.key}


def test_a_node_that_comes_in_time_is_waited_for(data: Data, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ray = install(FakeRay([4, 2], lambda asked: None), monkeypatch)
    wide = trial(data)
    with closing(Cluster(data, "")) as pool:
        pool.submit(0, replace(wide, how=replace(wide.how, threads=4)), tmp_path)
        for _ in range(3):
            ray.processors = [2]
            assert pool.wait(1) == pool.wait(ROOMLESS) == []
            ray.processors = [2, 4]
            assert pool.wait(1) == pool.wait(2 * ROOMLESS) == [], "as long as it computes"
        ray.processors = [2, 3]
        assert pool.wait(1) == []
        with pytest.raises(TriscaleError, match="has had 4 processors"):
            pool.wait(ROOMLESS + 1)


def test_a_measurement_whose_node_leaves_ends_too(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = install(FakeRay([1], lambda asked: None), monkeypatch)
    ray.leaving = True
    with (
        closing(Cluster(data, "")) as pool,
        pytest.raises(
            TriscaleError, match=r"^for 300 s no node .* 1 processor for a trial; add such a node, and begin"
        ),
    ):
        pool.measure([Probe(SMALL, 16, trial(data).how)])


def test_without_ray_the_error_says_how_to_install_it(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'triscale\[ray\]'"):
        Cluster(data, "")


def test_where_no_cluster_answers_the_error_names_the_address_and_the_way_out(data: Data) -> None:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{free.getsockname()[1]}"
    for address in (closed, "127.0.0.1:99999", "nonsense"):
        with pytest.raises(UserError, match=rf"^--address {address}: .*`ray start --head`, or leave --address out"):
            Cluster(data, address)


@pytest.mark.slow
def test_a_trial_that_no_node_is_large_enough_for_is_refused(data: Data, nodes: Any) -> None:
    with pytest.raises(UserError, match="no node has 3 processors"):
        Cluster(data, nodes.address, threads=3)


@pytest.mark.slow
def test_signals_are_the_drivers_again_after_ray_has_begun_and_ended(data: Data, nodes: Any) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with closing(Cluster(data, nodes.address)):
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
        with pytest.raises(UserError, match="connected to a Ray cluster already"):
            Cluster(data, nodes.address)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    with closing(Cluster(data, nodes.address)) as pool:
        assert pool.slots == 2, "one can follow the other"


@pytest.mark.slow
def test_a_cluster_measures_and_what_fails_is_named(data: Data, nodes: Any, ledger: Ledger) -> None:
    with closing(Cluster(data, nodes.address)) as pool:
        wanted = trial(data)
        assert min(pool.measure([Probe(SMALL, 16, wanted.how)] * 3)) > 0
        wide = Probe(SMALL, 16, replace(wanted.how, threads=2))
        assert pool.measure([wide]) == [inf], "no node has two processors"
        with pytest.raises(UserError, match="--device cuda: no node of the cluster has 1 GPUs; say --device cpu"):
            pool.measure([Probe(SMALL, 16, replace(wanted.how, device="cuda"))])
        broken = replace(wanted.how, device="nowhere")
        with pytest.raises(TriscaleError, match="small cannot be measured: RuntimeError"):
            pool.measure([Probe(SMALL, 16, broken)])
        diverging = replace(SHORT, epochs=3, rate=Cosine(peak=1e30), clip=None)
        with pytest.raises(TriscaleError, match=r"trial small, seed 3: .*rate"):
            carry_out(ledger, pool, [entry(trial(data, 3, recipe=diverging))])
        with pytest.raises(TriscaleError, match=r"has Triscale .*, not 0\.0\.0; install the same on every node"):
            carry_out(ledger, pool, [entry(replace(wanted, version="0.0.0"))])
        assert len(carry_out(ledger, pool, [entry(wanted)])) == 1


@pytest.mark.slow
def test_a_node_that_dies_in_the_middle_changes_no_outcome(
    data: Data, nodes: Any, ledger: Ledger, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wanted = entries(data, 8, LONG)
    (other,) = nodes.worker_nodes
    killed: list[int] = []
    with closing(Cluster(data, nodes.address)) as pool:
        assert pool.slots == 2

        def told(progress: Progress) -> None:
            if progress.done >= 2 and progress.running == 2 and not killed:
                killed.append(progress.done)
                nodes.remove_node(other, allow_graceful=False)

        done = carry_out(ledger, pool, wanted, told)
        assert killed
        until(lambda: pool.slots == 1)
        nodes.add_node(num_cpus=1)
        until(lambda: pool.slots == 2)
    assert capfd.readouterr().out == "", "standard output is for the answer"
    assert ledger.finished() == done
    with closing(Ledger(tmp_path / "local.db", "study")) as own, closing(Workers(data, 1)) as workers:
        local = carry_out(own, workers, wanted)
    assert {key: found(one) for key, one in done.items()} == {key: found(one) for key, one in local.items()}


def training(nodes: Any) -> list[int]:
    """The processes of the nodes in which a trial runs."""
    raylets = {node.all_processes["raylet"][0].process.pid for node in nodes.list_all_nodes()}
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            if parent in raylets and (place / "cmdline").read_bytes().startswith(b"ray::trial"):
                found.append(int(place.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("retries", [2, 0])
def test_a_process_that_is_killed_on_a_node_changes_no_outcome(
    retries: int, data: Data, nodes: Any, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "RETRIES", retries)
    wanted = entries(data, 4, LONG)
    killed: list[int] = []
    with closing(Cluster(data, nodes.address)) as pool:

        def told(progress: Progress) -> None:
            if not killed:
                killed.extend(training(nodes)[:1])
                for process in killed:
                    os.kill(process, signal.SIGKILL)

        done = carry_out(ledger, pool, wanted, told)
    assert killed
    pictures = Pictures(data)
    assert {key: found(one) for key, one in done.items()} == {
        one.trial.key: found(run_trial(one.trial, pictures)) for one in wanted
    }
    lost = [row["why"] for row in ledger.rows() if row["state"] == "FAIL"]
    assert len(lost) == (not retries), "Ray does it again; else the driver"
    assert all("its node died too often" in why for why in lost)


@pytest.mark.slow
def test_a_study_on_a_cluster_finds_what_the_same_trials_give_here(
    data: Data, digits: Path, nodes: Any, tmp_path: Path
) -> None:
    studied = study(
        digits,
        out=tmp_path / "study",
        baseline=SMALL,
        design="five",
        seeds=3,
        epochs=1,
        again=False,
        resolution=16,
        cluster=nodes.address,
    )
    setup, pictures = studied.setup, Pictures(data)
    networks = [setup.baseline, *(setup.grow(arm, 2.0).network for arm in DESIGNS["five"].arms)]
    wanted = [setup.trial(network, seed) for network in networks for seed in range(3)]
    with closing(Ledger(studied.run.path / LEDGER, "study")) as kept:
        done = kept.finished()
    assert done.keys() == {one.key for one in wanted}
    for one in wanted:
        assert found(done[one.key]) == found(run_trial(one, pictures))
