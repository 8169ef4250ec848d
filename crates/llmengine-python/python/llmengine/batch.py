"""Many rows, each answered exactly once."""

import json
import os
from dataclasses import dataclass
from typing import Any, Callable, Optional, Sequence, Union

from . import _native
from ._defaults import in_seconds
from .api_engine import get_api_key, get_base_path

Path = Union[str, "os.PathLike[str]"]


@dataclass(frozen=True)
class BatchResult:
    """How a run ended.

    `end` is `complete`, or why it is not: `stopped`, `deadline`, `most_reached`, `outage`, `hopeless`; `message` says it in words.
    """

    end: str
    message: str
    progress: "_native.Progress"

    @property
    def is_complete(self) -> bool:
        """Whether each row has an answer or an error, and so the output is there."""
        return self.end == "complete"


class Batch:
    """Has the rows of a file answered, and writes one row for each to another file: what `llm-engine batch run` does.

    >>> import llmengine
    >>> batch = llmengine.Batch("prompts.jsonl", "answers.jsonl", model="llama-7b", max_new_tokens=100, temperature=0)
    >>> result = batch.run()  # doctest: +SKIP

    A run that was interrupted, in whatever way, is gone on with by the next `run`, also of another process.
    """

    def __init__(
        self,
        input: Path,
        output: Path,
        *,
        model: Optional[str] = None,
        max_new_tokens: Optional[int] = None,
        temperature: Optional[float] = None,
        base_url: Optional[str] = None,
        api_keys: Optional[Sequence[str]] = None,
        ordered: bool = False,
        concurrency: int = 256,
        max_attempts: int = 6,
        patience: Optional[float] = 3600,
        deadline: Optional[float] = None,
        max_tokens: Optional[int] = None,
        max_usd: Optional[float] = None,
        input_usd_per_million: float = 0.0,
        output_usd_per_million: float = 0.0,
    ) -> None:
        """Nothing is sent before `run`.

        Args:
            input: JSON lines with a `prompt` or `messages` each and an `id` if you like; OpenAI's batch lines; or CSV.
            output: CSV if the name ends so, else JSON lines, of OpenAI's form if the rows are. Its journal is beside it.
            model: The model of rows that name none; as the two following.
            max_new_tokens: The most tokens to generate.
            temperature: 0 for always the likeliest, up to 1.
            base_url: Any OpenAI-compatible server, such as `https://api.openai.com/v1`, instead of LLM Engine's.
            api_keys: All are used at once. By default the one that other calls are made with; with `base_url` that of
                `OPENAI_API_KEY`.
            ordered: Whether rows are in the order of the input, instead of that in which they were done.
            concurrency: The most rows on their way.
            max_attempts: How often a row is tried that fails while others are answered. Refusals don't count.
            patience: Seconds to wait for a server that answers nothing; `None` for ever.
            deadline: Seconds after which a run ends in any case.
            max_tokens: It ends before prompts and answers together have more tokens.
            max_usd: It ends before the answers cost more, by the two prices.
            input_usd_per_million: The price of a million tokens of prompts.
            output_usd_per_million: The price of a million tokens that are generated.
        """
        fields = {"model": model, "max_new_tokens": max_new_tokens, "temperature": temperature}
        if max_usd is not None and not (input_usd_per_million or output_usd_per_million):
            raise ValueError("max_usd needs the prices")
        if api_keys is None:
            api_keys = [get_api_key() if base_url is None else os.environ.get("OPENAI_API_KEY", "")]
        self._run = _native.Run(
            os.fspath(input),
            os.fspath(output),
            base_url=get_base_path() if base_url is None else base_url,
            is_openai=base_url is not None,
            api_keys=list(api_keys),
            defaults=json.dumps({name: value for name, value in fields.items() if value is not None}),
            ordered=ordered,
            concurrency=concurrency,
            max_attempts=max_attempts,
            patience=in_seconds(patience),
            deadline=deadline,
            max_tokens=max_tokens,
            max_nano_usd=None if max_usd is None else round(max_usd * 1e9),
            nano_usd_per_input_token=round(input_usd_per_million * 1e3),
            nano_usd_per_output_token=round(output_usd_per_million * 1e3),
        )

    def run(
        self,
        *,
        retry_failed: bool = False,
        check: Optional[Callable[[str], Optional[str]]] = None,
        on_progress: Optional[Callable[["_native.Progress"], Any]] = None,
    ) -> BatchResult:
        """Runs what is left, until it ends. Ctrl-C ends it at once.

        Args:
            retry_failed: Whether to try the rows again that ended with an error.
            check: Is given each answer's text, and returns what is wrong with it, or `None`. Another one is asked for then.
            on_progress: Is told how far it has come, four times a second.

        Raises:
            ValueError: The journal is of another run, or two rows have one id; nothing was sent.
            OSError: A file can't be read or written. What was done until then is not lost.
        """
        return BatchResult(*self._run.run(retry_failed, check, on_progress))
