"""For each alert: what makes it fire, what it then says, and what comes near and must not.

Series are written as promtool has them (`0+5x30`: 30 more values, 5 apart; `_`: no sample), one value a minute.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

SHARD = 'job="kizuna", instance="a:6066", partition="3"'
INPUT = 'job="kizuna", instance="a:6066", partition="3", topic="purchases"'
READ = 'job="kizuna", instance="a:6066", topic="purchases"'
A = 'job="kizuna", instance="a:6066"'
B = 'job="kizuna", instance="b:6066"'


class Case(NamedTuple):
    """`fires` is what the alert says (its summary), with its labels, after so many minutes.

    Where that is nothing, the alert must be silent all the time from minute `since` on.
    """

    alert: str
    what: str
    minutes: int
    series: dict[str, str]
    fires: Mapping[str, dict[str, str]] = MappingProxyType({})
    since: int = 0


def buckets(metric: str, **by_le: str) -> dict[str, str]:
    """A histogram's series: `le_0_5="0+9x30"` is the bucket up to 0.5."""
    return {
        f'{metric}_bucket{{{A}, le="{le.removeprefix("le_").replace("_", ".").replace("inf", "+Inf")}"}}': values
        for le, values in by_le.items()
    }


CASES = [
    Case(
        "KizunaNoTargets",
        "only others are scraped",
        6,
        {'up{job="node", instance="n:9100"}': "1x10"},
        {"Prometheus knows of no Kizuna worker": {}},
    ),
    Case("KizunaNoTargets", "a worker that is down is a target", 6, {f"up{{{A}}}": "0x10"}),
    Case(
        "KizunaNoTargets",
        "the list of targets was empty for a moment",
        6,
        {f"up{{{A}}}": "1 1 _ _ _ stale stale"},
    ),
    Case(
        "KizunaWorkerDown",
        "one of two does not answer",
        6,
        {f"up{{{A}}}": "0x10", f"up{{{B}}}": "1x10"},
        {"a:6066 (kizuna) does not answer": {"job": "kizuna", "instance": "a:6066"}},
    ),
    Case(
        "KizunaWorkerDown",
        "it was restarted, and others are none of ours",
        6,
        {f"up{{{A}}}": "1 0 0 1x10", 'up{job="node", instance="n:9100"}': "0x10"},
    ),
    Case(
        "KizunaShardsNotHeld",
        "a worker holds 8 of 12, the other one lost its own",
        6,
        {
            f"kizuna_partitions{{{A}}}": "12x10",
            f"kizuna_partitions{{{B}}}": "12x10",
            f"kizuna_shards{{{A}}}": "8x10",
            f"kizuna_shards{{{B}}}": "4 0x10",
            'up{job="kizuna", instance="a:6066"}': "1x10",
            'up{job="kizuna", instance="b:6066"}': "1x10",
        },
        {"4 shards of kizuna are held by no worker": {"job": "kizuna"}},
    ),
    Case(
        "KizunaShardsNotHeld",
        "no worker answers any more, and how many shards there are is remembered",
        60,
        {
            f"kizuna_partitions{{{A}}}": "12x3 stale",
            f"kizuna_shards{{{A}}}": "12x3 stale",
            f"up{{{A}}}": "1x3 0x90",
        },
        {"12 shards of kizuna are held by no worker": {"job": "kizuna"}},
    ),
    Case(
        "KizunaShardsNotHeld",
        "shards move to another worker, and a third one is idle",
        8,
        {
            f"kizuna_partitions{{{A}}}": "12x10",
            f"kizuna_partitions{{{B}}}": "12x10",
            'kizuna_partitions{job="kizuna", instance="c:6066"}': "12x10",
            f"kizuna_shards{{{A}}}": "12 12 12 0 0x10",
            f"kizuna_shards{{{B}}}": "0 0 0 0 12x10",
            'kizuna_shards{job="kizuna", instance="c:6066"}': "0x10",
            f"up{{{A}}}": "1x10",
            f"up{{{B}}}": "1x10",
        },
    ),
    Case(
        "KizunaShardsNotHeld",
        "for a minute, at a rebalance",
        4,
        {f"kizuna_partitions{{{A}}}": "12x10", f"kizuna_shards{{{A}}}": "12 12 12 0 0", f"up{{{A}}}": "1x10"},
    ),
    Case(
        "KizunaStopped",
        "it lingered for one scrape and is gone",
        9,
        {
            f'kizuna_stopped{{{A}, reason="records-gone"}}': "_ _ 1 stale",
            f"kizuna_shards{{{A}}}": "12 12 0 stale",
        },
        {
            "a:6066 (kizuna) stopped: records-gone": {
                "job": "kizuna",
                "instance": "a:6066",
                "reason": "records-gone",
            }
        },
    ),
    Case(
        "KizunaStopped",
        "it was started again and holds shards",
        9,
        {
            f'kizuna_stopped{{{A}, reason="records-gone"}}': "_ _ 1 stale",
            f"kizuna_shards{{{A}}}": "12 12 0 stale _ _ 12x10",
        },
        since=6,
    ),
    Case(
        "KizunaStopped",
        "a reason that is 0 is none",
        9,
        {f'kizuna_stopped{{{A}, reason="records-gone"}}': "0x10", f"kizuna_shards{{{A}}}": "0x10"},
    ),
    Case(
        "KizunaStopped",
        "it gave way to a new program",
        9,
        {
            f'kizuna_stopped{{{A}, reason="program-changed"}}': "_ _ 1 stale",
            f"kizuna_shards{{{A}}}": "12 12 0 stale",
        },
    ),
    Case(
        "KizunaCrashLoop",
        "four starts",
        20,
        {f"process_start_time_seconds{{{A}}}": "100 100 220 220 340 460 580 580x20"},
        {
            "a:6066 (kizuna) was started anew 4 times in half an hour": {
                "job": "kizuna",
                "instance": "a:6066",
            }
        },
    ),
    Case(
        "KizunaCrashLoop",
        "a deployment that was done again, and others are none of ours",
        20,
        {
            f"process_start_time_seconds{{{A}}}": "100 100 220 220 340x20",
            'process_start_time_seconds{job="node", instance="n:9100"}': "100+60x30",
        },
    ),
    Case(
        "KizunaTakeOverStorm",
        "each of 12 shards is taken over every two minutes",
        40,
        {f"kizuna_take_overs_total{{{A}}}": "0+6x60", f"kizuna_partitions{{{A}}}": "12x60"},
        {
            "Shards of kizuna are taken over again and again: 60 times in ten minutes": {"job": "kizuna"},
        },
    ),
    Case(
        "KizunaTakeOverStorm",
        "two workers are replaced, one after the other, with a rebalance at each step",
        14,
        {f"kizuna_take_overs_total{{{A}}}": "12 12 24 36 48 60x60", f"kizuna_partitions{{{A}}}": "12x60"},
    ),
    Case(
        "KizunaTakeOverStorm",
        "a worker comes and goes every quarter of an hour",
        60,
        {
            f"kizuna_take_overs_total{{{A}}}": "0x14 12x14 24x14 36x14 48x14",
            f"kizuna_partitions{{{A}}}": "12x90",
        },
    ),
    Case(
        "KizunaShardsLost",
        "Redis does not answer now and then, for half an hour",
        40,
        {
            f'kizuna_shards_lost_total{{{A}, cause="unavailable"}}': "0+1x60",
            f'kizuna_shards_lost_total{{{A}, cause="refused"}}': "0x60",
        },
        {
            "Workers of kizuna keep losing shards (unavailable): 10 in ten minutes": {
                "job": "kizuna",
                "cause": "unavailable",
            }
        },
    ),
    Case(
        "KizunaShardsLost",
        "Redis was restarted: each shard once",
        14,
        {f'kizuna_shards_lost_total{{{A}, cause="unavailable"}}': "0 0 12x60"},
    ),
    Case(
        "KizunaShardsLost",
        "one at a rebalance, now and then",
        60,
        {f'kizuna_shards_lost_total{{{A}, cause="refused"}}': "0x9 1x9 2x9 3x9 4x9 5x9 6x9"},
    ),
    Case(
        "KizunaLagHigh",
        "a quarter of an hour behind",
        10,
        {f"kizuna_lag_seconds{{{INPUT}}}": "0 400 900x20"},
        {
            "purchases-3 of kizuna is 15m 0s behind": {
                "job": "kizuna",
                "topic": "purchases",
                "partition": "3",
            }
        },
    ),
    Case(
        "KizunaLagHigh",
        "one record after a silent night, unread for a moment",
        6,
        {f"kizuna_lag_seconds{{{INPUT}}}": "0 0 0 30000 0 0 0x20"},
    ),
    Case("KizunaLagHigh", "some minutes, steadily", 30, {f"kizuna_lag_seconds{{{INPUT}}}": "200x60"}),
    Case(
        "KizunaLagHigh",
        "it fell behind just now",
        4,
        {f"kizuna_lag_seconds{{{INPUT}}}": "0 301+60x60"},
    ),
    Case(
        "KizunaLagGrowing",
        "half a minute more each minute",
        20,
        {f"kizuna_lag_seconds{{{INPUT}}}": "0+30x60"},
        {
            "purchases-3 of kizuna is 10m 0s behind, and falls back further": {
                "job": "kizuna",
                "topic": "purchases",
                "partition": "3",
            }
        },
    ),
    Case("KizunaLagGrowing", "it catches up", 20, {f"kizuna_lag_seconds{{{INPUT}}}": "3600-30x60"}),
    Case("KizunaLagGrowing", "a minute is little", 50, {f"kizuna_lag_seconds{{{INPUT}}}": "0+1x60"}),
    Case("KizunaLagGrowing", "a burst", 12, {f"kizuna_lag_seconds{{{INPUT}}}": "0x5 0+30x5 150-50x3 0x60"}),
    Case(
        "KizunaWatermarkStale",
        "records wait and nothing moves",
        30,
        {
            f"kizuna_lag_records{{{INPUT}}}": "0 0+100x60",
            f"kizuna_watermark_timestamp_seconds{{{INPUT}}}": "1000 1060 1120x60",
        },
        {
            "purchases-3 of kizuna: records wait (2900), and the watermark stands still": {
                "job": "kizuna",
                "topic": "purchases",
                "partition": "3",
            }
        },
    ),
    Case(
        "KizunaWatermarkStale",
        "nothing was ever read",
        20,
        {f"kizuna_lag_records{{{INPUT}}}": "5x60"},
        {
            "purchases-3 of kizuna: records wait (5), and the watermark stands still": {
                "job": "kizuna",
                "topic": "purchases",
                "partition": "3",
            }
        },
    ),
    Case(
        "KizunaWatermarkStale",
        "the source is silent",
        60,
        {
            f"kizuna_lag_records{{{INPUT}}}": "0x90",
            f"kizuna_watermark_timestamp_seconds{{{INPUT}}}": "1000x90",
        },
    ),
    Case(
        "KizunaWatermarkStale",
        "it is far behind and reads",
        60,
        {
            f"kizuna_lag_records{{{INPUT}}}": "100000-10x90",
            f"kizuna_watermark_timestamp_seconds{{{INPUT}}}": "1000+7x90",
        },
    ),
    Case(
        "KizunaWatermarkStale",
        "it was taken over by another worker, which reads",
        40,
        {
            f"kizuna_lag_records{{{INPUT}}}": "900x15 stale",
            f"kizuna_watermark_timestamp_seconds{{{INPUT}}}": "1000+5x15 stale",
            f"kizuna_lag_records{{{INPUT.replace('a:', 'b:')}}}": "_x15 900-9x60",
            f"kizuna_watermark_timestamp_seconds{{{INPUT.replace('a:', 'b:')}}}": "_x15 1080+5x60",
        },
    ),
    Case(
        "KizunaWatermarkStale",
        "for some minutes only",
        9,
        {
            f"kizuna_lag_records{{{INPUT}}}": "5x60",
            f"kizuna_watermark_timestamp_seconds{{{INPUT}}}": "1000x60",
        },
    ),
    Case(
        "KizunaDeadLetters",
        "three",
        30,
        {
            f'kizuna_dead_letters_total{{{READ}, reason="invalid_event"}}': "0x9 3x60",
            f'kizuna_dead_letters_total{{{READ}, reason="too_late"}}': "0x60",
        },
        {
            "kizuna: 3 dead letters of purchases within an hour (invalid_event)": {
                "job": "kizuna",
                "topic": "purchases",
                "reason": "invalid_event",
            }
        },
    ),
    Case(
        "KizunaDeadLetters",
        "those of yesterday",
        180,
        {f'kizuna_dead_letters_total{{{READ}, reason="invalid_event"}}': "0x9 3x200"},
        since=71,
    ),
    Case(
        "KizunaDeadLetterFlood",
        "a third of what comes",
        15,
        {
            f'kizuna_dead_letters_total{{{READ}, reason="invalid_event"}}': "0+300x30",
            f'kizuna_dead_letters_total{{{READ}, reason="too_late"}}': "0+0x30",
            f'kizuna_events_total{{{READ}, outcome="counted"}}': "0+600x30",
            f'kizuna_events_total{{{READ}, outcome="dead_letter"}}': "0+300x30",
        },
        {"kizuna: 33.33% of purchases are dead letters": {"job": "kizuna", "topic": "purchases"}},
    ),
    Case(
        "KizunaDeadLetterFlood",
        "a tenth of what comes",
        15,
        {
            f'kizuna_dead_letters_total{{{READ}, reason="invalid_event"}}': "0+300x30",
            f'kizuna_events_total{{{READ}, outcome="counted"}}': "0+2700x30",
            f'kizuna_events_total{{{READ}, outcome="dead_letter"}}': "0+300x30",
        },
    ),
    Case(
        "KizunaDeadLetterFlood",
        "all of very little",
        15,
        {
            f'kizuna_dead_letters_total{{{READ}, reason="invalid_event"}}': "0+3x30",
            f'kizuna_events_total{{{READ}, outcome="dead_letter"}}': "0+3x30",
        },
    ),
    Case(
        "KizunaDeadLetterFlood",
        "nothing comes at all",
        15,
        {
            f'kizuna_dead_letters_total{{{READ}, reason="invalid_event"}}': "7x30",
            f'kizuna_events_total{{{READ}, outcome="dead_letter"}}': "7x30",
        },
    ),
    Case(
        "KizunaDeadLetterFlood",
        "it began this minute",
        6,
        {
            f'kizuna_dead_letters_total{{{READ}, reason="invalid_event"}}': "0x5 600",
            f'kizuna_events_total{{{READ}, outcome="dead_letter"}}': "0x5 600",
        },
    ),
    Case(
        "KizunaReroutes",
        "a producer with another hash",
        40,
        {
            f"kizuna_reroutes_total{{{READ}}}": "0+30x60",
            f'kizuna_events_total{{{READ}, outcome="counted"}}': "0+90x60",
            f'kizuna_events_total{{{READ}, outcome="rerouted"}}': "0+30x60",
        },
        {
            "kizuna: 25% of purchases stand in the wrong partition": {"job": "kizuna", "topic": "purchases"},
        },
    ),
    Case(
        "KizunaReroutes",
        "one in twenty",
        40,
        {
            f"kizuna_reroutes_total{{{READ}}}": "0+3x60",
            f'kizuna_events_total{{{READ}, outcome="counted"}}': "0+57x60",
            f'kizuna_events_total{{{READ}, outcome="rerouted"}}': "0+3x60",
        },
    ),
    Case(
        "KizunaReroutes",
        "somebody sent a file once",
        28,
        {
            f"kizuna_reroutes_total{{{READ}}}": "0x9 900x60",
            f'kizuna_events_total{{{READ}, outcome="counted"}}': "0+1x60",
            f'kizuna_events_total{{{READ}, outcome="rerouted"}}': "0x9 900x60",
        },
    ),
    Case(
        "KizunaSweepsStandStill",
        "Kafka has been away for minutes, and the shards are still held",
        12,
        {
            f"kizuna_last_sweep_timestamp_seconds{{{A}}}": "0+60x5 300x30",
            f"kizuna_shards{{{A}}}": "12x40",
        },
        {"a:6066 (kizuna) has not swept for 7m 0s": {"job": "kizuna", "instance": "a:6066"}},
    ),
    Case(
        "KizunaSweepsStandStill",
        "Kafka was away for four minutes",
        20,
        {
            f"kizuna_last_sweep_timestamp_seconds{{{A}}}": "0+60x5 300x3 540+60x30",
            f"kizuna_shards{{{A}}}": "12x40",
        },
    ),
    Case(
        "KizunaSweepsStandStill",
        "a worker that holds nothing has nothing to sweep",
        20,
        {f"kizuna_last_sweep_timestamp_seconds{{{A}}}": "0x40", f"kizuna_shards{{{A}}}": "0x40"},
    ),
    Case(
        "KizunaDueOverdue",
        "falls come an hour late",
        10,
        {f"kizuna_due_overdue_seconds{{{SHARD}}}": "3600x20"},
        {
            "Shard 3 of kizuna: customers should have fallen 1h 0m 0s ago": {
                "job": "kizuna",
                "partition": "3",
            }
        },
    ),
    Case(
        "KizunaDueOverdue",
        "a mass fall takes its two minutes",
        10,
        {f"kizuna_due_overdue_seconds{{{SHARD}}}": "0 60 120 120x20"},
    ),
    Case(
        "KizunaDueOverdue",
        "the worker was away for the night and catches up",
        4,
        {f"kizuna_due_overdue_seconds{{{SHARD}}}": "30000x3 0x20"},
    ),
    Case(
        "KizunaCommitSlow",
        "two in a hundred take more than a second",
        30,
        buckets(
            "kizuna_commit_seconds", le_0_5="0+98x60", le_1="0+98x60", le_2_5="0+100x60", le_inf="0+100x60"
        ),
        {"kizuna: one commit in a hundred takes 1.75s": {"job": "kizuna"}},
    ),
    Case(
        "KizunaCommitSlow",
        "one in a thousand takes more than a second",
        30,
        buckets("kizuna_commit_seconds", le_0_1="0+999x60", le_0_5="0+999x60", le_inf="0+1000x60"),
    ),
    Case(
        "KizunaCommitSlow",
        "Redis stood still for a minute",
        12,
        buckets(
            "kizuna_commit_seconds",
            le_0_1="0+100x4 400x1 500+100x60",
            le_1="0+100x4 400x1 500+100x60",
            le_2_5="0+100x4 410x1 510+100x60",
            le_inf="0+100x4 410x1 510+100x60",
        ),
    ),
    Case(
        "KizunaAdoptionsPending",
        "five customers are held, and stay so",
        30,
        {f"kizuna_pending_adoptions{{{SHARD}}}": "0 0 5x60"},
        {
            "Shard 3 of kizuna: 5 customers are held, and they do not get fewer": {
                "job": "kizuna",
                "partition": "3",
            }
        },
    ),
    Case(
        "KizunaAdoptionsPending",
        "many are held, and they get fewer",
        60,
        {f"kizuna_pending_adoptions{{{SHARD}}}": "0 900-10x80"},
    ),
    Case(
        "KizunaAdoptionsPending",
        "they were adopted within minutes",
        30,
        {f"kizuna_pending_adoptions{{{SHARD}}}": "0 0 5x6 0x60"},
    ),
    Case(
        "KizunaPublishingPaused",
        "too many fell",
        3,
        {f"kizuna_publishing_paused{{{SHARD}}}": "0 0 1x20"},
        {
            "Shard 3 of kizuna publishes nothing until somebody decides": {"job": "kizuna", "partition": "3"},
        },
    ),
    Case(
        "KizunaPublishingPaused",
        "somebody decided",
        20,
        {f"kizuna_publishing_paused{{{SHARD}}}": "0 0 1x2 0x20"},
        since=5,
    ),
    Case(
        "KizunaOutboxOld",
        "nothing goes out",
        10,
        {
            f"kizuna_outbox_age_seconds{{{SHARD}}}": "0 30+60x20",
            f"kizuna_publishing_paused{{{SHARD}}}": "0x30",
        },
        {
            "Shard 3 of kizuna: the oldest unpublished change waits for 9m 30s": {
                "job": "kizuna",
                "partition": "3",
            }
        },
    ),
    Case(
        "KizunaOutboxOld",
        "publishing is paused, which another alert tells",
        20,
        {
            f"kizuna_outbox_age_seconds{{{SHARD}}}": "0 30+60x20",
            f"kizuna_publishing_paused{{{SHARD}}}": "1x30",
        },
    ),
    Case(
        "KizunaOutboxOld",
        "the broker was away for three minutes",
        6,
        {
            f"kizuna_outbox_age_seconds{{{SHARD}}}": "0 60 120 180 0x20",
            f"kizuna_publishing_paused{{{SHARD}}}": "0x30",
        },
    ),
    Case(
        "KizunaOutboxOld",
        "a little, always",
        20,
        {f"kizuna_outbox_age_seconds{{{SHARD}}}": "20x30", f"kizuna_publishing_paused{{{SHARD}}}": "0x30"},
    ),
    Case(
        "KizunaPublishSlow",
        "two in a hundred take more than five seconds",
        30,
        buckets(
            "kizuna_publish_seconds", le_2_5="0+98x60", le_5="0+98x60", le_10="0+100x60", le_inf="0+100x60"
        ),
        {"kizuna: one publishing transaction in a hundred takes 7.5s": {"job": "kizuna"}},
    ),
    Case(
        "KizunaPublishSlow",
        "one in a thousand takes more than ten",
        30,
        buckets("kizuna_publish_seconds", le_1="0+999x60", le_10="0+999x60", le_inf="0+1000x60"),
    ),
    Case(
        "KizunaPublishSlow",
        "Kafka stood still for a minute",
        12,
        buckets(
            "kizuna_publish_seconds",
            le_1="0+100x4 400x1 500+100x60",
            le_5="0+100x4 400x1 500+100x60",
            le_10="0+100x4 410x1 510+100x60",
            le_inf="0+100x4 410x1 510+100x60",
        ),
    ),
]
