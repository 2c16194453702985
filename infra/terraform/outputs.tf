output "account" {
  description = "Value of ACCOUNT in the files of infra/."
  value       = data.aws_caller_identity.this.account_id
}

output "region" {
  description = "Value of REGION in the files of infra/."
  value       = var.region
}

output "database_host" {
  description = "Value of DATABASE_HOST in the files of infra/."
  value       = aws_db_instance.this.address
}

output "database_master_secret" {
  description = "Secret of the user postgres in Secrets Manager."
  value       = aws_db_instance.this.master_user_secret[0].secret_arn
}

output "cluster" {
  value = aws_eks_cluster.this.name
}
