"""What type checkers say of calls; only checked, never run."""

from typing import AsyncIterator, Iterator, Union, assert_type

from llmengine import Completion
from llmengine._calls import AsyncStream, Stream
from llmengine.data_types import CompletionStreamResponse, CompletionSyncResponse


def blocking(is_streamed: bool) -> None:
    whole = Completion.create("m", "p", 20, 0.2)
    assert_type(whole, CompletionSyncResponse)
    assert_type(Completion.create(model="m", prompt="p", stream=False), CompletionSyncResponse)
    print(whole.output.text)
    pieces = Completion.create("m", "p", timeout=1.0, stream=True)
    assert_type(pieces, Stream[CompletionStreamResponse])
    with pieces:
        for piece in pieces:
            assert_type(piece, CompletionStreamResponse)
    iterated: Iterator[CompletionStreamResponse] = pieces
    either = Completion.create("m", "p", stream=is_streamed, max_retries=0)
    assert_type(either, Union[CompletionSyncResponse, Stream[CompletionStreamResponse]])
    print(iterated)


async def with_event_loop(is_streamed: bool) -> None:
    assert_type(await Completion.acreate("m", "p"), CompletionSyncResponse)
    pieces = await Completion.acreate("m", "p", stream=True)
    assert_type(pieces, AsyncStream[CompletionStreamResponse])
    async for piece in pieces:
        assert_type(piece, CompletionStreamResponse)
    iterated: AsyncIterator[CompletionStreamResponse] = pieces
    either = await Completion.acreate("m", "p", stream=is_streamed)
    assert_type(either, Union[CompletionSyncResponse, AsyncStream[CompletionStreamResponse]])
    print(iterated)
