variable "name" {
  description = "Name of the cluster. All that the module makes is named after it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,29}$", var.name))
    error_message = "`name` must begin with a letter, and have at most 30 lower-case letters, digits and hyphens."
  }
}

variable "vpc_id" {
  description = "The VPC of the subnets."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets, at least three, in different zones. They need a route to the APIs of AWS, by a NAT gateway or by endpoints."
  type        = list(string)

  validation {
    condition     = length(distinct(var.subnet_ids)) == length(var.subnet_ids) && length(var.subnet_ids) >= 3
    error_message = "`subnet_ids` needs three subnets or more, each once."
  }
}

variable "weft" {
  description = "The binary that machines download when they boot: `s3://bucket/key` or `https://..`, and its SHA-256 in hexadecimal."
  type = object({
    url    = string
    sha256 = string
  })

  validation {
    condition     = can(regex("^(s3://[^/]+/.+|https://.+)$", var.weft.url))
    error_message = "`weft.url` must be `s3://bucket/key` or `https://..`."
  }
  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.weft.sha256))
    error_message = "`weft.sha256` must be the 64 digits that `sha256sum weft` prints."
  }
}

variable "ami_id" {
  description = "Image of all machines: x86-64, with systemd, cloud-init, Python 3.9 or later and the AWS CLI 2. Default: the newest Amazon Linux 2023."
  type        = string
  default     = null
}

variable "root_device_name" {
  description = "Name of the root device in the image."
  type        = string
  default     = "/dev/xvda"
}

variable "controllers" {
  description = "Controllers: 3 survive the loss of one zone, 5 that of two controllers."
  type        = number
  default     = 3

  validation {
    condition     = contains([3, 5], var.controllers)
    error_message = "`controllers` must be 3 or 5."
  }
}

variable "controller_instance_type" {
  description = "Type of the controllers, x86-64."
  type        = string
  default     = "m7i.large"
}

variable "controller_volume_gib" {
  description = "Size of the volume that holds the log and the state of a controller."
  type        = number
  default     = 20

  validation {
    condition     = var.controller_volume_gib >= 10
    error_message = "`controller_volume_gib` must be 10 or more."
  }
}

variable "node_groups" {
  description = <<-EOT
    Groups of nodes, by name. Work fills them in the order of their names, each up to its `max_nodes`.

    - `instance_types`: x86-64 types of about the same size, at least one; more types make spot capacity likelier.
    - `slots`: tasks that a node runs at a time. Scaling reckons with it, so it is not taken from the machine.
    - `max_nodes`: nodes of the group, at most.
    - `min_nodes`: nodes that stay when nothing waits. Invocations need at least one somewhere.
    - `on_demand_base`: nodes that are on demand before any is spot.
    - `on_demand_percent`: share of on-demand nodes above the base, in percent.
    - `volume_gib`: size of the root volume, on which tasks spill.
  EOT
  type = map(object({
    instance_types    = list(string)
    slots             = number
    max_nodes         = number
    min_nodes         = optional(number, 0)
    on_demand_base    = optional(number, 0)
    on_demand_percent = optional(number, 0)
    volume_gib        = optional(number, 100)
  }))
  default = {
    general = {
      instance_types = ["m7i.xlarge", "m7a.xlarge", "m6i.xlarge", "m6a.xlarge"]
      slots          = 4
      max_nodes      = 10
    }
  }

  validation {
    condition     = length(var.node_groups) > 0
    error_message = "`node_groups` needs a group."
  }
  validation {
    condition     = alltrue([for name, _ in var.node_groups : can(regex("^[a-z][a-z0-9-]{0,29}$", name))])
    error_message = "Names of `node_groups` must begin with a letter, and have at most 30 lower-case letters, digits and hyphens."
  }
  validation {
    condition     = alltrue([for _, group in var.node_groups : length(group.instance_types) > 0])
    error_message = "Each of `node_groups` needs at least one of `instance_types`."
  }
  validation {
    condition     = alltrue([for _, group in var.node_groups : group.slots >= 1 && group.slots <= 1024])
    error_message = "`slots` of `node_groups` must be 1 to 1024."
  }
  validation {
    condition     = alltrue([for _, group in var.node_groups : 0 <= group.min_nodes && group.min_nodes <= group.max_nodes])
    error_message = "`min_nodes` of `node_groups` must be from 0 to `max_nodes`."
  }
  validation {
    condition     = alltrue([for _, group in var.node_groups : 0 <= group.on_demand_percent && group.on_demand_percent <= 100])
    error_message = "`on_demand_percent` of `node_groups` must be from 0 to 100."
  }
  validation {
    condition     = sum(concat([0], [for _, group in var.node_groups : group.max_nodes])) <= var.max_nodes
    error_message = "`max_nodes` of all `node_groups` together exceeds `max_nodes`, the cap of the cluster: lower them, or raise it."
  }
}

variable "max_nodes" {
  description = "Hard cap: nodes of all groups together, at most. A mistake in a group's size cannot cost more than this."
  type        = number
  default     = 10

  validation {
    condition     = var.max_nodes >= 1 && var.max_nodes <= 1000
    error_message = "`max_nodes` must be from 1 to 1000."
  }
}

variable "scale_in_minutes" {
  description = "Minutes for which a group must have had a node too many, without a break, before it gives one back."
  type        = number
  default     = 10

  validation {
    condition     = var.scale_in_minutes >= 2 && var.scale_in_minutes <= 60
    error_message = "`scale_in_minutes` must be from 2 to 60."
  }
}

variable "drain_seconds" {
  description = "Seconds for which a node that is given back may work on what it has. A spot node has the two minutes of its notice."
  type        = number
  default     = 600

  validation {
    condition     = var.drain_seconds >= 30 && var.drain_seconds <= 7000
    error_message = "`drain_seconds` must be from 30 to 7000."
  }
}

variable "client_cidr_blocks" {
  description = "Networks from which the API may be used. It is plain HTTP with a token: name networks that you trust."
  type        = set(string)
  default     = []

  validation {
    condition     = !contains(var.client_cidr_blocks, "0.0.0.0/0")
    error_message = "The API must not be open to the world: it is plain HTTP with a token."
  }
}

variable "client_security_group_ids" {
  description = "Security groups of machines that may use the API."
  type        = list(string)
  default     = []
}

variable "data_stores" {
  description = <<-EOT
    Buckets that jobs may use, by the names that they have in the settings.

    - `bucket`, and `prefix` without slashes around it; all of the bucket by default.
    - `region`: that of the bucket, if it is another one.
    - `write`: whether jobs may write there.
    - `kms_key_arn`: the key by which the bucket is encrypted, if it is a key of yours.
  EOT
  type = map(object({
    bucket      = string
    prefix      = optional(string, "")
    region      = optional(string)
    write       = optional(bool, false)
    kms_key_arn = optional(string)
  }))
  default = {}

  validation {
    condition     = alltrue([for name, _ in var.data_stores : can(regex("^[a-z][a-z0-9_-]{0,62}$", name)) && !contains(["url", "endpoint", "region", "roots", "options", "executor_role", "sts_endpoint"], name)])
    error_message = "Names of `data_stores` must be of lower-case letters, digits, `_` and `-`, and none of `url`, `endpoint`, `region`, `roots`, `options`, `executor_role`, `sts_endpoint`."
  }
  validation {
    condition     = alltrue([for _, store in var.data_stores : !startswith(store.prefix, "/") && !endswith(store.prefix, "/")])
    error_message = "`prefix` of `data_stores` must not begin or end with a slash."
  }
}

variable "scoped_executors" {
  description = "Whether executors work with credentials of a role of their own, for an hour and for the prefixes that they need. Nodes must reach STS."
  type        = bool
  default     = false
}

variable "permissions_boundary" {
  description = "ARN of a policy that bounds the roles of the machines, if your organisation wants one."
  type        = string
  default     = null
}

variable "force_destroy" {
  description = "Whether `terraform destroy` may remove the bucket with all that is in it, and the controllers' volumes without a last snapshot."
  type        = bool
  default     = false
}

variable "tags" {
  description = "Tags of everything."
  type        = map(string)
  default     = {}
}
