"""Settings: flags, then variables, then defaults."""

import pytest

from streams.settings import ClockKind, Settings, SettingsError, each_host


def test_without_anything_given_the_defaults_hold() -> None:
    assert Settings.read({}) == Settings()


def test_a_variable_beats_the_default_and_a_flag_the_variable() -> None:
    environ = {"KIZUNA_GROUP": "by-variable", "KIZUNA_WEB_PORT": "7000", "KIZUNA_CLOCK": "event"}
    settings = Settings.read(environ, group="by-flag", web_port=None)
    assert (settings.group, settings.web_port, settings.clock) == ("by-flag", 7000, ClockKind.EVENT)


def test_an_empty_variable_was_not_given() -> None:
    assert Settings.read({"KIZUNA_GROUP": "", "KIZUNA_WEB_PORT": ""}) == Settings()


def test_every_field_has_a_variable() -> None:
    given = {
        "KIZUNA_CACHE_CUSTOMERS": "7",
        "KIZUNA_READ_AHEAD_BYTES": "2000000",
        "KIZUNA_OUTBOX_BOUND": "8",
        "KIZUNA_SWEEP_INTERVAL": "0.25",
        "KIZUNA_MOVE_RATE": "9",
        "KIZUNA_FALLS_LIMIT": "0.05",
        "KIZUNA_DEAD_LETTERS_LIMIT": "10",
        "KIZUNA_LINGER": "1.5",
        "KIZUNA_SESSION_TIMEOUT": "6",
        "KIZUNA_PROGRAM": "p.toml",
        "KIZUNA_REDIS_PREFIX": "r",
        "KIZUNA_REDIS_URL": "redis://r:1/2",
        "KIZUNA_BROKERS": "a:1, b:2,",
        "KIZUNA_TOPIC_PREFIX": "t.",
        "KIZUNA_WEB_HOST": "0.0.0.0",
        "KIZUNA_WEB_PORT": "0",
        "KIZUNA_WEB_URL": "https://worker-1:443/kizuna/",
        "KIZUNA_GROUP": "g",
        "KIZUNA_CLOCK": "wall",
    }
    assert {f"KIZUNA_{name.upper()}" for name in Settings.__dataclass_fields__} == set(given)
    settings = Settings.read(given)
    assert settings.broker_list() == ["a:1", "b:2"]
    assert settings.topic("purchases") == "t.purchases"
    assert (settings.cache_customers, settings.sweep_interval, settings.session_timeout) == (7, 0.25, 6.0)
    assert (settings.move_rate, settings.falls_limit) == (9, 0.05)
    assert settings.address() == "https://worker-1:443/kizuna"


@pytest.mark.parametrize(
    ("host", "address"), [("127.0.0.1", "http://127.0.0.1:7000"), ("::1", "http://[::1]:7000")]
)
def test_without_an_address_the_pages_are_where_they_are_served(host: str, address: str) -> None:
    assert Settings(web_host=host, web_port=7000).address() == address


@pytest.mark.parametrize(
    ("environ", "flags", "message"),
    [
        ({"KIZUNA_WEB_PORT": "http"}, {}, "KIZUNA_WEB_PORT: expected a whole number, not 'http'"),
        ({}, {"web_port": "http"}, "--web-port: expected a whole number, not 'http'"),
        ({"KIZUNA_CLOCK": "sun"}, {}, "KIZUNA_CLOCK: expected wall or event, not 'sun'"),
        ({"KIZUNA_SWEEP_INTERVAL": "often"}, {}, "KIZUNA_SWEEP_INTERVAL: expected a number, not 'often'"),
        ({"KIZUNA_WEB_PORT": "65536"}, {}, "KIZUNA_WEB_PORT: expected 0 to 65535, not 65536"),
        ({"KIZUNA_WEB_PORT": "-1"}, {}, "KIZUNA_WEB_PORT: expected 0 to 65535, not -1"),
        ({"KIZUNA_WEB_URL": "worker-1:6066"}, {}, "KIZUNA_WEB_URL: expected an address such as http://"),
        ({"KIZUNA_WEB_URL": "ftp://worker-1"}, {}, "KIZUNA_WEB_URL: expected an address such as http://"),
        ({"KIZUNA_WEB_URL": "http://worker-1/\r\nX: y"}, {}, "KIZUNA_WEB_URL: expected an address such as"),
        ({"KIZUNA_BROKERS": " , "}, {}, "KIZUNA_BROKERS: expected host:port"),
        ({"KIZUNA_SESSION_TIMEOUT": "5"}, {}, "KIZUNA_SESSION_TIMEOUT: expected 6 or more, not 5.0"),
        ({"KIZUNA_SWEEP_INTERVAL": "nan"}, {}, "KIZUNA_SWEEP_INTERVAL: expected 0.01 or more, not nan"),
        ({"KIZUNA_OUTBOX_BOUND": "0"}, {}, "KIZUNA_OUTBOX_BOUND: expected 1 or more, not 0"),
        ({"KIZUNA_MOVE_RATE": "0"}, {}, "KIZUNA_MOVE_RATE: expected 1 or more, not 0"),
        ({"KIZUNA_FALLS_LIMIT": "-0.1"}, {}, "KIZUNA_FALLS_LIMIT: expected 0 or more, not -0.1"),
        ({"KIZUNA_FALLS_LIMIT": "nan"}, {}, "KIZUNA_FALLS_LIMIT: expected 0 or more, not nan"),
        ({"KIZUNA_FALLS_LIMIT": "5%"}, {}, "KIZUNA_FALLS_LIMIT: expected a number, not '5%'"),
        ({"KIZUNA_CACHE_CUSTOMERS": "0"}, {}, "KIZUNA_CACHE_CUSTOMERS: expected 1 or more, not 0"),
        ({"KIZUNA_READ_AHEAD_BYTES": "96"}, {}, "KIZUNA_READ_AHEAD_BYTES: expected 1048576 or more, not 96"),
        ({"KIZUNA_REDIS_PREFIX": "a{b}"}, {}, "KIZUNA_REDIS_PREFIX: braces are not allowed"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(
    environ: dict[str, str], flags: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings.read(environ, **flags)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:secret@r:6379/0", "redis://:***@r:6379/0"),
        ("rediss://user:secret@r/3?ssl=1", "rediss://user:***@r/3"),
        ("redis://user@r:1/0", "redis://user@r:1/0"),
        ("rediss://user:se,cret@r:1,[::1]:2/0", "rediss://user:***@r:1,[::1]:2/0"),
    ],
)
def test_a_shown_address_of_redis_hides_the_password(url: str, shown: str) -> None:
    assert Settings(redis_url=url).redis_shown() == shown


@pytest.mark.parametrize(
    "url", ["redis://r:6379/0?password=secret", "unix:///run/redis.sock?username=u&password=secret"]
)
def test_a_password_in_the_query_is_hidden_too(url: str) -> None:
    assert "secret" not in Settings(redis_url=url).redis_shown()


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("redis://r:6379/0?protocol=2", ["redis://r:6379/0?protocol=2"]),
        ("redis://u:p,w@a:1, b:2,/0?x=1", ["redis://u:p,w@a:1/0?x=1", "redis://u:p,w@b:2/0?x=1"]),
        ("redis://[::1]:1,[::2]:2", ["redis://[::1]:1", "redis://[::2]:2"]),
        ("unix:///run/redis,1.sock", ["unix:///run/redis,1.sock"]),
    ],
)
def test_a_redis_url_may_name_several_hosts(url: str, hosts: list[str]) -> None:
    assert each_host(url) == hosts


def test_settings_can_be_varied() -> None:
    assert Settings().but(group="other") == Settings(group="other")
