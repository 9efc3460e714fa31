"""May this customer be contacted? Asked of the worker that holds the customer's shard, or else of the store."""

from dataclasses import dataclass
from typing import Protocol

from loyalty.bond import BondChange, Permission
from loyalty.customer import Customer
from loyalty.packing import Packing
from loyalty.rules import Rules
from loyalty.views import Decision
from schemas.murmur2 import home
from streams.program_rules import rules_of
from streams.protocols import ShardState, Store
from streams.settings import ClockKind, Settings
from streams.shard import Domain, Shard
from streams.shards import Shards
from streams.store_clock import StoreClock


class NoPolicyError(Exception):
    """The program has no contact policy."""


class NotNowError(Exception):
    """There is no answer for the moment; the message says why. Nothing has happened."""


class ElsewhereError(Exception):
    """Another worker holds the shard; `url` is where its pages are."""

    def __init__(self, url: str) -> None:
        super().__init__(f"another worker holds the customer's shard: {url}")
        self.url = url


class Addressed(Store, Protocol):
    """A store that also knows where the pages of its owners are."""

    async def owner_url(self, partition: int) -> str:
        """Where those of a shard's newest owner are; empty where nobody says."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """`as_of` is in epoch milliseconds; `trigger_id` names the place that was taken."""

    permission: Permission
    as_of: int
    trigger_id: str | None = None


class Permissions:
    """Asks and reserves. Both raise NoPolicyError, NotNowError, and ShardLostError's kinds."""

    def __init__(
        self,
        settings: Settings,
        domain: Domain,
        shards: Shards,
        store: Addressed,
        clock: StoreClock,
        partitions: int,
    ) -> None:
        self._settings = settings
        self._program = domain.program
        self._shards = shards
        self._store = store
        self._clock = clock
        self._partitions = partitions
        #: The rules for customers of shards that are elsewhere, and for which state of a shard they were made.
        self._rules: tuple[object, Rules] | None = None

    async def ask(self, customer_id: str, channel: str, action: str | None) -> Answer:
        """Whether the customer may be contacted now. Takes no place."""
        partition = self._partition(customer_id)
        clock = await self._time()
        shard = self._shards.held.get(partition)
        if shard is None:
            state = await self._store.peek(partition) or ShardState()
            rules = self._rules_of(state)
            (customer,) = await self._store.load(partition, [customer_id], Packing(rules))
        else:
            customer = await shard.newest(customer_id)
            state, rules = shard.state, shard.rules
            if reason := shard.cannot_tell(customer_id):
                raise NotNowError(reason)
        # From here on without a pause: nothing can come between the customer and the answer.
        at = _as_of(rules, customer, state, clock)
        if reason := _is_before(rules, customer, state, at):
            raise NotNowError(reason)
        return Answer(rules.permission(customer, channel, action, at), at)

    async def reserve(self, customer_id: str, channel: str, action: str | None) -> Answer:
        """Ask, and take a place where it is allowed; answered when that is committed.

        Raises ElsewhereError where another worker is to be asked. After a ShardLostError nobody knows whether a place
        was taken.
        """
        partition = self._partition(customer_id)
        clock = await self._time()
        shard = self._shards.held.get(partition)
        if shard is None:
            url = await self._store.owner_url(partition)
            if not url or url == self._settings.address():
                raise NotNowError("no worker holds the customer's shard")
            raise ElsewhereError(url)
        taking = _Taking(shard, customer_id, channel, action, clock)
        if not (reason := taking.refusal()):
            await self._shards.let(shard, lambda: shard.decide(customer_id, taking.decide))
            reason = taking.reason
        if taking.answer is None:
            raise NotNowError(reason)
        return taking.answer

    def _partition(self, customer_id: str) -> int:
        bonds = self._program.bonds
        if bonds is None or bonds.contact_policy is None:
            raise NoPolicyError("the program has no [contact_policy]")
        return home(customer_id.encode(), self._partitions)

    async def _time(self) -> int | None:
        """The time by the wall clock; None where time goes by the events."""
        return None if self._settings.clock is ClockKind.EVENT else await self._clock.about()

    def _rules_of(self, state: ShardState) -> Rules:
        made_for = (state.generation, state.is_moving and (state.program_before, state.program_at))
        if self._rules is None or self._rules[0] != made_for:
            self._rules = made_for, rules_of(self._program, state)
        return self._rules[1]


class _Taking:
    """A place that is to be taken, in the shard's lane."""

    def __init__(
        self, shard: Shard, customer_id: str, channel: str, action: str | None, clock: int | None
    ) -> None:
        self._shard = shard
        self._customer_id = customer_id
        self._channel = channel
        self._action = action
        self._clock = clock
        self.answer: Answer | None = None
        self.reason = ""

    def refusal(self) -> str:
        """Why no place can be taken for the moment, whoever the customer is."""
        if not self._shard.outbox.has_room:
            return "too much is still to be published"
        return self._shard.cannot_tell(self._customer_id)

    def decide(self, customer: Customer) -> list[Decision]:
        """Take it, if it is free."""
        rules, state = self._shard.rules, self._shard.state
        at = _as_of(rules, customer, state, self._clock)
        self.reason = self.refusal() or _is_before(rules, customer, state, at)
        if not self.reason and not rules.is_moved(customer) and at >= state.program_at:
            self.reason = "the customer is being moved to a changed program"
        if self.reason:
            return []
        permission, made = rules.reserve(customer, self._channel, self._action, at)
        taken = [one.body.event_id for one in made if isinstance(one, BondChange)]
        self.answer = Answer(permission, at, taken[-1] if taken else None)
        return made


def _as_of(rules: Rules, customer: Customer, state: ShardState, clock: int | None) -> int:
    """Now, and never before what is known of the customer."""
    now = max(state.newest.values(), default=0) if clock is None else clock
    return max(now, rules.bond_time(customer) or 0)


def _is_before(rules: Rules, customer: Customer, state: ShardState, at: int) -> str:
    """Why a customer who is still on the program before cannot be asked about: it knows of no contacts."""
    if rules.is_moved(customer) or at >= state.program_at:
        return ""
    program = rules.program_of(customer.generation)
    if program is None or program.bonds is None or program.bonds.contact_policy is None:
        return "the customer is still on the program before, which has no [contact_policy]"
    return ""
