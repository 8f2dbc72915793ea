# Labels and taints are those that infra/kuberay asks for.
resource "aws_launch_template" "worker" {
  name_prefix = "vidcls-"
  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1 # pods use their service account's role, never the machine's
  }
  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_size = 200
      volume_type = "gp3"
      encrypted   = true
    }
  }
}

resource "aws_eks_node_group" "head" {
  cluster_name    = var.cluster_name
  node_group_name = "vidcls-head"
  node_role_arn   = var.node_role_arn
  subnet_ids      = var.subnet_ids
  capacity_type   = "ON_DEMAND"
  instance_types  = ["m6i.2xlarge"]
  labels          = { "vidcls/capacity" = "on-demand" }
  scaling_config {
    min_size     = 0
    desired_size = 1
    max_size     = 2
  }
  launch_template {
    id      = aws_launch_template.worker.id
    version = aws_launch_template.worker.latest_version
  }
  lifecycle {
    ignore_changes = [scaling_config[0].desired_size]
  }
}

resource "aws_eks_node_group" "decode" {
  cluster_name    = var.cluster_name
  node_group_name = "vidcls-decode"
  node_role_arn   = var.node_role_arn
  subnet_ids      = var.subnet_ids
  capacity_type   = "SPOT"
  instance_types  = var.decode_machines
  labels          = { "vidcls/capacity" = "spot", "vidcls/pool" = "decode" }
  taint {
    key    = "vidcls/spot"
    value  = "true"
    effect = "NO_SCHEDULE"
  }
  scaling_config {
    min_size     = 0
    desired_size = 0
    max_size     = var.max_decode_nodes
  }
  launch_template {
    id      = aws_launch_template.worker.id
    version = aws_launch_template.worker.latest_version
  }
  lifecycle {
    ignore_changes = [scaling_config[0].desired_size]
  }
}

resource "aws_eks_node_group" "gpu" {
  cluster_name    = var.cluster_name
  node_group_name = "vidcls-gpu"
  node_role_arn   = var.node_role_arn
  subnet_ids      = var.subnet_ids
  capacity_type   = "SPOT"
  ami_type        = "AL2023_x86_64_NVIDIA"
  instance_types  = var.gpu_machines
  labels          = { "vidcls/capacity" = "spot", "vidcls/pool" = "gpu" }
  taint {
    key    = "vidcls/spot"
    value  = "true"
    effect = "NO_SCHEDULE"
  }
  taint {
    key    = "nvidia.com/gpu"
    value  = "present"
    effect = "NO_SCHEDULE"
  }
  scaling_config {
    min_size     = 0
    desired_size = 0
    max_size     = var.max_gpu_nodes
  }
  launch_template {
    id      = aws_launch_template.worker.id
    version = aws_launch_template.worker.latest_version
  }
  lifecycle {
    ignore_changes = [scaling_config[0].desired_size]
  }
}
