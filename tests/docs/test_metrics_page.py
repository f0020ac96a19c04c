"""The page of metrics names what the services tell, and nothing else."""

import importlib
import re

import pytest
from prometheus_client import REGISTRY

from tests.e2e.mesh import ROOT

PAGE = ROOT / "docs/pages/operate/metrics.md"


@pytest.mark.parametrize("service", ["api", "audit", "queue", "runtime", "sandbox", "worker"])
def test_every_metric_is_on_the_page_and_no_other(service: str) -> None:
    importlib.import_module(f"services.{service}.metrics")
    told = {family.name for family in REGISTRY.collect() if family.name.startswith(f"oiab_{service}_")}
    named = set(re.findall(rf"oiab_{service}_\w+", PAGE.read_text()))
    assert named == told
