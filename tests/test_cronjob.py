"""docs/install/cronjob.yaml has only fields that there are, fits together, and runs a command that we have."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from manifests import faults, parsed

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "install" / "cronjob.yaml").read_text("utf-8")
DOCUMENTS: dict[str, dict[str, Any]] = {document["kind"]: document for document in yaml.safe_load_all(TEXT)}
JOB: dict[str, Any] = DOCUMENTS["CronJob"]["spec"]["jobTemplate"]["spec"]
POD: dict[str, Any] = JOB["template"]["spec"]
[SCAN] = POD["containers"]
OPTIONS = parsed(["probemill", *SCAN["args"]])


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_a_document_has_only_fields_that_there_are(kind: str) -> None:
    assert not list(faults(DOCUMENTS[kind], kind, kind))


def test_a_misspelt_field_is_found() -> None:
    text = TEXT.replace("readOnlyRootFilesystem", "readOnlyRootFileSystem")
    [*_, broken] = yaml.safe_load_all(text)
    assert len(list(faults(broken, "CronJob", ""))) == 1


def test_a_pod_may_little() -> None:
    """Not root, no capability, no token of the cluster's API, nothing to write on but what is mounted; bounded."""
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert POD["automountServiceAccountToken"] is False
    assert SCAN["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert SCAN["resources"]["limits"].keys() == SCAN["resources"]["requests"].keys() == {"cpu", "memory"}


def test_the_user_is_that_of_the_image() -> None:
    containerfile = (ROOT / "docs" / "install" / "Containerfile").read_text("utf-8")
    assert f"--uid {POD['securityContext']['runAsUser']} " in containerfile
    assert f"-t {SCAN['image']} " in containerfile


def test_whatever_is_mounted_is_there() -> None:
    volumes = {volume["name"]: volume for volume in POD["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in SCAN["volumeMounts"]}
    assert len(mounts) == len(volumes)
    claim, inputs = DOCUMENTS["PersistentVolumeClaim"]["metadata"], DOCUMENTS["ConfigMap"]["metadata"]
    assert mounts["/state"]["persistentVolumeClaim"]["claimName"] == claim["name"]
    assert mounts["/inputs"]["configMap"]["name"] == inputs["name"]


def test_every_input_is_read() -> None:
    read = {word.rpartition("/inputs/")[2] for word in SCAN["args"] if "/inputs/" in word}
    assert read == set(DOCUMENTS["ConfigMap"]["data"])


def test_a_pod_resumes_what_its_predecessor_began() -> None:
    """The state folder is on the claim, has the Job's name, and no pod after one that could do nothing."""
    [variable] = re.fullmatch(r"/state/\$\((\w+)\)", OPTIONS["state"]).groups()  # type: ignore[union-attr]
    [source] = [entry["valueFrom"] for entry in SCAN["env"] if entry["name"] == variable]
    assert source == {"fieldRef": {"fieldPath": "metadata.labels['batch.kubernetes.io/job-name']"}}
    assert OPTIONS["resume"]
    assert JOB["backoffLimit"] > 0
    assert POD["restartPolicy"] == "Never"  # which podFailurePolicy asks for
    [on_exit, _] = JOB["podFailurePolicy"]["rules"]
    assert on_exit["onExitCodes"] == {"containerName": SCAN["name"], "operator": "In", "values": [2]}


def test_only_metrics_are_reached() -> None:
    policy = DOCUMENTS["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= JOB["template"]["metadata"]["labels"].items()
    [rule] = policy["ingress"]
    [port] = rule["ports"]
    assert str(port["port"]) == OPTIONS["metrics"].rpartition(":")[2]
    assert [port["port"]] == [port["containerPort"] for port in SCAN["ports"]]
