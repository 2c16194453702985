# Flyte requests a GPU by the label k8s.amazonaws.com/accelerator (gpu-device-node-label in infra/flyte/values.yaml), with
# flytekit's names of accelerators. A cluster autoscaler grows the groups from the tags; GPU groups scale to zero.
resource "aws_launch_template" "node" {
  for_each = { cpu = 60, gpu = 150 }
  name     = "${var.name}-${each.key}"
  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_size = each.value
      volume_type = "gp3"
      encrypted   = true
    }
  }
  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1 # Pods have their own roles and cannot use the node's.
  }
}

locals {
  # Flyte's control plane and MLflow need two permanent machines; CPU tasks scale.
  cpu_pools = {
    cpu      = { machines = ["m7i.2xlarge"], least = 2, most = 12, spot = false }
    cpu-spot = { machines = ["m7i.2xlarge", "m7a.2xlarge", "m6i.2xlarge"], least = 0, most = 24, spot = true }
  }
}

resource "aws_eks_node_group" "cpu" {
  for_each        = local.cpu_pools
  cluster_name    = aws_eks_cluster.this.name
  node_group_name = each.key
  node_role_arn   = aws_iam_role.node.arn
  subnet_ids      = [for subnet in aws_subnet.private : subnet.id]
  ami_type        = "AL2023_x86_64_STANDARD"
  capacity_type   = each.value.spot ? "SPOT" : "ON_DEMAND"
  instance_types  = each.value.machines
  labels          = { "hand1000.dev/capacity" = each.value.spot ? "spot" : "on-demand" }
  scaling_config {
    min_size     = each.value.least
    desired_size = each.value.least
    max_size     = each.value.most
  }
  dynamic "taint" {
    for_each = each.value.spot ? ["hand1000.dev/spot"] : []
    content {
      key    = taint.value
      value  = "true"
      effect = "NO_SCHEDULE"
    }
  }
  launch_template {
    id      = aws_launch_template.node["cpu"].id
    version = aws_launch_template.node["cpu"].latest_version
  }
  lifecycle { ignore_changes = [scaling_config[0].desired_size] }
  depends_on = [aws_iam_role_policy_attachment.node]
}

resource "aws_eks_node_group" "gpu" {
  for_each        = var.gpu_pools
  cluster_name    = aws_eks_cluster.this.name
  node_group_name = each.key
  node_role_arn   = aws_iam_role.node.arn
  subnet_ids      = [for subnet in aws_subnet.private : subnet.id]
  ami_type        = "AL2023_x86_64_NVIDIA"
  capacity_type   = each.value.spot ? "SPOT" : "ON_DEMAND"
  instance_types  = [each.value.machine]
  labels = {
    "k8s.amazonaws.com/accelerator" = each.value.accelerator
    "hand1000.dev/capacity"         = each.value.spot ? "spot" : "on-demand"
  }
  scaling_config {
    min_size     = 0
    desired_size = 0
    max_size     = each.value.most
  }
  taint {
    key    = "nvidia.com/gpu"
    value  = "true"
    effect = "NO_SCHEDULE"
  }
  dynamic "taint" {
    for_each = each.value.spot ? ["hand1000.dev/spot"] : []
    content {
      key    = taint.value
      value  = "true"
      effect = "NO_SCHEDULE"
    }
  }
  launch_template {
    id      = aws_launch_template.node["gpu"].id
    version = aws_launch_template.node["gpu"].latest_version
  }
  lifecycle { ignore_changes = [scaling_config[0].desired_size] }
  depends_on = [aws_iam_role_policy_attachment.node]
}
