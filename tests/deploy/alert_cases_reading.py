"""Cases of the alerts on reading: late, stopped, or full of what cannot be used."""

from tests.deploy.alert_series import INPUT, READ, Case

READING = [
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
]
