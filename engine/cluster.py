"""A scan on other machines, as the command asks for it: the cluster opened, looked at, and made a runner of.

A module of its own, so that a scan on this machine does not load what only a cluster needs.
"""

from msgspec import Struct

from engine.api import check_config
from engine.errors import ConfigError
from engine.model import ScanConfig
from engine.pool.cluster.check import check
from engine.pool.cluster.settings import ClusterSettings, read_settings
from engine.pool.cluster.verdicts import NodeReport, Verdict, worst
from engine.pool.runners import Runner
from engine.pool.runners.cluster import ClusterRunner
from engine.pool.runners.ray import RayEngine
from engine.state.attempt import Staging


class Cluster(Struct, frozen=True):
    """Other machines to scan on, not asked yet whether they are there."""

    engine: RayEngine
    settings: ClusterSettings


def open_cluster(address: str, options: str) -> Cluster:
    """A Ray cluster by its address, and the file that says more about it; either may be empty.

    Raises ConfigError for what cannot be used, and where Ray is not installed.
    """
    settings = read_settings(options) if options else ClusterSettings()
    return Cluster(RayEngine(address, settings), settings)


def make_cluster_runner(config: ScanConfig, cluster: Cluster, staging: Staging) -> Runner:
    """The runner whose actors are on other machines. staging: where they put their segments.

    Raises as `api.make_runner` does; source addresses are looked for on the nodes.
    """
    if config.proxy:
        raise ConfigError("proxy: not with a cluster; its nodes reach targets by themselves")
    check_config(config)
    return ClusterRunner(config, cluster.settings, cluster.engine, staging)


class ClusterReport(Struct, frozen=True):
    """What was found on the nodes of a cluster, by its name. verdict: the worst of all findings."""

    cluster: str
    verdict: Verdict
    nodes: list[NodeReport]


async def check_cluster(cluster: Cluster, config: ScanConfig, staging: Staging | None = None) -> ClusterReport:
    """What would go wrong on the nodes of a cluster; nothing is scanned. staging: where segments are to be put.

    Raises as `make_cluster_runner` does, and EngineError where no cluster answers.
    """
    check_config(config)
    reports = await check(cluster.engine, cluster.settings, config, staging)
    return ClusterReport(cluster.engine.name, worst(reports), reports)
