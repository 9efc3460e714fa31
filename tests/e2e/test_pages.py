"""What a worker tells over HTTP."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.space import DAY, Space, Worker, now_ms, purchase, touchpoint, wait_until

IDS = ["plain-900", "with/slashes/and more", "東京/é ü", "100%", "a?b#c", "../up"]


@pytest.fixture(scope="module")
def space(module_space: Callable[..., Space]) -> Space:
    made = module_space()
    made.worker()
    at = now_ms() - DAY
    made.publish([purchase(c, 1, "150.00", at) for c in IDS])
    made.publish([purchase(c, 1, "150.00", at) for c in IDS])
    made.publish([touchpoint(c, 1, "web", "inbound", at) for c in IDS])
    event = json.dumps(purchase(IDS[0], 2, "1.00", at)).encode()
    made.send("purchases", event, b"wrong key", made.home(IDS[0]))
    made.send("purchases", b"{", IDS[0].encode())
    made.flush()
    made.wait_read()
    return made


@pytest.fixture(scope="module")
def worker(space: Space) -> Worker:
    return space.workers[0]


def samples(worker: Worker) -> dict[str, float]:
    status, text = worker.get("/metrics")
    assert status == 200
    lines = [line for line in text.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_metrics_count_what_the_worker_did(space: Space, worker: Worker) -> None:
    # The gauges are set as the next sweep looks.
    place = 'kizuna_lag_records{partition="0",topic="purchases"}'
    wait_until(lambda: samples(worker).get(place) == 0, what="the gauges")
    held = samples(worker)
    many = float(len(IDS))
    assert held['kizuna_events_total{outcome="counted",topic="purchases"}'] == many + 1
    assert held['kizuna_events_total{outcome="duplicate",topic="purchases"}'] == many
    assert held['kizuna_events_total{outcome="rerouted",topic="purchases"}'] == 1
    assert held['kizuna_events_total{outcome="dead_letter",topic="purchases"}'] == 1
    assert held['kizuna_events_total{outcome="counted",topic="touchpoints"}'] == many
    assert held['kizuna_tier_changes_total{direction="upgrade"}'] == many
    assert held['kizuna_tier_changes_total{direction="downgrade"}'] == 0
    assert held['kizuna_dead_letters_total{reason="not_json",topic="purchases"}'] == 1
    assert held['kizuna_duplicates_total{topic="purchases"}'] == many
    assert held['kizuna_reroutes_total{topic="purchases"}'] == 1
    assert held["kizuna_take_overs_total"] == space.partitions
    assert held["kizuna_shards"] == space.partitions
    assert held["kizuna_commit_seconds_count"] >= 1
    assert held["kizuna_publish_seconds_count"] >= 1
    assert held['kizuna_batch_records_count{topic="purchases"}'] >= 1
    for partition in range(space.partitions):
        place = f'{{partition="{partition}",topic="purchases"}}'
        assert held[f"kizuna_lag_records{place}"] >= 0
        assert held[f"kizuna_lag_seconds{place}"] >= 0
        assert f'kizuna_due_overdue_seconds{{partition="{partition}"}}' in held
        assert f'kizuna_outbox_entries{{partition="{partition}"}}' in held
    assert any(name.startswith("kizuna_watermark_timestamp_seconds{") for name in held)


def test_no_metric_names_a_customer(worker: Worker) -> None:
    for name in samples(worker):
        assert not set(re.findall(r'="((?:[^"\\]|\\.)*)"', name)) & {*IDS, "wrong key"}
        assert not any(customer in name for customer in IDS)


def test_health_and_readiness_answer(space: Space, worker: Worker) -> None:
    status, text = worker.get("/healthz")
    assert (status, json.loads(text)) == (200, {"status": "alive"})
    status, text = worker.get("/readyz")
    assert (status, json.loads(text)) == (
        200,
        {"status": "ready", "partitions": list(range(space.partitions))},
    )


@pytest.mark.parametrize("customer", IDS)
def test_a_customers_page_says_what_the_command_prints(space: Space, worker: Worker, customer: str) -> None:
    as_of = "2100-01-01T00:00:00.000Z"
    status, text = worker.get(f"/customers/{quote(customer, safe='')}?as_of={as_of}")
    assert status == 200, text
    printed = space.kizuna("customer", "--json", "--as-of", as_of, "--", customer)
    assert json.loads(text) == json.loads(printed.stdout)
    assert json.loads(text)["customer_id"] == customer


def test_an_unknown_customer_is_not_found_and_a_bad_time_a_bad_request(worker: Worker) -> None:
    assert worker.get("/customers/nobody")[0] == 404
    assert worker.get(f"/customers/{IDS[0]}?as_of=yesterday")[0] == 400
    assert worker.get(f"/customers/{IDS[0]}?as_of=2017-01-01T00:00:00Z")[0] == 400


def test_the_pages_are_served_on_loopback_only(worker: Worker) -> None:
    listening = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if not Path(table).exists():
            continue
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, _, state = line.split()[:4]
            address, port = local.split(":")
            if state == "0A" and int(port, 16) == worker.port:
                listening.add(address)
    assert listening == {"0100007F"}
