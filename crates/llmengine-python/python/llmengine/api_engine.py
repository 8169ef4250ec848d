"""Where the server is, the key, and the calls that everything else is made of."""

import json
import os
import uuid
from functools import wraps
from typing import IO, Any, AsyncIterable, Callable, Dict, Iterator, List, Optional, Tuple, TypeVar, Union
from urllib.parse import parse_qsl, urljoin, urlsplit

from . import _native
from ._calls import AsyncStream, Stream, aopen, asend, send
from ._defaults import defaults, in_seconds

F = TypeVar("F", bound=Callable[..., Any])

SPELLBOOK_API_URL = "https://api.spellbook.scale.com/llm-engine/"
"""Where the published client calls if nobody says otherwise. This one calls `DEFAULT_BASE_PATH`."""
DEFAULT_BASE_PATH = "http://127.0.0.1:5000"
"""Where `make run` serves."""
DEFAULT_TIMEOUT: int = 10
"""The published client's, for calls that are no completions."""
DEFAULT_KEY = "root"

base_path: Optional[str] = None
api_key: Optional[str] = None


def set_base_path(path: Optional[str]) -> None:
    """Calls go to this server from now on; `None` for the one of `LLM_ENGINE_BASE_PATH`."""
    global base_path
    base_path = path


def get_base_path() -> str:
    """Where calls go: what was set, or `LLM_ENGINE_BASE_PATH`, or `DEFAULT_BASE_PATH`."""
    if base_path is not None:
        return base_path
    return os.getenv("LLM_ENGINE_BASE_PATH", DEFAULT_BASE_PATH)


def set_api_key(key: Optional[str]) -> None:
    """Calls are made with this key from now on; `None` for the one of `SCALE_API_KEY`."""
    global api_key
    api_key = key


def get_api_key() -> str:
    """What calls are made with: what was set, or `SCALE_API_KEY`, or `root`."""
    if api_key is not None:
        return api_key
    return os.getenv("SCALE_API_KEY") or DEFAULT_KEY


def assert_self_hosted(func: F) -> F:
    """Lets a method be called only for servers of one's own."""

    @wraps(func)
    def inner(*args: Any, **kwargs: Any) -> Any:
        if SPELLBOOK_API_URL == get_base_path():
            raise ValueError("This feature is only available for self-hosted users.")
        return func(*args, **kwargs)

    return inner  # type: ignore[return-value]


class APIEngine:
    """The calls that everything else is made of.

    All take `timeout`, in seconds for the call in all, and `max_retries`. The server's answer is returned as its JSON says;
    whatever else comes of it is raised, as one of `llmengine.errors`.
    """

    @classmethod
    def validate_api_key(cls) -> None:
        """Raises `ValueError` if there is no key."""
        if not get_api_key():
            raise ValueError("there is no API key: set SCALE_API_KEY, or call set_api_key")

    @classmethod
    def _get(
        cls,
        resource_name: str,
        timeout: Optional[float] = None,
        headers: Optional[Dict[str, str]] = None,
        max_retries: Optional[int] = None,
    ) -> Any:
        return send(_call("GET", resource_name, None, timeout, headers, max_retries))

    @classmethod
    def put(
        cls,
        resource_name: str,
        data: Optional[Dict[str, Any]],
        timeout: Optional[float] = None,
        headers: Optional[Dict[str, str]] = None,
        max_retries: Optional[int] = None,
    ) -> Any:
        """Puts JSON there."""
        return send(_call("PUT", resource_name, _json(data), timeout, headers, max_retries))

    @classmethod
    def _delete(
        cls,
        resource_name: str,
        timeout: Optional[float] = None,
        headers: Optional[Dict[str, str]] = None,
        max_retries: Optional[int] = None,
    ) -> Any:
        return send(_call("DELETE", resource_name, None, timeout, headers, max_retries))

    @classmethod
    def post_sync(
        cls,
        resource_name: str,
        data: Dict[str, Any],
        timeout: Optional[float] = None,
        headers: Optional[Dict[str, str]] = None,
        max_retries: Optional[int] = None,
    ) -> Any:
        """Posts JSON."""
        return send(_call("POST", resource_name, _json(data), timeout, headers, max_retries))

    @classmethod
    def post_stream(
        cls,
        resource_name: str,
        data: Dict[str, Any],
        timeout: Optional[float] = None,
        headers: Optional[Dict[str, str]] = None,
        max_retries: Optional[int] = None,
    ) -> Iterator[Any]:
        """Posts JSON, and iterates over the events of the answer. Returns when the first text is there."""
        return Stream(_call("POST", resource_name, _json(data), timeout, headers, max_retries).open())

    @classmethod
    def post_file(
        cls,
        resource_name: str,
        files: Dict[str, IO[Any]],
        timeout: Optional[float] = None,
        headers: Optional[Dict[str, str]] = None,
        max_retries: Optional[int] = None,
    ) -> Any:
        """Posts files as a form."""
        content_type, body = _form(files)
        headers = {**(headers or {}), "content-type": content_type}
        return send(_call("POST", resource_name, body, timeout, headers, max_retries))

    @classmethod
    async def apost_sync(
        cls,
        resource_name: str,
        data: Dict[str, Any],
        timeout: Optional[float] = None,
        headers: Optional[Dict[str, str]] = None,
        max_retries: Optional[int] = None,
    ) -> Any:
        """As `post_sync`, for an event loop."""
        return await asend(_call("POST", resource_name, _json(data), timeout, headers, max_retries))

    @classmethod
    async def apost_stream(
        cls,
        resource_name: str,
        data: Dict[str, Any],
        timeout: Optional[float] = None,
        headers: Optional[Dict[str, str]] = None,
        max_retries: Optional[int] = None,
    ) -> AsyncIterable[Any]:
        """As `post_stream`, for an event loop: iterated with `async for`."""
        call = _call("POST", resource_name, _json(data), timeout, headers, max_retries)
        stream: AsyncStream[Any] = AsyncStream(await aopen(call))
        async with stream:
            async for piece in stream:
                yield piece


def _call(
    method: str,
    resource_name: str,
    body: Optional[bytes],
    timeout: Optional[float],
    headers: Optional[Dict[str, str]],
    max_retries: Optional[int],
) -> _native.Call:
    url = urlsplit(urljoin(get_base_path(), resource_name))
    query: List[Tuple[str, str]] = parse_qsl(url.query, keep_blank_values=True)
    generates = dict(query).get("model_endpoint_name") if method == "POST" else None
    if max_retries is None:
        max_retries = defaults.max_retries
    if timeout is None:
        timeout = defaults.short_timeout if generates is None else defaults.timeout
    return _native.Call(
        f"{url.scheme}://{url.netloc}" if url.netloc else get_base_path(),
        get_api_key(),
        method,
        url.path,
        query=query,
        headers=list((headers or {}).items()),
        body=body,
        model=generates,
        timeout=in_seconds(timeout),
        max_retries=max(0, max_retries),
    )


def _json(data: Any) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


def _form(files: Dict[str, IO[Any]]) -> Tuple[str, bytes]:
    boundary = uuid.uuid4().hex
    parts = []
    for name, file in files.items():
        content: Union[str, bytes] = file.read()
        content = content.encode() if isinstance(content, str) else content
        filename = os.path.basename(str(getattr(file, "name", name))).replace('"', "%22")
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n\r\n'
        parts.append(head.encode() + content + b"\r\n")
    return f"multipart/form-data; boundary={boundary}", b"".join(parts) + f"--{boundary}--\r\n".encode()
