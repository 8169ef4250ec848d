"""Model endpoints in detail, fine-tunes, files."""

import datetime
from enum import Enum
from typing import Any, Dict, List, Optional

from .._record import Record, field
from .core import (
    CallbackAuth,
    CpuSpecificationType,
    GpuType,
    ModelEndpointStatus,
    ModelEndpointType,
    StorageSpecificationType,
)


class ModelEndpointDeploymentState(Record):
    """How many workers an endpoint has, and may have."""

    min_workers: int = field(ge=0)
    max_workers: int = field(ge=0)
    per_worker: int = field(gt=0)
    concurrent_requests_per_worker: int = field(gt=0)
    available_workers: Optional[int] = field(None, ge=0)
    unavailable_workers: Optional[int] = field(None, ge=0)


class ModelEndpointResourceState(Record):
    """What each worker of an endpoint has."""

    cpus: CpuSpecificationType
    gpus: int = field(ge=0)
    memory: StorageSpecificationType
    gpu_type: Optional[GpuType] = None
    storage: Optional[StorageSpecificationType] = None
    nodes_per_worker: int = field(ge=1)
    optimize_costs: Optional[bool] = None


class GetModelEndpointResponse(Record):
    """An endpoint in detail."""

    id: str
    name: str
    endpoint_type: ModelEndpointType
    destination: str
    deployment_name: Optional[str] = None
    metadata: Optional[Dict[str, Any]] = None
    bundle_name: str
    status: ModelEndpointStatus
    post_inference_hooks: Optional[List[str]] = None
    default_callback_url: Optional[str] = None
    default_callback_auth: Optional[CallbackAuth] = None
    labels: Optional[Dict[str, str]] = None
    aws_role: Optional[str] = None
    results_s3_bucket: Optional[str] = None
    created_by: str
    created_at: datetime.datetime
    last_updated_at: datetime.datetime
    deployment_state: Optional[ModelEndpointDeploymentState] = None
    resource_state: Optional[ModelEndpointResourceState] = None
    num_queued_items: Optional[int] = None
    public_inference: Optional[bool] = None


class PostInferenceHooks(str, Enum):
    """What happens after an answer."""

    CALLBACK = "callback"


class CreateFineTuneRequest(Record):
    """Asks for a model to be tuned."""

    model: str
    training_file: str
    validation_file: Optional[str] = None
    hyperparameters: Optional[Dict[str, Any]] = None
    wandb_config: Optional[Dict[str, Any]] = None
    suffix: Optional[str] = None


class CreateFineTuneResponse(Record):
    """The tuning is accepted."""

    id: str


class BatchJobStatus(str, Enum):
    """How far a job is."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    CANCELLED = "CANCELLED"
    UNDEFINED = "UNDEFINED"
    TIMEOUT = "TIMEOUT"


class GetFineTuneResponse(Record):
    """A tuning, and the model that came of it."""

    id: str
    fine_tuned_model: Optional[str] = None
    status: BatchJobStatus


class ListFineTunesResponse(Record):
    """Tunings."""

    jobs: List[GetFineTuneResponse]


class CancelFineTuneResponse(Record):
    """Whether a tuning was ended."""

    success: bool


class LLMFineTuneEvent(Record):
    """What happened in a tuning, and when."""

    timestamp: Optional[float] = None
    message: str
    level: str


class GetFineTuneEventsResponse(Record):
    """All that happened in a tuning."""

    events: List[LLMFineTuneEvent]


class ModelDownloadRequest(Record):
    """Asks for where a model can be fetched."""

    model_name: str
    download_format: Optional[str] = "hugging_face"


class ModelDownloadResponse(Record):
    """Where the files of a model can be fetched, by their names."""

    urls: Dict[str, str]


class UploadFileResponse(Record):
    """The file is there."""

    id: str


class GetFileResponse(Record):
    """A file. Its size is in characters."""

    id: str
    filename: str
    size: int


class ListFilesResponse(Record):
    """Files."""

    files: List[GetFileResponse]


class DeleteFileResponse(Record):
    """Whether a file was deleted."""

    deleted: bool


class GetFileContentResponse(Record):
    """What is in a file."""

    id: str
    content: str
