terraform {
  # Only the provider that Terraform has built in is used: nothing is downloaded.
  required_version = ">= 1.9"
}
