"""Models that are tuned with one's own examples."""

from typing import Any, Dict, Optional, Union

from .api_engine import APIEngine
from .data_types import (
    CancelFineTuneResponse,
    CreateFineTuneRequest,
    CreateFineTuneResponse,
    GetFineTuneEventsResponse,
    GetFineTuneResponse,
    ListFineTunesResponse,
)


class FineTune(APIEngine):
    """Tunes models. A server without a GPU cluster says so, by `ServerError` with status 501."""

    @classmethod
    def create(
        cls,
        model: str,
        training_file: str,
        validation_file: Optional[str] = None,
        hyperparameters: Optional[Dict[str, Union[str, int, float]]] = None,
        wandb_config: Optional[Dict[str, Any]] = None,
        suffix: Optional[str] = None,
    ) -> CreateFineTuneResponse:
        """Begins to tune `model` with the examples in `training_file`."""
        request = CreateFineTuneRequest(
            model=model,
            training_file=training_file,
            validation_file=validation_file,
            hyperparameters=hyperparameters,
            wandb_config=wandb_config,
            suffix=suffix,
        )
        return CreateFineTuneResponse.parse_obj(cls.post_sync("v1/llm/fine-tunes", request.dict()))

    @classmethod
    def get(cls, fine_tune_id: str) -> GetFineTuneResponse:
        """How far it is."""
        return GetFineTuneResponse.parse_obj(cls._get(f"v1/llm/fine-tunes/{fine_tune_id}"))

    @classmethod
    def list(cls) -> ListFineTunesResponse:
        """All of them."""
        return ListFineTunesResponse.parse_obj(cls._get("v1/llm/fine-tunes"))

    @classmethod
    def cancel(cls, fine_tune_id: str) -> CancelFineTuneResponse:
        """Ends it."""
        return CancelFineTuneResponse.parse_obj(cls.put(f"v1/llm/fine-tunes/{fine_tune_id}/cancel", None))

    @classmethod
    def get_events(cls, fine_tune_id: str) -> GetFineTuneEventsResponse:
        """What has happened in it."""
        return GetFineTuneEventsResponse.parse_obj(cls._get(f"v1/llm/fine-tunes/{fine_tune_id}/events"))
