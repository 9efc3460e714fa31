"""Contact in moderation, against a reading of docs/bonds.md that asks one instant after another."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loyalty.bond import Bond, Permission, Placed
from loyalty.contact_policy import Policy
from loyalty.customer import Customer
from loyalty.entries import Touch, rows
from schemas.event_key import event_key
from schemas.program_bonds import Cap, ContactPolicy
from schemas.times import DAY, HOUR, MINUTE, format_ms, parse_rfc3339

ALLOW = Permission("allow")
QUARTER = 15 * MINUTE
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Where days are long, short, doubled at midnight, missing, or come twice; see test_contacts.
JUMPS = {
    "America/New_York": "2017-03-12T07:00:00Z",
    "Europe/Berlin": "2017-10-29T01:00:00Z",
    "Europe/London": "2017-03-26T01:00:00Z",
    "America/Sao_Paulo": "2017-10-15T03:00:00Z",
    "America/Havana": "2017-11-05T05:00:00Z",
    "Australia/Lord_Howe": "2017-04-01T15:00:00Z",
    "Pacific/Apia": "2011-12-30T10:00:00Z",
    "Pacific/Kwajalein": "1993-08-21T12:00:00Z",
    "UTC": "2017-04-01T00:00:00Z",
}


@dataclass
class Told:
    """An outbound or inbound touch as an input would tell it."""

    time: int
    channel: str = "email"
    outbound: bool = True
    action: str | None = None
    trigger: str | None = None


@dataclass
class World:
    """A policy and what is known of one customer. ``places`` are ids, instants and channels of triggers."""

    policy: ContactPolicy
    zone: str = "UTC"
    touches: list[Told] = field(default_factory=list)
    places: list[tuple[str, int, str]] = field(default_factory=list)

    def customer(self, *, zone_is_own: bool = True) -> Customer:
        customer = Customer("900")
        customer.bond = Bond()
        for number, told in enumerate(self.touches):
            for names, name in ((customer.channels, told.channel), (customer.actions, told.action)):
                if name is not None and name not in names:
                    names.append(name)
            customer.touched(
                Touch(
                    event_key("crm", str(number)),
                    told.time,
                    customer.channels.index(told.channel),
                    told.outbound,
                    -1 if told.action is None else customer.actions.index(told.action),
                    None if told.trigger is None else event_key("", told.trigger),
                )
            )
        customer.bond.placed = [
            Placed(event_key("", name), at, channel, seq)
            for seq, (name, at, channel) in enumerate(self.places)
        ]
        customer.bond.zone = self.zone if zone_is_own else None
        return customer

    def asked(self, at: int, channel: str = "email", action: str | None = None) -> Permission:
        """What the policy says, by a zone of the customer's; that of the program must then not matter."""
        return Policy(self.policy, "Asia/Tokyo").permission(self.customer(), channel, action, at)

    # From here on: docs/bonds.md, read once more, word by word.

    def local(self, at: int) -> datetime:
        with (resources.files("tzdata") / "zoneinfo" / self.zone).open("rb") as data:
            zone = _zones.setdefault(self.zone, ZoneInfo.from_file(data))
        return (EPOCH + timedelta(milliseconds=at)).astimezone(zone)

    def contacts(self, t: int) -> list[tuple[int, str]]:
        """Time and channel of every contact that counts as of ``t``."""
        found = []
        outbound = [
            (told.time, event_key("crm", str(number)), told)
            for number, told in enumerate(self.touches)
            if told.outbound and (told.action is None or told.action not in self.policy.transactional)
        ]
        latest: dict[str, Told] = {}
        for _, _, told in sorted(outbound, key=lambda one: one[:2]):
            if told.trigger is None:
                found.append((told.time, told.channel))
            else:
                latest[told.trigger] = told
        for name, at, channel in self.places:
            joined = latest.get(name)
            if joined is not None and joined.time >= at - self.policy.lapse:
                if joined.time < at:
                    latest[name] = Told(at, channel)
            elif t < at + self.policy.lapse:
                found.append((at, channel))
        return found + [(told.time, told.channel) for told in latest.values()]

    def obstacles(self, t: int, channel: str) -> list[str]:
        """What stands against a contact at ``t``."""
        found = []
        contacts = self.contacts(t)
        for cap in self.policy.caps:
            if cap.channel not in (None, channel) or cap.most == 0:
                continue
            times = [time for time, by in contacts if cap.channel in (None, by)]
            if cap.within is not None:
                count = sum(time > t - cap.within for time in times)
            else:
                first = self.local(t).date().toordinal() - (cap.days or 0) + 1
                count = sum(self.local(time).date().toordinal() >= first for time in times)
            if count >= cap.most:
                found.append("cap")
        if self.policy.quiet is not None:
            start, end = self.policy.quiet
            shown = self.local(t)
            minute = shown.hour * 60 + shown.minute
            if (start <= minute < end) if start <= end else (minute >= start or minute < end):
                found.append("quiet")
        return found


_zones: dict[str, ZoneInfo] = {}

channels = st.sampled_from(["email", "sns"])
quarters = st.integers(-4 * 96, 2 * 96).map(lambda n: n * QUARTER)
caps = st.builds(
    Cap,
    st.integers(1, 3),
    st.none() | channels,
    st.integers(1, 4 * 96).map(lambda n: n * QUARTER),
) | st.builds(Cap, st.integers(1, 3), st.none() | channels, st.none(), st.integers(1, 4))
policies = st.builds(
    ContactPolicy,
    st.lists(caps, max_size=3).map(tuple),
    st.none()
    | st.tuples(st.integers(0, 95), st.integers(0, 95)).map(lambda pair: (pair[0] * 15, pair[1] * 15)),
    st.just(("receipt",)),
    st.integers(1, 2 * 96).map(lambda n: n * QUARTER),
)
triggers = st.sampled_from([None, "a", "b", "c"])
touches = st.lists(
    st.builds(
        Told,
        quarters,
        channels,
        st.sampled_from([True, True, True, False]),
        st.sampled_from([None, "open", "receipt"]),
        triggers,
    ),
    max_size=8,
)
places = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(-4 * 96, 0).map(lambda n: n * QUARTER), channels),
    max_size=3,
    unique_by=lambda place: place[0],
)


def moved(world: World, by: int, jitter: int = 0) -> World:
    """The same world at another time; with every second thing a little later."""
    return World(
        world.policy,
        world.zone,
        [
            Told(told.time + by + jitter * (n % 2), told.channel, told.outbound, told.action, told.trigger)
            for n, told in enumerate(world.touches)
        ],
        [(name, at + by, channel) for name, at, channel in world.places],
    )


worlds = st.builds(World, policies, st.sampled_from(sorted(JUMPS)), touches, places)


@given(worlds, st.integers(-96, 96))
@settings(max_examples=400, deadline=None)
def test_a_deferral_is_until_the_first_instant_that_a_search_finds(world: World, quarter: int) -> None:
    jump = parse_rfc3339(JUMPS[world.zone])
    world = moved(world, jump)
    at = jump + quarter * QUARTER
    said = world.asked(at)
    # Everything changes at whole quarters of an hour: what is asked in between would be answered alike.
    allowed = (t for t in range(at, at + 12 * DAY, QUARTER) if not world.obstacles(t, "email"))
    first = next(allowed)
    if first == at:
        assert said == ALLOW
    else:
        assert (said.decision, said.until) == ("defer", first)
        assert said.reason is not None
        assert said.reason.startswith(world.obstacles(at, "email")[0])


@given(
    worlds,
    st.sampled_from(["America/St_Johns", *JUMPS]),
    st.integers(-DAY, DAY),
    st.integers(0, 100_000),
    st.lists(st.floats(0, 1, exclude_max=True), max_size=20),
)
@settings(max_examples=400, deadline=None)
def test_a_deferral_ends_in_the_millisecond_in_which_nothing_stands_against_it(
    world: World, zone: str, ms: int, jitter: int, shares: list[float]
) -> None:
    jump = parse_rfc3339("2005-10-30T02:31:00Z" if zone == "America/St_Johns" else JUMPS[zone])
    world = moved(World(world.policy, zone, world.touches, world.places), jump, jitter)
    at = jump + ms
    said = world.asked(at)
    if said == ALLOW:
        assert not world.obstacles(at, "email")
        return
    until = said.until
    assert until is not None
    assert not world.obstacles(until, "email")
    for t in (at, until - 1, *(at + int(share * (until - at)) for share in shares)):
        assert world.obstacles(t, "email")


def test_a_day_that_ends_twice_is_over_between_and_not_again_until_its_second_end() -> None:
    noon = parse_rfc3339("2005-10-29T12:00:00-02:30")
    first, again = (parse_rfc3339(f"2005-10-30T00:00:00{offset}") for offset in ("-02:30", "-03:30"))
    world = World(ContactPolicy((Cap(1, days=1),)), "America/St_Johns", [Told(noon)])
    assert world.asked(noon).until == first
    assert world.asked(first) == ALLOW
    assert world.asked(first + MINUTE) == Permission("defer", again, "cap: all channels, 1 in a local day")
    # Who may not be contacted at night misses the minute between.
    quiet = World(ContactPolicy((Cap(1, days=1),), (0, 1)), "America/St_Johns", [Told(noon)])
    assert quiet.asked(noon).until == again + MINUTE


@given(worlds, st.integers(-96, 96), st.integers(0, 4 * 96))
@example(World(ContactPolicy((Cap(1, within=DAY),), lapse=QUARTER), "UTC", [], [("a", 0, "email")]), 0, 0)
@settings(max_examples=300, deadline=None)
def test_what_lies_beyond_the_reach_makes_no_difference(world: World, quarter: int, later: int) -> None:
    jump = parse_rfc3339(JUMPS[world.zone])
    world = moved(world, jump)
    at = jump + quarter * QUARTER
    policy = Policy(world.policy, "UTC")
    customer = world.customer()
    customer.touches = [touch for touch in customer.touches if touch.time >= at - policy.reach]
    policy.forget(customer.bond, at)
    then = at + later * QUARTER
    assert policy.permission(customer, "email", None, then) == world.asked(then)


def test_places_are_forgotten_when_no_cap_can_count_them() -> None:
    world = World(
        ContactPolicy((Cap(1, within=DAY),), lapse=HOUR), places=[("a", 0, "email"), ("b", 1, "email")]
    )
    bond = world.customer().bond
    policy = Policy(world.policy, "UTC")
    policy.forget(bond, DAY - 1)
    assert [placed.at for placed in bond.placed] == [0, 1]
    policy.forget(bond, DAY)
    assert [placed.at for placed in bond.placed] == [1]
    Policy(ContactPolicy((Cap(0),)), "UTC").forget(bond, 1)
    assert bond.placed == []


DAILY = ContactPolicy((Cap(1, within=DAY),), lapse=HOUR)
T = parse_rfc3339("2017-04-03T12:00:00Z")


def test_a_trigger_counts_at_once_and_lapses_where_nothing_comes() -> None:
    world = World(DAILY, places=[("a", T, "email")])
    assert world.asked(T).until == T + HOUR
    assert world.asked(T + HOUR - 1).until == T + HOUR
    assert world.asked(T + HOUR) == ALLOW


def test_a_touchpoint_that_comes_keeps_the_place_and_counts_once() -> None:
    twice = ContactPolicy((Cap(2, within=DAY),), lapse=HOUR)
    for times in ([T + MINUTE], [T + MINUTE, T + 2 * MINUTE], [T + 2 * MINUTE] * 2):
        world = World(DAILY, touches=[Told(t, trigger="a") for t in times], places=[("a", T, "email")])
        assert world.asked(T + 2 * HOUR).until == max(times) + DAY
        world.policy = twice
        assert world.asked(T + 2 * HOUR) == ALLOW


def test_a_touchpoint_dated_before_its_trigger_joins_it_unless_it_is_older_than_a_lapse() -> None:
    for before, joins in ((1, True), (HOUR, True), (HOUR + 1, False)):
        world = World(DAILY, touches=[Told(T - before, trigger="a")], places=[("a", T, "email")])
        assert world.asked(T + HOUR).until == (T if joins else T - before) + DAY
        world.policy = ContactPolicy((Cap(2, within=DAY),), lapse=HOUR)
        assert (world.asked(T) == ALLOW) is joins


def test_a_touchpoint_too_old_to_count_still_joins_its_trigger() -> None:
    world = World(ContactPolicy((Cap(1, within=10 * HOUR),), lapse=8 * HOUR), places=[("a", T, "email")])
    assert world.asked(T + 4 * HOUR).until == T + 8 * HOUR
    world.touches.append(Told(T - 7 * HOUR, trigger="a"))
    assert world.asked(T + 4 * HOUR).until == T + 10 * HOUR


def test_touchpoints_of_a_trigger_nobody_knows_count_once_too() -> None:
    world = World(
        ContactPolicy((Cap(2, within=DAY),)), touches=[Told(T, trigger="a"), Told(T + 1, trigger="a")]
    )
    assert world.asked(T + 1) == ALLOW
    world.touches.append(Told(T, trigger="b"))
    assert world.asked(T + 1) == Permission("defer", T + DAY, "cap: all channels, 2 within 1d")


def test_what_counts_once_counts_on_the_channel_of_the_later() -> None:
    policy = ContactPolicy((Cap(1, "email", within=DAY),), lapse=HOUR)
    for time, counts in ((T - 1, True), (T, False), (T + 1, False)):
        world = World(policy, touches=[Told(time, "sns", trigger="a")], places=[("a", T, "email")])
        assert (world.asked(T + 1) != ALLOW) is counts
    # At one instant it is that of the larger key, in whatever order they came.
    keys = [event_key("crm", str(number)) for number in range(2)]
    for first, second in (("email", "sns"), ("sns", "email")):
        world = World(policy, touches=[Told(T, first, trigger="a"), Told(T, second, trigger="a")])
        assert (world.asked(T) != ALLOW) is ((first, second)[keys.index(max(keys))] == "email")


def test_transactional_messages_are_always_allowed_and_count_as_nothing() -> None:
    policy = ContactPolicy((Cap(1, within=DAY), Cap(0, "sns")), (0, 1439), ("receipt",), HOUR)
    world = World(policy, touches=[Told(T, action="receipt"), Told(T, action="receipt", trigger="a")])
    assert world.asked(T, "sns", "receipt") == ALLOW
    assert world.asked(T, "sns", "campaign").decision == "suppress"
    assert world.asked(T, "email").until == parse_rfc3339("2017-04-03T23:59:00Z")
    world.places.append(("a", T, "email"))
    world.policy = ContactPolicy((Cap(1, within=DAY),), None, ("receipt",), HOUR)
    assert world.asked(T).until == T + HOUR  # a receipt joins no trigger


def test_a_cap_of_zero_means_never_and_no_cap_means_always() -> None:
    assert World(ContactPolicy((Cap(0, "email"),))).asked(T) == Permission(
        "suppress", None, "cap: email, never"
    )
    assert World(ContactPolicy((Cap(0),))).asked(T, "sns").reason == "cap: all channels, never"
    crowd = World(ContactPolicy((Cap(0, "email"),)), touches=[Told(T, "sns")] * 50)
    assert crowd.asked(T, "sns") == ALLOW
    crowd.policy = ContactPolicy()
    assert crowd.asked(T) == ALLOW


def test_contacts_dated_later_count_already() -> None:
    world = World(DAILY, touches=[Told(T + 3 * DAY)])
    assert world.asked(T).until == T + 4 * DAY


def test_inbound_touches_are_no_contacts() -> None:
    assert World(DAILY, touches=[Told(T, outbound=False, trigger="a")] * 3).asked(T) == ALLOW


@pytest.mark.parametrize(
    ("zone", "quiet", "at", "until"),
    [
        # Over midnight, and within a day; the first minute is quiet, the last one is not.
        ("UTC", ("21:00", "08:00"), "2017-04-03T21:00:00Z", "2017-04-04T08:00:00Z"),
        ("UTC", ("21:00", "08:00"), "2017-04-03T07:59:59.999Z", "2017-04-03T08:00:00Z"),
        ("UTC", ("21:00", "08:00"), "2017-04-03T08:00:00Z", None),
        ("UTC", ("21:00", "08:00"), "2017-04-03T20:59:59.999Z", None),
        ("UTC", ("12:00", "13:30"), "2017-04-03T12:00:00Z", "2017-04-03T13:30:00Z"),
        ("UTC", ("12:00", "13:30"), "2017-04-03T00:00:00Z", None),
        # A short night, and a long one.
        ("America/New_York", ("21:00", "08:00"), "2017-03-11T22:00:00-05:00", "2017-03-12T08:00:00-04:00"),
        ("Europe/Berlin", ("21:00", "08:00"), "2017-10-28T22:00:00+02:00", "2017-10-29T08:00:00+01:00"),
        # The end of the quiet hours is skipped: they end when the clock is put forward over it.
        ("America/New_York", ("21:00", "02:30"), "2017-03-11T22:00:00-05:00", "2017-03-12T03:00:00-04:00"),
        # All that is not quiet is skipped: nothing is said that day.
        ("America/New_York", ("03:00", "02:00"), "2017-03-11T03:00:00-05:00", "2017-03-13T02:00:00-04:00"),
        # It comes twice: not quiet, and then quiet once more.
        ("Europe/Berlin", ("21:00", "02:30"), "2017-10-28T22:00:00+02:00", "2017-10-29T02:30:00+02:00"),
        ("Europe/Berlin", ("21:00", "02:30"), "2017-10-29T02:00:00+01:00", "2017-10-29T02:30:00+01:00"),
        ("Europe/Berlin", ("21:00", "02:30"), "2017-10-29T02:45:00+02:00", None),
        # A day that there was not.
        ("Pacific/Apia", ("20:00", "08:00"), "2011-12-29T21:00:00-10:00", "2011-12-31T08:00:00+14:00"),
    ],
)
def test_quiet_hours_are_local_times(zone: str, quiet: tuple[str, str], at: str, until: str | None) -> None:
    start, end = (int(text[:2]) * 60 + int(text[3:]) for text in quiet)
    said = World(ContactPolicy((), (start, end)), zone).asked(parse_rfc3339(at))
    if until is None:
        assert said == ALLOW
    else:
        expected = parse_rfc3339(until)
        assert said == Permission("defer", expected, f"quiet hours: {quiet[0]} to {quiet[1]}")


def test_a_local_day_is_a_calendar_day_of_the_customers_zone() -> None:
    policy = ContactPolicy((Cap(1, days=1),))
    evening = parse_rfc3339("2017-04-03T22:00:00-04:00")  # the 4th in London, and in Tokyo
    world = World(policy, "America/New_York", [Told(evening)])
    assert world.asked(evening + HOUR).until == parse_rfc3339("2017-04-04T00:00:00-04:00")
    world.zone = "Europe/London"
    assert world.asked(evening + HOUR).until == parse_rfc3339("2017-04-05T00:00:00+01:00")
    without = world.customer(zone_is_own=False)
    said = Policy(policy, "Asia/Tokyo").permission(without, "email", None, evening + HOUR)
    assert said.until == parse_rfc3339("2017-04-05T00:00:00+09:00")


def test_a_zone_that_the_data_no_longer_knows_is_the_programs() -> None:
    world = World(ContactPolicy((Cap(1, days=1),)), "UTC", [Told(T)])
    customer = world.customer()
    customer.bond.zone = "Mars/Base"
    said = Policy(world.policy, "UTC").permission(customer, "email", None, T)
    assert said.until == parse_rfc3339("2017-04-04T00:00:00Z")


def test_a_local_day_counts_whole_also_where_it_has_23_or_25_hours() -> None:
    policy = ContactPolicy((Cap(1, days=2),))
    early = parse_rfc3339("2017-03-12T00:00:00-05:00")
    world = World(policy, "America/New_York", [Told(early)])
    assert world.asked(early).until == parse_rfc3339("2017-03-14T00:00:00-04:00") == early + 47 * HOUR
    long = parse_rfc3339("2017-10-29T00:00:00+02:00")
    assert World(policy, "Europe/Berlin", [Told(long)]).asked(long).until == long + 49 * HOUR
    one_day = World(ContactPolicy((Cap(1, days=1),)), "Europe/Berlin", [Told(long)])
    assert one_day.asked(long + 25 * HOUR - 1).until == long + 25 * HOUR
    assert one_day.asked(long + 25 * HOUR) == ALLOW


def test_the_reason_is_the_first_obstacle_also_where_another_ends_last() -> None:
    caps = (Cap(3, within=2 * HOUR), Cap(1, "email", within=90 * MINUTE), Cap(2, days=3))
    at = parse_rfc3339("2017-04-03T22:00:00Z")
    world = World(
        ContactPolicy(caps, (21 * 60, 8 * 60)), touches=[Told(at - HOUR), Told(at - 2 * DAY, "sns")]
    )
    assert world.asked(at) == Permission(
        "defer", parse_rfc3339("2017-04-04T08:00:00Z"), "cap: email, 1 within 90m"
    )
    assert world.asked(at, "sns").reason == "cap: all channels, 2 in 3 local days"
    assert world.asked(at + 40 * MINUTE, "email").reason == "cap: all channels, 2 in 3 local days"
    world.touches.pop()
    assert world.asked(at + 40 * MINUTE).reason == "quiet hours: 21:00 to 08:00"


def test_asking_changes_nothing() -> None:
    world = World(DAILY, touches=[Told(T, trigger="a")], places=[("a", T, "email"), ("b", T, "sns")])
    customer = world.customer()
    before = msgspec.msgpack.encode(
        [customer.bond, rows(customer.touches), customer.channels, customer.actions]
    )
    Policy(world.policy, "UTC").permission(customer, "post", "letter", T)
    assert before == msgspec.msgpack.encode(
        [customer.bond, rows(customer.touches), customer.channels, customer.actions]
    )


def test_thousands_of_contacts_are_deferred_in_one_step_each() -> None:
    world = World(
        ContactPolicy((Cap(1, days=3), Cap(5, within=DAY)), (0, 60)),
        "Europe/Berlin",
        [Told(T + n * MINUTE, trigger=None) for n in range(4_000)],
    )
    last = date(2017, 4, 6)  # 4,000 minutes on, by the clock of Berlin
    assert world.local(T + 3_999 * MINUTE).date() == last
    assert format_ms(world.asked(T).until or 0) == "2017-04-08T23:00:00.000Z"  # the 9th at 01:00
