"""Cases of the alerts on deciding and publishing: what is overdue, slow or paused."""

from tests.deploy.alert_series import SHARD, A, Case, buckets

DECIDING = [
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
