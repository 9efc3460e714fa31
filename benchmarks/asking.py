"""Asks a worker whether customers may be contacted, and prints how long each answer took: a process of its own, so that
nothing else of the benchmark holds it up.

Arguments: port, how many questions, how many a second, whether places are to be taken (0 or 1). Customers by line on
stdin. One JSON object on stdout.
"""

import json
import random
import sys
import threading
import time
from collections import Counter
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote

#: Connections that are kept open, and the questions' channels.
_CONNECTIONS = 8
_CHANNELS = ("email", "email", "mail", "sns", "call")


class _Asker(threading.Thread):
    """Asks one question after another, at random instants."""

    def __init__(
        self, seed: int, port: int, count: int, per_second: float, reserve: bool, ids: list[str]
    ) -> None:
        super().__init__(daemon=True)
        self._random = random.Random(seed)
        self._port, self._count, self._per_second, self._reserve, self._ids = (
            port,
            count,
            per_second,
            reserve,
            ids,
        )
        #: When each question was asked, and how long its answer took: seconds.
        self.took: list[tuple[float, float]] = []
        self.decisions: Counter[str] = Counter()
        self.failure: str | None = None

    def run(self) -> None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=30)
        due = time.monotonic()
        try:
            for _ in range(self._count):
                due += self._random.expovariate(self._per_second)
                time.sleep(max(0.0, due - time.monotonic()))
                customer = quote(self._random.choice(self._ids), safe="")
                path = f"/customers/{customer}/contact?channel={self._random.choice(_CHANNELS)}"
                asked = time.monotonic()
                connection.request("GET", path + ("&reserve=true" if self._reserve else ""))
                reply = connection.getresponse()
                body: Any = json.loads(reply.read())
                self.took.append((asked, time.monotonic() - asked))
                if reply.status != 200:
                    raise ValueError(f"{path}: {reply.status}: {body}")
                self.decisions[body["decision"]] += 1
        except Exception as error:
            self.failure = repr(error)
        finally:
            connection.close()


def main() -> None:
    """Ask, and print."""
    port, count, per_second, reserve = (
        int(sys.argv[1]),
        int(sys.argv[2]),
        float(sys.argv[3]),
        sys.argv[4] == "1",
    )
    ids = sys.stdin.read().split("\n")
    askers = [
        _Asker(seed, port, count // _CONNECTIONS, per_second / _CONNECTIONS, reserve, ids)
        for seed in range(_CONNECTIONS)
    ]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    failures = [asker.failure for asker in askers if asker.failure]
    if failures:
        sys.exit(failures[0])
    took = sorted(one for asker in askers for one in asker.took)
    decisions: Counter[str] = sum((asker.decisions for asker in askers), Counter())
    json.dump({"took": took, "decisions": decisions}, sys.stdout)


if __name__ == "__main__":
    main()
