output "cluster" {
  description = "Name of the cluster."
  value       = local.status.cluster
}

output "dir" {
  description = "Folder of the cluster: data, settings and logs of all processes."
  value       = terraform_data.cluster.output.dir
}

output "endpoints" {
  description = "Addresses of the API, one for each controller."
  value       = local.status.endpoints
}

output "token_file" {
  description = "File with the token of the API. The token itself is not in the state."
  value       = local.status.token_file
}

output "logs" {
  description = "Log files of the processes, by name."
  value       = { for process in local.status.processes : process.name => process.log }
}

output "environment" {
  description = "Shell line that makes `weft` use this cluster: eval \"$(terraform output -raw environment)\"."
  value = format("export WEFT_ENDPOINT='%s' WEFT_TOKEN=\"$(cat '%s')\"",
    join(",", local.status.endpoints),
    local.status.token_file,
  )
}

output "curl" {
  description = "Shell line that asks a controller for the state of the cluster."
  value = format("curl --silent --header \"Authorization: Bearer $(cat '%s')\" %s/v1/cluster",
    local.status.token_file,
    try(local.status.endpoints[0], ""),
  )
}
