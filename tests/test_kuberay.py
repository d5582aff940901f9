"""docs/cluster/ has only fields that there are, fits together, and runs a command that we have.

manifests.py has our table of the fields that these files use; a misspelt one is refused. Where the schema of KubeRay
1.7.0 lies beside the checkout (../shared/kuberay/kuberay-rayjob-crd.json.zst, or $PROBEMILL_RAYJOB_CRD: the v1 schema
of ray-operator/config/crd/bases/ray.io_rayjobs.yaml under "openAPIV3Schema"), files and table are held against that,
too. Its rules in CEL are not evaluated.
"""

import json
import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml
import zstandard
from manifests import FIELDS, PLAIN, faults, parsed

from engine.pool.cluster.settings import ClusterSettings

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "cluster"
BESIDE = ROOT.parent / "shared" / "kuberay" / "kuberay-rayjob-crd.json.zst"
SCHEMA = Path(os.environ.get("PROBEMILL_RAYJOB_CRD", BESIDE))

WORDS = {"string": "str", "integer": "int", "boolean": "bool"}  # a schema's, and ours

DOCUMENTS: list[dict[str, Any]] = [
    document for file in sorted(FOLDER.glob("*.yaml")) for document in yaml.safe_load_all(file.read_text("utf-8"))
]
[JOB] = [document for document in DOCUMENTS if document["kind"] == "RayJob"]
CLUSTER = JOB["spec"]["rayClusterSpec"]
GROUPS: dict[str, dict[str, Any]] = {group["groupName"]: group for group in CLUSTER["workerGroupSpecs"]}
HEAD: dict[str, Any] = CLUSTER["headGroupSpec"]["template"]
NODES = [HEAD, *(group["template"] for group in GROUPS.values())]
PODS = [JOB["spec"]["submitterPodTemplate"], *NODES]


def documents(kind: str) -> list[dict[str, Any]]:
    return [document for document in DOCUMENTS if document["kind"] == kind]


def schemas() -> dict[str, Any]:
    """KubeRay's schema of each kind of document, which knows a claim and the rules of a policy as well."""
    if not SCHEMA.exists():
        pytest.skip("needs ../shared/kuberay/kuberay-rayjob-crd.json.zst")
    root = json.loads(zstandard.ZstdDecompressor().decompress(SCHEMA.read_bytes()))["openAPIV3Schema"]
    plain = {"type": "string"}
    texts = {"type": "object", "additionalProperties": plain}
    root["properties"]["metadata"] = meta = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": plain, "namespace": plain, "labels": texts, "annotations": texts},
    }
    cluster = inside(root, "spec.rayClusterSpec")
    claim = inside(cluster, "headGroupSpec.template.spec.volumes.[].ephemeral.volumeClaimTemplate.spec")
    rule = inside(cluster, "networkPolicy.head.ingressRules.[]")
    policy = {
        "type": "object",
        "required": ["podSelector"],
        "properties": {
            "podSelector": inside(rule, "from.[].podSelector"),
            "policyTypes": {"type": "array", "items": plain | {"enum": ["Ingress", "Egress"]}},
            "ingress": {"type": "array", "items": rule},
        },
    }
    parts = {"PersistentVolumeClaim": {"spec": claim}, "NetworkPolicy": {"spec": policy}, "ConfigMap": {"data": texts}}
    header = {"apiVersion": plain, "kind": plain, "metadata": meta}
    return {"RayJob": root} | {
        kind: {"type": "object", "required": [*header, *part], "properties": header | part}
        for kind, part in parts.items()
    }


def inside(schema: dict[str, Any], path: str) -> dict[str, Any]:
    for step in path.split("."):
        schema = schema["items"] if step == "[]" else schema["properties"][step]
    return schema


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """The same schema, refusing fields that it does not know; but where it keeps them on purpose."""
    made = dict(schema)
    if "properties" in schema:
        made["properties"] = {name: strict(part) for name, part in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            made[key] = strict(schema[key])
    return made


def differences(kind: str, schema: dict[str, Any], path: str) -> Iterator[str]:
    """Where the table says what a schema does not."""
    if kind[0] == "[":
        yield from differences(kind[1:-1], schema["items"], f"{path}.[]")
    elif kind[0] == "{":
        yield from differences(kind[1:-1], schema["additionalProperties"], f"{path}.*")
    elif kind in PLAIN:
        if kind != ("quantity" if schema.get("x-kubernetes-int-or-string") else WORDS.get(schema["type"])):
            yield f"{path}: is no {kind}"
    else:
        for name, below in FIELDS[kind].items():
            if name in schema.get("properties", {}):
                yield from differences(below, schema["properties"][name], f"{path}.{name}")
            else:
                yield f"{path}.{name}: unknown"


@pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda document: f"{document['kind']}-{document['metadata']['name']}"
)
def test_a_document_has_only_fields_that_there_are(document: dict[str, Any]) -> None:
    assert not list(faults(document, document["kind"], document["kind"]))


@pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda document: f"{document['kind']}-{document['metadata']['name']}"
)
def test_a_document_is_what_the_schema_asks_for(document: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(strict(schemas()[document["kind"]])).validate(document)


def test_the_table_has_only_fields_of_the_schema() -> None:
    assert not [fault for kind, schema in schemas().items() for fault in differences(kind, schema, kind)]


MISTAKES: dict[str, Any] = {  # a path in the RayJob and a value that must not pass there
    "spec.backofLimit": 3,
    "spec.backoffLimit": "3",
    "spec.rayClusterSpec.enableInTreeAutoScaling": True,
    "spec.rayClusterSpec.authOptions.modus": "token",
    "spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus": 0,
    "spec.rayClusterSpec.headGroupSpec.template.spec.securityContext.runAsNotRoot": True,
    "spec.rayClusterSpec.workerGroupSpecs.0.maxReplica": 4,
    "spec.rayClusterSpec.workerGroupSpecs.0.template.spec.tolerations.0.efect": "NoSchedule",
    "spec.rayClusterSpec.workerGroupSpecs.0.template.spec.containers.0.envfrom": [],
    "spec.rayClusterSpec.workerGroupSpecs.0.template.spec.containers": {},
}


@pytest.mark.parametrize("path", MISTAKES)
@pytest.mark.parametrize("against", ["table", "schema"])
def test_a_mistake_is_found(path: str, against: str) -> None:
    broken: Any = json.loads(json.dumps(JOB))  # in which nothing stands in two places
    place = broken
    *above, last = path.split(".")
    for step in above:
        place = place[int(step)] if step.isdigit() else place[step]
    place[last] = MISTAKES[path]
    if against == "table":
        assert len(list(faults(broken, "RayJob", ""))) == 1
    else:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft202012Validator(strict(schemas()["RayJob"])).validate(broken)


def shown_commands() -> list[str]:
    """What docs/cluster.md tells to type, and what the RayJob runs."""
    page = (ROOT / "docs" / "cluster.md").read_text("utf-8").replace("\\\n", " ")
    typed = re.findall(r"^\$ (?:.* )?(probemill [a-z][^#\n|]*)", page, re.MULTILINE)
    assert typed
    return list(dict.fromkeys(" ".join(command.split()) for command in [JOB["spec"]["entrypoint"], *typed]))


@pytest.mark.parametrize("command", shown_commands())
def test_a_command_has_only_options_that_there_are(command: str) -> None:
    parsed(shlex.split(command))


def test_the_command_is_the_same_behind_two_shells() -> None:
    """KubeRay puts it unquoted into a shell of the submitter, Ray joins the words again for one on the head."""
    command = JOB["spec"]["entrypoint"]
    assert shlex.join(shlex.split(command)) == command


def test_a_retry_resumes_in_what_outlives_the_cluster() -> None:
    """The state folder is on the claim, the inputs are in the map, and the driver's pod has both."""
    words = shlex.split(JOB["spec"]["entrypoint"])
    assert JOB["spec"]["backoffLimit"] > 0
    assert "--resume" in words
    [claim], [inputs] = documents("PersistentVolumeClaim"), documents("ConfigMap")
    volumes = {volume["name"]: volume for volume in HEAD["spec"]["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in HEAD["spec"]["containers"][0]["volumeMounts"]}
    assert mounts["/state"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert mounts["/inputs"]["configMap"]["name"] == inputs["metadata"]["name"]
    assert words[words.index("--state") + 1].startswith("/state/")
    read = {word.removeprefix("/inputs/") for word in words if word.startswith("/inputs/")}
    assert read == set(inputs["data"])


def test_zones_have_nodes() -> None:
    """A zone of the options is a resource of a group, in the quoting that operator and autoscaler both read."""
    [inputs] = documents("ConfigMap")
    options = tomllib.loads(inputs["data"]["options.toml"])
    msgspec.convert(options, ClusterSettings)
    zones = set()
    for group in GROUPS.values():
        if resources := group["rayStartParams"].get("resources"):
            [argument] = shlex.split(resources)  # by the shell that runs `ray start`
            assert argument == resources[1:-1].replace("\\", "")  # by the autoscaler
            zones |= json.loads(argument).keys()
    assert zones == {f"zone:{zone}" for zone in options["zones"]}


def test_nodes_are_one_image_and_one_ray() -> None:
    dockerfile = (FOLDER / "Dockerfile").read_text("utf-8")
    [image] = {container["image"] for pod in PODS for container in pod["spec"]["containers"]}
    assert f"-t {image} " in dockerfile
    version = CLUSTER["rayVersion"]
    assert f"ray[default]=={version}'" in dockerfile
    assert f"ray=={version}" in (ROOT / "constraints.txt").read_text("utf-8").split()


def test_pods_may_little() -> None:
    """None runs as root or with a capability, and whoever meets strangers has no token of the cluster's API."""
    for pod in PODS:
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert (pod is HEAD) == pod["spec"].get("automountServiceAccountToken", True)
        for container in pod["spec"]["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }


def test_ray_is_reached_by_its_own_pods_alone() -> None:
    """A node lets its like in; others reach one port of the head, where a token is asked for."""
    nodes, head = documents("NetworkPolicy")
    [own] = nodes["spec"]["ingress"]
    assert own == {"from": [{"podSelector": nodes["spec"]["podSelector"]}]}
    labels = nodes["spec"]["podSelector"]["matchLabels"]
    assert all(labels.items() <= node["metadata"]["labels"].items() for node in NODES)
    [others] = head["spec"]["ingress"]
    assert head["spec"]["podSelector"]["matchLabels"] == labels | {"ray.io/node-type": "head"}
    assert others["ports"] == [{"protocol": "TCP", "port": 8265}]
    assert others["from"][0]["podSelector"]["matchLabels"]["ray.io/originated-from-cr-name"] == JOB["metadata"]["name"]
    assert CLUSTER["authOptions"]["mode"] == "token"
