"""Models that a server offers."""

from typing import Any, Dict, List, Optional

from .._record import Record
from .core import (
    CallbackAuth,
    CpuSpecificationType,
    GpuType,
    LLMInferenceFramework,
    LLMSource,
    ModelEndpointStatus,
    ModelEndpointType,
    Quantization,
    StorageSpecificationType,
)
from .rest import GetModelEndpointResponse
from .vllm import VLLMEndpointAdditionalArgs


class CreateLLMEndpointRequest(VLLMEndpointAdditionalArgs):
    """Asks for a model to be offered."""

    name: str
    model_name: str
    source: LLMSource = LLMSource.HUGGING_FACE
    inference_framework: LLMInferenceFramework = LLMInferenceFramework.VLLM
    inference_framework_image_tag: str = "latest"
    num_shards: int = 1
    quantize: Optional[Quantization] = None
    checkpoint_path: Optional[str] = None
    metadata: Dict[str, Any]
    post_inference_hooks: Optional[List[str]] = None
    endpoint_type: ModelEndpointType = ModelEndpointType.STREAMING
    cpus: Optional[CpuSpecificationType] = None
    gpus: Optional[int] = None
    memory: Optional[StorageSpecificationType] = None
    gpu_type: Optional[GpuType] = None
    storage: Optional[StorageSpecificationType] = None
    nodes_per_worker: Optional[int] = None
    optimize_costs: Optional[bool] = None
    min_workers: int
    max_workers: int
    per_worker: int
    labels: Dict[str, str]
    prewarm: Optional[bool] = None
    high_priority: Optional[bool] = None
    billing_tags: Optional[Dict[str, Any]] = None
    default_callback_url: Optional[str] = None
    default_callback_auth: Optional[CallbackAuth] = None
    public_inference: Optional[bool] = True
    chat_template_override: Optional[str] = None


class CreateLLMEndpointResponse(Record):
    """The endpoint is being made."""

    endpoint_creation_task_id: str


class GetLLMEndpointResponse(Record):
    """A model that a server offers."""

    id: Optional[str] = None
    name: str
    model_name: Optional[str] = None
    source: LLMSource
    status: ModelEndpointStatus
    inference_framework: LLMInferenceFramework
    inference_framework_tag: Optional[str] = None
    num_shards: Optional[int] = None
    quantize: Optional[Quantization] = None
    spec: Optional[GetModelEndpointResponse] = None
    chat_template_override: Optional[str] = None


class ListLLMEndpointsResponse(Record):
    """The models that a server offers."""

    model_endpoints: List[GetLLMEndpointResponse]


class UpdateLLMEndpointRequest(VLLMEndpointAdditionalArgs):
    """Asks for a model to be offered otherwise."""

    model_name: Optional[str] = None
    source: Optional[LLMSource] = None
    inference_framework_image_tag: Optional[str] = None
    num_shards: Optional[int] = None
    quantize: Optional[Quantization] = None
    checkpoint_path: Optional[str] = None
    metadata: Optional[Dict[str, Any]] = None
    post_inference_hooks: Optional[List[str]] = None
    cpus: Optional[CpuSpecificationType] = None
    gpus: Optional[int] = None
    memory: Optional[StorageSpecificationType] = None
    gpu_type: Optional[GpuType] = None
    storage: Optional[StorageSpecificationType] = None
    optimize_costs: Optional[bool] = None
    min_workers: Optional[int] = None
    max_workers: Optional[int] = None
    per_worker: Optional[int] = None
    labels: Optional[Dict[str, str]] = None
    prewarm: Optional[bool] = None
    high_priority: Optional[bool] = None
    billing_tags: Optional[Dict[str, Any]] = None
    default_callback_url: Optional[str] = None
    default_callback_auth: Optional[CallbackAuth] = None
    public_inference: Optional[bool] = None
    chat_template_override: Optional[str] = None
    force_bundle_recreation: Optional[bool] = False


class UpdateLLMEndpointResponse(Record):
    """The endpoint is being changed."""

    endpoint_creation_task_id: str


class DeleteLLMEndpointResponse(Record):
    """Whether the endpoint was deleted."""

    deleted: bool
