"""Terraform for Google Cloud: formatted, closed under reference, least rights, and the labels that pods ask for."""

import re
import shutil

import pytest
from terraform_files import Tree, blocks, check_with_terraform, file_problems, kuberay_account, kuberay_pods
from terraform_files import sources as sources_of

# Arguments and blocks of Google's provider's resources, as far as these files could use them.
ARGUMENTS = {
    "google_storage_bucket": {
        "name", "location", "project", "force_destroy", "storage_class", "uniform_bucket_level_access", "labels",
        "public_access_prevention", "versioning", "lifecycle_rule", "encryption", "soft_delete_policy",
    },
    "google_storage_bucket_iam_member": {"bucket", "role", "member", "condition"},
    "google_service_account": {"account_id", "display_name", "description", "project", "disabled"},
    "google_service_account_iam_member": {"service_account_id", "role", "member", "condition"},
    "google_project_iam_custom_role": {"role_id", "title", "description", "permissions", "stage", "project"},
    "google_container_node_pool": {
        "name", "name_prefix", "cluster", "location", "project", "node_locations", "initial_node_count", "node_count",
        "autoscaling", "management", "max_pods_per_node", "node_config", "network_config", "upgrade_settings",
        "version",
    },
}  # fmt: skip
NODE_CONFIG = {
    "machine_type", "spot", "preemptible", "disk_size_gb", "disk_type", "service_account", "oauth_scopes", "labels",
    "resource_labels", "taint", "guest_accelerator", "workload_metadata_config", "shielded_instance_config",
    "image_type", "metadata", "tags", "gcfs_config", "gvnic",
}  # fmt: skip
REQUIRED = {
    "google_storage_bucket": {"name", "location"},
    "google_storage_bucket_iam_member": {"bucket", "role", "member"},
    "google_service_account": {"account_id"},
    "google_service_account_iam_member": {"service_account_id", "role", "member"},
    "google_project_iam_custom_role": {"role_id", "title", "permissions"},
    "google_container_node_pool": {"cluster", "node_config", "autoscaling"},
}
# All that the code asks of an object store.
RIGHTS = {f"storage.objects.{verb}" for verb in ("get", "list", "create", "delete")}
BUT_PREDICTIONS = 'resource.name.extract(\\"/predictions/{unit}\\") == \\"\\"'


def sources() -> dict[str, str]:
    return sources_of("gcp")


def problems(files: dict[str, str]) -> list[str]:
    found = file_problems(files, prefix="google", arguments=ARGUMENTS, required=REQUIRED)
    if any(problem.startswith("no HCL") for problem in found):
        return found
    resources = blocks(files, "resource")
    return found + _bucket_problems(resources) + _right_problems(resources) + _node_problems(resources)


def _bucket_problems(resources: dict[str, Tree]) -> list[str]:
    found = []
    for name, body in resources.items():
        if name.startswith("google_storage_bucket."):
            if body.get("public_access_prevention") != "enforced" or not body.get("uniform_bucket_level_access"):
                found.append(f"{name}: the bucket can be made public")
            if not body.get("versioning", [{}])[0].get("enabled"):
                found.append(f"{name}: what is replaced is lost")
            actions = {rule["action"][0]["type"] for rule in body.get("lifecycle_rule", [])}
            if not {"AbortIncompleteMultipartUpload", "Delete"} <= actions:
                found.append(f"{name}: unfinished uploads or old versions stay for ever")
    return found


def _right_problems(resources: dict[str, Tree]) -> list[str]:
    found = []
    roles = {n: b for n, b in resources.items() if n.startswith("google_project_iam_custom_role.")}
    for name, body in roles.items():
        found += [
            f"{name}: {right} is more than the code needs" for right in body["permissions"] if right not in RIGHTS
        ]
    for name, body in resources.items():
        if not name.startswith("google_storage_bucket_iam_member."):
            continue
        role = re.sub(r"^\$\{(.*)\.id\}$|^(.*)\.id$", r"\1\2", body["role"])
        if role not in roles:
            found.append(f"{name}: a role of its own, not {role}")
            continue
        rights = set(roles[role]["permissions"])
        is_source = "runs" not in body["bucket"]
        if is_source and rights - {"storage.objects.get", "storage.objects.list"}:
            found.append(f"{name}: sources could be written")
        is_limited = any(c["expression"] == BUT_PREDICTIONS for c in body.get("condition", []))
        is_asked_for = "var.may_retry" in str(body.get("count"))
        if "storage.objects.delete" in rights and not (is_limited or is_asked_for):
            found.append(f"{name}: predictions could be deleted")
    for name, body in resources.items():
        pods = r"serviceAccount:\$\{var\.project\}\.svc\.id\.goog\[[a-z0-9-]+/[a-z0-9-]+\]"
        if name.startswith("google_service_account_iam_member.") and not re.fullmatch(pods, body["member"]):
            found.append(f"{name}: any pod could take the account")
    return found


def _node_problems(resources: dict[str, Tree]) -> list[str]:
    found = []
    for name, body in resources.items():
        if not name.startswith("google_container_node_pool.") or "node_config" not in body:
            continue
        config = body["node_config"][0]
        found += [f"{name}: unknown argument {key} of a node" for key in sorted(set(config) - NODE_CONFIG)]
        if config.get("spot") is not (not name.endswith(".head")):
            found.append(f"{name}: the head on demand, workers on spot machines")
        if body["initial_node_count"] != 0 or body["autoscaling"][0].get("total_min_node_count") != 0:
            found.append(f"{name}: costs money while nothing runs")
        if config.get("workload_metadata_config", [{}])[0].get("mode") != "GKE_METADATA":
            found.append(f"{name}: pods could act as the machine")
        if config.get("service_account") in (None, "default"):
            found.append(f"{name}: the project's default account may do all in it")
    return found


def test_the_files_are_closed_and_safe():
    assert problems(sources()) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("bucket.tf", '"enforced"', '"inherited"', "can be made public"),
        ("bucket.tf", "uniform_bucket_level_access = true", "uniform_bucket_level_access = false", "made public"),
        ("bucket.tf", "enabled = true", "enabled = false", "what is replaced is lost"),
        ("bucket.tf", '"AbortIncompleteMultipartUpload"', '"SetStorageClass"', "stay for ever"),
        ("bucket.tf", "location  ", "locality  ", "lacks location"),
        ("bucket.tf", "var.bucket", "var.buckets", "variable buckets is used or declared, not both"),
        ("bucket.tf", "versioning {", "versioning ", "no HCL"),
        ("account.tf", '"storage.objects.create"', '"storage.buckets.delete"', "is more than the code needs"),
        ("account.tf", "google_project_iam_custom_role.add.id", '"roles/storage.admin"', "a role of its own"),
        ("account.tf", "_custom_role.read.id", "_custom_role.add.id", "sources could be written"),
        ("account.tf", "/predictions/{unit}", "/plan/{unit}", "predictions could be deleted"),
        ("account.tf", "count  = var.may_retry ? 1 : 0", "count = 1", "predictions could be deleted"),
        ("account.tf", "[vidcls/vidcls]", "[*]", "any pod could take the account"),
        ("account.tf", "google_storage_bucket.runs.name", "google_storage_bucket.run.name", "run is no resource here"),
        ("account.tf", 'resource "google_service_account" "worker"', 'resource "google_service_acount" "worker"',
         "unknown type"),
        ("node_pools.tf", "spot            = false", "spot = true", "the head on demand"),
        ("node_pools.tf", "total_min_node_count = 0", "total_min_node_count = 1", "costs money"),
        ("node_pools.tf", '"GKE_METADATA"', '"GCE_METADATA"', "act as the machine"),
        ("node_pools.tf", "service_account = var.node_service_account\n", "", "default account"),
        ("node_pools.tf", "machine_type    = each.value", "instance_type = each.value", "argument instance_type"),
        ("node_pools.tf", "cluster            = var.cluster_name\n", "", "lacks cluster"),
    ],
)  # fmt: skip
def test_a_planted_mistake_is_caught(file, old, new, message):
    files = sources()
    assert old in files[file]
    files[file] = files[file].replace(old, new, 1)
    found = problems(files)
    assert any(message in problem for problem in found), found


def test_node_pools_carry_the_labels_and_taints_that_pods_ask_for():
    pools = {n.split(".")[1]: b for n, b in blocks(sources(), "resource").items() if "node_pool" in n}
    pods = kuberay_pods()
    assert set(pools) == set(pods)
    for name, pod in pods.items():
        config = pools[name]["node_config"][0]
        assert pod["nodeSelector"].items() <= config["labels"].items(), name
        tolerated = {t["key"] for t in pod.get("tolerations", [])}
        assert {t["key"] for t in config.get("taint", [])} <= tolerated, name


def test_the_account_is_that_of_the_pods_service_account():
    account = kuberay_account()
    resources = blocks(sources(), "resource")
    member = resources["google_service_account_iam_member.pods"]["member"]
    assert member.endswith(f"[{account['namespace']}/{account['name']}]")
    email = account["annotations"]["iam.gke.io/gcp-service-account"]
    assert email.split("@")[0] == resources["google_service_account.worker"]["account_id"]


def test_versions_are_pinned_and_several_machine_types_are_asked_for():
    versions = sources()["versions.tf"]
    assert re.search(r'required_version = ">= 1\.\d+"', versions)
    assert re.search(r'version = "~> \d+\.\d+"', versions)
    for name in ("decode_machines", "gpu_machines"):
        assert len(blocks(sources(), "variable")[name]["default"]) > 1


@pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not installed")
def test_terraform_itself_finds_them_formatted_and_valid_where_its_providers_are(tmp_path):
    check_with_terraform("gcp", tmp_path)
