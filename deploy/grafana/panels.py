"""What the dashboard shows, as a table. Every panel says what is good, and what to do otherwise.

`$job` is the pipeline that is looked at. Limits are those of the alerts (deploy/prometheus/alerts.yml).
"""

from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """How Grafana draws a panel."""

    LINES = "timeseries"
    STAT = "stat"


class Panel(NamedTuple):
    """One panel. `queries` are by what the legend says, `limit` is where it turns red, `unit` is Grafana's name."""

    title: str
    good: str
    otherwise: str
    unit: str
    queries: dict[str, str]
    kind: Kind = Kind.LINES
    limit: float | None = None
    width: int = 8
    height: int = 8

    @property
    def description(self) -> str:
        """What a person reads who holds the mouse over the panel's corner."""
        return f"Good: {self.good}\n\nOtherwise: {self.otherwise}"


def stat(title: str, good: str, otherwise: str, unit: str, query: str, limit: float | None = None) -> Panel:
    """A number of its own in the first row."""
    return Panel(title, good, otherwise, unit, {"": query}, Kind.STAT, limit, width=4, height=4)


def quantiles(metric: str) -> dict[str, str]:
    """Median and 99th percentile of a histogram over all workers."""
    rate = f'sum by (le) (rate({metric}_bucket{{job=~"$job"}}[$__rate_interval]))'
    return {"p50": f"histogram_quantile(0.5, {rate})", "p99": f"histogram_quantile(0.99, {rate})"}


ROWS: dict[str, list[Panel]] = {
    "At a glance": [
        stat(
            "Shards held by nobody",
            "0. For some seconds at a rebalance it is more.",
            "their events wait in Kafka. Which worker is down, and what was its last log line? "
            "Alerts KizunaShardsNotHeld, KizunaWorkerDown and KizunaNoTargets.",
            "short",
            'max(kizuna_partitions{job=~"$job"}) - sum(kizuna_shards{job=~"$job"})',
            limit=1,
        ),
        stat(
            "Worst lag",
            "a few seconds.",
            "see Lag below, by topic and partition. Alerts KizunaLagHigh and KizunaLagGrowing.",
            "s",
            'max(kizuna_lag_seconds{job=~"$job"})',
            limit=300,
        ),
        stat(
            "Stopped for a reason",
            "no data or 0: no worker ended because going on would lose or double something.",
            "the reason has an entry in the runbook. Do not restart in a loop. Alert KizunaStopped.",
            "short",
            'sum(max_over_time(kizuna_stopped{job=~"$job", reason!="program-changed"}[15m]))',
            limit=1,
        ),
        stat(
            "Shards with paused publishing",
            "0.",
            "`kizuna outbox show`, then decide: release, or drop the falls. Alert KizunaPublishingPaused.",
            "short",
            'sum(kizuna_publishing_paused{job=~"$job"})',
            limit=1,
        ),
        stat(
            "Held customers",
            "0. After a Redis that lost its last writes it is more, and falls to 0 within minutes.",
            "the shard does not read on. Alert KizunaAdoptionsPending.",
            "short",
            'sum(kizuna_pending_adoptions{job=~"$job"})',
            limit=1,
        ),
        stat(
            "Dead letters within an hour",
            "0. Each one is an event that does not count.",
            "see by reason below, then `kizuna dead-letters list`. Alert KizunaDeadLetters.",
            "short",
            'sum(increase(kizuna_dead_letters_total{job=~"$job"}[1h]))',
            limit=1,
        ),
    ],
    "Golden signals": [
        Panel(
            "Lag",
            "seconds. A spike of one point after a silent night is one record that was unread for a moment.",
            "all topics: Redis or Kafka is slow (commit and publish time), or workers are too few. One partition "
            "only: that shard stands still, look at its outbox. Alerts KizunaLagHigh and KizunaLagGrowing.",
            "s",
            {"{{topic}}": 'max by (topic) (kizuna_lag_seconds{job=~"$job"})'},
            limit=300,
        ),
        Panel(
            "Watermark age",
            "about as old as your events are when they are sent; newest and oldest shard close together.",
            "lag is 0: the source is silent, ask there. Records are unread: the shard does not read. "
            "Alert KizunaWatermarkStale.",
            "s",
            {
                "{{topic}}, newest shard": "time() - max by (topic) "
                '(kizuna_watermark_timestamp_seconds{job=~"$job"})',
                "{{topic}}, oldest shard": "time() - min by (topic) "
                '(kizuna_watermark_timestamp_seconds{job=~"$job"})',
            },
        ),
        Panel(
            "Events by outcome",
            "mostly counted, in the rhythm of the shop.",
            "many duplicates: somebody sends a file again, harmless. Many rerouted: a producer hashes keys "
            "otherwise. Nothing at all while records are unread: see Lag.",
            "cps",
            {"{{outcome}}": 'sum by (outcome) (rate(kizuna_events_total{job=~"$job"}[$__rate_interval]))'},
        ),
        Panel(
            "Dead letters by reason",
            "nothing.",
            "`kizuna dead-letters list --reason …` names the field. Mend the source, then `kizuna dead-letters "
            "replay`. Alerts KizunaDeadLetters and KizunaDeadLetterFlood.",
            "cps",
            {
                "{{topic}} {{reason}}": "sum by (topic, reason) "
                '(rate(kizuna_dead_letters_total{job=~"$job"}[$__rate_interval])) > 0'
            },
        ),
        Panel(
            "Commit time",
            "some milliseconds; p99 below 100 ms.",
            "Redis or the network is slow: Redis' own SLOWLOG and memory, its append-only file, its neighbours. "
            "Alert KizunaCommitSlow.",
            "s",
            quantiles("kizuna_commit_seconds"),
            limit=0.5,
        ),
        Panel(
            "Publish time",
            "tens of milliseconds; p99 below a second.",
            "Kafka is slow: its under-replicated partitions, its disks. Alert KizunaPublishSlow.",
            "s",
            quantiles("kizuna_publish_seconds"),
            limit=2.5,
        ),
        Panel(
            "Outbox age",
            "below a second: what was decided is out.",
            "publishing stands or is paused. Alerts KizunaOutboxOld and KizunaPublishingPaused.",
            "s",
            {"shard {{partition}}": 'max by (partition) (kizuna_outbox_age_seconds{job=~"$job"})'},
            limit=60,
        ),
        Panel(
            "Outbox entries",
            "near 0. At KIZUNA_OUTBOX_BOUND the shard stops reading.",
            "as for the outbox' age.",
            "short",
            {"shard {{partition}}": 'max by (partition) (kizuna_outbox_entries{job=~"$job"})'},
        ),
        Panel(
            "Overdue timers",
            "0. After a standstill it falls quickly.",
            "time waits for unread records (see Lag), for room in the outbox, or sweeps do not keep up with a mass "
            "fall. Alert KizunaDueOverdue.",
            "s",
            {"shard {{partition}}": 'max by (partition) (kizuna_due_overdue_seconds{job=~"$job"})'},
            limit=300,
        ),
        Panel(
            "Take-overs and lost shards",
            "nothing, or a few at a deployment.",
            "unavailable: Redis or Kafka does not answer in time. refused: two workers believe that they own a shard; "
            "once in a while around a rebalance it is normal. Alerts KizunaTakeOverStorm and KizunaShardsLost.",
            "short",
            {
                "taken over": 'sum(increase(kizuna_take_overs_total{job=~"$job"}[$__rate_interval]))',
                "lost, {{cause}}": "sum by (cause) "
                '(increase(kizuna_shards_lost_total{job=~"$job"}[$__rate_interval]))',
            },
        ),
        Panel(
            "Tier changes",
            "the rhythm of the business: more upgrades when the shop sells, downgrades at the end of windows.",
            "a mass of downgrades: look at the sources before at the program. KIZUNA_FALLS_LIMIT can hold it back.",
            "cps",
            {
                "{{direction}}": "sum by (direction) "
                '(rate(kizuna_tier_changes_total{job=~"$job"}[$__rate_interval]))',
                "{{kind}}": 'sum by (kind) (rate(kizuna_tier_notices_total{job=~"$job"}[$__rate_interval]))',
            },
        ),
        Panel(
            "Bonds: segments, triggers, attributions",
            "the rhythm of the business. Where the program keeps no bonds there is nothing.",
            "many triggers suppressed: caps are too tight for the scenarios, or a campaign has filled them. No trigger "
            "at all: are touchpoints read? See Lag.",
            "cps",
            {
                "{{kind}} {{status}}": "sum by (kind, status) "
                '(rate(kizuna_bond_records_total{job=~"$job"}[$__rate_interval])) > 0'
            },
        ),
        Panel(
            "Healing",
            "nothing. After a Redis that lost its last writes customers are held, then adopted.",
            "held ones do not get fewer: the shard does not read on. Alert KizunaAdoptionsPending.",
            "short",
            {
                "held in shard {{partition}}": "max by (partition) "
                '(kizuna_pending_adoptions{job=~"$job"}) > 0',
                "adopted": 'sum(increase(kizuna_adoptions_total{job=~"$job"}[$__rate_interval]))',
            },
        ),
    ],
    "Where it is": [
        Panel(
            "Lag by partition",
            "all together near 0.",
            "one line above the others: that shard stands still, or one customer or file makes its partition hot.",
            "s",
            {"{{topic}}-{{partition}}": 'max by (topic, partition) (kizuna_lag_seconds{job=~"$job"}) > 1'},
            limit=300,
        ),
        Panel(
            "Unread records",
            "near 0; after a standstill falling.",
            "rising for long: more comes in than is read. More workers help, up to the number of partitions. "
            "Alert KizunaLagGrowing.",
            "short",
            {"{{topic}}": 'sum by (topic) (kizuna_lag_records{job=~"$job"})'},
        ),
        Panel(
            "Shards by worker",
            "shared out evenly, and their sum is the number of partitions.",
            "0 for one: more workers than partitions, or it cannot take over (its log says why). "
            "Alert KizunaShardsNotHeld.",
            "short",
            {"{{instance}}": 'kizuna_shards{job=~"$job"}'},
        ),
        Panel(
            "Duplicates and records sent on",
            "little.",
            "duplicates are harmless. Records sent on cost a second way: a producer hashes keys otherwise than "
            "Kafka's default. Alert KizunaReroutes.",
            "cps",
            {
                "{{topic}} duplicates": "sum by (topic) "
                '(rate(kizuna_duplicates_total{job=~"$job"}[$__rate_interval]))',
                "{{topic}} sent on": "sum by (topic) "
                '(rate(kizuna_reroutes_total{job=~"$job"}[$__rate_interval]))',
            },
        ),
        Panel(
            "Records in a batch",
            "small when it is up to date, thousands when it catches up.",
            "small batches at a high lag: something else than reading is slow.",
            "short",
            {
                "{{topic}}": 'sum by (topic) (rate(kizuna_batch_records_sum{job=~"$job"}[$__rate_interval]))'
                ' / sum by (topic) (rate(kizuna_batch_records_count{job=~"$job"}[$__rate_interval]))'
            },
        ),
        Panel(
            "Packing time",
            "a few milliseconds.",
            "the worker's CPU is short, or batches hold very many customers.",
            "s",
            quantiles("kizuna_pack_seconds"),
        ),
        Panel(
            "Customers moved to a changed program",
            "nothing, or KIZUNA_MOVE_RATE for each worker while a change is under way.",
            "it stands still before the change is over: a shard lags, or its outbox is full.",
            "cps",
            {"moved": 'sum(rate(kizuna_program_moves_total{job=~"$job"}[$__rate_interval]))'},
        ),
        Panel(
            "Memory",
            "flat after the cache has filled (KIZUNA_CACHE_CUSTOMERS).",
            "it grows for hours: note the version and report it; a restart is safe.",
            "bytes",
            {"{{instance}}": 'process_resident_memory_bytes{job=~"$job"}'},
        ),
        Panel(
            "CPU",
            "below 1 for each worker: it has one thread for its work.",
            "near 1 with a growing lag: start more workers.",
            "short",
            {"{{instance}}": 'rate(process_cpu_seconds_total{job=~"$job"}[$__rate_interval])'},
        ),
        Panel(
            "Time since the last sweep",
            "below a second or two; a mass fall takes longer.",
            "Redis or Kafka does not answer, and every number of this worker is as old as that. "
            "Alert KizunaSweepsStandStill.",
            "s",
            {"{{instance}}": 'time() - kizuna_last_sweep_timestamp_seconds{job=~"$job"}'},
            limit=180,
        ),
        Panel(
            "Time since the start",
            "days.",
            "it falls to 0 again and again: the last log line before each start says why. Alert KizunaCrashLoop.",
            "s",
            {"{{instance}}": 'time() - process_start_time_seconds{job=~"$job"}'},
        ),
    ],
}
