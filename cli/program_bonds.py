"""What `kizuna program check` shows of the sections about bonds."""

from typing import Any

import click
import msgspec

from cli.records import shown
from schemas.money import format_minor
from schemas.program import Program
from schemas.program_bonds import MILLION, Bonds, Cap, Scenario, Segment
from schemas.program_scenarios import OWN_KEYS
from schemas.times import DAY, HOUR, MINUTE, SECOND


def duration(ms: int) -> str:
    """The duration in its largest whole unit, as the file takes it."""
    for unit, length in (("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND)):
        if ms and ms % length == 0:
            return f"{ms // length}{unit}"
    return f"{ms}ms" if ms else "0s"


def bonds_told(program: Program, bonds: Bonds) -> dict[str, Any]:
    """The sections in the terms of the file, by their names; defaults spelt out, null where nothing is asked."""
    policy, attribution, holdout = bonds.contact_policy, bonds.attribution, bonds.holdout
    return {
        "attachment": {
            **msgspec.structs.asdict(bonds.attachment),
            "window": duration(bonds.attachment.window),
            "points": [msgspec.structs.asdict(points) for points in bonds.attachment.points],
        },
        "segments": [_segment(segment) for segment in bonds.segments],
        "contact_policy": None
        if policy is None
        else {
            "quiet_from": None if policy.quiet is None else _clock(policy.quiet[0]),
            "quiet_until": None if policy.quiet is None else _clock(policy.quiet[1]),
            "transactional": list(policy.transactional),
            "lapse": duration(policy.lapse),
            "caps": [_cap(cap) for cap in policy.caps],
        },
        "scenarios": [_scenario(scenario, program.decimals) for scenario in bonds.scenarios],
        "holdout": None
        if holdout is None
        else {**msgspec.structs.asdict(holdout), "share": _share(holdout.share)},
        "attribution": None
        if attribution is None
        else {
            "window": duration(attribution.window),
            "campaign_window": duration(attribution.campaign_window),
            "online": list(attribution.online),
            "offline": list(attribution.offline),
            "visits": list(attribution.visits),
        },
        "subscriptions": {
            "period": duration(bonds.subscriptions.period),
            "grace": duration(bonds.subscriptions.grace),
        },
    }


def bonds_lines(told: dict[str, Any]) -> list[tuple[str, str]]:
    """The same as lines for a person, each with what it is about."""
    lines = [("attachment", _attachment_line(told["attachment"]))]
    lines += [("segment", _segment_line(segment)) for segment in told["segments"]]
    if (policy := told["contact_policy"]) is not None:
        lines += [("contact", line) for line in _policy_lines(policy)]
    lines += [("scenario", _scenario_line(scenario)) for scenario in told["scenarios"]]
    if (holdout := told["holdout"]) is not None:
        salt = f"salt {shown(holdout['salt'])}, version {holdout['version']}"
        lines.append(("holdout", f"{holdout['share']} of all customers; {salt}"))
    if (attribution := told["attribution"]) is not None:
        online = ", ".join(map(shown, attribution["online"]))
        span = f"{attribution['window']}, with its campaign {attribution['campaign_window']}"
        lines.append(("attribution", f"to {online} within {span}"))
    period, grace = told["subscriptions"]["period"], told["subscriptions"]["grace"]
    lines.append(("subscriptions", f"renewed every {period}, lapsed {grace} later"))
    return lines


def _segment(segment: Segment) -> dict[str, Any]:
    return {
        "name": segment.name,
        "min_value": segment.min_value or None,
        "min_attachment": segment.min_attachment or None,
        "min_orders": segment.min_orders or None,
        "max_orders": segment.max_orders,
        "min_silence": None if segment.min_silence is None else duration(segment.min_silence),
        "min_gaps": None if segment.min_gaps is None else _decimal(segment.min_gaps, 3),
        "subscription": segment.subscription,
    }


def _cap(cap: Cap) -> dict[str, Any]:
    within = None if cap.within is None else duration(cap.within)
    return {"channel": cap.channel, "most": cap.most, "within": within, "days": cap.days}


def _scenario(scenario: Scenario, decimals: int) -> dict[str, Any]:
    own: dict[str, Any] = {
        "segment": scenario.segment,
        "after": duration(scenario.after),
        "amount": format_minor(scenario.amount, decimals) if scenario.amount else None,
        "orders": scenario.orders or None,
        "before": duration(scenario.before),
        "benefit": scenario.benefit,
    }
    return {
        "name": scenario.name,
        "when": scenario.when,
        **{key: own[key] for key in OWN_KEYS[scenario.when]},
        "cool_down": duration(scenario.cool_down),
        "patience": duration(scenario.patience),
        "goal": scenario.goal,
        "holdout": _share(scenario.holdout),
        "steps": [
            {"wait": duration(step.wait), "channel": step.channel, "content": step.content}
            for step in scenario.steps
        ],
    }


def _attachment_line(attachment: dict[str, Any]) -> str:
    told = [f"{points['points']} for {_touch(points)}" for points in attachment["points"]]
    told += [
        f"{attachment[key]} for each {what}"
        for key, what in (("breadth", "channel"), ("renewal", "renewal"), ("tenure", "year"))
        if attachment[key]
    ]
    return f"{', '.join(told) or 'no points'}; within {attachment['window']}"


def _touch(points: dict[str, Any]) -> str:
    channel, action = points["channel"], points["action"]
    if channel is None and action is None:
        return "any touch"
    return " by ".join(shown(part) for part in (action or "a touch", channel) if part is not None)


def _segment_line(segment: dict[str, Any]) -> str:
    tests = [
        f"{key.replace('_', ' ')} {value}"
        for key, value in segment.items()
        if key != "name" and value is not None
    ]
    return f"{click.style(shown(segment['name']), bold=True)}: {', '.join(tests) or 'everyone else'}"


def _policy_lines(policy: dict[str, Any]) -> list[str]:
    lines = []
    for cap in policy["caps"]:
        channel = "all channels" if cap["channel"] is None else shown(cap["channel"])
        days = "in a local day" if cap["days"] == 1 else f"in {cap['days']} local days"
        span = f"within {cap['within']}" if cap["within"] else days
        lines.append(f"{channel}: at most {cap['most']} {span}" if cap["most"] else f"{channel}: never")
    if policy["quiet_from"] is not None:
        lines.append(f"quiet from {policy['quiet_from']} until {policy['quiet_until']}")
    if policy["transactional"]:
        lines.append(f"at any time: {', '.join(map(shown, policy['transactional']))}")
    return lines or ["no bound"]


def _scenario_line(scenario: dict[str, Any]) -> str:
    asked = ((key, scenario[key]) for key in OWN_KEYS[scenario["when"]])
    when = ", ".join(
        [scenario["when"], *(f"{key} {shown(str(value))}" for key, value in asked if value is not None)]
    )
    steps = "; ".join(
        f"{'at once' if step['wait'] == '0s' else 'after ' + step['wait']} {_message(step)}"
        for step in scenario["steps"]
    )
    return f"{click.style(scenario['name'], bold=True)}: {when}: {steps}"


def _message(step: dict[str, Any]) -> str:
    return f"{shown(step['content'])} by {shown(step['channel'])}"


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def _share(millionths: int) -> str:
    return _decimal(millionths, len(str(MILLION)) - 1)


def _decimal(number: int, places: int) -> str:
    whole, rest = divmod(number, 10**places)
    return f"{whole}.{rest:0{places}}".rstrip("0").rstrip(".")
