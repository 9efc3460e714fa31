"""Cases of the alerts on workers: down, restarted, without their shards."""

from tests.deploy.alert_series import A, B, Case

WORKERS = [
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
]
