output "endpoints" {
  description = "Addresses of the API, one for each controller: the value of WEFT_ENDPOINT, with commas between."
  value       = [for number in sort(keys(local.members)) : "http://${aws_network_interface.controller[number].private_ip}:${local.api_port}"]
}

output "token_parameter" {
  description = "Name of the SecureString that holds the token of the API: the value of WEFT_TOKEN."
  value       = "${local.parameters}/token"
}

output "authority_parameter" {
  description = "Name of the SecureString that holds the authority of the cluster's certificates."
  value       = "${local.parameters}/authority"
}

output "environment" {
  description = "Shell line that makes `weft` use this cluster, for who may read the token."
  value = format(
    "export WEFT_ENDPOINT='%s' WEFT_TOKEN=\"$(aws ssm get-parameter --region %s --name '%s' --with-decryption --query Parameter.Value --output text)\"",
    join(",", [for number in sort(keys(local.members)) : "http://${aws_network_interface.controller[number].private_ip}:${local.api_port}"]),
    local.region,
    "${local.parameters}/token",
  )
}

output "bucket" {
  description = "Bucket of the store."
  value       = aws_s3_bucket.store.bucket
}

output "kms_key_arn" {
  description = "Key by which the bucket is encrypted."
  value       = aws_kms_key.store.arn
}

output "controller_instance_ids" {
  description = "Instances of the controllers, by number."
  value       = { for number, instance in aws_instance.controller : number => instance.id }
}

output "controller_security_group_id" {
  description = "Security group of the controllers."
  value       = aws_security_group.controllers.id
}

output "node_security_group_id" {
  description = "Security group of the nodes."
  value       = aws_security_group.nodes.id
}

output "node_role_arn" {
  description = "Role of the nodes, for policies of buckets in other accounts."
  value       = aws_iam_role.nodes.arn
}

output "node_group_names" {
  description = "Auto Scaling groups, by the names in `node_groups`."
  value       = { for name, group in aws_autoscaling_group.nodes : name => group.name }
}
