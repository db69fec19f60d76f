"""What the files of deployments/ say: each fits the format of those who read it, and none holds a
password.
"""

import json
import subprocess
import sys
from pathlib import Path

import prefect
import pytest
import yaml
from paths import ROOT
from prefect.cli.deploy._models import PrefectYamlModel
from readme_blocks import DEPLOYMENTS

POOLS = {
    "prefect.yaml": "process",
    "prefect-docker.yaml": "docker",
    "prefect-kubernetes.yaml": "kubernetes",
}


@pytest.mark.parametrize("file", POOLS)
def test_each_pool_gets_the_same_deployments(file: str) -> None:
    """Prefect's own model takes the file, and the pool's type every job variable; audit, re-audit
    and drill, without a limit that the server counts.
    """
    text = yaml.safe_load((DEPLOYMENTS / file).read_text())
    PrefectYamlModel.model_validate(text)
    assert [d["entrypoint"].rpartition(".")[2] for d in text["deployments"]] == [
        "audit",
        "audit",
        "drill",
    ]
    assert text["deployments"][1]["parameters"]["again"] is True
    # what died would hold a slot for ever, once the server is restarted
    assert not any("concurrency_limit" in deployment for deployment in text["deployments"])
    assert all(
        d["work_pool"]["job_variables"]["env"]["PREFECT_FLOWS_DEFAULT_RETRIES"] == "2"
        for d in text["deployments"]
    )
    types = json.loads(
        (
            Path(prefect.__file__).parent
            / "server/api/collections_data/views/aggregate-worker-metadata.json"
        ).read_text()
    )
    (known,) = [
        collection[POOLS[file]] for collection in types.values() if POOLS[file] in collection
    ]
    variables = set(known["default_base_job_configuration"]["variables"]["properties"])
    assert all(set(d["work_pool"]["job_variables"]) <= variables for d in text["deployments"])


def test_the_compose_file_is_one() -> None:
    """It fits the compose specification; no service answers beyond this machine, and no password is
    written down.
    """
    checker = [
        str(Path(sys.executable).parent / "check-jsonschema"),
        "--builtin-schema",
        "vendor.compose-spec",
    ]
    done = subprocess.run(
        [*checker, str(DEPLOYMENTS / "compose.yaml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    services = yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text())["services"]
    assert {"postgres", "prefect", "mlflow", "watch", "dashboard"} == set(services)
    assert all(
        port.startswith("127.0.0.1:")
        for settings in services.values()
        for port in settings.get("ports", ())
    )
    secrets = [
        value
        for settings in services.values()
        for key, value in settings["environment"].items()
        if "PASSWORD" in key
    ]
    assert len(secrets) >= 5
    assert all(value.startswith("/run/secrets/") for value in secrets)


# Fields of KubeRay's v1 API, of which its operator refuses others.
RAY_JOB = {
    "activeDeadlineSeconds",
    "backoffLimit",
    "clusterSelector",
    "deletionStrategy",
    "entrypoint",
    "entrypointNumCpus",
    "entrypointNumGpus",
    "entrypointResources",
    "jobId",
    "managedBy",
    "metadata",
    "rayClusterSpec",
    "runtimeEnvYAML",
    "shutdownAfterJobFinishes",
    "submissionMode",
    "submitterConfig",
    "submitterPodTemplate",
    "suspend",
    "ttlSecondsAfterFinished",
}
RAY_CLUSTER = {
    "autoscalerOptions",
    "enableInTreeAutoscaling",
    "headGroupSpec",
    "headServiceAnnotations",
    "rayVersion",
    "suspend",
    "workerGroupSpecs",
}
HEAD_GROUP = {
    "enableIngress",
    "headService",
    "rayStartParams",
    "serviceType",
    "template",
}
WORKER_GROUP = {
    "groupName",
    "maxReplicas",
    "minReplicas",
    "numOfHosts",
    "rayStartParams",
    "replicas",
    "scaleStrategy",
    "template",
}


def test_the_ray_job_is_one() -> None:
    """It fits KubeRay's API; Ray is the tested one; every pod sees the shared folder, and no secret
    is written down.
    """
    job = yaml.safe_load((DEPLOYMENTS / "kuberay.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert set(spec) <= RAY_JOB
    assert " poisonwatch audit /shared/" in spec["entrypoint"]
    cluster = spec["rayClusterSpec"]
    assert set(cluster) <= RAY_CLUSTER
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text().splitlines()
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert set(head) <= HEAD_GROUP
    for group in (head, *workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
            passwords = [v["value"] for v in container["env"] if "PASSWORD" in v["name"]]
            assert passwords
            assert all(value.startswith("/run/secrets/") for value in passwords)
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
    for group in workers:
        assert set(group) <= WORKER_GROUP
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        (container,) = group["template"]["spec"]["containers"]
        # One GPU a pod; the audit's own is one of them.
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
        assert group["replicas"] > spec["entrypointNumGpus"]
