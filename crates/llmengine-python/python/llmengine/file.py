"""Files on the server."""

from typing import IO, Any

from ._defaults import defaults
from .api_engine import APIEngine
from .data_types import (
    DeleteFileResponse,
    GetFileContentResponse,
    GetFileResponse,
    ListFilesResponse,
    UploadFileResponse,
)


class File(APIEngine):
    """Files on the server."""

    @classmethod
    def upload(cls, file: IO[Any]) -> UploadFileResponse:
        """Sends a file that was opened for reading; its id is in the response."""
        response = cls.post_file("v1/files", {"file": file}, timeout=defaults.timeout)
        return UploadFileResponse.parse_obj(response)

    @classmethod
    def get(cls, file_id: str) -> GetFileResponse:
        """Name and size of a file."""
        return GetFileResponse.parse_obj(cls._get(f"v1/files/{file_id}"))

    @classmethod
    def list(cls) -> ListFilesResponse:
        """All files."""
        return ListFilesResponse.parse_obj(cls._get("v1/files"))

    @classmethod
    def delete(cls, file_id: str) -> DeleteFileResponse:
        """Deletes a file."""
        return DeleteFileResponse.parse_obj(cls._delete(f"v1/files/{file_id}"))

    @classmethod
    def download(cls, file_id: str) -> GetFileContentResponse:
        """What is in a file."""
        return GetFileContentResponse.parse_obj(cls._get(f"v1/files/{file_id}/content"))
