"""Models that the server offers."""

from typing import Any, Dict, List, Optional

from .api_engine import APIEngine, assert_self_hosted
from .data_types import (
    CreateLLMEndpointRequest,
    CreateLLMEndpointResponse,
    DeleteLLMEndpointResponse,
    GetLLMEndpointResponse,
    GpuType,
    ListLLMEndpointsResponse,
    LLMInferenceFramework,
    LLMSource,
    ModelDownloadRequest,
    ModelDownloadResponse,
    ModelEndpointType,
    PostInferenceHooks,
    Quantization,
    UpdateLLMEndpointRequest,
    UpdateLLMEndpointResponse,
)


class Model(APIEngine):
    """Models that the server offers. What needs a GPU cluster, a server without one refuses: `ServerError`, status 501."""

    @classmethod
    @assert_self_hosted
    def create(
        cls,
        name: str,
        model: str,
        inference_framework_image_tag: str,
        source: LLMSource = LLMSource.HUGGING_FACE,
        inference_framework: LLMInferenceFramework = LLMInferenceFramework.VLLM,
        num_shards: int = 1,
        quantize: Optional[Quantization] = None,
        checkpoint_path: Optional[str] = None,
        max_model_len: Optional[int] = None,
        cpus: Optional[int] = None,
        memory: Optional[str] = None,
        storage: Optional[str] = None,
        gpus: Optional[int] = None,
        nodes_per_worker: int = 1,
        min_workers: int = 0,
        max_workers: int = 1,
        per_worker: int = 2,
        endpoint_type: ModelEndpointType = ModelEndpointType.STREAMING,
        gpu_type: Optional[str] = None,
        high_priority: Optional[bool] = False,
        post_inference_hooks: Optional[List[PostInferenceHooks]] = None,
        default_callback_url: Optional[str] = None,
        public_inference: Optional[bool] = True,
        labels: Optional[Dict[str, str]] = None,
        request_headers: Optional[Dict[str, str]] = None,
        **extra_kwargs: Any,
    ) -> CreateLLMEndpointResponse:
        """Has `model` offered under `name`, by workers that have what is asked for."""
        request = CreateLLMEndpointRequest(
            name=name,
            model_name=model,
            source=source,
            inference_framework=inference_framework,
            inference_framework_image_tag=inference_framework_image_tag,
            num_shards=num_shards,
            quantize=quantize,
            checkpoint_path=checkpoint_path,
            max_model_len=max_model_len,
            cpus=cpus,
            endpoint_type=ModelEndpointType(endpoint_type),
            gpus=gpus,
            gpu_type=None if gpu_type is None else GpuType(gpu_type),
            nodes_per_worker=nodes_per_worker,
            labels=labels or {},
            max_workers=max_workers,
            memory=memory,
            metadata={},
            min_workers=min_workers,
            per_worker=per_worker,
            high_priority=high_priority,
            post_inference_hooks=_names(post_inference_hooks),
            default_callback_url=default_callback_url,
            storage=storage,
            public_inference=public_inference,
            **extra_kwargs,
        )
        response = cls.post_sync("v1/llm/model-endpoints", request.dict(), headers=request_headers)
        return CreateLLMEndpointResponse.parse_obj(response)

    @classmethod
    def get(cls, model: str, request_headers: Optional[Dict[str, str]] = None) -> GetLLMEndpointResponse:
        """A model, and whether it can be called."""
        response = cls._get(f"v1/llm/model-endpoints/{model}", headers=request_headers)
        return GetLLMEndpointResponse.parse_obj(response)

    @classmethod
    def list(cls, request_headers: Optional[Dict[str, str]] = None) -> ListLLMEndpointsResponse:
        """All models."""
        return ListLLMEndpointsResponse.parse_obj(cls._get("v1/llm/model-endpoints", headers=request_headers))

    @classmethod
    @assert_self_hosted
    def update(
        cls,
        name: str,
        model: Optional[str] = None,
        inference_framework_image_tag: Optional[str] = None,
        source: Optional[LLMSource] = None,
        num_shards: Optional[int] = None,
        quantize: Optional[Quantization] = None,
        checkpoint_path: Optional[str] = None,
        cpus: Optional[int] = None,
        memory: Optional[str] = None,
        storage: Optional[str] = None,
        gpus: Optional[int] = None,
        min_workers: Optional[int] = None,
        max_workers: Optional[int] = None,
        per_worker: Optional[int] = None,
        endpoint_type: Optional[ModelEndpointType] = None,
        gpu_type: Optional[str] = None,
        high_priority: Optional[bool] = None,
        post_inference_hooks: Optional[List[PostInferenceHooks]] = None,
        default_callback_url: Optional[str] = None,
        public_inference: Optional[bool] = None,
        labels: Optional[Dict[str, str]] = None,
        request_headers: Optional[Dict[str, str]] = None,
        **extra_kwargs: Any,
    ) -> UpdateLLMEndpointResponse:
        """Has it offered otherwise: what is not given stays as it is."""
        request = UpdateLLMEndpointRequest(
            model_name=model,
            source=source,
            inference_framework_image_tag=inference_framework_image_tag,
            num_shards=num_shards,
            quantize=quantize,
            checkpoint_path=checkpoint_path,
            cpus=cpus,
            gpus=gpus,
            gpu_type=None if gpu_type is None else GpuType(gpu_type),
            labels=labels,
            max_workers=max_workers,
            memory=memory,
            metadata={},
            min_workers=min_workers,
            per_worker=per_worker,
            high_priority=high_priority,
            post_inference_hooks=_names(post_inference_hooks),
            default_callback_url=default_callback_url,
            storage=storage,
            public_inference=public_inference,
            **extra_kwargs,
        )
        response = cls.put(f"v1/llm/model-endpoints/{name}", request.dict(), headers=request_headers)
        return UpdateLLMEndpointResponse.parse_obj(response)

    @classmethod
    def delete(
        cls, model_endpoint_name: str, request_headers: Optional[Dict[str, str]] = None
    ) -> DeleteLLMEndpointResponse:
        """Has it no longer offered."""
        response = cls._delete(f"v1/llm/model-endpoints/{model_endpoint_name}", headers=request_headers)
        return DeleteLLMEndpointResponse.parse_obj(response)

    @classmethod
    def download(cls, model_name: str, download_format: str = "hugging_face") -> ModelDownloadResponse:
        """Where the files of a tuned model can be fetched."""
        request = ModelDownloadRequest(model_name=model_name, download_format=download_format)
        response = cls.post_sync("v1/llm/model-endpoints/download", request.dict())
        return ModelDownloadResponse.parse_obj(response)


def _names(hooks: Optional[List[PostInferenceHooks]]) -> Optional[List[str]]:
    if hooks is None:
        return None
    return [hook.value if isinstance(hook, PostInferenceHooks) else hook for hook in hooks]
