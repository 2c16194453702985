# One PostgreSQL for Flyte and MLflow, each with its own database and user (infra/README.md creates them).
resource "aws_db_subnet_group" "this" {
  name       = var.name
  subnet_ids = [for subnet in aws_subnet.private : subnet.id]
}

resource "aws_security_group" "database" {
  name        = "${var.name}-database"
  description = "PostgreSQL from the cluster's pods"
  vpc_id      = aws_vpc.this.id
}

resource "aws_vpc_security_group_ingress_rule" "database" {
  description                  = "the nodes"
  security_group_id            = aws_security_group.database.id
  referenced_security_group_id = aws_eks_cluster.this.vpc_config[0].cluster_security_group_id
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
}

resource "aws_db_parameter_group" "this" {
  name   = var.name
  family = "postgres17"
  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }
  parameter {
    name  = "log_min_duration_statement"
    value = "1000"
  }
  parameter {
    name  = "log_statement"
    value = "ddl"
  }
}

resource "aws_db_instance" "this" {
  #checkov:skip=CKV_AWS_157:one zone; an hour without schedules costs less than a second machine
  #checkov:skip=CKV_AWS_118:the standard metrics suffice for these two clients
  #checkov:skip=CKV_AWS_353:the standard metrics suffice for these two clients
  identifier                          = var.name
  engine                              = "postgres"
  engine_version                      = "17"
  instance_class                      = "db.t4g.medium"
  allocated_storage                   = 20
  max_allocated_storage               = 200
  storage_encrypted                   = true
  kms_key_id                          = aws_kms_key.this.arn
  username                            = "postgres"
  manage_master_user_password         = true
  master_user_secret_kms_key_id       = aws_kms_key.this.id
  db_subnet_group_name                = aws_db_subnet_group.this.name
  parameter_group_name                = aws_db_parameter_group.this.name
  vpc_security_group_ids              = [aws_security_group.database.id]
  iam_database_authentication_enabled = true
  auto_minor_version_upgrade          = true
  backup_retention_period             = 14
  copy_tags_to_snapshot               = true
  deletion_protection                 = true
  enabled_cloudwatch_logs_exports     = ["postgresql"]
  final_snapshot_identifier           = "${var.name}-last"
}

# The secrets that External Secrets copies. Terraform generates the passwords; nobody has to see them.
locals {
  secrets = {
    flyte-database = ["password"]
    mlflow         = ["password", "admin_password", "secret_key", "webhook_key"]
    mlflow-tasks   = ["username", "password"]
    flyte-auth     = ["client_secret", "client_secret_hash"]
  }
  fixed = { "mlflow-tasks/username" = "pipeline" }
}

resource "random_password" "this" {
  for_each = toset(flatten([for secret, keys in local.secrets : [for key in keys : "${secret}/${key}"]]))
  length   = 32
  special  = false
}

resource "aws_secretsmanager_secret" "this" {
  #checkov:skip=CKV2_AWS_57:rotated manually, together with the database's users (infra/README.md)
  for_each   = local.secrets
  name       = "${var.name}/${each.key}"
  kms_key_id = aws_kms_key.this.arn
}

resource "aws_secretsmanager_secret_version" "this" {
  for_each  = local.secrets
  secret_id = aws_secretsmanager_secret.this[each.key].id
  secret_string = jsonencode({
    for key in each.value : key => lookup(local.fixed, "${each.key}/${key}", key == "client_secret_hash" ?
      random_password.this["${each.key}/client_secret"].bcrypt_hash : random_password.this["${each.key}/${key}"].result
    )
  })
}

# The secret of Flyte's client at your identity provider; infra/README.md has the command that stores it.
resource "aws_secretsmanager_secret" "oidc" {
  #checkov:skip=CKV2_AWS_57:rotated at the identity provider
  name       = "${var.name}/flyte-oidc"
  kms_key_id = aws_kms_key.this.arn
}
