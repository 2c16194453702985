# Roles and permissions. AWS maintains the policies of the cluster's own roles; each service account has one role with the
# least permissions.
data "aws_iam_policy_document" "by_service" {
  for_each = { cluster = "eks.amazonaws.com", node = "ec2.amazonaws.com" }
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = [each.value]
    }
  }
}

resource "aws_iam_role" "cluster" {
  name               = "${var.name}-cluster"
  assume_role_policy = data.aws_iam_policy_document.by_service["cluster"].json
}

resource "aws_iam_role_policy_attachment" "cluster" {
  role       = aws_iam_role.cluster.name
  policy_arn = "arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"
}

resource "aws_iam_role" "node" {
  name               = "${var.name}-node"
  assume_role_policy = data.aws_iam_policy_document.by_service["node"].json
}

resource "aws_iam_role_policy_attachment" "node" {
  for_each = toset(["AmazonEKSWorkerNodePolicy", "AmazonEKS_CNI_Policy", "AmazonEC2ContainerRegistryPullOnly"])

  role       = aws_iam_role.node.name
  policy_arn = "arn:aws:iam::aws:policy/${each.key}"
}

locals {
  issuer = replace(aws_eks_cluster.this.identity[0].oidc[0].issuer, "https://", "")
  # Role, the service accounts that may assume it, and the buckets that it may read and write.
  roles = {
    flyte   = { accounts = ["flyte:flyte-flyte-binary"], reads = ["artifacts"], writes = ["flyte"] }
    tasks   = { accounts = [for name in var.namespaces : "${name}:default"], reads = ["data"], writes = ["artifacts", "flyte"] }
    mlflow  = { accounts = ["mlflow:mlflow"], reads = [], writes = ["mlflow"] }
    secrets = { accounts = ["external-secrets:hand1000-secrets"], reads = [], writes = [] }
  }
}

data "aws_iam_policy_document" "by_account" {
  for_each = local.roles
  statement {
    actions = ["sts:AssumeRoleWithWebIdentity"]
    principals {
      type        = "Federated"
      identifiers = [aws_iam_openid_connect_provider.cluster.arn]
    }
    condition {
      test     = "StringEquals"
      variable = "${local.issuer}:aud"
      values   = ["sts.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "${local.issuer}:sub"
      values   = [for account in each.value.accounts : "system:serviceaccount:${account}"]
    }
  }
}

resource "aws_iam_role" "account" {
  for_each           = local.roles
  name               = "${var.name}-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.by_account[each.key].json
}

data "aws_iam_policy_document" "buckets" {
  for_each = { for name, role in local.roles : name => role if length(role.writes) > 0 }
  statement {
    actions   = ["s3:ListBucket"]
    resources = [for name in concat(each.value.reads, each.value.writes) : aws_s3_bucket.this[name].arn]
  }
  statement {
    actions   = ["s3:GetObject"]
    resources = [for name in concat(each.value.reads, each.value.writes) : "${aws_s3_bucket.this[name].arn}/*"]
  }
  statement {
    actions   = ["s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    resources = [for name in each.value.writes : "${aws_s3_bucket.this[name].arn}/*"]
  }
  statement {
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [aws_kms_key.this.arn]
  }
}

resource "aws_iam_role_policy" "buckets" {
  for_each = data.aws_iam_policy_document.buckets
  name     = "buckets"
  role     = aws_iam_role.account[each.key].name
  policy   = each.value.json
}

data "aws_iam_policy_document" "secrets" {
  statement {
    actions = ["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"]
    resources = concat([for secret in aws_secretsmanager_secret.this : secret.arn], [
      aws_secretsmanager_secret.oidc.arn, aws_secretsmanager_secret.certificate.arn, aws_secretsmanager_secret.authority.arn
    ])
  }
  statement {
    actions   = ["kms:Decrypt"]
    resources = [aws_kms_key.this.arn]
  }
}

resource "aws_iam_role_policy" "secrets" {
  name   = "secrets"
  role   = aws_iam_role.account["secrets"].name
  policy = data.aws_iam_policy_document.secrets.json
}
