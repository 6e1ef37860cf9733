# Variables that are refused, and what the module makes of others. Nothing of AWS is asked.

mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { region = "eu-central-1" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_ssm_parameter" {
    defaults = { insecure_value = "ami-1" }
  }
}

override_data {
  target = data.aws_subnet.of[0]
  values = { id = "subnet-a", vpc_id = "vpc-1", availability_zone = "eu-central-1a" }
}

override_data {
  target = data.aws_subnet.of[1]
  values = { id = "subnet-b", vpc_id = "vpc-1", availability_zone = "eu-central-1b" }
}

override_data {
  target = data.aws_subnet.of[2]
  values = { id = "subnet-c", vpc_id = "vpc-1", availability_zone = "eu-central-1c" }
}

variables {
  name       = "blue"
  vpc_id     = "vpc-1"
  subnet_ids = ["subnet-a", "subnet-b", "subnet-c"]
  weft = {
    url    = "s3://releases/weft"
    sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
  }
}

run "applies_in_the_mock" {
  command = apply

  assert {
    condition     = length(output.endpoints) == 3 && length(output.controller_instance_ids) == 3
    error_message = "there are three controllers"
  }
  assert {
    condition     = output.node_group_names == { general = "weft-blue-general" }
    error_message = "there is one group of nodes"
  }
}

run "names_are_narrow" {
  command = plan
  variables {
    name = "Blue_1"
  }
  expect_failures = [var.name]
}

run "two_subnets_are_too_few" {
  command = plan
  variables {
    subnet_ids = ["subnet-a", "subnet-b"]
  }
  expect_failures = [var.subnet_ids]
}

run "the_binary_has_a_digest" {
  command = plan
  variables {
    weft = { url = "http://example.com/weft", sha256 = "latest" }
  }
  expect_failures = [var.weft]
}

run "even_numbers_of_controllers_are_refused" {
  command = plan
  variables {
    controllers = 4
  }
  expect_failures = [var.controllers]
}

run "groups_stay_under_the_cap" {
  command = plan
  variables {
    max_nodes = 12
    node_groups = {
      a = { instance_types = ["m7i.large"], slots = 2, max_nodes = 8 }
      b = { instance_types = ["m7i.large"], slots = 2, max_nodes = 5 }
    }
  }
  expect_failures = [var.node_groups]
}

run "the_world_is_refused" {
  command = plan
  variables {
    client_cidr_blocks = ["0.0.0.0/0"]
  }
  expect_failures = [var.client_cidr_blocks]
}

run "stores_have_plain_names" {
  command = plan
  variables {
    data_stores = { region = { bucket = "lake" } }
  }
  expect_failures = [var.data_stores]
}
