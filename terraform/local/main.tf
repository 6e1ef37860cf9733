# A cluster of processes on this machine, by `weft cluster`.

locals {
  dir    = abspath(var.dir)
  script = abspath("${path.module}/cluster.sh")
}

resource "terraform_data" "cluster" {
  # `destroy` sees nothing but this, so it holds all that the script needs.
  input = {
    weft   = var.weft
    script = local.script
    dir    = local.dir
  }

  # `weft cluster up` fixes these when it makes a cluster.
  triggers_replace = {
    dir         = local.dir
    controllers = var.controllers
    nodes       = var.nodes
    slots       = var.slots
  }

  provisioner "local-exec" {
    command = "sh \"$SCRIPT\" up"
    environment = {
      SCRIPT      = self.input.script
      WEFT        = self.input.weft
      DIR         = self.input.dir
      CONTROLLERS = var.controllers
      NODES       = var.nodes
      SLOTS       = var.slots
    }
  }

  provisioner "local-exec" {
    when    = destroy
    command = "sh \"$SCRIPT\" down"
    environment = {
      SCRIPT = self.input.script
      WEFT   = self.input.weft
      DIR    = self.input.dir
    }
  }
}

locals {
  # Written by `cluster.sh up`. Its path is known only once the cluster runs, so that it is read after that.
  status_file = "${terraform_data.cluster.output.dir}/terraform.json"
  status      = try(jsondecode(file(local.status_file)), { cluster = "", endpoints = [], token_file = "", processes = [] })
}
