# One key encrypts the buckets, the database, the secrets and the cluster's own store.
data "aws_iam_policy_document" "key" {
  #checkov:skip=CKV_AWS_109:the account's administrators keep the key, as AWS advises; roles get theirs in roles.tf
  #checkov:skip=CKV_AWS_111:a key's policy covers this key only
  #checkov:skip=CKV_AWS_356:a key's policy covers this key only
  statement {
    actions   = ["kms:*"]
    resources = ["*"]
    principals {
      type        = "AWS"
      identifiers = ["arn:aws:iam::${data.aws_caller_identity.this.account_id}:root"]
    }
  }
  # A service delivers the flow logs.
  statement {
    actions   = ["kms:GenerateDataKey*", "kms:Decrypt"]
    resources = ["*"]
    principals {
      type        = "Service"
      identifiers = ["delivery.logs.amazonaws.com"]
    }
  }
}

resource "aws_kms_key" "this" {
  description         = var.name
  enable_key_rotation = true
  policy              = data.aws_iam_policy_document.key.json
}

resource "aws_kms_alias" "this" {
  name          = "alias/${var.name}"
  target_key_id = aws_kms_key.this.id
}
