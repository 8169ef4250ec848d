"""Words and parts that several messages use."""

from enum import Enum
from typing import Literal, Union

from .._record import Record

CpuSpecificationType = Union[str, int, float]
StorageSpecificationType = Union[str, int, float]


class LLMInferenceFramework(str, Enum):
    """What runs a model."""

    DEEPSPEED = "deepspeed"
    TEXT_GENERATION_INFERENCE = "text_generation_inference"
    VLLM = "vllm"
    LIGHTLLM = "lightllm"
    TENSORRT_LLM = "tensorrt_llm"


class LLMSource(str, Enum):
    """Where a model comes from."""

    HUGGING_FACE = "hugging_face"


class Quantization(str, Enum):
    """How weights are stored."""

    BITSANDBYTES = "bitsandbytes"
    AWQ = "awq"


class GpuType(str, Enum):
    """What a model runs on."""

    NVIDIA_TESLA_T4 = "nvidia-tesla-t4"
    NVIDIA_AMPERE_A10 = "nvidia-ampere-a10"
    NVIDIA_AMPERE_A100 = "nvidia-ampere-a100"
    NVIDIA_AMPERE_A100E = "nvidia-ampere-a100e"
    NVIDIA_HOPPER_H100 = "nvidia-hopper-h100"
    NVIDIA_HOPPER_H100_1G_20GB = "nvidia-hopper-h100-1g20gb"
    NVIDIA_HOPPER_H100_3G_40GB = "nvidia-hopper-h100-3g40gb"


class ModelEndpointType(str, Enum):
    """How an endpoint answers."""

    STREAMING = "streaming"


class ModelEndpointStatus(str, Enum):
    """How an endpoint is."""

    READY = "READY"
    UPDATE_PENDING = "UPDATE_PENDING"
    UPDATE_IN_PROGRESS = "UPDATE_IN_PROGRESS"
    UPDATE_FAILED = "UPDATE_FAILED"
    DELETE_IN_PROGRESS = "DELETE_IN_PROGRESS"


class CallbackBasicAuth(Record):
    """A name and a password for a callback."""

    kind: Literal["basic"]
    username: str
    password: str


class CallbackmTLSAuth(Record):
    """A certificate for a callback."""

    kind: Literal["mtls"]
    cert: str
    key: str


CallbackAuth = Union[CallbackBasicAuth, CallbackmTLSAuth]


class StreamErrorContent(Record):
    """What went wrong in a stream, and when."""

    error: str
    timestamp: str


class StreamError(Record):
    """An error in place of the next piece of a stream."""

    status_code: int
    content: StreamErrorContent
