"""What is asked and decided about one customer: why, and override."""

import getpass
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from schemas.times import DAY, parse_rfc3339
from tests.cli.conftest import Cli, wait_until, working
from tests.cli.shop import purchase

#: After every event of the tests, so that no other test's purchase is newer.
AS_OF = "2024-01-21T00:00:00Z"


@pytest.fixture(scope="module")
def bought(kizuna: Cli, worker: None) -> Cli:
    """The worker has counted: 910 with three orders, and customers whose ids are odd with one each."""
    events = [
        purchase(f"w{day}", "910", occurred_at=f"2024-01-0{day}T10:00:00Z", amount="50.00")
        for day in range(1, 4)
    ]
    events += [purchase(f"w-{odd}", odd) for odd in ("why", "-911", "912", "912/why")]
    assert kizuna("publish", "-", stdin="\n".join(events)).ok

    def shown() -> bool:
        lines = map(json.loads, kizuna("state", "dump", "--json", "--as-of", AS_OF).ok.splitlines())
        found = {line["customer_id"]: line["frequency"] for line in lines}
        return found.get("910") == 3 and {"why", "-911", "912", "912/why"} <= found.keys()

    wait_until(shown)
    return kizuna


# --- the ID and what follows it


def test_options_stand_before_or_after_the_id(bought: Cli) -> None:
    as_of = ("--as-of", AS_OF)
    line = bought("customer", "910", "--json", *as_of).ok
    assert json.loads(line)["customer_id"] == "910"
    assert bought("customer", "--json", *as_of, "910").ok == line
    assert bought("customer", "--json", "910", *as_of).ok == line
    assert bought("customer", *as_of, "--json", "--", "910").ok == line


def test_options_of_a_command_stand_before_or_after_its_name(bought: Cli) -> None:
    as_of = ("--as-of", AS_OF)
    line = bought("customer", "910", "why", "--json", *as_of).ok
    assert json.loads(line)["orders"][0]["order_id"] == "w1"
    assert bought("customer", "--json", *as_of, "910", "why").ok == line
    assert bought("customer", *as_of, "910", "--json", "why").ok == line


def test_an_id_may_be_the_name_of_a_command_or_look_like_an_option(bought: Cli) -> None:
    as_of = ("--json", "--as-of", AS_OF)
    for arguments, customer_id in ((("why", *as_of), "why"), ((*as_of, "--", "-911"), "-911")):
        found = json.loads(bought("customer", *arguments).ok)
        assert (found["customer_id"], found["lifetime_orders"]) == (customer_id, 1)
    for arguments, customer_id in ((("why", "why", *as_of), "why"), ((*as_of, "--", "-911", "why"), "-911")):
        found = json.loads(bought("customer", *arguments).ok)
        assert (found["customer_id"], len(found["orders"])) == (customer_id, 1)


# --- why


def test_why_tells_what_counts_what_is_missing_and_what_comes(bought: Cli) -> None:
    found = json.loads(bought("customer", "910", "why", "--as-of", AS_OF, "--json").ok)
    assert (found["tier"], found["frequency"], found["monetary"]) == ("member", 3, "150.00")
    assert [order["order_id"] for order in found["orders"]] == ["w1", "w2", "w3"]
    assert found["missing"] == {
        "tier": "silver",
        "monetary": "50.00",
        "frequency": 2,
        "recency_seconds": None,
    }
    assert found["thresholds"]["enter"]["decided_by"] == ["monetary", "frequency"]
    assert found["next"] is None


def test_why_for_a_person(bought: Cli) -> None:
    lines = [line.split() for line in bought("customer", "910", "why", "--as-of", AS_OF).ok.splitlines()]
    assert ["tier", "member", "(no", "change", "yet)"] in lines
    assert ["✗", "spent", "150.00", "USD", "of", "200.00", "USD"] in lines
    assert ["✗", "orders", "3", "of", "5"] in lines
    assert ["missing:", "50.00", "USD,", "2", "orders"] in lines
    assert ["orders", "3", "count,", "150.00", "USD"] in lines
    assert ["2024-01-01T10:00:00Z", "w1", "50.00", "2024-07-01T10:00:00Z"] in lines


def test_why_refuses_what_it_cannot_answer(bought: Cli) -> None:
    assert bought("customer", "nobody", "why").error == "no customer 'nobody'"
    error = bought("customer", "910", "why", "--as-of", "2023-12-31T00:00:00Z").error
    assert "is before the newest purchase" in error


def test_the_page_says_why_unless_a_customer_is_called_so(bought: Cli, worker_port: int) -> None:
    def get(path: str) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{worker_port}/customers/{path}", timeout=10
            ) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    as_of = f"as_of={quote(AS_OF)}"
    printed = json.loads(bought("customer", "910", "why", "--as-of", AS_OF, "--json").ok)
    assert get(f"910/why?{as_of}") == (200, printed)
    status, customer = get(f"912/why?{as_of}")
    assert (status, customer["customer_id"], customer["lifetime_orders"]) == (200, "912/why", 1)
    status, explained = get(f"912/why/why?{as_of}")
    assert (status, explained["customer_id"], explained["orders"][0]["order_id"]) == (
        200,
        "912/why",
        "w-912/why",
    )
    assert get("nobody/why") == (404, {"error": "no customer 'nobody'"})
    assert get("910/why?as_of=soon")[0] == 400
    assert get("910/why?as_of=2017-01-01T00:00:00Z")[0] == 400


# --- override


@pytest.fixture(scope="module")
def wall(kizuna: Cli, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """A store and a worker that go by the wall clock: an override is an event of today."""
    prefixes = {"KIZUNA_TOPIC_PREFIX": "wall.", "KIZUNA_REDIS_PREFIX": "wall", "KIZUNA_GROUP": "wall"}
    found = Cli(kizuna.env | prefixes | {"KIZUNA_CLOCK": "wall"})
    assert found("topics", "create", "--partitions", "1").ok
    with working(found, tmp_path_factory.mktemp("wall") / "log"):
        yield found


def test_an_override_is_sent_and_holds_until_it_is_cleared(wall: Cli) -> None:
    done = wall(
        *("customer", "913", "override", "floor", "gold", "--until", "30d"),
        *("--actor", "anna", "--reason", "late parcel", "--json"),
    )
    sent = json.loads(done.ok)
    assert (sent["topic"], sent["partition"], sent["offset"]) == ("wall.customer-commands", 0, 0)
    event = sent["value"]
    assert (
        event
        | {
            "source": "kizuna-cli",
            "type": "override",
            "customer_id": "913",
            "mode": "floor",
            "tier": "gold",
            "actor": "anna",
            "reason": "late parcel",
        }
        == event
    )
    lasts = parse_rfc3339(event["until"]) - parse_rfc3339(event["occurred_at"])
    assert 29 * DAY < lasts <= 30 * DAY

    def why() -> Any:
        done = wall("customer", "913", "why", "--json")
        return json.loads(done.out) if done.code == 0 else None

    held = wait_until(why)["override"]
    assert (held["mode"], held["tier"], held["until"]) == ("floor", "gold", event["until"])
    assert (held["actor"], held["reason"]) == ("anna", "late parcel")
    text = wall("customer", "913", "why").ok
    assert "floor: at least gold until" in text
    assert "anna: late parcel" in text

    cleared = wall("customer", "913", "override", "clear", "--reason", "it came")
    assert cleared.ok.startswith("nothing is to hold customer 913")
    assert f"by {getpass.getuser()}: it came" in cleared.out
    wait_until(lambda: why()["tier"] == "member")
    changes = wall("tail", "tier-changes", "--no-follow").ok.splitlines()
    assert [line.split()[2:] for line in changes] == [
        ["member", "→", "gold", "override"],
        ["gold", "→", "member", "override"],
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("pin", "platinum", "--until", "30d", "--reason", "x"),
            'tier: expected "member" or "silver" or "gold"',
        ),
        (("pin", "gold", "--until", "2020-01-01T00:00:00Z", "--reason", "x"), "until: expected a time after"),
        (("pin", "gold", "--until", "30d", "--reason", ""), "reason: expected"),
        (("clear", "--actor", "a" * 200, "--reason", "x"), "actor: expected"),
    ],
    ids=["tier", "until", "reason", "actor"],
)
def test_what_a_worker_would_not_take_is_not_sent(kizuna: Cli, arguments: tuple[str, ...], said: str) -> None:
    assert kizuna("customer", "913", "override", *arguments).error.startswith(said)
