"""For each alert: what makes it fire, what it then says, and what comes near and must not."""

from tests.deploy.alert_cases_deciding import DECIDING
from tests.deploy.alert_cases_reading import READING
from tests.deploy.alert_cases_workers import WORKERS

CASES = [*WORKERS, *READING, *DECIDING]
