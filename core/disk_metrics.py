"""The disk of the data folder, for Prometheus: each process shows that of its own host."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class DiskOfData(Collector):
    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        """May be told later; until then nothing is shown."""

    def describe(self) -> list[Metric]:
        """Nothing: registering is not to look."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Nothing of a folder that is not there."""
        if self.folder is None:
            return
        disk = GaugeMetricFamily(
            "t2i_data_disk_bytes", "Of the disk below the data folder.", labels=["state"]
        )
        try:
            usage = shutil.disk_usage(self.folder)
        except OSError:
            return
        disk.add_metric(["free"], usage.free)
        disk.add_metric(["size"], usage.total)
        yield disk
