# Plans only: `apply` needs the binary.

run "defaults" {
  command = plan

  assert {
    condition     = terraform_data.cluster.triggers_replace.controllers == 3 && terraform_data.cluster.triggers_replace.nodes == 2
    error_message = "a cluster has three controllers and two nodes by default"
  }
  assert {
    condition     = terraform_data.cluster.input.dir == abspath("cluster")
    error_message = "the cluster lies beside the module by default"
  }
}

run "a_name_in_path_and_an_absolute_path_are_binaries" {
  command = plan
  variables {
    weft = "/usr/local/bin/weft"
  }
}

run "a_relative_path_is_refused" {
  command = plan
  variables {
    weft = "target/release/weft"
  }
  expect_failures = [var.weft]
}

run "sizes_have_bounds" {
  command = plan
  variables {
    controllers = 10
    nodes       = 0
    slots       = 1.5
  }
  expect_failures = [var.controllers, var.nodes, var.slots]
}

run "the_root_folder_is_refused" {
  command = plan
  variables {
    dir = "/"
  }
  expect_failures = [var.dir]
}
