"""Terraform for AWS: formatted, closed under reference, least rights, and the labels the KubeRay files ask for."""

import re
import shutil

import pytest
from terraform_files import Tree, blocks, check_with_terraform, file_problems, kuberay_account, kuberay_pods
from terraform_files import sources as sources_of

# Arguments and blocks of the AWS provider's resources, as far as these files could use them.
ARGUMENTS = {
    "aws_s3_bucket": {"bucket", "force_destroy", "tags"},
    "aws_s3_bucket_public_access_block": {
        "bucket", "block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets",
    },
    "aws_s3_bucket_server_side_encryption_configuration": {"bucket", "rule"},
    "aws_s3_bucket_ownership_controls": {"bucket", "rule"},
    "aws_s3_bucket_versioning": {"bucket", "versioning_configuration"},
    "aws_s3_bucket_lifecycle_configuration": {"bucket", "rule"},
    "aws_s3_bucket_policy": {"bucket", "policy"},
    "aws_iam_role": {"name", "assume_role_policy", "max_session_duration", "description", "path", "tags"},
    "aws_iam_role_policy": {"name", "role", "policy"},
    "aws_launch_template": {"name_prefix", "name", "metadata_options", "block_device_mappings", "tags"},
    "aws_eks_node_group": {
        "cluster_name", "node_group_name", "node_role_arn", "subnet_ids", "capacity_type", "instance_types", "labels",
        "taint", "scaling_config", "launch_template", "ami_type", "update_config", "tags",
    },
    "aws_iam_policy_document": {"statement", "dynamic", "version"},
}  # fmt: skip
REQUIRED = {
    "aws_s3_bucket_policy": {"bucket", "policy"},
    "aws_iam_role": {"assume_role_policy"},
    "aws_iam_role_policy": {"role", "policy"},
    "aws_eks_node_group": {"cluster_name", "node_role_arn", "subnet_ids", "scaling_config"},
}
# All that the code asks of an object store.
RIGHTS = {"s3:GetObject", "s3:ListBucket", "s3:PutObject", "s3:DeleteObject"}


def sources() -> dict[str, str]:
    return sources_of("aws")


def problems(files: dict[str, str]) -> list[str]:
    found = file_problems(files, prefix="aws", arguments=ARGUMENTS, required=REQUIRED)
    if any(problem.startswith("no HCL") for problem in found):
        return found
    resources, data = blocks(files, "resource"), blocks(files, "data")
    return found + _bucket_problems(resources) + _right_problems(data) + _node_problems(resources)


def _bucket_problems(resources: dict[str, Tree]) -> list[str]:
    found = []
    for name, body in resources.items():
        if name.startswith("aws_s3_bucket_public_access_block") and not all(
            v for k, v in body.items() if k != "bucket"
        ):
            found.append(f"{name}: the bucket can be made public")
    kinds = {name.split(".")[0] for name in resources}
    for kind in ("public_access_block", "server_side_encryption_configuration", "policy", "lifecycle_configuration"):
        if f"aws_s3_bucket_{kind}" not in kinds:
            found.append(f"the bucket has no {kind}")
    return found


def _right_problems(data: dict[str, Tree]) -> list[str]:
    worker = data.get("aws_iam_policy_document.worker", {})
    statements = list(worker.get("statement", []))
    for dynamic in worker.get("dynamic", []):
        statements += [content for inner in dynamic.values() for content in inner["content"]]
    found = []
    for statement in statements:
        sid = statement.get("sid", "?")
        for action in statement["actions"]:
            if action not in RIGHTS:
                found.append(f"{sid}: {action} is more than the code needs")
        resources = statement["resources"] if isinstance(statement["resources"], list) else [statement["resources"]]
        if any(resource in ("*", "arn:aws:s3:::*") for resource in resources):
            found.append(f"{sid}: reaches every bucket")
        if "s3:DeleteObject" in statement["actions"] and not all(
            r.endswith(("/_SUCCESS", "/plan/*")) for r in resources
        ):
            found.append(f"{sid}: predictions could be deleted")
    assume = data.get("aws_iam_policy_document.assume", {}).get("statement", [{}])[0]
    if not {"sub", "aud"} <= {c["variable"].rsplit(":", 1)[-1] for c in assume.get("condition", [])}:
        found.append("assume: any pod could take the role")
    return found


def _node_problems(resources: dict[str, Tree]) -> list[str]:
    found = []
    for name, body in resources.items():
        if name.startswith("aws_launch_template"):
            if body["metadata_options"][0].get("http_tokens") != "required":
                found.append(f"{name}: IMDSv2 is not required")
            if not body["block_device_mappings"][0]["ebs"][0].get("encrypted"):
                found.append(f"{name}: a disk is not encrypted")
        if name.startswith("aws_eks_node_group"):
            is_head = name.endswith(".head")
            if body.get("capacity_type") != ("ON_DEMAND" if is_head else "SPOT"):
                found.append(f"{name}: the head on demand, workers on spot machines")
            if body["scaling_config"][0]["min_size"] != 0:
                found.append(f"{name}: costs money while nothing runs")
    return found


def test_the_files_are_closed_and_safe():
    assert problems(sources()) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("bucket.tf", "block_public_acls       = true", "block_public_acls = false", "can be made public"),
        ("bucket.tf", "block_public_acls ", "block_public_acl ", "unknown argument block_public_acl"),
        ("bucket.tf", "bucket = var.bucket", "bucket = var.buckets", "variable buckets is used or declared, not both"),
        ("bucket.tf", "bucket = var.bucket", 'bucket = "x"', "variable bucket is used or declared, not both"),
        ("bucket.tf", "aws_s3_bucket.runs.arn,", "aws_s3_bucket.run.arn,", "aws_s3_bucket.run is no resource here"),
        ("bucket.tf", 'resource "aws_s3_bucket_policy"', 'resource "aws_s3_bucket_polcy"', "unknown type"),
        ("bucket.tf", "bucket = var.bucket\n}", "bucket = var.bucket\n", "no HCL"),
        ("role.tf", '["s3:GetObject", "s3:PutObject"]', '["s3:*"]', "s3:* is more than the code needs"),
        ("role.tf", '"${aws_s3_bucket.runs.arn}/*/_SUCCESS"', '"${aws_s3_bucket.runs.arn}/*"', "could be deleted"),
        ("role.tf", '["${aws_s3_bucket.runs.arn}/*"]', '["*"]', "reaches every bucket"),
        ("role.tf", "oidc_issuer}:sub", "oidc_issuer}:iss", "any pod could take the role"),
        (
            "role.tf",
            "data.aws_iam_policy_document.assume.json",
            "data.aws_iam_policy_document.asume.json",
            "asume is no",
        ),
        ("role.tf", "role   = aws_iam_role.worker.id\n", "", "lacks role"),
        ("node_groups.tf", 'capacity_type   = "ON_DEMAND"', 'capacity_type = "SPOT"', "the head on demand"),
        ("node_groups.tf", '"required"', '"optional"', "IMDSv2 is not required"),
        ("node_groups.tf", "encrypted   = true", "encrypted = false", "a disk is not encrypted"),
        (
            "node_groups.tf",
            "min_size     = 0\n    desired_size = 0",
            "min_size = 2\n    desired_size = 2",
            "costs money",
        ),
        ("node_groups.tf", "subnet_ids      = var.subnet_ids\n", "", "lacks subnet_ids"),
    ],
)
def test_a_planted_mistake_is_caught(file, old, new, message):
    files = sources()
    assert old in files[file]
    files[file] = files[file].replace(old, new, 1)
    found = problems(files)
    assert any(message in problem for problem in found), found


def test_node_groups_carry_the_labels_and_taints_that_pods_ask_for():
    groups = {n.split(".")[1]: b for n, b in blocks(sources(), "resource").items() if "node_group" in n}
    pods = kuberay_pods()
    assert set(groups) == set(pods)
    for name, pod in pods.items():
        assert pod["nodeSelector"].items() <= groups[name]["labels"].items(), name
        tolerated = {t["key"] for t in pod.get("tolerations", [])}
        assert {t["key"] for t in groups[name].get("taint", [])} <= tolerated, name


def test_the_role_is_that_of_the_pods_service_account():
    account = kuberay_account()
    assert f'"system:serviceaccount:{account["namespace"]}:{account["name"]}"' in sources()["role.tf"]
    role = blocks(sources(), "resource")["aws_iam_role.worker"]["name"]
    assert account["annotations"]["eks.amazonaws.com/role-arn"].endswith(f":role/{role}")


def test_versions_are_pinned_and_several_machine_types_are_asked_for():
    versions = sources()["versions.tf"]
    assert re.search(r'required_version = ">= 1\.\d+"', versions)
    assert re.search(r'version = "~> \d+\.\d+"', versions)
    for name in ("decode_machines", "gpu_machines"):
        assert len(blocks(sources(), "variable")[name]["default"]) > 1


@pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not installed")
def test_terraform_itself_finds_them_formatted_and_valid_where_its_providers_are(tmp_path):
    check_with_terraform("aws", tmp_path)
