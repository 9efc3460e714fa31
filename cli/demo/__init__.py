"""The demo: a year of a real shop through a real Kafka and Redis. `python -m cli.demo`, `make demo`."""
