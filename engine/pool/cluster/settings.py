"""What `--ray-options FILE` may say: a TOML file, every key of which has a default.

cpus_per_actor = 1          # CPUs of the cluster that an actor takes
patience = 600              # seconds that targets wait where no node can take them; then the run ends
[zones.dmz]                 # targets in these networks go to nodes with the Ray resource `zone:dmz`, and to no others
networks = ["10.8.0.0/16"]
[init]                      # given to ray.init as it is
[runtime_env]               # likewise: what Ray sets up for the actors
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, field

from engine.errors import ConfigError, InputError
from engine.targets.prefixes import PrefixSet, parse_prefixes
from matcher import shown

ZONE = "zone:"  # how the resources are called by which a node says in which zones it is
Duration = Annotated[float, Meta(ge=0)]


class Zone(Struct, frozen=True, forbid_unknown_fields=True):
    networks: tuple[str, ...]


class ClusterSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """patience: in seconds."""

    cpus_per_actor: Annotated[float, Meta(gt=0, le=1024)] = 1
    patience: Duration = 600.0
    zones: dict[str, Zone] = field(default_factory=dict)
    init: dict[str, Any] = field(default_factory=dict)
    runtime_env: dict[str, Any] = field(default_factory=dict)


class Zones:
    """Which zone a host is in: the first one that has it, or ""."""

    def __init__(self, zones: dict[str, Zone]) -> None:
        """Raises ConfigError, InputError for a network that is none."""
        self._zones: list[tuple[str, PrefixSet]] = [
            (name, parse_prefixes(zone.networks, f"zones.{name}")) for name, zone in zones.items()
        ]

    def __call__(self, host: str) -> str:
        for name, prefixes in self._zones:
            if host in prefixes:
                return name
        return ""

    def of_node(self, resources: dict[str, float]) -> list[str]:
        """Whose targets a node takes: those of its zones, or those of none if it is in none."""
        return sorted(name[len(ZONE) :] for name in resources if name.startswith(ZONE)) or [""]


def read_settings(path: str) -> ClusterSettings:
    """Raises ConfigError, with the place in the file that is wrong."""
    try:
        text = Path(path).read_bytes().decode()
        settings = msgspec.convert(tomllib.loads(text), ClusterSettings)
        Zones(settings.zones)
    except InputError as error:
        raise ConfigError(f"--ray-options {shown(path)}: {error}") from error
    except OSError as error:
        raise ConfigError(f"--ray-options {shown(path)}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"--ray-options {shown(path)}: {error}") from error
    return settings
