"""For tests of files that run probemill elsewhere: the fields that manifests of Kubernetes have, and what click takes.

An API server drops a field that it does not know without a word. TYPES is our table of the fields that our manifests
use, so that a misspelt one is found: [X] is a list of X, {X} names of any kind and their X.

    list(faults(document, document["kind"], document["kind"])) == []
    parsed(["probemill", "scan", "-i", "targets.txt"])["input"]
"""

from collections.abc import Iterator, Sequence
from typing import Any

import click

from engine.cli.main import cli

TYPES = {
    "RayJob": "apiVersion:str kind:str metadata:Meta spec:Job",
    "PersistentVolumeClaim": "apiVersion:str kind:str metadata:Meta spec:Claim",
    "ConfigMap": "apiVersion:str kind:str metadata:Meta data:{str}",
    "NetworkPolicy": "apiVersion:str kind:str metadata:Meta spec:Policy",
    "CronJob": "apiVersion:str kind:str metadata:Meta spec:Cron",
    "Meta": "name:str namespace:str labels:{str} annotations:{str}",
    "Job": "entrypoint:str submissionMode:str backoffLimit:int shutdownAfterJobFinishes:bool suspend:bool "
    "ttlSecondsAfterFinished:int submitterPodTemplate:Template rayClusterSpec:Cluster",
    "Cluster": "rayVersion:str authOptions:Auth tlsOptions:Tls enableInTreeAutoscaling:bool "
    "autoscalerOptions:Autoscaler headGroupSpec:Head workerGroupSpecs:[Workers]",
    "Auth": "mode:str secretName:str",
    "Tls": "enabled:bool",
    "Autoscaler": "version:str idleTimeoutSeconds:int upscalingMode:str securityContext:Security",
    "Head": "rayStartParams:{str} template:Template",
    "Workers": "groupName:str replicas:int minReplicas:int maxReplicas:int priority:int rayStartParams:{str} "
    "template:Template",
    "Cron": "schedule:str timeZone:str concurrencyPolicy:str startingDeadlineSeconds:int suspend:bool "
    "successfulJobsHistoryLimit:int failedJobsHistoryLimit:int jobTemplate:JobTemplate",
    "JobTemplate": "metadata:Meta spec:Batch",
    "Batch": "backoffLimit:int activeDeadlineSeconds:int ttlSecondsAfterFinished:int podFailurePolicy:Failures "
    "template:Template",
    "Failures": "rules:[Failure]",
    "Failure": "action:str onExitCodes:ExitCodes onPodConditions:[Condition]",
    "ExitCodes": "containerName:str operator:str values:[int]",
    "Condition": "type:str status:str",
    "Template": "metadata:Meta spec:Pod",
    "Pod": "automountServiceAccountToken:bool enableServiceLinks:bool terminationGracePeriodSeconds:int "
    "restartPolicy:str nodeSelector:{str} tolerations:[Toleration] "
    "securityContext:PodSecurity containers:[Container] volumes:[Volume]",
    "Toleration": "key:str operator:str value:str effect:str",
    "PodSecurity": "runAsNonRoot:bool runAsUser:int runAsGroup:int fsGroup:int fsGroupChangePolicy:str "
    "seccompProfile:Seccomp sysctls:[Setting]",
    "Seccomp": "type:str",
    "Setting": "name:str value:str",
    "Container": "name:str image:str args:[str] securityContext:Security env:[Variable] envFrom:[Source] ports:[Port] "
    "resources:Resources volumeMounts:[Mount]",
    "Variable": "name:str value:str valueFrom:From",
    "From": "fieldRef:Field",
    "Field": "fieldPath:str",
    "Security": "allowPrivilegeEscalation:bool capabilities:Capabilities readOnlyRootFilesystem:bool",
    "Capabilities": "drop:[str]",
    "Source": "secretRef:Reference configMapRef:Reference",
    "Reference": "name:str",
    "Port": "name:str containerPort:int protocol:str",
    "Resources": "requests:{quantity} limits:{quantity}",
    "Mount": "name:str mountPath:str readOnly:bool subPath:str",
    "Volume": "name:str persistentVolumeClaim:ClaimName configMap:Reference emptyDir:Empty",
    "Empty": "medium:str sizeLimit:quantity",
    "ClaimName": "claimName:str",
    "Claim": "accessModes:[str] storageClassName:str resources:Resources",
    "Policy": "podSelector:Selector policyTypes:[str] ingress:[Rule]",
    "Rule": "from:[Peer] ports:[PolicyPort]",
    "Peer": "podSelector:Selector namespaceSelector:Selector",
    "Selector": "matchLabels:{str}",
    "PolicyPort": "protocol:str port:quantity",
}
FIELDS = {kind: dict(field.split(":") for field in fields.split()) for kind, fields in TYPES.items()}
PLAIN: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "bool": (bool,), "quantity": (int, str)}


def faults(value: Any, kind: str, path: str) -> Iterator[str]:
    """What of a value is not as the table has it, each with its path."""
    if kind[0] in "[{":
        if not isinstance(value, list if kind[0] == "[" else dict):
            yield f"{path}: is no {'list' if kind[0] == '[' else 'map'}"
            return
        for key, item in enumerate(value) if kind[0] == "[" else value.items():
            yield from faults(item, kind[1:-1], f"{path}.{key}")
    elif kind in PLAIN:
        if type(value) not in PLAIN[kind]:
            yield f"{path}: is no {kind}"
    elif not isinstance(value, dict):
        yield f"{path}: is no {kind}"
    else:
        for key, item in value.items():
            if key in FIELDS[kind]:
                yield from faults(item, FIELDS[kind][key], f"{path}.{key}")
            else:
                yield f"{path}.{key}: unknown"


def parsed(command: Sequence[str]) -> dict[str, Any]:
    """The options of a command line of ours, by name, as they are written. An option that is not there is an error."""
    _, *words = command
    runs: click.Command = cli
    while isinstance(runs, click.Group):
        name = words.pop(0)
        assert name in runs.commands
        runs = runs.commands[name]
    options, _, _ = runs.make_parser(click.Context(runs)).parse_args(words)
    return dict(options)
