variable "name" {
  description = "Name and tag of every resource; the files of infra/ use hand1000."
  type        = string
  default     = "hand1000"
}

variable "region" {
  description = "A region with A10G machines; us-east-1, us-west-2 and eu-west-1 have all of the GPUs below."
  type        = string
}

variable "zones" {
  description = "Three availability zones of the region, such as us-east-1a; check which of them have the GPUs below."
  type        = list(string)
  validation {
    condition     = length(var.zones) == 3
    error_message = "Name three zones."
  }
}

variable "administrators" {
  description = "Addresses, as CIDR blocks, that may reach the cluster's API."
  type        = list(string)
  validation {
    condition     = !contains(var.administrators, "0.0.0.0/0")
    error_message = "The API is not for the whole internet; name your own addresses."
  }
}

variable "namespaces" {
  description = "Flyte's project-domains, whose tasks may use the role of tasks."
  type        = list(string)
  default     = ["hand1000-development", "hand1000-staging", "hand1000-production"]
}

variable "gpu_pools" {
  description = "GPU node groups: machine, Flyte's name of its GPU, maximum number of machines, whether they are spot."
  type = map(object({
    machine     = string
    accelerator = string
    most        = number
    spot        = bool
  }))
  default = {
    a10g-spot = { machine = "g5.2xlarge", accelerator = "nvidia-a10g", most = 8, spot = true }
    a10g      = { machine = "g5.2xlarge", accelerator = "nvidia-a10g", most = 2, spot = false }
  }
}
