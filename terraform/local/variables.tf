variable "weft" {
  description = "The weft binary: an absolute path, or a name in PATH."
  type        = string
  default     = "weft"

  validation {
    condition     = can(regex("^(/.+|[^/]+)$", var.weft))
    error_message = "`weft` must be an absolute path, or a name in PATH: with -chdir, relative paths mean another folder."
  }
}

variable "dir" {
  description = "Folder of the cluster, relative to that of this module. It must not exist before; `destroy` removes it."
  type        = string
  default     = "cluster"

  validation {
    condition     = var.dir != "" && var.dir != "/"
    error_message = "`dir` must name a folder of its own, which does not exist yet."
  }
}

variable "controllers" {
  description = "Controllers, 1 to 9: of three one may be lost, of five two. A change makes a new cluster, without the data of the old one."
  type        = number
  default     = 3

  validation {
    condition     = floor(var.controllers) == var.controllers && var.controllers >= 1 && var.controllers <= 9
    error_message = "`controllers` must be a whole number from 1 to 9."
  }
}

variable "nodes" {
  description = "Nodes, 1 to 64. A change makes a new cluster, without the data of the old one."
  type        = number
  default     = 2

  validation {
    condition     = floor(var.nodes) == var.nodes && var.nodes >= 1 && var.nodes <= 64
    error_message = "`nodes` must be a whole number from 1 to 64."
  }
}

variable "slots" {
  description = "Tasks that each node runs at a time, 1 to 1,024. A change makes a new cluster, without the data of the old one."
  type        = number
  default     = 1

  validation {
    condition     = floor(var.slots) == var.slots && var.slots >= 1 && var.slots <= 1024
    error_message = "`slots` must be a whole number from 1 to 1024."
  }
}
