# The certificate of MLflow within the cluster, so that passwords and models do not travel as plain text. `terraform apply`
# renews it in its last 60 days; restart MLflow then.
resource "tls_private_key" "authority" {
  algorithm   = "ECDSA"
  ecdsa_curve = "P256"
}

resource "tls_self_signed_cert" "authority" {
  private_key_pem       = tls_private_key.authority.private_key_pem
  is_ca_certificate     = true
  validity_period_hours = 10 * 365 * 24
  allowed_uses          = ["cert_signing", "crl_signing"]
  subject { common_name = "${var.name} cluster" }
}

resource "tls_private_key" "mlflow" {
  algorithm   = "ECDSA"
  ecdsa_curve = "P256"
}

resource "tls_cert_request" "mlflow" {
  private_key_pem = tls_private_key.mlflow.private_key_pem
  dns_names       = ["mlflow.mlflow.svc.cluster.local", "mlflow.mlflow.svc"]
  subject { common_name = "mlflow.mlflow.svc.cluster.local" }
}

resource "tls_locally_signed_cert" "mlflow" {
  cert_request_pem      = tls_cert_request.mlflow.cert_request_pem
  ca_private_key_pem    = tls_private_key.authority.private_key_pem
  ca_cert_pem           = tls_self_signed_cert.authority.cert_pem
  validity_period_hours = 365 * 24
  early_renewal_hours   = 60 * 24
  allowed_uses          = ["digital_signature", "key_encipherment", "server_auth"]
}

resource "aws_secretsmanager_secret" "certificate" {
  #checkov:skip=CKV2_AWS_57:renewed by terraform apply
  name       = "${var.name}/mlflow-certificate"
  kms_key_id = aws_kms_key.this.arn
}

resource "aws_secretsmanager_secret_version" "certificate" {
  secret_id = aws_secretsmanager_secret.certificate.id
  secret_string = jsonencode({
    "tls.crt" = tls_locally_signed_cert.mlflow.cert_pem
    "tls.key" = tls_private_key.mlflow.private_key_pem
  })
}

# What tasks check that certificate with; it holds no key.
resource "aws_secretsmanager_secret" "authority" {
  #checkov:skip=CKV2_AWS_57:renewed by terraform apply
  name       = "${var.name}/mlflow-authority"
  kms_key_id = aws_kms_key.this.arn
}

resource "aws_secretsmanager_secret_version" "authority" {
  secret_id     = aws_secretsmanager_secret.authority.id
  secret_string = jsonencode({ "ca.crt" = tls_self_signed_cert.authority.cert_pem })
}
