"""May this customer be contacted? Asked of real workers, and places taken under the caps."""

import json
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from cli.local_stack import LocalStack
from tests.space import PROGRAM, Space, Worker, now_ms, purchase, text_of, touchpoint, wait_until

SHOP = PROGRAM.format(window="365d", ledger="2000d", silver="100.00")
LAPSE = 4_000
WEEK = 7 * 86_400_000

POLICY = """
[contact_policy]
quiet_from = "00:00"
quiet_until = "12:00"
transactional = ["receipt"]
lapse = "4s"
[[contact_policy.caps]]
channel = "email"
most = 1
within = "7d"
[[contact_policy.caps]]
channel = "call"
most = 0
[[contact_policy.caps]]
most = 3
within = "7d"
"""


def zone_where_it_is(hour: int) -> str:
    """A zone in which the clock shows about this hour now."""
    ahead = (hour - datetime.now(UTC).hour) % 24
    ahead = ahead if ahead <= 14 else ahead - 24
    return f"Etc/GMT{-ahead:+d}" if ahead else "Etc/GMT"


#: Morning and evening, each far from noon and midnight for as long as the tests take.
MORNING, EVENING = zone_where_it_is(5), zone_where_it_is(18)


def shop(**other: str) -> str:
    timezone = other.get("timezone", EVENING)
    return SHOP.replace('id = "shop"', f'id = "shop"\ntimezone = "{timezone}"') + other.get("policy", POLICY)


@pytest.fixture(scope="module")
def space(stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Space]:
    with Space(stack, tmp_path_factory.mktemp("contact"), program=shop()) as space:
        space.worker()
        yield space


@pytest.fixture
def worker(space: Space) -> Worker:
    return space.workers[-1]


def asked(worker: Worker, customer: str, **parameters: str) -> tuple[int, dict[str, Any]]:
    status, text = worker.get(f"/customers/{quote(customer, safe='')}/contact?{urlencode(parameters)}")
    return status, json.loads(text)


def answer(worker: Worker, customer: str, **parameters: str) -> dict[str, Any]:
    status, said = asked(worker, customer, **({"channel": "email"} | parameters))
    assert status == 200, said
    return said


def reserved(worker: Worker, customer: str, **parameters: str) -> dict[str, Any]:
    return answer(worker, customer, reserve="true", **parameters)


def sent(customer: str, number: object, at: int, trigger: str | None = None, **other: Any) -> dict[str, Any]:
    """The outbound touchpoint that comes back from who has sent it."""
    event = touchpoint(customer, number, other.pop("channel", "email"), "outbound", at)
    return event | ({} if trigger is None else {"trigger_id": trigger}) | other


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000 + 0.5)


def test_whoever_nobody_knows_may_be_contacted_unless_a_channel_is_closed(worker: Worker) -> None:
    before = now_ms()
    said = answer(worker, "new/one")
    assert before - 2_000 <= ms(said.pop("as_of")) <= now_ms() + 1
    assert said == {
        "customer_id": "new/one",
        "channel": "email",
        "action": None,
        "decision": "allow",
        "until": None,
        "reason": None,
        "trigger_id": None,
    }
    said = answer(worker, "new/one", channel="call", action="campaign")
    assert (said["decision"], said["reason"], said["action"]) == ("suppress", "cap: call, never", "campaign")
    assert answer(worker, "new/one", channel="call", action="receipt")["decision"] == "allow"
    assert worker.get("/customers/new/one")[0] == 404  # nobody is made by a question


def test_a_contact_defers_the_next_one_by_its_cap(space: Space, worker: Worker) -> None:
    at = now_ms() - 60_000
    space.publish([sent("capped", "a", at), sent("capped", "b", at - 5_000, channel="sns")])
    space.wait_read()
    said = answer(worker, "capped")
    assert (said["decision"], said["until"]) == ("defer", text_of(at + WEEK))
    assert said["reason"] == "cap: email, 1 within 7d"
    assert answer(worker, "capped", channel="sns")["decision"] == "allow"
    assert reserved(worker, "capped")["trigger_id"] is None


def test_quiet_hours_are_those_of_the_customers_own_zone(space: Space, worker: Worker) -> None:
    events = [
        touchpoint(customer, f"z{customer}", "app", "inbound", now_ms()) | {"timezone": zone}
        for customer, zone in (("early", MORNING), ("late", EVENING))
    ]
    space.publish(events)
    space.wait_read()
    said = answer(worker, "early")
    assert (said["decision"], said["reason"]) == ("defer", "quiet hours: 00:00 to 12:00")
    assert 0 < ms(said["until"]) - now_ms() < 12 * 3_600_000
    assert ms(said["until"]) % 3_600_000 == 0
    assert answer(worker, "late")["decision"] == "allow"


def test_a_place_is_taken_at_once_joined_by_its_touchpoint_and_counted_once(
    space: Space, worker: Worker
) -> None:
    took = reserved(worker, "joined")
    assert took["decision"] == "allow"
    trigger = took["trigger_id"]
    assert trigger == "shop:reserved/joined/1"
    said = answer(worker, "joined")
    # It is free again when it lapses, unless the touchpoint comes.
    assert (said["decision"], said["until"]) == ("defer", text_of(ms(took["as_of"]) + LAPSE))
    record = next(r for r in read_triggers(space, "joined"))
    assert record["event_id"] == trigger
    assert (record["status"], record["channel"]) == ("reserved", "email")
    assert (record["effective_at"], record["expires_at"]) == (
        took["as_of"],
        text_of(ms(took["as_of"]) + LAPSE),
    )
    at = now_ms()
    space.publish([sent("joined", "first", at, trigger), sent("joined", "again", at + 1, trigger)])
    space.wait_read()
    wait_until(lambda: now_ms() > ms(record["expires_at"]) + 200, what="the time at which it would lapse")
    said = answer(worker, "joined")
    assert (said["decision"], said["until"]) == ("defer", text_of(at + 1 + WEEK))
    # One, not two or three: there is room for two more of all channels.
    for _ in range(2):
        assert reserved(worker, "joined", channel="sns")["decision"] == "allow"
    assert reserved(worker, "joined", channel="sns")["reason"] == "cap: all channels, 3 within 7d"


def test_a_place_that_nobody_uses_lapses(worker: Worker) -> None:
    took = reserved(worker, "lapsing")
    until = ms(answer(worker, "lapsing")["until"])
    assert until == ms(took["as_of"]) + LAPSE
    wait_until(lambda: answer(worker, "lapsing")["decision"] == "allow", what="the place free again")
    assert now_ms() >= until
    assert reserved(worker, "lapsing")["trigger_id"] == "shop:reserved/lapsing/2"


def test_of_many_who_ask_at_once_one_gets_the_place(worker: Worker) -> None:
    with ThreadPoolExecutor(16) as pool:
        said = list(pool.map(lambda _: reserved(worker, "wanted"), range(40)))
    assert sorted(one["decision"] for one in said) == ["allow"] + ["defer"] * 39
    assert len({one["trigger_id"] for one in said}) == 2


def test_places_are_kept_when_the_worker_is_killed(space: Space, worker: Worker) -> None:
    at = now_ms()
    taken = [reserved(worker, "kept", channel=channel) for channel in ("email", "sns")]
    space.publish([sent("kept", "k", at, taken[0]["trigger_id"])])
    space.wait_read()
    worker.kill()
    worker = space.worker()
    said = answer(worker, "kept")
    # By whichever of the two is later: the reservation, or the touchpoint that joined it.
    assert (said["decision"], ms(said["until"])) == ("defer", max(at, ms(taken[0]["as_of"])) + WEEK)
    assert reserved(worker, "kept", channel="app")["trigger_id"] == "shop:reserved/kept/3"
    assert len({record["event_id"] for record in read_triggers(space, "kept", 3)}) == 3


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("", "channel: missing"),
        ("channel=", "channel: expected a string of 1 to 64 characters"),
        (f"channel={'x' * 65}", "channel: expected a string of 1 to 64 characters"),
        ("channel=email&channel=sns", "channel: given more than once"),
        ("channel=email&reserve=yes", "reserve: expected true or false, not 'yes'"),
        ("channel=email&reserve=", "reserve: expected true or false, not ''"),
        (f"channel=email&action={'x' * 257}", "action: expected a string of at most 256 characters"),
        (
            "channel=email&as_of=2026-01-01T00:00:00Z",
            "as_of: no parameter of this page, which takes channel, action, reserve",
        ),
    ],
)
def test_a_parameter_that_cannot_be_used_is_named(worker: Worker, query: str, error: str) -> None:
    status, text = worker.get(f"/customers/bad/contact?{query}")
    assert (status, json.loads(text)) == (400, {"error": error})


def test_a_customer_whose_id_is_too_long_is_a_bad_request(worker: Worker) -> None:
    status, said = asked(worker, "x" * 129, channel="email")
    assert (status, said["error"]) == (400, "customer_id: expected a string of 1 to 128 characters")


def test_to_look_at_the_headers_takes_no_place(worker: Worker) -> None:
    connection = HTTPConnection("127.0.0.1", worker.port, timeout=10)
    connection.request("HEAD", "/customers/head/contact?channel=email&reserve=true")
    assert connection.getresponse().status in (400, 405)
    connection.close()
    assert answer(worker, "head")["decision"] == "allow"


def test_the_answer_is_not_kept_by_anybody_between(worker: Worker) -> None:
    url = f"http://127.0.0.1:{worker.port}/customers/cached/contact?channel=email"
    with urllib.request.urlopen(url, timeout=10) as reply:
        assert reply.headers["Cache-Control"] == "no-store"
        assert reply.headers["Content-Type"].startswith("application/json")


def test_without_a_policy_there_is_no_permission_to_ask_for(stack: LocalStack, tmp_path: Path) -> None:
    with Space(stack, tmp_path) as space:
        worker = space.worker()
        for query in ("channel=email", "channel=email&reserve=true"):
            status, text = worker.get(f"/customers/900/contact?{query}")
            assert (status, json.loads(text)) == (409, {"error": "the program has no [contact_policy]"})


def test_any_worker_answers_and_the_owner_takes_places(stack: LocalStack, tmp_path: Path) -> None:
    with Space(stack, tmp_path, program=shop(), partitions=2) as space:
        workers = [space.worker(), space.worker()]

        def shared() -> bool:
            held = [json.loads(worker.get("/readyz")[1]).get("partitions") for worker in workers]
            return sorted(map(str, held)) == ["[0]", "[1]"]

        wait_until(shared, 60, "a shard for each worker")
        ids = [f"c{number}" for number in range(6)]
        assert {space.home(customer) for customer in ids} == {0, 1}
        at = now_ms() - 1_000
        space.publish([purchase(customer, customer, "5.00", at) for customer in ids])
        space.publish([sent(ids[0], "x", at)])
        space.wait_read()
        for customer in ids:
            said = [answer(worker, customer) for worker in workers]
            assert {(one["decision"], one["until"]) for one in said} == (
                {("defer", text_of(at + WEEK))} if customer == ids[0] else {("allow", None)}
            )
        for customer in ids[1:]:
            # urllib goes where it is sent.
            assert reserved(workers[0], customer)["trigger_id"] == f"shop:reserved/{customer}/1"
            # What the store says is committed, so both know it.
            assert [answer(worker, customer)["decision"] for worker in workers] == ["defer", "defer"]
        elsewhere = next(customer for customer in ids if space.home(customer) == held_by(workers[1]))
        path = f"/customers/{elsewhere}/contact?channel=email&reserve=true"
        connection = HTTPConnection("127.0.0.1", workers[0].port, timeout=10)
        connection.request("GET", path)
        reply = connection.getresponse()
        assert reply.status == 307
        assert reply.headers["Location"] == f"http://127.0.0.1:{workers[1].port}{path}"
        connection.close()


def held_by(worker: Worker) -> int:
    (partition,) = json.loads(worker.get("/readyz")[1])["partitions"]
    return int(partition)


def test_by_the_event_clock_it_is_as_late_as_the_newest_event(stack: LocalStack, tmp_path: Path) -> None:
    with Space(stack, tmp_path, program=shop(timezone="UTC"), partitions=1, clock="event") as space:
        worker = space.worker()
        noon = 1_483_272_000_000  # 2017-01-01T12:00:00Z
        space.publish([sent("900", "a", noon + 1), purchase("901", "b", "5.00", noon + 60_000)])
        space.wait_read()
        said = answer(worker, "900")
        assert (said["as_of"], said["until"]) == (text_of(noon + 60_000), text_of(noon + 1 + WEEK))
        took = reserved(worker, "901")
        assert (took["as_of"], took["decision"]) == (text_of(noon + 60_000), "allow")
        assert answer(worker, "901")["until"] == text_of(noon + 60_000 + LAPSE)
        # What is not used lapses as the events go on.
        space.publish([purchase("902", "c", "5.00", noon + 60_000 + LAPSE)])
        space.wait_read()
        assert answer(worker, "901")["decision"] == "allow"


def read_triggers(space: Space, customer: str, least: int = 1) -> list[dict[str, Any]]:
    """What was published of a customer's triggers, as soon as there are so many."""

    def published() -> list[dict[str, Any]]:
        records = [record.json for record in space.read("nurturing-triggers")]
        return [record for record in records if record["customer_id"] == customer]

    return wait_until(lambda: len(published()) >= least, what="the triggers") and published()
