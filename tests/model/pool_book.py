"""A hypothesis machine that does to a pool's ledger whatever callers, servers and operators may do, in any order.

Beside the ledger it keeps a plain book of its own: who waits, in which order, who holds what. The ledger must agree
after every step, and nobody may be left waiting for what is there.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headrace.errors import UsageError
from headrace.pool.lanes import Lane, scale_shares
from headrace.pool.ledger import LaneBook, Ledger, Member

if TYPE_CHECKING:
    from collections.abc import Callable

LANES = (Lane.CONTROL, Lane.JOBS, Lane.USER)
lanes = st.sampled_from(LANES)
indexes = st.integers(0, 30)


class Caller:
    """Somebody who waits, as the ledger sees him."""

    def __init__(self, machine: PoolBook, lane: Lane, since: float, deadline: float) -> None:
        self.machine = machine
        self.lane = lane
        self.since = since
        self.deadline = deadline
        self.wanted = True
        self.member: Member[int] | None = None
        self.error: Exception | None = None

    def accept(self, member: Member[int]) -> bool:
        # First in, first out: whoever is asked stands first in his lane.
        line = self.machine.lines[self.lane]
        assert line[0] is self, "a waiter was passed over"
        line.pop(0)
        if self.wanted:
            self.member = member
            self.machine.held[member.connection] = self.lane
        return self.wanted

    def refuse(self, error: Exception) -> None:
        assert self.machine.lines[self.lane].pop(0) is self
        self.error = error


class PoolBook(RuleBasedStateMachine):
    """Callers, openings, closings, places for links, time, and limits that change."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.numbers = count(1)
        self.lines: dict[Lane, list[Caller]] = {lane: [] for lane in LANES}
        # Connection to the lane that holds it.
        self.held: dict[int, Lane] = {}
        self.closing = self.opening = 0
        self.reserved: list[Lane] = []
        self.gone: list[int] = []
        self.ended = {"calls": 0, "opened": 0, "closed": 0, "failed": 0, "timeouts": 0}

    @initialize(control=st.integers(1, 2), jobs=st.integers(1, 2), user=st.integers(1, 4), minimum=st.integers(0, 3))
    def begin(self, control: int, jobs: int, user: int, minimum: int) -> None:
        shares = {"control": control, "jobs": jobs, "user": user}
        self.ledger: Ledger[int] = Ledger(sum(shares.values()), minimum, shares)
        self.most = self.ledger.maximum
        self.most_used = {lane: self.book(lane).share for lane in LANES}
        self.obey()

    def book(self, lane: Lane) -> LaneBook[int]:
        return self.ledger.lanes[lane]

    def obey(self) -> None:
        """Do what every caller of the ledger does after a change: open what is wanted."""
        for _ in range(self.ledger.openings_wanted()):
            self.ledger.open_began()
            self.opening += 1
        assert self.ledger.openings_wanted() == 0

    def put_away(self, member: Member[int] | None) -> None:
        if member is not None:
            self.closing += 1
            self.gone.append(member.connection)

    # What callers do

    @rule(lane=lanes, patience=st.sampled_from([0.0, 1.0, 1.0, 5.0, 20.0]))
    def acquire(self, lane: Lane, patience: float) -> None:
        member = self.ledger.take(self.book(lane), self.now)
        if member is not None:
            assert not self.lines[lane], "somebody passed those who wait"
            self.held[member.connection] = lane
            return
        caller = Caller(self, lane, self.now, self.now + patience)
        self.lines[lane].append(caller)
        self.ledger.wait(self.book(lane), caller)
        self.obey()

    @precondition(lambda self: self.held)
    @rule(index=indexes, lane=lanes)
    def find_it_dead_and_stand_first_in_line(self, index: int, lane: Lane) -> None:
        connection = self.one(sorted(self.held), index)
        lane = self.held.pop(connection)
        self.put_away(self.ledger.give_back(connection, self.now, usable=False))
        self.ended["calls"] += 1
        member = self.ledger.take(self.book(lane), self.now)
        if member is not None:
            self.held[member.connection] = lane
        else:
            caller = Caller(self, lane, self.now, self.now + 5.0)
            self.lines[lane].insert(0, caller)
            self.ledger.wait(self.book(lane), caller, first=True)
        self.obey()

    @precondition(lambda self: self.held)
    @rule(index=indexes, usable=st.booleans())
    def release(self, index: int, *, usable: bool) -> None:
        connection = self.one(sorted(self.held), index)
        del self.held[connection]
        self.put_away(self.ledger.give_back(connection, self.now, usable=usable))
        self.ended["calls"] += 1
        self.obey()

    @precondition(lambda self: any(self.lines.values()))
    @rule(index=indexes)
    def cancel(self, index: int) -> None:
        caller = self.one([caller for line in self.lines.values() for caller in line], index)
        self.lines[caller.lane].remove(caller)
        assert self.ledger.leave(self.book(caller.lane), caller)
        assert not self.ledger.leave(self.book(caller.lane), caller)

    @precondition(lambda self: any(self.lines.values()))
    @rule(index=indexes)
    def cancel_without_a_word(self, index: int) -> None:
        """As a task that is cancelled, and has not run since."""
        self.one([caller for line in self.lines.values() for caller in line], index).wanted = False

    @rule(connection=st.integers(1_000_000, 1_000_010))
    def release_what_was_never_lent(self, connection: int) -> None:
        for stranger in [connection, *self.gone[-1:]]:
            try:
                self.ledger.give_back(stranger, self.now, usable=True)
            except UsageError:
                continue
            raise AssertionError("it took back what it had not lent")

    # What the server does

    @precondition(lambda self: self.opening)
    @rule(life=st.sampled_from([1.0, 10.0, 1_000.0]))
    def open(self, life: float) -> None:
        self.opening -= 1
        self.ended["opened"] += 1
        self.put_away(self.ledger.opened(next(self.numbers), self.now, self.now + life))
        self.obey()

    @precondition(lambda self: self.opening)
    @rule()
    def fail_to_open(self) -> None:
        self.opening -= 1
        self.ended["failed"] += 1
        self.ledger.open_failed(ConnectionRefusedError())
        self.obey()

    @precondition(lambda self: self.closing)
    @rule()
    def finish_closing(self) -> None:
        self.closing -= 1
        self.ended["closed"] += 1
        self.ledger.closed()
        self.obey()

    @precondition(lambda self: self.ledger.idle)
    @rule(index=indexes)
    def lose_an_idle_one(self, index: int) -> None:
        member = self.one(self.ledger.idle, index)
        self.ledger.retire_idle(member)
        self.put_away(member)
        self.obey()

    @precondition(lambda self: self.ledger.idle)
    @rule(indices=st.sets(st.integers(0, 4)))
    def end_some_of_them(self, indices: set[int]) -> None:
        lost = {member.connection for at, member in enumerate(self.ledger.idle) if at in indices} | set(self.held)
        for member in self.ledger.retire_lost(lost, self.now):
            assert member.connection not in self.held
            self.put_away(member)
            self.ended["failed"] += 1
        assert not {member.connection for member in self.ledger.idle} & lost
        self.obey()

    # What time and operators do

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 6.0, 30.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.now += seconds
        late = {id(caller) for line in self.lines.values() for caller in line if caller.deadline <= self.now}
        told = set()
        for book, waiter, ahead in self.ledger.expire(self.now):
            assert isinstance(waiter, Caller)
            assert book is self.book(waiter.lane)
            assert ahead == self.lines[waiter.lane].index(waiter)
            self.lines[waiter.lane].remove(waiter)
            self.ended["timeouts"] += 1
            told.add(id(waiter))
        assert told == late
        due = self.ledger.next_deadline()
        assert due == min((caller.deadline for line in self.lines.values() for caller in line), default=None)

    @rule(idle_timeout=st.sampled_from([1.0, 20.0]))
    def look_after_it(self, idle_timeout: float) -> None:
        before = self.ledger.total - self.closing
        for member in self.ledger.retire_surplus(self.now, idle_timeout):
            assert self.now >= member.expires or before > min(self.ledger.minimum, self.ledger.maximum)
            self.put_away(member)
            before -= 1
        self.obey()

    @rule(maximum=st.integers(3, 9), minimum=st.integers(0, 4), uneven=st.booleans())
    def resize(self, maximum: int, minimum: int, *, uneven: bool) -> None:
        shares = {lane: book.share for lane, book in self.ledger.lanes.items()}
        shares = {**dict.fromkeys(LANES, 1), Lane.JOBS: maximum - 2} if uneven else scale_shares(shares, maximum)
        self.ledger.resize(maximum, min(minimum, maximum), shares)
        for member in self.ledger.retire_surplus(self.now, 1e9):
            self.put_away(member)
        self.ledger.serve(self.now)
        self.most = max(self.most, maximum)
        self.most_used = {lane: max(self.most_used[lane], shares[lane]) for lane in LANES}
        self.obey()

    @rule(lane=lanes)
    def reserve(self, lane: Lane) -> None:
        may = self.book(lane).used < self.book(lane).share and self.ledger.total < self.ledger.maximum
        assert self.ledger.reserve(lane) is may
        if may:
            self.reserved.append(lane)

    @precondition(lambda self: self.reserved)
    @rule(index=indexes)
    def unreserve(self, index: int) -> None:
        lane = self.one(self.reserved, index)
        self.reserved.remove(lane)
        self.ledger.unreserve(lane, self.now)
        self.obey()

    @rule(waited=st.sampled_from([0.0, 1.0]))
    def refuse(self, waited: float) -> None:
        patient = sum(self.now - caller.since < waited for line in self.lines.values() for caller in line)
        self.ledger.refuse(lambda: ConnectionError("away"), self.now, waited)
        assert sum(map(len, self.lines.values())) >= patient

    @precondition(lambda self: len(self.held) > 1)
    @rule()
    def fork(self) -> None:
        """What follows happens in the child, which has nothing of the parent's but the places of the links."""
        self.ended["closed"] += len(self.ledger.idle) + len(self.held) + self.closing
        self.ledger.forget()
        self.gone += self.held
        self.held.clear()
        self.lines = {lane: [] for lane in LANES}
        self.opening = self.closing = 0
        self.obey()

    @staticmethod
    def one(items: Any, index: int) -> Any:
        return items[index % len(items)]

    # What holds after every step

    @invariant()
    def the_figures_add_up(self) -> None:
        ledger = self.ledger
        assert (ledger.opening, ledger.closing, ledger.reserved) == (self.opening, self.closing, len(self.reserved))
        assert ledger.total == len(ledger.idle) + len(ledger.leased) + ledger.opening + ledger.closing + ledger.reserved
        assert {
            connection: member.lane.lane for connection, member in ledger.leased.items() if member.lane
        } == self.held
        assert not {member.connection for member in ledger.idle} & set(ledger.leased)
        assert ledger.waiting == sum(len(book.waiters) for book in ledger.lanes.values())
        for lane in LANES:
            assert list(self.book(lane).waiters) == self.lines[lane]
            mine = list(self.held.values()).count(lane)
            assert self.book(lane).used == mine + self.reserved.count(lane)
            assert self.book(lane).reserved == self.reserved.count(lane)
        assert ledger.calls_total == self.ended["calls"]
        assert ledger.opened_total == self.ended["opened"]
        assert ledger.closed_total == self.ended["closed"]
        assert ledger.failed_total == self.ended["failed"]
        assert ledger.timeouts_total == self.ended["timeouts"]

    @invariant()
    def the_bounds_hold(self) -> None:
        assert self.ledger.total <= self.most
        if self.ledger.total <= self.ledger.maximum:
            self.most = self.ledger.maximum
        for lane in LANES:
            book = self.book(lane)
            assert book.used <= self.most_used[lane]
            self.most_used[lane] = max(book.share, book.used)

    @invariant()
    def nobody_waits_for_what_is_there(self) -> None:
        ledger = self.ledger
        free = {lane: max(0, self.book(lane).share - self.book(lane).used) for lane in LANES}
        entitled = sum(min(len(self.lines[lane]), free[lane]) for lane in LANES)
        if entitled:
            assert not ledger.idle, "somebody waits beside an idle connection"
            assert ledger.total >= ledger.maximum or ledger.opening >= entitled, "nothing is opened for somebody"

    def teardown(self) -> None:
        """Let all that was begun end: everybody is served or told, and nothing is left."""
        if not hasattr(self, "ledger"):
            return
        steps: list[Callable[[], object]] = [self.finish_closing, lambda: self.open(1_000.0)]
        for _ in range(500):
            if self.closing:
                steps[0]()
            elif self.opening:
                steps[1]()
            elif self.held:
                self.release(0, usable=True)
            else:
                break
        assert not any(caller.wanted for line in self.lines.values() for caller in line if self.may_be_served(caller))
        assert (self.opening, self.closing, self.held) == (0, 0, {})
        assert self.ledger.total == len(self.ledger.idle) + len(self.reserved)

    def may_be_served(self, caller: Caller) -> bool:
        """Links may hold all that a lane has; who waits there waits until his deadline."""
        links = self.reserved.count(caller.lane)
        return links < self.book(caller.lane).share and len(self.reserved) < self.ledger.maximum
