"""Many trainings, safely: what a trial is, where its outcome is kept, who carries it out."""

from triscale.trials.cluster import Cluster
from triscale.trials.driving import Asking, Progress, run_asked, run_trials
from triscale.trials.executors import Done, Executor
from triscale.trials.failing import Cause, Failure
from triscale.trials.ledger import LEDGER, Ended, Entry, Ledger, Spent
from triscale.trials.running import Pictures, Probe, as_machine, passes, run_trial, stratified
from triscale.trials.sittings import Timer, time_values
from triscale.trials.trial import How, Outcome, Trial, pack, unpack
from triscale.trials.workers import Workers

__all__ = [
    "LEDGER",
    "Asking",
    "Cause",
    "Cluster",
    "Done",
    "Ended",
    "Entry",
    "Executor",
    "Failure",
    "How",
    "Ledger",
    "Outcome",
    "Pictures",
    "Probe",
    "Progress",
    "Spent",
    "Timer",
    "Trial",
    "Workers",
    "as_machine",
    "pack",
    "passes",
    "run_asked",
    "run_trial",
    "run_trials",
    "stratified",
    "time_values",
    "unpack",
]
