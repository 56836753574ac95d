"""Workers: the loop that evaluates one network after the other, alone, or beside others on any number of machines.

A worker queues the next network and lets Optuna run it, which keeps a heartbeat. A network whose worker died is queued
again by whoever looks next; one that ended its workers too often is given up, with the reason. SIGTERM and SIGINT end
the evaluation at once, its network goes back to the queue, and no trial is left running.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import datetime
from typing import Literal

from optuna import Study, Trial
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.core.errors import InputError
from nas.searching.objective import Objective
from nas.searching.proposing import RETRIED, Exhausted, Proposer, QueueSampler
from nas.searching.results import Known
from nas.searching.signals import Interrupted, Signals
from nas.searching.storage import PAUSE_S, Presence, passes, quiet, silent, storage_errors
from nas.searching.study import Opened

DEATHS = 3  # workers that one network may end
LOOK_S = 0.5  # between two looks at the trials of other workers

End = Literal["trials", "time", "signal", "exhausted"]


class Dead:
    """What becomes of the trial of a worker that died: queued again, or given up after DEATHS of them."""

    def __init__(self, objective: Objective):
        self._objective = objective

    def __call__(self, study: Study, trial: FrozenTrial) -> None:
        with quiet():
            deaths = len(RetryHeartbeatStaleTrialCallback.retry_history(trial)) + 1
            if deaths < DEATHS:
                RetryHeartbeatStaleTrialCallback()(study, trial)
                return
        study.add_trial(self._objective.given_up(trial, f"crashed: {deaths} processes ended while they judged it"))


def requeue(study: Study, trial: FrozenTrial) -> None:
    """Queue the network of a trial that was interrupted, which says nothing against it."""
    noted = {**trial.system_attrs, RETRIED: trial.system_attrs.get(RETRIED, trial.number)}
    again = create_trial(
        state=TrialState.WAITING,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs,
        system_attrs=noted,
    )
    study.add_trial(again)


class Worker:
    """One process's work at a study.

    wait     at the end, until no other worker has a trial running, and take over those of the dead
    told     called after each trial with what the study knows
    """

    def __init__(
        self,
        opened: Opened,
        objective: Objective,
        proposer: Proposer,
        *,
        wait: bool = False,
        told: Callable[[Known], None] | None = None,
    ):
        self.signal: int | None = None  # that ended the work
        self._opened = opened
        self._study = opened.study
        self._study.sampler = QueueSampler(proposer)
        self._objective = objective
        self._proposer = proposer
        self._trials: int | None = None
        self._deadline: float | None = None
        self._wait = wait
        self._told = told
        self._dead = Dead(objective)
        self._end: End | None = None
        self._number: int | None = None  # of the trial at hand
        self._fault: Exception | None = None  # of the objective
        self._nudged: set[int] = set()
        objective.known = proposer.known

    def work(self, trials: int | None = None, seconds: float | None = None) -> End:
        """Evaluate until there are so many complete trials of all workers, or until no network may be begun any more.

        InputError for what the storage refuses.
        """
        if trials is None and seconds is None:
            raise InputError("a search has a number of trials or a time", place="trials")
        self._trials, self._end = trials, None
        self._deadline = None if seconds is None else time.monotonic() + seconds
        with (
            silent(),
            storage_errors(self._opened.url),
            Presence(self._opened.url) as presence,
            Signals(self._hurry, self._give_back) as self._signals,
        ):
            self._waiting_out(lambda: self._sweep(presence))
            while True:
                while self._end is None:
                    self._waiting_out(self._run)
                self._waiting_out(lambda: self._sweep(presence))
                if self._end != "trials" or not self._open():
                    break
                self._end = None
            self.signal = self._signals.received
        assert self._end is not None
        return self._end

    def _run(self) -> None:
        """Run trials until an end, an interruption, or an error."""
        try:
            while self._more():
                self._study.optimize(self._evaluate, n_trials=1)
                self._number = None
                if self._told is not None:
                    self._proposer.refresh()
                    self._told(self._proposer.known)
        except Interrupted:
            self._end = "signal"
            self._give_back()
        except Exhausted:
            self._end, self._number = "exhausted", None
        except (ValueError, AssertionError, UpdateFinishedTrialError) as error:
            if error is self._fault or isinstance(error, InputError) or not self._is_taken_over():
                raise
            self._number = None

    def _evaluate(self, trial: Trial) -> tuple[float, ...]:
        self._number, self._fault = trial.number, None
        with self._signals.raised():
            try:
                return self._objective(trial)
            except UpdateFinishedTrialError:
                raise
            except Exception as error:
                self._fault = None if passes(error) else error
                raise

    def _more(self) -> bool:
        """Whether there is a network to evaluate, queued if need be; otherwise the end is known."""
        if self._signals.received is not None:
            self._end = "signal"
            return False
        self._proposer.refresh()
        known = self._proposer.known
        enough = self._trials is not None and known.finished + known.running + known.waiting >= self._trials
        if enough and not known.waiting:
            self._end = "trials"
        elif self._deadline is not None and time.monotonic() >= self._deadline:
            self._end = "time"
        elif not enough and (not known.waiting or (known.running and known.waiting == 1)):
            self._proposer.queue()  # the one that waits may be what another worker is about to take
        return self._end is None

    def _open(self) -> bool:
        """Whether there is something left of this study to run, once the others' trials have ended if so wished."""
        self._proposer.refresh()
        known = self._proposer.known
        if self._wait and known.running and not known.waiting:
            time.sleep(LOOK_S)
            return True
        return bool(known.waiting)

    def _sweep(self, presence: Presence) -> None:
        """Queue the networks of workers that died: of all where no other process can be at work, else by heartbeat."""
        if self._end == "signal":
            return
        with presence.alone() as alone, quiet():
            running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            if alone:
                for trial in running:
                    self._fail(trial, self._dead)
                return
            fail_stale_trials(self._study)
            for trial in running:
                self._nudge(trial)

    def _nudge(self, trial: FrozenTrial) -> None:
        """Begin the heartbeat of a trial whose worker died before it did, so that it can be found to have stopped."""
        assert trial.datetime_start is not None
        age = (datetime.now() - trial.datetime_start).total_seconds()
        if age > (self._opened.storage.grace_period or 0) and trial.number not in self._nudged:
            self._nudged.add(trial.number)
            self._opened.storage.record_heartbeat(trial._trial_id)

    def _give_back(self) -> None:
        """Put the network at hand back into the queue, whatever state its trial was left in."""
        number, self._number = self._number, None
        if number is None:
            return
        trial = self._trial(number)
        if trial.state is TrialState.RUNNING:
            self._fail(trial, requeue)
        elif trial.state is TrialState.FAIL:
            requeue(self._study, trial)

    def _fail(self, trial: FrozenTrial, then: Callable[[Study, FrozenTrial], None]) -> None:
        """Fail a running trial and do what follows, unless it has ended meanwhile."""
        try:
            self._study.tell(trial.number, state=TrialState.FAIL)
        except (ValueError, UpdateFinishedTrialError):
            return
        then(self._study, trial)

    def _is_taken_over(self) -> bool:
        """Whether another worker took this one for dead and ended the trial at hand."""
        return self._number is not None and self._trial(self._number).state.is_finished()

    def _trial(self, number: int) -> FrozenTrial:
        return next(trial for trial in self._study.get_trials(deepcopy=False) if trial.number == number)

    def _waiting_out(self, act: Callable[[], None]) -> None:
        """Act; where a server goes away meanwhile, give the trial at hand back and act again."""
        first = last = -math.inf  # failures of the present absence
        while True:
            try:
                self._give_back()
                return act()
            except Exception as error:
                now, patience = time.monotonic(), self._opened.storage.patience_s
                first, last = (now if now - last > patience else first), now
                if not passes(error) or error is self._fault or now - first >= patience:
                    raise
                time.sleep(PAUSE_S)

    def _hurry(self) -> None:
        self._opened.storage.patience_s = 0.0
