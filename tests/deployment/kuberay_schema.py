"""What KubeRay's published API reference (ray.io/v1) allows, as far as our manifests use it.

No package of a registry holds the operator's own schema. Fields are named as there; one that is not
named here is an error, also where KubeRay knows it. Pod templates are checked as Kubernetes' own.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Plain = dict[str, str]
Template = dict[str, Any]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class Metadata(Part):
    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,45}[a-z0-9])?$")  # pods add to it
    labels: Plain = {}


class AuthOptions(Part):
    mode: Literal["disabled", "token"]


class AutoscalerOptions(Part):
    idle_timeout_seconds: int = Field(ge=0)
    resources: dict[str, Plain]
    security_context: dict[str, Any]


class HeadGroup(Part):
    service_type: Literal["ClusterIP", "NodePort", "LoadBalancer"]
    ray_start_params: Plain  # numbers must be quoted
    template: Template


class WorkerGroup(Part):
    group_name: str
    replicas: int = Field(ge=0)
    min_replicas: int = Field(ge=0)
    max_replicas: int = Field(ge=1)
    ray_start_params: Plain
    template: Template


class ClusterSpec(Part):
    ray_version: str
    auth_options: AuthOptions
    enable_in_tree_autoscaling: bool
    autoscaler_options: AutoscalerOptions
    head_group_spec: HeadGroup
    worker_group_specs: list[WorkerGroup]


class RayCluster(Part):
    api_version: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: ClusterSpec


class JobSpec(Part):
    entrypoint: str
    shutdown_after_job_finishes: bool
    ttl_seconds_after_finished: int = Field(ge=0)
    submitter_pod_template: Template
    ray_cluster_spec: ClusterSpec


class RayJob(Part):
    api_version: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: JobSpec
